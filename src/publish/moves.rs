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
const FORMAT: u32 = 2;

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

/// What runs have begun and not finished.
#[derive(Debug, Default)]
pub struct Left {
    /// Moves to registries that are gone to now: they are finished first.
    pub here: Vec<Move>,
    /// Those of each run to other registries, which wait for the next one that goes there.
    pub elsewhere: Vec<Vec<Move>>,
}

/// Tags that move together, written down while they do. What they are to name has been pushed by then, so that whoever finds
/// it after a kill can go on.
#[derive(Debug)]
pub struct Journal {
    /// The moves, in the order in which they are made, and those of runs to other registries, which stay.
    pub left: Left,
    file: PathBuf,
    /// Held as long as this host publishes the fleet.
    _lock: File,
}

/// The moves of each run.
#[derive(Serialize, Deserialize)]
struct Written<'a> {
    format: u32,
    runs: Vec<Cow<'a, [Move]>>,
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

impl Left {
    /// What runs of a fleet have left, by its file. Nobody is kept from publishing it.
    ///
    /// # Errors
    ///
    /// [`JournalError`].
    pub fn read(
        cache: &Path,
        fleet: &Path,
        is_here: impl Fn(&Reference) -> bool,
    ) -> Result<Self, JournalError> {
        Self::in_file(&place(cache, fleet).with_extension("json"), is_here)
    }

    fn in_file(file: &Path, is_here: impl Fn(&Reference) -> bool) -> Result<Self, JournalError> {
        let text = match fs::read(file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(JournalError::Io(file.to_owned(), error)),
        };
        let Ok(Written { format: FORMAT, runs }) = serde_json::from_slice(&text) else {
            return Err(JournalError::Nonsense(file.to_owned()));
        };
        let (here, elsewhere): (Vec<_>, Vec<_>) =
            runs.into_iter().map(Cow::into_owned).partition(|run| run.iter().any(|one| is_here(&one.name)));
        Ok(Self { here: here.concat(), elsewhere })
    }
}

impl Journal {
    /// The journal of a fleet, by its file: empty, or what runs that were killed have left. Nobody else has it until it is
    /// dropped.
    ///
    /// # Errors
    ///
    /// [`JournalError`].
    pub fn open(
        cache: &Path,
        fleet: &Path,
        is_here: impl Fn(&Reference) -> bool,
    ) -> Result<Self, JournalError> {
        let place = place(cache, fleet);
        let file = place.with_extension("json");
        let failed = |error| JournalError::Io(file.clone(), error);
        fs::create_dir_all(place.parent().unwrap_or(cache)).map_err(failed)?;
        let lock = File::create(place.with_extension("lock")).map_err(failed)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(JournalError::Busy),
            Err(error) => return Err(failed(error.into())),
        }
        Ok(Self { left: Left::in_file(&file, is_here)?, file, _lock: lock })
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
        self.write(&moves)?;
        self.left.here = moves;
        Ok(())
    }

    /// Forgets moves that are over.
    ///
    /// # Errors
    ///
    /// Of the file system.
    pub fn end(&mut self) -> Result<(), JournalError> {
        if self.left.elsewhere.is_empty() {
            match fs::remove_file(&self.file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(JournalError::Io(self.file.clone(), error));
                }
                _ => {}
            }
        } else {
            self.write(&[])?;
        }
        self.left.here.clear();
        Ok(())
    }

    fn write(&self, moves: &[Move]) -> Result<(), JournalError> {
        let failed = |error| JournalError::Io(self.file.clone(), error);
        let runs = self.left.elsewhere.iter().map(Vec::as_slice).chain([moves]);
        let runs = runs.filter(|run| !run.is_empty()).map(Cow::from).collect();
        keep(&self.file, &Written { format: FORMAT, runs }).map_err(failed)?;
        File::open(&self.file).and_then(|file| file.sync_all()).map_err(failed)
    }
}

