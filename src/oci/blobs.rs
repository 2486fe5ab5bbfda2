//! Layers and segments as registries have them, packed once and kept in the store.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::measured::Measured;
use super::store::{BUFFER, Layer, Owned, Segment, Store, files, is_named_so, remove};
use crate::archive::hexadecimal;
use crate::kept::keep;
use crate::reference::is_digest;

/// A layer's packed bytes, or a segment's. How they look depends on who packed them; what they hold is said by the layer's diff
/// id, which of a segment is its SHA-256.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packed {
    /// SHA-256 over them, with `sha256:` before it.
    pub digest: String,
    /// How many they are.
    pub size: u64,
}

/// What a layer was before it was packed, by which one is known as it comes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Plain {
    /// How many bytes it has.
    pub(super) size: u64,
    /// SHA-256 over its first block.
    pub(super) head: String,
}

/// What is kept of a packed layer.
#[derive(Serialize, Deserialize)]
struct Kept {
    #[serde(flatten)]
    packed: Packed,
    plain: Option<Plain>,
}

/// How layers are packed; counted up where equal layers become other bytes.
const PACKER: &str = "gzip-6-blocks";

/// How much a packer is given at a time, in bytes: what it makes depends on that, and readers give more or less as it comes.
pub(super) const BLOCK: usize = 64 << 10;

/// How many are packed at once, at most.
const PACKERS: usize = 4;

/// What gzip streams begin with.
///
/// Rule: RFC 1952, section 2.3.1.
pub const GZIP: [u8; 2] = [0x1f, 0x8b];

/// The hexadecimal digits of a digest.
fn digits(digest: &str) -> &str {
    digest.trim_start_matches("sha256:")
}

impl Store {
    fn packed_file(&self, diff_id: &str) -> PathBuf {
        self.folder("packed").join(digits(diff_id)).with_extension(PACKER)
    }

    fn recipe_file(&self, diff_id: &str) -> PathBuf {
        self.folder("recipes").join(digits(diff_id))
    }

    /// The place of packed bytes.
    #[must_use]
    pub fn blob(&self, packed: &Packed) -> PathBuf {
        self.folder("blobs").join(digits(&packed.digest))
    }

    /// The packed bytes of a layer, where the store has them whole.
    #[must_use]
    pub fn packed(&self, diff_id: &str) -> Option<Packed> {
        self.kept(diff_id).map(|kept| kept.packed)
    }

    /// What a packed layer was before, where it was packed here and is whole.
    pub(super) fn plain(&self, diff_id: &str) -> Option<Plain> {
        self.kept(diff_id)?.plain
    }

    fn kept(&self, diff_id: &str) -> Option<Kept> {
        let kept: Kept = serde_json::from_slice(&fs::read(self.packed_file(diff_id)).ok()?).ok()?;
        let is_whole = fs::metadata(self.blob(&kept.packed)).ok()?.len() == kept.packed.size;
        is_whole.then_some(kept)
    }

    /// Forgets packed bytes that are not what they were.
    pub fn forget_packed(&self, packed: &Packed) {
        let _ = fs::remove_file(self.blob(packed));
    }

    /// Notes what a layer is made of, so that it can be made wherever its diff id stands.
    ///
    /// # Errors
    ///
    /// Of the file system.
    pub fn keep_recipe(&self, layer: &Layer, owned: &Owned) -> io::Result<()> {
        keep(&self.recipe_file(&layer.diff_id), &(layer, owned))
    }

    /// What the layer of a diff id is made of, where it was made here.
    #[must_use]
    pub fn recipe(&self, diff_id: &str) -> Option<(Layer, Owned)> {
        serde_json::from_slice(&fs::read(self.recipe_file(diff_id)).ok()?).ok()
    }

    /// The packed bytes of a layer that was made here; `None` where it was not.
    ///
    /// # Errors
    ///
    /// As [`Store::write`].
    pub fn pack_made(&self, diff_id: &str) -> io::Result<Option<Packed>> {
        let Some((layer, owned)) = self.recipe(diff_id) else { return Ok(None) };
        let mut packing = self.packing()?;
        self.write(&layer, &owned, &mut packing)?;
        let (found, packed) = packing.keep(self)?;
        if found == diff_id {
            return Ok(Some(packed));
        }
        self.forget_layers();
        Err(io::Error::new(io::ErrorKind::InvalidData, "a layer in the cache is not what it was"))
    }

