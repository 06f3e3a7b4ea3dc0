//! Talking to CRIU: `criu swrk`, which serves one request on a socket it inherits, in protocol buffers.
//! Source: criu's images/rpc.proto, criu(8).

use crate::error::StepExt;
use crate::sync;
use crate::{Error, ErrorKind};
use hull_sys::exec::{CStrings, execve};
use hull_sys::socket::recv_fds;
use hull_sys::{CloneArgs, CloneFlags, Forked, clone3};
use rustix::io::FdFlags;
use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// `criu_req_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Dump = 1,
    Restore = 2,
    PreDump = 4,
    Notify = 6,
}

/// Longest answer; it holds a few numbers and a message.
const LONGEST_ANSWER: usize = 64 << 10;

/// A protocol buffer being written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fields(Vec<u8>);

impl Fields {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    /// A number; negative ones are their 64 bits.
    pub(crate) fn number(&mut self, field: u32, value: i64) -> &mut Self {
        self.varint(u64::from(field) << 3);
        self.varint(value as u64);
        self
    }

    pub(crate) fn flag(&mut self, field: u32, value: bool) -> &mut Self {
        self.number(field, value.into())
    }

    pub(crate) fn bytes(&mut self, field: u32, value: &[u8]) -> &mut Self {
        self.varint(u64::from(field) << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    pub(crate) fn text(&mut self, field: u32, value: &str) -> &mut Self {
        self.bytes(field, value.as_bytes())
    }

    pub(crate) fn message(&mut self, field: u32, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let mut inner = Self::default();
        fill(&mut inner);
        self.bytes(field, &inner.0)
    }
}

/// A field read: numbers, or bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

fn read_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// All fields of a message; what follows something malformed is left out.
fn fields(mut bytes: &[u8]) -> Vec<(u64, Field<'_>)> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let mut one = || {
            let key = read_varint(&mut bytes)?;
            let field = match key & 7 {
                0 => Field::Number(read_varint(&mut bytes)?),
                2 => {
                    let length = usize::try_from(read_varint(&mut bytes)?).ok()?;
                    let (value, rest) = bytes.split_at_checked(length)?;
                    bytes = rest;
                    Field::Bytes(value)
                }
                _ => return None,
            };
            Some((key >> 3, field))
        };
        match one() {
            Some(field) => found.push(field),
            None => break,
        }
    }
    found
}

/// What CRIU said.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    kind: u64,
    success: bool,
    /// First process of what was restored.
    pub(crate) pid: i32,
    /// Which event, of a notification, and the first process then.
    script: String,
    errno: i32,
    message: String,
}

impl Answer {
    fn parse(bytes: &[u8]) -> Self {
        let mut answer = Self::default();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        for (number, field) in fields(bytes) {
            match (number, field) {
                (1, Field::Number(kind)) => answer.kind = kind,
                (2, Field::Number(success)) => answer.success = success != 0,
                (4, Field::Bytes(restored)) => {
                    for (number, field) in fields(restored) {
                        if let (1, Field::Number(pid)) = (number, field) {
                            answer.pid = pid as i32;
                        }
                    }
                }
                (5, Field::Bytes(notification)) => {
                    for (number, field) in fields(notification) {
                        match (number, field) {
                            (1, Field::Bytes(script)) => answer.script = text(script),
                            (2, Field::Number(pid)) => answer.pid = pid as i32,
                            _ => {}
                        }
                    }
                }
                (7, Field::Number(errno)) => answer.errno = errno as i32,
                (9, Field::Bytes(message)) => answer.message = text(message),
                _ => {}
            }
        }
        answer
    }
}

/// A running `criu swrk`.
#[derive(Debug)]
pub(crate) struct Criu {
    pub(crate) pid: i32,
    pidfd: OwnedFd,
    socket: OwnedFd,
}

/// How to start it.
pub(crate) struct Start<'a> {
    pub(crate) program: &'a Path,
    /// Namespaces of its own.
    pub(crate) namespaces: CloneFlags,
    /// Descriptors it inherits, under their numbers here.
    pub(crate) inherited: &'a [OwnedFd],
}

