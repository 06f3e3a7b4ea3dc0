//! `run` and its flags.

use anyhow::{Result, ensure};
use hull_fixtures::Ran;

use hull_conformance::Ground;

pub(crate) fn output_and_exit_code_are_the_process_s(ground: &Ground) -> Result<()> {
    let ran = ground.call(&["run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 7"])?;
    ensure!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()) == (7, "out\n", "err\n"), "{ran}");
    Ok(())
}

pub(crate) fn exit_codes_tell_what_failed(ground: &Ground) -> Result<()> {
    let missing = "exec: \"nosuch\": executable file not found in $PATH";
    ground.refused(&["run", "--rm", "busybox", "nosuch"], 127, missing)?;
    ground.refused(&["run", "--rm", "busybox", "/no/such"], 127, "no such file or directory")?;
    ground.refused(&["run", "--rm", "busybox", "/etc/passwd"], 126, "permission denied")?;
    ground.refused(&["run", "--rm", "--no-such-flag", "busybox"], 125, "--no-such-flag")?;
    ground.refused(&["run", "--rm", "-w", "relative", "busybox", "true"], 125, "relative")?;
    ground.refused(
        &["run", "--rm", "--network", "nosuch", "busybox", "true"],
        125,
        "network nosuch not found",
    )?;
    let refused = ground.call(&["run", "--rm", "127.0.0.1:1/nosuch", "true"])?;
    ensure!(refused.code == 125 && refused.stderr.contains("127.0.0.1:1"), "{refused}");
    ensure!(ground.ok(&["ps", "-aq"])?.is_empty(), "a failed run left its container");
    Ok(())
}

pub(crate) fn nothing_of_a_failed_run_stays(ground: &Ground) -> Result<()> {
    // Without --rm docker keeps the container, in the state created and with the code of the failure.
    ground.refused(
        &["run", "--name", "failed", "busybox", "nosuch"],
        127,
        "executable file not found in $PATH",
    )?;
    let state = ground.inspect("failed", "{{.State.Status}} {{.State.ExitCode}} {{.State.Pid}}")?;
    ensure!(state == "created 127 0", "{state}");
    ground.ok(&["rm", "failed"]).map(drop)
}

pub(crate) fn standard_input_reaches_the_process(ground: &Ground) -> Result<()> {
    let input = vec![b'x'; 3 << 20];
    let counted =
        Ran::with_input(ground.command(&["run", "--rm", "-i", "busybox", "wc", "-c"]), &input)?.ok()?;
    ensure!(counted.trim() == "3145728", "{counted}");
    // Without -i there is none.
    let ran = Ran::with_input(ground.command(&["run", "--rm", "busybox", "wc", "-c"]), b"given")?.ok()?;
    ensure!(ran.trim() == "0", "{ran}");
    Ok(())
}

pub(crate) fn a_terminal_is_one(ground: &Ground) -> Result<()> {
    let ran = ground.call(&["run", "--rm", "-t", "busybox", "sh", "-c", "tty; echo err >&2; exit 5"])?;
    ensure!((ran.code, ran.stdout.as_str()) == (5, "/dev/pts/0\r\nerr\r\n"), "{ran}");
    ensure!(ground.sh(&[], "tty; true")? == "not a tty");
    // Input can be typed into a terminal only from a terminal.
    let refused = Ran::with_input(ground.command(&["run", "--rm", "-it", "busybox", "true"]), b"")?;
    ensure!(refused.code != 0 && refused.stderr.contains("the input device is not a TTY"), "{refused}");
    Ok(())
}

