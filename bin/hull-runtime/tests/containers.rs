//! The runtime's commands on real containers. Needs root and a static busybox; says so and passes where one is missing.

mod features;
mod suite;

use serde_json::{Value, json};
use suite::{Bundle, runnable};

/// A change of the base configuration.
type Change = fn(&mut Value);

/// What a shell prints in a container of the base configuration, changed.
fn shell(script: &str, change: impl FnOnce(&mut Value)) -> suite::Output {
    let bundle = Bundle::new(&["/bin/sh", "-c", script], change);
    bundle.run()
}

fn printed(script: &str, change: impl FnOnce(&mut Value)) -> String {
    let output = shell(script, change);
    assert_eq!(output.status, 0, "{script}: {}", output.stderr);
    output.stdout
}

fn set_namespace(config: &mut Value, kind: &str, path: Option<String>) {
    let list = config["linux"]["namespaces"].as_array_mut().expect("namespaces");
    list.retain(|namespace| namespace["type"] != kind);
    list.push(match path {
        Some(path) => json!({ "type": kind, "path": path }),
        None => json!({ "type": kind }),
    });
}

#[test]
fn every_namespace_is_its_own() {
    if !runnable() {
        return;
    }
    let kinds = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"];
    let script = kinds.map(|kind| format!("busybox readlink /proc/self/ns/{kind};")).concat();
    let inside = printed(&script, |config| {
        set_namespace(config, "time", None);
        map_users(config);
    });
    for (kind, inside) in kinds.iter().zip(inside.lines()) {
        let outside = std::fs::read_link(format!("/proc/self/ns/{kind}")).expect("namespace");
        assert_ne!(inside, outside.to_str().expect("utf-8"), "{kind}");
    }
}

fn map_users(config: &mut Value) {
    set_namespace(config, "user", None);
    let mapping = json!([{ "containerID": 0, "hostID": 100_000, "size": 65_536 }]);
    config["linux"]["uidMappings"] = mapping.clone();
    config["linux"]["gidMappings"] = mapping;
}

#[test]
fn a_user_namespace_maps_root_to_nobody_special() {
    if !runnable() {
        return;
    }
    let text = printed("id -u; cat /proc/self/uid_map; echo x > /dev/null && echo null", map_users);
    let words: Vec<_> = text.split_whitespace().collect();
    assert_eq!(words, ["0", "0", "100000", "65536", "null"]);
}

#[test]
fn namespaces_are_entered_by_path() {
    if !runnable() {
        return;
    }
    for (kind, file) in [("network", "net"), ("ipc", "ipc"), ("uts", "uts"), ("pid", "pid")] {
        let path = format!("/proc/{}/ns/{file}", std::process::id());
        let inside = printed(&format!("busybox readlink /proc/self/ns/{file}"), |config| {
            if kind == "uts" {
                config.as_object_mut().expect("object").remove("hostname");
            }
            set_namespace(config, kind, Some(path));
        });
        let outside = std::fs::read_link(format!("/proc/self/ns/{file}")).expect("namespace");
        assert_eq!(inside.trim(), outside.to_str().expect("utf-8"));
    }
}

#[test]
fn time_offsets_move_the_clock() {
    if !runnable() {
        return;
    }
    let text = printed("cat /proc/uptime", |config| {
        set_namespace(config, "time", None);
        config["linux"]["timeOffsets"] = json!({ "boottime": { "secs": 1_000_000_000 } });
    });
    let uptime: f64 = text.split(' ').next().expect("uptime").parse().expect("number");
    assert!(uptime > 1e9, "{uptime}");
}

