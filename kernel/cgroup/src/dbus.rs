//! A D-Bus client as small as talking to a service manager takes: calls, their replies and signals, one at a time.
//!
//! Source: the D-Bus specification, "Type System", "Message Protocol", "Authentication Protocol".

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

/// The specification's bound on a message.
const MAX_MESSAGE: usize = 128 << 20;
/// How long the other side may take for one answer; a job of the service manager is waited for by its caller.
const PATIENCE: Duration = Duration::from_secs(30);
/// Length of the fixed part of a header, the length of its fields included.
const FIXED_HEADER: usize = 16;

/// Message types.
const CALL: u8 = 1;
const RETURN: u8 = 2;
const FAILURE: u8 = 3;
const SIGNAL: u8 = 4;

/// Why a conversation failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket.
    #[error("{step}")]
    Socket {
        /// What was being done.
        step: String,
        /// Why it failed.
        #[source]
        source: Errno,
    },
    /// The other side does not take this user.
    #[error("the bus refused to authenticate: {0}")]
    Refused(String),
    /// What came is no D-Bus.
    #[error("the bus sent a malformed message")]
    Malformed,
    /// A call was answered by an error.
    #[error("{text} ({name})")]
    Answer {
        /// `org.freedesktop.systemd1.NoSuchUnit`, …
        name: String,
        /// Its text.
        text: String,
    },
    /// Nothing came.
    #[error("no answer within {} s", PATIENCE.as_secs())]
    Silence,
}

fn socket_step<T>(result: rustix::io::Result<T>, step: &str) -> Result<T, Error> {
    result.map_err(|source| Error::Socket { step: step.into(), source })
}

/// Values in the wire format, little endian.
#[derive(Clone, Debug, Default)]
pub(crate) struct Writer {
    pub(crate) bytes: Vec<u8>,
}

impl Writer {
    fn align(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }

    pub(crate) fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.align(4);
        self.bytes.extend(value.to_le_bytes());
    }

    /// A string or an object path.
    pub(crate) fn string(&mut self, value: &str) {
        self.u32(value.len() as u32);
        self.bytes.extend(value.as_bytes());
        self.bytes.push(0);
    }

    pub(crate) fn signature(&mut self, value: &str) {
        self.bytes.push(value.len() as u8);
        self.bytes.extend(value.as_bytes());
        self.bytes.push(0);
    }

    /// The begin of a structure.
    pub(crate) fn structure(&mut self) {
        self.align(8);
    }

    /// An array whose elements have this alignment. The padding before the first is not part of its length.
    pub(crate) fn array(&mut self, alignment: usize, fill: impl FnOnce(&mut Self)) {
        self.u32(0);
        let length_at = self.bytes.len() - 4;
        self.align(alignment);
        let start = self.bytes.len();
        fill(self);
        let length = (self.bytes.len() - start) as u32;
        self.bytes[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
    }
}

/// A value of a property.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Bool(bool),
    Byte(u8),
    I16(i16),
    U16(u16),
    I32(i32),
    U32(u32),
    I64(i64),
    U64(u64),
    Double(f64),
    String(String),
    Strings(Vec<String>),
    Bytes(Vec<u8>),
    U32s(Vec<u32>),
}

