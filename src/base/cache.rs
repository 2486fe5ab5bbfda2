//! Facts that were asked before, by image id.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::Base;
use crate::archive::hexadecimal;
use crate::kept::keep;
use crate::reference::{ImageId, Reference};

/// What decides how facts are asked and what they look like. Facts that another state of these gathered are asked again.
const SOURCES: [&str; 3] = [include_str!("mod.rs"), include_str!("probe.rs"), include_str!("probe.py")];

impl Base {
    /// The cached facts of the image `id`; `None` where there are none that can be read.
    #[must_use]
    pub(super) fn cached(cache: &Path, id: &ImageId, reference: &Reference) -> Option<Self> {
        let base = Self::read(&cache_file(cache, id)).ok()?;
        (base.id == *id).then(|| Self { reference: reference.clone(), ..base })
    }

    /// Keeps the facts for the next build on this image.
    ///
    /// # Errors
    ///
    /// Of the file system.
    pub(super) fn cache(&self, cache: &Path) -> io::Result<()> {
        let file = cache_file(cache, &self.id);
        let folder = file.parent().expect("the file lies in a folder of the cache");
        if !folder.is_dir() {
            remove_others(folder);
        }
        keep(&file, self)
    }
}

/// The folder of these facts.
fn folder(cache: &Path) -> PathBuf {
    let digest = SOURCES.iter().fold(Sha256::new(), Sha256::chain_update).finalize();
    cache.join("base").join(hexadecimal(&digest[..8]))
}

/// Removes what other states of the program kept beside a folder.
fn remove_others(folder: &Path) {
    let entries = folder.parent().and_then(|parent| parent.read_dir().ok());
    for entry in entries.into_iter().flatten().flatten() {
        let _ = fs::remove_dir_all(entry.path());
    }
}

fn cache_file(cache: &Path, id: &ImageId) -> PathBuf {
    let digits = id.as_str().trim_start_matches("sha256:");
    folder(cache).join(digits).with_extension("json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_of_another_state_of_the_program_are_not_taken() {
        let facts = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/base.json");
        let base = Base::read(facts.as_ref()).unwrap();
        let cache = tempfile::tempdir().unwrap();
        let old = cache.path().join("base/6");
        fs::create_dir_all(&old).unwrap();
        assert_eq!(Base::cached(cache.path(), &base.id, &base.reference), None);
        base.cache(cache.path()).unwrap();
        assert_eq!(Base::cached(cache.path(), &base.id, &base.reference), Some(base));
        assert!(!old.exists());
    }
}
