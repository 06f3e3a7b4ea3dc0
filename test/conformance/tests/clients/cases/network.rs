//! Networks and published ports.

use anyhow::{Result, ensure};
use hull_fixtures::{host, wait};

use hull_conformance::Ground;

const SERVER: &str = "echo hello > /index.html; exec httpd -f -p 80 -h /";

fn address(ground: &Ground, container: &str) -> Result<String> {
    ground.inspect(container, "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}")
}

pub(crate) fn bridge_none_host_and_another_container_s(ground: &Ground) -> Result<()> {
    ground.up(&["--name", "server"], SERVER)?;
    let url = format!("http://{}/", address(ground, "server")?);
    wait::until("the server", || ground.fetch(false, &url).ok())?;
    let between = ground.sh(&[], &format!("wget -q -O - {url}"))?;
    ensure!(between == "hello", "{between}");
    let shared = ground.sh(&["--network", "container:server"], "wget -q -O - http://127.0.0.1/")?;
    ensure!(shared == "hello", "{shared}");
    let none = ground.sh(
        &["--network", "none"],
        "ip -o link | cut -d: -f2; ip route | wc -l; ip -o addr show lo | wc -l",
    )?;
    ensure!(none.starts_with(" lo\n0\n") && !none.ends_with("\n0"), "{none}");
    let host = ground.sh(
        &["--network", "host"],
        &format!("ip -o addr | grep -c {}/24; readlink /proc/self/ns/net", host::ADDRESS),
    )?;
    ensure!(
        host.starts_with("1\n") && host.ends_with(&ground.host.sh("readlink /proc/self/ns/net")?),
        "{host}"
    );
    // Out to the neighbour and back, through the address of the host.
    let out = ground.sh(
        &[],
        &format!(
            "ping -c 1 -W 5 {} | grep -c ' 0% packet loss'; ip route | grep -c ^default",
            host::NEIGHBOUR
        ),
    )?;
    ensure!(out == "1\n1", "{out}");
    Ok(())
}

pub(crate) fn ports_from_everywhere(ground: &Ground) -> Result<()> {
    let id = ground.up(&["--name", "web", "-p", "8080:80", "-p", "127.0.0.1:8081:80", "-p", "80"], SERVER)?;
    let on_host = |address: &str, port: &str| ground.fetch(false, &format!("http://{address}:{port}/"));
    wait::until("the server", || on_host("127.0.0.1", "8080").ok())?;
    ensure!(on_host("127.0.0.1", "8080")? == "hello", "from 127.0.0.1");
    ensure!(on_host(host::ADDRESS, "8080")? == "hello", "from the host's own address");
    ensure!(on_host("127.0.0.1", "8081")? == "hello", "the one for 127.0.0.1 only");
    let outside = |port: &str| ground.fetch(true, &format!("http://{}:{port}/", host::ADDRESS));
    ensure!(outside("8080")? == "hello", "from outside");
    ensure!(outside("8081").is_err(), "a port published on 127.0.0.1 answers outside");
    let given = ground.ok(&["port", "web", "80"])?;
    let given: Vec<&str> = given
        .lines()
        .filter_map(|line| line.rsplit(':').next())
        .filter(|port| !["8080", "8081"].contains(port))
        .collect();
    ensure!(!given.is_empty() && outside(given[0])? == "hello", "{given:?}");
    // From another container, through the host's address.
    let through = ground.sh(&[], &format!("timeout 10 wget -q -O - http://{}:8080/", host::ADDRESS))?;
    ensure!(through == "hello", "{through}");
    ground.refused(
        &["run", "-d", "--name", "second", "-p", "8080:80", "busybox", "sleep", "9"],
        125,
        "8080",
    )?;
    let refused = ground.call(&["start", "second"])?;
    ensure!(refused.code == 1 && refused.stderr.contains("port is already allocated"), "{refused}");
    ground.ok(&["stop", "-t", "0", &id])?;
    ensure!(outside("8080").is_err(), "a stopped container's port answers");
    ground.ok(&["start", "second"])?;
    ground.ok(&["rm", "-f", "second"])?;
    ground.ok(&["start", &id])?;
    wait::until("the server again", || outside("8080").ok()).map(drop)
}

pub(crate) fn own_networks(ground: &Ground) -> Result<()> {
    ensure!(ground.ok(&["network", "ls", "--format", "{{.Name}} {{.Driver}}"])?.lines().count() == 3);
    ground.ok(&[
        "network",
        "create",
        "--subnet",
        "10.77.0.0/24",
        "--gateway",
        "10.77.0.9",
        "--label",
        "a=b",
        "mine",
    ])?;
    ground.up(&["--name", "server", "--network", "mine", "--ip", "10.77.0.33"], SERVER)?;
    ensure!(address(ground, "server")? == "10.77.0.33");
    wait::until("the server", || ground.fetch(false, "http://10.77.0.33/").ok())?;
    let inside = ground
        .sh(&["--network", "mine"], "wget -q -O - http://10.77.0.33/; ip route | grep -o 'via 10.77.0.9'")?;
    ensure!(inside == "hello\nvia 10.77.0.9", "{inside}");
    let apart = ground.sh(&[], "timeout 2 wget -q -O - http://10.77.0.33/ || echo apart")?;
    ensure!(apart == "apart", "networks are not isolated from each other: {apart}");
    let told = ground.ok(&[
        "network",
        "inspect",
        "--format",
        "{{range .Containers}}{{.Name}} {{.IPv4Address}}{{end}}",
        "mine",
    ])?;
    ensure!(told == "server 10.77.0.33/24", "{told}");
    ground.refused(&["network", "create", "mine"], 1, "already exists")?;
    ground.refused(&["network", "create", "--subnet", "10.77.0.128/25", "overlapping"], 1, "overlap")?;
    ground.refused(
        &["network", "rm", "bridge"],
        1,
        "bridge is a pre-defined network and cannot be removed",
    )?;
    ground.ok(&["rm", "-f", "server"])?;
    ground.ok(&["network", "rm", "mine"])?;
    ground.refused(&["network", "inspect", "mine"], 1, "mine not found")
}

pub(crate) fn what_is_in_use_is_not_removed(ground: &Ground) -> Result<()> {
    ground.ok(&["network", "create", "busy"])?;
    ground.lasting(&["--name", "box", "--network", "busy"])?;
    ground.refused(&["network", "rm", "busy"], 1, "has active endpoints")?;
    ground.ok(&["rm", "-f", "box"])?;
    ground.ok(&["network", "rm", "busy"]).map(drop)
}