pub(crate) fn environment_user_folder_and_entrypoint(ground: &Ground) -> Result<()> {
    let said = ground.sh(
        &["-e", "A=1 2", "--env", "B", "-w", "/some/where", "-u", "user", "--group-add", "extra"],
        "echo $A-$B-$HOME; pwd; id -u; id -g; id -G",
    )?;
    ensure!(said == "1 2--/home\n/some/where\n1000\n1001\n1001 1002", "{said}");
    let ids = ground.sh(&["-u", "7:8"], "id -u; id -g; echo $HOME")?;
    ensure!(ids == "7\n8\n/", "{ids}");
    ground.refused(&["run", "--rm", "-u", "nosuch", "busybox", "true"], 125, "unable to find user nosuch")?;
    let said = ground.ok(&["run", "--rm", "--entrypoint", "echo", "busybox", "a", "b"])?;
    ensure!(said == "a b", "{said}");
    let file = ground.host.folder().join("env");
    std::fs::write(&file, "# comment\nC=from file\n")?;
    let said = ground.sh(&["--env-file", &file.display().to_string()], "echo $C")?;
    ensure!(said == "from file", "{said}");
    let id = ground.up(&["--label", "a=b", "-l", "c"], "true")?;
    let labels = ground.inspect(&id, "{{json .Config.Labels}}")?;
    ensure!(labels == "{\"a\":\"b\",\"c\":\"\"}", "{labels}");
    Ok(())
}

pub(crate) fn names_of_the_machine(ground: &Ground) -> Result<()> {
    let said = ground.sh(
        &[
            "--hostname",
            "inner",
            "--add-host",
            "peer:192.0.2.7",
            "--dns",
            "192.0.2.1",
            "--dns-search",
            "example.org",
        ],
        "hostname; grep peer /etc/hosts; grep inner /etc/hosts | wc -l; cat /etc/resolv.conf",
    )?;
    ensure!(said.starts_with("inner\n192.0.2.7\tpeer\n1\n"), "{said}");
    ensure!(said.contains("nameserver 192.0.2.1") && said.contains("search example.org"), "{said}");
    let id = ground.lasting(&["--name", "plain"])?;
    let name = ground.ok(&["exec", "plain", "hostname"])?;
    ensure!(name == id[..12], "{name} is not the short id");
    Ok(())
}

pub(crate) fn rights(ground: &Ground) -> Result<()> {
    let effective = |options: &[&str]| ground.sh(options, "grep ^CapEff /proc/self/status");
    ensure!(effective(&[])? == "CapEff:\t00000000a80425fb", "{}", effective(&[])?);
    let added = effective(&["--cap-add", "NET_ADMIN", "--cap-drop", "CAP_CHOWN"])?;
    ensure!(added == "CapEff:\t00000000a80435fa", "{added}");
    let none = effective(&["--cap-drop", "ALL"])?;
    ensure!(none == "CapEff:\t0000000000000000", "{none}");
    ground.refused(&["run", "--rm", "--cap-add", "NOSUCH", "busybox", "true"], 125, "NOSUCH")?;

    let status = |options: &[&str]| ground.sh(options, "grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status");
    ensure!(status(&[])? == "NoNewPrivs:\t0\nSeccomp:\t2", "{}", status(&[])?);
    let free = status(&["--security-opt", "seccomp=unconfined", "--security-opt", "no-new-privileges"])?;
    ensure!(free == "NoNewPrivs:\t1\nSeccomp:\t0", "{free}");
    let privileged = ground.sh(&["--privileged"], "grep ^Seccomp: /proc/self/status; mount -t tmpfs x /tmp && echo mounted; [ -e /dev/kmsg ] && echo devices")?;
    ensure!(privileged == "Seccomp:\t0\nmounted\ndevices", "{privileged}");
    let plain = ground.sh(
        &[],
        "mount -t tmpfs x /tmp 2>/dev/null || echo refused; unshare -m true 2>/dev/null || echo refused",
    )?;
    ensure!(plain == "refused\nrefused", "{plain}");
    let file = ground.host.folder().join("profile.json");
    std::fs::write(
        &file,
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"}]}"#,
    )?;
    let option = format!("seccomp={}", file.display());
    let own = ground.sh(&["--security-opt", &option], "mkdir /x 2>/dev/null || echo refused")?;
    ensure!(own == "refused", "{own}");
    Ok(())
}

