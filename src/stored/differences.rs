//! Where a layer of an image and the same layer of what is built again differ, to the byte.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, Read};

use sha2::{Digest, Sha256};

use super::entries::{About, BLOCK, Entries, Entry, Kind, parts, read_over};
use super::error::Fault;
use super::files::{Content, File, Files, MOST_FILES, MOST_NAMES, OPAQUE, WHITEOUT};
use super::{CHUNK, Refusal, Stored, StoredError, StoredLayer};

/// The first thing that two layers have differently.
#[derive(Debug, Clone, PartialEq, Eq)]
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
            path => write!(f, "`/{}`: {}", path.escape_debug(), self.what),
        }
    }
}

/// An image beside what is built again, layer by layer.
#[derive(Debug)]
pub struct Comparison<'a> {
    image: &'a Stored,
    again: &'a Stored,
    /// The files of the image's layers below the one that is compared, as far as they were needed.
    below: Files,
}

impl<'a> Comparison<'a> {
    /// Of an image and what is built again.
    #[must_use]
    pub fn new(image: &'a Stored, again: &'a Stored) -> Self {
        Self { image, again, below: Files::none_of(image) }
    }

    /// The first difference of a layer, counted from 0, where those below are alike; `None` where it changes nothing.
    ///
    /// Engines were seen to write the layer of one and the same step in two ways: with what it touched and left as it was, and
    /// with opaque whiteouts in folders that are new, or without. So an entry that one of the layers has and the other has not
    /// makes no difference where it says once more what lies below, or hides nothing; when a folder was changed is not looked
    /// at there. All other entries have to be equal to the byte, in whatever order.
    ///
    /// # Errors
    ///
    /// [`StoredError`] of reading one of the layers, or those below.
    ///
    /// # Panics
    ///
    /// Where one of the images has no such layer.
    pub fn of_layer(&mut self, number: usize) -> Result<Option<FirstDifference>, StoredError> {
        let (image, again) = (&self.image.layers[number], &self.again.layers[number]);
        let ours = written(image).map_err(|fault| fault.in_image(&self.image.place))?;
        let theirs = written(again).map_err(|fault| fault.in_image(&self.again.place))?;
        let (in_ours, in_theirs) = (Paths::of(&ours), Paths::of(&theirs));
        for (paths, others, layer, what) in [
            (&in_ours, &in_theirs, image, "only in the image, and not in what is built again"),
            (&in_theirs, &in_ours, again, "not in the image, but in what is built again"),
        ] {
            let only: Vec<_> = paths.only(others).collect();
            if only.is_empty() {
                continue;
            }
            self.below.lay_lowest(number)?;
            if let Some(entry) = self.first_that_counts(&only, (paths, others), layer)? {
                return Ok(Some(told(&entry.path, what)));
            }
        }
        let compared = first_of_both((image, &ours, &in_ours), (again, &theirs, &in_theirs));
        compared.map_err(|error| Refusal::from(error).of(&image.digest).in_image(&self.image.place))
    }

