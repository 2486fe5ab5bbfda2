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

    fn blob_of_bases(&self, digest: &str) -> PathBuf {
        self.bases().join(BLOBS).join(digest.trim_start_matches("sha256:"))
    }

    /// Whether the layout has a blob of so many bytes, which is used from now on.
    #[must_use]
    pub fn has_of_bases(&self, digest: &str, size: u64) -> bool {
        let Ok(blob) = fs::File::options().append(true).open(self.blob_of_bases(digest)) else {
            return false;
        };
        let _ = blob.set_modified(SystemTime::now());
        blob.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() == size)
    }

    /// Keeps a blob that was compared with its digest.
    ///
    /// # Errors
    ///
    /// Of the file system.
    pub fn keep_of_bases(&self, digest: &str, blob: NamedTempFile) -> io::Result<()> {
        fs::create_dir_all(self.bases().join(BLOBS))?;
        blob.persist(self.blob_of_bases(digest))?;
        Ok(())
    }

    /// Forgets blobs that are not what their digests say, and tells of them.
    pub(super) fn spoilt_bases(&self) -> io::Result<Vec<String>> {
        let mut spoilt = Vec::new();
        for (path, _) in files(&self.bases().join(BLOBS))? {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let is_digest = name.len() == 64;
            if is_digest && !is_named_so(&path, name)? {
                spoilt.push(name.to_owned());
            }
        }
        Ok(spoilt)
    }
}
