//! What a container cannot see or do.

use std::{fs, os::unix::fs::MetadataExt};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::{
    bundle::{Bundle, push},
    under_test::Runtime,
};

const NAMESPACES: [(&str, &str); 6] = [
    ("pid", "pid"),
    ("network", "net"),
    ("ipc", "ipc"),
    ("uts", "uts"),
    ("mount", "mnt"),
    ("cgroup", "cgroup"),
];

fn namespaces(runtime: &Runtime, kinds: &[&str]) -> Result<Vec<String>> {
    let script = NAMESPACES.map(|(_, file)| format!("readlink /proc/self/ns/{file}")).join(";");
    let text = runtime.sh(&script, |spec| {
        spec["linux"]["namespaces"] = kinds.iter().map(|kind| json!({"type": kind})).collect();
        if !kinds.contains(&"uts") {
            spec.as_object_mut().map(|spec| spec.remove("hostname"));
        }
        if !kinds.contains(&"network") {
            // A sysfs can only be mounted by the owner of the network namespace it shows.
            if let Some(mounts) = spec["mounts"].as_array_mut() {
                mounts.retain(|mount| mount["type"] != "sysfs");
            }
        }
    })?;
    Ok(text.lines().map(str::to_owned).collect())
}

fn of_host(runtime: &Runtime) -> Result<Vec<String>> {
    let link = |file: &str| fs::read_link(format!("/proc/{}/ns/{file}", runtime.host.pid()));
    NAMESPACES.iter().map(|(_, file)| Ok(link(file)?.display().to_string())).collect()
}

pub(crate) fn namespaces_are_own(runtime: &Runtime) -> Result<()> {
    let kinds = NAMESPACES.map(|(kind, _)| kind);
    for (inside, outside) in namespaces(runtime, &kinds)?.iter().zip(of_host(runtime)?) {
        ensure!(*inside != outside, "{inside} is the host's");
    }
    Ok(())
}

pub(crate) fn a_namespace_not_asked_for_is_shared(runtime: &Runtime) -> Result<()> {
    let inside = namespaces(runtime, &["mount", "pid"])?;
    let outside = of_host(runtime)?;
    for ((kind, _), (inside, outside)) in NAMESPACES.iter().zip(inside.iter().zip(outside)) {
        let own = matches!(*kind, "mount" | "pid");
        ensure!((*inside != outside) == own, "{kind}: {inside} inside, {outside} outside");
    }
    Ok(())
}

pub(crate) fn a_namespace_is_joined_by_path(runtime: &Runtime) -> Result<()> {
    let first = Bundle::lasting(runtime)?;
    runtime.up(&first)?;
    let net = format!("/proc/{}/ns/net", runtime.pid(&first)?);
    let joined = runtime.sh("readlink /proc/self/ns/net", |spec| {
        spec["linux"]["namespaces"][1] = json!({"type": "network", "path": net});
    })?;
    ensure!(joined == fs::read_link(&net)?.display().to_string(), "{joined}");
    runtime.remove(&first)
}

pub(crate) fn the_host_name_is_set(runtime: &Runtime) -> Result<()> {
    ensure!(runtime.sh("hostname", |spec| spec["hostname"] = json!("other"))? == "other");
    Ok(())
}

fn masks(runtime: &Runtime, capabilities: serde_json::Value) -> Result<Vec<(String, u64)>> {
    let status =
        runtime.sh("grep ^Cap /proc/self/status", |spec| spec["process"]["capabilities"] = capabilities)?;
    let parse = |line: &str| {
        let (name, hex) = line.split_once(":\t")?;
        Some((name.to_owned(), u64::from_str_radix(hex, 16).ok()?))
    };
    Ok(status.lines().filter_map(parse).collect())
}

pub(crate) fn capabilities_are_the_ones_asked_for(runtime: &Runtime) -> Result<()> {
    let (chown, kill, net_bind) = (1, 1 << 5, 1 << 10);
    let found = masks(
        runtime,
        json!({
            "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_BIND_SERVICE"],
            "permitted": ["CAP_CHOWN", "CAP_KILL"],
            "effective": ["CAP_CHOWN"],
            "inheritable": ["CAP_KILL"],
            "ambient": ["CAP_KILL"],
        }),
    )?;
    let of = |name: &str| found.iter().find(|(known, _)| known == name).map(|(_, mask)| *mask);
    ensure!(of("CapBnd") == Some(chown | kill | net_bind), "{found:x?}");
    ensure!(of("CapInh") == Some(kill) && of("CapAmb") == Some(kill), "{found:x?}");
    // The process is root, who gains the bounding set by execve (capabilities(7)).
    ensure!(of("CapEff") == Some(chown | kill | net_bind), "{found:x?}");
    let none = masks(runtime, json!({}))?;
    ensure!(none.len() == 5 && none.iter().all(|(_, mask)| *mask == 0), "{none:x?}");
    Ok(())
}

pub(crate) fn seccomp_refuses(runtime: &Runtime) -> Result<()> {
    let script = "grep ^Seccomp: /proc/self/status; mkdir /made 2>&1; [ -d /made ] || echo refused; uname >/dev/null && echo allowed";
    let said = runtime.sh(script, |spec| {
        spec["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
            "syscalls": [{"names": ["mkdir", "mkdirat", "no_such_call"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}],
        });
    })?;
    ensure!(said.contains("Seccomp:\t2") && said.contains("refused") && said.contains("allowed"), "{said}");
    ensure!(said.contains("No space left on device"), "the errno asked for is not the one given: {said}");
    Ok(())
}

