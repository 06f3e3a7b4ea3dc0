//! `exit.json`: the end of a container, for engines that were not there.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use crate::config::RecordError;
use crate::protocol::Exit;

/// Writes the record so that it is there as a whole or not at all; with `durable` also after a power cut.
///
/// # Errors
/// [`RecordError::Encode`], [`RecordError::Write`].
pub(crate) fn write(path: &Path, exit: &Exit, durable: bool) -> Result<(), RecordError> {
    let text = serde_json::to_vec(exit).map_err(|source| RecordError::Encode(path.into(), source))?;
    replace(path, &text, durable).map_err(|source| RecordError::Write(path.into(), source))
}

fn replace(path: &Path, text: &[u8], durable: bool) -> io::Result<()> {
    let temporary = path.with_extension("json.tmp");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(text)?;
    if durable {
        file.sync_data()?;
    }
    std::fs::rename(&temporary, path)?;
    if durable {
        File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()?;
    }
    Ok(())
}

/// Reads the record a monitor left; `None` if it left none, which means that monitor and container were killed.
///
/// # Errors
/// [`RecordError::Read`], [`RecordError::Parse`].
pub fn read(path: &Path) -> Result<Option<Exit>, RecordError> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(RecordError::Read(path.into(), source)),
    };
    serde_json::from_slice(&text).map(Some).map_err(|source| RecordError::Parse(path.into(), source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_is_replaced_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("exit.json");
        assert!(read(&path).unwrap().is_none());
        for (status, durable) in [(3, false), (137, true)] {
            let exit = Exit {
                status,
                oom_killed: durable,
                at: crate::clock::now_text(),
                started_at: None,
                failure: None,
            };
            write(&path, &exit, durable).unwrap();
            assert_eq!(read(&path).unwrap(), Some(exit));
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        std::fs::write(&path, "{").unwrap();
        assert!(matches!(read(&path), Err(RecordError::Parse(..))));
    }
}
