//! Tags that move, and what is written down before they do.

use std::borrow::Cow;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::archive::hexadecimal;
use crate::kept::keep;
use crate::reference::Reference;

/// What a journal is; counted up where that changes.
const FORMAT: u32 = 1;

/// A tag that is to name something else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// The tag, as `REGISTRY/REPOSITORY:TAG`.
    pub name: Reference,
    /// The digest that it named; nothing, where there was no such tag.
    pub before: Option<String>,
    /// The digest that it is to name.
    pub after: String,
}

/// Where a tag stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It names what it did.
    Before,
    /// It names what it is to name.
    After,
    /// Somebody else has moved it.
    Elsewhere,
}

impl Move {
    /// Where it stands, by what it names now.
    #[must_use]
    pub fn standing(&self, now: Option<&str>) -> Standing {
        match now {
            Some(now) if now == self.after => Standing::After,
            now if now == self.before.as_deref() => Standing::Before,
            _ => Standing::Elsewhere,
        }
    }
}

/// Tags that move together, written down while they do. What they are to name has been pushed by then, so that whoever finds
/// it after a kill can go on.
#[derive(Debug)]
pub struct Journal {
    /// The moves, in the order in which they are made.
    pub moves: Vec<Move>,
    file: PathBuf,
    /// Held as long as this host publishes the fleet.
    _lock: File,
}

#[derive(Serialize, Deserialize)]
struct Written<'a> {
    format: u32,
    moves: Cow<'a, [Move]>,
}

/// Why a journal cannot be used.
#[derive(Debug, Error)]
pub enum JournalError {
    /// Another process has it.
    #[error("another process of this host publishes the same fleet")]
    Busy,
    /// It is not what this program writes.
    #[error("`{0}` is not what this program writes")]
    Nonsense(PathBuf),
    /// The file system fails.
    #[error("`{}`: {}", .0.display(), .1)]
    Io(PathBuf, #[source] io::Error),
}

impl Journal {
    /// The journal of a fleet, by its file: empty, or what a run that was killed has left. Nobody else has it until it is
    /// dropped.
    ///
    /// # Errors
    ///
    /// [`JournalError`].
    pub fn open(cache: &Path, fleet: &Path) -> Result<Self, JournalError> {
        let whole = fs::canonicalize(fleet).unwrap_or_else(|_| fleet.to_owned());
        let name = hexadecimal(&Sha256::digest(whole.as_os_str().as_encoded_bytes()));
        let folder = cache.join("publishing");
        let file = folder.join(format!("{name}.json"));
        let failed = |error| JournalError::Io(file.clone(), error);
        fs::create_dir_all(&folder).map_err(failed)?;
        let lock = File::create(folder.join(format!("{name}.lock"))).map_err(failed)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(JournalError::Busy),
            Err(error) => return Err(failed(error.into())),
        }
        let moves = match fs::read(&file) {
            Ok(text) => match serde_json::from_slice(&text) {
                Ok(Written { format: FORMAT, moves }) => moves.into_owned(),
                _ => return Err(JournalError::Nonsense(file)),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(failed(error)),
        };
        Ok(Self { moves, file, _lock: lock })
    }

    /// Where it is.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Writes moves down: they are on the disk before it returns.
    ///
    /// # Errors
    ///
    /// Of the file system; nothing may be moved then.
    pub fn begin(&mut self, moves: Vec<Move>) -> Result<(), JournalError> {
        self.moves = moves;
        let failed = |error| JournalError::Io(self.file.clone(), error);
        let written = Written { format: FORMAT, moves: self.moves.as_slice().into() };
        keep(&self.file, &written).map_err(failed)?;
        File::open(&self.file).and_then(|file| file.sync_all()).map_err(failed)
    }

    /// Forgets moves that are over.
    ///
    /// # Errors
    ///
    /// Of the file system.
    pub fn end(&mut self) -> Result<(), JournalError> {
        self.moves.clear();
        match fs::remove_file(&self.file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(JournalError::Io(self.file.clone(), error))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moving() -> Move {
        Move {
            name: "registry.example/team/minimal:latest".parse().unwrap(),
            before: Some("sha256:1".to_owned()),
            after: "sha256:2".to_owned(),
        }
    }

    #[test]
    fn a_tag_stands_where_it_is_or_where_it_goes_or_elsewhere() {
        let one = moving();
        assert_eq!(one.standing(Some("sha256:1")), Standing::Before);
        assert_eq!(one.standing(Some("sha256:2")), Standing::After);
        assert_eq!(one.standing(Some("sha256:3")), Standing::Elsewhere);
        assert_eq!(one.standing(None), Standing::Elsewhere);
        let new = Move { before: None, ..one };
        assert_eq!(new.standing(None), Standing::Before);
        assert_eq!(new.standing(Some("sha256:1")), Standing::Elsewhere);
    }

    #[test]
    fn a_journal_is_found_again_and_is_one_process_s() {
        let cache = tempfile::tempdir().unwrap();
        let fleet = Path::new("/nowhere/ipybox.toml");
        let mut journal = Journal::open(cache.path(), fleet).unwrap();
        assert!(journal.moves.is_empty());
        journal.begin(vec![moving()]).unwrap();
        assert!(matches!(Journal::open(cache.path(), fleet), Err(JournalError::Busy)));
        assert!(Journal::open(cache.path(), Path::new("/other/ipybox.toml")).unwrap().moves.is_empty());
        drop(journal);
        let mut found = Journal::open(cache.path(), fleet).unwrap();
        assert_eq!(found.moves, [moving()]);
        found.end().unwrap();
        drop(found);
        assert!(Journal::open(cache.path(), fleet).unwrap().moves.is_empty());
    }

    #[test]
    fn what_another_program_has_written_is_refused() {
        let cache = tempfile::tempdir().unwrap();
        let fleet = Path::new("/nowhere/ipybox.toml");
        let mut journal = Journal::open(cache.path(), fleet).unwrap();
        journal.begin(vec![moving()]).unwrap();
        let file = journal.file.clone();
        let text = fs::read_to_string(&file).unwrap();
        drop(journal);
        for text in [text.replace("\"format\":1", "\"format\":2"), "{}".to_owned(), String::new()] {
            fs::write(&file, text).unwrap();
            assert!(matches!(Journal::open(cache.path(), fleet), Err(JournalError::Nonsense(_))));
        }
    }
}