pub(crate) fn no_new_privileges_is_set(runtime: &Runtime) -> Result<()> {
    for wanted in [false, true] {
        let status = runtime.sh("grep ^NoNewPrivs /proc/self/status", |spec| {
            spec["process"]["noNewPrivileges"] = json!(wanted)
        })?;
        ensure!(status == format!("NoNewPrivs:\t{}", u8::from(wanted)), "{status}");
    }
    Ok(())
}

pub(crate) fn masked_and_read_only_paths(runtime: &Runtime) -> Result<()> {
    let said = runtime.sh(
        "cat /proc/timer_list | wc -c; ls /sys/firmware | wc -l; \
         echo 1 > /proc/sys/vm/drop_caches || echo read-only; echo x > /masked/file || echo masked; cat /plain; \
         touch /kept/x || echo kept",
        |spec| {
            spec["linux"]["maskedPaths"] = json!(["/proc/timer_list", "/sys/firmware", "/plain", "/masked", "/none"]);
            spec["linux"]["readonlyPaths"] = json!(["/proc/sys", "/kept", "/none"]);
            for folder in ["/masked", "/kept"] {
                let mount = json!({"destination": folder, "type": "tmpfs", "source": "tmpfs", "options": ["rw"]});
                push(&mut spec["mounts"], mount);
            }
        },
    )?;
    ensure!(
        said == "0\n0\nread-only\nmasked\nkept"
            || said == "0\n0\nread-only\nmasked\ncat: can't open '/plain'\nkept",
        "{said}"
    );
    Ok(())
}

pub(crate) fn devices_that_are_not_allowed_are_refused(runtime: &Runtime) -> Result<()> {
    let said = runtime.sh(
        "mknod /dev/mem1 c 1 1 && head -c1 /dev/mem1 2>&1; mknod /dev/full1 c 1 7 && echo x 2>&1 >/dev/full1; \
         head -c 1 /dev/zero | wc -c",
        |spec| {
            spec["linux"]["resources"]["devices"] = json!([
                {"allow": false, "access": "rwm"},
                {"allow": true, "type": "c", "access": "m"},
                {"allow": true, "type": "c", "major": 1, "minor": 5, "access": "rwm"},
                {"allow": true, "type": "c", "major": 1, "minor": 7, "access": "rwm"},
            ]);
        },
    )?;
    ensure!(said.contains("Operation not permitted"), "{said}");
    ensure!(said.contains("No space left on device"), "/dev/full is allowed and was refused: {said}");
    ensure!(said.ends_with('1'), "{said}");
    Ok(())
}

pub(crate) fn user_namespaces_map_ids(runtime: &Runtime) -> Result<()> {
    let mut bundle = Bundle::sh(runtime, "id -u; cat /proc/self/uid_map; touch /tmp/made; exec sleep 1000")?;
    let root = bundle.rootfs();
    chown_all(&root, 200_000)?;
    bundle.change(|spec| {
        push(&mut spec["linux"]["namespaces"], json!({"type": "user"}));
        let map = json!([{"containerID": 0, "hostID": 200_000, "size": 65536}]);
        spec["linux"]["uidMappings"] = map.clone();
        spec["linux"]["gidMappings"] = map;
        spec["linux"]["resources"] = json!({});
    })?;
    // Every folder above the root must let the mapped user through.
    hull_fixtures::Ran::new(hull_fixtures::host::with(
        std::process::Command::new("chmod"),
        &["a+x", runtime.host.folder().to_str().context("path")?, bundle.path()],
    ))?
    .ok()?;
    runtime.up(&bundle)?;
    hull_fixtures::wait::until("the file", || root.join("tmp/made").exists().then_some(()))?;
    let said = bundle.said("stdout");
    let words: Vec<&str> = said.split_whitespace().collect();
    ensure!(words == ["0", "0", "200000", "65536"], "{said}");
    ensure!(fs::metadata(root.join("tmp/made"))?.uid() == 200_000);
    runtime.remove(&bundle)
}

fn chown_all(folder: &std::path::Path, id: u32) -> Result<()> {
    std::os::unix::fs::lchown(folder, Some(id), Some(id))?;
    for entry in fs::read_dir(folder)?.flatten() {
        if entry.file_type()?.is_dir() {
            chown_all(&entry.path(), id)?;
        } else {
            std::os::unix::fs::lchown(entry.path(), Some(id), Some(id))?;
        }
    }
    Ok(())
}

pub(crate) fn nothing_of_the_machine_s_root_is_to_be_seen(runtime: &Runtime) -> Result<()> {
    let mounts = runtime.sh("cat /proc/self/mountinfo; ls -a /", |_| {})?;
    let seen = mounts.lines().filter(|line| line.contains(" - ")).filter_map(|line| line.split(' ').nth(4));
    let outside: Vec<&str> = seen
        .filter(|point| {
            !["/", "/proc", "/dev", "/sys"]
                .iter()
                .any(|own| point == own || (*own != "/" && point.starts_with(&format!("{own}/"))))
        })
        .collect();
    ensure!(outside.is_empty(), "mounts of the machine are to be seen: {outside:?}\n{mounts}");
    ensure!(!mounts.contains(".old") && !mounts.contains("oldroot"), "{mounts}");
    Ok(())
}

pub(crate) fn descriptors_do_not_leak(runtime: &Runtime) -> Result<()> {
    let listed = runtime.sh("ls -l /proc/self/fd", |_| {})?;
    // Three of its own, and the folder that ls reads.
    let open = listed.lines().filter(|line| line.contains("->")).count();
    ensure!(open <= 4, "descriptors leak into the container:\n{listed}");
    Ok(())
}
