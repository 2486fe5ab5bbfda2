//! The files that an image consists of, by name, and the places of their bytes.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{CWD, Mode, OFlags, openat};
use sha2::{Digest, Sha256};

use super::entries::{Entries, Kind, parts};
use super::{Fault, Refusal};
use crate::archive::hexadecimal;

/// How many files an archive may have.
const MOST_MEMBERS: usize = 1 << 16;

/// How many links may lead from one to the next.
const MOST_LINKS: usize = 8;

/// How packed archives begin: gzip, zstd, bzip2, xz.
const PACKED: [&[u8]; 4] = [GZIP, ZSTD, b"BZh", b"\xfd7zXZ"];

pub(super) const GZIP: &[u8] = &[0x1f, 0x8b];
pub(super) const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

/// Bytes of a file of this host.
#[derive(Debug, Clone)]
pub(super) struct Part {
    file: Arc<File>,
    /// Where they begin.
    at: u64,
    /// How many they are.
    pub(super) length: u64,
}

impl Part {
    fn whole(file: File) -> io::Result<Self> {
        let length = file.metadata()?.len();
        Ok(Self { file: Arc::new(file), at: 0, length })
    }

    /// Some of them.
    pub(super) fn part(&self, at: u64, length: u64) -> Self {
        Self { file: self.file.clone(), at: self.at + at, length }
    }

    /// Reads them from the first on.
    pub(super) fn reader(&self) -> PartReader {
        PartReader { part: self.clone() }
    }

    /// How they begin.
    pub(super) fn beginning(&self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.part(0, self.length.min(8)).reader().read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// All of them, which are at most so many.
    pub(super) fn read(&self, most: u64) -> Result<Vec<u8>, Refusal> {
        if self.length > most {
            return Err(Refusal::Limit("4 MB"));
        }
        let mut bytes = Vec::new();
        self.reader().read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// The digest of all of them.
    pub(super) fn digest(&self) -> io::Result<String> {
        let mut hash = Sha256::new();
        let mut reader = self.reader();
        let mut buffer = vec![0; CHUNK];
        loop {
            match reader.read(&mut buffer)? {
                0 => return Ok(digest_of(hash)),
                read => hash.update(&buffer[..read]),
            }
        }
    }
}

/// How much is read at once, in bytes.
pub(super) const CHUNK: usize = 1 << 16;

pub(super) fn digest_of(hash: Sha256) -> String {
    format!("sha256:{}", hexadecimal(&hash.finalize()))
}

/// Reads bytes of a file; what is not there any more is an error.
#[derive(Debug)]
pub(super) struct PartReader {
    part: Part,
}

impl PartReader {
    /// Passes over bytes.
    fn pass(&mut self, bytes: u64) -> io::Result<()> {
        match self.part.length.checked_sub(bytes) {
            Some(length) => {
                self.part = self.part.part(bytes, length);
                Ok(())
            }
            None => Err(Refusal::Tar("it is cut off").into()),
        }
    }
}

impl Read for PartReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.part.length).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        match self.part.file.read_at(&mut buffer[..most], self.part.at)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            read => {
                self.pass(read as u64)?;
                Ok(read)
            }
        }
    }
}

/// The files of an image.
#[derive(Debug)]
pub(super) enum Source {
    Folder(OwnedFd),
    Archive(Members),
}

impl Source {
    /// A folder, which the caller has named: links lead to it, and none is followed in it.
    pub(super) fn folder(path: &Path) -> Result<Self, Fault> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = openat(CWD, path, flags, Mode::empty()).map_err(|error| Refusal::Read(error.into()))?;
        Ok(Self::Folder(folder))
    }

    /// An archive, of which nothing but headers is read.
    pub(super) fn archive(path: &Path) -> Result<Self, Fault> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = openat(CWD, path, flags, Mode::empty()).map_err(|error| Refusal::Read(error.into()))?;
        Ok(Self::Archive(Members::read(&regular(file)?)?))
    }

    /// A file by its path, whose parts are plain.
    pub(super) fn open(&self, path: &str) -> Result<Part, Fault> {
        match self {
            Self::Archive(members) => members.find(path),
            Self::Folder(folder) => open_below(folder, path),
        }
        .map_err(|refusal| refusal.of(path))
    }
}

fn regular(file: OwnedFd) -> Result<Part, Refusal> {
    let file = File::from(file);
    if !file.metadata()?.is_file() {
        return Err(Refusal::Special);
    }
    Ok(Part::whole(file)?)
}