    /// The first of these entries, which only one of the layers has, that changes something.
    fn first_that_counts<'e>(
        &self,
        only: &[&'e Written],
        (paths, others): (&Paths<'_>, &Paths<'_>),
        layer: &StoredLayer,
    ) -> Result<Option<&'e Written>, StoredError> {
        let mut files = Vec::new();
        for &entry in only {
            match self.repeated(entry, paths, others) {
                Some(Repeated::File(node)) => files.push((entry, node)),
                Some(Repeated::Other) => {}
                None => return Ok(Some(entry)),
            }
        }
        files.sort_by_key(|(entry, _)| entry.entry.at);
        let in_layer = digests(layer, files.iter().map(|(entry, _)| &entry.entry));
        let in_layer = in_layer.map_err(|error| self.below.refuse(error.into()))?;
        let (mut below, mut buffer) = (vec![[0; 32]; files.len()], vec![0; CHUNK]);
        let nodes = files.iter().map(|(_, node)| File { files: &self.below, node: *node });
        self.below.visit(nodes.enumerate(), |indexes, content| {
            let found = digest(content, &mut buffer)?;
            for &index in indexes {
                below[index] = found;
            }
            Ok(())
        })?;
        let other = in_layer.iter().zip(&below).position(|(one, other)| one != other);
        Ok(other.map(|at| files[at].0))
    }

    /// What an entry says once more that lies below; `None` where it says something else. A file's content is not compared.
    fn repeated(&self, written: &Written, paths: &Paths<'_>, others: &Paths<'_>) -> Option<Repeated> {
        let parts: Vec<&[u8]> = written.path.split(|&byte| byte == b'/').collect();
        let (name, folders) = parts.split_last()?;
        let folders_of = |count: usize| parts[..count].join(&b'/');
        let is_folder = |path: Vec<u8>| {
            paths.entries.get(path.as_slice()).is_some_and(|folder| folder.entry.kind == Kind::Folder)
        };
        // Without an entry of its own a folder becomes another one where something is in it.
        let is_told = !others.has_below(&written.path) && (1..parts.len()).map(folders_of).all(is_folder);
        if paths.is_twice || !written.entry.is_plain || !is_told {
            return None;
        }
        if *name == OPAQUE && !folders.is_empty() {
            let is_empty = |node: usize| match &self.below.nodes[node].content {
                Content::Folder(children) => children.is_empty(),
                _ => false,
            };
            return self.below.exact(folders).is_none_or(is_empty).then_some(Repeated::Other);
        }
        let is_hidden = (1..=parts.len()).map(folders_of).any(|path| paths.hidden.contains(&path))
            || (0..parts.len()).map(folders_of).any(|path| paths.opaque.contains(&path));
        let is_marker = parts.iter().any(|part| part.starts_with(WHITEOUT));
        if is_hidden || is_marker || paths.linked.contains(&written.path) {
            return None;
        }
        let number = self.below.exact(&parts)?;
        let node = &self.below.nodes[number];
        let said = other_about(&written.entry.about, &node.about, written.entry.kind == Kind::Folder);
        match (&written.entry.kind, &node.content) {
            _ if said.is_some() => None,
            (Kind::Folder, Content::Folder(_)) => Some(Repeated::Other),
            (Kind::File, Content::File { size, .. }) => {
                (*size == written.entry.size).then_some(Repeated::File(number))
            }
            (Kind::Link(target), Content::Link(other)) => (**target == **other).then_some(Repeated::Other),
            _ => None,
        }
    }
}

/// What an entry says once more.
enum Repeated {
    /// A regular file of the same size, by its node.
    File(usize),
    /// Something that has no content.
    Other,
}

/// An entry of a layer, and which bytes of its archive are its.
struct Written {
    entry: Entry,
    /// Its path from the root, without what says nothing.
    path: Vec<u8>,
    from: u64,
    to: u64,
}

/// The entries of a layer.
fn written(layer: &StoredLayer) -> Result<Vec<Written>, Fault> {
    let of_layer = |refusal: Refusal| refusal.of(&layer.digest);
    let mut entries = Entries::new(layer.tar(), read_over);
    let (mut all, mut from, mut text) = (Vec::new(), 0, 0);
    while let Some(entry) = entries.next().map_err(of_layer)? {
        let named = |refusal: Refusal| refusal.of(String::from_utf8_lossy(&entry.path));
        let path = parts(&entry.path).map_err(named)?.join(&b'/');
        let target = match &entry.kind {
            Kind::Link(target) | Kind::HardLink(target) => target.len(),
            _ => 0,
        };
        text += entry.path.len() + path.len() + target + entry.about.weight();
        if all.len() >= MOST_FILES || text > MOST_NAMES {
            return Err(of_layer(Refusal::Limit("2 000 000 files, or 256 MiB of names and attributes")));
        }
        let to = entry.at + entry.size.next_multiple_of(BLOCK as u64);
        all.push(Written { entry, path, from, to });
        from = to;
    }
    // What follows the archive's end is a part of the digest.
    io::copy(&mut entries.into_inner(), &mut io::sink()).map_err(|error| of_layer(error.into()))?;
    Ok(all)
}

