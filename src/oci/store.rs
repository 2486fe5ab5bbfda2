//! What layers are made of, kept on this host: wheels, segments, and which layers they make. Nothing in it is needed twice,
//! and what is not whole, or was changed, is made again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{FlockOperation, flock};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use super::bases::BASES;
use super::layout::BLOBS;
use super::measured::{Measured, digest};
use crate::archive::{EPOCH, hexadecimal};
use crate::kept::keep;
use crate::reference::is_digest;
use crate::ustar::{self, Ids};

/// The store in a folder of the cache. Any number of processes may use it at once, and end at any time.
#[derive(Debug, Clone)]
pub struct Store(PathBuf);

/// The entries of one wheel's files in a tar stream, without what ends one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// Its size in bytes.
    pub size: u64,
    /// SHA-256 over it, in hexadecimal digits.
    pub sha256: String,
    /// The folders that its files are in, from the root, sorted.
    pub folders: BTreeSet<String>,
    /// SHA-256 over the list of its files, as the store has it.
    pub list: String,
}

/// A layer, as it is made of segments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// SHA-256 over its tar stream, with `sha256:` before it.
    pub diff_id: String,
    /// Its size in bytes.
    pub size: u64,
    /// The names of the packages in it.
    pub packages: Vec<String>,
    /// The keys of their segments, in the same order.
    pub segments: Vec<String>,
}

/// The environment that the files of a layer are in, and whose they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owned {
    /// The folder of the environment, from the root and without a slash before it.
    pub prefix: String,
    /// Who has it, with all that is in it; what is above it is root's.
    pub ids: Ids,
    /// The permissions that nothing in it has.
    ///
    /// Rule: POSIX, `umask`.
    pub umask: u32,
}

impl Owned {
    /// Permissions of its folders and programs.
    #[must_use]
    pub fn of_programs(&self) -> u32 {
        0o777 & !self.umask
    }

    /// Permissions of its other files.
    #[must_use]
    pub fn of_files(&self) -> u32 {
        0o666 & !self.umask
    }
}

/// What the store holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Held {
    /// Files of this kind.
    pub count: u64,
    /// Their size, in bytes.
    pub bytes: u64,
}

/// Permissions of folders above an environment.
const ABOVE: u32 = 0o755;

/// What a process that was killed has left is older than this.
const LEFT: Duration = Duration::from_secs(24 * 3600);

/// How much of a segment is read at a time, in bytes.
pub(super) const BUFFER: usize = 256 << 10;

/// The kinds of what is kept, by their folders.
const KINDS: [&str; 5] = ["wheels", "segments", "layers", "blobs", BASES];

impl Store {
    /// In a folder of the cache.
    #[must_use]
    pub fn in_cache(cache: &Path) -> Self {
        Self(cache.join("layers"))
    }

    /// Where one kind of what it holds is.
    pub(super) fn folder(&self, kind: &str) -> PathBuf {
        self.0.join(kind)
    }

    pub(super) fn segment_file(&self, key: &str) -> PathBuf {
        self.0.join("segments").join(key).with_extension("tar")
    }

    /// The place of a wheel, by its SHA-256 in hexadecimal digits.
    #[must_use]
    pub fn wheel(&self, sha256: &str) -> PathBuf {
        self.0.join("wheels").join(sha256)
    }

    /// A segment, where the store has it whole.
    #[must_use]
    pub fn segment(&self, key: &str) -> Option<Segment> {
        let file = self.segment_file(key);
        let segment: Segment = serde_json::from_slice(&fs::read(file.with_extension("json")).ok()?).ok()?;
        let is_whole =
            fs::metadata(&file).ok()?.len() == segment.size && file.with_extension("paths").exists();
        is_whole.then_some(segment)
    }

