//! Bytes between async protocols and blocking work: a stream fed by a writer on a blocking thread, and a reader on
//! a blocking thread fed by a stream. A consumer that goes away makes the writer fail with `BrokenPipe`.

use std::io::{self, Read, Write};
use std::pin::Pin;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::{Stream, StreamExt, stream};
use tokio::sync::{mpsc, watch};

/// A body: chunks of bytes, or the error that cut it.
pub type ByteStream = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// Bytes collected before a chunk is sent.
const CHUNK: usize = 64 * 1024;

/// Chunks that wait for a slow consumer.
const QUEUE: usize = 4;

/// Runs `produce` on a blocking thread; what it writes is the stream. Its error ends the stream.
pub fn produce<F>(produce: F) -> ByteStream
where
    F: FnOnce(&mut StreamWriter) -> io::Result<()> + Send + 'static,
{
    let (chunks, queue) = mpsc::channel(QUEUE);
    let (alive, consumer) = watch::channel(());
    tokio::task::spawn_blocking(move || {
        let mut writer = StreamWriter { chunks, consumer, buffer: BytesMut::new() };
        let result = produce(&mut writer).and_then(|()| writer.flush());
        if let Err(error) = result {
            let _ = writer.chunks.blocking_send(Err(error));
        }
    });
    let chunks = stream::unfold((queue, alive), |(mut queue, alive)| async move {
        queue.recv().await.map(|chunk| (chunk, (queue, alive)))
    });
    Box::pin(chunks)
}

impl StreamWriter {
    /// Whether the consumer is gone.
    pub fn is_closed(&self) -> bool {
        self.chunks.is_closed()
    }

    /// Resolves when the consumer is gone.
    pub fn closed(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut consumer = self.consumer.clone();
        async move { while consumer.changed().await.is_ok() {} }
    }
}

/// The writing end of [`produce`].
#[derive(Debug)]
pub struct StreamWriter {
    chunks: mpsc::Sender<io::Result<Bytes>>,
    consumer: watch::Receiver<()>,
    buffer: BytesMut,
}

impl Write for StreamWriter {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(data);
        if self.buffer.len() >= CHUNK {
            self.flush()?;
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let chunk = self.buffer.split().freeze();
        self.chunks.blocking_send(Ok(chunk)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// Reads a stream on a blocking thread. Make it inside the tokio runtime, use it in `spawn_blocking`.
pub struct StreamReader {
    stream: ByteStream,
    runtime: tokio::runtime::Handle,
    current: Bytes,
}

impl StreamReader {
    /// A reader of `stream`.
    pub fn new(stream: ByteStream) -> StreamReader {
        StreamReader { stream, runtime: tokio::runtime::Handle::current(), current: Bytes::new() }
    }
}

impl Read for StreamReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.runtime.block_on(self.stream.next()) {
                Some(chunk) => self.current = chunk?,
                None => return Ok(0),
            }
        }
        let n = buf.len().min(self.current.len());
        self.current.copy_to_slice(&mut buf[..n]);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_written_is_read_through_both_ends() {
        let data: Vec<u8> = (0..300_000u32).map(|n| n as u8).collect();
        let written = data.clone();
        let stream = produce(move |out| out.write_all(&written));
        let mut reader = StreamReader::new(stream);
        let read = tokio::task::spawn_blocking(move || {
            let mut all = Vec::new();
            reader.read_to_end(&mut all).map(|_| all)
        });
        assert_eq!(read.await.expect("join").expect("read"), data);
    }

    #[tokio::test]
    async fn an_error_reaches_the_consumer_after_the_data() {
        let mut stream = produce(|out| {
            out.write_all(b"abc")?;
            out.flush()?;
            Err(io::Error::other("disk on fire"))
        });
        assert_eq!(stream.next().await.expect("chunk").expect("data"), "abc");
        assert_eq!(stream.next().await.expect("end").expect_err("error").to_string(), "disk on fire");
        assert!(stream.next().await.is_none());
    }
}
