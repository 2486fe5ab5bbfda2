//! The files of an image, as its layers make them one upon the other.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::Arc;

use super::entries::{self, About, Entries, Entry, parts, read_over};
use super::{Fault, Place, Refusal, Stored, StoredError, StoredLayer};

/// The files of an image: where everything is, and nothing of what is in it. What a container is given beside them by an
/// engine is not here.
///
/// Rule: OCI image specification, "Image Layer Filesystem Changeset". As on overlay file systems, what a layer has below a
/// symbolic link of another takes the link's place.
#[derive(Debug)]
pub struct Files {
    place: Place,
    layers: Vec<StoredLayer>,
    /// How many of these layers it has.
    laid: usize,
    /// The first is the root. Those that are gone stay, and nothing leads to them.
    pub(super) nodes: Vec<Node>,
    /// How much their names, targets and attributes take, in bytes.
    text: usize,
}

#[derive(Debug)]
pub(super) struct Node {
    name: Arc<[u8]>,
    parent: usize,
    pub(super) content: Content,
    pub(super) about: About,
    /// The last layer that has something of it or below it, counted from 0.
    layer: usize,
}

#[derive(Debug, Clone)]
pub(super) enum Content {
    Folder(BTreeMap<Arc<[u8]>, usize>),
    File {
        layer: usize,
        /// Where it begins in the layer's tar archive, in bytes.
        at: u64,
        size: u64,
    },
    Link(Box<[u8]>),
    Device,
}

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind<'a> {
    /// A folder.
    Folder,
    /// A regular file, and its size in bytes.
    File(u64),
    /// A symbolic link, and where it leads.
    Link(&'a [u8]),
    /// A device or a FIFO.
    Device,
}

/// A file of an image.
#[derive(Debug, Clone, Copy)]
pub struct File<'a> {
    pub(super) files: &'a Files,
    pub(super) node: usize,
}

const ROOT: usize = 0;

/// How many files are read.
pub(super) const MOST_FILES: usize = 2_000_000;

/// How much their names, targets and attributes may take, in bytes.
pub(super) const MOST_NAMES: usize = 1 << 28;

/// How many links are followed to one file: Linux's `MAXSYMLINKS`.
const MOST_LINKS: usize = 40;

pub(super) const WHITEOUT: &[u8] = b".wh.";
/// What hides all that lower layers have in its folder.
pub(super) const OPAQUE: &[u8] = b".wh..wh..opq";
/// How files begin that are some storage driver's own.
const OF_DRIVER: &[u8] = b".wh..wh.";

impl Files {
    /// Reads all layers of an image, and checks them.
    ///
    /// # Errors
    ///
    /// [`StoredError`].
    pub fn of(stored: &Stored) -> Result<Self, StoredError> {
        let mut files = Self::none_of(stored);
        files.lay_lowest(stored.layers.len())?;
        Ok(files)
    }

    /// The root of an image, without any layer.
    pub(super) fn none_of(stored: &Stored) -> Self {
        let root = Node {
            name: Arc::default(),
            parent: ROOT,
            content: Content::Folder(BTreeMap::new()),
            about: About { mode: 0o755, ..About::default() },
            layer: 0,
        };
        let (place, layers) = (stored.place.clone(), stored.layers.clone());
        Self { place, layers, laid: 0, nodes: vec![root], text: 0 }
    }

    /// Reads those of so many layers that were not read yet, and checks them.
    pub(super) fn lay_lowest(&mut self, count: usize) -> Result<(), StoredError> {
        for number in self.laid..count {
            let layer = self.layers[number].clone();
            self.lay(number, &layer).map_err(|fault| fault.in_image(&self.place))?;
            self.laid = number + 1;
        }
        Ok(())
    }

    fn lay(&mut self, number: usize, layer: &StoredLayer) -> Result<(), Fault> {
        let of_layer = |refusal: Refusal| refusal.of(&layer.digest);
        let mut entries = Entries::new(layer.tar(), read_over);
        while let Some(entry) = entries.next().map_err(of_layer)? {
            let path = String::from_utf8_lossy(&entry.path).into_owned();
            self.add(number, entry).map_err(|refusal| refusal.of(path))?;
        }
        // What follows the archive's end is a part of the digest.
        io::copy(&mut entries.into_inner(), &mut io::sink()).map_err(|error| of_layer(error.into()))?;
        Ok(())
    }