    /// The packed layers of these diff ids; what was made here is packed, several at once.
    ///
    /// # Errors
    ///
    /// As [`Store::pack_made`], and of [`io::ErrorKind::NotFound`] where a layer is not to be had.
    pub fn packed_all(&self, diff_ids: &[String]) -> io::Result<Vec<Packed>> {
        let lacking: Vec<&String> = diff_ids.iter().filter(|layer| self.packed(layer).is_none()).collect();
        at_once(lacking, |layer| self.pack_made(layer).map(drop))?;
        let lacks = |layer: &String| {
            io::Error::new(io::ErrorKind::NotFound, format!("nobody has the layer `{layer}`"))
        };
        diff_ids.iter().map(|layer| self.packed(layer).ok_or_else(|| lacks(layer))).collect()
    }

    /// How a segment is packed, where that is known. The packed bytes need not be here.
    #[must_use]
    pub fn packing_of(&self, segment: &Segment) -> Option<Packed> {
        let known = fs::read(self.packed_file(&segment.sha256)).ok()?;
        let Kept { packed, .. } = serde_json::from_slice(&known).ok()?;
        is_digest(&packed.digest).then_some(packed)
    }

    /// Notes how somebody else has packed a segment. How it is packed here counts before that.
    ///
    /// # Errors
    ///
    /// Of the file system.
    pub(super) fn note_packing(&self, segment: &Segment, packed: &Packed) -> io::Result<()> {
        if self.packed(&segment.sha256).is_some() {
            return Ok(());
        }
        keep(&self.packed_file(&segment.sha256), &Kept { packed: packed.clone(), plain: None })
    }

    /// The packed bytes of a segment, packed where they are not here; `None` where the store has no such segment.
    ///
    /// # Errors
    ///
    /// Of reading and writing; one of [`io::ErrorKind::InvalidData`] where the segment is not what it was, which is forgotten.
    pub fn pack_segment(&self, key: &str) -> io::Result<Option<Packed>> {
        let Some(segment) = self.segment(key) else { return Ok(None) };
        if self.packed(&segment.sha256).is_none() {
            let mut packing = self.packing()?;
            self.write_segment(key, &segment, &mut vec![0; BUFFER], &mut packing)?;
            packing.keep(self)?;
        }
        Ok(self.packed(&segment.sha256))
    }

    /// Keeps the configuration of an image that was made here, by its id in the engine; engines that keep manifests call it
    /// otherwise than by its digest, so that stands before it.
    ///
    /// # Errors
    ///
    /// Of the file system.
    pub fn keep_config(&self, image: &str, config: &[u8]) -> io::Result<()> {
        fs::create_dir_all(self.folder("configs"))?;
        let mut file = self.unfinished()?;
        writeln!(file, "{}", hexadecimal(&Sha256::digest(config)))?;
        file.write_all(config)?;
        file.persist(self.folder("configs").join(digits(image)))?;
        Ok(())
    }

    /// That configuration, where it is what it was, and that of an image with these layers.
    #[must_use]
    pub fn config(&self, image: &str, layers: &[String]) -> Option<Vec<u8>> {
        let config = kept_config(&self.folder("configs").join(digits(image)))?;
        let read: Value = serde_json::from_slice(&config).ok()?;
        (read["rootfs"]["diff_ids"] == json!(layers)).then_some(config)
    }

    /// Configurations that are not what they were; they are forgotten. Told are the images.
    pub(super) fn spoilt_configs(&self) -> io::Result<Vec<String>> {
        let mut spoilt = Vec::new();
        for (path, _) in files(&self.folder("configs"))? {
            if kept_config(&path).is_none() && path.exists() {
                remove(&path)?;
                spoilt.extend(path.file_name().and_then(|name| name.to_str()).map(str::to_owned));
            }
        }
        Ok(spoilt)
    }

