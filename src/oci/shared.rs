//! Segments as a registry has them for machines whose store is empty: one manifest that names them by their keys.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use flate2::bufread::GzDecoder;
use serde::Deserialize;
use tokio::sync::mpsc;

use super::blobs::{Packed, at_once};
use super::segment::{Entry, Unfinished};
use super::store::{BUFFER, Owned, Segment, Store};
use super::wheel::Environment;
use super::zip::{self, check_path};
use crate::archive::EPOCH;
use crate::reference::is_digest;
use crate::registry::{self, Blob, Descriptor, Manifest, OCI_MANIFEST, RegistryError, Repository};
use crate::ustar::{self, Head};

/// What the manifest of a cache says that it is.
const CACHE: &str = "application/vnd.ipybox.segments.v1";

/// What registries are told that a segment is: there are those that take no layers of kinds that they do not know.
///
/// Rule: OCI image specification, "Media Types".
const PACKED: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// What is said of each segment in the manifest.
const KEY: &str = "ipybox.segment.key";
const SHA256: &str = "ipybox.segment.sha256";
const SIZE: &str = "ipybox.segment.size";

/// The most files of a segment: those of the largest wheel, each with its bytecode.
const FILES: u64 = 2 * zip::ENTRIES;

/// How many pieces of a download wait to be unpacked.
const AHEAD: usize = 16;

/// A segment as a registry has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// Its packed bytes.
    pub packed: Packed,
    /// Its size in bytes.
    pub size: u64,
    /// SHA-256 over it, in hexadecimal digits.
    pub sha256: String,
}

/// What a cache has, by the keys of segments.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Offers(pub BTreeMap<String, Offer>);

/// Why a segment that is offered is not taken.
#[derive(Debug, thiserror::Error)]
pub enum Untaken {
    /// The registry does not give it.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// It is not what it should be, or cannot be kept.
    #[error(transparent)]
    Content(#[from] io::Error),
}

/// Whose files a segment has.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The environment that they are in.
    pub environment: &'a Environment,
    /// Where that is from the root, and whose.
    pub owned: &'a Owned,
}

impl Offers {
    /// What a manifest offers; `None` where it is that of something else. What it says of a segment in other ways than we do is
    /// passed over.
    #[must_use]
    pub fn read(manifest: &Manifest) -> Option<Self> {
        /// Rule: OCI image specification, "Image Manifest".
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Named {
            artifact_type: String,
            layers: Vec<Layer>,
        }
        #[derive(Deserialize)]
        struct Layer {
            digest: String,
            size: u64,
            #[serde(default)]
            annotations: BTreeMap<String, String>,
        }
        let offer = |Layer { digest, size, mut annotations }: Layer| {
            let [key, sha256, of_segment] = [KEY, SHA256, SIZE].map(|name| annotations.remove(name));
            let packed = Packed { digest, size };
            let offer = Offer { packed, size: of_segment?.parse().ok()?, sha256: sha256? };
            offer.is_sound().then_some((key?, offer))
        };
        let is_manifest = manifest.media_type() == OCI_MANIFEST;
        let named: Named = serde_json::from_slice(manifest.bytes()).ok().filter(|_| is_manifest)?;
        (named.artifact_type == CACHE).then(|| Self(named.layers.into_iter().filter_map(offer).collect()))
    }

