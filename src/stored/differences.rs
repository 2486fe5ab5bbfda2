//! Where the files of two images differ, to the byte.

use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, Read};

use sha2::{Digest, Sha256};

use super::entries::About;
use super::files::{Content, File, Files, ROOT};
use super::{CHUNK, StoredError};

/// The first thing that two images have differently.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirstDifference {
    /// Its path.
    pub path: String,
    /// What differs of it.
    pub what: String,
}

impl fmt::Display for FirstDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}", self.path.escape_debug(), self.what)
    }
}

/// The largest file that is searched for its first other byte, in bytes.
const MOST_SEARCHED: u64 = 1 << 26;

impl Files {
    /// The first file, by its path, that an image and what is built again have differently; `None` where a container sees the
    /// same. It is what layers make that counts, and not how: engines were seen to write for one and the same step a layer that
    /// has files which it does not change, and one without them. When a folder was changed is one of these things.
    ///
    /// # Errors
    ///
    /// [`StoredError`] of reading either.
    pub fn first_difference(&self, again: &Self) -> Result<Option<FirstDifference>, StoredError> {
        let mut same_size = Vec::new();
        let found = self.until_difference(again, &mut same_size);
        let (ours, theirs): (Vec<_>, Vec<_>) = same_size
            .iter()
            .map(|&(ours, theirs)| (File { files: self, node: ours }, File { files: again, node: theirs }))
            .unzip();
        let digests = (self.digests(&ours)?, again.digests(&theirs)?);
        match digests.0.iter().zip(&digests.1).position(|(ours, theirs)| ours != theirs) {
            Some(at) => Ok(Some(FirstDifference {
                path: ours[at].path(),
                what: match first_byte(&self.content(ours[at])?, &again.content(theirs[at])?) {
                    Some(byte) => format!("other content from byte {byte} on"),
                    None => "other content".to_owned(),
                },
            })),
            None => Ok(found),
        }
    }

    /// The first difference that is none of content, and the files before it whose content may differ, in the order of their
    /// paths.
    fn until_difference(&self, again: &Self, same_size: &mut Vec<(usize, usize)>) -> Option<FirstDifference> {
        let mut open = vec![(Some(ROOT), Some(ROOT))];
        while let Some(pair) = open.pop() {
            let told = |files, node, what| Some(FirstDifference { path: File { files, node }.path(), what });
            let (ours, theirs) = match pair {
                (Some(ours), Some(theirs)) => (ours, theirs),
                (Some(node), None) => {
                    return told(self, node, "only in the image, and not in what is built again".to_owned());
                }
                (None, Some(node)) => {
                    return told(again, node, "not in the image, but in what is built again".to_owned());
                }
                (None, None) => continue,
            };
            let (one, other) = (&self.nodes[ours], &again.nodes[theirs]);
            if let Some(what) = other_content(&one.content, &other.content)
                .or_else(|| said(&one.about, &other.about, matches!(one.content, Content::Folder(_))))
            {
                return told(self, ours, what);
            }
            match (&one.content, &other.content) {
                (Content::Folder(children), Content::Folder(others)) => {
                    let names: BTreeSet<_> = children.keys().chain(others.keys()).collect();
                    let pair = |name| (children.get(name).copied(), others.get(name).copied());
                    open.extend(names.into_iter().rev().map(|name| pair(name.as_ref())));
                }
                (Content::File { layer, at, .. }, Content::File { layer: their, at: there, .. }) => {
                    let is_same_layer = self.layers[*layer].diff_id == again.layers[*their].diff_id;
                    if !(is_same_layer && at == there) {
                        same_size.push((ours, theirs));
                    }
                }
                _ => {}
            }
        }
        None
    }

    fn digests(&self, files: &[File<'_>]) -> Result<Vec<[u8; 32]>, StoredError> {
        let mut digests = vec![[0; 32]; files.len()];
        self.visit(files.iter().copied().enumerate(), |indexes, content| {
            let digest = digest(content)?;
            for &index in indexes {
                digests[index] = digest;
            }
            Ok(())
        })?;
        Ok(digests)
    }

    /// The content of a file; nothing where that is large.
    fn content(&self, file: File<'_>) -> Result<Vec<u8>, StoredError> {
        let mut bytes = Vec::new();
        self.visit([(0, file)], |_, content| {
            content.take(MOST_SEARCHED + 1).read_to_end(&mut bytes).map(drop)
        })?;
        bytes.truncate(if bytes.len() as u64 > MOST_SEARCHED { 0 } else { bytes.len() });
        Ok(bytes)
    }
}

fn digest(content: &mut dyn Read) -> io::Result<[u8; 32]> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; CHUNK];
    loop {
        match content.read(&mut buffer)? {
            0 => return Ok(hash.finalize().into()),
            read => hash.update(&buffer[..read]),
        }
    }
}

