//! An answer.

use std::fs::File;
use std::io::Write;
use std::sync::Arc;

use tokio::sync::watch;

/// What follows an answer's headers.
#[derive(Debug)]
pub enum Payload {
    /// Nothing.
    Empty,
    /// Bytes.
    Bytes(Vec<u8>),
    /// A part of a file.
    File {
        /// Which.
        file: Arc<File>,
        /// First byte.
        offset: u64,
        /// Number of bytes.
        length: u64,
    },
    /// A file that is being written.
    Tail(Tail),
}

/// A file that somebody else is writing, sent as it grows.
#[derive(Debug)]
pub struct Tail {
    /// Which.
    pub file: Arc<File>,
    /// First byte to send.
    pub offset: u64,
    /// Number of bytes to send.
    pub length: u64,
    /// Bytes in the file so far; closed without reaching the end if writing failed.
    pub written: watch::Receiver<u64>,
}

/// An answer.
#[derive(Debug)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Headers as they are sent.
    headers: Vec<u8>,
    /// Body.
    pub payload: Payload,
}

impl Response {
    /// An answer without headers and body.
    pub fn new(status: u16) -> Self {
        Self { status, headers: Vec::new(), payload: Payload::Empty }
    }

    /// Adds a header. Control characters of the value are left out.
    pub fn header(mut self, name: &str, value: impl AsRef<str>) -> Self {
        self.headers.extend_from_slice(name.as_bytes());
        self.headers.extend_from_slice(b": ");
        self.headers.extend(value.as_ref().bytes().filter(|b| *b >= b' ' && *b != 0x7f));
        self.headers.extend_from_slice(b"\r\n");
        self
    }

    /// With a body.
    pub fn payload(mut self, payload: Payload) -> Self {
        self.payload = payload;
        self
    }

    /// With a body of that type.
    pub fn bytes(self, content_type: &str, bytes: impl Into<Vec<u8>>) -> Self {
        self.header("Content-Type", content_type).payload(Payload::Bytes(bytes.into()))
    }

    /// Length of the body.
    pub fn length(&self) -> u64 {
        match &self.payload {
            Payload::Empty => 0,
            Payload::Bytes(bytes) => bytes.len() as u64,
            Payload::File { length, .. } | Payload::Tail(Tail { length, .. }) => *length,
        }
    }

    /// The line of status and the headers.
    pub(super) fn head(&self, date: &str, close: bool) -> Vec<u8> {
        let mut head = Vec::with_capacity(256 + self.headers.len());
        // Writing into memory does not fail.
        let _ = write!(head, "HTTP/1.1 {} {}\r\nDate: {date}\r\n", self.status, reason(self.status));
        head.extend_from_slice(
            b"Docker-Distribution-Api-Version: registry/2.0\r\nX-Content-Type-Options: nosniff\r\n",
        );
        if self.status != 204 && self.status != 304 {
            let _ = write!(head, "Content-Length: {}\r\n", self.length());
        }
        if close {
            head.extend_from_slice(b"Connection: close\r\n");
        }
        head.extend_from_slice(&self.headers);
        head.extend_from_slice(b"\r\n");
        head
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        206 => "Partial Content",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        416 => "Range Not Satisfiable",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        _ => "",
    }
}