    /// What the store has of these segments, packed where it is not known how they are; `all_here` packs also those that are
    /// packed elsewhere. It is given up where `is_over`.
    ///
    /// # Errors
    ///
    /// Of reading and writing.
    pub fn of(
        store: &Store,
        keys: &BTreeSet<String>,
        all_here: bool,
        is_over: &(dyn Fn() -> bool + Sync),
    ) -> io::Result<Self> {
        let offers = Mutex::new(BTreeMap::new());
        at_once(keys.iter().collect(), |key| {
            if is_over() {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let Some(segment) = store.segment(key) else { return Ok(()) };
            let packed = match store.packing_of(&segment).filter(|_| !all_here) {
                Some(packed) => Some(packed),
                None => match store.pack_segment(key) {
                    // It is forgotten, and is somebody else's to make again.
                    Err(error) if error.kind() == io::ErrorKind::InvalidData => None,
                    packed => packed?,
                },
            };
            if let Some(packed) = packed {
                let Segment { size, sha256, .. } = segment;
                let mut offers = offers.lock().unwrap_or_else(PoisonError::into_inner);
                offers.insert(key.clone(), Offer { packed, size, sha256 });
            }
            Ok(())
        })?;
        Ok(Self(offers.into_inner().unwrap_or_else(PoisonError::into_inner)))
    }

    /// As it is pushed.
    #[must_use]
    pub fn artifact(&self, store: &Store) -> registry::Image {
        let layer = |(key, offer): (&String, &Offer)| {
            let said = [(KEY, key.clone()), (SHA256, offer.sha256.clone()), (SIZE, offer.size.to_string())];
            let said = said.map(|(name, value)| (name.to_owned(), value));
            let (store, key, packed) = (store.clone(), key.clone(), offer.packed.clone());
            let content = move |out: &mut dyn Write| match store.pack_segment(&key)? {
                Some(here) if here == packed => store.write_packed(&packed, out),
                Some(_) => Err(invalid("it is packed in another way here")),
                None => Err(io::Error::new(io::ErrorKind::NotFound, "it is gone from the cache")),
            };
            let blob = Blob { content: Arc::new(content), ..Blob::known(&offer.descriptor()) };
            (blob, BTreeMap::from(said))
        };
        registry::Image::collection(CACHE, self.0.iter().map(layer).collect())
    }
}

impl Offer {
    /// Whether there can be such a segment.
    fn is_sound(&self) -> bool {
        let Self { packed, size, sha256 } = self;
        is_digest(&packed.digest)
            && is_digest(&format!("sha256:{sha256}"))
            && packed.size <= zip::TOTAL
            && (1..=zip::TOTAL).contains(size)
    }

    fn descriptor(&self) -> Descriptor {
        let Packed { digest, size } = self.packed.clone();
        Descriptor { digest, media_type: PACKED.to_owned(), size }
    }

    /// Takes the segment of a key into the store, unless it is there meanwhile; whether it was taken. It is unpacked and looked
    /// at while it comes, and `tell` hears how many of its bytes have.
    ///
    /// # Errors
    ///
    /// [`Untaken`]; nothing of it is kept then.
    pub async fn fetch(
        &self,
        key: &str,
        place: Place<'_>,
        repository: &Repository<'_>,
        store: &Store,
        tell: impl Fn(u64),
    ) -> Result<bool, Untaken> {
        let (of_key, of_store) = (key.to_owned(), store.clone());
        let wait = move || {
            let alone = of_store.alone(&of_key)?;
            Ok(of_store.segment(&of_key).is_none().then_some(alone))
        };
        let Some(_alone) = unblocked(wait).await? else { return Ok(false) };
        let (sender, pieces) = mpsc::channel(AHEAD);
        let (offer, of_key, of_store) = (self.clone(), key.to_owned(), store.clone());
        let (environment, owned) = (place.environment.clone(), place.owned.clone());
        let taking = unblocked(move || {
            let place = Place { environment: &environment, owned: &owned };
            of_store.take_segment(&of_key, &offer, place, Pieces::new(pieces))
        });
        let coming = async {
            // Whoever unpacks it waits for as long as there is one.
            let sender = sender;
            let mut download = repository.blob(&self.descriptor())?;
            let mut done = 0;
            while let Some(piece) = download.next().await? {
                done += piece.len() as u64;
                if sender.send(Some(piece)).await.is_err() {
                    return Ok(());
                }
                tell(done);
            }
            let _ = sender.send(None).await;
            Ok::<_, RegistryError>(())
        };
        // Of a download that fails the end does not come, which is no mistake of what has come.
        let (came, taken) = tokio::join!(coming, taking);
        came?;
        taken?;
        Ok(true)
    }
}

async fn unblocked<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

/// A download as it is read. It ends with `None`, and is cut without.
struct Pieces {
    coming: mpsc::Receiver<Option<Bytes>>,
    piece: Bytes,
    is_over: bool,
}

impl Pieces {
    fn new(coming: mpsc::Receiver<Option<Bytes>>) -> Self {
        Self { coming, piece: Bytes::new(), is_over: false }
    }
}

impl BufRead for Pieces {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.piece.is_empty() && !self.is_over {
            match self.coming.blocking_recv() {
                Some(Some(piece)) => self.piece = piece,
                Some(None) => self.is_over = true,
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
        Ok(&self.piece)
    }