#[test]
fn names_limits_and_sysctls_are_set() {
    if !runnable() {
        return;
    }
    let script = "hostname; cat /proc/sys/kernel/domainname /proc/sys/net/ipv4/ip_forward; ulimit -n; ulimit -Hn; \
                  cat /proc/self/oom_score_adj; umask";
    let text = printed(script, |config| {
        config["domainname"] = json!("example");
        config["linux"]["sysctl"] = json!({ "net.ipv4.ip_forward": "1" });
        config["process"]["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 123, "hard": 456 }]);
        config["process"]["oomScoreAdj"] = json!(500);
        config["process"]["user"]["umask"] = json!(0o27);
    });
    assert_eq!(
        text.split_whitespace().collect::<Vec<_>>(),
        ["test", "example", "1", "123", "456", "500", "0027"]
    );
}

#[test]
fn the_cgroup_limits_and_hides() {
    if !runnable() {
        return;
    }
    let bundle = Bundle::new(
        &[
            "/bin/sh",
            "-c",
            "cat /proc/self/cgroup | grep -v ':/$'; ls /sys/fs/cgroup; while :; do sleep 1 || exit; done",
        ],
        |config| {
            config["linux"]["resources"]["memory"] = json!({ "limit": 67_108_864, "swap": 67_108_864 });
            config["linux"]["resources"]["pids"] = json!({ "limit": 20 });
            config["linux"]["resources"]["cpu"] = json!({ "quota": 50_000, "period": 100_000 });
        },
    );
    bundle.start();
    let stats: Value = serde_json::from_str(&bundle.ok(&["events", "--stats", bundle.id()])).expect("json");
    assert_eq!(stats["data"]["memory"]["usage"]["limit"], json!(67_108_864));
    assert_eq!(stats["data"]["pids"]["limit"], json!(20));
    assert!(stats["data"]["pids"]["current"].as_u64().expect("number") >= 1);
    bundle.ok(&["update", "--pids-limit", "30", "--memory", "128m", "--memory-swap", "128m", bundle.id()]);
    let stats: Value = serde_json::from_str(&bundle.ok(&["events", "--stats", bundle.id()])).expect("json");
    assert_eq!(stats["data"]["memory"]["usage"]["limit"], json!(134_217_728));
    assert_eq!(stats["data"]["pids"]["limit"], json!(30));
    let fork = bundle.runtime(&["exec", bundle.id(), "sh", "-c", "grep -c ':/$' /proc/self/cgroup"]);
    let all = std::fs::read_to_string("/proc/self/cgroup").expect("cgroup").lines().count();
    assert_eq!(fork.stdout.trim(), all.to_string(), "exec sees the cgroup namespace's root: {}", fork.stderr);
}

#[test]
fn memory_beyond_the_limit_kills() {
    if !runnable() {
        return;
    }
    let output = shell("busybox tail /dev/zero; echo $?", |config| {
        config["linux"]["resources"]["memory"] = json!({ "limit": 16_777_216, "swap": 16_777_216 });
    });
    assert_eq!(output.stdout.trim(), "137", "{}", output.stderr);
}

#[test]
fn capabilities_seccomp_and_no_new_privileges_are_as_asked() {
    if !runnable() {
        return;
    }
    let script = "grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status | busybox awk '{print $2}'";
    let policy = json!({
        "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77 }],
    });
    for no_new_privileges in [true, false] {
        let text = printed(script, |config| {
            config["process"]["noNewPrivileges"] = json!(no_new_privileges);
            config["process"]["capabilities"] = json!({
                "bounding": ["CAP_CHOWN", "CAP_NET_RAW"], "permitted": ["CAP_CHOWN"], "effective": ["CAP_CHOWN"],
            });
            config["linux"]["seccomp"] = policy.clone();
        });
        let flag = if no_new_privileges { "1" } else { "0" };
        let zero = "0000000000000000";
        let both = "0000000000002001";
        // Without no_new_privs root gets at execve what the bounding set allows.
        let has = if no_new_privileges { "0000000000000001" } else { both };
        assert_eq!(text.split_whitespace().collect::<Vec<_>>(), [zero, has, has, both, zero, flag, "2"]);
    }
    let output = shell("busybox mkdir /made", |config| config["linux"]["seccomp"] = policy.clone());
    assert!(output.status != 0 && !output.stderr.is_empty());
}

#[test]
fn a_user_has_its_groups_and_only_ambient_capabilities() {
    if !runnable() {
        return;
    }
    let text = printed(
        "id; grep CapEff /proc/self/status; test -w /dev/stdout && echo ok; echo $HOME",
        |config| {
            config["process"]["user"] = json!({ "uid": 1000, "gid": 1001, "additionalGids": [5, 7] });
            let set = json!(["CAP_NET_RAW"]);
            config["process"]["capabilities"] = json!({ "bounding": set, "permitted": set, "effective": set, "inheritable": set, "ambient": set });
        },
    );
    assert!(text.starts_with("uid=1000(user) gid=1001 groups=5,7"), "{text}");
    assert!(text.contains("0000000000002000"), "{text}");
    assert!(text.contains("ok\n/home/user"), "{text}");
}

#[test]
fn mounts_take_their_options() {
    if !runnable() {
        return;
    }
    let host = tempfile::tempdir().expect("directory");
    std::fs::write(host.path().join("file"), "content").expect("write");
    let source = host.path().to_str().expect("utf-8");
    let text = printed(
        "cat /data/file; echo x > /data/file || echo refused; ls /copied; cat /proc/self/mountinfo",
        |config| {
            let mounts = config["mounts"].as_array_mut().expect("mounts");
            mounts.push(json!({ "destination": "/data", "source": source, "options": ["rbind", "rro", "nosuid", "noexec"] }));
            mounts.push(
                json!({ "destination": "/etc/one", "source": format!("{source}/file"), "options": ["bind"] }),
            );
            mounts.push(json!({ "destination": "/copied", "type": "tmpfs", "source": "t", "options": ["tmpcopyup", "size=1m"] }));
        },
    );
    assert!(text.starts_with("contentrefused\nkept\n"), "{text}");
    let data = text.lines().find(|line| line.contains(" /data ")).expect("mount");
    assert!(data.contains("ro,nosuid,noexec"), "{data}");
    assert!(!data.contains("shared:"), "{data}");
    assert!(text.lines().any(|line| line.contains(" /etc/one ")));
}

#[test]
fn a_shared_tree_gives_nothing_back() {
    if !runnable() {
        return;
    }
    // In a mount namespace of our own whose mounts are shared, as systemd makes them.
    let before = std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let host = tempfile::tempdir().expect("directory");
    let source = host.path().to_str().expect("utf-8").to_owned();
    let bundle = Bundle::new(&["/bin/true"], |config| {
        let mounts = config["mounts"].as_array_mut().expect("mounts");
        mounts.push(json!({ "destination": "/data", "source": source, "options": ["rbind"] }));
        mounts.push(json!({ "destination": "/data/deep", "type": "tmpfs", "source": "t", "options": [] }));
    });
    let runtime = bundle.command(&["run", "-b", bundle.path(), bundle.id()]);
    let script = format!("{runtime}; cat /proc/self/mountinfo");
    let output = std::process::Command::new("unshare")
        .args(["-m", "--propagation", "shared", "sh", "-c", &script])
        .output()
        .expect("unshare");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!text.contains(&source) && !text.contains(bundle.path()), "{text}");
    assert_eq!(before, std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo"));
}

#[test]
fn masked_and_read_only_paths_are() {
    if !runnable() {
        return;
    }
    let script = "cat /secret/file; ls /hidden; echo x > /hidden/y || echo hidden-ro; echo y > /fixed/z || echo fixed-ro; \
                  echo 1 > /proc/sys/kernel/printk || echo proc-ro; busybox stat -c %t:%T /secret/file";
    let text = printed(script, |config| {
        config["linux"]["maskedPaths"] = json!(["/secret/file", "/hidden", "/does/not/exist"]);
        config["linux"]["readonlyPaths"] = json!(["/fixed", "/proc/sys", "/missing"]);
    });
    assert_eq!(text.split_whitespace().collect::<Vec<_>>(), ["hidden-ro", "fixed-ro", "proc-ro", "1:3"]);
}

#[test]
fn a_read_only_root_is() {
    if !runnable() {
        return;
    }
    let text = printed("echo x > /new || echo refused; echo x > /dev/shm/new && echo works", |config| {
        config["root"]["readonly"] = json!(true);
    });
    assert_eq!(text, "refused\nworks\n");
}

#[test]
fn devices_are_there_and_others_forbidden() {
    if !runnable() {
        return;
    }
    let script = "for d in null zero full random urandom tty; do busybox stat -c '%t:%T %a' /dev/$d; done; \
                  busybox stat -c '%t:%T %a %u:%g' /dev/mine; for l in ptmx fd stdin; do busybox readlink /dev/$l; done; \
                  busybox mknod /disk b 7 0; busybox dd if=/disk count=1 2>/dev/null || echo forbidden";
    let text = printed(script, |config| {
        config["linux"]["devices"] = json!([{ "path": "/dev/mine", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640, "uid": 5, "gid": 6 }]);
    });
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[..6], ["1:3 666", "1:5 666", "1:7 666", "1:8 666", "1:9 666", "5:0 666"]);
    assert_eq!(lines[6..], ["a:e5 640 5:6", "pts/ptmx", "/proc/self/fd", "/proc/self/fd/0", "forbidden"]);
}

