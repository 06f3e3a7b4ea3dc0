//! Seccomp notifications: the descriptor goes from the process whose policy has them to the agent that answers them.
//!
//! Once the filter is in force, any call of the process but `write` may wait for the agent, which has nothing to answer from
//! yet. So the process writes the descriptor's number, and the caller takes a copy of it out of the process and sends that.
//! Source: runtime-spec config-linux.md, "The Container Process State".

use crate::Error;
use crate::error::StepExt;
use crate::hooks::HookState;
use crate::sync::{self, Tag};
use hull_sys::socket::send_fds;
use oci_spec::runtime::{Linux, Spec};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::PidfdGetfdFlags;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::PathBuf;

/// Where an agent listens, and what it is told besides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    path: Option<PathBuf>,
    metadata: Option<String>,
}

/// A connection to an agent.
#[derive(Debug)]
pub(crate) struct Agent {
    socket: OwnedFd,
    metadata: String,
}

impl Wanted {
    pub(crate) fn new(linux: &Linux, notifies: bool) -> Result<Self, Error> {
        let Some(seccomp) = linux.seccomp() else { return Ok(Self::default()) };
        let path = seccomp.listener_path().clone().filter(|path| !path.as_os_str().is_empty());
        let metadata = seccomp.listener_metadata().clone().filter(|text| !text.is_empty());
        if metadata.is_some() && path.is_none() {
            return Err(Error::spec("linux.seccomp.listenerMetadata", "needs listenerPath"));
        }
        if !notifies {
            return Ok(Self::default());
        }
        if path.is_none() {
            return Err(Error::spec("linux.seccomp.listenerPath", "SCMP_ACT_NOTIFY needs it"));
        }
        Ok(Self { path, metadata })
    }

    /// Connects, before anything is made: without its agent a container that needs one would hang.
    pub(crate) fn connect(&self) -> Result<Option<Agent>, Error> {
        let Some(path) = &self.path else { return Ok(None) };
        let failed = || {
            let path = path.display();
            format!("failed to connect with seccomp agent, linux.seccomp.listenerPath {path}")
        };
        let address = SocketAddrUnix::new(path).step(failed)?;
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
                .step(failed)?;
        rustix::net::connect(&socket, &address).step(failed)?;
        Ok(Some(Agent { socket, metadata: self.metadata.clone().unwrap_or_default() }))
    }
}

impl Agent {
    /// Sends the descriptor numbered `number` of a process to the agent.
    pub(crate) fn introduce(
        &self,
        spec: &Spec,
        process: (i32, &OwnedFd),
        number: RawFd,
        state: &HookState<'_>,
    ) -> Result<(), Error> {
        let (pid, pidfd) = process;
        let listener = rustix::process::pidfd_getfd(pidfd, number, PidfdGetfdFlags::empty())
            .step(|| "take the seccomp notification descriptor from the container's process".into())?;
        let process_state = serde_json::json!({
            "ociVersion": spec.version(),
            "fds": ["seccompFd"],
            "pid": pid,
            "metadata": self.metadata,
            "state": state,
        });
        send_fds(&self.socket, process_state.to_string().as_bytes(), &[listener.as_fd()])
            .step(|| "hand the seccomp notification descriptor to its agent".into())
            .map(drop)
    }
}

/// In the process: offers the descriptor, and waits until the agent has it.
pub(crate) fn offer(socket: &OwnedFd, listener: &OwnedFd) -> Result<(), Error> {
    let mut message = vec![Tag::Listener as u8];
    message.extend(listener.as_raw_fd().to_ne_bytes());
    rustix::io::write(socket, &message).step(|| "offer the seccomp notification descriptor".into())?;
    sync::expect(socket, Tag::Introduced, "waiting for its seccomp agent").map(drop)
}

/// In the caller: the number that was offered.
pub(crate) fn offered(data: &[u8]) -> Result<RawFd, Error> {
    data.try_into().map(RawFd::from_ne_bytes).map_err(|_| Error::Vanished("offering its seccomp listener"))
}