/// The first byte that differs, counted from 0.
fn first_byte(one: &[u8], other: &[u8]) -> Option<usize> {
    one.iter().zip(other).position(|(one, other)| one != other)
}

/// What two files have differently, but for the content of regular ones of one size.
fn other_content(one: &Content, other: &Content) -> Option<String> {
    match (one, other) {
        (Content::Folder(_), Content::Folder(_)) => None,
        (Content::File { size, .. }, Content::File { size: other, .. }) => {
            (size != other).then(|| format!("{size} → {other} bytes"))
        }
        (Content::Link(one), Content::Link(other)) => {
            (one != other).then(|| "it links to something else".to_owned())
        }
        (Content::Device(one), Content::Device(other)) => {
            (one != other).then(|| "it is another device".to_owned())
        }
        _ => Some(format!("{} → {}", noun(one), noun(other))),
    }
}

fn noun(content: &Content) -> &'static str {
    match content {
        Content::Folder(_) => "a folder",
        Content::File { .. } => "a file",
        Content::Link(_) => "a link",
        Content::Device(_) => "a device or FIFO",
    }
}

/// What is said of two files otherwise, beside their content.
fn said(one: &About, other: &About, is_folder: bool) -> Option<String> {
    if one.mode != other.mode {
        return Some(format!("mode {:o} → {:o}", one.mode, other.mode));
    }
    if (one.uid, one.gid) != (other.uid, other.gid) {
        return Some(format!("owner {}:{} → {}:{}", one.uid, one.gid, other.uid, other.gid));
    }
    if one.attributes != other.attributes {
        return Some("other extended attributes".to_owned());
    }
    let is_other_time = !is_folder && one.time != other.time;
    is_other_time.then(|| format!("time {} → {}, in seconds since 1970", one.time, other.time))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Write;

    use proptest::prelude::*;
    use serde_json::json;

    use super::super::{Place, Stored, digest_of};
    use super::*;
    use crate::archive::{Archive, Owner};

    /// The files of an image with these layers.
    fn files(layers: &[Vec<u8>]) -> Files {
        let digests: Vec<_> = layers.iter().map(|layer| digest_of(Sha256::new_with_prefix(layer))).collect();
        let config = json!({
            "os": "linux", "architecture": "amd64", "rootfs": { "type": "layers", "diff_ids": digests },
        });
        let mut image = Archive::default();
        image.add("c.json", config.to_string());
        let names: Vec<_> = (0..layers.len()).map(|number| format!("{number}/layer.tar")).collect();
        for (name, layer) in names.iter().zip(layers) {
            image.add(name, layer.clone());
        }
        image.add("manifest.json", json!([{ "Config": "c.json", "Layers": names }]).to_string());
        let mut file = tempfile::NamedTempFile::new().unwrap();
        image.write_to(&mut file).unwrap();
        file.flush().unwrap();
        let place = Place::DockerArchive { file: file.path().to_owned(), name: None };
        Files::of(&Stored::open(&place, None).unwrap()).unwrap()
    }

    fn layer(make: impl FnOnce(&mut Archive)) -> Vec<u8> {
        let mut layer = Archive::default();
        make(&mut layer);
        layer.to_tar().unwrap()
    }

    fn told(one: &[Vec<u8>], other: &[Vec<u8>]) -> Option<String> {
        files(one).first_difference(&files(other)).unwrap().map(|difference| difference.to_string())
    }

    #[test]
    fn the_first_difference_is_told_by_file_and_byte() {
        let with = |change: &dyn Fn(&mut Archive)| {
            layer(|layer| {
                layer.add("etc/a", "first");
                layer.add("etc/b", "second");
                layer.add_link("etc/link", "a");
                change(layer);
            })
        };
        let plain = [with(&|_| {})];
        assert_eq!(told(&plain, &plain), None);
        for (change, what) in [
            (
                (&|layer: &mut Archive| layer.add("etc/b", "secOnd")) as &dyn Fn(&mut Archive),
                "`/etc/b`: other content from byte 3 on",
            ),
            (&|layer| layer.add("etc/b", "longer text"), "`/etc/b`: 6 → 11 bytes"),
            (&|layer| layer.add_program("etc/a", "first"), "`/etc/a`: mode 644 → 755"),
            (&|layer| layer.add_link("etc/b", "a"), "`/etc/b`: a file → a link"),
            (&|layer| layer.add_link("etc/link", "b"), "`/etc/link`: it links to something else"),
            (&|layer| layer.add("etc/c", ""), "`/etc/c`: not in the image, but in what is built again"),
            (&|layer| layer.add_directory("etc", 0o755, Owner { uid: 7, gid: 7 }), "`/etc`: owner 0:0 → 7:7"),
        ] {
            assert_eq!(told(&plain, &[with(change)]).as_deref(), Some(what));
        }
        let fewer = [layer(|layer| layer.add("etc/a", "first"))];
        let what = "`/etc/b`: only in the image, and not in what is built again";
        assert_eq!(told(&plain, &fewer).as_deref(), Some(what));
    }

    #[test]
    fn how_layers_make_the_same_files_makes_no_difference() {
        let below = layer(|layer| {
            layer.add("old/a", "1");
            layer.add("old/b", "2");
        });
        let over = |files: &[(&str, &str)]| {
            let upper = layer(|layer| files.iter().for_each(|(path, text)| layer.add(path, *text)));
            [below.clone(), upper]
        };
        let plain = over(&[("new/c", "3"), ("old/d", "4")]);
        for same in [
            over(&[("new/c", "3"), ("new/.wh..wh..opq", ""), ("old/d", "4")]),
            over(&[("new/c", "3"), ("old/d", "4"), ("old/b", "2"), ("old/.wh.none", "")]),
        ] {
            assert_eq!((told(&plain, &same), told(&same, &plain)), (None, None));
        }
        let hidden = over(&[("new/c", "3"), ("old/.wh..wh..opq", ""), ("old/d", "4")]);
        let what = "`/old/a`: only in the image, and not in what is built again";
        assert_eq!(told(&plain, &hidden).as_deref(), Some(what));
        // What is told is what is otherwise, and not a marker that hides nothing.
        let other = over(&[("new/c", "5"), ("new/.wh..wh..opq", ""), ("old/d", "4")]);
        assert_eq!(told(&plain, &other).as_deref(), Some("`/new/c`: other content from byte 0 on"));
    }

    #[test]
    fn attributes_and_devices_differ_too() {
        let tar = |capability: &str, minor: u32| {
            let mut tar = tar::Builder::new(Vec::new());
            tar.append_pax_extensions([("SCHILY.xattr.security.capability", capability.as_bytes())]).unwrap();
            let mut header = tar::Header::new_ustar();
            header.set_path("ping").unwrap();
            header.set_size(0);
            header.set_mode(0o755);
            header.set_cksum();
            tar.append(&header, io::empty()).unwrap();
            header.set_path("tty").unwrap();
            header.set_entry_type(tar::EntryType::Char);
            header.set_device_major(5).unwrap();
            header.set_device_minor(minor).unwrap();
            header.set_cksum();
            tar.append(&header, io::empty()).unwrap();
            [tar.into_inner().unwrap()]
        };
        assert_eq!(told(&tar("x", 0), &tar("x", 0)), None);
        let (of_ping, of_tty) = ("`/ping`: other extended attributes", "`/tty`: it is another device");
        assert_eq!(told(&tar("x", 0), &tar("y", 0)).as_deref(), Some(of_ping));
        assert_eq!(told(&tar("x", 0), &tar("x", 1)).as_deref(), Some(of_tty));
    }

    proptest! {
        #[test]
        fn files_count_however_layers_make_them(
            all in prop::collection::vec(prop::collection::btree_map("[ab]/[cd]", prop::option::of("[xy]{0,2}"), 0..4), 1..4),
        ) {
            let folders = |layer: &mut Archive| {
                for folder in ["a", "b"] {
                    layer.add_directory(folder, 0o755, Owner { uid: 0, gid: 0 });
                }
            };
            let mut made = BTreeMap::new();
            let mut layers = Vec::new();
            for files in &all {
                layers.push(layer(|layer| {
                    folders(layer);
                    for (path, text) in files {
                        match text {
                            Some(text) => layer.add(path, text.clone()),
                            None => layer.add(&path.replace('/', "/.wh."), ""),
                        }
                    }
                }));
                made.extend(files.clone());
            }
            let flat = [layer(|layer| {
                folders(layer);
                for (path, text) in made {
                    if let Some(text) = text {
                        layer.add(&path, text);
                    }
                }
            })];
            prop_assert_eq!((told(&layers, &flat), told(&flat, &layers)), (None, None));
        }
    }
}