#[test]
fn the_terminal_is_the_containers_own() {
    if !runnable() {
        return;
    }
    let output = shell("test -t 0 && busybox stty size && busybox tty && ls -l /dev/console", |config| {
        config["process"]["terminal"] = json!(true);
        config["process"]["consoleSize"] = json!({ "height": 33, "width": 99 });
    });
    assert!(output.stdout.starts_with("33 99\n/dev/pts/0\n"), "{output:?}");
    assert!(output.stdout.contains("136,"), "{output:?}");
}

#[test]
fn hooks_run_in_order_with_the_state() {
    if !runnable() {
        return;
    }
    let directory = tempfile::tempdir().expect("directory");
    let log = directory.path().join("log");
    let hook = |name: &str| {
        let script = format!("printf '{name} ' >> {0}; cat >> {0}; echo >> {0}", log.display());
        json!([{ "path": "/bin/sh", "args": ["sh", "-c", script], "timeout": 20 }])
    };
    let text = printed("echo main", |config| {
        for name in ["prestart", "createRuntime", "createContainer", "poststart", "poststop"] {
            config["hooks"][name] = hook(name);
        }
        config["hooks"]["startContainer"] =
            json!([{ "path": "/bin/sh", "args": ["sh", "-c", "echo in the container"] }]);
        config["annotations"] = json!({ "a.b": "c" });
    });
    assert_eq!(text, "in the container\nmain\n");
    let log = std::fs::read_to_string(log).expect("log");
    let seen: Vec<(&str, String)> = log
        .lines()
        .map(|line| {
            let (name, state) = line.split_once(' ').expect("name and state");
            let state: Value = serde_json::from_str(state).expect(name);
            assert_eq!(state["annotations"]["a.b"], "c");
            (name, state["status"].as_str().expect("status").to_owned())
        })
        .collect();
    let expected = [
        ("prestart", "creating"),
        ("createRuntime", "creating"),
        ("createContainer", "creating"),
        ("poststart", "running"),
        ("poststop", "stopped"),
    ];
    assert_eq!(seen, expected.map(|(name, status)| (name, status.to_owned())));
}