/// What a layer has, and what it does to those below, by path.
#[derive(Default)]
struct Paths<'a> {
    entries: BTreeMap<&'a [u8], &'a Written>,
    /// Whether a path is there twice.
    is_twice: bool,
    /// What it hides of the layers below.
    hidden: BTreeSet<Vec<u8>>,
    /// The folders in which it hides all of them.
    opaque: BTreeSet<Vec<u8>>,
    /// What hard links lead to.
    linked: BTreeSet<Vec<u8>>,
}

impl<'a> Paths<'a> {
    fn of(all: &'a [Written]) -> Self {
        let mut paths = Self::default();
        for written in all {
            let (folder, name) = match written.path.iter().rposition(|&byte| byte == b'/') {
                Some(slash) => (&written.path[..slash], &written.path[slash + 1..]),
                None => (&written.path[..0], written.path.as_slice()),
            };
            if name == OPAQUE {
                paths.opaque.insert(folder.to_vec());
            } else if let Some(hidden) = name.strip_prefix(WHITEOUT) {
                let slash: &[u8] = if folder.is_empty() { b"" } else { b"/" };
                paths.hidden.insert([folder, slash, hidden].concat());
            }
            if let Kind::HardLink(target) = &written.entry.kind
                && let Ok(target) = parts(target)
            {
                paths.linked.insert(target.join(&b'/'));
            }
            paths.is_twice |= paths.entries.insert(&written.path, written).is_some();
        }
        paths
    }

    /// Whether it has something below a path.
    fn has_below(&self, path: &[u8]) -> bool {
        let inside = [path, b"/"].concat();
        let mut from = self.entries.range(inside.as_slice()..);
        from.next().is_some_and(|(path, _)| path.starts_with(&inside))
    }

    /// Whether readers may make something else of its entries in another order.
    fn has_order(&self) -> bool {
        let is_there = |path: &[u8]| self.entries.contains_key(path) || self.has_below(path);
        !self.linked.is_empty()
            || self.hidden.iter().any(|path| is_there(path))
            || self.entries.iter().any(|(path, one)| one.entry.kind != Kind::Folder && self.has_below(path))
    }

    /// What others have not.
    fn only(&self, others: &Self) -> impl Iterator<Item = &'a Written> {
        self.entries
            .iter()
            .filter(|(path, _)| !others.entries.contains_key(*path))
            .map(|(_, written)| *written)
    }
}

/// The archive of a layer, read from its beginning to its end.
struct Reader {
    tar: Box<dyn Read + Send>,
    at: u64,
    buffer: Vec<u8>,
}

impl Reader {
    fn of(layer: &StoredLayer) -> Self {
        Self { tar: layer.tar(), at: 0, buffer: vec![0; CHUNK] }
    }

    fn pass_to(&mut self, at: u64) -> io::Result<()> {
        let most = at - self.at;
        // The last block need not be filled.
        self.at += io::copy(&mut self.tar.by_ref().take(most), &mut io::sink())?;
        Ok(())
    }

    /// The digest of the next bytes, or of those that are left.
    fn digest(&mut self, most: u64) -> io::Result<[u8; 32]> {
        let mut bytes = self.tar.by_ref().take(most);
        let digest = digest(&mut bytes, &mut self.buffer)?;
        self.at += most - bytes.limit();
        Ok(digest)
    }

    fn piece(&mut self, most: u64, to: &mut Vec<u8>) -> io::Result<()> {
        to.clear();
        self.at += self.tar.by_ref().take(most).read_to_end(to)? as u64;
        Ok(())
    }
}

