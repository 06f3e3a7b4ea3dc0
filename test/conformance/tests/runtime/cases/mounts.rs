//! What is mounted, and how.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::{
    bundle::{Bundle, push},
    under_test::Runtime,
};

pub(crate) fn a_read_only_root(runtime: &Runtime) -> Result<()> {
    let said = runtime
        .sh("touch /x 2>&1; touch /dev/shm/x && echo shm", |spec| spec["root"]["readonly"] = json!(true))?;
    ensure!(said.contains("Read-only file system") && said.ends_with("shm"), "{said}");
    Ok(())
}

pub(crate) fn tmpfs_with_its_options(runtime: &Runtime) -> Result<()> {
    let said = runtime.sh("grep ' /scratch/deep ' /proc/self/mountinfo; stat -c %a /scratch/deep", |spec| {
        let options = ["nosuid", "nodev", "noexec", "size=1024k", "mode=1700"];
        push(&mut spec["mounts"], json!({"destination": "/scratch/deep", "type": "tmpfs", "source": "tmpfs", "options": options}));
    })?;
    ensure!(said.contains("nosuid,nodev,noexec") && said.contains("size=1024k"), "{said}");
    ensure!(said.ends_with("1700"), "{said}");
    Ok(())
}

pub(crate) fn binds(runtime: &Runtime) -> Result<()> {
    let mut bundle = Bundle::sh(
        runtime,
        "cat /bound/file; echo in > /bound/new; cat /one; touch /fixed/x 2>&1; cat /inner/outer/file",
    )?;
    let shared = bundle.folder().join("shared");
    fs::create_dir(&shared)?;
    fs::write(shared.join("file"), "content\n")?;
    let source = shared.to_str().context("path")?.to_owned();
    let bind = |destination: &str, source: &str, options: &[&str]| json!({"destination": destination, "type": "bind", "source": source, "options": options});
    bundle.change(|spec| {
        push(&mut spec["mounts"], bind("/bound", &source, &["rbind", "rw"]));
        push(&mut spec["mounts"], bind("/one", &format!("{source}/file"), &["bind", "ro"]));
        push(&mut spec["mounts"], bind("/fixed", &source, &["rbind", "ro"]));
        push(&mut spec["mounts"], bind("/inner/outer", &source, &["rbind", "rprivate"]));
    })?;
    let said = runtime.run(&bundle)?.stdout;
    ensure!(said.starts_with("content\ncontent\n") && said.ends_with("content\n"), "{said}");
    ensure!(said.contains("Read-only file system"), "{said}");
    ensure!(fs::read_to_string(shared.join("new"))? == "in\n");
    Ok(())
}

pub(crate) fn standard_devices(runtime: &Runtime) -> Result<()> {
    let said = runtime.sh(
        "for d in null zero full random urandom tty; do stat -c '%n %F %t:%T %a' /dev/$d; done; \
         for l in fd stdin stdout stderr ptmx core; do [ -L /dev/$l ] && echo $l $(readlink /dev/$l); done; echo x > /dev/null && echo ok",
        |_| {},
    )?;
    for line in [
        "/dev/null character special file 1:3 666",
        "/dev/zero character special file 1:5 666",
        "/dev/full character special file 1:7 666",
        "/dev/random character special file 1:8 666",
        "/dev/urandom character special file 1:9 666",
        "/dev/tty character special file 5:0 666",
        "fd /proc/self/fd",
        "stdin /proc/self/fd/0",
        "stdout /proc/self/fd/1",
        "stderr /proc/self/fd/2",
        "ok",
    ] {
        ensure!(said.lines().any(|said| said == line), "{line} is not in\n{said}");
    }
    // A link or a bind, but the container's own.
    let opened = runtime.sh("exec 3<>/dev/ptmx && ls /dev/pts", |_| {})?;
    ensure!(opened.contains('0') && opened.contains("ptmx"), "{opened}");
    Ok(())
}
