//! The raw stream of an attach or exec, joined to this process's standard streams.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use bytes::{Bytes, BytesMut};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};

use hull_client::{Demux, Transport, Upgraded};
use hull_docker_api::StreamKind;

use crate::detach_keys::Detector;
use crate::error::{Failure, Result};

/// How a session is joined.
pub(crate) struct Join {
    /// Send standard input.
    pub(crate) stdin: bool,
    /// The stream is a terminal's: not in frames.
    pub(crate) tty: bool,
    /// The sequence that detaches; only watched for when standard input is a terminal.
    pub(crate) detach_keys: Vec<u8>,
}

/// How a session ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The process closed its output, or the engine the connection.
    Closed,
    /// The user typed the detach sequence.
    Detached,
}

const BUFFER: usize = 64 * 1024;

/// Copies until the output ends or the user detaches. When standard input ends, the sending half is closed and the
/// output goes on.
pub(crate) async fn join(upgraded: Upgraded, join: Join) -> Result<Ended> {
    let Upgraded { io, buffered, .. } = upgraded;
    let (reader, writer) = tokio::io::split(io);
    let output = copy_output(reader, buffered, join.tty);
    if !join.stdin {
        return output.await.map(|()| Ended::Closed);
    }
    let watched = join.tty && crate::terminal::stdin_is_terminal();
    let detector = Detector::new(if watched { join.detach_keys } else { Vec::new() });
    tokio::pin!(output);
    let input = copy_input(writer, detector);
    tokio::pin!(input);
    tokio::select! {
        ended = &mut output => ended.map(|()| Ended::Closed),
        detached = &mut input => match detached {
            true => Ok(Ended::Detached),
            false => output.await.map(|()| Ended::Closed),
        },
    }
}

async fn copy_output(mut reader: tokio::io::ReadHalf<Transport>, first: Bytes, tty: bool) -> Result<()> {
    let mut demux = Demux::new();
    write_out(&mut demux, first, tty)?;
    let mut buffer = BytesMut::with_capacity(BUFFER);
    loop {
        buffer.reserve(BUFFER);
        match reader.read_buf(&mut buffer).await {
            Ok(0) => return Ok(()),
            Ok(_) => write_out(&mut demux, buffer.split().freeze(), tty)?,
            // The engine closes the connection when the process ends, with data of ours still unread.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Writes a piece of the stream to standard output and error.
pub(crate) fn write_out(demux: &mut Demux, mut input: Bytes, tty: bool) -> Result<()> {
    if tty {
        crate::output::bytes(&input);
        return Ok(());
    }
    while let Some((kind, data)) = demux.next(&mut input)? {
        match kind {
            StreamKind::Stdin | StreamKind::Stdout => crate::output::bytes(&data),
            StreamKind::Stderr => {
                let _ = io::stderr().lock().write_all(&data);
            }
            StreamKind::SystemError => {
                return Err(Failure::new(format!(
                    "error from daemon in stream: {}",
                    String::from_utf8_lossy(&data)
                )));
            }
        }
    }
    Ok(())
}

/// Sends standard input; true when the user detached.
async fn copy_input(mut writer: tokio::io::WriteHalf<Transport>, mut detector: Detector) -> bool {
    let mut input = Input::new();
    let mut buffer = vec![0; BUFFER];
    loop {
        let len = match input.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(len) => len,
        };
        let (data, detached) = detector.feed(&buffer[..len]);
        if writer.write_all(&data).await.is_err() {
            // The process is gone; its output may still be on the way.
            return false;
        }
        if detached {
            return true;
        }
    }
    let _ = writer.shutdown().await;
    false
}

/// Standard input without a thread: it is read when the kernel says it is readable. Files cannot be watched and
/// never block.
struct Input {
    watched: Option<AsyncFd<BorrowedFd<'static>>>,
}

impl Input {
    #[expect(deprecated, reason = "a borrowed standard input always names the same open descriptor")]
    fn new() -> Self {
        let fd: BorrowedFd<'static> = rustix::stdio::stdin();
        Self { watched: AsyncFd::with_interest(fd, Interest::READABLE).ok() }
    }

    async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(watched) = &self.watched else {
            tokio::task::yield_now().await;
            return io::stdin().as_fd().try_clone_to_owned().map(std::fs::File::from)?.read(buffer);
        };
        loop {
            let mut ready = watched.readable().await?;
            // The descriptor is shared with other processes and stays blocking: one read per readiness.
            let result = rustix::io::read(watched.get_ref(), &mut *buffer);
            ready.clear_ready();
            match result {
                Ok(len) => return Ok(len),
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}
