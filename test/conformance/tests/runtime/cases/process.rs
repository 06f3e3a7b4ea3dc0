//! The process that runs in the container, and more of them.

use std::{
    fs::File,
    io::{IoSliceMut, Read},
    mem::MaybeUninit,
    os::{fd::OwnedFd, unix::net::UnixListener},
    process::Stdio,
};

use anyhow::{Context, Result, ensure};
use hull_fixtures::wait;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::json;

use crate::{bundle::Bundle, under_test::Runtime};

pub(crate) fn user_groups_and_umask(runtime: &Runtime) -> Result<()> {
    let said = runtime.sh("id -u; id -g; id -G; umask; grep ^CapEff /proc/self/status", |spec| {
        spec["process"]["user"] = json!({"uid": 1000, "gid": 1001, "additionalGids": [5, 6], "umask": 0o27});
    })?;
    ensure!(said == "1000\n1001\n1001 5 6\n0027\nCapEff:\t0000000000000000", "{said}");
    Ok(())
}

pub(crate) fn environment_and_folder(runtime: &Runtime) -> Result<()> {
    let said = runtime.sh("pwd; echo $A; env | wc -l", |spec| {
        spec["process"]["cwd"] = json!("/tmp");
        spec["process"]["env"] = json!(["PATH=/bin", "A=b c", "HOME=/h"]);
    })?;
    // The shell adds PWD and SHLVL.
    ensure!(said.starts_with("/tmp\nb c\n") && said.ends_with('5'), "{said}");
    Ok(())
}

pub(crate) fn resource_limits(runtime: &Runtime) -> Result<()> {
    let said = runtime.sh("ulimit -Sn; ulimit -Hn; ulimit -Hc", |spec| {
        spec["process"]["rlimits"] = json!([
            {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200},
            {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
        ]);
    })?;
    ensure!(said == "100\n200\n0", "{said}");
    Ok(())
}

pub(crate) fn sysctls(runtime: &Runtime) -> Result<()> {
    let said = runtime.sh("cat /proc/sys/net/ipv4/ip_unprivileged_port_start", |spec| {
        spec["linux"]["sysctl"] = json!({"net.ipv4.ip_unprivileged_port_start": "77"});
    })?;
    ensure!(said == "77", "{said}");
    Ok(())
}

pub(crate) fn oom_score(runtime: &Runtime) -> Result<()> {
    let said =
        runtime.sh("cat /proc/self/oom_score_adj", |spec| spec["process"]["oomScoreAdj"] = json!(321))?;
    ensure!(said == "321", "{said}");
    Ok(())
}

pub(crate) fn exec_runs_in_the_container(runtime: &Runtime) -> Result<()> {
    let bundle = Bundle::lasting(runtime)?;
    runtime.up(&bundle)?;
    let script = "hostname; cat /proc/1/comm; grep ^CapEff /proc/self/status; for n in pid net mnt uts ipc cgroup; do \
                  [ $(readlink /proc/self/ns/$n) = $(readlink /proc/1/ns/$n) ] || echo other $n; done; cat /proc/self/cgroup >/tmp/own; \
                  cat /proc/1/cgroup | cmp - /tmp/own && echo same";
    let said = runtime.call(&["exec", bundle.id(), "/bin/sh", "-c", script])?.ok()?;
    ensure!(said == "bundle\nsh\nCapEff:\t00000000a80425fb\nsame", "{said}");
    runtime.remove(&bundle)
}

pub(crate) fn exec_takes_user_environment_and_folder(runtime: &Runtime) -> Result<()> {
    let bundle = Bundle::lasting(runtime)?;
    runtime.up(&bundle)?;
    let said = runtime
        .call(&[
            "exec",
            "--user",
            "5:6",
            "--env",
            "A=1",
            "--cwd",
            "/tmp",
            bundle.id(),
            "/bin/sh",
            "-c",
            "id -u; id -g; pwd; echo $A $HOME",
        ])?
        .ok()?;
    ensure!(said.starts_with("5\n6\n/tmp\n1"), "{said}");
    runtime.remove(&bundle)
}

pub(crate) fn exec_codes(runtime: &Runtime) -> Result<()> {
    let bundle = Bundle::lasting(runtime)?;
    runtime.up(&bundle)?;
    ensure!(runtime.call(&["exec", bundle.id(), "/bin/sh", "-c", "exit 9"])?.code == 9);
    let missing = runtime.call(&["exec", bundle.id(), "nosuch"])?;
    ensure!(missing.code != 0 && missing.stderr.contains("executable file not found in $PATH"), "{missing}");
    if runtime.is_own() {
        let killed = runtime.call(&["exec", bundle.id(), "/bin/sh", "-c", "kill -9 $$"])?;
        ensure!(killed.code == 137, "{killed}");
    }
    ensure!(runtime.status(&bundle).as_deref() == Some("running"), "an exec ended the container");
    runtime.remove(&bundle)
}

pub(crate) fn a_terminal_is_sent_to_the_console_socket(runtime: &Runtime) -> Result<()> {
    let mut bundle =
        Bundle::sh(runtime, "test -t 0 && test -t 1 && stty size && tty; read line; echo got $line")?;
    bundle.change(|spec| {
        spec["process"]["terminal"] = json!(true);
        spec["process"]["consoleSize"] = json!({"height": 33, "width": 77});
    })?;
    let socket = bundle.folder().join("console.sock");
    let listener = UnixListener::bind(&socket)?;
    let received = std::thread::spawn(move || receive(&listener));
    let mut create = runtime.command(&["create", "--bundle", bundle.path(), "--console-socket"]);
    create.arg(&socket).arg(bundle.id()).stdin(Stdio::null()).stdout(Stdio::null());
    ensure!(create.status()?.success(), "create failed");
    let terminal = received.join().ok().context("the receiver")??;
    runtime.start(&bundle)?;
    let mut terminal = File::from(terminal);
    let mut said = read_until(&mut terminal, "/dev/pts/0")?;
    ensure!(said.contains("33 77"), "{said}");
    std::io::Write::write_all(&mut terminal, b"typed\n")?;
    said.push_str(&read_until(&mut terminal, "got typed")?);
    runtime.becomes(&bundle, "stopped")?;
    runtime.remove(&bundle)
}

/// The descriptor that comes over the first connection.
fn receive(listener: &UnixListener) -> Result<OwnedFd> {
    let (stream, _) = listener.accept()?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = [0; 64];
    recvmsg(&stream, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(mut descriptors) = message {
            return descriptors.next().context("an empty message");
        }
    }
    anyhow::bail!("no descriptor came")
}

fn read_until(terminal: &mut File, end: &str) -> Result<String> {
    let mut said = String::new();
    wait::until(end, || {
        let mut bytes = [0; 1024];
        // The end of a terminal is an error.
        let count = terminal.read(&mut bytes).unwrap_or_default();
        said.push_str(&String::from_utf8_lossy(&bytes[..count]));
        said.contains(end).then_some(())
    })?;
    Ok(said)
}