    /// Packs or takes over the layer that is read, and tells its diff id.
    ///
    /// # Errors
    ///
    /// Of reading and writing.
    pub fn take(&self, mut from: impl Read) -> io::Result<(String, Packed)> {
        let mut begin = [0; GZIP.len()];
        let mut read = 0;
        while read < begin.len() {
            match from.read(&mut begin[read..])? {
                0 => break,
                more => read += more,
            }
        }
        let mut from = begin[..read].chain(from);
        if begin != GZIP {
            let mut packing = self.packing()?;
            io::copy(&mut from, &mut packing)?;
            return packing.keep(self);
        }
        let mut taken = Measured::new(BufWriter::with_capacity(256 << 10, self.unfinished()?));
        let mut plain = Measured::new(io::sink());
        let mut unpacked = MultiGzDecoder::new(BufReader::new(Tee { from: &mut from, to: &mut taken }));
        io::copy(&mut unpacked, &mut plain)?;
        drop(unpacked);
        io::copy(&mut from, &mut taken)?;
        let size = taken.size;
        let (to, digits) = taken.done();
        let diff_id = format!("sha256:{}", plain.digits());
        let packed = Packed { digest: format!("sha256:{digits}"), size };
        self.keep_packed(&diff_id, &Kept { packed: packed.clone(), plain: None }, to)?;
        Ok((diff_id, packed))
    }

    fn packing(&self) -> io::Result<Packing> {
        let file = BufWriter::with_capacity(256 << 10, self.unfinished()?);
        let packer = GzEncoder::new(Measured::new(file), Compression::new(6));
        Ok(Packing { packer: Measured::new(packer), block: Vec::with_capacity(BLOCK), head: None })
    }

    fn keep_packed(
        &self,
        diff_id: &str,
        kept: &Kept,
        file: BufWriter<tempfile::NamedTempFile>,
    ) -> io::Result<()> {
        let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
        // Whoever packs it has the same, but for bytes that were taken over: what manifests name already stays.
        if self.packed(diff_id).is_some() {
            return Ok(());
        }
        fs::create_dir_all(self.folder("blobs"))?;
        file.persist(self.blob(&kept.packed))?;
        keep(&self.packed_file(diff_id), kept)
    }

    /// Writes packed bytes, which are checked on their way.
    ///
    /// # Errors
    ///
    /// Of reading and writing; one of [`io::ErrorKind::InvalidData`] where they are not what they were, which are forgotten.
    pub fn write_packed(&self, packed: &Packed, to: &mut dyn Write) -> io::Result<()> {
        let mut measured = Measured::new(to);
        let file = File::open(self.blob(packed));
        let copied =
            file.and_then(|file| io::copy(&mut BufReader::with_capacity(256 << 10, file), &mut measured));
        match copied {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(_) if digits(&packed.digest) == measured.digits() => return Ok(()),
            _ => {}
        }
        self.forget_packed(packed);
        Err(io::Error::new(io::ErrorKind::InvalidData, "a layer in the cache is gone, or is not what it was"))
    }

    /// Packed bytes that are not what they were; they are forgotten.
    pub(super) fn spoilt_blobs(&self) -> io::Result<Vec<String>> {
        let mut spoilt = Vec::new();
        for (path, _) in files(&self.folder("blobs"))? {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if !is_named_so(&path, name)? {
                spoilt.push(name.to_owned());
            }
        }
        Ok(spoilt)
    }
}

/// A configuration in a file, where its digest is the one before it.
fn kept_config(file: &Path) -> Option<Vec<u8>> {
    let text = fs::read(file).ok()?;
    let (digest, config) = text.split_at_checked(2 * 32)?;
    let config = config.strip_prefix(b"\n")?;
    (digest == hexadecimal(&Sha256::digest(config)).as_bytes()).then(|| config.to_vec())
}

/// Does the same with several things, a few at once.
pub(super) fn at_once<T: Send>(things: Vec<T>, work: impl Fn(T) -> io::Result<()> + Sync) -> io::Result<()> {
    let left = Mutex::new(things);
    let processors = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        let work = || {
            while let Some(next) = { left.lock().expect("nobody panics with it").pop() } {
                work(next)?;
            }
            Ok(())
        };
        let workers: Vec<_> = (0..processors.min(PACKERS)).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| {
            worker.join().unwrap_or_else(|_| Err(io::Error::other("a thread has ended")))
        })
    })
}

