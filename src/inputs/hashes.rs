//! SHA-256 of files that were read before, so that what did not change since is not read again.

use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD_NO_PAD as BASE64;
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
    /// Whether a file was read.
    is_new: bool,
}

/// A file as it was when it was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    /// Size, device, inode, and when content and inode changed last, in nanoseconds since 1970.
    seen: Seen,
    /// SHA-256, in base64.
    sha256: String,
    /// Whether it was looked at this time. The others are forgotten.
    #[serde(skip)]
    is_met: bool,
}

type Seen = (u64, u64, u64, i64, i64);

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
        Hashes { file, known, is_new: false }
    }
}

impl Hashes {
    /// Size and SHA-256 of a file, which is read unless its `metadata` are as they were.
    pub(super) fn look(
        &mut self,
        path: &Path,
        metadata: &Metadata,
        buffer: &mut [u8],
    ) -> io::Result<(u64, [u8; 32])> {
        let (name, seen) = (path.to_string_lossy(), seen(metadata));
        if let Some(entry) = self.known.get_mut(&*name).filter(|entry| entry.seen == seen)
            && let Ok(sha256) = <[u8; 32]>::try_from(BASE64.decode(&entry.sha256).unwrap_or_default())
        {
            entry.is_met = true;
            return Ok((seen.0, sha256));
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
        let sha256: [u8; 32] = content.finalize().into();
        self.is_new = true;
        if before == self::seen(&file.metadata()?) && before.0 == size && is_settled(before.3.max(before.4)) {
            let entry = Entry { seen: before, sha256: BASE64.encode(sha256), is_met: true };
            self.known.insert(name.into_owned(), entry);
        }
        Ok((size, sha256))
    }

    /// Keeps them for the next time. Where that fails, files are read again.
    pub(super) fn keep(self) {
        let Self { file: Some(file), mut known, is_new } = self else { return };
        let before = known.len();
        known.retain(|_, entry| entry.is_met);
        if is_new || known.len() != before {
            let _ = keep(&file, &known);
        }
    }
}

fn seen(metadata: &Metadata) -> Seen {
    let nanoseconds = |seconds: i64, rest: i64| seconds.saturating_mul(1_000_000_000).saturating_add(rest);
    (
        metadata.size(),
        metadata.dev(),
        metadata.ino(),
        nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
        nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
    )
}

/// Whether a time lies far enough in the past; one in the future does not.
fn is_settled(time: i64) -> bool {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.saturating_sub(SETTLED).as_nanos()).is_ok_and(|limit| time < limit)
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
            let (_, sha256) = hashes.look(&path, &fs::metadata(&path).unwrap(), &mut [0; 64]).unwrap();
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
