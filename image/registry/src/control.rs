//! Asking a registry that runs to do something now, over a socket in its root.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use crate::service::Service;
use crate::store::{Checked, Collected};

/// What can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Remove what nobody needs, or say what that would be.
    Collect {
        /// Only say it.
        dry_run: bool,
    },
    /// Read everything again.
    Check {
        /// Take what is damaged out of service.
        repair: bool,
    },
}

impl Command {
    fn word(self) -> &'static str {
        match self {
            Self::Collect { dry_run: false } => "gc",
            Self::Collect { dry_run: true } => "gc --dry-run",
            Self::Check { repair: false } => "check",
            Self::Check { repair: true } => "check --repair",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [
            Self::Collect { dry_run: false },
            Self::Collect { dry_run: true },
            Self::Check { repair: false },
            Self::Check { repair: true },
        ]
        .into_iter()
        .find(|command| command.word() == text)
    }
}

fn socket(root: &Path) -> PathBuf {
    root.join("control.sock")
}

/// Listens in the root, which belongs to this registry alone.
pub(crate) fn listen(root: &Path) -> io::Result<UnixListener> {
    let path = socket(root);
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    Ok(listener)
}

/// Answers commands.
pub(crate) async fn serve(listener: UnixListener, service: Arc<Service>) {
    loop {
        match listener.accept().await {
            Ok((client, _)) => drop(tokio::spawn(answer(client, service.clone()))),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn answer(mut client: UnixStream, service: Arc<Service>) -> io::Result<()> {
    let mut line = Vec::new();
    while !line.ends_with(b"\n") && line.len() < 128 && client.read_buf(&mut line).await? > 0 {}
    let text = match Command::parse(String::from_utf8_lossy(&line).trim()) {
        Some(command) => match run(&service, command).await {
            Ok(text) => format!("ok\n{text}"),
            Err(error) => format!("error\n{error}"),
        },
        None => "error\nunknown command".into(),
    };
    client.write_all(text.as_bytes()).await?;
    client.shutdown().await
}

/// Does what was asked; the text is for a person.
pub async fn run(service: &Arc<Service>, command: Command) -> crate::store::Result<String> {
    match command {
        Command::Collect { dry_run: false } => {
            // Lists and removes files: on a thread that may wait for the disk.
            let (service, runtime) = (service.clone(), tokio::runtime::Handle::current());
            let collect = tokio::task::spawn_blocking(move || runtime.block_on(service.collect()));
            let done = collect.await.unwrap_or(Err(crate::store::StoreError::Closed))?;
            Ok(collected(&done, "removed"))
        }
        Command::Collect { dry_run: true } => {
            Ok(collected(&service.store.would_collect(&service.rules).await?, "would remove"))
        }
        Command::Check { repair } => {
            let service = service.clone();
            let check = tokio::task::spawn_blocking(move || service.store.check(repair));
            check.await.unwrap_or(Err(crate::store::StoreError::Closed)).map(|found| checked(&found))
        }
    }
}

fn collected(done: &Collected, verb: &str) -> String {
    format!(
        "{verb} {} blobs ({} bytes), {} links, {} manifests, {} tags, {} unfinished uploads, {} stray files\n",
        done.blobs, done.bytes, done.links, done.manifests, done.tags, done.uploads, done.files
    )
}

fn checked(found: &Checked) -> String {
    let mut text = format!(
        "read {} blobs ({} bytes) and {} manifests: {} damaged\n",
        found.blobs,
        found.bytes,
        found.manifests,
        found.damaged.len()
    );
    for (digest, fault) in &found.damaged {
        text.push_str(&format!("{digest}: {fault}\n"));
    }
    text
}

/// Asks the registry that runs on this root; `None` if none does.
pub async fn ask(root: &Path, command: Command) -> io::Result<Option<Result<String, String>>> {
    let mut server = match UnixStream::connect(socket(root)).await {
        Ok(server) => server,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(e) => return Err(e),
    };
    server.write_all(format!("{}\n", command.word()).as_bytes()).await?;
    let mut text = String::new();
    server.read_to_string(&mut text).await?;
    let (status, rest) = text.split_once('\n').unwrap_or((&text, ""));
    Ok(Some(if status == "ok" { Ok(rest.to_owned()) } else { Err(rest.to_owned()) }))
}
