//! What few containers ask for.

use std::{fs, io::Read, os::unix::net::UnixListener, process::Stdio};

use anyhow::{Context, Result, ensure};
use hull_fixtures::{Ran, wait};
use serde_json::{Value, json};

use crate::{
    bundle::{Bundle, push},
    under_test::Runtime,
};

pub(crate) fn attributes_reach_mounts_below(runtime: &Runtime) -> Result<()> {
    let script =
        "mount -t tmpfs none /outer/below 2>/dev/null; (echo x >/all/below/x) 2>/dev/null || echo refused";
    let mut bundle = Bundle::sh(runtime, script)?;
    let tree = bundle.folder().join("tree");
    fs::create_dir_all(tree.join("below"))?;
    let tree = tree.display().to_string();
    let mut mount = runtime.host.command("mount".as_ref());
    mount.args(["-t", "tmpfs", "none", &format!("{tree}/below")]);
    Ran::new(mount)?.ok()?;
    bundle.change(|spec| {
        push(
            &mut spec["mounts"],
            json!({"destination": "/all", "type": "bind", "source": tree, "options": ["rbind", "rro"]}),
        );
    })?;
    let said = runtime.run(&bundle)?.ok();
    let mut unmount = runtime.host.command("umount".as_ref());
    unmount.arg(format!("{tree}/below"));
    Ran::new(unmount)?.ok()?;
    ensure!(said? == "refused");
    Ok(())
}

pub(crate) fn a_tmpfs_begins_with_what_it_covers(runtime: &Runtime) -> Result<()> {
    let mut bundle = Bundle::sh(runtime, "cat /full/file; ls -ld /full | cut -c1-10; echo y >/full/file")?;
    fs::create_dir(bundle.rootfs().join("full"))?;
    fs::write(bundle.rootfs().join("full/file"), "kept\n")?;
    bundle.change(|spec| {
        push(
            &mut spec["mounts"],
            json!({"destination": "/full", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"]}),
        );
    })?;
    let said = runtime.run(&bundle)?.ok()?;
    ensure!(said == "kept\ndrwxr-xr-x", "{said}");
    ensure!(fs::read_to_string(bundle.rootfs().join("full/file"))? == "kept\n", "the image was changed");
    Ok(())
}

pub(crate) fn seccomp_gives_the_errno_asked_for(runtime: &Runtime) -> Result<()> {
    let script = "mkdir /tmp/x 2>&1 | grep -o 'Too many.*'; touch /tmp/a; \
                  chmod 600 /tmp/a 2>&1 | grep -o 'Operation.*'; chmod 644 /tmp/a && echo fine";
    let said = runtime.sh(script, |spec| {
        spec["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
            "syscalls": [
                {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 24},
                {"names": ["chmod"], "action": "SCMP_ACT_ERRNO",
                    "args": [{"index": 1, "value": 0o600, "op": "SCMP_CMP_EQ"}]},
            ],
        });
    })?;
    ensure!(said == "Too many open files\nOperation not permitted\nfine", "{said}");
    Ok(())
}

pub(crate) fn seccomp_agents_are_told(runtime: &Runtime) -> Result<()> {
    let mut bundle = Bundle::lasting(runtime)?;
    let path = bundle.folder().join("agent");
    let listener = UnixListener::bind(&path)?;
    let path = path.display().to_string();
    bundle.change(|spec| {
        spec["annotations"] = json!({"key": "value"});
        spec["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path, "listenerMetadata": "told",
            "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}],
        });
    })?;
    let told = std::thread::spawn(move || -> Result<String> {
        let (mut stream, _) = listener.accept()?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    });
    runtime.up(&bundle)?;
    let told = told.join().map_err(|_| anyhow::anyhow!("the agent's thread"))??;
    let told: Value = serde_json::from_str(&told).with_context(|| told.clone())?;
    let pid = runtime.pid(&bundle)?;
    ensure!(
        told["pid"] == pid && told["metadata"] == "told" && told["fds"] == json!(["seccompFd"]),
        "{told}"
    );
    let state = &told["state"];
    ensure!(state["id"] == bundle.id() && state["annotations"]["key"] == "value", "{told}");
    runtime.remove(&bundle)
}