    fn consume(&mut self, count: usize) {
        let _ = self.piece.split_to(count);
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}

impl Store {
    /// Takes in a segment that somebody else has packed. Nothing that it says of itself is believed: it is kept where all of it
    /// is what would be written here for files of this place, and has the size and SHA-256 that were announced.
    ///
    /// # Errors
    ///
    /// Of reading and writing, and one of [`io::ErrorKind::InvalidData`] that says what is wrong with it.
    pub fn take_segment(
        &self,
        key: &str,
        offer: &Offer,
        place: Place<'_>,
        packed: impl BufRead,
    ) -> io::Result<()> {
        let owned = place.owned;
        let mut plain = BufReader::with_capacity(BUFFER, GzDecoder::new(packed).take(offer.size));
        let mut unfinished = Unfinished::new(self, owned)?;
        let mut files = 0;
        while let Some(head) = ustar::read_head(&mut plain, owned.ids, EPOCH)? {
            files += 1;
            if files > FILES {
                return Err(invalid("it has more files than any wheel"));
            }
            let is_program = place
                .fits(&head)
                .map_err(|why| invalid(&format!("`{}` in it {why}", head.path.escape_debug())))?;
            let Head { path, size, .. } = &head;
            let entry = Entry { path, size: *size, is_program, is_module: false };
            unfinished.add(&entry, |out| io::copy(&mut (&mut plain).take(*size), out).map(drop))?;
            ustar::read_padding(&mut plain, *size)?;
        }
        if let Some(path) = unfinished.collision() {
            return Err(invalid(&format!("`{path}` in it is a file, and the folder of another one")));
        }
        let mut rest = plain.into_inner().into_inner();
        // At its end a sum is checked, too.
        if rest.read(&mut [0])? > 0 {
            return Err(invalid(&format!("it is larger than {} bytes, as was announced", offer.size)));
        }
        if !rest.into_inner().fill_buf()?.is_empty() {
            return Err(invalid("something follows it"));
        }
        let is_announced = |segment: &Segment| {
            let is_it = (segment.size, &segment.sha256) == (offer.size, &offer.sha256);
            if is_it { Ok(()) } else { Err(invalid("it is another one than was announced")) }
        };
        let segment = unfinished.keep_where(self, key, is_announced)?;
        // Without it, it is packed once more where it is shared.
        let _ = self.note_packing(&segment, &offer.packed);
        Ok(())
    }
}

impl Place<'_> {
    /// Whether a file that may be there is a program; else why it may not, as a clause.
    fn fits(self, head: &Head) -> Result<bool, String> {
        let Self { environment, owned } = self;
        let inside = head.path.strip_prefix(&owned.prefix).and_then(|rest| rest.strip_prefix('/'));
        let inside = inside.ok_or_else(|| format!("lies outside of `/{}`", owned.prefix))?;
        check_path(inside).map_err(|refusal| format!("is refused: {refusal}"))?;
        if environment.owns(inside) {
            return Err("belongs to the environment".to_owned());
        }
        match head.mode {
            mode if mode == owned.of_programs() => Ok(true),
            mode if mode == owned.of_files() => Ok(false),
            mode => Err(format!("has the permissions {mode:o}")),
        }
    }
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::archive::hexadecimal;
    use crate::ustar::Ids;

    const KEYS: [&str; 2] = ["1", "2"];

    fn owned() -> Owned {
        Owned { prefix: "opt/venv".to_owned(), ids: Ids { uid: 1000, gid: 0 }, umask: 0o002 }
    }

    fn environment() -> Environment {
        Environment { prefix: "/opt/venv".to_owned(), python: "3.12".to_owned(), cache_tag: None }
    }

    fn made(store: &Store, key: &str, files: &[(&str, &str)]) -> Segment {
        let mut segment = Unfinished::new(store, &owned()).unwrap();
        for (path, content) in files {
            let is_program = path.contains("/bin/");
            let entry = Entry { path, size: content.len() as u64, is_program, is_module: false };
            segment.add(&entry, |out| out.write_all(content.as_bytes())).unwrap();
        }
        segment.keep(store, key).unwrap()
    }

    fn taken(store: &Store, offer: &Offer, packed: &[u8]) -> io::Result<()> {
        let (environment, owned) = (environment(), owned());
        let place = Place { environment: &environment, owned: &owned };
        let taken = store.take_segment("x", offer, place, packed);
        let left = store.folder("unfinished").read_dir().unwrap();
        assert_eq!(left.count(), 0, "nothing half written stays");
        assert_eq!(store.segment("x").is_some(), taken.is_ok());
        taken
    }

    fn packed(plain: &[u8]) -> Vec<u8> {
        let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
        packer.write_all(plain).unwrap();
        packer.finish().unwrap()
    }