pub(crate) fn file_systems(ground: &Ground) -> Result<()> {
    let said = ground.sh(
        &["--read-only", "--tmpfs", "/scratch:size=1m,mode=1777", "--shm-size", "8m"],
        "touch /x 2>&1; touch /scratch/x && echo scratch; grep -c 'size=1024k' /proc/mounts; grep /dev/shm /proc/mounts | grep -c size=8192k",
    )?;
    ensure!(said.contains("Read-only file system") && said.ends_with("scratch\n1\n1"), "{said}");
    let masked = ground.sh(&[], "cat /proc/kcore 2>/dev/null | head -c 10 | wc -c; ls /sys/firmware | wc -l; echo 1 2>/dev/null >/proc/sys/kernel/panic || echo ro")?;
    ensure!(masked == "0\n0\nro", "{masked}");
    let device = ground.sh(&["--device", "/dev/full:/dev/other:rw"], "echo x 2>&1 > /dev/other; true")?;
    ensure!(device.contains("No space left"), "{device}");
    Ok(())
}

pub(crate) fn limits(ground: &Ground) -> Result<()> {
    let options = ["-m", "64m", "--cpus", "0.5", "--pids-limit", "77", "--ulimit", "nofile=100:200"];
    let script = "for f in memory.max memory/memory.limit_in_bytes cpu.max cpu/cpu.cfs_quota_us pids.max pids/pids.max; \
                  do [ -e /sys/fs/cgroup/$f ] && cat /sys/fs/cgroup/$f; done; ulimit -Sn; ulimit -Hn";
    let said = ground.sh(&options, script)?;
    for line in ["67108864", "77", "100", "200"] {
        ensure!(said.lines().any(|said| said == line), "{line} is not in {said}");
    }
    ensure!(said.lines().any(|line| line == "50000" || line == "50000 100000"), "{said}");
    let id = ground.up(
        &["-m", "16m", "--memory-swap", "16m"],
        "head -c 100000000 /dev/zero | tail -c 100000000 | wc -c",
    )?;
    ground.ok(&["wait", &id])?;
    ground.refused(
        &["run", "--rm", "-m", "1k", "busybox", "true"],
        125,
        "Minimum memory limit allowed is 6MB",
    )
}

pub(crate) fn hello_needs_no_registry(ground: &Ground) -> Result<()> {
    let said = ground.ok(&["run", "--rm", "hello"])?;
    for word in [
        "Hello from Hull",
        "namespaces",
        "own mnt pid net ipc uts cgroup",
        "capabilities",
        "14: chown",
        "seccomp",
        "172.",
    ] {
        ensure!(said.contains(word), "{word} is not in {said}");
    }
    let limited = ground.ok(&["run", "--rm", "--network", "none", "-m", "128m", "--read-only", "hello"])?;
    ensure!(limited.contains("memory 128 MiB") && limited.contains("overlay, read-only"), "{limited}");
    Ok(())
}

pub(crate) fn the_container_is_removed_when_asked(ground: &Ground) -> Result<()> {
    ground.ok(&["run", "--rm", "--name", "gone", "busybox", "true"])?;
    ground.ok(&["run", "--name", "stays", "busybox", "true"])?;
    let names = ground.ok(&["ps", "-a", "--format", "{{.Names}}"])?;
    ensure!(names == "stays", "{names}");
    Ok(())
}

pub(crate) fn a_process_that_reaps(ground: &Ground) -> Result<()> {
    let script = "sh -c 'sleep 0.01 & exec true'; i=0; while ps -o stat | grep -q ^Z && [ $i -lt 500 ]; do usleep 10000; i=$((i+1)); done; \
                  ps -o stat | grep -c ^Z; cat /proc/1/comm";
    let said = ground.sh(&["--init"], script)?;
    ensure!(said.starts_with("0\n") && !said.ends_with("\nsh"), "{said}");
    Ok(())
}
