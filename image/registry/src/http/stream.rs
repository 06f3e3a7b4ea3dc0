//! A connection's bytes: plain or TLS.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::io::ReadWriteFlags;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// Sent by one call of sendfile(2), so that other connections of the thread get their turn.
const SEND: usize = 1 << 20;
/// Read from a file at once for a TLS connection.
const READ: usize = 256 << 10;

/// A client's connection.
#[derive(Debug)]
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// Reads into the free room of a buffer; 0 is the end.
    pub(crate) async fn read(&mut self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read_buf(buffer).await,
            Self::Tls(stream) => stream.read_buf(buffer).await,
        }
    }

    /// Reads at most `room` bytes into a buffer that has this room; 0 is the end.
    pub(crate) async fn read_at_most(&mut self, buffer: &mut Vec<u8>, room: usize) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.take(room as u64).read_buf(buffer).await,
            Self::Tls(stream) => stream.take(room as u64).read_buf(buffer).await,
        }
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes).await,
            Self::Tls(stream) => stream.write(bytes).await,
        }
    }

    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Tls(stream) => stream.flush().await,
        }
    }

    /// Writes what will be followed by more: the kernel need not send it by itself.
    pub(crate) async fn write_more(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => {
                let send = || Ok(rustix::net::send(stream.as_fd(), bytes, rustix::net::SendFlags::MORE)?);
                stream.async_io(Interest::WRITABLE, send).await
            }
            Self::Tls(stream) => stream.write(bytes).await,
        }
    }

    /// Sends a part of a file, at most `length` bytes from `offset` on; returns how many went out.
    pub(crate) async fn send_file(
        &mut self,
        file: &Arc<File>,
        offset: u64,
        length: u64,
    ) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => {
                let piece = usize::try_from(length).unwrap_or(SEND).min(SEND);
                make_resident(file, offset, piece).await?;
                let send = || {
                    let mut at = offset;
                    Ok(rustix::fs::sendfile(stream.as_fd(), file.as_fd(), Some(&mut at), piece)?)
                };
                stream.async_io(Interest::WRITABLE, send).await
            }
            Self::Tls(stream) => {
                let piece = usize::try_from(length).unwrap_or(READ).min(READ);
                make_resident(file, offset, piece).await?;
                let mut buffer = vec![0; piece];
                let read = rustix::io::pread(file.as_fd(), &mut buffer, offset)?;
                stream.write_all(&buffer[..read]).await?;
                Ok(read)
            }
        }
    }

    /// Tells the client that nothing more comes.
    pub(crate) async fn shutdown(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.shutdown().await,
            Self::Tls(stream) => stream.shutdown().await,
        }
    }
}

/// Brings a part of a file into the page cache if it is not there, without keeping the thread from other connections:
/// what follows then does not wait for the disk.
async fn make_resident(file: &Arc<File>, offset: u64, length: usize) -> io::Result<()> {
    let mut probe = [0];
    let last = offset + length.saturating_sub(1) as u64;
    for at in [offset, last] {
        let mut into = [io::IoSliceMut::new(&mut probe)];
        match rustix::io::preadv2(file.as_fd(), &mut into, at, ReadWriteFlags::NOWAIT) {
            Err(rustix::io::Errno::AGAIN) => {}
            // There, or a file system that cannot say.
            _ => continue,
        }
        let file = file.clone();
        let read = move || {
            let mut buffer = vec![0; 128 << 10];
            let mut at = offset;
            while at < offset + length as u64 {
                match rustix::io::pread(file.as_fd(), &mut buffer, at) {
                    Ok(0) => break,
                    Ok(read) => at += read as u64,
                    Err(rustix::io::Errno::INTR) => {}
                    Err(e) => return Err(e.into()),
                }
            }
            Ok(())
        };
        return tokio::task::spawn_blocking(read).await.map_err(io::Error::other)?;
    }
    Ok(())
}
