//! The archive in which an engine gives away an image, taken into the store while it comes.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::blobs::{BLOCK, Plain};
use super::measured::Measured;
use super::store::Store;
use crate::archive::hexadecimal;

/// What an archive had.
#[derive(Debug, Default)]
pub struct Saved {
    /// Its texts, by their digests.
    texts: BTreeMap<String, Vec<u8>>,
    /// The digest of the image's configuration, as the archive says.
    config: String,
}

/// The largest text that is kept, and all of them together, in bytes.
const MAX_TEXT: u64 = 4 << 20;
const MAX_TEXTS: usize = 32 << 20;

impl Saved {
    /// Takes all layers of an archive into the store, but for those that it has: of `known` layers that the image consists of it
    /// is only looked whether they are what they were. Those that are packed `elsewhere` already are left out where the archive
    /// says which they are.
    ///
    /// Rule: Docker, `GET /images/{name}/get`: until release 24 `ID/layer.tar`, with links where layers are equal; since then
    /// a layout of blobs, which the containerd store keeps packed.
    ///
    /// # Errors
    ///
    /// Of reading and of the store, and of [`io::ErrorKind::InvalidData`] where it is no such archive.
    pub fn take(
        from: impl Read,
        store: &Store,
        known: &[String],
        elsewhere: &BTreeSet<String>,
    ) -> io::Result<Self> {
        let known = Known::of(known, store);
        let mut saved = Self::default();
        let mut archive = tar::Archive::new(from);
        let (mut named, mut kept) = (None, 0);
        for entry in archive.entries()? {
            let mut entry = entry?;
            if !entry.header().entry_type().is_file() {
                continue;
            }
            let path = entry.path_bytes().into_owned();
            let blob = path.strip_prefix(b"blobs/sha256/").and_then(|name| std::str::from_utf8(name).ok());
            let is_had = |digits: &str| {
                store.packed(digits).is_some() || elsewhere.contains(&format!("sha256:{digits}"))
            };
            if blob.is_some_and(is_had) {
                continue;
            }
            if entry.size() > MAX_TEXT {
                let size = entry.size();
                known.take(&mut entry, size, store)?;
                continue;
            }
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes)?;
            let text = bytes.first().filter(|first| b"{[".contains(first));
            match text.and_then(|_| serde_json::from_slice::<Value>(&bytes).ok()) {
                Some(value) => {
                    if path == b"manifest.json" {
                        named = value[0]["Config"].as_str().map(str::to_owned);
                    }
                    kept += bytes.len();
                    if kept <= MAX_TEXTS {
                        saved.texts.insert(hexadecimal(&Sha256::digest(&bytes)), bytes);
                    }
                }
                None if path.ends_with(b"layer.tar") || blob.is_some() => {
                    store.take(bytes.as_slice())?;
                }
                None => {}
            }
        }
        // Who writes it is listened to until it is done.
        io::copy(&mut archive.into_inner(), &mut io::sink())?;
        let named = named.ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "the engine gives an archive without `manifest.json`")
        })?;
        named.rsplit('/').next().unwrap_or_default().trim_end_matches(".json").clone_into(&mut saved.config);
        Ok(saved)
    }

    /// The configuration of the image.
    #[must_use]
    pub fn config(&self) -> Option<&[u8]> {
        self.texts.get(&self.config).map(Vec::as_slice)
    }
}

/// Layers that the store has and the archive will give again, by what they were before they were packed.
struct Known<'a>(Vec<(&'a str, Plain)>);

impl<'a> Known<'a> {
    fn of(layers: &'a [String], store: &Store) -> Self {
        Self(layers.iter().filter_map(|layer| Some((layer.as_str(), store.plain(layer)?))).collect())
    }

