//! `checkpoint` and `restore`.

use crate::args::{self, Global};
use crate::console::{self, Attached};
use crate::log::Log;
use crate::run::{Bundle, hand_over_console, report, write_pid_file};
use anyhow::{Context, bail};
use hull_oci::checkpoint::{CgroupMode, Options, RestoreRequest};
use hull_oci::container::{Record, Status};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

/// Kinds of namespaces that may be left empty, with their flag of clone(2).
const NAMESPACES: [(&str, u64); 6] = [
    ("network", 0x4000_0000),
    ("ipc", 0x0800_0000),
    ("uts", 0x0400_0000),
    ("mount", 0x0002_0000),
    ("pid", 0x2000_0000),
    ("user", 0x1000_0000),
];

fn options(global: &Global, args: &args::Criu) -> anyhow::Result<Options> {
    let mut empty_namespaces = 0;
    for name in &args.empty_ns {
        let known = NAMESPACES.iter().find(|(known, _)| known == name);
        empty_namespaces |= known.with_context(|| format!("--empty-ns: unknown namespace {name:?}"))?.1;
    }
    Ok(Options {
        program: program(global)?,
        images: args.image_path.clone(),
        work: args.work_path.clone(),
        tcp_established: args.tcp_established,
        link_remap: args.link_remap,
        ext_unix_sk: args.ext_unix_sk,
        shell_job: args.shell_job,
        file_locks: args.file_locks,
        lazy_pages: args.lazy_pages,
        auto_dedup: args.auto_dedup,
        lock_with_nftables: found("iptables-restore").is_none(),
        empty_namespaces,
        cgroup_mode: match args.manage_cgroups_mode {
            args::CgroupMode::Soft => CgroupMode::Soft,
            args::CgroupMode::Full => CgroupMode::Full,
            args::CgroupMode::Strict => CgroupMode::Strict,
            args::CgroupMode::Ignore => CgroupMode::Ignore,
        },
        ..Options::default()
    })
}

/// CRIU, found as a shell would, also where root's programs are.
fn program(global: &Global) -> anyhow::Result<PathBuf> {
    if let Some(program) = &global.criu {
        return Ok(program.clone());
    }
    found("criu").context("criu is not installed (Debian package criu)")
}

fn found(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    directories.map(|directory| directory.join(name)).find(|candidate| candidate.is_file())
}

pub(crate) fn checkpoint(global: &Global, args: &args::Checkpoint) -> anyhow::Result<u8> {
    let container = global.store().load(&args.id)?;
    match container.status()? {
        Status::Running | Status::Paused => {}
        status => bail!("container cannot be checkpointed in {status} state"),
    }
    let mut options = options(global, &args.criu)?;
    options.parent = args.parent_path.clone();
    options.leave_running = args.leave_running;
    options.tcp_skip_in_flight = args.tcp_skip_in_flight;
    options.pre_dump = args.pre_dump;
    options.page_server = args.page_server.as_deref().map(page_server).transpose()?;
    if let Some(number) = args.status_fd {
        let fd = hull_sys::fd::take_inherited(number).with_context(|| format!("--status-fd {number}"))?;
        options.status_fd = Some(fd);
    }
    hull_oci::checkpoint::checkpoint(&container, &options)?;
    if !args.leave_running && !args.pre_dump {
        report(container.delete(true)?);
    }
    Ok(0)
}

fn page_server(text: &str) -> anyhow::Result<(String, u16)> {
    let (address, port) = text.rsplit_once(':').context("--page-server is ADDRESS:PORT")?;
    Ok((address.to_owned(), port.parse().with_context(|| format!("--page-server: {port:?} is no port"))?))
}

pub(crate) fn restore(global: &Global, log: &Log, args: &args::Restore) -> anyhow::Result<u8> {
    let bundle = Bundle::read(global, log, &args.id, args.bundle.as_deref(), None)?;
    let mut options = options(global, &args.criu)?;
    options.lsm_profile = args.lsm_profile.clone();
    options.lsm_mount_context = args.lsm_mount_context.clone();
    if !options.images.is_dir() {
        bail!("there are no images in {}", options.images.display());
    }
    let reservation = global.store().reserve(&args.id)?;
    let signals = if args.detach { None } else { Some(console::forwarded_signals()?) };
    let mount_point = MountPoint::new(&reservation.mount_point())?;
    let created = hull_oci::checkpoint::restore(&RestoreRequest {
        id: &args.id,
        spec: &bundle.spec,
        bundle: &bundle.directory,
        mount_point: &mount_point.0,
        options: &options,
        systemd: bundle.manager.as_ref(),
    })?;
    drop(mount_point);
    let record = Record::new(&args.id, &bundle.spec, &bundle.directory, &created);
    let kept = record.map_err(anyhow::Error::from).and_then(|record| {
        hand_over_console(created.console.as_ref(), args.console_socket.as_deref())?;
        let container = reservation.keep(record, &bundle.text)?;
        write_pid_file(args.pid_file.as_deref(), created.pid)?;
        Ok(container)
    });
    let container = kept.inspect_err(|_| created.abandon())?;
    let Some(signals) = signals else { return Ok(0) };
    let console = created.console.as_ref();
    let pidfd = created.pidfd.as_fd();
    let status = Attached { pid: created.pid, pidfd, console, signals: &signals }.wait()?;
    report(container.delete_ended(&bundle.spec, created.cgroup.as_ref())?);
    Ok(status)
}

/// A directory while it is needed.
struct MountPoint(PathBuf);

impl MountPoint {
    fn new(path: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir(path).with_context(|| format!("make {}", path.display()))?;
        Ok(Self(path.to_owned()))
    }
}

impl Drop for MountPoint {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}
