//! An engine's connection, seen from the monitor.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::protocol::Request;
use crate::wire;

/// Events kept for an engine that does not read; beyond that it is taken for dead.
const PATIENCE: usize = 10_000;

/// A connected engine.
#[derive(Debug)]
pub(crate) struct Peer {
    socket: OwnedFd,
    queue: VecDeque<Vec<u8>>,
    gone: bool,
}

impl Peer {
    pub(crate) fn new(socket: OwnedFd) -> Self {
        Self { socket, queue: VecDeque::new(), gone: false }
    }

    /// Sends an encoded event, or keeps it until there is room.
    pub(crate) fn send(&mut self, event: &[u8]) {
        self.queue.push_back(event.to_vec());
        self.flush();
        self.gone |= self.queue.len() > PATIENCE;
    }

    /// Sends what is kept.
    pub(crate) fn flush(&mut self) {
        while let Some(event) = self.queue.front() {
            match wire::send(&self.socket, event, &[]) {
                Ok(()) => drop(self.queue.pop_front()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.gone = true;
                    return;
                }
            }
        }
        self.queue = VecDeque::new();
    }

    /// The next request that is there. One that cannot be understood ends the connection: the two sides disagree
    /// about the protocol.
    pub(crate) fn receive(&mut self) -> Option<(Request, Vec<OwnedFd>)> {
        if self.gone {
            return None;
        }
        match wire::receive(&self.socket) {
            Ok(Some((message, fds))) => match serde_json::from_slice(&message) {
                Ok(request) => return Some((request, fds)),
                Err(_) => self.gone = true,
            },
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(None) | Err(_) => self.gone = true,
        }
        None
    }

    pub(crate) fn waiting(&self) -> bool {
        !self.queue.is_empty()
    }

    pub(crate) fn gone(&self) -> bool {
        self.gone
    }
}

impl AsFd for Peer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
