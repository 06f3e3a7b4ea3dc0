//! Messages with descriptors over unix sockets (`SCM_RIGHTS`).

use crate::Result;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Most descriptors in one message here (the kernel's own bound is 253).
pub const MAX_FDS: usize = 64;

/// Sends one message with descriptors, without SIGPIPE.
pub fn send_fds(socket: impl AsFd, data: &[u8], fds: &[BorrowedFd<'_>]) -> Result<usize> {
    if fds.is_empty() {
        return rustix::net::send(socket, data, SendFlags::NOSIGNAL);
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(rustix::io::Errno::TOOMANYREFS);
    }
    rustix::net::sendmsg(socket, &[IoSlice::new(data)], &mut control, SendFlags::NOSIGNAL)
}

/// A received message.
#[derive(Debug)]
pub struct Received {
    /// Bytes of the buffer that were filled; 0 at the end of the stream.
    pub length: usize,
    /// Descriptors that came along, close-on-exec.
    pub fds: Vec<OwnedFd>,
}

/// Receives one message with its descriptors. A message or control data cut short is `EMSGSIZE`.
pub fn recv_fds(socket: impl AsFd, buffer: &mut [u8]) -> Result<Received> {
    recv_fds_with(socket, buffer, RecvFlags::empty())
}

/// [`recv_fds`] with flags, such as `DONTWAIT`.
pub fn recv_fds_with(socket: impl AsFd, buffer: &mut [u8], flags: RecvFlags) -> Result<Received> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = rustix::net::recvmsg(
        socket,
        &mut [IoSliceMut::new(buffer)],
        &mut control,
        flags | RecvFlags::CMSG_CLOEXEC,
    )?;
    let mut fds = Vec::new();
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = part {
            fds.extend(rights);
        }
    }
    if message.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(rustix::io::Errno::MSGSIZE);
    }
    Ok(Received { length: message.bytes, fds })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType};

    #[test]
    fn descriptors_travel_with_their_message() {
        let (a, b) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .expect("pair");
        let (reader, writer) = rustix::pipe::pipe().expect("pipe");
        send_fds(&a, b"here", &[writer.as_fd()]).expect("send");
        let mut buffer = [0; 16];
        let received = recv_fds(&b, &mut buffer).expect("receive");
        assert_eq!(&buffer[..received.length], b"here");
        rustix::io::write(&received.fds[0], b"x").expect("write");
        assert_eq!(rustix::io::read(&reader, &mut buffer).expect("read"), 1);
    }

    #[test]
    fn a_message_cut_short_is_an_error() {
        let (a, b) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .expect("pair");
        send_fds(&a, b"too long", &[]).expect("send");
        assert_eq!(recv_fds(&b, &mut [0; 3]).err(), Some(rustix::io::Errno::MSGSIZE));
    }
}