    /// What a stream would be announced as.
    fn announced(plain: &[u8]) -> (Offer, Vec<u8>) {
        let bytes = packed(plain);
        let offer = Offer {
            packed: Packed {
                digest: format!("sha256:{}", hexadecimal(&Sha256::digest(&bytes))),
                size: bytes.len() as u64,
            },
            size: plain.len() as u64,
            sha256: hexadecimal(&Sha256::digest(plain)),
        };
        (offer, bytes)
    }

    fn refused(plain: &[u8]) -> String {
        let folder = tempfile::tempdir().unwrap();
        let (offer, bytes) = announced(plain);
        taken(&Store::in_cache(folder.path()), &offer, &bytes).unwrap_err().to_string()
    }

    /// The entry of a file, with its owner and permissions.
    fn entry(path: &str, mode: u32, ids: Ids, content: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        let size = content.len() as u64;
        ustar::file(&mut bytes, path, mode, ids, EPOCH, size, &mut content.as_bytes()).unwrap();
        bytes
    }

    fn of_user(path: &str, content: &str) -> Vec<u8> {
        entry(path, 0o664, owned().ids, content)
    }

    #[test]
    fn what_one_machine_shares_another_takes() {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let [one, other] = folders.each_ref().map(|folder| Store::in_cache(folder.path()));
        let long = format!("opt/venv/lib/{}a.py", "deep/".repeat(30));
        let first = made(&one, "1", &[("opt/venv/lib/a.py", "a = 1"), ("opt/venv/bin/a", "#!"), (&long, "")]);
        let second = made(&one, "2", &[("opt/venv/lib/b.py", "b = 1")]);
        let keys = KEYS.map(str::to_owned).into_iter().collect();
        let offers = Offers::of(&one, &keys, false, &|| false).unwrap();
        let artifact = offers.artifact(&one);
        assert_eq!(Offers::read(&artifact.manifest), Some(offers.clone()));
        let manifest: serde_json::Value = serde_json::from_slice(artifact.manifest.bytes()).unwrap();
        assert_eq!(manifest["artifactType"], CACHE);
        assert_eq!(manifest["layers"][1]["annotations"][KEY], "2");

        let (environment, owned) = (environment(), owned());
        let place = Place { environment: &environment, owned: &owned };
        for (blob, (key, offer)) in artifact.blobs.iter().zip(&offers.0) {
            let mut bytes = Vec::new();
            (blob.content)(&mut bytes).unwrap();
            assert_eq!(announced(&bytes).0.size, offer.packed.size);
            other.take_segment(key, offer, place, bytes.as_slice()).unwrap();
        }
        assert_eq!((other.segment("1"), other.segment("2")), (Some(first), Some(second)));
        assert_eq!(other.paths("1").unwrap(), one.paths("1").unwrap());
        let segments =
            BTreeMap::from([("a", "1"), ("b", "2")].map(|(name, key)| (name.to_owned(), key.to_owned())));
        assert_eq!(other.layer(&segments, &owned).unwrap(), one.layer(&segments, &owned).unwrap());

        // Who has taken it knows how it is packed without packing it, and packs it alike where it has to.
        assert_eq!(Offers::of(&other, &keys, false, &|| false).unwrap(), offers);
        assert!(other.packed(&offers.0["1"].sha256).is_none());
        let again = offers.artifact(&other);
        (again.blobs[0].content)(&mut io::sink()).unwrap();
        assert!(other.packed(&offers.0["1"].sha256).is_some());
        // What was packed in another way is told from that.
        let theirs = other.segment("2").unwrap();
        other.note_packing(&theirs, &announced(b"other").0.packed).unwrap();
        let told = Offers::of(&other, &keys, false, &|| false).unwrap();
        assert_ne!(told, offers);
        assert!((told.artifact(&other).blobs[1].content)(&mut io::sink()).is_err());
        assert_eq!(Offers::of(&other, &keys, true, &|| false).unwrap(), offers);

        // What is spoilt is not shared, and nothing is once it is over.
        std::fs::write(one.segment_file("2"), "x").unwrap();
        assert_eq!(Offers::of(&one, &keys, false, &|| false).unwrap().0.keys().collect::<Vec<_>>(), ["1"]);
        assert!(Offers::of(&one, &keys, false, &|| true).is_err());
    }