#[test]
fn a_failed_or_slow_hook_fails_the_container_and_leaves_nothing() {
    if !runnable() {
        return;
    }
    for (kind, hook) in [
        ("createRuntime", json!([{ "path": "/bin/sleep", "args": ["sleep", "30"], "timeout": 1 }])),
        ("createContainer", json!([{ "path": "/bin/false" }])),
        ("startContainer", json!([{ "path": "/nonexistent" }])),
    ] {
        let bundle = Bundle::new(&["/bin/true"], |config| config["hooks"][kind] = hook);
        let output = bundle.run();
        assert!(output.status != 0 && output.stderr.contains(kind), "{output:?}");
        bundle.assert_gone();
    }
}

#[test]
fn exit_codes_are_the_commands() {
    if !runnable() {
        return;
    }
    assert_eq!(shell("exit 42", |_| ()).status, 42);
    // An init ignores what it does not handle; a child of it does not.
    assert_eq!(shell("sh -c 'kill -9 $$'; exit $?", |_| ()).status, 137);
    assert_eq!(shell("sh -c 'kill -TERM $$'; exit $?", |_| ()).status, 143);
}

#[test]
fn commands_that_cannot_run_say_why() {
    if !runnable() {
        return;
    }
    for (command, message) in [
        ("nosuch", "exec: \"nosuch\": executable file not found in $PATH"),
        ("/no/such", "exec: \"/no/such\": stat /no/such: no such file or directory"),
        ("/bin", "exec: \"/bin\": is a directory"),
        ("/plain", "exec: \"/plain\": permission denied"),
        ("/garbage", "exec /garbage: exec format error"),
    ] {
        let bundle = Bundle::new(&[command], |_| ());
        let output = bundle.run();
        assert_eq!(output.status, 1);
        assert!(output.stderr.contains(message), "{command}: {}", output.stderr);
        bundle.assert_gone();
    }
}

