//! Where two images differ, to the byte.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use flate2::read::GzDecoder;
use serde::{Deserialize, Serialize};

/// The first thing that two layers have differently.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FirstDifference {
    /// Its path in the layer; empty where it is about the layer itself.
    pub path: String,
    /// What differs of it.
    pub what: String,
}

impl fmt::Display for FirstDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.as_str() {
            "" => f.write_str(&self.what),
            path => write!(f, "`/{path}`: {}", self.what),
        }
    }
}

/// An image as `docker save` writes it.
pub struct Saved {
    file: File,
    /// Its layers, the lowest first: where each begins, and its length.
    layers: Vec<(u64, u64)>,
}

/// What `manifest.json` of a saved image says.
///
/// Rule: Docker image specification 1.2, "Combined Image JSON + Filesystem Changeset Format".
#[derive(Deserialize)]
struct Manifest {
    #[serde(rename = "Layers")]
    layers: Vec<String>,
}

/// A file of a layer.
struct Entry {
    kind: tar::EntryType,
    mode: u32,
    owner: (u64, u64),
    time: u64,
    link: Vec<u8>,
    at: u64,
    size: u64,
}

impl Saved {
    /// Reads which layers a saved image has.
    ///
    /// # Errors
    ///
    /// Of reading, and where it is no saved image.
    pub fn read(mut file: File) -> io::Result<Self> {
        file.rewind()?;
        let mut places = BTreeMap::new();
        let mut manifest = None;
        for entry in tar::Archive::new(&file).entries_with_seek()? {
            let mut entry = entry?;
            let path = entry.path()?.to_string_lossy().into_owned();
            if path == "manifest.json" {
                let mut text = String::new();
                entry.by_ref().take(1 << 24).read_to_string(&mut text)?;
                manifest = serde_json::from_str::<Vec<Manifest>>(&text)?.into_iter().next();
            }
            let target = entry.link_name()?.map(|target| target.to_string_lossy().into_owned());
            places.insert(path, (entry.raw_file_position(), entry.size(), target));
        }
        let missing = || io::Error::other("it is no saved image");
        let place = |name: &String| {
            let (at, size, target) = places.get(name)?;
            // A layer that is there twice is a link to the other.
            match target.as_deref().map(|target| target.trim_start_matches("../")) {
                Some(target) => places.get(target).map(|(at, size, _)| (*at, *size)),
                None => Some((*at, *size)),
            }
        };
        let layers = manifest.ok_or_else(missing)?.layers;
        let layers = layers.iter().map(place).collect::<Option<_>>().ok_or_else(missing)?;
        Ok(Self { file, layers })
    }

    /// The tar archive of a layer, counted from 0.
    fn layer(&mut self, number: usize) -> io::Result<File> {
        let (at, size) = *self.layers.get(number).ok_or(io::ErrorKind::UnexpectedEof)?;
        self.file.seek(SeekFrom::Start(at))?;
        let mut head = [0; 2];
        self.file.read_exact(&mut head)?;
        self.file.seek(SeekFrom::Start(at))?;
        let mut layer = tempfile::tempfile()?;
        let mut packed = (&self.file).take(size);
        if head == [0x1f, 0x8b] {
            io::copy(&mut GzDecoder::new(packed), &mut layer)?;
        } else {
            io::copy(&mut packed, &mut layer)?;
        }
        Ok(layer)
    }
}

/// What in a folder says that layers below have nothing there.
///
/// Rule: OCI image specification, "Image Layer Filesystem Changeset", Opaque Whiteout.
const OPAQUE: &str = ".wh..wh..opq";

/// Whether two layers, counted from 0, are one but for opaque whiteouts that hide nothing: overlay file systems leave them in
/// folders that are new, and engines were seen to write them for a step, and not for the same step done again.
///
/// # Errors
///
/// Of reading either.
pub fn are_alike(one: &mut Saved, other: &mut Saved, number: usize) -> io::Result<bool> {
    let (ours, theirs) = (entries(&mut one.layer(number)?)?, entries(&mut other.layer(number)?)?);
    let markers = |entries: &[(String, Entry)]| -> BTreeSet<String> {
        entries.iter().filter_map(|(path, _)| path.strip_suffix(OPAQUE).map(str::to_owned)).collect()
    };
    let folders: BTreeSet<String> = markers(&ours).symmetric_difference(&markers(&theirs)).cloned().collect();
    for below in 0..if folders.is_empty() { 0 } else { number } {
        for (path, _) in entries(&mut one.layer(below)?)? {
            if folders.iter().any(|folder| format!("{path}/").starts_with(folder.as_str())) {
                return Ok(false);
            }
        }
    }
    Ok(!folders.is_empty() && first_difference(one, other, number, &folders)?.is_none())
}

