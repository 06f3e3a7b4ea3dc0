//! Features that few containers ask for.

use crate::suite::{Bundle, runnable};
use crate::{map_users, printed};
use serde_json::{Value, json};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::process::Command;

fn push(config: &mut Value, mount: Value) {
    config["mounts"].as_array_mut().expect("list").push(mount);
}

#[test]
fn exec_runs_on_the_cpus_asked_for() {
    if !runnable() || std::thread::available_parallelism().is_ok_and(|cpus| cpus.get() < 2) {
        return;
    }
    let bundle = Bundle::new(&["sleep", "1000"], |config| {
        config["process"]["execCPUAffinity"] = json!({ "initial": "0", "final": "1" });
    });
    bundle.start();
    let text = bundle.ok(&["exec", bundle.id(), "grep", "Cpus_allowed_list", "/proc/self/status"]);
    assert_eq!(text.split_whitespace().last(), Some("1"));
}

#[test]
fn memory_comes_from_the_nodes_asked_for() {
    if !runnable() || !std::path::Path::new("/proc/self/numa_maps").exists() {
        return;
    }
    let text = printed("cat /proc/self/numa_maps", |config| {
        config["linux"]["memoryPolicy"] =
            json!({ "mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"] });
    });
    assert!(text.lines().next().is_some_and(|line| line.contains("bind")), "{text}");
}

#[test]
fn a_network_interface_moves_with_its_addresses() {
    if !runnable() {
        return;
    }
    let script = "busybox ip -4 addr show eth7 | grep -w inet; busybox ip link show eth7 | grep -c -w UP";
    let bundle = Bundle::new(&["/bin/sh", "-c", script], |config| {
        config["linux"]["netDevices"] = json!({ "hx0": { "name": "eth7" } });
    });
    let runtime = bundle.command(&["run", "-b", bundle.path(), bundle.id()]);
    let script = format!(
        "ip link add hx0 type veth peer name hx1 && ip addr add 10.9.8.7/24 dev hx0 && ip link set hx1 up && {runtime} && \
         ! ip link show hx0 2>/dev/null"
    );
    let output = Command::new("unshare").args(["-n", "sh", "-c", &script]).output().expect("unshare");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("inet 10.9.8.7/24"), "{output:?}");
    assert!(text.lines().any(|line| line.trim() == "1"), "{output:?}");
    let output = bundle.run();
    assert!(output.stderr.contains("linux.netDevices.hx0"), "{output:?}");
    bundle.assert_gone();
}

/// Listens as a seccomp agent and returns what it is told, once.
fn agent(path: &str) -> std::thread::JoinHandle<Value> {
    let listener = UnixListener::bind(path).expect("bind");
    std::thread::spawn(move || {
        let (stream, _) = listener.accept().expect("accept");
        let mut buffer = vec![0; 4096];
        let received = hull_sys::socket::recv_fds(&stream, &mut buffer).expect("receive");
        assert_eq!(received.fds.len(), 1, "the notification descriptor");
        let mut rest = String::new();
        let mut stream = stream;
        stream.read_to_string(&mut rest).expect("the connection is closed");
        serde_json::from_slice(&buffer[..received.length]).expect("json")
    })
}

#[test]
fn a_seccomp_agent_is_told_of_the_process() {
    if !runnable() {
        return;
    }
    let mut socket = String::new();
    let bundle = Bundle::new(&["sleep", "1000"], |config| {
        socket =
            format!("/tmp/{}.sock", config["linux"]["cgroupsPath"].as_str().expect("path").trim_matches('/'));
        // Messages cannot be sent any more once the filter is there, unless the agent says so.
        config["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": socket,
            "listenerMetadata": "told", "syscalls": [{ "names": ["mkdir", "sendmsg"], "action": "SCMP_ACT_NOTIFY" }] });
    });
    let told = agent(&socket);
    bundle.start();
    let told = told.join().expect("agent");
    let state: Value = serde_json::from_str(&bundle.ok(&["state", bundle.id()])).expect("json");
    assert_eq!((&told["metadata"], &told["fds"]), (&json!("told"), &json!(["seccompFd"])));
    assert_eq!((&told["pid"], &told["state"]["pid"]), (&state["pid"], &state["pid"]));
    assert_eq!((&told["state"]["status"], &told["state"]["id"]), (&json!("creating"), &json!(bundle.id())));
    std::fs::remove_file(&socket).expect("remove");
    let told = agent(&socket);
    bundle.ok(&["exec", bundle.id(), "true"]);
    let told = told.join().expect("agent");
    std::fs::remove_file(&socket).expect("remove");
    assert_ne!(told["pid"], state["pid"], "the process of the exec");
    assert_eq!(told["state"]["status"], "running");
    let output = bundle.runtime(&["exec", bundle.id(), "true"]);
    assert!(output.stderr.contains("linux.seccomp.listenerPath"), "without its agent: {output:?}");
}

