//! A client's stream socket connected to a process's stdio.

use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags};

use crate::detach_keys::Matcher;
use crate::log::Stream;
use crate::protocol::{Attach, AttachEnd};

/// While more than this waits for a client, the process's output is not read: a slow client slows the process.
const PATIENCE: usize = 64 * 1024;
/// Input read at once.
const INPUT: usize = 16 * 1024;

/// An attached client.
///
/// Input and output end independently. When an [`AttachEnd`] is set, nothing more is queued; the client is closed
/// when its queue is empty ([`Client::finished`]) or it is gone.
#[derive(Debug)]
pub(crate) struct Client {
    socket: OwnedFd,
    attach_id: u64,
    stdin: bool,
    stdout: bool,
    stderr: bool,
    framed: bool,
    keys: Matcher,
    input_open: bool,
    queue: Vec<u8>,
    sent: usize,
    end: Option<AttachEnd>,
}

/// What a client's input was.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Input {
    /// Nothing for the process.
    Nothing,
    /// Bytes for the process were appended.
    Bytes,
    /// The client will send no more.
    Ended,
    /// The detach keys were typed.
    Detach,
}

impl Client {
    pub(crate) fn new(socket: OwnedFd, attach: Attach, tty: bool) -> Self {
        let keys = if tty { attach.detach_keys } else { Vec::new() };
        Self {
            socket,
            attach_id: attach.attach_id,
            stdin: attach.stdin,
            stdout: attach.stdout,
            stderr: attach.stderr,
            framed: attach.framed && !tty,
            keys: Matcher::new(keys),
            input_open: true,
            queue: Vec::new(),
            sent: 0,
            end: None,
        }
    }

    pub(crate) fn attach_id(&self) -> u64 {
        self.attach_id
    }

    pub(crate) fn end(&self) -> Option<AttachEnd> {
        self.end
    }

    /// Whether this client takes `stream`.
    fn takes(&self, stream: Stream) -> bool {
        self.end.is_none()
            && match stream {
                Stream::Stdout => self.stdout,
                Stream::Stderr => self.stderr,
            }
    }

    /// Whether reading `stream` must wait for this client.
    pub(crate) fn holds_back(&self, stream: Stream) -> bool {
        self.takes(stream) && self.waiting() > PATIENCE
    }

    fn waiting(&self) -> usize {
        self.queue.len() - self.sent
    }

    /// What to poll the socket for, besides its end; `room` is whether the process's stdin has room.
    pub(crate) fn interest(&self, room: bool) -> Option<PollFlags> {
        let listening = self.input_open && self.end.is_none();
        let mut flags = PollFlags::empty();
        if listening && (room || !self.stdin) {
            flags |= PollFlags::IN;
        }
        if self.waiting() > 0 {
            flags |= PollFlags::OUT;
        }
        // A client that went away with input still to be read would otherwise wake the loop again and again.
        let later = listening && flags.is_empty();
        (!later).then_some(flags)
    }

    /// Sends output of the process; what the socket does not take waits.
    pub(crate) fn deliver(&mut self, stream: Stream, data: &[u8]) {
        if !self.takes(stream) {
            return;
        }
        let length = (data.len() as u32).to_be_bytes();
        let frame = [stream as u8, 0, 0, 0, length[0], length[1], length[2], length[3]];
        let header = if self.framed { &frame[..] } else { &[] };
        let sent = if self.waiting() == 0 { self.try_send(header, data) } else { 0 };
        if self.end.is_none() {
            self.queue.extend_from_slice(&header[sent.min(header.len())..]);
            self.queue.extend_from_slice(&data[sent.saturating_sub(header.len())..]);
        }
    }

    fn try_send(&mut self, header: &[u8], data: &[u8]) -> usize {
        let parts = [IoSlice::new(header), IoSlice::new(data)];
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        match rustix::net::sendmsg(&self.socket, &parts, &mut SendAncillaryBuffer::default(), flags) {
            Ok(sent) => sent,
            Err(Errno::AGAIN | Errno::INTR | Errno::NOBUFS) => 0,
            Err(_) => {
                self.gone();
                0
            }
        }
    }

    /// Sends what waits.
    pub(crate) fn flush(&mut self) {
        while self.waiting() > 0 {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match rustix::net::send(&self.socket, &self.queue[self.sent..], flags) {
                Ok(sent) => self.sent += sent,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN | Errno::NOBUFS) => return,
                Err(_) => return self.gone(),
            }
        }
        self.queue = Vec::new();
        self.sent = 0;
    }

    /// Reads input, and appends to `out` what of it goes to the process.
    pub(crate) fn read(&mut self, out: &mut Vec<u8>) -> Input {
        let mut buffer = [std::mem::MaybeUninit::uninit(); INPUT];
        let input = match rustix::net::recv(&self.socket, &mut buffer, RecvFlags::DONTWAIT) {
            Ok(((input, _), _)) => input,
            Err(Errno::AGAIN | Errno::INTR) => return Input::Nothing,
            // A reset: the connection can carry nothing more in either direction.
            Err(_) => {
                self.gone();
                &mut []
            }
        };
        if input.is_empty() {
            self.input_open = false;
            return if self.stdin { Input::Ended } else { Input::Nothing };
        }
        if !self.stdin {
            return Input::Nothing;
        }
        let before = out.len();
        if self.keys.feed(input, out) {
            self.finish(AttachEnd::Keys);
            return Input::Detach;
        }
        if out.len() > before { Input::Bytes } else { Input::Nothing }
    }

    /// The other side has closed both directions. Input it sent before has to be read first.
    pub(crate) fn hung_up(&mut self) {
        if !(self.input_open && self.stdin) || self.end.is_some() {
            self.gone();
        }
    }

    fn gone(&mut self) {
        self.end = self.end.or(Some(AttachEnd::Gone));
        self.input_open = false;
        self.queue = Vec::new();
        self.sent = 0;
    }

    /// Takes no more output; what waits is still sent.
    pub(crate) fn finish(&mut self, end: AttachEnd) {
        self.end = self.end.or(Some(end));
    }

    /// Whether the socket can be closed.
    pub(crate) fn finished(&self) -> bool {
        self.end.is_some() && self.waiting() == 0
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