pub(crate) fn a_personality_is_taken(runtime: &Runtime) -> Result<()> {
    let said = runtime.sh("uname -m", |spec| spec["linux"]["personality"] = json!({"domain": "LINUX32"}))?;
    ensure!(said == "i686", "{said}");
    Ok(())
}

pub(crate) fn exec_takes_a_process_from_a_file(runtime: &Runtime) -> Result<()> {
    let bundle = Bundle::lasting(runtime)?;
    runtime.up(&bundle)?;
    let file = bundle.folder().join("process.json");
    let process = json!({
        "user": {"uid": 7, "gid": 8, "additionalGids": [9]}, "cwd": "/tmp", "env": ["PATH=/bin", "A=1"],
        "args": ["/bin/sh", "-c", "id -u; id -G; pwd; echo $A; grep ^NoNewPrivs /proc/self/status"],
        "noNewPrivileges": true,
    });
    fs::write(&file, process.to_string())?;
    let said = runtime.call(&["exec", "--process", &file.display().to_string(), bundle.id()])?.ok()?;
    ensure!(said == "7\n8 9\n/tmp\n1\nNoNewPrivs:\t1", "{said}");
    runtime.remove(&bundle)
}

pub(crate) fn exec_adds_capabilities_and_groups(runtime: &Runtime) -> Result<()> {
    let bundle = Bundle::lasting(runtime)?;
    runtime.up(&bundle)?;
    let script = "id -G; grep ^CapBnd /proc/self/status";
    let arguments =
        ["exec", "--cap", "CAP_SYS_PTRACE", "--additional-gids", "33", bundle.id(), "/bin/sh", "-c", script];
    let said = runtime.call(&arguments)?.ok()?;
    let bits = said.rsplit('\t').next().and_then(|bits| u64::from_str_radix(bits, 16).ok());
    ensure!(said.starts_with("0 33\n") && bits.is_some_and(|bits| bits & 1 << 19 != 0), "{said}");
    runtime.remove(&bundle)
}

pub(crate) fn a_paused_container_runs_nothing(runtime: &Runtime) -> Result<()> {
    let bundle = Bundle::lasting(runtime)?;
    runtime.up(&bundle)?;
    runtime.call(&["pause", bundle.id()])?.ok()?;
    runtime.becomes(&bundle, "paused")?;
    let refused = runtime.call(&["exec", bundle.id(), "/bin/true"])?;
    ensure!(refused.code != 0, "{refused}");
    runtime.call(&["resume", bundle.id()])?.ok()?;
    runtime.becomes(&bundle, "running")?;
    runtime.call(&["exec", bundle.id(), "/bin/true"])?.ok()?;
    runtime.remove(&bundle)
}