impl Writer {
    /// A variant: its signature, then itself.
    pub(crate) fn variant(&mut self, value: &Value) {
        let fixed = |writer: &mut Self, signature: &str, size: usize, bytes: &[u8]| {
            writer.signature(signature);
            writer.align(size);
            writer.bytes.extend(bytes);
        };
        match value {
            Value::Bool(value) => fixed(self, "b", 4, &u32::from(*value).to_le_bytes()),
            Value::Byte(value) => fixed(self, "y", 1, &[*value]),
            Value::I16(value) => fixed(self, "n", 2, &value.to_le_bytes()),
            Value::U16(value) => fixed(self, "q", 2, &value.to_le_bytes()),
            Value::I32(value) => fixed(self, "i", 4, &value.to_le_bytes()),
            Value::U32(value) => fixed(self, "u", 4, &value.to_le_bytes()),
            Value::I64(value) => fixed(self, "x", 8, &value.to_le_bytes()),
            Value::U64(value) => fixed(self, "t", 8, &value.to_le_bytes()),
            Value::Double(value) => fixed(self, "d", 8, &value.to_le_bytes()),
            Value::String(value) => {
                self.signature("s");
                self.string(value);
            }
            Value::Strings(values) => {
                self.signature("as");
                self.array(4, |array| values.iter().for_each(|value| array.string(value)));
            }
            Value::Bytes(values) => {
                self.signature("ay");
                self.array(1, |array| array.bytes.extend(values));
            }
            Value::U32s(values) => {
                self.signature("au");
                self.array(4, |array| values.iter().for_each(|value| array.u32(*value)));
            }
        }
    }
}

/// A received message.
#[derive(Clone, Debug, Default)]
pub(crate) struct Message {
    kind: u8,
    reply_to: u32,
    interface: String,
    pub(crate) member: String,
    error: String,
    body: Vec<u8>,
}

/// Reads values in order.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at }
    }

    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Error> {
        let end = self.at.checked_add(length).ok_or(Error::Malformed)?;
        let taken = self.bytes.get(self.at..end).ok_or(Error::Malformed)?;
        self.at = end;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, Error> {
        Ok(self.take(1)?[0])
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Error> {
        self.align(4);
        let bytes = self.take(4)?.try_into().map_err(|_| Error::Malformed)?;
        Ok(u32::from_le_bytes(bytes))
    }

    /// A string or an object path.
    pub(crate) fn string(&mut self) -> Result<&'a str, Error> {
        let length = self.u32()? as usize;
        let text = self.take(length)?;
        self.take(1)?;
        std::str::from_utf8(text).map_err(|_| Error::Malformed)
    }

    fn signature(&mut self) -> Result<&'a str, Error> {
        let length = self.byte()?.into();
        let text = self.take(length)?;
        self.take(1)?;
        std::str::from_utf8(text).map_err(|_| Error::Malformed)
    }

    /// A variant that holds a string.
    pub(crate) fn string_variant(&mut self) -> Result<&'a str, Error> {
        if self.signature()? == "s" { self.string() } else { Err(Error::Malformed) }
    }
}

impl Message {
    /// Its values.
    pub(crate) fn reader(&self) -> Reader<'_> {
        Reader::new(&self.body, 0)
    }

    /// Whether it is that signal.
    pub(crate) fn is_signal(&self, interface: &str, member: &str) -> bool {
        self.kind == SIGNAL && self.interface == interface && self.member == member
    }

    /// `bytes` are header fields and body, the fixed part of the header before them.
    fn parse(bytes: &[u8], body_at: usize, fields_end: usize) -> Result<Self, Error> {
        let mut message = Self { kind: bytes[1], ..Self::default() };
        let mut reader = Reader::new(bytes.get(..fields_end).ok_or(Error::Malformed)?, FIXED_HEADER);
        while reader.at < fields_end {
            reader.align(8);
            let field = reader.byte()?;
            match (field, reader.signature()?) {
                (2, "s") => message.interface = reader.string()?.into(),
                (3, "s") => message.member = reader.string()?.into(),
                (4, "s") => message.error = reader.string()?.into(),
                (5, "u") => message.reply_to = reader.u32()?,
                (_, "s" | "o") => drop(reader.string()?),
                (_, "g") => drop(reader.signature()?),
                (_, "u") => drop(reader.u32()?),
                _ => return Err(Error::Malformed),
            }
        }
        message.body = bytes.get(body_at..).ok_or(Error::Malformed)?.to_vec();
        Ok(message)
    }
}

/// A call.
pub(crate) struct Call<'a> {
    pub(crate) destination: &'a str,
    pub(crate) path: &'a str,
    pub(crate) interface: &'a str,
    pub(crate) member: &'a str,
    pub(crate) signature: &'a str,
    pub(crate) body: Writer,
}

