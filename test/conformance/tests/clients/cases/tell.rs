//! Commands that tell.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use hull_conformance::{Ground, ground::is_id};

pub(crate) fn ps_columns_filters_and_formats(ground: &Ground) -> Result<()> {
    let id = ground.lasting(&["--name", "up", "--label", "k=v"])?;
    ground.up(&["--name", "down"], "exit 3")?;
    ground.ok(&["wait", "down"])?;
    let table = ground.ok(&["ps"])?;
    let header: Vec<&str> = table
        .lines()
        .next()
        .context("nothing")?
        .split("   ")
        .map(str::trim)
        .filter(|word| !word.is_empty())
        .collect();
    ensure!(
        header == ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"],
        "{header:?}"
    );
    let row = table.lines().nth(1).context("no row")?;
    ensure!(row.starts_with(&id[..12]) && row.contains("busybox") && row.ends_with("up"), "{row}");
    ensure!(row.contains("\"sh -c 'trap 'exit 0…\"") && row.contains("Up "), "{row}");
    let names = |options: &[&str]| ground.ok(&[&["ps", "--format", "{{.Names}}"], options].concat());
    ensure!(names(&["-a"])? == "down\nup", "newest first: {}", names(&["-a"])?);
    ensure!(names(&["-a", "-n", "1"])? == "down" && names(&["-l"])? == "down");
    ensure!(
        names(&["--filter", "label=k=v"])? == "up" && names(&["-a", "--filter", "status=exited"])? == "down"
    );
    ensure!(
        names(&["-a", "--filter", "exited=3"])? == "down" && names(&["-a", "--filter", "name=ow"])? == "down"
    );
    ensure!(names(&["-a", "--filter", &format!("id={}", &id[..5])])? == "up");
    ground.refused(&["ps", "--filter", "nosuch=1"], 1, "invalid filter")?;
    let status = ground.ok(&["ps", "-a", "--filter", "name=down", "--format", "{{.Status}}"])?;
    ensure!(status.starts_with("Exited (3) ") && status.ends_with(" ago"), "{status}");
    let json: Value = serde_json::from_str(&ground.ok(&["ps", "--no-trunc", "--format", "json"])?)?;
    ensure!(
        json["ID"] == id && json["Names"] == "up" && json["State"] == "running" && json["Labels"] == "k=v",
        "{json}"
    );
    let own = ground.ok(&["ps", "--format", "table {{.Names}}\t{{.Image}}"])?;
    ensure!(own == "NAMES     IMAGE\nup        busybox", "{own}");
    Ok(())
}

pub(crate) fn inspect_templates(ground: &Ground) -> Result<()> {
    let id = ground.lasting(&["--name", "box", "-e", "A=1"])?;
    ensure!(ground.inspect("box", "{{.Id}}")? == id && ground.inspect(&id[..10], "{{.Name}}")? == "/box");
    ensure!(
        ground.inspect("box", "{{range .Config.Env}}{{println .}}{{end}}")?.lines().any(|line| line == "A=1")
    );
    ensure!(ground.inspect("box", "{{json .Config.Cmd}}")?.starts_with("[\"sh\",\"-c\","));
    ensure!(ground.inspect("box", "{{len .Mounts}}")? == "0");
    let all: Value = serde_json::from_str(&ground.ok(&["inspect", "box"])?)?;
    let told = &all[0];
    ensure!(told["State"]["Status"] == "running" && told["HostConfig"]["NetworkMode"].is_string(), "{told}");
    ensure!(
        told["GraphDriver"]["Name"].is_string()
            && told["Created"].as_str().is_some_and(|time| time.ends_with('Z')),
        "{told}"
    );
    ensure!(told["State"]["FinishedAt"] == "0001-01-01T00:00:00Z", "{told}");
    let image: Value = serde_json::from_str(&ground.ok(&["image", "inspect", "busybox"])?)?;
    ensure!(image[0]["Id"] == told["Image"], "{image}");
    ground.refused(&["inspect", "nosuch"], 1, "nosuch")?;
    ground.refused(&["inspect", "--format", "{{.Nosuch}}", "box"], 1, "template").or_else(|_| {
        // Old clients print the missing value.
        ensure!(ground.inspect("box", "{{.Nosuch}}")? == "<no value>");
        Ok(())
    })
}

