//! A netlink socket: sends requests, matches answers to them.

use std::io;

use netlink_sys::{Socket as Raw, SocketAddr};
use rustix::io::Errno;
use rustix::net::{RecvFlags, sockopt};

use crate::message::{Buffer, NLMSG_HEADER, Received, attributes, messages, read_u32, text};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// The error message carries attributes (extended ack).
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSGERR_ATTR_MSG: u16 = 1;
/// The kernel never puts more into one datagram.
const DATAGRAM: usize = 64 * 1024;

/// Why a netlink request failed.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The socket could not be set up.
    #[error("open a netlink socket")]
    Open(#[source] io::Error),
    /// The requests could not be handed to the kernel.
    #[error("send netlink requests to {operation}")]
    Send {
        /// The first request.
        operation: String,
        /// The cause.
        source: io::Error,
    },
    /// No answer could be read, or none came.
    #[error("read the kernel's answer to: {operation}")]
    Receive {
        /// The request without an answer.
        operation: String,
        /// The cause.
        source: io::Error,
    },
    /// The kernel refused a request.
    #[error("{operation}{}", .detail.as_ref().map(|text| format!(": {text}")).unwrap_or_default())]
    Refused {
        /// What was asked for.
        operation: String,
        /// The kernel's words, where it has any.
        detail: Option<String>,
        /// The error number.
        #[source]
        errno: Errno,
    },
}

impl NetlinkError {
    /// The kernel's error number, if it refused the request.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused { errno, .. } => Some(*errno),
            _ => None,
        }
    }
}

/// A request waiting for its answer.
#[derive(Debug, Clone)]
pub(crate) struct Pending {
    pub(crate) sequence: u32,
    pub(crate) operation: String,
    /// An error that counts as success.
    pub(crate) tolerated: Option<Errno>,
}

#[derive(Debug)]
pub(crate) struct Socket {
    raw: Raw,
}

impl Socket {
    pub(crate) fn open(protocol: isize) -> Result<Self, NetlinkError> {
        let open = || {
            let mut raw = Raw::new(protocol)?;
            raw.set_cap_ack(true)?;
            raw.set_ext_ack(true)?;
            raw.bind_auto()?;
            raw.connect(&SocketAddr::new(0, 0))?;
            Ok(raw)
        };
        Ok(Self { raw: open().map_err(NetlinkError::Open)? })
    }

    /// Sends requests and reads the answer to each. The kernel handles them all, also those after a failed one.
    ///
    /// # Errors
    /// The first request refused.
    pub(crate) fn transact(&self, buffer: &Buffer, pending: &[Pending]) -> Result<(), NetlinkError> {
        let Some(first) = pending.first() else { return Ok(()) };
        self.send(buffer, &first.operation)?;
        let mut missing = pending.len();
        let mut refusals: Vec<Option<NetlinkError>> = pending.iter().map(|_| None).collect();
        self.answers(&first.operation, |message| {
            if let Some(index) = pending.iter().position(|request| request.sequence == message.sequence) {
                missing = missing.saturating_sub(1);
                refusals[index] = answer(&pending[index], message).err();
            }
        })?;
        match refusals.into_iter().flatten().next() {
            Some(refusal) => Err(refusal),
            None if missing > 0 => Err(unanswered(&first.operation)),
            None => Ok(()),
        }
    }

    /// Sends a transaction: requests that take effect together or not at all, between a begin and an end message.
    ///
    /// # Errors
    /// The first request refused, or what the kernel says about the whole on the `begin` message.
    pub(crate) fn transact_batch(
        &self,
        buffer: &Buffer,
        begin: &Pending,
        requests: &[Pending],
    ) -> Result<(), NetlinkError> {
        self.send(buffer, &begin.operation)?;
        let mut missing = requests.len();
        let mut refusal = None;
        self.answers(&begin.operation, |message| {
            let request = requests.iter().find(|request| request.sequence == message.sequence);
            missing -= usize::from(request.is_some());
            if refusal.is_none() {
                refusal = answer(request.unwrap_or(begin), message).err();
            }
        })?;
        match refusal {
            Some(refusal) => Err(refusal),
            None if missing > 0 => Err(unanswered(&begin.operation)),
            None => Ok(()),
        }
    }

    /// Reads all answers there are. Requests are handled within send(2), so what has not arrived by now never will:
    /// nothing is waited for, and nothing is left for the next request to trip over.
    fn answers(&self, operation: &str, mut each: impl FnMut(Received<'_>)) -> Result<(), NetlinkError> {
        loop {
            match self.receive(RecvFlags::DONTWAIT) {
                Ok(datagram) => {
                    messages(&datagram).filter(|message| message.kind == NLMSG_ERROR).for_each(&mut each);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(source) => {
                    return Err(NetlinkError::Receive { operation: operation.to_owned(), source });
                }
            }
        }
    }

    /// Sends a request for many objects and gives each answer's payload to `each`.
    pub(crate) fn dump(
        &self,
        buffer: &Buffer,
        request: &Pending,
        mut each: impl FnMut(&[u8]),
    ) -> Result<(), NetlinkError> {
        self.send(buffer, &request.operation)?;
        loop {
            let datagram = self
                .receive(RecvFlags::empty())
                .map_err(|source| NetlinkError::Receive { operation: request.operation.clone(), source })?;
            for message in messages(&datagram).filter(|message| message.sequence == request.sequence) {
                match message.kind {
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => return answer(request, message),
                    _ => each(message.payload),
                }
            }
        }
    }

    fn send(&self, buffer: &Buffer, operation: &str) -> Result<(), NetlinkError> {
        let bytes = buffer.bytes();
        // The default of some 200 KiB holds about 4,000 published ports; a transaction cannot be split.
        let room = if bytes.len() > DATAGRAM {
            sockopt::set_socket_send_buffer_size_force(&self.raw, bytes.len()).map_err(io::Error::from)
        } else {
            Ok(())
        };
        let sent = room.and_then(|()| self.raw.send(bytes, 0));
        sent.map(drop).map_err(|source| NetlinkError::Send { operation: operation.to_owned(), source })
    }

    fn receive(&self, flags: RecvFlags) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(DATAGRAM);
        let flags = i32::try_from(flags.bits()).unwrap_or(0);
        loop {
            match self.raw.recv(&mut bytes, flags) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
                Ok(_) => return Ok(bytes),
            }
        }
    }
}

fn unanswered(operation: &str) -> NetlinkError {
    NetlinkError::Receive { operation: operation.to_owned(), source: io::ErrorKind::WouldBlock.into() }
}

/// Reads an NLMSG_ERROR: error number (0 is an ack), the header it answers, attributes.
fn answer(request: &Pending, message: Received<'_>) -> Result<(), NetlinkError> {
    let code = read_u32(message.payload, 0).map(u32::cast_signed).unwrap_or(0);
    if code == 0 {
        return Ok(());
    }
    let errno = Errno::from_raw_os_error(code.wrapping_neg());
    if request.tolerated == Some(errno) {
        return Ok(());
    }
    let detail = (message.flags & NLM_F_ACK_TLVS != 0)
        .then(|| message.payload.get(4 + NLMSG_HEADER..))
        .flatten()
        .and_then(|tail| attributes(tail).find(|(kind, _)| *kind == NLMSGERR_ATTR_MSG))
        .map(|(_, value)| text(value));
    Err(NetlinkError::Refused { operation: request.operation.clone(), detail, errno })
}
