//! Id mappings of user namespaces.

use crate::Error;
use crate::create::kill_and_reap;
use crate::error::StepExt;
use crate::plan::Plan;
use crate::process::write_file;
use hull_sys::{CloneArgs, CloneFlags, Forked, clone3};
use oci_spec::runtime::LinuxIdMapping;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::ffi::CString;
use std::os::fd::OwnedFd;

fn lines(mappings: &[LinuxIdMapping]) -> String {
    mappings.iter().map(|m| format!("{} {} {}\n", m.container_id(), m.host_id(), m.size())).collect()
}

fn proc_file(pid: i32, name: &str) -> CString {
    CString::new(format!("/proc/{pid}/{name}")).unwrap_or_default()
}

/// Maps ids of the user namespace that process `pid` is the first of. A caller without privilege may map its own id only, directly;
/// more through `newuidmap` and `newgidmap`.
pub(crate) fn write_mappings(
    pid: i32,
    uids: &[LinuxIdMapping],
    gids: &[LinuxIdMapping],
) -> Result<(), Error> {
    let root = rustix::process::geteuid().is_root();
    let single = uids.len() == 1 && gids.len() == 1 && uids[0].size() == 1 && gids[0].size() == 1;
    if !root && !single {
        run_helper("newuidmap", pid, uids)?;
        return run_helper("newgidmap", pid, gids);
    }
    if !root {
        // user_namespaces(7): without privilege gid_map is writable only once setgroups is denied.
        write_file(&proc_file(pid, "setgroups"), "deny").step(|| "deny setgroups".into())?;
    }
    write_file(&proc_file(pid, "uid_map"), &lines(uids)).step(|| "write linux.uidMappings".into())?;
    write_file(&proc_file(pid, "gid_map"), &lines(gids)).step(|| "write linux.gidMappings".into())
}

fn run_helper(program: &str, pid: i32, mappings: &[LinuxIdMapping]) -> Result<(), Error> {
    let mut command = std::process::Command::new(program);
    command.arg(pid.to_string());
    for mapping in mappings {
        for number in [mapping.container_id(), mapping.host_id(), mapping.size()] {
            command.arg(number.to_string());
        }
    }
    let failed = |errno| Error::Step { step: format!("map ids with {program}"), source: errno };
    let status = command.status().map_err(|e| failed(Errno::from_io_error(&e).unwrap_or(Errno::IO)))?;
    if status.success() { Ok(()) } else { Err(failed(Errno::PERM)) }
}

/// The container's user namespace, or one like it.
pub(crate) fn of_container(plan: &Plan) -> Result<OwnedFd, Error> {
    let Some(join) = plan.namespaces.join.iter().find(|join| join.kind == CloneFlags::NEWUSER) else {
        return namespace(&plan.uid_mappings, &plan.gid_mappings);
    };
    rustix::fs::open(&join.path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .step(|| format!("open user namespace {}", join.path.display()))
}

/// A user namespace with these mappings and nobody in it, for idmapped mounts.
pub(crate) fn namespace(uids: &[LinuxIdMapping], gids: &[LinuxIdMapping]) -> Result<OwnedFd, Error> {
    let step = || "make a user namespace for an idmapped mount".to_owned();
    match clone3(CloneArgs { flags: CloneFlags::NEWUSER, cgroup: None }).step(step)? {
        Forked::Child => {
            // Killed by the caller; if that is gone, by this or by the time.
            let _ = hull_sys::prctl::set_parent_death_signal(9);
            std::thread::sleep(std::time::Duration::from_secs(60));
            hull_sys::process::exit_now(0)
        }
        Forked::Parent { pid, pidfd } => {
            let open = || {
                write_mappings(pid, uids, gids)?;
                let flags = OFlags::RDONLY | OFlags::CLOEXEC;
                rustix::fs::open(proc_file(pid, "ns/user").as_c_str(), flags, Mode::empty()).step(step)
            };
            let namespace = open();
            kill_and_reap(&pidfd);
            namespace
        }
    }
}