    fn add(&mut self, layer: usize, entry: Entry) -> Result<(), Refusal> {
        let path = parts(&entry.path)?;
        let Some((name, folders)) = path.split_last() else {
            self.weigh(entry.about.weight())?;
            self.nodes[ROOT].about = entry.about;
            return match entry.kind {
                entries::Kind::Folder => Ok(()),
                _ => Err(Refusal::Path("is that of the root")),
            };
        };
        if path.iter().any(|part| part.starts_with(OF_DRIVER) && *part != OPAQUE) {
            return Ok(());
        }
        let folder = self.folder_for(folders, layer)?;
        if *name == OPAQUE {
            self.hide_below(folder, layer);
            return Ok(());
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            if matches!(hidden, b"" | b"." | b"..") {
                return Err(Refusal::Path("hides nothing"));
            }
            if let Some(child) = self.child(folder, hidden) {
                if self.nodes[child].layer == layer {
                    self.hide_below(child, layer);
                } else {
                    self.children(folder).remove(hidden);
                }
            }
            return Ok(());
        }
        let mut about = entry.about;
        let content = match entry.kind {
            entries::Kind::Folder => Content::Folder(BTreeMap::new()),
            entries::Kind::File => Content::File { layer, at: entry.at, size: entry.size },
            entries::Kind::Link(target) => Content::Link(target.into()),
            entries::Kind::Device(_) => Content::Device,
            entries::Kind::HardLink(target) => {
                let first = parts(&target).ok().and_then(|_| self.walk(ROOT, &target, false));
                let first = first.map(|first| &self.nodes[first]);
                let first = first.filter(|first| !matches!(first.content, Content::Folder(_)));
                let first = first.ok_or(Refusal::Path("is a hard link to what is no file"))?;
                about = first.about.clone();
                first.content.clone()
            }
        };
        if let Some(child) = self.child(folder, name)
            && let (Content::Folder(_), Content::Folder(_)) = (&self.nodes[child].content, &content)
        {
            self.weigh(about.weight())?;
            let node = &mut self.nodes[child];
            (node.about, node.layer) = (about, layer);
            return Ok(());
        }
        self.put(Node { name: (*name).into(), parent: folder, content, about, layer }).map(drop)
    }

    /// The folder that a layer has something in, which is made where it is not there.
    fn folder_for(&mut self, path: &[&[u8]], layer: usize) -> Result<usize, Refusal> {
        let mut folder = ROOT;
        for part in path {
            let child = self.child(folder, part);
            let is_own = child.is_some_and(|child| self.nodes[child].layer == layer);
            folder = match child.map(|child| (child, &self.nodes[child].content)) {
                Some((child, Content::Folder(_))) => child,
                Some((_, Content::Link(target))) if is_own => {
                    let target = self.walk(folder, target, true);
                    let is_folder = |node: &usize| matches!(self.nodes[*node].content, Content::Folder(_));
                    target.filter(is_folder).ok_or(Refusal::Path("is in what is no folder"))?
                }
                Some(_) if is_own => return Err(Refusal::Path("is in what is no folder")),
                _ => {
                    let content = Content::Folder(BTreeMap::new());
                    let about = About { mode: 0o755, ..About::default() };
                    self.put(Node { name: (*part).into(), parent: folder, content, about, layer })?
                }
            };
            self.touch(folder, layer);
        }
        Ok(folder)
    }

    /// Says of a folder and those that it is in that a layer has something there.
    fn touch(&mut self, mut node: usize, layer: usize) {
        while self.nodes[node].layer != layer && node != ROOT {
            self.nodes[node].layer = layer;
            node = self.nodes[node].parent;
        }
    }

    fn put(&mut self, node: Node) -> Result<usize, Refusal> {
        if self.nodes.len() > MOST_FILES {
            return Err(Refusal::Limit("2 000 000 files"));
        }
        let target = if let Content::Link(target) = &node.content { target.len() } else { 0 };
        self.weigh(node.name.len() + target + node.about.weight())?;
        let number = self.nodes.len();
        self.children(node.parent).insert(node.name.clone(), number);
        self.nodes.push(node);
        Ok(number)
    }