#[test]
fn a_container_lives_through_its_states() {
    if !runnable() {
        return;
    }
    let bundle = Bundle::new(&["/bin/sleep", "1000"], |_| ());
    let id = bundle.id();
    let pid_file = format!("{}/pid", bundle.path());
    bundle.ok(&["create", "-b", bundle.path(), "--pid-file", &pid_file, id]);
    let state = |expected: &str| {
        let state: Value = serde_json::from_str(&bundle.ok(&["state", id])).expect("json");
        assert_eq!(state["status"], expected);
        state["pid"].as_i64().expect("pid")
    };
    let pid = state("created");
    assert_eq!(std::fs::read_to_string(&pid_file).expect("pid file"), pid.to_string());
    assert!(bundle.runtime(&["create", "-b", bundle.path(), id]).stderr.contains("already exists"));
    bundle.ok(&["start", id]);
    state("running");
    assert!(bundle.runtime(&["start", id]).stderr.contains("cannot start an already running container"));
    assert!(bundle.ok(&["list", "-q"]).contains(id));
    assert!(bundle.ok(&["ps", "--format", "json", id]).contains(&pid.to_string()));
    bundle.ok(&["pause", id]);
    state("paused");
    assert!(bundle.runtime(&["exec", id, "true"]).stderr.contains("paused container"));
    bundle.ok(&["resume", id]);
    assert!(bundle.runtime(&["delete", id]).stderr.contains("that is not stopped"));
    bundle.ok(&["kill", id, "KILL"]);
    bundle.await_stopped();
    assert_eq!(bundle.runtime(&["kill", id]).stderr.trim(), "hull-runtime: error: container not running");
    bundle.ok(&["delete", id]);
    bundle.assert_gone();
    bundle.ok(&["delete", "--force", id]);
    assert_eq!(bundle.runtime(&["delete", id]).status, 1);
}

#[test]
fn a_failed_start_is_reported_by_start() {
    if !runnable() {
        return;
    }
    let bundle = Bundle::new(&["/garbage"], |_| ());
    bundle.ok(&["create", "-b", bundle.path(), bundle.id()]);
    let output = bundle.runtime(&["start", bundle.id()]);
    assert!(output.status == 1 && output.stderr.contains("exec format error"), "{output:?}");
    bundle.await_stopped();
}

#[test]
fn exec_is_in_the_container() {
    if !runnable() {
        return;
    }
    let bundle = Bundle::new(&["/bin/sleep", "1000"], map_users);
    bundle.start();
    let id = bundle.id();
    let exec = |arguments: &[&str]| {
        let mut all = vec!["exec"];
        all.extend(arguments);
        bundle.runtime(&all)
    };
    let script = "for n in cgroup ipc mnt net pid user uts; do \
                  test $(busybox readlink /proc/self/ns/$n) = $(busybox readlink /proc/1/ns/$n) || echo $n differs; done; \
                  grep -E 'CapEff|Seccomp:' /proc/self/status | busybox awk '{print $2}'; ls /proc/self/fd | busybox wc -l; exit 9";
    let output = exec(&[id, "sh", "-c", script]);
    assert_eq!((output.status, output.stdout.as_str()), (9, "00000000a80425fb\n2\n4\n"), "{output:?}");
    let output = exec(&[
        "-u",
        "1000:1001",
        "-g",
        "7",
        "-e",
        "A=b",
        "--cwd",
        "/tmp",
        id,
        "sh",
        "-c",
        "id; echo $A; pwd",
    ]);
    assert_eq!(output.stdout, "uid=1000(user) gid=1001 groups=7\nb\n/tmp\n", "{output:?}");
    let output = exec(&["-t", id, "sh", "-c", "busybox tty; test -t 1 && echo terminal"]);
    assert_eq!(output.stdout, "/dev/pts/0\nterminal\n", "{output:?}");
    let output = exec(&[id, "nosuch"]);
    assert_eq!(output.status, 255);
    assert!(output.stderr.contains("exec: \"nosuch\": executable file not found in $PATH"), "{output:?}");
    assert_eq!(exec(&[id, "sh", "-c", "kill -9 $$"]).status, 137);
}