/// The first byte that differs of so many, counted from 0; `None` also where both end before.
fn first_byte(one: &mut Reader, other: &mut Reader, bytes: u64) -> io::Result<Option<u64>> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let mut done = 0;
    while done < bytes {
        let most = (bytes - done).min(CHUNK as u64);
        one.piece(most, &mut ours)?;
        other.piece(most, &mut theirs)?;
        if ours != theirs {
            let same = ours.iter().zip(&theirs).take_while(|(one, other)| one == other).count();
            return Ok(Some(done + same as u64));
        }
        if (ours.len() as u64) < most {
            break;
        }
        done += most;
    }
    Ok(None)
}

/// The digests of all that each entry takes, and of what follows the last.
fn of_spans(layer: &StoredLayer, entries: &[Written]) -> io::Result<(Vec<[u8; 32]>, [u8; 32])> {
    let mut reader = Reader::of(layer);
    let spans = entries.iter().map(|entry| reader.digest(entry.to - entry.from));
    Ok((spans.collect::<io::Result<_>>()?, reader.digest(u64::MAX)?))
}

/// The first difference of what both layers have, and of what follows their last entries.
fn first_of_both(
    (image, ours, in_ours): (&StoredLayer, &[Written], &Paths<'_>),
    (again, theirs, in_theirs): (&StoredLayer, &[Written], &Paths<'_>),
) -> io::Result<Option<FirstDifference>> {
    if in_ours.is_twice || in_theirs.is_twice {
        return Ok(Some(told_of_layer("a file is there twice")));
    }
    let ((spans, behind), (their_spans, their_behind)) = (of_spans(image, ours)?, of_spans(again, theirs)?);
    let by_path: BTreeMap<_, _> =
        theirs.iter().zip(&their_spans).map(|(entry, span)| (entry.path.as_slice(), (entry, span))).collect();
    for (our, span) in ours.iter().zip(&spans) {
        if let Some((their, their_span)) = by_path.get(our.path.as_slice())
            && span != *their_span
        {
            return first_of_entry((image, our), (again, their)).map(Some);
        }
    }
    let orders = [(ours, in_theirs), (theirs, in_ours)].map(|(entries, others)| {
        let paths = entries.iter().map(|entry| entry.path.as_slice());
        paths.filter(|path| others.entries.contains_key(path)).collect::<Vec<_>>()
    });
    if orders[0] != orders[1] && (in_ours.has_order() || in_theirs.has_order()) {
        return Ok(Some(told_of_layer("the same files, in another order")));
    }
    Ok((behind != their_behind).then(|| told_of_layer("something else follows its files")))
}

/// What differs of two entries of one path that are not equal.
fn first_of_entry(
    (image, our): (&StoredLayer, &Written),
    (again, their): (&StoredLayer, &Written),
) -> io::Result<FirstDifference> {
    if let Some(what) = other_entry(&our.entry, &their.entry) {
        return Ok(told(&our.path, what));
    }
    let (mut one, mut other) = (Reader::of(image), Reader::of(again));
    one.pass_to(our.entry.at)?;
    other.pass_to(their.entry.at)?;
    Ok(match first_byte(&mut one, &mut other, our.entry.size)? {
        Some(byte) => told(&our.path, format!("other content from byte {byte} on")),
        None => told(&our.path, "its header says something else, or something else follows it"),
    })
}

fn told(path: &[u8], what: impl Into<String>) -> FirstDifference {
    let path = if path.is_empty() { b".".as_slice() } else { path };
    FirstDifference { path: String::from_utf8_lossy(path).into_owned(), what: what.into() }
}

fn told_of_layer(what: impl Into<String>) -> FirstDifference {
    FirstDifference { path: String::new(), what: what.into() }
}

/// The digests of the contents of a layer's files, which come in their order there.
fn digests<'a>(layer: &StoredLayer, files: impl Iterator<Item = &'a Entry>) -> io::Result<Vec<[u8; 32]>> {
    let mut reader = Reader::of(layer);
    let mut digests = Vec::new();
    for file in files {
        reader.pass_to(file.at)?;
        digests.push(reader.digest(file.size)?);
    }
    Ok(digests)
}

fn digest(content: &mut dyn Read, buffer: &mut [u8]) -> io::Result<[u8; 32]> {
    let mut hash = Sha256::new();
    loop {
        match content.read(buffer)? {
            0 => return Ok(hash.finalize().into()),
            read => hash.update(&buffer[..read]),
        }
    }
}

/// What two entries of one path say otherwise.
fn other_entry(one: &Entry, other: &Entry) -> Option<String> {
    match (&one.kind, &other.kind) {
        (Kind::Link(one), Kind::Link(other)) | (Kind::HardLink(one), Kind::HardLink(other))
            if one != other =>
        {
            return Some("it links to something else".to_owned());
        }
        (Kind::Device(one), Kind::Device(other)) if one != other => {
            return Some("it is another device".to_owned());
        }
        (one, other) if noun(one) != noun(other) => return Some(format!("{} → {}", noun(one), noun(other))),
        _ => {}
    }
    let said = other_about(&one.about, &other.about, false);
    said.or_else(|| (one.size != other.size).then(|| format!("{} → {} bytes", one.size, other.size)))
}

fn noun(kind: &Kind) -> &'static str {
    match kind {
        Kind::Folder => "a folder",
        Kind::File => "a file",
        Kind::Link(_) => "a link",
        Kind::HardLink(_) => "a hard link",
        Kind::Device(_) => "a device or FIFO",
    }
}

