//! Bases that registries have, kept as one layout of OCI.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::SystemTime;

use tempfile::NamedTempFile;

use super::layout::BLOBS;
use super::store::{Store, files, is_named_so};

/// Their folder.
pub(super) const BASES: &str = "bases";

impl Store {
    /// The layout; it need not be there.
    #[must_use]
    pub fn bases(&self) -> PathBuf {
        self.folder(BASES)
    }

    /// Where a blob is; nowhere, where a registry calls by that name what is no digest, and so maybe a path.
    fn blob_of_bases(&self, digest: &str) -> Option<PathBuf> {
        let digits = digest.strip_prefix("sha256:").filter(|digits| is_sha256(digits))?;
        Some(self.bases().join(BLOBS).join(digits))
    }

    /// Whether the layout has a blob of so many bytes, which is used from now on.
    #[must_use]
    pub fn has_of_bases(&self, digest: &str, size: u64) -> bool {
        let Some(place) = self.blob_of_bases(digest) else { return false };
        let Ok(blob) = fs::File::options().append(true).open(place) else { return false };
        let _ = blob.set_modified(SystemTime::now());
        blob.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() == size)
    }

    /// Keeps a blob that was compared with its digest.
    ///
    /// # Errors
    ///
    /// Of the file system; [`io::ErrorKind::InvalidInput`] for what is no digest.
    pub fn keep_of_bases(&self, digest: &str, blob: NamedTempFile) -> io::Result<()> {
        let place = self.blob_of_bases(digest).ok_or(io::ErrorKind::InvalidInput)?;
        fs::create_dir_all(self.bases().join(BLOBS))?;
        blob.persist(place)?;
        Ok(())
    }

    /// Forgets blobs that are not what their digests say, and tells of them.
    pub(super) fn spoilt_bases(&self) -> io::Result<Vec<String>> {
        let mut spoilt = Vec::new();
        for (path, _) in files(&self.bases().join(BLOBS))? {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if is_sha256(name) && !is_named_so(&path, name)? {
                spoilt.push(name.to_owned());
            }
        }
        Ok(spoilt)
    }
}

/// Whether a text is a SHA-256 in hexadecimal digits.
fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_no_digest_leads_to_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::in_cache(folder.path());
        fs::create_dir_all(store.bases().join(BLOBS)).unwrap();
        let outside = store.bases().join("file");
        fs::write(&outside, "1").unwrap();
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        fs::File::options().append(true).open(&outside).unwrap().set_modified(time).unwrap();
        for digest in ["sha256:../../file", "../../file", "sha256:", "", outside.to_str().unwrap()] {
            assert!(!store.has_of_bases(digest, 1), "{digest}");
            assert!(store.keep_of_bases(digest, store.unfinished().unwrap()).is_err(), "{digest}");
        }
        assert_eq!(fs::metadata(&outside).unwrap().modified().unwrap(), time);
        let digest = format!("sha256:{}", "0a".repeat(32));
        store.keep_of_bases(&digest, store.unfinished().unwrap()).unwrap();
        assert!(store.has_of_bases(&digest, 0) && !store.has_of_bases(&digest, 1));
    }
}