    /// Takes a layer of a size into the store. What begins as one that is known must be that one: hashing it is much less than
    /// packing it once more.
    fn take(&self, from: &mut impl Read, size: u64, store: &Store) -> io::Result<()> {
        if !self.0.iter().any(|(_, plain)| plain.size == size) {
            return store.take(from).map(drop);
        }
        let mut head = Vec::with_capacity(BLOCK);
        from.take(BLOCK as u64).read_to_end(&mut head)?;
        let digest = hexadecimal(&Sha256::digest(&head));
        let alike = self.0.iter().filter(|(_, plain)| plain.size == size && plain.head == digest);
        let alike: Vec<&str> = alike.map(|(layer, _)| *layer).collect();
        if alike.is_empty() {
            return store.take(head.chain(from)).map(drop);
        }
        let mut measured = Measured::new(io::sink());
        io::copy(&mut head.chain(from), &mut measured)?;
        let found = format!("sha256:{}", measured.digits());
        if alike.contains(&found.as_str()) {
            return Ok(());
        }
        for packed in alike.iter().filter_map(|layer| store.packed(layer)) {
            store.forget_packed(&packed);
        }
        let why = "layers of the image look alike; they are told apart the next time";
        Err(io::Error::new(io::ErrorKind::InvalidData, why))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::archive::Archive;

    fn taken(archive: &Archive, store: &Store) -> io::Result<Saved> {
        Saved::take(archive.to_tar().unwrap().as_slice(), store, &[], &BTreeSet::new())
    }

    fn diff_id(bytes: &[u8]) -> String {
        format!("sha256:{}", hexadecimal(&Sha256::digest(bytes)))
    }

    #[test]
    fn archives_of_old_and_new_engines_are_taken() {
        let config = r#"{"rootfs": {}}"#;
        let digits = hexadecimal(&Sha256::digest(config));
        let layer = b"a layer".repeat(1 << 20);
        let mut old = Archive::default();
        old.add(&format!("{digits}.json"), config);
        old.add("1/layer.tar", layer.clone());
        old.add("1/VERSION", "1.0");
        old.add_link("2/layer.tar", "../1/layer.tar");
        old.add("manifest.json", format!(r#"[{{"Config": "{digits}.json"}}]"#));
        let mut new = Archive::default();
        new.add(&format!("blobs/sha256/{digits}"), config);
        new.add(&format!("blobs/sha256/{}", &diff_id(&layer)[7..]), layer.clone());
        new.add("index.json", "{}");
        new.add("manifest.json", format!(r#"[{{"Config": "blobs/sha256/{digits}"}}]"#));
        for archive in [old, new] {
            let folder = tempfile::tempdir().unwrap();
            let store = Store::in_cache(folder.path());
            let saved = taken(&archive, &store).unwrap();
            assert_eq!(saved.config(), Some(config.as_bytes()));
            let first = store.packed(&diff_id(&layer)).unwrap();
            taken(&archive, &store).unwrap();
            assert_eq!(store.packed(&diff_id(&layer)), Some(first));
        }
    }

    #[test]
    fn a_known_layer_is_looked_at_and_not_packed_again() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::in_cache(folder.path());
        let layer = b"a layer".repeat(1 << 20);
        let known = [diff_id(&layer)];
        let saved = |layer: &[u8]| {
            let mut archive = Archive::default();
            archive.add("1/layer.tar", layer.to_vec());
            archive.add("manifest.json", r#"[{"Config": "gone.json"}]"#);
            Saved::take(archive.to_tar().unwrap().as_slice(), &store, &known, &BTreeSet::new())
        };
        saved(&layer).unwrap();
        let packed = store.packed(&known[0]).unwrap();
        let before = std::fs::metadata(store.blob(&packed)).unwrap().modified().unwrap();
        saved(&layer).unwrap();
        assert_eq!(std::fs::metadata(store.blob(&packed)).unwrap().modified().unwrap(), before);
        // One that differs at its beginning is another.
        let mut other = layer.clone();
        other[7] = b'x';
        saved(&other).unwrap();
        assert!(store.packed(&diff_id(&other)).is_some() && store.packed(&known[0]).is_some());
        // One that differs at its end is told apart only then, and taken the next time.
        let mut last = layer.clone();
        *last.last_mut().unwrap() = b'x';
        assert_eq!(saved(&last).unwrap_err().kind(), io::ErrorKind::InvalidData);
        saved(&last).unwrap();
        assert!(store.packed(&diff_id(&last)).is_some());
    }

    #[test]
    fn a_layer_that_is_packed_elsewhere_is_left_out_where_it_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::in_cache(folder.path());
        let (elsewhere, own) = (b"a layer".repeat(1 << 20), b"another".repeat(1 << 20));
        let mut archive = Archive::default();
        for layer in [&elsewhere, &own] {
            archive.add(&format!("blobs/sha256/{}", &diff_id(layer)[7..]), layer.clone());
        }
        archive.add("manifest.json", r#"[{"Config": "gone.json"}]"#);
        let known = BTreeSet::from([diff_id(&elsewhere)]);
        Saved::take(archive.to_tar().unwrap().as_slice(), &store, &[], &known).unwrap();
        assert!(store.packed(&diff_id(&elsewhere)).is_none() && store.packed(&diff_id(&own)).is_some());
    }

    #[test]
    fn what_is_no_such_archive_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::in_cache(folder.path());
        let mut archive = Archive::default();
        archive.add("x", "y");
        assert_eq!(taken(&archive, &store).unwrap_err().kind(), io::ErrorKind::InvalidData);
        archive.add("manifest.json", r#"[{"Config": "gone.json"}]"#);
        assert_eq!(taken(&archive, &store).unwrap().config(), None);
    }

    proptest! {
        #[test]
        fn whatever_comes_is_taken_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..4096)) {
            let folder = tempfile::tempdir().unwrap();
            let _ = Saved::take(bytes.as_slice(), &Store::in_cache(folder.path()), &[], &BTreeSet::new());
        }
    }
}