fn open_below(folder: &OwnedFd, path: &str) -> Result<Part, Refusal> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let refused = |error: rustix::io::Errno| match error {
        rustix::io::Errno::NOENT => Refusal::Missing,
        rustix::io::Errno::LOOP | rustix::io::Errno::NOTDIR => Refusal::Special,
        error => Refusal::Read(error.into()),
    };
    let mut folder = folder.try_clone()?;
    let mut path = path;
    while let Some((first, rest)) = path.split_once('/') {
        folder = openat(&folder, first, flags | OFlags::DIRECTORY, Mode::empty()).map_err(refused)?;
        path = rest;
    }
    regular(openat(&folder, path, flags, Mode::empty()).map_err(refused)?)
}

/// Where the files of an archive are in it.
#[derive(Debug)]
pub(super) struct Members {
    members: HashMap<String, Member>,
}

#[derive(Debug)]
enum Member {
    File(Part),
    /// Another name for the file of this path, which was there before or comes later.
    Link(String),
    /// A folder or a device.
    Other,
    Twice,
}

impl Members {
    fn read(archive: &Part) -> Result<Self, Fault> {
        let beginning = archive.beginning().map_err(Refusal::from)?;
        if PACKED.iter().any(|magic| beginning.starts_with(magic)) {
            return Err(Refusal::Packed.into());
        }
        let mut entries = Entries::new(archive.reader(), PartReader::pass);
        let mut members = HashMap::new();
        while let Some(entry) = entries.next()? {
            let named = |refusal: Refusal| refusal.of(String::from_utf8_lossy(&entry.path));
            let path = parts(&entry.path).map_err(named)?.join(&b'/');
            // No file of an image has such a name.
            let Ok(path) = String::from_utf8(path) else { continue };
            let member = match entry.kind {
                Kind::File => Member::File(archive.part(entry.at, entry.size)),
                Kind::Link(target) => link(path.rsplit_once('/').map_or("", |(folder, _)| folder), &target),
                Kind::HardLink(target) => link("", &target),
                Kind::Folder | Kind::Device(_) => Member::Other,
            };
            let is_folder = |member: &Member| matches!(member, Member::Other);
            if members.len() == MOST_MEMBERS {
                return Err(Refusal::Limit("65 536 files").into());
            }
            match members.get_mut(&path) {
                Some(other) if is_folder(other) && is_folder(&member) => {}
                Some(other) => *other = Member::Twice,
                None => drop(members.insert(path, member)),
            }
        }
        Ok(Self { members })
    }

    /// The file of a path.
    fn find(&self, path: &str) -> Result<Part, Refusal> {
        let mut path = path;
        for _ in 0..=MOST_LINKS {
            match self.members.get(path).ok_or(Refusal::Missing)? {
                Member::File(part) => return Ok(part.clone()),
                Member::Link(target) => path = target,
                Member::Other => return Err(Refusal::Special),
                Member::Twice => return Err(Refusal::Twice),
            }
        }
        Err(Refusal::Path("is a link without an end"))
    }
}

/// A link of a folder's; those that lead out of the archive lead to nothing.
fn link(folder: &str, target: &[u8]) -> Member {
    let Ok(target) = std::str::from_utf8(target) else { return Member::Other };
    let mut path: Vec<_> = folder.split('/').filter(|part| !part.is_empty()).collect();
    if target.starts_with('/') {
        return Member::Other;
    }
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                if path.pop().is_none() {
                    return Member::Other;
                }
            }
            part => path.push(part),
        }
    }
    Member::Link(path.join("/"))
}

/// A reader that ends with an error where what came through it has another digest than it should.
#[derive(Debug)]
pub(super) struct Verified<R> {
    from: R,
    hash: Option<Sha256>,
    digest: String,
}

impl<R: Read> Verified<R> {
    pub(super) fn new(from: R, digest: &str) -> Self {
        Self { from, hash: Some(Sha256::new()), digest: digest.to_owned() }
    }
}

impl<R: Read> Read for Verified<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let read = self.from.read(buffer)?;
        match &mut self.hash {
            Some(hash) if read > 0 => hash.update(&buffer[..read]),
            hash => {
                if hash.take().is_some_and(|hash| digest_of(hash) != self.digest) {
                    return Err(Refusal::Digest(self.digest.clone()).into());
                }
            }
        }
        Ok(read)
    }
}
