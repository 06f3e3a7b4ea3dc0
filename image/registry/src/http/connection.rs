//! One client's requests, one after another.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

use super::body::Body;
use super::head::{Head, HeadError, Method};
use super::response::{Payload, Response, Tail};
use super::{Limits, Stream};
use crate::service::{Request, Service};

/// Read ahead at once.
const AHEAD: usize = 16 << 10;
/// How long a client that was refused may go on sending, so that it sees why.
const LINGER: Duration = Duration::from_secs(2);

/// A client's connection and what was read of it ahead.
#[derive(Debug)]
pub(super) struct Connection {
    stream: Stream,
    buffer: Vec<u8>,
    start: usize,
    pub(super) limits: Limits,
}

impl Connection {
    fn new(stream: Stream, limits: Limits) -> Self {
        Self { stream, buffer: Vec::new(), start: 0, limits }
    }

    /// Bytes that were read and not used.
    pub(super) fn ahead(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    pub(super) fn consume(&mut self, bytes: usize) {
        self.start += bytes;
        if self.start == self.buffer.len() {
            self.buffer.clear();
            self.start = 0;
        }
    }

    /// Reads more; fails at the end.
    pub(super) async fn read_ahead(&mut self) -> io::Result<()> {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.reserve(AHEAD);
        match self.stream.read(&mut self.buffer).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// Reads at most `room` bytes right into a buffer; 0 is the end.
    pub(super) async fn read_into(&mut self, buffer: &mut Vec<u8>, room: usize) -> io::Result<usize> {
        buffer.reserve(room);
        self.stream.read_at_most(buffer, room).await
    }

    /// Writes all; every piece has the limit of time for bodies.
    pub(super) async fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = timeout(self.limits.body_time, self.stream.write(bytes)).await??;
            bytes = &bytes[written..];
        }
        timeout(self.limits.body_time, self.stream.flush()).await?
    }

    async fn write_head(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = timeout(self.limits.body_time, self.stream.write_more(bytes)).await??;
            bytes = &bytes[written..];
        }
        Ok(())
    }

    /// The next request; `None` if the client is done, or the server is.
    async fn next(&mut self, stop: &mut watch::Receiver<bool>) -> Result<Option<Head>, HeadError> {
        if self.ahead().is_empty() {
            let first = tokio::select! {
                biased;
                read = timeout(self.limits.idle_time, self.read_ahead()) => read,
                _ = stop.wait_for(|stop| *stop) => return Ok(None),
            };
            if !matches!(first, Ok(Ok(()))) {
                return Ok(None);
            }
        }
        let deadline = Instant::now() + self.limits.head_time;
        loop {
            if let Some((head, length)) = Head::parse(self.ahead())? {
                self.consume(length);
                return Ok(Some(head));
            }
            if self.ahead().len() >= self.limits.head_size {
                return Err(HeadError::TooLarge);
            }
            match timeout_at(deadline, self.read_ahead()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Ok(None),
                Err(_) => return Err(HeadError::Slow),
            }
        }
    }

    /// Sends an answer; how many bytes of its body went out, and whether all.
    async fn answer(
        &mut self,
        response: Response,
        with_body: bool,
        close: bool,
        date: &str,
    ) -> (u64, io::Result<()>) {
        let mut head = response.head(date, close);
        let mut sent = 0;
        let result = match response.payload {
            Payload::Bytes(bytes) if with_body => {
                head.extend_from_slice(&bytes);
                sent = bytes.len() as u64;
                self.write_all(&head).await
            }
            Payload::File { file, offset, length } if with_body && length > 0 => {
                let written = watch::channel(offset + length).1;
                self.tail(&head, Tail { file, offset, length, written }, &mut sent).await
            }
            Payload::Tail(tail) if with_body && tail.length > 0 => self.tail(&head, tail, &mut sent).await,
            _ => self.write_all(&head).await,
        };
        (sent, result)
    }

    async fn tail(&mut self, head: &[u8], tail: Tail, sent: &mut u64) -> io::Result<()> {
        self.write_head(head).await?;
        let Tail { file, offset, length, mut written } = tail;
        while *sent < length {
            let at = offset + *sent;
            let there = *written.borrow_and_update();
            if there <= at {
                // The end of the writer without the end of the file ends the connection: the client sees it is short.
                timeout(self.limits.body_time, written.changed()).await?.map_err(io::Error::other)?;
                continue;
            }
            let part = (there - at).min(length - *sent);
            match timeout(self.limits.body_time, self.stream.send_file(&file, at, part)).await?? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                bytes => *sent += bytes as u64,
            }
        }
        timeout(self.limits.body_time, self.stream.flush()).await?
    }

    /// Ends a connection whose client may still be sending: closing at once would take the answer away from it.
    async fn linger(mut self) {
        let rest = async {
            self.stream.shutdown().await?;
            let mut sink = Vec::with_capacity(AHEAD);
            for _ in 0..4096 {
                sink.clear();
                if self.stream.read(&mut sink).await? == 0 {
                    break;
                }
            }
            io::Result::Ok(())
        };
        let _ = timeout(LINGER, rest).await;
    }
}

/// Serves a connection until it ends, or, between two requests, until the server is told to stop.
pub(crate) async fn serve(
    stream: Stream,
    peer: SocketAddr,
    service: Arc<Service>,
    limits: Limits,
    stop: watch::Receiver<bool>,
) {
    serve_pages(stream, peer, service, limits, stop, false).await;
}

/// Serves a connection of the listener that has nothing but `/metrics`.
pub(crate) async fn serve_metrics(
    stream: tokio::net::TcpStream,
    peer: SocketAddr,
    service: Arc<Service>,
    limits: Limits,
    stop: watch::Receiver<bool>,
) {
    serve_pages(Stream::Plain(stream), peer, service, limits, stop, true).await;
}

async fn serve_pages(
    stream: Stream,
    peer: SocketAddr,
    service: Arc<Service>,
    limits: Limits,
    mut stop: watch::Receiver<bool>,
    metrics_only: bool,
) {
    let mut connection = Connection::new(stream, limits);
    loop {
        let head = match connection.next(&mut stop).await {
            Ok(Some(head)) => head,
            Ok(None) => return,
            Err(error) => {
                service.metrics().malformed.fetch_add(1, Ordering::Relaxed);
                let response =
                    Response::new(error.status()).bytes("text/plain; charset=utf-8", error.to_string());
                let date = service.date();
                if connection.answer(response, true, true, &date).await.1.is_ok() {
                    connection.linger().await;
                }
                return;
            }
        };
        let begun = std::time::Instant::now();
        let mut body = Body::new(&mut connection, &head);
        let mut request = Request::new(&head, peer);
        let response = match metrics_only {
            false => service.handle(&mut request, &mut body).await,
            true if head.path == "/metrics" => service.metrics_page().unwrap_or_else(|_| Response::new(500)),
            true => Response::new(404),
        };
        let received = body.received();
        let reusable = body.finish().await;
        let close = !reusable || !head.keep_alive || *stop.borrow();
        let status = response.status;
        let date = service.date();
        let (sent, result) = connection.answer(response, head.method != Method::Head, close, &date).await;
        service.done(&request, status, received, sent, begun.elapsed(), result.is_ok());
        if result.is_err() {
            return;
        }
        if close {
            return connection.linger().await;
        }
    }
}