/// Where journal and lock of a fleet are, by its file: the same, whatever links lead to it.
fn place(cache: &Path, fleet: &Path) -> PathBuf {
    let whole = fs::canonicalize(fleet).unwrap_or_else(|_| fleet.to_owned());
    cache.join("publishing").join(hexadecimal(&Sha256::digest(whole.as_os_str().as_encoded_bytes())))
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

    fn everywhere(_: &Reference) -> bool {
        true
    }

    fn opened(cache: &Path, fleet: &Path) -> Result<Journal, JournalError> {
        Journal::open(cache, fleet, everywhere)
    }

    #[test]
    fn a_journal_is_found_again_and_is_one_process_s() {
        let cache = tempfile::tempdir().unwrap();
        let fleet = Path::new("/nowhere/ipybox.toml");
        let mut journal = opened(cache.path(), fleet).unwrap();
        assert!(journal.left.here.is_empty());
        journal.begin(vec![moving()]).unwrap();
        assert!(matches!(opened(cache.path(), fleet), Err(JournalError::Busy)));
        assert_eq!(Left::read(cache.path(), fleet, everywhere).unwrap().here, [moving()]);
        assert!(opened(cache.path(), Path::new("/other/ipybox.toml")).unwrap().left.here.is_empty());
        drop(journal);
        let mut found = opened(cache.path(), fleet).unwrap();
        assert_eq!(found.left.here, [moving()]);
        found.end().unwrap();
        drop(found);
        assert!(opened(cache.path(), fleet).unwrap().left.here.is_empty());
    }

    #[test]
    fn a_fleet_is_the_same_through_links_and_another_where_its_file_is() {
        let folder = tempfile::tempdir().unwrap();
        let (real, other) = (folder.path().join("real"), folder.path().join("other"));
        for folder in [&real, &other] {
            fs::create_dir(folder).unwrap();
            fs::write(folder.join("ipybox.toml"), "").unwrap();
        }
        std::os::unix::fs::symlink(&real, folder.path().join("link")).unwrap();
        let mut journal = opened(folder.path(), &real.join("ipybox.toml")).unwrap();
        journal.begin(vec![moving()]).unwrap();
        let linked = folder.path().join("link/ipybox.toml");
        assert!(matches!(opened(folder.path(), &linked), Err(JournalError::Busy)));
        drop(journal);
        assert_eq!(opened(folder.path(), &linked).unwrap().left.here, [moving()]);
        assert!(opened(folder.path(), &other.join("ipybox.toml")).unwrap().left.here.is_empty());
    }

    #[test]
    fn what_was_begun_in_one_registry_waits_for_the_next_run_there() {
        let cache = tempfile::tempdir().unwrap();
        let fleet = Path::new("/nowhere/ipybox.toml");
        let other = Move { name: "other.example/team/minimal:latest".parse().unwrap(), ..moving() };
        let to = |host: &'static str| move |name: &Reference| name.host() == host;
        let open = |host| Journal::open(cache.path(), fleet, to(host)).unwrap();
        open("registry.example").begin(vec![moving()]).unwrap();
        let mut second = open("other.example");
        assert_eq!(
            (second.left.here.as_slice(), second.left.elsewhere.as_slice()),
            (&[][..], &[vec![moving()]][..])
        );
        second.begin(vec![other.clone()]).unwrap();
        drop(second);
        // Both were killed; each is finished by its own.
        let mut second = open("other.example");
        assert_eq!((second.left.here.as_slice(), second.left.elsewhere.len()), (&[other][..], 1));
        second.end().unwrap();
        drop(second);
        let mut first = open("registry.example");
        assert_eq!((first.left.here.as_slice(), first.left.elsewhere.len()), (&[moving()][..], 0));
        first.end().unwrap();
        assert!(!first.file().exists());
    }

    #[test]
    fn what_another_program_has_written_is_refused() {
        let cache = tempfile::tempdir().unwrap();
        let fleet = Path::new("/nowhere/ipybox.toml");
        let mut journal = opened(cache.path(), fleet).unwrap();
        journal.begin(vec![moving()]).unwrap();
        let file = journal.file.clone();
        let text = fs::read_to_string(&file).unwrap();
        drop(journal);
        for text in [text.replace("\"format\":2", "\"format\":1"), "{}".to_owned(), String::new()] {
            fs::write(&file, text).unwrap();
            assert!(matches!(opened(cache.path(), fleet), Err(JournalError::Nonsense(_))));
        }
    }
}