pub(crate) fn limits_change(runtime: &Runtime) -> Result<()> {
    let mut bundle = Bundle::lasting(runtime)?;
    bundle.change(|spec| spec["linux"]["resources"]["pids"] = json!({"limit": 100}))?;
    runtime.up(&bundle)?;
    let limit = || fs::read_to_string(format!("/sys/fs/cgroup/pids{}/pids.max", bundle.cgroup()));
    if limit().is_err() {
        // The controllers are in one hierarchy here, which the emulated machine looks at.
        return runtime.remove(&bundle);
    }
    runtime.call(&["update", "--pids-limit", "50", bundle.id()])?.ok()?;
    ensure!(limit()?.trim() == "50");
    let file = bundle.folder().join("resources.json");
    fs::write(&file, r#"{"pids": {"limit": 60}, "memory": {"limit": 67108864}}"#)?;
    runtime.call(&["update", "--resources", &file.display().to_string(), bundle.id()])?.ok()?;
    ensure!(limit()?.trim() == "60");
    let memory = format!("/sys/fs/cgroup/memory{}/memory.limit_in_bytes", bundle.cgroup());
    ensure!(fs::read_to_string(memory)?.trim() == "67108864");
    runtime.remove(&bundle)
}

pub(crate) fn statistics_have_one_form(runtime: &Runtime) -> Result<()> {
    let mut bundle = Bundle::lasting(runtime)?;
    bundle.change(|spec| {
        spec["linux"]["resources"]["memory"] = json!({"limit": 67_108_864});
        spec["linux"]["resources"]["pids"] = json!({"limit": 100});
    })?;
    runtime.up(&bundle)?;
    let said = runtime.call(&["events", "--stats", bundle.id()])?.ok()?;
    let event: Value = serde_json::from_str(&said).with_context(|| said.clone())?;
    ensure!(event["type"] == "stats" && event["id"] == bundle.id(), "{event}");
    let data = &event["data"];
    ensure!(data["memory"]["usage"]["limit"] == 67_108_864, "{event}");
    ensure!(data["pids"]["limit"] == 100 && data["pids"]["current"].as_u64() >= Some(1), "{event}");
    for field in ["/cpu/usage/total", "/cpu/usage/user", "/memory/usage/usage", "/memory/raw/cache"] {
        ensure!(data.pointer(field).is_some_and(Value::is_u64), "{field}: {event}");
    }
    ensure!(data["blkio"].is_object() && data["hugetlb"].is_object(), "{event}");
    runtime.remove(&bundle)
}

pub(crate) fn descriptors_are_kept_on_request(runtime: &Runtime) -> Result<()> {
    let bundle = Bundle::sh(runtime, "cat <&3; ls /proc/self/fd | wc -l")?;
    let file = bundle.folder().join("given");
    fs::write(&file, "given\n")?;
    let command = runtime.command(&["run", "--preserve-fds", "1", "--bundle", bundle.path(), bundle.id()]);
    // The shell opens what the runtime finds open.
    let mut shell = std::process::Command::new("sh");
    shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell.args(["-c", "exec 3<\"$0\" 9</; exec \"$@\""]).arg(&file);
    shell.arg(command.get_program()).args(command.get_args());
    shell.stdin(Stdio::null());
    let said = Ran::new(shell)?.ok()?;
    // Standard streams, the one that was given, and the folder ls reads.
    ensure!(said == "given\n5", "{said}");
    Ok(())
}

pub(crate) fn a_hook_that_takes_too_long_is_ended(runtime: &Runtime) -> Result<()> {
    let mut bundle = Bundle::new(runtime)?;
    bundle.change(|spec| {
        spec["hooks"] =
            json!({"createRuntime": [{"path": "/bin/sleep", "args": ["sleep", "1000"], "timeout": 1}]});
    })?;
    let ran = runtime.run(&bundle)?;
    ensure!(ran.code != 0, "{ran}");
    ensure!(runtime.state(&bundle).is_none(), "the container stayed");
    Ok(())
}

pub(crate) fn deleting_what_is_not_there_is_fine_by_force(runtime: &Runtime) -> Result<()> {
    runtime.call(&["delete", "--force", "nothing"])?.ok()?;
    ensure!(runtime.call(&["delete", "nothing"])?.code != 0);
    Ok(())
}

pub(crate) fn kill_all_reaches_all(runtime: &Runtime) -> Result<()> {
    let mut bundle = Bundle::sh(runtime, "sleep 1000 & sleep 1001; true")?;
    bundle.change(|spec| {
        if let Some(namespaces) = spec["linux"]["namespaces"].as_array_mut() {
            namespaces.retain(|namespace| namespace["type"] != "pid");
        }
    })?;
    runtime.up(&bundle)?;
    let processes = || {
        let said = runtime.call(&["ps", "--format", "json", bundle.id()]).and_then(Ran::ok).ok()?;
        serde_json::from_str::<Vec<u64>>(&said).ok().map(|pids| pids.len())
    };
    wait::until_is("processes", &Some(3), processes)?;
    runtime.call(&["kill", "--all", bundle.id(), "KILL"])?.ok()?;
    runtime.becomes(&bundle, "stopped")?;
    runtime.remove(&bundle)
}
