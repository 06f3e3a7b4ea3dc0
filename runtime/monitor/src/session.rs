//! The stdio of one process, the container's first or an exec's: pipes or a terminal, and the clients attached.

use std::ops::RangeInclusive;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use hull_oci::Stdio;
use rustix::buffer::spare_capacity;
use rustix::event::PollFlags;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
use rustix::termios::Winsize;

use crate::attached::{Client, Input};
use crate::config::ConsoleSize;
use crate::log::{Log, Stream};
use crate::protocol::{Attach, AttachEnd};

/// Output read at once.
const OUTPUT: usize = 256 * 1024;
/// A pipe that was found this full is made larger. It is half of what it can hold: pages that are not filled to their end take
/// a place, too.
const FULL: usize = 32 * 1024;
/// The larger size (the default of `fs.pipe-max-size`).
const LARGE: usize = 1024 * 1024;
/// Output that comes again this soon after the last was handled comes quickly.
const QUICK: Duration = Duration::from_micros(200);
/// After so many quick reads in a row a process is taken to write without pause.
const BUSY: u32 = 16;
/// How long output of such a process gathers in its pipe before it is read, at least and at most. Without it the two wake
/// each other for every few kilobytes, and most of the time goes into that. How long it is within these bounds follows
/// from how much comes: half of what one read takes is aimed at.
const GATHER: RangeInclusive<Duration> = Duration::from_micros(400)..=Duration::from_millis(4);
/// Input that waits for the process before clients are no longer read.
const STDIN_QUEUE: usize = 64 * 1024;
/// How long output may come after the process's end, from others that hold its pipes (docker's time).
const DRAIN: Duration = Duration::from_secs(2);

/// What the process's streams are.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) tty: Option<ConsoleSize>,
    pub(crate) stdin: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
    /// The process's stdin ends with the first client's.
    pub(crate) stdin_once: bool,
}

/// A descriptor of a session to poll.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Source {
    Output(Stream),
    Stdin,
    Client(usize),
}

/// A process's stdio.
#[derive(Debug, Default)]
pub(crate) struct Session {
    console: Option<OwnedFd>,
    tty: bool,
    outputs: [Option<Output>; 2],
    stdin: Option<OwnedFd>,
    stdin_queue: Vec<u8>,
    stdin_ending: bool,
    stdin_once: bool,
    clients: Vec<Client>,
    deadline: Option<Instant>,
}

#[derive(Debug)]
struct Output {
    fd: OwnedFd,
    large: bool,
    /// Quick reads in a row.
    quick: u32,
    handled: Option<Instant>,
    /// Bytes of the last read.
    last: usize,
    /// How long output gathers, when it does.
    pause: Duration,
}

impl Output {
    fn new(fd: OwnedFd, large: bool) -> Self {
        Self { fd, large, quick: 0, handled: None, last: 0, pause: *GATHER.start() }
    }

    /// Lets output of a process that writes without pause gather, unless there was more already than one read takes.
    fn gather(&mut self) {
        let quick = self.handled.is_some_and(|handled| handled.elapsed() < QUICK);
        self.quick = if quick { self.quick + 1 } else { 0 };
        if self.quick < BUSY {
            self.pause = *GATHER.start();
        } else if self.last < OUTPUT {
            let pause = if self.last < OUTPUT / 2 { self.pause * 2 } else { self.pause };
            self.pause = pause.min(*GATHER.end());
            std::thread::sleep(self.pause);
        } else {
            self.pause = (self.pause / 2).max(*GATHER.start());
        }
    }
}

/// The large buffer all sessions read into; there only while there is much to read.
#[derive(Debug, Default)]
pub(crate) struct Buffer(Vec<u8>);

impl Buffer {
    pub(crate) fn in_use(&self) -> bool {
        self.0.capacity() > 0
    }

    pub(crate) fn rest(&mut self) {
        self.0 = Vec::new();
    }
}