impl Call<'_> {
    fn encode(&self, serial: u32, to_bus: bool) -> Vec<u8> {
        let mut message = Writer::default();
        [b'l', CALL, 0, 1].into_iter().for_each(|byte| message.u8(byte));
        message.u32(self.body.bytes.len() as u32);
        message.u32(serial);
        message.array(8, |fields| {
            let mut field = |number: u8, signature: &str, value: &str| {
                if value.is_empty() {
                    return;
                }
                fields.structure();
                fields.u8(number);
                fields.signature(signature);
                if signature == "g" { fields.signature(value) } else { fields.string(value) }
            };
            field(1, "o", self.path);
            field(2, "s", self.interface);
            field(3, "s", self.member);
            // A direct connection has one other side, which has no name.
            field(6, "s", if to_bus { self.destination } else { "" });
            field(8, "g", self.signature);
        });
        message.structure();
        message.bytes.extend(&self.body.bytes);
        message.bytes
    }
}

/// A connection to a message bus, or directly to a service.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: OwnedFd,
    serial: u32,
    bus: bool,
    buffer: Vec<u8>,
    /// Signals that came while an answer was awaited.
    waiting: Vec<Message>,
}

impl Connection {
    /// Connects and authenticates as this process's user; to a bus also says hello, as one must.
    pub(crate) fn open(path: &Path, bus: bool) -> Result<Self, Error> {
        let socket = socket_step(
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None),
            "make a socket",
        )?;
        let step = format!("connect to {}", path.display());
        let address = socket_step(SocketAddrUnix::new(path), &step)?;
        socket_step(rustix::net::connect(&socket, &address), &step)?;
        let mut connection = Self { socket, serial: 0, bus, buffer: Vec::new(), waiting: Vec::new() };
        connection.authenticate()?;
        if bus {
            let name = "org.freedesktop.DBus";
            connection.call(&Call {
                destination: name,
                path: "/org/freedesktop/DBus",
                interface: name,
                member: "Hello",
                signature: "",
                body: Writer::default(),
            })?;
        }
        Ok(connection)
    }

    /// Whether other services can be reached through it.
    pub(crate) fn is_bus(&self) -> bool {
        self.bus
    }

    /// EXTERNAL: the user id in decimal, each digit as the hexadecimal number of its character. BEGIN goes along: sd-bus's
    /// other side never looks at a message that it has read together with BEGIN.
    fn authenticate(&mut self) -> Result<(), Error> {
        let uid = rustix::process::geteuid().as_raw().to_string();
        let hex: String = uid.bytes().map(|byte| format!("{byte:02x}")).collect();
        self.write(format!("\0AUTH EXTERNAL {hex}\r\nBEGIN\r\n").as_bytes())?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\r\n") {
                let line = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
                self.buffer.drain(..end + 2);
                if !line.starts_with("OK ") {
                    return Err(Error::Refused(line));
                }
                return Ok(());
            }
            self.fill(deadline)?;
        }
    }

    fn write(&self, mut bytes: &[u8]) -> Result<(), Error> {
        while !bytes.is_empty() {
            match rustix::net::send(&self.socket, bytes, rustix::net::SendFlags::NOSIGNAL) {
                Ok(written) => bytes = &bytes[written..],
                Err(Errno::INTR) => {}
                Err(source) => return Err(Error::Socket { step: "talk to the bus".into(), source }),
            }
        }
        Ok(())
    }

    /// Reads some more.
    fn fill(&mut self, deadline: Instant) -> Result<(), Error> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Error::Silence);
        }
        let timeout =
            rustix::time::Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return Err(Error::Silence),
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(()),
            Err(source) => return Err(Error::Socket { step: "wait for the bus".into(), source }),
        }
        let mut chunk = [0; 4096];
        match rustix::io::read(&self.socket, &mut chunk) {
            Ok(0) => Err(Error::Socket { step: "listen to the bus".into(), source: Errno::CONNRESET }),
            Ok(length) => {
                self.buffer.extend(&chunk[..length]);
                Ok(())
            }
            Err(Errno::INTR) => Ok(()),
            Err(source) => Err(Error::Socket { step: "listen to the bus".into(), source }),
        }
    }

    fn receive(&mut self, deadline: Instant) -> Result<Message, Error> {
        while self.buffer.len() < FIXED_HEADER {
            self.fill(deadline)?;
        }
        if self.buffer[0] != b'l' {
            // Big endian is allowed, and sent by nobody on this machine.
            return Err(Error::Malformed);
        }
        let word = |at: usize| {
            let bytes = [self.buffer[at], self.buffer[at + 1], self.buffer[at + 2], self.buffer[at + 3]];
            u32::from_le_bytes(bytes) as usize
        };
        let (body, fields) = (word(4), word(12));
        if body > MAX_MESSAGE || fields > MAX_MESSAGE {
            return Err(Error::Malformed);
        }
        let fields_end = FIXED_HEADER + fields;
        let body_at = fields_end.next_multiple_of(8);
        while self.buffer.len() < body_at + body {
            self.fill(deadline)?;
        }
        let bytes: Vec<u8> = self.buffer.drain(..body_at + body).collect();
        Message::parse(&bytes, body_at, fields_end)
    }

    /// Calls and waits for the answer.
    pub(crate) fn call(&mut self, call: &Call<'_>) -> Result<Message, Error> {
        self.serial += 1;
        self.write(&call.encode(self.serial, self.bus))?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let message = self.receive(deadline)?;
            match message.kind {
                SIGNAL => self.waiting.push(message),
                RETURN if message.reply_to == self.serial => return Ok(message),
                FAILURE if message.reply_to == self.serial => {
                    let text = message.reader().string().unwrap_or("no reason given").to_owned();
                    return Err(Error::Answer { name: message.error, text });
                }
                _ => {}
            }
        }
    }

    /// The next signal.
    pub(crate) fn signal(&mut self, deadline: Instant) -> Result<Message, Error> {
        if !self.waiting.is_empty() {
            return Ok(self.waiting.remove(0));
        }
        loop {
            let message = self.receive(deadline)?;
            if message.kind == SIGNAL {
                return Ok(message);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_leave_their_padding_out() {
        let mut writer = Writer::default();
        writer.u8(1);
        writer.array(8, |array| array.bytes.extend(2u64.to_le_bytes()));
        assert_eq!(writer.bytes, [1, 0, 0, 0, 8, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
        let mut empty = Writer::default();
        empty.array(8, |_| {});
        assert_eq!(empty.bytes, [0; 8]);
    }

    #[test]
    fn variants_carry_their_type() {
        let mut writer = Writer::default();
        writer.variant(&Value::Bool(true));
        assert_eq!(writer.bytes, [1, b'b', 0, 0, 1, 0, 0, 0]);
        let mut writer = Writer::default();
        writer.variant(&Value::U32s(vec![7]));
        assert_eq!(writer.bytes, [2, b'a', b'u', 0, 4, 0, 0, 0, 7, 0, 0, 0]);
    }

    #[test]
    fn a_call_reads_as_a_message() {
        let mut body = Writer::default();
        body.string("unit");
        let call =
            Call { destination: "d", path: "/p", interface: "i.f", member: "Get", signature: "s", body };
        let bytes = call.encode(9, true);
        let fields = u32::from_le_bytes([bytes[12], bytes[13], bytes[14], bytes[15]]) as usize;
        let end = FIXED_HEADER + fields;
        let message = Message::parse(&bytes, end.next_multiple_of(8), end).expect("message");
        assert_eq!((message.interface.as_str(), message.member.as_str()), ("i.f", "Get"));
        assert_eq!(message.reader().string().expect("string"), "unit");
    }

    #[test]
    fn nonsense_is_no_message() {
        for length in 0..40 {
            let bytes: Vec<u8> = (0..16 + length).map(|n| (n * 37 % 251) as u8).collect();
            let end = bytes.len();
            // No panic; whatever it reads as.
            let _ = Message::parse(&bytes, end, end);
        }
    }
}