    #[test]
    fn nothing_but_files_of_the_environment_gets_into_the_store() {
        let user = owned().ids;
        let root = Ids { uid: 0, gid: 0 };
        let lib = "opt/venv/lib/a.py";
        assert!(taken_alone(&of_user(lib, "a = 1")).is_ok());
        for (stream, why) in [
            (of_user("etc/passwd", ""), "`etc/passwd` in it lies outside of `/opt/venv`"),
            (of_user("opt/venvy/a", ""), "lies outside"),
            (of_user("opt/venv", ""), "lies outside"),
            (of_user("opt/venv/", ""), "shortest form"),
            (of_user("/opt/venv/a", ""), "lies outside"),
            (of_user("opt/venv/../../etc/passwd", ""), "leaves its folder"),
            (of_user("opt/venv/lib/./a", ""), "shortest form"),
            (of_user("opt/venv/lib//a", ""), "shortest form"),
            (of_user("opt/venv/lib/a\nb", ""), "control characters"),
            (of_user("opt/venv/bin/python3", ""), "belongs to the environment"),
            (of_user("opt/venv/lib64/a", ""), "belongs to the environment"),
            (of_user("opt/venv/pyvenv.cfg", ""), "belongs to the environment"),
            (entry(lib, 0o4775, user, ""), "has the permissions 4775"),
            (entry(lib, 0o2664, user, ""), "has the permissions 2664"),
            (entry(lib, 0o666, user, ""), "has the permissions 666"),
            (entry(lib, 0o664, root, ""), "plain file with its owner"),
            (entry(lib, 0o664, Ids { uid: 1000, gid: 1000 }, ""), "plain file with its owner"),
            ([of_user(lib, "1"), of_user(lib, "2")].concat(), "is there twice"),
            ([of_user("opt/venv/a", ""), of_user("opt/venv/a/b", "")].concat(), "the folder of another"),
            ([of_user(lib, ""), ustar::END.to_vec()].concat(), "plain file with its owner"),
            (of_user(lib, "text")[..600].to_vec(), "failed to fill"),
            (of_user(lib, "text")[..100].to_vec(), "end of file"),
        ] {
            let refused = refused(&stream);
            assert!(refused.contains(why), "{why}: {refused}");
        }
        // As others write them: links, devices, folders, and what has extended headers.
        for kind in [
            tar::EntryType::Symlink,
            tar::EntryType::Link,
            tar::EntryType::Char,
            tar::EntryType::Block,
            tar::EntryType::Fifo,
            tar::EntryType::Directory,
            tar::EntryType::XHeader,
            tar::EntryType::GNUSparse,
        ] {
            let mut header = tar::Header::new_gnu();
            header.set_path(lib).unwrap();
            header.set_entry_type(kind);
            header.set_mode(0o664);
            header.set_uid(1000);
            header.set_gid(0);
            header.set_mtime(EPOCH);
            header.set_size(0);
            if matches!(kind, tar::EntryType::Symlink | tar::EntryType::Link) {
                header.set_link_name("/etc/passwd").unwrap();
            }
            header.set_cksum();
            let refused = refused(header.as_bytes());
            assert!(refused.contains("plain file with its owner"), "{kind:?}: {refused}");
        }
    }

    fn taken_alone(plain: &[u8]) -> io::Result<()> {
        let folder = tempfile::tempdir().unwrap();
        let (offer, bytes) = announced(plain);
        taken(&Store::in_cache(folder.path()), &offer, &bytes)
    }

    #[test]
    fn what_was_not_announced_is_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::in_cache(folder.path());
        let plain = of_user("opt/venv/lib/a.py", &"a = 1\n".repeat(1000));
        let (offer, bytes) = announced(&plain);
        let told = |offer: &Offer, bytes: &[u8]| taken(&store, offer, bytes).unwrap_err().to_string();
        let sized = |size| Offer { size, ..offer.clone() };
        // A bomb is read no further than it was announced.
        let bomb = [plain.clone(), of_user("opt/venv/lib/b", &"0".repeat(50 << 20))].concat();
        assert!(told(&offer, &packed(&bomb)).contains("larger than"));
        assert!(told(&sized(512), &bytes).contains("shorter than it was said"));
        assert!(told(&sized(plain.len() as u64 + 512), &bytes).contains("another one than was announced"));
        let other = Offer { sha256: "0".repeat(64), ..offer.clone() };
        assert!(told(&other, &bytes).contains("another one than was announced"));
        assert!(told(&offer, &[bytes.as_slice(), b"x"].concat()).contains("something follows"));
        assert!(told(&offer, &[bytes.as_slice(), &packed(b"")].concat()).contains("something follows"));
        for end in 0..bytes.len() {
            assert!(taken(&store, &offer, &bytes[..end]).is_err());
        }
        assert!(taken(&store, &offer, b"no gzip").is_err());
        // Whatever is changed in it is found out.
        for at in 10..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(taken(&store, &offer, &changed).is_err(), "byte {at}");
        }
        taken(&store, &offer, &bytes).unwrap();
    }

