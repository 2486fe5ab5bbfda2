//! The segment of one wheel, while it is made.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};

use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use super::measured::Measured;
use super::store::{Owned, Segment, Store};
use crate::archive::{EPOCH, hexadecimal};
use crate::kept::keep;
use crate::ustar;

/// A segment that is being made.
#[derive(Debug)]
pub struct Unfinished {
    to: Measured<BufWriter<NamedTempFile>>,
    owned: Owned,
    folders: BTreeSet<String>,
    paths: BTreeSet<String>,
    /// Modules by their paths, with the place and size of their sources.
    modules: Vec<(String, u64, u64)>,
}

/// A file of a segment.
#[derive(Debug, Clone, Copy, Default)]
pub struct Entry<'a> {
    /// Its path from the root.
    pub path: &'a str,
    /// Its size in bytes.
    pub size: u64,
    /// Whether it can be run.
    pub is_program: bool,
    /// Whether it is a module, which has bytecode.
    pub is_module: bool,
}

impl Unfinished {
    /// One of an environment.
    ///
    /// # Errors
    ///
    /// Of the file system.
    pub fn new(store: &Store, owned: &Owned) -> io::Result<Self> {
        let to = Measured::new(BufWriter::with_capacity(256 << 10, store.unfinished()?));
        Ok(Self {
            to,
            owned: owned.clone(),
            folders: BTreeSet::new(),
            paths: BTreeSet::new(),
            modules: Vec::new(),
        })
    }

    /// Adds a file, whose content is written.
    ///
    /// # Errors
    ///
    /// Of reading and writing, and where there is one of that path already.
    pub fn add(
        &mut self,
        entry: &Entry<'_>,
        content: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        let &Entry { path, size, is_program, is_module } = entry;
        let mode = if is_program { self.owned.of_programs() } else { self.owned.of_files() };
        ustar::written_file(&mut self.to, path, mode, self.owned.ids, EPOCH, size, content)?;
        if is_module {
            let place = self.to.size - size - ustar::padding(size) as u64;
            self.modules.push((path.to_owned(), place, size));
        }
        for (at, _) in path.match_indices('/') {
            if !self.folders.contains(&path[..at]) {
                self.folders.insert(path[..at].to_owned());
            }
        }
        if !self.paths.insert(path.to_owned()) {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("`{path}` is there twice")));
        }
        Ok(())
    }

    /// The paths of its modules.
    #[must_use]
    pub fn modules(&self) -> Vec<String> {
        self.modules.iter().map(|(path, ..)| path.clone()).collect()
    }

    /// The source of a module, by its place among them.
    ///
    /// # Errors
    ///
    /// Of the file system.
    pub fn source(&mut self, number: usize) -> io::Result<Vec<u8>> {
        let (_, place, size) = &self.modules[number];
        self.to.flush()?;
        let mut file = self.to.to().get_ref().reopen()?;
        file.seek(SeekFrom::Start(*place))?;
        let mut source = Vec::new();
        file.take(*size).read_to_end(&mut source)?;
        Ok(source)
    }

    /// A path that is a file, and the folder of another one.
    #[must_use]
    pub fn collision(&self) -> Option<&str> {
        self.folders.iter().find(|folder| self.paths.contains(*folder)).map(String::as_str)
    }

    /// Keeps it under a key.
    ///
    /// # Errors
    ///
    /// Of the file system.
    pub fn keep(self, store: &Store, key: &str) -> io::Result<Segment> {
        self.keep_where(store, key, |_| Ok(()))
    }

    /// The same where it is what it should be.
    ///
    /// # Errors
    ///
    /// Of the file system, and why it is not.
    pub fn keep_where(
        mut self,
        store: &Store,
        key: &str,
        is_right: impl FnOnce(&Segment) -> io::Result<()>,
    ) -> io::Result<Segment> {
        self.to.flush()?;
        let size = self.to.size;
        let (to, sha256) = self.to.done();
        let unfinished = to.into_inner().map_err(io::IntoInnerError::into_error)?;
        let list: String = self.paths.iter().flat_map(|path| [path, "\n"]).collect();
        let digest = hexadecimal(&Sha256::digest(&list));
        let segment = Segment { size, sha256, folders: self.folders, list: digest };
        is_right(&segment)?;
        let file = store.segment_file(key);
        fs::create_dir_all(file.with_file_name(""))?;
        let mut paths = store.unfinished()?;
        paths.write_all(list.as_bytes())?;
        paths.persist(file.with_extension("paths"))?;
        unfinished.persist(&file)?;
        // Last, since it says that the others are there.
        keep(&file.with_extension("json"), &segment)?;
        Ok(segment)
    }
}