/// What is said of two files otherwise, beside their content.
fn other_about(one: &About, other: &About, at_any_time: bool) -> Option<String> {
    if one.mode != other.mode {
        return Some(format!("mode {:o} → {:o}", one.mode, other.mode));
    }
    if (one.uid, one.gid) != (other.uid, other.gid) {
        return Some(format!("owner {}:{} → {}:{}", one.uid, one.gid, other.uid, other.gid));
    }
    if one.attributes != other.attributes {
        return Some("other extended attributes".to_owned());
    }
    let is_other_time = !at_any_time && one.time != other.time;
    is_other_time.then(|| format!("time {} → {}, in seconds since 1970", one.time, other.time))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;
    use serde_json::json;

    use super::super::{Place, digest_of};
    use super::*;
    use crate::archive::{Archive, Owner};

    /// An image with these layers.
    fn image(layers: &[Vec<u8>], is_packed: bool) -> Stored {
        let digests: Vec<_> = layers.iter().map(|layer| digest_of(Sha256::new_with_prefix(layer))).collect();
        let config = json!({
            "os": "linux", "architecture": "amd64", "rootfs": { "type": "layers", "diff_ids": digests },
        });
        let mut image = Archive::default();
        image.add("c.json", config.to_string());
        let names: Vec<_> = (0..layers.len()).map(|number| format!("{number}/layer.tar")).collect();
        for (name, layer) in names.iter().zip(layers) {
            let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            packed.write_all(layer).unwrap();
            image.add(name, if is_packed { packed.finish().unwrap() } else { layer.clone() });
        }
        image.add("manifest.json", json!([{ "Config": "c.json", "Layers": names }]).to_string());
        let mut file = tempfile::NamedTempFile::new().unwrap();
        image.write_to(&mut file).unwrap();
        file.flush().unwrap();
        Stored::open(&Place::DockerArchive { file: file.path().to_owned(), name: None }, None).unwrap()
    }

    fn layer(make: impl FnOnce(&mut Archive)) -> Vec<u8> {
        let mut layer = Archive::default();
        make(&mut layer);
        as_engines_write(layer.to_tar().unwrap())
    }

    /// An archive with headers of POSIX in place of GNU's.
    fn as_engines_write(mut tar: Vec<u8>) -> Vec<u8> {
        let mut at = 0;
        while tar[at] != 0 {
            let header = tar::Header::from_byte_slice(&tar[at..at + BLOCK]);
            let content = usize::try_from(header.size().unwrap()).unwrap();
            let mut header = header.clone();
            header.as_mut_bytes()[257..265].copy_from_slice(b"ustar\x0000");
            header.set_cksum();
            tar[at..at + BLOCK].copy_from_slice(header.as_bytes());
            at += BLOCK + content.next_multiple_of(BLOCK);
        }
        tar
    }

    /// The first difference of two images, of which one is packed.
    fn told(one: &[Vec<u8>], other: &[Vec<u8>]) -> Option<String> {
        let (one, other) = (image(one, false), image(other, true));
        let mut comparison = Comparison::new(&one, &other);
        let differ = (0..one.layers.len()).filter(|&at| one.layers[at].diff_id != other.layers[at].diff_id);
        let mut found = differ.filter_map(|number| comparison.of_layer(number).unwrap());
        found.next().map(|difference| difference.to_string())
    }

    #[test]
    fn the_first_difference_is_told_by_file_and_byte() {
        let with = |change: &dyn Fn(&mut Archive)| {
            [layer(|layer| {
                layer.add("etc/a", "first");
                layer.add("etc/b", "second");
                layer.add("etc/large", vec![7; 200_000]);
                layer.add_link("etc/link", "a");
                change(layer);
            })]
        };
        let plain = with(&|_| {});
        assert_eq!(told(&plain, &plain), None);
        let mut large = vec![7; 200_000];
        large[150_001] = 8;
        for (change, what) in [
            (
                (&|layer: &mut Archive| layer.add("etc/b", "secOnd")) as &dyn Fn(&mut Archive),
                "`/etc/b`: other content from byte 3 on",
            ),
            (
                &|layer| layer.add("etc/large", large.clone()),
                "`/etc/large`: other content from byte 150001 on",
            ),
            (&|layer| layer.add("etc/b", "longer text"), "`/etc/b`: 6 → 11 bytes"),
            (&|layer| layer.add_program("etc/a", "first"), "`/etc/a`: mode 644 → 755"),
            (&|layer| layer.add_link("etc/b", "a"), "`/etc/b`: a file → a link"),
            (&|layer| layer.add_link("etc/link", "b"), "`/etc/link`: it links to something else"),
            (&|layer| layer.add("etc/c", ""), "`/etc/c`: not in the image, but in what is built again"),
            (&|layer| layer.add_directory("etc", 0o755, Owner { uid: 7, gid: 7 }), "`/etc`: owner 0:0 → 7:7"),
        ] {
            assert_eq!(told(&plain, &with(change)).as_deref(), Some(what));
        }
        let fewer = [layer(|layer| layer.add("etc/a", "first"))];
        let what = "`/etc/b`: only in the image, and not in what is built again";
        assert_eq!(told(&plain, &fewer).as_deref(), Some(what));
    }

    /// Kind, path, where it leads, permissions, time, what extends it.
    type Line<'a> = (u8, &'a str, &'a str, u32, u64, &'a [(&'a str, &'a [u8])]);

    fn tar(entries: &[Line<'_>]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (kind, path, target, mode, time, extension) in entries {
            if !extension.is_empty() {
                tar.append_pax_extensions(extension.iter().copied()).unwrap();
            }
            let mut header = tar::Header::new_ustar();
            header.set_entry_type(tar::EntryType::new(*kind));
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
            header.set_mode(*mode);
            header.set_mtime(*time);
            header.set_uid(0);
            header.set_gid(0);
            header.set_size(0);
            header.set_cksum();
            tar.append(&header, io::empty()).unwrap();
        }
        tar.into_inner().unwrap()
    }

    #[test]
    fn attributes_devices_times_and_headers_differ_too() {
        let with = |capability: &[u8], target: &str, time: u64| {
            [tar(&[
                (b'0', "ping", "", 0o755, 0, &[("SCHILY.xattr.security.capability", capability)]),
                (b'3', "tty", "", 0o600, 0, &[]),
                (b'1', "hard", target, 0o755, 0, &[]),
                (b'0', "late", "", 0o644, time, &[]),
            ])]
        };
        let plain = with(b"x", "ping", 5);
        for (other, what) in [
            (with(b"y", "ping", 5), "`/ping`: other extended attributes"),
            (with(b"x", "tty", 5), "`/hard`: it links to something else"),
            (with(b"x", "ping", 6), "`/late`: time 5 → 6, in seconds since 1970"),
        ] {
            assert_eq!(told(&plain, &other).as_deref(), Some(what));
        }
        let mut behind = plain.clone();
        behind[0].extend([1; BLOCK]);
        assert_eq!(told(&plain, &behind).as_deref(), Some("something else follows its files"));
        let line = |path, mode| (b'0', path, "", mode, 0, &[][..]);
        let ordered = [tar(&[line("a", 0o644), line("b", 0o644)])];
        assert_eq!(told(&ordered, &[tar(&[line("b", 0o644), line("a", 0o644)])]), None);
        for entries in [
            [line("a", 0o644), (b'1', "b", "a", 0o644, 0, &[])],
            [line("a", 0o644), line(".wh.a", 0o644)],
            [(b'2', "a", "b", 0o777, 0, &[]), line("a/c", 0o644)],
        ] {
            let (first, second) = ([tar(&entries)], [tar(&[entries[1], entries[0]])]);
            assert_eq!(told(&first, &second).as_deref(), Some("the same files, in another order"));
        }
        let owned = [tar(&[(b'0', "a", "", 0o644, 0, &[("uname", b"ada")]), (b'0', "b", "", 0o644, 0, &[])])];
        assert_eq!(
            told(&ordered, &owned).as_deref(),
            Some("`/a`: its header says something else, or something else follows it")
        );
    }

    /// A layer with something below it.
    fn over(upper: impl FnOnce(&mut Archive)) -> [Vec<u8>; 2] {
        let below = layer(|layer| {
            layer.add("old/a", "1");
            layer.add("old/b", "2");
            layer.add("old/deep/c", "3");
            layer.add_link("old/link", "deep");
        });
        [below, layer(upper)]
    }

    #[test]
    fn what_says_once_more_what_lies_below_makes_no_difference() {
        let files = |more: &[(&str, &str)]| {
            over(|layer| {
                for (path, text) in [("new/d", "4"), ("old/e", "5")].iter().chain(more) {
                    layer.add(path, *text);
                }
            })
        };
        let plain = files(&[]);
        for same in [
            &[("new/.wh..wh..opq", "")][..],
            &[("old/b", "2")],
            &[("old/deep/c", "3"), ("new/.wh..wh..opq", ""), ("old/a", "1")],
        ] {
            assert_eq!((told(&plain, &files(same)), told(&files(same), &plain)), (None, None), "{same:?}");
        }
        for (other, path) in [
            (&[("old/.wh..wh..opq", "")][..], "old/.wh..wh..opq"),
            (&[("old/b", "3")], "old/b"),
            (&[("old/.wh.b", "")], "old/.wh.b"),
            (&[("old/f", "2")], "old/f"),
            // It makes a folder of a link.
            (&[("old/link/c", "3")], "old/link"),
        ] {
            let what = format!("`/{path}`: not in the image, but in what is built again");
            assert_eq!(told(&plain, &files(other)), Some(what));
        }
        // What is told is what is otherwise, and not a marker that hides nothing.
        let other = over(|layer| {
            layer.add("new/d", "6");
            layer.add("new/.wh..wh..opq", "");
            layer.add("old/e", "5");
        });
        assert_eq!(told(&plain, &other).as_deref(), Some("`/new/d`: other content from byte 0 on"));
        let linked = |more: bool| {
            over(|layer| {
                layer.add("old/e", "5");
                if more {
                    layer.add_link("old/link", "deep");
                    layer.add_directory("old/deep", 0o755, Owner { uid: 0, gid: 0 });
                }
            })
        };
        assert_eq!(told(&linked(false), &linked(true)), None);
    }

    #[test]
    fn what_would_change_something_else_counts() {
        let below = tar(&[(b'5', "bin/", "", 0o755, 0, &[]), (b'0', "bin/sh", "", 0o755, 0, &[])]);
        let folder = (b'5', "bin/", "", 0o755, 0, &[][..]);
        let (again, other) =
            ((b'0', "bin/sh", "", 0o755, 0, &[][..]), (b'0', "bin/x", "", 0o755, 0, &[][..]));
        let hard = (b'1', "bin/hard", "bin/sh", 0o755, 0, &[][..]);
        let gone = (b'0', "bin/.wh.sh", "", 0o644, 0, &[][..]);
        let layered = |upper: &[_]| [below.clone(), tar(upper)];
        assert_eq!(told(&layered(&[folder, other]), &layered(&[folder, other, again])), None);
        for (plain, more) in [
            // The link's permissions become those of what it leads to.
            (vec![folder, hard], vec![folder, again, hard]),
            (vec![folder, gone], vec![folder, gone, again]),
            (vec![folder, other], vec![folder, other, again, again]),
            // Without its own entry the folder is made anew.
            (vec![other], vec![other, again]),
            // Not all readers need understand it.
            (vec![folder, other], vec![folder, other, (b'0', "bin/sh", "", 0o755, 0, &[("comment", b"x")])]),
        ] {
            let what = "`/bin/sh`: not in the image, but in what is built again";
            assert_eq!(told(&layered(&plain), &layered(&more)).as_deref(), Some(what), "{more:?}");
        }
        let what = "`/bin`: not in the image, but in what is built again";
        assert_eq!(told(&layered(&[other]), &layered(&[folder, other])).as_deref(), Some(what));
        let twice = [(b'0', "a", "", 0o4755, 0, &[][..]), (b'0', "a", "", 0o755, 0, &[])];
        let what = "a file is there twice";
        assert_eq!(told(&layered(&twice), &layered(&twice[1..])).as_deref(), Some(what));
    }

    proptest! {
        /// Whatever is repeated of the layers below makes no difference, and whatever else is there makes one.
        #[test]
        fn repetitions_alone_make_no_difference(
            below in prop::collection::btree_map("[ab]/[cd]", "[xy]{0,2}", 1..4),
            upper in prop::collection::btree_map("[ab]/[ef]", "[xy]{0,2}", 1..4),
            repeated in prop::collection::vec(any::<bool>(), 4),
            changed in any::<bool>(),
        ) {
            let lower = layer(|layer| below.iter().for_each(|(path, text)| layer.add(path, text.clone())));
            let plain = layer(|layer| upper.iter().for_each(|(path, text)| layer.add(path, text.clone())));
            let is_folder = |path: &str| upper.keys().any(|other| other.starts_with(&path[..2]));
            let mut is_changed = false;
            let more = layer(|layer| {
                for (path, text) in &upper {
                    layer.add(path, text.clone());
                }
                for ((path, text), repeated) in below.iter().zip(&repeated) {
                    if *repeated && is_folder(path) {
                        is_changed |= changed;
                        layer.add(path, if changed { format!("{text}z") } else { text.clone() });
                    }
                }
            });
            let (plain, more) = ([lower.clone(), plain], [lower, more]);
            prop_assert_eq!(told(&plain, &more).is_some(), is_changed);
            prop_assert_eq!(told(&more, &plain).is_some(), is_changed);
        }
    }
}
