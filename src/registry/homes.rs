//! Where the blobs of a registry are, as far as that is known, and who brings one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// What is known of the blobs of a registry, by their digests.
#[derive(Default)]
pub(super) struct Homes(Mutex<BTreeMap<String, Arc<Home>>>);

/// What is known of one blob.
#[derive(Default)]
pub(super) struct Home {
    /// Held by whoever brings it, so that nobody else sends it at the same time.
    pub(super) turn: tokio::sync::Mutex<()>,
    /// The first repository that it was found in or brought to.
    repository: OnceLock<String>,
}

impl Homes {
    pub(super) fn of(&self, digest: &str) -> Arc<Home> {
        let mut homes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        homes.entry(digest.to_owned()).or_default().clone()
    }
}

impl Home {
    pub(super) fn is_in(&self, repository: &str) {
        let _ = self.repository.set(repository.to_owned());
    }

    pub(super) fn repository(&self) -> Option<&str> {
        self.repository.get().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_home_of_a_blob_stays_its_home() {
        let homes = Homes::default();
        assert_eq!(homes.of("a").repository(), None);
        homes.of("a").is_in("team/one");
        homes.of("a").is_in("team/other");
        assert_eq!(homes.of("a").repository(), Some("team/one"));
        assert_eq!(homes.of("b").repository(), None);
    }
}