    /// The paths of a segment's files, from the root.
    ///
    /// # Errors
    ///
    /// Of the file system; one of [`io::ErrorKind::InvalidData`] where the store has them no more.
    pub fn paths(&self, key: &str) -> io::Result<BTreeSet<String>> {
        let segment = self.segment(key).ok_or_else(|| self.spoilt(key))?;
        let bytes = fs::read(self.segment_file(key).with_extension("paths"));
        let bytes = bytes.map_err(|error| self.spoilt_where_gone(key, error))?;
        if hexadecimal(&Sha256::digest(&bytes)) != segment.list {
            return Err(self.spoilt(key));
        }
        let text = String::from_utf8(bytes).map_err(|_| self.spoilt(key))?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// The layers that were made of something, by its digest.
    #[must_use]
    pub fn layers(&self, key: &str) -> Option<Vec<Layer>> {
        let layers: Vec<Layer> =
            serde_json::from_slice(&fs::read(self.0.join("layers").join(key)).ok()?).ok()?;
        layers.iter().all(|layer| is_digest(&layer.diff_id)).then_some(layers)
    }

    /// Keeps layers.
    ///
    /// # Errors
    ///
    /// Of the file system.
    pub fn keep_layers(&self, key: &str, layers: &[Layer]) -> io::Result<()> {
        keep(&self.0.join("layers").join(key), &layers)
    }

    /// Whether a segment has shared libraries, which may lack others, or is not there to be asked.
    #[must_use]
    pub fn has_libraries(&self, key: &str) -> bool {
        let is_library = |path: &str| path.rsplit('/').next().is_some_and(|name| name.contains(".so"));
        let paths = fs::read_to_string(self.segment_file(key).with_extension("paths"));
        !paths.is_ok_and(|paths| !paths.lines().any(is_library))
    }

    /// What was seen of these segments and no others, in one way of looking on one image, which `how` tells.
    #[must_use]
    pub fn seen<T: DeserializeOwned>(&self, how: &str, keys: &[String]) -> Option<T> {
        serde_json::from_slice(&fs::read(self.sight(how, keys)).ok()?).ok()
    }

    /// Keeps what was seen of segments.
    ///
    /// # Errors
    ///
    /// Of the file system.
    pub fn see(&self, how: &str, keys: &[String], what: &impl Serialize) -> io::Result<()> {
        keep(&self.sight(how, keys), what)
    }

    fn sight(&self, how: &str, keys: &[String]) -> PathBuf {
        let of_all = Sha256::digest(format!("{how}\0{}", keys.join("\0")));
        self.0.join("seen").join(hexadecimal(&of_all))
    }

    /// Forgets a segment and every layer that it is in.
    pub fn forget(&self, key: &str) {
        let file = self.segment_file(key);
        for file in [file.with_extension("json"), file.with_extension("paths"), file] {
            let _ = fs::remove_file(file);
        }
        self.forget_layers();
    }

    /// Forgets what is known of layers; their segments stay.
    pub fn forget_layers(&self) {
        for known in ["layers", "recipes", "seen"] {
            let _ = fs::remove_dir_all(self.folder(known));
        }
    }

    /// The place of a wheel, where the store has it as it was fetched.
    #[must_use]
    pub fn has_wheel(&self, sha256: &str) -> Option<PathBuf> {
        let place = self.wheel(sha256);
        if digest(&place).ok()? == sha256 {
            return Some(place);
        }
        let _ = fs::remove_file(&place);
        None
    }

    /// Waits until nobody else makes what has this key, and keeps others waiting until this is dropped.
    ///
    /// # Errors
    ///
    /// Of the file system.
    pub fn alone(&self, key: &str) -> io::Result<File> {
        let folder = self.0.join("unfinished");
        fs::create_dir_all(&folder)?;
        let file = File::options().create(true).append(true).open(folder.join(key).with_extension("lock"))?;
        flock(&file, FlockOperation::LockExclusive)?;
        Ok(file)
    }

    /// A file that gets into the store once it is whole.
    ///
    /// # Errors
    ///
    /// Of the file system.
    pub fn unfinished(&self) -> io::Result<NamedTempFile> {
        let folder = self.0.join("unfinished");
        fs::create_dir_all(&folder)?;
        NamedTempFile::new_in(folder)
    }

    /// Keeps a wheel that was checked.
    ///
    /// # Errors
    ///
    /// Of the file system.
    pub fn keep_wheel(&self, sha256: &str, file: NamedTempFile) -> io::Result<PathBuf> {
        let place = self.wheel(sha256);
        fs::create_dir_all(self.0.join("wheels"))?;
        file.persist(&place)?;
        Ok(place)
    }

    /// Writes a layer, whose segments are checked on their way.
    ///
    /// # Errors
    ///
    /// Of reading and writing; one of [`io::ErrorKind::InvalidData`] where a segment is not what it was, which is forgotten.
    pub fn write(&self, layer: &Layer, owned: &Owned, to: &mut impl Write) -> io::Result<()> {
        let mut segments = Vec::new();
        for key in &layer.segments {
            let segment = self.segment(key).ok_or_else(|| self.spoilt(key))?;
            segments.push((key, segment));
        }
        let mut folders: BTreeSet<&str> = BTreeSet::new();
        for (_, segment) in &segments {
            folders.extend(segment.folders.iter().map(String::as_str));
        }
        for folder in folders {
            let is_inside = folder
                .strip_prefix(&owned.prefix)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
            let (mode, ids) =
                if is_inside { (owned.of_programs(), owned.ids) } else { (ABOVE, Ids { uid: 0, gid: 0 }) };
            ustar::folder(to, folder, mode, ids, EPOCH)?;
        }
        let mut buffer = vec![0; BUFFER];
        for (key, segment) in segments {
            self.write_segment(key, &segment, &mut buffer, to)?;
        }
        to.write_all(&ustar::END)
    }

    /// Writes a segment, which is checked on its way.
    pub(super) fn write_segment(
        &self,
        key: &str,
        segment: &Segment,
        buffer: &mut [u8],
        to: &mut impl Write,
    ) -> io::Result<()> {
        let file = File::open(self.segment_file(key));
        let mut file = file.map_err(|error| self.spoilt_where_gone(key, error))?;
        let mut digest = Sha256::new();
        let mut left = segment.size;
        while left > 0 {
            let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let read = file.read(&mut buffer[..most])?;
            if read == 0 {
                return Err(self.spoilt(key));
            }
            digest.update(&buffer[..read]);
            left -= read as u64;
            to.write_all(&buffer[..read])?;
        }
        if hexadecimal(&digest.finalize()) == segment.sha256 { Ok(()) } else { Err(self.spoilt(key)) }
    }

    fn spoilt_where_gone(&self, key: &str, error: io::Error) -> io::Error {
        if error.kind() == io::ErrorKind::NotFound { self.spoilt(key) } else { error }
    }

    /// Forgets a segment that is not what it was, or is gone meanwhile; the error says that, and is of
    /// [`io::ErrorKind::InvalidData`].
    #[must_use]
    pub fn spoilt(&self, key: &str) -> io::Error {
        self.forget(key);
        io::Error::new(
            io::ErrorKind::InvalidData,
            "something in the cache of layers is gone, or is not what it was",
        )
    }

    /// The layer that these segments make, by their packages. Only one that was never made before is read.
    ///
    /// # Errors
    ///
    /// As [`Store::write`].
    pub fn layer(&self, segments: &BTreeMap<String, String>, owned: &Owned) -> io::Result<Layer> {
        let mut recipe = Sha256::new();
        let Owned { prefix, ids, umask } = owned;
        recipe.update(format!("{prefix}\0{}\0{}\0{umask:o}\0", ids.uid, ids.gid));
        for (name, key) in segments {
            recipe.update(format!("{name}\0{key}\0"));
        }
        let recipe = hexadecimal(&recipe.finalize());
        if let Some(Ok([layer])) = self.layers(&recipe).map(<[Layer; 1]>::try_from)
            && self.has_recipe(&layer, owned)
        {
            return Ok(layer);
        }
        let mut layer = Layer {
            diff_id: String::new(),
            size: 0,
            packages: segments.keys().cloned().collect(),
            segments: segments.values().cloned().collect(),
        };
        let mut measured = Measured::new(io::sink());
        self.write(&layer, owned, &mut measured)?;
        layer.size = measured.size;
        layer.diff_id = format!("sha256:{}", measured.digits());
        // Without them the same is found out again.
        let _ = self.keep_recipe(&layer, owned);
        let _ = self.keep_layers(&recipe, std::slice::from_ref(&layer));
        Ok(layer)
    }

    /// Whether it is known what a layer is made of, from now on at least: whoever packs it has nothing but its diff id.
    #[must_use]
    pub fn has_recipe(&self, layer: &Layer, owned: &Owned) -> bool {
        self.recipe(&layer.diff_id).is_some() || self.keep_recipe(layer, owned).is_ok()
    }

    /// What it holds, by kind.
    ///
    /// # Errors
    ///
    /// Of the file system.
    pub fn held(&self) -> io::Result<BTreeMap<&'static str, Held>> {
        let mut all = BTreeMap::new();
        for kind in KINDS {
            let held: &mut Held = all.entry(kind).or_default();
            let folder = if kind == BASES { self.bases().join(BLOBS) } else { self.0.join(kind) };
            for (_, metadata) in files(&folder)? {
                held.count += 1;
                held.bytes += metadata.len();
            }
        }
        Ok(all)
    }