impl Criu {
    /// Starts it; `prepare` runs in the new process first. The caller must have one thread.
    pub(crate) fn start(
        start: &Start<'_>,
        prepare: impl FnOnce() -> Result<(), Error>,
    ) -> Result<Self, Error> {
        let (ours, theirs) = sync::pair()?;
        let program = CString::new(start.program.as_os_str().as_bytes())
            .map_err(|_| Error::spec("criu", "its path holds a NUL byte"))?;
        let nul = |_| Error::spec("criu", "an argument holds a NUL byte");
        let argv =
            CStrings::new(["criu".to_owned(), "swrk".into(), theirs.as_raw_fd().to_string()]).map_err(nul)?;
        let envp = CStrings::new(["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"])
            .map_err(nul)?;
        let args = CloneArgs { flags: start.namespaces, cgroup: None };
        match clone3(args).step(|| "make a process for criu".into())? {
            Forked::Child => {
                let inherit = || {
                    std::iter::once(&theirs).chain(start.inherited).try_for_each(|fd| {
                        rustix::io::fcntl_setfd(fd, FdFlags::empty()).step(|| "pass a descriptor on".into())
                    })
                };
                let error = match prepare().and_then(|()| inherit()) {
                    Ok(()) => {
                        let errno = execve(&program, &argv, &envp);
                        let text = crate::error::errno_text(errno);
                        let message = format!("execute {}: {text}", start.program.display());
                        Error::Inside { kind: ErrorKind::Other, message }
                    }
                    Err(error) => error,
                };
                sync::send_failure(&theirs, &error);
                hull_sys::process::exit_now(1)
            }
            Forked::Parent { pid, pidfd } => Ok(Self { pid, pidfd, socket: ours }),
        }
    }

    fn send(&self, message: &Fields) -> Result<(), Error> {
        let flags = rustix::net::SendFlags::NOSIGNAL;
        rustix::net::send(&self.socket, &message.0, flags).step(|| "talk to criu".into()).map(drop)
    }

    fn receive(&self) -> Result<(Answer, Vec<OwnedFd>), Error> {
        let mut buffer = vec![0; LONGEST_ANSWER];
        let received = loop {
            match recv_fds(&self.socket, &mut buffer) {
                Err(rustix::io::Errno::INTR) => {}
                other => break other.step(|| "listen to criu".into())?,
            }
        };
        match buffer[..received.length].split_first() {
            None => Err(Error::Vanished("being served by criu")),
            // It could not be executed: no answer of CRIU's begins like this.
            Some((first, said)) if *first == sync::Tag::Failed as u8 => Err(sync::failure(said)),
            Some(_) => Ok((Answer::parse(&buffer[..received.length]), received.fds)),
        }
    }

    /// Sends the request and answers events until it is done. `event` gets each event's name, the first process then, and
    /// descriptors that came along.
    pub(crate) fn serve(
        &self,
        kind: Kind,
        options: &Fields,
        mut event: impl FnMut(&str, i32, Vec<OwnedFd>) -> Result<(), Error>,
    ) -> Result<Answer, Error> {
        let mut request = Fields::default();
        request.number(1, kind as i64).bytes(2, &options.0);
        self.send(&request)?;
        loop {
            let (answer, fds) = self.receive()?;
            if answer.kind != Kind::Notify as u64 {
                return answer.into_result();
            }
            let done = event(&answer.script, answer.pid, fds);
            let mut reply = Fields::default();
            reply.number(1, Kind::Notify as i64).flag(3, done.is_ok());
            let sent = self.send(&reply);
            done?;
            sent?;
        }
    }

    /// Waits for its end.
    pub(crate) fn finish(self) {
        // Its socket is closed first, for it to see that nothing more comes.
        let Self { pidfd, socket, .. } = self;
        drop(socket);
        crate::create::reap(&pidfd);
    }
}

impl Answer {
    fn into_result(self) -> Result<Self, Error> {
        if self.success {
            return Ok(self);
        }
        let cause = match (self.message.is_empty(), self.errno) {
            (false, _) => self.message.clone(),
            (true, 0) => "it gives no reason".into(),
            (true, errno) => crate::error::errno_text(rustix::io::Errno::from_raw_os_error(errno)),
        };
        Err(Error::Inside { kind: ErrorKind::Other, message: format!("criu failed: {cause}") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_texts_and_messages_read_back() {
        let mut message = Fields::default();
        message.number(1, 300).flag(2, true).text(9, "why").message(4, |inner| {
            inner.number(1, 4711);
        });
        assert_eq!(&message.0[..3], [0x08, 0xac, 0x02]);
        let answer = Answer::parse(&message.0);
        assert_eq!((answer.kind, answer.success, answer.pid), (300, true, 4711));
        assert_eq!(answer.message, "why");
    }

    #[test]
    fn a_negative_number_is_ten_bytes() {
        let mut message = Fields::default();
        message.number(1, -1);
        assert_eq!(message.0.len(), 11);
    }

    #[test]
    fn what_is_cut_short_is_left_out() {
        let mut message = Fields::default();
        message.number(1, 2).text(9, "message");
        for length in 0..message.0.len() {
            let answer = Answer::parse(&message.0[..length]);
            assert!(answer.message.is_empty());
        }
        assert!(fields(&[0xff; 12]).is_empty());
    }

    #[test]
    fn a_failure_says_why() {
        let answer = Answer { errno: 2, ..Answer::default() };
        assert_eq!(
            answer.into_result().expect_err("failed").to_string(),
            "criu failed: no such file or directory"
        );
    }
}