/// The first difference of a layer of two images, counted from 0; `None` where there is none. Opaque whiteouts in `but` folders
/// are none.
///
/// # Errors
///
/// Of reading either.
pub fn first_difference(
    one: &mut Saved,
    other: &mut Saved,
    number: usize,
    but: &BTreeSet<String>,
) -> io::Result<Option<FirstDifference>> {
    let (mut one, mut other) = (one.layer(number)?, other.layer(number)?);
    let (mut entries, mut theirs) = (entries(&mut one)?, entries(&mut other)?);
    for entries in [&mut entries, &mut theirs] {
        entries.retain(|(path, _)| path.strip_suffix(OPAQUE).is_none_or(|folder| !but.contains(folder)));
    }
    let told = |path: &str, what: String| Some(FirstDifference { path: path.to_owned(), what });
    let by_path: HashMap<&str, &Entry> = theirs.iter().map(|(path, entry)| (path.as_str(), entry)).collect();
    for (path, entry) in &entries {
        let Some(their) = by_path.get(path.as_str()) else {
            return Ok(told(path, "only in the image, and not in what is built again".to_owned()));
        };
        if let Some(what) = differs(entry, their) {
            return Ok(told(path, what));
        }
        if let Some(byte) = first_byte(&mut one, &mut other, (entry.at, their.at), entry.size)? {
            return Ok(told(path, format!("other content from byte {byte} on")));
        }
    }
    let ours: HashSet<&str> = entries.iter().map(|(path, _)| path.as_str()).collect();
    if let Some((path, _)) = theirs.iter().find(|(path, _)| !ours.contains(path.as_str())) {
        return Ok(told(path, "not in the image, but in what is built again".to_owned()));
    }
    let order =
        |entries: &[(String, Entry)]| entries.iter().map(|(path, _)| path.clone()).collect::<Vec<_>>();
    Ok(if order(&entries) == order(&theirs) {
        None
    } else {
        told("", "the same files, in another order".to_owned())
    })
}

fn entries(layer: &mut File) -> io::Result<Vec<(String, Entry)>> {
    layer.rewind()?;
    let mut entries = Vec::new();
    for entry in tar::Archive::new(&*layer).entries_with_seek()? {
        let entry = entry?;
        let header = entry.header();
        let told = Entry {
            kind: header.entry_type(),
            mode: header.mode()?,
            owner: (header.uid()?, header.gid()?),
            time: header.mtime()?,
            link: entry.link_name_bytes().unwrap_or_default().into_owned(),
            at: entry.raw_file_position(),
            size: entry.size(),
        };
        entries.push((entry.path()?.to_string_lossy().into_owned(), told));
    }
    Ok(entries)
}

/// What the two say of a file otherwise, before its content.
fn differs(one: &Entry, other: &Entry) -> Option<String> {
    if one.kind != other.kind {
        return Some(format!("another kind of file, {:?} → {:?}", one.kind, other.kind));
    }
    if one.mode != other.mode {
        return Some(format!("mode {:o} → {:o}", one.mode, other.mode));
    }
    if one.owner != other.owner {
        return Some(format!("owner {}:{} → {}:{}", one.owner.0, one.owner.1, other.owner.0, other.owner.1));
    }
    if one.link != other.link {
        return Some("it links to something else".to_owned());
    }
    if one.size != other.size {
        return Some(format!("{} → {} bytes", one.size, other.size));
    }
    (one.time != other.time).then(|| format!("time {} → {}, in seconds since 1970", one.time, other.time))
}