    /// Reads everything, forgets what is not what it was, and tells the keys of that.
    ///
    /// # Errors
    ///
    /// Of the file system.
    pub fn verify(&self) -> io::Result<Vec<String>> {
        let mut spoilt = Vec::new();
        for (path, _) in files(&self.0.join("segments"))? {
            let Some(key) = path
                .file_stem()
                .and_then(|key| key.to_str())
                .filter(|_| path.extension().is_some_and(|end| end == "tar"))
            else {
                continue;
            };
            // Whoever makes it has its files there one after the other.
            let _alone = self.alone(key)?;
            if !path.exists() {
                continue;
            }
            let is_right = self.segment(key).is_some_and(|segment| {
                let is = |path: &Path, sha256: &str| digest(path).is_ok_and(|found| found == sha256);
                is(&path, &segment.sha256) && is(&path.with_extension("paths"), &segment.list)
            });
            if !is_right {
                self.forget(key);
                spoilt.push(key.to_owned());
            }
        }
        for (path, _) in files(&self.0.join("wheels"))? {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if !is_named_so(&path, name)? {
                spoilt.push(name.to_owned());
            }
        }
        spoilt.extend(self.spoilt_blobs()?);
        spoilt.extend(self.spoilt_configs()?);
        spoilt.extend(self.spoilt_bases()?);
        Ok(spoilt)
    }