#[test]
fn exec_joins_cgroups_below() {
    if !runnable() || !std::path::Path::new("/sys/fs/cgroup/pids").exists() {
        return;
    }
    let bundle = Bundle::new(&["sleep", "1000"], |_| ());
    bundle.start();
    let below = format!("/sys/fs/cgroup/pids/{}/below", bundle.id());
    std::fs::create_dir(&below).expect("mkdir");
    let text = bundle.ok(&["exec", "--cgroup", "pids:below", bundle.id(), "cat", "/proc/self/cgroup"]);
    assert!(text.lines().any(|line| line.ends_with(":pids:/below")), "{text}");
    assert!(text.lines().any(|line| line.ends_with(":memory:/")), "{text}");
    for bad in ["pids:../..", "nosuch:below", "pids:none"] {
        let output = bundle.runtime(&["exec", "--cgroup", bad, bundle.id(), "true"]);
        assert!(output.status == 255 && output.stderr.contains("--cgroup"), "{bad}: {output:?}");
    }
}

#[test]
fn capabilities_nobody_knows_are_warned_of() {
    if !runnable() {
        return;
    }
    let bundle = Bundle::new(&["grep", "CapBnd", "/proc/self/status"], |config| {
        config["process"]["capabilities"]["bounding"] = json!(["CAP_KILL", "CAP_TOMORROW"]);
    });
    let output = bundle.run();
    assert_eq!(output.stdout.trim(), "CapBnd:\t0000000000000020", "{output:?}");
    assert!(output.stderr.contains("CAP_TOMORROW"), "{output:?}");
}

#[test]
fn a_bind_mount_maps_ids() {
    if !runnable() {
        return;
    }
    let shared = tempfile::tempdir().expect("directory");
    std::fs::set_permissions(shared.path(), PermissionsExt::from_mode(0o755)).expect("chmod");
    std::fs::write(shared.path().join("file"), "").expect("write");
    chown(shared.path().join("file"), Some(0), Some(0)).expect("chown");
    let source = shared.path().to_str().expect("utf-8").to_owned();
    let mapping = json!([{ "containerID": 0, "hostID": 1234, "size": 1 }]);
    let mount = json!({ "destination": "/secret", "source": source, "options": ["bind", "idmap"],
        "uidMappings": mapping, "gidMappings": mapping });
    let script = "busybox stat -c %u:%g /secret/file";
    assert_eq!(printed(script, |config| push(config, mount)).trim(), "1234:1234");
    // Without mappings of its own it takes the container's: what root of the container sees is root's.
    let mount = json!({ "destination": "/secret", "source": source, "options": ["bind", "idmap"] });
    let text = printed(&format!("{script}; echo x >/secret/made"), |config| {
        map_users(config);
        push(config, mount);
    });
    assert_eq!(text.trim(), "0:0");
    assert_eq!(std::fs::metadata(shared.path().join("made")).expect("made").uid(), 0);
}

#[test]
fn attributes_reach_mounts_below() {
    if !runnable() {
        return;
    }
    let tree = tempfile::tempdir().expect("directory");
    std::fs::create_dir(tree.path().join("below")).expect("mkdir");
    let source = tree.path().to_str().expect("utf-8").to_owned();
    let script =
        "for tree in fixed hidden; do (echo x >/$tree/below/file) 2>/dev/null && echo $tree; done; true";
    let bundle = Bundle::new(&["/bin/sh", "-c", script], |config| {
        push(config, json!({ "destination": "/fixed", "source": source, "options": ["rbind", "ro"] }));
        push(config, json!({ "destination": "/hidden", "source": source, "options": ["rbind", "rro"] }));
    });
    let runtime = bundle.command(&["run", "-b", bundle.path(), bundle.id()]);
    let script = format!("mount -t tmpfs none {source}/below && {runtime}");
    let output = Command::new("unshare").args(["-m", "sh", "-c", &script]).output().expect("unshare");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "fixed\n", "{output:?}");
}