#[test]
fn impossible_configurations_name_their_field() {
    if !runnable() {
        return;
    }
    let cases: [(&str, Change); 25] = [
        ("linux.netDevices", |c| {
            c["linux"]["namespaces"].as_array_mut().expect("list").retain(|n| n["type"] != "network");
            c["linux"]["netDevices"] = json!({ "eth0": {} });
        }),
        ("linux.memoryPolicy.nodes", |c| c["linux"]["memoryPolicy"] = json!({ "mode": "MPOL_BIND" })),
        ("linux.intelRdt", |c| c["linux"]["intelRdt"] = json!({ "closID": "none" })),
        ("linux.namespaces[5].path", |c| set_namespace(c, "mount", Some("/proc/1/ns/mnt".into()))),
        ("process.execCPUAffinity", |c| c["process"]["execCPUAffinity"] = json!({ "final": "3-1" })),
        ("linux.resources.cpu.cpus", |c| c["linux"]["resources"]["cpu"] = json!({ "cpus": "x" })),
        ("linux.resources.memory.swap", |c| {
            c["linux"]["resources"]["memory"] = json!({ "limit": 2_000_000, "swap": 1_000_000 });
        }),
        ("linux.cgroupsPath", |c| c["linux"]["cgroupsPath"] = json!("system.slice:hull:a")),
        ("linux.seccomp.listenerMetadata", |c| c["linux"]["seccomp"]["listenerMetadata"] = json!("x")),
        ("ociVersion", |c| c["ociVersion"] = json!("2.0.0")),
        ("process.args", |c| c["process"]["args"] = json!([])),
        ("process.cwd", |c| c["process"]["cwd"] = json!("relative")),
        ("process.rlimits[0].soft", |c| {
            c["process"]["rlimits"] = json!([{ "type": "RLIMIT_CORE", "soft": 2, "hard": 1 }]);
        }),
        ("process.oomScoreAdj", |c| c["process"]["oomScoreAdj"] = json!(2000)),
        ("hostname", |c| {
            c["linux"]["namespaces"].as_array_mut().expect("list").retain(|n| n["type"] != "uts");
        }),
        ("linux.namespaces[6].type", |c| {
            c["linux"]["namespaces"].as_array_mut().expect("list").push(json!({ "type": "uts" }));
        }),
        ("linux.uidMappings", |c| set_namespace(c, "user", None)),
        ("linux.sysctl", |c| c["linux"]["sysctl"] = json!({ "kernel.panic": "1" })),
        ("linux.timeOffsets", |c| c["linux"]["timeOffsets"] = json!({ "boottime": { "secs": 1 } })),
        ("mounts[7].source", |c| {
            c["mounts"].as_array_mut().expect("list").push(json!({ "destination": "/x", "type": "bind" }));
        }),
        ("linux.maskedPaths", |c| c["linux"]["maskedPaths"] = json!(["relative"])),
        ("hooks.poststop[0].path", |c| c["hooks"]["poststop"] = json!([{ "path": "relative" }])),
        ("root.path", |c| c["root"]["path"] = json!("missing")),
        ("cgroupsPath", |c| c["linux"]["cgroupsPath"] = json!("/a/../..")),
        ("linux.seccomp.listenerPath", |c| {
            c["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{ "names": ["mkdir"], "action": "SCMP_ACT_NOTIFY" }] });
        }),
    ];
    for (field, change) in cases {
        let bundle = Bundle::new(&["/bin/true"], change);
        let output = bundle.run();
        assert!(output.status == 1 && output.stderr.contains(field), "{field}: {output:?}");
        bundle.assert_gone();
    }
}

#[test]
fn failures_at_every_kind_of_step_leave_nothing() {
    if !runnable() {
        return;
    }
    let cases: [(&str, Change); 7] = [
        ("no such file", |c| {
            let mount = json!({ "destination": "/x", "source": "/nonexistent", "options": ["bind"] });
            c["mounts"].as_array_mut().expect("list").push(mount);
        }),
        ("inside /proc", |c| {
            let mount = json!({ "destination": "/proc/self/attr", "source": "/tmp", "options": ["bind"] });
            c["mounts"].as_array_mut().expect("list").push(mount);
        }),
        ("no such device", |c| {
            let mount = json!({ "destination": "/x", "type": "nosuchfs", "source": "x" });
            c["mounts"].as_array_mut().expect("list").push(mount);
        }),
        ("memory.swap", |c| {
            c["linux"]["resources"]["memory"] = json!({ "limit": 67_108_864, "swap": 1_048_576 })
        }),
        ("cpuset.cpus", |c| c["linux"]["resources"]["cpu"] = json!({ "cpus": "4000" })),
        ("not the device", |c| {
            c["linux"]["devices"] = json!([{ "path": "/plain", "type": "c", "major": 1, "minor": 3 }]);
        }),
        ("net/no/such", |c| c["linux"]["sysctl"] = json!({ "net.no.such": "1" })),
    ];
    for (message, change) in cases {
        let bundle = Bundle::new(&["/bin/true"], change);
        let output = bundle.run();
        assert!(output.status == 1 && output.stderr.contains(message), "{message}: {output:?}");
        bundle.assert_gone();
    }
}

#[test]
fn proc_is_not_mounted_through_a_link() {
    if !runnable() {
        return;
    }
    // CVE-2019-19921: the image makes /proc a link to a directory of its own.
    let bundle = Bundle::new(&["/bin/true"], |_| ());
    let proc = format!("{}/rootfs/proc", bundle.path());
    std::fs::remove_dir(&proc).expect("remove");
    std::os::unix::fs::symlink("/etc", proc).expect("link");
    let output = bundle.run();
    assert!(output.status == 1 && output.stderr.contains("/proc"), "{output:?}");
    bundle.assert_gone();
}

#[test]
fn the_runtimes_file_cannot_be_written_from_a_container() {
    if !runnable() {
        return;
    }
    // CVE-2019-5736: a container whose command is the runtime itself tries to open it for writing.
    let before = std::fs::read(env!("CARGO_BIN_EXE_hull-runtime")).expect("read");
    let bundle = Bundle::new(&["/bin/sleep", "1000"], |config| {
        config["process"]["capabilities"]["bounding"] =
            json!(["CAP_SYS_PTRACE", "CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE"]);
        config["process"]["capabilities"]["effective"] =
            json!(["CAP_SYS_PTRACE", "CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE"]);
        config["process"]["capabilities"]["permitted"] =
            json!(["CAP_SYS_PTRACE", "CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE"]);
        config["linux"].as_object_mut().expect("object").remove("seccomp");
    });
    bundle.start();
    // The runtime as a process of the container, with its file open and executing.
    let script = "/proc/self/exe sh -c 'sleep 5' & for i in 1 2 3 4 5 6 7 8 9; do \
                  for p in /proc/[0-9]*; do (echo overwritten > $p/exe) 2>/dev/null && echo wrote $p; done; done; true";
    let attacker = bundle.runtime(&["exec", bundle.id(), "sh", "-c", script]);
    let victim = bundle.runtime(&["exec", bundle.id(), "/proc/self/exe", "--version"]);
    assert!(victim.stdout.contains("hull-runtime"), "{victim:?}");
    let _ = attacker;
    assert!(before == std::fs::read(env!("CARGO_BIN_EXE_hull-runtime")).expect("read"));
}

#[test]
fn no_descriptor_leaks_into_the_container() {
    if !runnable() {
        return;
    }
    let bundle = Bundle::new(&["/bin/sh", "-c", "ls /proc/self/fd | busybox wc -l"], |_| ());
    // Given as a non-close-on-exec descriptor to the runtime.
    let runtime = bundle.command(&["run", "-b", bundle.path(), bundle.id()]);
    let output =
        std::process::Command::new("sh").args(["-c", &format!("{runtime} 7</etc 9</")]).output().expect("sh");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "4", "{output:?}");
    let runtime = bundle.command(&["run", "--preserve-fds", "2", "-b", bundle.path(), bundle.id()]);
    let output = std::process::Command::new("sh")
        .args(["-c", &format!("{runtime} 3</etc 4</etc 9</")])
        .output()
        .expect("sh");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "6", "{output:?}");
}

#[test]
fn errors_go_to_the_log_as_engines_read_them() {
    if !runnable() {
        return;
    }
    let bundle = Bundle::new(&["nosuch"], |_| ());
    let log = format!("{}/log.json", bundle.path());
    let output =
        bundle.runtime(&["--log", &log, "--log-format", "json", "create", "-b", bundle.path(), bundle.id()]);
    assert_eq!(output.status, 1);
    let line: Value = serde_json::from_str(&std::fs::read_to_string(&log).expect("log")).expect("json");
    assert_eq!(line["level"], "error");
    assert!(line["msg"].as_str().expect("text").contains("executable file not found in $PATH"));
}
