//! `linux.netDevices`: network interfaces of the caller that become the container's.

use crate::Error;
use crate::error::StepExt;
use crate::plan::Plan;
use hull_netlink::route::{LinkChange, LinkRef, Requests, Route};
use hull_sys::CloneFlags;
use oci_spec::runtime::Linux;
use rustix::fs::{Mode, OFlags};
use std::os::fd::{AsFd, OwnedFd};

/// `IFNAMSIZ` without the terminating zero.
const LONGEST_NAME: usize = 15;

/// An interface and its name in the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NetDevice {
    pub(crate) host: String,
    pub(crate) container: String,
}

/// The kernel's `dev_valid_name`, and at most one `%d`.
fn is_name(name: &str, pattern: bool) -> bool {
    let stem = if pattern { name.strip_suffix("%d").unwrap_or(name) } else { name };
    !name.is_empty()
        && name.len() <= LONGEST_NAME
        && !matches!(name, "." | "..")
        && !stem.bytes().any(|byte| matches!(byte, b'/' | b':' | b'%' | 0) || byte.is_ascii_whitespace())
}

/// Reads and checks `linux.netDevices`, in the order of their names.
pub(crate) fn devices(linux: &Linux, separate_network: bool) -> Result<Vec<NetDevice>, Error> {
    let Some(wanted) = linux.net_devices().as_ref().filter(|wanted| !wanted.is_empty()) else {
        return Ok(Vec::new());
    };
    if !separate_network {
        return Err(Error::spec("linux.netDevices", "needs a network namespace"));
    }
    if !rustix::process::geteuid().is_root() {
        return Err(Error::spec("linux.netDevices", "only root may move network interfaces"));
    }
    let mut devices = Vec::new();
    for (host, device) in wanted {
        let container = device.name().clone().filter(|name| !name.is_empty()).unwrap_or_else(|| host.clone());
        if !is_name(host, false) || !is_name(&container, true) {
            let reason = format!("{host:?} as {container:?}: not names of network interfaces");
            return Err(Error::spec("linux.netDevices", reason));
        }
        devices.push(NetDevice { host: host.clone(), container });
    }
    devices.sort_by(|a, b| a.host.cmp(&b.host));
    let twice = |name: &String| devices.iter().filter(|other| other.container == *name).count() > 1;
    let names = devices.iter().map(|device| &device.container);
    match names.filter(|name| !name.ends_with("%d")).find(|name| twice(name)) {
        Some(name) => Err(Error::spec("linux.netDevices", format!("{name:?} is there twice"))),
        None => Ok(devices),
    }
}

/// Moves the interfaces into the container's network namespace, with their addresses, and brings them up there. The caller
/// must have one thread.
pub(crate) fn give(plan: &Plan, pid: i32) -> Result<(), Error> {
    if plan.net_devices.is_empty() {
        return Ok(());
    }
    let theirs = network_of(plan, pid)?;
    let (here, there) = (Route::open().map_err(Error::Network)?, open_in(&theirs)?);
    plan.net_devices.iter().try_for_each(|device| give_one(device, &here, &there, &theirs))
}

fn give_one(device: &NetDevice, here: &Route, there: &Route, theirs: &OwnedFd) -> Result<(), Error> {
    let invalid = |reason: String| Error::spec(format!("linux.netDevices.{}", device.host), reason);
    let link = here.link(&device.host).map_err(Error::Network)?;
    let link = link.ok_or_else(|| invalid("there is no such network interface".into()))?;
    if there.link(&device.container).map_err(Error::Network)?.is_some() {
        return Err(invalid(format!("{} exists in the container", device.container)));
    }
    let addresses = here.permanent_addresses(link.index).map_err(Error::Network)?;
    let before: Vec<u32> = there.links().map_err(Error::Network)?.iter().map(|link| link.index).collect();
    let mut moving = Requests::new();
    moving.move_link(link.index, theirs.as_fd(), &device.container);
    here.send(&moving).map_err(Error::Network)?;
    // Its number may have been taken there.
    let moved = there.links().map_err(Error::Network)?.into_iter().find(|link| !before.contains(&link.index));
    let moved = moved.ok_or_else(|| invalid("did not arrive in the container".into()))?;
    let mut settling = Requests::new();
    for address in &addresses {
        settling.restore_address(moved.index, address);
    }
    settling.change_link(LinkRef::Index(moved.index), &LinkChange { up: true, ..LinkChange::default() });
    there.send(&settling).map_err(Error::Network)
}

fn network_of(plan: &Plan, pid: i32) -> Result<OwnedFd, Error> {
    let joined = plan.namespaces.join.iter().find(|join| join.kind == CloneFlags::NEWNET);
    let path = joined.map_or_else(|| format!("/proc/{pid}/ns/net").into(), |join| join.path.clone());
    rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .step(|| format!("open network namespace {}", path.display()))
}

/// A socket in another network namespace stays there when its maker returns.
fn open_in(netns: &OwnedFd) -> Result<Route, Error> {
    let own = rustix::fs::open(c"/proc/self/ns/net", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .step(|| "open the own network namespace".into())?;
    hull_sys::ns::setns(netns.as_fd(), CloneFlags::NEWNET)
        .step(|| "enter the container's network namespace".into())?;
    let route = Route::open();
    hull_sys::ns::setns(own.as_fd(), CloneFlags::NEWNET)
        .step(|| "return to the own network namespace".into())?;
    route.map_err(Error::Network)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_kernel_s() {
        for good in ["eth0", "a", "veth%d"] {
            assert!(is_name(good, true), "{good}");
        }
        for bad in ["", ".", "a/b", "a b", "a:1", "%d%d", "x%", "sixteen-letters-"] {
            assert!(!is_name(bad, true), "{bad}");
        }
        assert!(!is_name("eth%d", false));
    }

    #[test]
    fn a_shared_network_takes_none() {
        let linux: Linux = serde_json::from_str(r#"{"netDevices":{"eth7":{}}}"#).expect("json");
        assert!(devices(&linux, false).expect_err("shared").to_string().contains("linux.netDevices"));
        let twice = r#"{"netDevices":{"eth7":{"name":"a"},"eth8":{"name":"a"}}}"#;
        let linux: Linux = serde_json::from_str(twice).expect("json");
        assert!(devices(&linux, true).is_err());
    }
}