    fn weigh(&mut self, bytes: usize) -> Result<(), Refusal> {
        self.text += bytes;
        if self.text > MOST_NAMES {
            return Err(Refusal::Limit("256 MiB of names and attributes"));
        }
        Ok(())
    }

    /// What has a path of these parts, through no link.
    pub(super) fn exact(&self, path: &[&[u8]]) -> Option<usize> {
        path.iter().try_fold(ROOT, |node, part| self.child(node, part))
    }

    /// Hides what lower layers have below a file.
    fn hide_below(&mut self, node: usize, layer: usize) {
        let mut folders = vec![node];
        while let Some(folder) = folders.pop() {
            let Content::Folder(children) = &mut self.nodes[folder].content else { continue };
            let mut kept = std::mem::take(children);
            kept.retain(|_, child| self.nodes[*child].layer == layer);
            folders.extend(kept.values());
            *self.children(folder) = kept;
        }
    }

    fn children(&mut self, folder: usize) -> &mut BTreeMap<Arc<[u8]>, usize> {
        match &mut self.nodes[folder].content {
            Content::Folder(children) => children,
            _ => unreachable!("it is asked of folders alone"),
        }
    }

    fn child(&self, folder: usize, name: &[u8]) -> Option<usize> {
        match &self.nodes[folder].content {
            Content::Folder(children) => children.get(name).copied(),
            _ => None,
        }
    }

    /// A refusal of the image.
    pub(crate) fn refuse(&self, refusal: Refusal) -> StoredError {
        Fault::from(refusal).in_image(&self.place)
    }

    /// Follows a path from a folder, and links inside the root.
    fn walk(&self, from: usize, path: &[u8], through_last: bool) -> Option<usize> {
        fn reversed(path: &[u8]) -> impl Iterator<Item = &[u8]> {
            path.split(|&byte| byte == b'/').rev()
        }

        let mut node = if path.starts_with(b"/") { ROOT } else { from };
        let mut left: Vec<&[u8]> = reversed(path).collect();
        let mut links = 0;
        while let Some(part) = left.pop() {
            let is_folder = matches!(self.nodes[node].content, Content::Folder(_));
            match part {
                _ if !is_folder => return None,
                b"" | b"." => {}
                b".." => node = self.nodes[node].parent,
                part => {
                    let child = self.child(node, part)?;
                    match &self.nodes[child].content {
                        Content::Link(target) if through_last || !left.is_empty() => {
                            links += 1;
                            if links > MOST_LINKS {
                                return None;
                            }
                            if target.starts_with(b"/") {
                                node = ROOT;
                            }
                            left.extend(reversed(target));
                        }
                        _ => node = child,
                    }
                }
            }
        }
        Some(node)
    }

