//! The conversation between the caller and the container's first process, over a `SOCK_SEQPACKET` pair: one byte that says
//! what, then data, with descriptors.

use crate::error::StepExt;
use crate::{Error, ErrorKind};
use hull_sys::socket::{recv_fds, send_fds};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Longest message; an error's text is cut to it.
const MAX_MESSAGE: usize = 4096;

/// What is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Tag {
    /// To the child: the user namespace has its id mappings.
    Mapped = b'M',
    /// To the child: the cgroup is there; with descriptors of its `tasks` files, if the child cannot open them.
    Cgroup = b'C',
    /// To the child: the hooks have run.
    HooksDone = b'H',
    /// To the child: its seccomp agent has the descriptor.
    Introduced = b'I',
    /// To the child: execute the command.
    Go = b'G',
    /// To the caller: the first process's pid and pidfd (made by a stage that is ending).
    Pid = b'P',
    /// To the caller: the namespaces are there, run the hooks.
    Namespaces = b'N',
    /// To the caller: the number of the seccomp notification descriptor.
    Listener = b'L',
    /// To the caller: the terminal's master.
    Terminal = b'T',
    /// To the caller: everything is done but the execve.
    Ready = b'R',
    /// To the caller: it failed; kind and text follow.
    Failed = b'E',
}

impl Tag {
    fn of(byte: u8) -> Option<Self> {
        use Tag::*;
        [Mapped, Cgroup, HooksDone, Introduced, Go, Pid, Namespaces, Listener, Terminal, Ready, Failed]
            .into_iter()
            .find(|tag| *tag as u8 == byte)
    }
}

/// A received message.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) tag: Tag,
    pub(crate) data: Vec<u8>,
    pub(crate) fds: Vec<OwnedFd>,
}

/// Both ends.
pub(crate) fn pair() -> Result<(OwnedFd, OwnedFd), Error> {
    rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .step(|| "make a socket pair".into())
}

pub(crate) fn send(socket: impl AsFd, tag: Tag, data: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), Error> {
    let mut message = vec![tag as u8];
    message.extend_from_slice(&data[..data.len().min(MAX_MESSAGE - 1)]);
    send_fds(socket, &message, fds).step(|| "talk to the container's process".into()).map(drop)
}

/// Reports a failure; that nobody listens any more is not worth another error.
pub(crate) fn send_failure(socket: impl AsFd, error: &Error) {
    let mut data = vec![error.kind().to_byte()];
    data.extend_from_slice(error.chain().as_bytes());
    let _ = send(socket, Tag::Failed, &data, &[]);
}

/// The next message; `None` when the other side has closed. A [`Tag::Failed`] becomes its error.
pub(crate) fn receive(socket: impl AsFd) -> Result<Option<Message>, Error> {
    let mut buffer = [0u8; MAX_MESSAGE];
    let received = loop {
        match recv_fds(&socket, &mut buffer) {
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::CONNRESET) => return Ok(None),
            other => break other.step(|| "listen to the container's process".into())?,
        }
    };
    let Some((first, data)) = buffer[..received.length].split_first() else { return Ok(None) };
    match Tag::of(*first) {
        Some(Tag::Failed) => Err(failure(data)),
        Some(tag) => Ok(Some(Message { tag, data: data.to_vec(), fds: received.fds })),
        None => Ok(None),
    }
}

/// The error in a [`Tag::Failed`] message.
pub(crate) fn failure(data: &[u8]) -> Error {
    let (kind, text) = data.split_first().unwrap_or((&0, &[]));
    Error::Inside { kind: ErrorKind::from_byte(*kind), message: String::from_utf8_lossy(text).into_owned() }
}

/// Waits for one tag.
pub(crate) fn expect(socket: impl AsFd, tag: Tag, during: &'static str) -> Result<Message, Error> {
    match receive(socket)? {
        Some(message) if message.tag == tag => Ok(message),
        _ => Err(Error::Vanished(during)),
    }
}