impl Session {
    /// Makes the streams; the second value goes to the process.
    pub(crate) fn new(wanted: Wanted) -> Result<(Self, Stdio), Errno> {
        let mut session = Self { stdin_once: wanted.stdin_once, ..Self::default() };
        if let Some(size) = wanted.tty {
            session.tty = true;
            return Ok((session, Stdio::Terminal { rows: size.rows, cols: size.cols, line_feeds: false }));
        }
        let stdin = match wanted.stdin {
            true => {
                let (theirs, ours) = pipe_with(PipeFlags::CLOEXEC)?;
                rustix::fs::fcntl_setfl(&ours, OFlags::NONBLOCK)?;
                session.stdin = Some(ours);
                theirs
            }
            false => null()?,
        };
        let mut output = |stream: Stream, wanted| match wanted {
            true => {
                let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
                rustix::fs::fcntl_setfl(&ours, OFlags::NONBLOCK)?;
                session.outputs[stream as usize - 1] = Some(Output::new(ours, false));
                Ok(theirs)
            }
            false => null(),
        };
        let stdout = output(Stream::Stdout, wanted.stdout)?;
        let stderr = output(Stream::Stderr, wanted.stderr)?;
        Ok((session, Stdio::Fds { stdin, stdout, stderr }))
    }

    /// Takes the master of the terminal that the process got.
    pub(crate) fn set_console(&mut self, console: OwnedFd) -> Result<(), Errno> {
        let flags = rustix::fs::fcntl_getfl(&console)?;
        rustix::fs::fcntl_setfl(&console, flags | OFlags::NONBLOCK)?;
        let reading = rustix::io::fcntl_dupfd_cloexec(&console, 3)?;
        let writing = rustix::io::fcntl_dupfd_cloexec(&console, 3)?;
        self.outputs[0] = Some(Output::new(reading, true));
        self.stdin = Some(writing);
        self.console = Some(console);
        Ok(())
    }