    /// What a path leads to, through links.
    #[must_use]
    pub fn find(&self, path: &str) -> Option<File<'_>> {
        self.walk(ROOT, path.as_bytes(), true).map(|node| File { files: self, node })
    }

    /// What has a path, which may be a link itself.
    #[must_use]
    pub fn entry(&self, path: &str) -> Option<File<'_>> {
        self.walk(ROOT, path.as_bytes(), false).map(|node| File { files: self, node })
    }

    /// The content of a file, to which a path leads; `None` where there is no such file, or a larger one than `most` bytes.
    ///
    /// # Errors
    ///
    /// [`StoredError`] of reading.
    pub fn read(&self, path: &str, most: u64) -> Result<Option<Vec<u8>>, StoredError> {
        Ok(self.read_all(&[path], most)?.pop().flatten())
    }

    /// The contents of files, of which each has at most `most` bytes, read in one pass over each layer.
    ///
    /// # Errors
    ///
    /// As [`Files::read`].
    pub fn read_all(&self, paths: &[&str], most: u64) -> Result<Vec<Option<Vec<u8>>>, StoredError> {
        let mut contents = vec![None; paths.len()];
        let is_small = |file: &File<'_>| matches!(file.kind(), Kind::File(size) if size <= most);
        let files = paths.iter().enumerate();
        let files = files.filter_map(|(index, path)| Some((index, self.find(path).filter(is_small)?)));
        self.visit(files, |indexes, content| {
            let mut bytes = Vec::new();
            content.read_to_end(&mut bytes)?;
            for index in indexes {
                contents[*index] = Some(bytes.clone());
            }
            Ok(())
        })?;
        Ok(contents)
    }

    /// Shows the content of each of these files, with all numbers that are given beside it, in one pass over each layer. Those
    /// that are no regular files are left out.
    ///
    /// # Errors
    ///
    /// [`StoredError`] of reading, and of what is shown to.
    pub fn visit<'a>(
        &self,
        files: impl IntoIterator<Item = (usize, File<'a>)>,
        mut show: impl FnMut(&[usize], &mut dyn Read) -> io::Result<()>,
    ) -> Result<(), StoredError> {
        // Hard links have one place.
        let mut places: BTreeMap<(usize, u64, u64), Vec<usize>> = BTreeMap::new();
        for (index, file) in files {
            if let Content::File { layer, at, size } = self.nodes[file.node].content {
                places.entry((layer, at, size)).or_default().push(index);
            }
        }
        let mut open: Option<(usize, u64, Box<dyn Read + Send>)> = None;
        for ((layer, at, size), indexes) in places {
            let stored = &self.layers[layer];
            let mut show = || -> Result<(), Refusal> {
                let mut tar = match open.take() {
                    Some((same, before, mut tar)) if same == layer => {
                        read_over(&mut tar, at - before)?;
                        tar
                    }
                    _ => stored.tar_from(at)?,
                };
                let mut content = tar.by_ref().take(size);
                show(&indexes, &mut content)?;
                let left = content.limit();
                read_over(&mut content, left)?;
                open = Some((layer, at + size, tar));
                Ok(())
            };
            show().map_err(|refusal| refusal.of(&stored.digest).in_image(&self.place))?;
        }
        Ok(())
    }
}

impl<'a> File<'a> {
    /// What it is.
    #[must_use]
    pub fn kind(self) -> Kind<'a> {
        match &self.node().content {
            Content::Folder(_) => Kind::Folder,
            Content::File { size, .. } => Kind::File(*size),
            Content::Link(target) => Kind::Link(target),
            Content::Device => Kind::Device,
        }
    }

    fn node(self) -> &'a Node {
        &self.files.nodes[self.node]
    }

    /// Permissions, with set-id and sticky bits.
    #[must_use]
    pub fn mode(self) -> u32 {
        self.node().about.mode
    }

    /// The user id of its owner.
    #[must_use]
    pub fn uid(self) -> u32 {
        self.node().about.uid
    }

    /// Its group id.
    #[must_use]
    pub fn gid(self) -> u32 {
        self.node().about.gid
    }

    /// Its path without links, as far as that is UTF-8.
    #[must_use]
    pub fn path(self) -> String {
        let mut names = Vec::new();
        let mut node = self.node;
        while node != ROOT {
            names.push(String::from_utf8_lossy(&self.files.nodes[node].name));
            node = self.files.nodes[node].parent;
        }
        if names.is_empty() {
            return "/".to_owned();
        }
        names.iter().rev().fold(String::new(), |path, name| path + "/" + name)
    }

    /// The names in a folder that are UTF-8, sorted by their bytes.
    pub fn names(self) -> impl Iterator<Item = &'a str> {
        let children = match &self.node().content {
            Content::Folder(children) => Some(children),
            _ => None,
        };
        children.into_iter().flat_map(BTreeMap::keys).filter_map(|name| std::str::from_utf8(name).ok())
    }

    /// Whether it is a folder.
    #[must_use]
    pub fn is_folder(self) -> bool {
        self.kind() == Kind::Folder
    }

    /// Whether it is a regular file.
    #[must_use]
    pub fn is_file(self) -> bool {
        matches!(self.kind(), Kind::File(_))
    }

    /// Whether somebody may run it.
    #[must_use]
    pub fn is_program(self) -> bool {
        self.is_file() && self.mode() & 0o111 != 0
    }
}