    /// Removes what was not used for longest until it holds so many bytes at most, and what killed processes left. Returns how
    /// many bytes are gone.
    ///
    /// # Errors
    ///
    /// Of the file system.
    pub fn prune(&self, keep: u64) -> io::Result<u64> {
        let now = SystemTime::now();
        let mut freed = 0;
        for (path, metadata) in files(&self.0.join("unfinished"))? {
            let age = metadata.modified().ok().and_then(|time| now.duration_since(time).ok());
            if age.is_some_and(|age| age > LEFT) {
                remove(&path)?;
                freed += metadata.len();
            }
        }
        let mut all = Vec::new();
        for kind in ["wheels", "segments", "blobs"] {
            all.extend(files(&self.0.join(kind))?);
        }
        all.extend(files(&self.bases().join(BLOBS))?);
        let mut total: u64 = all.iter().map(|(_, metadata)| metadata.len()).sum();
        all.sort_by_key(|(_, metadata)| metadata.modified().ok());
        for (path, metadata) in all {
            if total <= keep {
                break;
            }
            match path.extension() {
                Some(end) if end == "tar" => {
                    if let Some(key) = path.file_stem().and_then(|key| key.to_str()) {
                        self.forget(key);
                    }
                }
                Some(_) => continue,
                None => remove(&path)?,
            }
            total -= metadata.len();
            freed += metadata.len();
        }
        Ok(freed)
    }

    /// Notes that a segment was used.
    pub fn used(&self, key: &str) {
        if let Ok(file) = File::options().append(true).open(self.segment_file(key)) {
            let _ = file.set_modified(SystemTime::now());
        }
    }
}