    #[test]
    fn a_manifest_offers_what_can_be() {
        let right = || {
            let layer = serde_json::json!({
                "mediaType": PACKED, "digest": format!("sha256:{}", "0".repeat(64)), "size": 5,
                "annotations": { KEY: "k", SHA256: "1".repeat(64), SIZE: "1024" },
            });
            serde_json::json!({
                "schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": CACHE, "layers": [layer],
            })
        };
        let read = |change: &dyn Fn(&mut serde_json::Value)| {
            let mut manifest = right();
            change(&mut manifest);
            Offers::read(&Manifest::new(OCI_MANIFEST, manifest.to_string())).map(|offers| offers.0.len())
        };
        assert_eq!(read(&|_| {}), Some(1));
        assert_eq!(read(&|manifest| manifest["artifactType"] = "application/vnd.other".into()), None);
        assert_eq!(read(&|manifest| manifest["layers"] = 5.into()), None);
        let manifest = Manifest::new("application/vnd.oci.image.index.v1+json", right().to_string());
        assert_eq!(Offers::read(&manifest), None);
        for (name, value) in [
            (SIZE, "-1"),
            (SIZE, "0"),
            (SIZE, "99999999999999"),
            (SIZE, "99999999999999999999999"),
            (SHA256, "../../x"),
        ] {
            let offered = read(&|manifest| manifest["layers"][0]["annotations"][name] = value.into());
            assert_eq!(offered, Some(0), "{name} {value}");
        }
        assert_eq!(read(&|manifest| manifest["layers"][0]["annotations"] = serde_json::json!({})), Some(0));
        assert_eq!(read(&|manifest| manifest["layers"][0]["digest"] = "sha256:../x".into()), Some(0));
        assert_eq!(read(&|manifest| manifest["layers"][0]["size"] = (1_u64 << 60).into()), Some(0));
    }

    /// Streams that come close to a segment.
    fn nearly_a_segment() -> impl Strategy<Value = Vec<u8>> {
        let path = prop_oneof![
            "opt/venv/lib/[a-c]{1,2}(/[a-c]{1,2}){0,2}",
            "opt/venv/lib/(deep/){20}[a-z]{1,9}",
            "[a-z./]{0,20}",
            "opt/venv/\\PC{0,8}",
        ];
        let mode = prop::sample::select(vec![0o664, 0o775, 0o4775, 0o644]);
        let entry = (path, mode, "[ -~]{0,600}")
            .prop_map(|(path, mode, content)| entry(&path, mode, owned().ids, &content));
        let change = prop::option::weighted(0.3, (any::<prop::sample::Index>(), any::<u8>()));
        (prop::collection::vec(entry, 0..5), change).prop_map(|(entries, change)| {
            let mut stream = entries.concat();
            if let Some((at, byte)) = change.filter(|_| !stream.is_empty()) {
                let at = at.index(stream.len());
                stream[at] = byte;
            }
            stream
        })
    }

    proptest! {
        #[test]
        fn what_is_kept_is_what_would_be_written_here(stream in nearly_a_segment()) {
            let folder = tempfile::tempdir().unwrap();
            let store = Store::in_cache(folder.path());
            let (offer, bytes) = announced(&stream);
            if taken(&store, &offer, &bytes).is_ok() {
                prop_assert_eq!(&std::fs::read(store.segment_file("x")).unwrap(), &stream);
                let mut archive = tar::Archive::new(stream.as_slice());
                let mut paths = BTreeSet::new();
                for entry in archive.entries().unwrap() {
                    let entry = entry.unwrap();
                    let path = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
                    let parts = path.split('/');
                    prop_assert!(path.starts_with("opt/venv/"));
                    prop_assert!(parts.clone().all(|part| !["", ".", ".."].contains(&part)));
                    prop_assert!([0o664, 0o775].contains(&entry.header().mode().unwrap()));
                    prop_assert_eq!(entry.header().uid().unwrap(), 1000);
                    prop_assert_eq!(entry.header().entry_type(), tar::EntryType::Regular);
                    prop_assert!(paths.insert(path));
                }
                prop_assert_eq!(store.paths("x").unwrap(), paths);
            }
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(plain in prop::collection::vec(any::<u8>(), 0..2000)) {
            let _ = taken_alone(&plain);
        }
    }
}