    /// Sets the terminal's size; `false` if there is none.
    pub(crate) fn resize(&self, size: ConsoleSize) -> Result<bool, Errno> {
        let Some(console) = &self.console else { return Ok(false) };
        let size = Winsize { ws_row: size.rows, ws_col: size.cols, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(console, size)?;
        Ok(true)
    }

    pub(crate) fn attach(&mut self, socket: OwnedFd, attach: Attach) {
        self.clients.push(Client::new(socket, attach, self.tty));
    }

    pub(crate) fn attached(&self) -> usize {
        self.clients.iter().filter(|client| client.end().is_none()).count()
    }

    /// Descriptors with something to wait for.
    pub(crate) fn interests(&self) -> impl Iterator<Item = (Source, BorrowedFd<'_>, PollFlags)> {
        let outputs = [Stream::Stdout, Stream::Stderr].into_iter().filter_map(|stream| {
            let output = self.outputs[stream as usize - 1].as_ref()?;
            (!self.held_back(stream)).then_some((Source::Output(stream), output.fd.as_fd(), PollFlags::IN))
        });
        let stdin = self.stdin.as_ref().filter(|_| !self.stdin_queue.is_empty());
        let stdin = stdin.map(|fd| (Source::Stdin, fd.as_fd(), PollFlags::OUT));
        let room = self.stdin_queue.len() < STDIN_QUEUE;
        let clients = self.clients.iter().enumerate().filter_map(move |(index, client)| {
            Some((Source::Client(index), client.as_fd(), client.interest(room)?))
        });
        outputs.chain(stdin).chain(clients)
    }

    /// Once the process has ended only what is in its pipes is left, and nobody is slowed down any more.
    fn held_back(&self, stream: Stream) -> bool {
        self.deadline.is_none() && self.clients.iter().any(|client| client.holds_back(stream))
    }

    /// Handles one readiness that [`Self::interests`] asked for.
    pub(crate) fn ready(
        &mut self,
        source: Source,
        flags: PollFlags,
        buffer: &mut Buffer,
        log: Option<&mut Log>,
    ) {
        match source {
            Source::Output(stream) => self.read_output(stream, buffer, log),
            Source::Stdin => self.write_stdin(),
            Source::Client(index) => self.serve(index, flags),
        }
    }

    fn read_output(&mut self, stream: Stream, Buffer(buffer): &mut Buffer, log: Option<&mut Log>) {
        let Some(output) = &mut self.outputs[stream as usize - 1] else { return };
        // What an ended process left is all there already.
        if self.deadline.is_none() {
            output.gather();
        }
        buffer.clear();
        buffer.reserve(OUTPUT);
        match rustix::io::read(&output.fd, spare_capacity(buffer)) {
            Ok(0) => return self.end_output(stream, log),
            Ok(_) => {}
            Err(Errno::AGAIN | Errno::INTR) => return,
            // EIO: no process has the terminal open any more.
            Err(_) => return self.end_output(stream, log),
        }
        if !output.large && buffer.len() >= FULL {
            output.large = true;
            // Refused for a user with many large pipes: then it stays as it is.
            let _ = fcntl_setpipe_size(&output.fd, LARGE);
        }
        if let Some(log) = log {
            log.write(stream, buffer);
        }
        for client in &mut self.clients {
            client.deliver(stream, buffer);
        }
        if let Some(output) = &mut self.outputs[stream as usize - 1] {
            output.handled = Some(Instant::now());
            output.last = buffer.len();
        }
    }

    fn end_output(&mut self, stream: Stream, log: Option<&mut Log>) {
        self.outputs[stream as usize - 1] = None;
        if let Some(log) = log {
            log.end(stream);
        }
    }

    fn serve(&mut self, index: usize, flags: PollFlags) {
        let client = &mut self.clients[index];
        if flags.contains(PollFlags::OUT) {
            client.flush();
        }
        if flags.contains(PollFlags::IN) {
            let input = client.read(&mut self.stdin_queue);
            self.took(index, input);
        } else if flags.intersects(PollFlags::HUP | PollFlags::ERR) {
            let client = &mut self.clients[index];
            client.hung_up();
        }
    }

    fn took(&mut self, index: usize, input: Input) {
        match input {
            Input::Nothing => {}
            Input::Bytes | Input::Detach => self.write_stdin(),
            // As docker: where the client's end of input is not the process's, it ends the session.
            Input::Ended if self.stdin_once && !self.tty => {
                self.stdin_ending = true;
                self.write_stdin();
            }
            Input::Ended => self.clients[index].finish(AttachEnd::InputEnded),
        }
    }

    fn write_stdin(&mut self) {
        while let Some(fd) = &self.stdin
            && !self.stdin_queue.is_empty()
        {
            match rustix::io::write(fd, &self.stdin_queue) {
                Ok(written) => drop(self.stdin_queue.drain(..written)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                // The process has closed its stdin, or the terminal is gone.
                Err(_) => self.stdin = None,
            }
        }
        self.stdin_queue = Vec::new();
        if self.stdin_ending {
            self.stdin = None;
        }
    }

    /// The process has ended: what its pipes hold is read, then they are closed.
    pub(crate) fn process_ended(&mut self) {
        self.deadline = Some(Instant::now() + DRAIN);
        self.stdin = None;
        self.stdin_queue = Vec::new();
    }

    /// When [`Self::give_up`] is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline.filter(|_| !self.drained())
    }

    /// Closes streams that others hold open past the deadline.
    pub(crate) fn give_up(&mut self, now: Instant, mut log: Option<&mut Log>) {
        if self.deadline().is_some_and(|deadline| deadline <= now) {
            for stream in [Stream::Stdout, Stream::Stderr] {
                self.end_output(stream, log.as_deref_mut());
            }
        }
    }

    /// Whether no more output can come.
    pub(crate) fn drained(&self) -> bool {
        self.outputs.iter().all(Option::is_none)
    }

    /// Ends all clients; what waits for them is still sent.
    pub(crate) fn finish(&mut self) {
        for client in &mut self.clients {
            client.finish(AttachEnd::Finished);
        }
        self.console = None;
    }

    /// Removes clients that are done; returns how each attachment ended.
    pub(crate) fn reap_clients(&mut self) -> Vec<(u64, AttachEnd)> {
        let mut ended = Vec::new();
        self.clients.retain(|client| {
            if client.finished() {
                ended.extend(client.end().map(|end| (client.attach_id(), end)));
            }
            !client.finished()
        });
        ended
    }

    pub(crate) fn has_clients(&self) -> bool {
        !self.clients.is_empty()
    }
}

fn null() -> Result<OwnedFd, Errno> {
    rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
}