/// The first byte that differs, counted from 0, where the two begin.
fn first_byte(one: &mut File, other: &mut File, at: (u64, u64), size: u64) -> io::Result<Option<u64>> {
    one.seek(SeekFrom::Start(at.0))?;
    other.seek(SeekFrom::Start(at.1))?;
    let (mut ours, mut theirs) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut done = 0;
    while done < size {
        let most = usize::try_from(size - done).unwrap_or(usize::MAX).min(ours.len());
        one.read_exact(&mut ours[..most])?;
        other.read_exact(&mut theirs[..most])?;
        if let Some(at) = ours[..most].iter().zip(&theirs[..most]).position(|(one, other)| one != other) {
            return Ok(Some(done + at as u64));
        }
        done += most as u64;
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::archive::{Archive, Owner};

    /// A saved image of one layer, with these changes to it.
    fn saved(change: impl FnOnce(&mut Archive), packed: bool) -> Saved {
        let mut layer = Archive::default();
        layer.add("etc/a", "first");
        layer.add("etc/b", "second");
        change(&mut layer);
        let mut bytes = layer.to_tar().unwrap();
        if packed {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(&bytes).unwrap();
            bytes = encoder.finish().unwrap();
        }
        let mut image = Archive::default();
        image.add("1/layer.tar", bytes);
        image.add("manifest.json", r#"[{"Config":"x.json","RepoTags":[],"Layers":["1/layer.tar"]}]"#);
        let mut file = tempfile::tempfile().unwrap();
        image.write_to(&mut file).unwrap();
        Saved::read(file).unwrap()
    }

    #[test]
    fn the_first_difference_is_told_by_file_and_byte() {
        let told = |change: &dyn Fn(&mut Archive)| {
            let difference = first_difference(
                &mut saved(|_| {}, false),
                &mut saved(|layer| change(layer), true),
                0,
                &BTreeSet::new(),
            )
            .unwrap();
            difference.map(|difference| difference.to_string())
        };
        assert_eq!(told(&|_| {}), None);
        for (change, what) in [
            (
                (&|layer: &mut Archive| layer.add("etc/b", "secOnd")) as &dyn Fn(&mut Archive),
                "`/etc/b`: other content from byte 3 on",
            ),
            (&|layer| layer.add("etc/b", "longer text"), "`/etc/b`: 6 → 11 bytes"),
            (&|layer| layer.add_program("etc/a", "first"), "`/etc/a`: mode 644 → 755"),
            (&|layer| layer.add("etc/c", ""), "`/etc/c`: not in the image, but in what is built again"),
            (
                &|layer| layer.add_directory("etc", 0o755, Owner { uid: 7, gid: 7 }),
                "`/etc/`: owner 0:0 → 7:7",
            ),
        ] {
            assert_eq!(told(change).as_deref(), Some(what));
        }
        assert!(
            first_difference(&mut saved(|_| {}, false), &mut saved(|_| {}, false), 1, &BTreeSet::new())
                .is_err()
        );
    }

    #[test]
    fn opaque_whiteouts_that_hide_nothing_make_no_difference() {
        let layered = |upper: &[(&str, &str)]| {
            let mut image = Archive::default();
            for (number, files) in [&[("old/a", "1")][..], upper].into_iter().enumerate() {
                let mut layer = Archive::default();
                for (path, text) in files {
                    layer.add(path, *text);
                }
                image.add(&format!("{number}/layer.tar"), layer.to_tar().unwrap());
            }
            let layers = r#"["0/layer.tar","1/layer.tar"]"#;
            let manifest = format!(r#"[{{"Config":"x.json","RepoTags":[],"Layers":{layers}}}]"#);
            image.add("manifest.json", manifest);
            let mut file = tempfile::tempfile().unwrap();
            image.write_to(&mut file).unwrap();
            Saved::read(file).unwrap()
        };
        let alike = |one: &[(&str, &str)], other: &[(&str, &str)]| {
            let found = [(one, other), (other, one)]
                .map(|(one, other)| are_alike(&mut layered(one), &mut layered(other), 1).unwrap());
            assert_eq!(found[0], found[1]);
            found[0]
        };
        let plain = [("new/b", "2"), ("old/c", "3")];
        let with = |marker| [plain[0], (marker, ""), plain[1]];
        assert!(alike(&plain, &with("new/.wh..wh..opq")));
        assert!(!alike(&plain, &with("old/.wh..wh..opq")), "it hides what lies below");
        assert!(!alike(&plain, &with("new/.wh.x")));
        assert!(!alike(&plain, &[("new/b", "4"), ("new/.wh..wh..opq", ""), plain[1]]));
        assert!(!alike(&plain, &plain), "bytes of theirs differ that nobody has found");
    }
}