/// Removes a file, unless somebody else has.
pub(super) fn remove(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Whether a file has the SHA-256 that it is called by. It goes where it has not; one that others have removed has it.
pub(super) fn is_named_so(file: &Path, name: &str) -> io::Result<bool> {
    match digest(file) {
        Ok(found) if found == name => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        _ => remove(file).map(|()| false),
    }
}

/// The files of a folder, which need not be there.
pub(super) fn files(folder: &Path) -> io::Result<Vec<(PathBuf, fs::Metadata)>> {
    let entries = match folder.read_dir() {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry?;
        // Others may remove it meanwhile.
        if let Ok(metadata) = entry.metadata() {
            files.push((entry.path(), metadata));
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::segment::{Entry, Unfinished};

    const IDS: Ids = Ids { uid: 1000, gid: 0 };

    fn owned() -> Owned {
        Owned { prefix: "opt/venv".to_owned(), ids: IDS, umask: 0o002 }
    }

    fn kept(store: &Store, key: &str, path: &str, content: &str) {
        let mut segment = Unfinished::new(store, &owned()).unwrap();
        let entry = Entry { path, size: content.len() as u64, ..Entry::default() };
        segment.add(&entry, |out| out.write_all(content.as_bytes())).unwrap();
        segment.keep(store, key).unwrap();
    }

    #[test]
    fn what_was_seen_of_libraries_on_an_image_is_kept() {
        let cache = tempfile::tempdir().unwrap();
        let store = Store::in_cache(cache.path());
        kept(&store, "plain", "opt/venv/lib/a.so.d/a.py", "a = 1");
        kept(&store, "native", "opt/venv/lib/b.so.1", "b");
        assert!(
            !store.has_libraries("plain") && store.has_libraries("native") && store.has_libraries("gone")
        );
        let keys = ["native", "other"].map(str::to_owned);
        store.see("image", &keys, &["libX.so.1"]).unwrap();
        let seen = |image, keys: &[String]| store.seen::<Vec<String>>(image, keys);
        assert_eq!(seen("image", &keys).unwrap(), ["libX.so.1"]);
        // A package that is gone may have had what others need.
        assert_eq!((seen("image", &keys[1..]), seen("other", &keys)), (None, None));
        store.forget("native");
        assert_eq!(seen("image", &keys), None);
    }

    #[test]
    fn segments_make_equal_layers_and_what_was_changed_is_forgotten() {
        let cache = tempfile::tempdir().unwrap();
        let store = Store::in_cache(cache.path());
        kept(&store, "1", "opt/venv/lib/a.py", "a = 1");
        kept(&store, "2", "opt/venv/lib/deep/b.py", "b = 1");
        let segments =
            BTreeMap::from([("b", "2"), ("a", "1")].map(|(name, key)| (name.to_owned(), key.to_owned())));
        let layer = store.layer(&segments, &owned()).unwrap();
        assert_eq!(layer.segments, ["1", "2"]);
        let mut bytes = Vec::new();
        store.write(&layer, &owned(), &mut bytes).unwrap();
        assert_eq!(bytes.len() as u64, layer.size);
        let mut archive = tar::Archive::new(bytes.as_slice());
        let entries: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let header = entry.header();
                format!(
                    "{} {:o} {}",
                    entry.path().unwrap().display(),
                    header.mode().unwrap(),
                    header.uid().unwrap()
                )
            })
            .collect();
        assert_eq!(
            entries,
            [
                "opt/ 755 0",
                "opt/venv/ 775 1000",
                "opt/venv/lib/ 775 1000",
                "opt/venv/lib/deep/ 775 1000",
                "opt/venv/lib/a.py 664 1000",
                "opt/venv/lib/deep/b.py 664 1000",
            ]
        );
        let other = tempfile::tempdir().unwrap();
        let others = Store::in_cache(other.path());
        kept(&others, "2", "opt/venv/lib/deep/b.py", "b = 1");
        kept(&others, "1", "opt/venv/lib/a.py", "a = 1");
        assert_eq!(others.layer(&segments, &owned()).unwrap(), layer);

        store.keep_layers("x", std::slice::from_ref(&layer)).unwrap();
        assert_eq!(store.layers("x"), Some(vec![layer.clone()]));
        // Changed, cut, gone.
        for spoil in [
            (|path: &Path| {
                let mut bytes = fs::read(path).unwrap();
                bytes[600] ^= 1;
                fs::write(path, bytes).unwrap();
            }) as fn(&Path),
            |path| File::options().write(true).open(path).unwrap().set_len(700).unwrap(),
            |path| fs::remove_file(path).unwrap(),
        ] {
            kept(&store, "1", "opt/venv/lib/a.py", "a = 1");
            assert_eq!(store.verify().unwrap(), Vec::<String>::new());
            spoil(&store.segment_file("1"));
            let error = store.write(&layer, &owned(), &mut io::sink()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
            assert_eq!((store.segment("1"), store.layers("x")), (None, None));
        }
        // A list that is cut hides files from those who look for two of one path.
        for list in ["", "opt/venv/lib/b.py\n", "\u{fffd}"] {
            kept(&store, "1", "opt/venv/lib/a.py", "a = 1");
            assert_eq!(store.paths("1").unwrap(), ["opt/venv/lib/a.py".to_owned()].into());
            fs::write(store.segment_file("1").with_extension("paths"), list).unwrap();
            assert_eq!(store.paths("1").unwrap_err().kind(), io::ErrorKind::InvalidData);
            assert_eq!(store.segment("1"), None);
        }
        kept(&store, "1", "opt/venv/lib/a.py", "a = 1");
        fs::write(store.segment_file("1").with_extension("paths"), "").unwrap();
        assert_eq!(store.verify().unwrap(), ["1"]);
        kept(&store, "1", "opt/venv/lib/a.py", "a = 1");
        fs::write(store.segment_file("1"), "other").unwrap();
        assert_eq!(store.verify().unwrap(), ["1"]);
        assert!(store.segment("2").is_some());
        assert!(store.prune(u64::MAX).unwrap() == 0 && store.prune(0).unwrap() > 0);
        assert_eq!(store.held().unwrap()["segments"].bytes, 0);
    }

    #[test]
    fn what_others_remove_or_make_meanwhile_is_left_to_them() {
        let cache = tempfile::tempdir().unwrap();
        let store = Store::in_cache(cache.path());
        let gone = cache.path().join("gone");
        assert!(remove(&gone).is_ok() && is_named_so(&gone, "0").unwrap());
        // A segment whose maker is between two of its files.
        kept(&store, "1", "opt/venv/lib/a.py", "a = 1");
        let head = store.segment_file("1").with_extension("json");
        let text = fs::read(&head).unwrap();
        fs::remove_file(&head).unwrap();
        let alone = store.alone("1").unwrap();
        let verifying = std::thread::spawn({
            let store = store.clone();
            move || store.verify().unwrap()
        });
        std::thread::sleep(Duration::from_millis(100));
        fs::write(&head, text).unwrap();
        drop(alone);
        assert_eq!(verifying.join().unwrap(), Vec::<String>::new());
        assert!(store.segment("1").is_some());
        // Several that clean up at once.
        for number in 0..200 {
            fs::create_dir_all(store.folder("blobs")).unwrap();
            fs::write(store.folder("blobs").join(number.to_string()), "x").unwrap();
        }
        std::thread::scope(|scope| {
            let cleaning: Vec<_> =
                (0..4).map(|_| scope.spawn(|| store.verify().and(store.prune(0)).map(drop))).collect();
            assert!(cleaning.into_iter().all(|cleaning| cleaning.join().unwrap().is_ok()));
        });
    }

    #[test]
    fn a_module_is_read_again_where_it_was_written() {
        let cache = tempfile::tempdir().unwrap();
        let store = Store::in_cache(cache.path());
        let mut segment = Unfinished::new(&store, &owned()).unwrap();
        for (path, content) in [("x/a.py", "1"), ("x/b.txt", "22"), ("x/c.py", &"3".repeat(1000))] {
            let is_module = !path.contains(".txt");
            let entry = Entry { path, size: content.len() as u64, is_program: false, is_module };
            segment.add(&entry, |out| out.write_all(content.as_bytes())).unwrap();
        }
        assert_eq!(segment.modules(), ["x/a.py", "x/c.py"]);
        assert_eq!(segment.source(0).unwrap(), b"1");
        assert_eq!(segment.source(1).unwrap(), "3".repeat(1000).as_bytes());
        let entry = Entry { path: "x/__pycache__/a.pyc", size: 1, ..Entry::default() };
        segment.add(&entry, |out| out.write_all(b"4")).unwrap();
        assert!(segment.add(&Entry { path: "x/a.py", ..Entry::default() }, |_| Ok(())).is_err());
    }
}
