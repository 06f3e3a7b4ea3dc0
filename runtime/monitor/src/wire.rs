//! Messages with descriptors over SOCK_SEQPACKET.
//!
//! A record carries the message itself, or, when the message is too long for a socket buffer, one zero byte and
//! the message in a memfd as the last descriptor. JSON never begins with a zero byte.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read as _, Seek as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};

/// Longest message sent in a record; well under the default `net.core.wmem_default`.
const LONGEST_RECORD: usize = 32 * 1024;
/// Longest message taken out of a memfd.
const LONGEST_MESSAGE: u64 = 16 * 1024 * 1024;
/// Most descriptors beside a message, the memfd included.
const MOST_FDS: usize = 4;

const MARKER: [u8; 1] = [0];

/// A received message and the descriptors beside it.
pub(crate) type Message = (Vec<u8>, Vec<OwnedFd>);

/// Sends without waiting; `WouldBlock` when the peer does not read.
pub(crate) fn send(socket: impl AsFd, message: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    if message.len() <= LONGEST_RECORD {
        return send_record(socket.as_fd(), message, fds);
    }
    let memfd = memfd(message)?;
    let mut all = fds.to_vec();
    all.push(memfd.as_fd());
    send_record(socket.as_fd(), &MARKER, &all)
}

fn memfd(message: &[u8]) -> io::Result<File> {
    let mut file = File::from(rustix::fs::memfd_create(c"message", rustix::fs::MemfdFlags::CLOEXEC)?);
    file.write_all(message)?;
    Ok(file)
}

fn send_record(socket: BorrowedFd<'_>, record: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    rustix::net::sendmsg(socket, &[IoSlice::new(record)], &mut control, flags)?;
    Ok(())
}

/// Receives one message without waiting; `WouldBlock` when there is none, `None` when the peer is gone.
pub(crate) fn receive(socket: impl AsFd) -> io::Result<Option<Message>> {
    let mut record = vec![0; LONGEST_RECORD];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let received =
        match rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut record)], &mut control, flags) {
            Ok(received) => received,
            Err(rustix::io::Errno::CONNRESET | rustix::io::Errno::PIPE) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
    let mut fds: Vec<OwnedFd> = control
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        })
        .flatten()
        .collect();
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "message or descriptors truncated"));
    }
    record.truncate(received.bytes);
    if record.is_empty() {
        return Ok(None);
    }
    if record == MARKER {
        record = read_memfd(fds.pop())?;
    }
    Ok(Some((record, fds)))
}

fn read_memfd(fd: Option<OwnedFd>) -> io::Result<Vec<u8>> {
    let fd =
        fd.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "long message without its memfd"))?;
    let mut file = File::from(fd);
    file.rewind()?;
    let mut message = Vec::new();
    file.take(LONGEST_MESSAGE).read_to_end(&mut message)?;
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
    }

    #[test]
    fn short_and_long_messages_arrive_with_their_descriptors() {
        for length in [1, LONGEST_RECORD, LONGEST_RECORD + 1, 3_000_000] {
            let (a, b) = pair();
            let message = vec![b'x'; length];
            let (keep, pass) = pair();
            send(&a, &message, &[pass.as_fd()]).unwrap();
            drop(pass);
            let (got, fds) = receive(&b).unwrap().unwrap();
            assert_eq!(got, message);
            let [passed]: [OwnedFd; 1] = fds.try_into().unwrap();
            send(&passed, b"hello", &[]).unwrap();
            assert_eq!(receive(&keep).unwrap().unwrap().0, b"hello");
        }
    }

    #[test]
    fn nothing_there_and_peer_gone_differ() {
        let (a, b) = pair();
        assert_eq!(receive(&b).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(a);
        assert!(receive(&b).unwrap().is_none());
        assert_eq!(send(&b, b"x", &[]).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