#[test]
fn kill_reaches_all_where_pids_are_shared() {
    if !runnable() {
        return;
    }
    let bundle = Bundle::new(&["/bin/sh", "-c", "sleep 1000 & sleep 1001"], |config| {
        config["linux"]["namespaces"].as_array_mut().expect("list").retain(|n| n["type"] != "pid");
    });
    bundle.start();
    let processes = || bundle.ok(&["ps", "-f", "json", bundle.id()]).matches(',').count() + 1;
    while processes() < 2 {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    bundle.ok(&["kill", bundle.id(), "KILL"]);
    bundle.await_stopped();
    while bundle.ok(&["ps", "-f", "json", bundle.id()]).contains(|c: char| c.is_ascii_digit()) {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

#[test]
fn an_ordinary_user_runs_containers() {
    if !runnable() {
        return;
    }
    const USER: u32 = 54_321;
    let bundle = Bundle::new(&["true"], |_| ());
    let home = format!("{}/home", bundle.path());
    std::fs::create_dir(&home).expect("mkdir");
    chown(&home, Some(USER), Some(USER)).expect("chown");
    std::os::unix::fs::symlink("../rootfs", format!("{home}/rootfs")).expect("link");
    // The program must be where they may execute it.
    let program = format!("{}/hull-runtime", bundle.path());
    std::fs::copy(env!("CARGO_BIN_EXE_hull-runtime"), &program).expect("copy");
    let script = format!(
        "cd {home} && {program} spec --rootless && \
         sed -i 's/\"terminal\": true/\"terminal\": false/; s/\"sh\"/\"sleep\", \"1000\"/' config.json && \
         {program} run -d a </dev/null >out 2>&1 && {program} exec a sh -c 'id -u; cat /proc/self/uid_map' && \
         {program} state a | grep -c running && {program} delete -f a && ls run/hull-runtime; cat out"
    );
    let output = Command::new("setpriv")
        .args(["--reuid", "54321", "--regid", "54321", "--clear-groups", "sh", "-c", &script])
        .env("XDG_RUNTIME_DIR", format!("{home}/run"))
        .output()
        .expect("setpriv");
    let text = String::from_utf8_lossy(&output.stdout).split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(text, "0 0 54321 1 1", "{output:?}");
}

#[test]
fn features_are_those_of_the_specification() {
    let bundle = Bundle::new(&["true"], |_| ());
    let features: Value = serde_json::from_str(&bundle.ok(&["features"])).expect("json");
    let linux = &features["linux"];
    for (feature, value) in [
        ("/cgroup/systemd", json!(true)),
        ("/netDevices/enabled", json!(true)),
        ("/memoryPolicy/modes/0", json!("MPOL_DEFAULT")),
        ("/intelRdt/enabled", json!(true)),
        ("/mountExtensions/idmap/enabled", json!(true)),
    ] {
        assert_eq!(linux.pointer(feature), Some(&value), "{feature}");
    }
    let flags = linux["seccomp"]["supportedFlags"].as_array().expect("list");
    assert!(flags.contains(&json!("SECCOMP_FILTER_FLAG_LOG")), "{flags:?}");
    if !runnable() {
        return;
    }
    // What is listed must be understood.
    for option in features["mountOptions"].as_array().expect("list") {
        let option = option.as_str().expect("text");
        if matches!(option, "remount" | "idmap" | "ridmap") {
            continue;
        }
        let output = Bundle::new(&["true"], |config| {
            let kind = if matches!(option, "bind" | "rbind") {
                json!({ "destination": "/x", "source": "/tmp", "options": [option] })
            } else {
                json!({ "destination": "/x", "type": "tmpfs", "source": "tmpfs", "options": [option] })
            };
            push(config, kind);
        })
        .run();
        assert_eq!(output.status, 0, "{option}: {output:?}");
    }
}