pub(crate) fn top_and_stats(ground: &Ground) -> Result<()> {
    let id = ground.up(&["--name", "box", "-m", "64m"], "sleep 1000 & sleep 2000 & wait")?;
    let sleeps = |line: &&str| line.ends_with("  sleep 1000") || line.ends_with("  sleep 2000");
    hull_fixtures::wait::until("three processes", || {
        ground.ok(&["top", "box"]).ok().filter(|table| table.lines().filter(sleeps).count() == 2)
    })?;
    let table = ground.ok(&["top", "box"])?;
    ensure!(table.starts_with("UID") && table.contains("sleep 2000") && table.contains("PPID"), "{table}");
    let stats: Value =
        serde_json::from_str(&ground.ok(&["stats", "--no-stream", "--format", "json", "box"])?)?;
    ensure!(stats["Name"] == "box" && stats["ID"].as_str().is_some_and(|own| id.starts_with(own)), "{stats}");
    ensure!(stats["MemUsage"].as_str().is_some_and(|usage| usage.ends_with(" / 64MiB")), "{stats}");
    ensure!(stats["PIDs"].as_str().and_then(|pids| pids.parse::<u32>().ok()) >= Some(3), "{stats}");
    let header = ground.ok(&["stats", "--no-stream"])?;
    ensure!(
        header.contains("CPU %") && header.contains("MEM USAGE / LIMIT") && header.contains("NET I/O"),
        "{header}"
    );
    Ok(())
}

pub(crate) fn info_version_and_disk_use(ground: &Ground) -> Result<()> {
    ground.lasting(&[])?;
    let counts =
        ground.ok(&["info", "--format", "{{.Containers}} {{.ContainersRunning}} {{.Images}} {{.Driver}}"])?;
    let driver = counts.strip_prefix("1 1 1 ").map(str::trim);
    // The best that works on this machine.
    ensure!(driver.is_some_and(|driver| ["erofs", "overlay2", "vfs"].contains(&driver)), "{counts}");
    let root = ground.ok(&["info", "--format", "{{.DockerRootDir}}"])?;
    ensure!(root == ground.engine.data_root().display().to_string(), "{root}");
    let api = ground.ok(&["version", "--format", "{{.Server.APIVersion}} {{.Server.MinAPIVersion}}"])?;
    ensure!(api.starts_with("1.") && api.ends_with(" 1.24"), "{api}");
    let fields = "{{.Client.APIVersion}} {{.Server.Experimental}} {{.Server.Os}}{{range .Server.Components}} {{.Name}}{{end}}";
    let fields = ground.ok(&["version", "--format", fields])?;
    ensure!(fields.starts_with("1.") && fields.ends_with(" false linux Engine"), "{fields}");
    let fields =
        "{{.CgroupVersion}} {{.CPUCfsQuota}} {{.DefaultAddressPools}} {{.HTTPProxy}}{{.ServerVersion}}";
    ensure!(!ground.ok(&["info", "--format", fields])?.is_empty());
    ensure!(ground.ok(&["version"])?.contains("Server"));
    let disk = ground.ok(&["system", "df", "--format", "{{.Type}} {{.TotalCount}} {{.Active}}"])?;
    ensure!(disk.starts_with("Images 1 1\nContainers 1 1\nLocal Volumes 0 0"), "{disk}");
    Ok(())
}

pub(crate) fn ports(ground: &Ground) -> Result<()> {
    let id = ground.lasting(&["--name", "box", "-p", "127.0.0.1:8080:80", "-p", "9000:90/udp"])?;
    ensure!(is_id(&id));
    let ports = ground.ok(&["port", "box"])?;
    ensure!(
        ports.contains("80/tcp -> 127.0.0.1:8080") && ports.contains("90/udp -> 0.0.0.0:9000"),
        "{ports}"
    );
    ensure!(ground.ok(&["port", "box", "80"])? == "127.0.0.1:8080");
    let shown = ground.ok(&["ps", "--format", "{{.Ports}}"])?;
    ensure!(shown.contains("127.0.0.1:8080->80/tcp"), "{shown}");
    ground.refused(&["port", "box", "81"], 1, "No public port '81' published for box")
}