/// A layer on its way into packed bytes.
struct Packing {
    packer: Measured<GzEncoder<Measured<BufWriter<tempfile::NamedTempFile>>>>,
    /// What the packer is not given yet, less than a whole block.
    block: Vec<u8>,
    /// SHA-256 over the first block.
    head: Option<String>,
}

impl Packing {
    /// Keeps it; its diff id and what it became.
    fn keep(mut self, store: &Store) -> io::Result<(String, Packed)> {
        let head = self.head.take().unwrap_or_else(|| hexadecimal(&Sha256::digest(&self.block)));
        self.packer.write_all(&self.block)?;
        let size = self.packer.size;
        let before = Plain { size, head };
        let (packer, plain) = self.packer.done();
        let packed = packer.finish()?;
        let size = packed.size;
        let (file, digits) = packed.done();
        let (diff_id, packed) =
            (format!("sha256:{plain}"), Packed { digest: format!("sha256:{digits}"), size });
        store.keep_packed(&diff_id, &Kept { packed: packed.clone(), plain: Some(before) }, file)?;
        Ok((diff_id, packed))
    }
}

impl Write for Packing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(BLOCK - self.block.len());
        self.block.extend_from_slice(&bytes[..taken]);
        if self.block.len() == BLOCK {
            self.head.get_or_insert_with(|| hexadecimal(&Sha256::digest(&self.block)));
            self.packer.write_all(&self.block)?;
            self.block.clear();
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A reader that writes down what is read.
struct Tee<R, W> {
    from: R,
    to: W,
}

impl<R: Read, W: Write> Read for Tee<R, W> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer)?;
        self.to.write_all(&buffer[..read])?;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::segment::{Entry, Unfinished};
    use crate::ustar::Ids;

    fn owned() -> Owned {
        Owned { prefix: "opt/venv".to_owned(), ids: Ids { uid: 1000, gid: 0 }, umask: 0o002 }
    }

    fn made(store: &Store) -> Layer {
        let mut segment = Unfinished::new(store, &owned()).unwrap();
        let entry = Entry { path: "opt/venv/lib/a.py", size: 5, ..Entry::default() };
        segment.add(&entry, |out| out.write_all(b"a = 1")).unwrap();
        segment.keep(store, "1").unwrap();
        store.layer(&[("a".to_owned(), "1".to_owned())].into(), &owned()).unwrap()
    }

    fn unpacked(store: &Store, packed: &Packed) -> Vec<u8> {
        let (mut bytes, mut plain) = (Vec::new(), Vec::new());
        store.write_packed(packed, &mut bytes).unwrap();
        assert_eq!(bytes.len() as u64, packed.size);
        MultiGzDecoder::new(bytes.as_slice()).read_to_end(&mut plain).unwrap();
        plain
    }

    #[test]
    fn what_was_made_here_is_packed_once_and_equal_everywhere() {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let [one, other] = folders.each_ref().map(|folder| {
            let store = Store::in_cache(folder.path());
            let layer = made(&store);
            let packed = store.packed_all(std::slice::from_ref(&layer.diff_id)).unwrap().remove(0);
            let mut plain = Vec::new();
            store.write(&layer, &owned(), &mut plain).unwrap();
            assert_eq!(unpacked(&store, &packed), plain);
            assert_eq!(store.packed(&layer.diff_id), Some(packed.clone()));
            packed
        });
        assert_eq!(one, other);
        let store = Store::in_cache(folders[0].path());
        assert!(store.pack_made(&format!("sha256:{}", "0".repeat(64))).unwrap().is_none());
        assert!(store.packed_all(&["sha256:0".to_owned()]).is_err());
    }

    /// Gives what it has in pieces of odd sizes.
    struct Piecemeal<'a>(&'a [u8], usize);

    impl Read for Piecemeal<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.1 = self.1 * 7 % 100_003 + 1;
            let size = self.1.min(buffer.len());
            self.0.read(&mut buffer[..size])
        }
    }

    #[test]
    fn a_layer_is_packed_alike_however_it_comes() {
        let mut plain = Vec::new();
        for number in 0..400_000_u32 {
            plain.extend_from_slice(&(number.wrapping_mul(2_654_435_761) >> 17).to_le_bytes());
            plain.extend_from_slice(b"some words that come again");
        }
        let digests = [1, 5, 77].map(|first| {
            let folder = tempfile::tempdir().unwrap();
            Store::in_cache(folder.path()).take(Piecemeal(&plain, first)).unwrap().1.digest
        });
        let folder = tempfile::tempdir().unwrap();
        let whole = Store::in_cache(folder.path()).take(plain.as_slice()).unwrap().1.digest;
        assert!(digests.iter().all(|digest| *digest == whole), "{digests:?} {whole}");
    }

    #[test]
    fn layers_are_taken_packed_or_not_and_known_by_what_they_hold() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::in_cache(folder.path());
        let plain = b"some layer".repeat(100);
        let (diff_id, packed) = store.take(plain.as_slice()).unwrap();
        assert_eq!(unpacked(&store, &packed), plain);
        // Somebody else's packing stays as it is.
        let mut theirs = GzEncoder::new(Vec::new(), Compression::fast());
        theirs.write_all(&plain).unwrap();
        let theirs = theirs.finish().unwrap();
        let of_others = tempfile::tempdir().unwrap();
        let other = Store::in_cache(of_others.path());
        let (same, taken) = other.take(theirs.as_slice()).unwrap();
        assert_eq!(same, diff_id);
        assert_eq!(fs::read(other.blob(&taken)).unwrap(), theirs);
        // What is there stays as it is, too.
        store.take(theirs.as_slice()).unwrap();
        assert_eq!(store.packed(&diff_id), Some(packed.clone()));
        assert!(store.take(&theirs[..theirs.len() - 9]).is_err());
        assert_eq!(store.take(io::empty()).unwrap().0, format!("sha256:{}", digest_of(b"")));

        // Changed, cut and gone.
        fs::write(other.blob(&taken), "x".repeat(theirs.len())).unwrap();
        let spoilt = other.write_packed(&taken, &mut io::sink()).unwrap_err();
        assert_eq!(spoilt.kind(), io::ErrorKind::InvalidData);
        assert!(other.packed(&diff_id).is_none());
        assert_eq!(
            other.write_packed(&taken, &mut io::sink()).unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
        fs::write(store.blob(&packed), "cut").unwrap();
        assert_eq!(store.verify().unwrap(), [digits(&packed.digest)]);
    }

    #[test]
    fn a_configuration_is_that_of_its_image_or_none() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::in_cache(folder.path());
        let (image, layers) = (format!("sha256:{}", "1".repeat(64)), ["sha256:2".to_owned()]);
        let config = br#"{"config": {"Env": ["A=1"]}, "rootfs": {"diff_ids": ["sha256:2"]}}"#;
        let keep = || store.keep_config(&image, config).unwrap();
        keep();
        assert_eq!(store.config(&image, &layers).unwrap(), config);
        assert_eq!(store.config(&image, &[]), None, "it is that of other layers");
        assert_eq!(store.verify().unwrap(), Vec::<String>::new());
        let file = store.folder("configs").join(digits(&image));
        let whole = fs::read(&file).unwrap();
        let changed = String::from_utf8(whole.clone()).unwrap().replace("A=1", "A=2").into_bytes();
        for spoilt in [&changed, &whole[..whole.len() - 1], &whole[..64], &whole[..9], b"", &config[..]] {
            fs::write(&file, spoilt).unwrap();
            assert_eq!(store.config(&image, &layers), None, "{}", String::from_utf8_lossy(spoilt));
            assert_eq!(store.verify().unwrap(), [digits(&image)]);
            assert!(!file.exists());
        }
        keep();
        assert!(store.config(&image, &layers).is_some());
    }

    fn digest_of(bytes: &[u8]) -> String {
        let mut measured = Measured::new(io::sink());
        measured.write_all(bytes).unwrap();
        measured.digits()
    }
}
