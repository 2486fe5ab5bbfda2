//! SHA-256 of files that were read before, so that what did not change since is not read again.

use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::archive::hexadecimal;
use crate::kept::keep;

/// A file that changed less long ago could change again, and look the same: clocks of file systems are coarse.
const SETTLED: Duration = Duration::from_secs(2);

/// Where such hashes are kept, if anywhere.
#[derive(Debug, Clone, Default)]
pub struct KnownHashes(Option<PathBuf>);

/// The hashes of the files of one folder.
#[derive(Debug)]
pub(super) struct Hashes {
    /// Where they are kept.
    file: Option<PathBuf>,
    known: HashMap<String, Entry>,
    /// Those of this time, which replace the others.
    found: HashMap<String, Entry>,
    is_new: bool,
}

/// A file as it was when it was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    /// Size, device, inode, and when content and inode changed last, in nanoseconds since 1970.
    seen: (u64, u64, u64, i128, i128),
    sha256: [u8; 32],
}

impl KnownHashes {
    /// In a folder of the cache.
    #[must_use]
    pub fn in_cache(cache: &Path) -> Self {
        Self(Some(cache.join("hashes")))
    }

    /// Nowhere: every file is read.
    #[must_use]
    pub fn none() -> Self {
        Self(None)
    }

    /// Those of a folder, or of one file.
    pub(super) fn of(&self, root: &Path) -> Hashes {
        let root = fs::canonicalize(root).unwrap_or_else(|_| root.to_owned());
        let name = hexadecimal(&Sha256::digest(root.as_os_str().as_encoded_bytes())[..16]);
        let file = self.0.as_ref().map(|folder| folder.join(name).with_extension("json"));
        let text = file.as_ref().and_then(|file| fs::read(file).ok());
        let known = text.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        Hashes { file, known, found: HashMap::new(), is_new: false }
    }
}

impl Hashes {
    /// Size and SHA-256 of a file, which is read unless it is as it was.
    pub(super) fn look(&mut self, path: &Path, buffer: &mut [u8]) -> io::Result<(u64, [u8; 32])> {
        let name = path.to_string_lossy().into_owned();
        let seen = seen(&fs::metadata(path)?);
        if let Some(entry) = self.known.get(&name).filter(|entry| entry.seen == seen) {
            let (size, sha256) = (seen.0, entry.sha256);
            self.found.insert(name, entry.clone());
            return Ok((size, sha256));
        }
        let (mut content, mut size) = (Sha256::new(), 0);
        let mut file = fs::File::open(path)?;
        // Of the file that is read, whatever is at the path meanwhile.
        let before = self::seen(&file.metadata()?);
        loop {
            match file.read(buffer)? {
                0 => break,
                read => {
                    content.update(&buffer[..read]);
                    size += read as u64;
                }
            }
        }
        let sha256 = content.finalize().into();
        self.is_new = true;
        if before == self::seen(&file.metadata()?) && before.0 == size && is_settled(before.3.max(before.4)) {
            self.found.insert(name, Entry { seen: before, sha256 });
        }
        Ok((size, sha256))
    }

    /// Keeps them for the next time. Where that fails, files are read again.
    pub(super) fn keep(self) {
        let Self { file: Some(file), known, found, is_new } = self else { return };
        if is_new || known.len() != found.len() {
            let _ = keep(&file, &found);
        }
    }
}

fn seen(metadata: &Metadata) -> (u64, u64, u64, i128, i128) {
    let nanoseconds = |seconds: i64, rest: i64| i128::from(seconds) * 1_000_000_000 + i128::from(rest);
    (
        metadata.size(),
        metadata.dev(),
        metadata.ino(),
        nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
        nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
    )
}

/// Whether a time lies far enough in the past; one in the future does not.
fn is_settled(time: i128) -> bool {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i128::try_from(now.saturating_sub(SETTLED).as_nanos()).is_ok_and(|limit| time < limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_did_not_change_is_not_read_again() {
        let (cache, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let path = folder.path().join("file");
        fs::write(&path, "one").unwrap();
        let known = KnownHashes::in_cache(cache.path());
        let look = |known: &KnownHashes| {
            let mut hashes = known.of(folder.path());
            let (_, sha256) = hashes.look(&path, &mut [0; 64]).unwrap();
            let was_read = hashes.is_new;
            hashes.keep();
            (sha256, was_read)
        };
        let one: [u8; 32] = Sha256::digest("one").into();
        // What changed just now is not believed the next time.
        assert_eq!(look(&known), (one, true));
        assert_eq!(look(&known), (one, true));
        std::thread::sleep(SETTLED + Duration::from_millis(100));
        assert_eq!(look(&known), (one, true));
        assert_eq!(look(&known), (one, false));
        assert_eq!(look(&KnownHashes::none()), (one, true));
        // The same size and the same time of change do not hide another content: the inode's time tells.
        let time = fs::metadata(&path).unwrap().modified().unwrap();
        fs::write(&path, "two").unwrap();
        fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        assert_eq!(look(&known).0, <[u8; 32]>::from(Sha256::digest("two")));
        // A file of hashes that is none counts as not there.
        for entry in fs::read_dir(cache.path().join("hashes")).unwrap().flatten() {
            fs::write(entry.path(), "nonsense").unwrap();
        }
        assert_eq!(look(&known).0, <[u8; 32]>::from(Sha256::digest("two")));
    }
}
