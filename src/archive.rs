//! Files by path, and the one tar stream they make.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// The modification time of every file that is given no other, in seconds since 1970: the beginning of 1980, the first
/// that zip archives can hold, since Python refuses to pack older files into wheels.
pub const EPOCH: u64 = 315_532_800;

/// Files by path. Equal archives give equal bytes: paths are sorted, parents come first, and
/// times are [`EPOCH`] where no other was given.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Archive {
    entries: BTreeMap<String, Entry>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    mode: u32,
    owner: Owner,
    /// In seconds since 1970.
    modified: u64,
    content: Content,
}

/// User and group id of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Owner {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Content {
    Directory,
    /// A symbolic link, and where it leads.
    Link(String),
    Bytes(Vec<u8>),
    /// A file of this host, read while the archive is written.
    File {
        path: PathBuf,
        size: u64,
        /// SHA-256 of its content in hexadecimal digits, where that was seen before.
        sha256: Option<String>,
    },
}

impl Archive {
    /// Adds a file that belongs to root and everybody may read.
    ///
    /// # Panics
    ///
    /// As all that add: for a path that is absolute, empty, or has a part `.` or `..`.
    pub fn add(&mut self, path: &str, bytes: impl Into<Vec<u8>>) {
        self.insert(path, 0o644, Owner::default(), Content::Bytes(bytes.into()));
    }

    /// Adds a program that belongs to root and everybody may run.
    pub fn add_program(&mut self, path: &str, bytes: impl Into<Vec<u8>>) {
        self.insert(path, 0o755, Owner::default(), Content::Bytes(bytes.into()));
    }

    /// Adds a file of this host, which must keep its size until the archive is written.
    ///
    /// # Errors
    ///
    /// Of asking for the file's size, or where it is no regular file.
    pub fn add_file(&mut self, path: &str, mode: u32, file: &Path) -> io::Result<()> {
        let metadata = fs::metadata(file)?;
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        self.add_seen_file(path, mode, file, metadata.len());
        Ok(())
    }

    /// Adds a file of this host whose size in bytes is known.
    pub fn add_seen_file(&mut self, path: &str, mode: u32, file: &Path, size: u64) {
        let content = Content::File { path: file.to_owned(), size, sha256: None };
        self.insert(path, mode, Owner::default(), content);
    }

    /// Says what must be in a file of this host when the archive is written: SHA-256 in hexadecimal digits.
    pub fn expect_sha256(&mut self, path: &str, digits: &str) {
        if let Some(Entry { content: Content::File { sha256, .. }, .. }) = self.entries.get_mut(path) {
            *sha256 = Some(digits.to_owned());
        }
    }

    /// Adds a directory.
    pub fn add_directory(&mut self, path: &str, mode: u32, owner: Owner) {
        self.insert(path, mode, owner, Content::Directory);
    }

    /// Adds a symbolic link, wherever it leads.
    pub fn add_link(&mut self, path: &str, target: &str) {
        self.insert(path, 0o777, Owner::default(), Content::Link(target.to_owned()));
    }

    /// Gives everything in it to one owner.
    pub fn give_to(&mut self, owner: Owner) {
        self.entries.values_mut().for_each(|entry| entry.owner = owner);
    }

    /// Gives something that is in it another mode and owner.
    pub fn give(&mut self, path: &str, mode: u32, owner: Owner) {
        if let Some(entry) = self.entries.get_mut(path) {
            (entry.mode, entry.owner) = (mode, owner);
        }
    }

    /// Gives a directory that is in the archive another mode and owner.
    pub fn set_directory(&mut self, path: &str, mode: u32, owner: Owner) {
        if let Some(entry) = self.entries.get_mut(path).filter(|entry| entry.content == Content::Directory) {
            (entry.mode, entry.owner) = (mode, owner);
        }
    }

    /// Gives something that is in it another modification time, in seconds since 1970.
    pub fn date(&mut self, path: &str, seconds: u64) {
        if let Some(entry) = self.entries.get_mut(path) {
            entry.modified = seconds;
        }
    }

    /// Its files whose bytes it holds itself, by their paths.
    pub fn texts(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.entries.iter().filter_map(|(path, entry)| match &entry.content {
            Content::Bytes(bytes) => Some((path.as_str(), bytes.as_slice())),
            _ => None,
        })
    }

    /// The directories in it that are in no other.
    pub fn top_directories(&self) -> impl Iterator<Item = &str> {
        let is_directory = |entry: &Entry| entry.content == Content::Directory;
        let directories = self.entries.iter().filter(move |(_, entry)| is_directory(entry));
        directories.map(|(path, _)| path.as_str()).filter(|path| !path.contains('/'))
    }

    fn insert(&mut self, path: &str, mode: u32, owner: Owner, content: Content) {
        let clean = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
        assert!(path.split('/').all(clean), "`{path}` is no clean relative path");
        for (slash, _) in path.match_indices('/') {
            let content = Content::Directory;
            let parent = Entry { mode: 0o755, owner: Owner::default(), modified: EPOCH, content };
            self.entries.entry(path[..slash].to_owned()).or_insert(parent);
        }
        self.entries.insert(path.to_owned(), Entry { mode, owner, modified: EPOCH, content });
    }

    /// Writes the archive as a tar stream, in constant memory.
    ///
    /// # Errors
    ///
    /// Of the writer, and of a file that cannot be read or has changed its size.
    pub fn write_to(&self, writer: impl Write) -> io::Result<()> {
        let mut tar = tar::Builder::new(writer);
        for (path, entry) in &self.entries {
            let mut header = tar::Header::new_gnu();
            header.set_mode(entry.mode);
            header.set_uid(entry.owner.uid.into());
            header.set_gid(entry.owner.gid.into());
            header.set_mtime(entry.modified);
            match &entry.content {
                Content::Directory => {
                    header.set_entry_type(tar::EntryType::Directory);
                    header.set_size(0);
                    tar.append_data(&mut header, format!("{path}/"), io::empty())?;
                }
                Content::Link(target) => {
                    header.set_entry_type(tar::EntryType::Symlink);
                    header.set_size(0);
                    tar.append_link(&mut header, path, target)?;
                }
                Content::Bytes(bytes) => {
                    header.set_size(bytes.len() as u64);
                    tar.append_data(&mut header, path, bytes.as_slice())?;
                }
                Content::File { path: file, size, sha256 } => {
                    header.set_size(*size);
                    tar.append_data(&mut header, path, Unchanged::open(file, *size, sha256.as_deref())?)?;
                }
            }
        }
        tar.into_inner()?.flush()
    }

    /// The archive's tar stream as bytes.
    ///
    /// # Errors
    ///
    /// Of a file that cannot be read.
    pub fn to_tar(&self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.write_to(&mut bytes)?;
        Ok(bytes)
    }

    /// Writes the files into `folder`, which is made if it is not there. Owners are not kept.
    ///
    /// # Errors
    ///
    /// Of the file system.
    pub fn write_into(&self, folder: &Path) -> io::Result<()> {
        use std::os::unix::fs::PermissionsExt;

        fs::create_dir_all(folder)?;
        for (path, entry) in &self.entries {
            let target = folder.join(path);
            match &entry.content {
                Content::Directory => fs::create_dir_all(&target)?,
                Content::Link(to) => std::os::unix::fs::symlink(to, &target)?,
                Content::Bytes(bytes) => fs::write(&target, bytes)?,
                Content::File { path: file, size, sha256 } => {
                    let mut unchanged = Unchanged::open(file, *size, sha256.as_deref())?;
                    io::copy(&mut unchanged, &mut fs::File::create(&target)?)?;
                    fs::set_permissions(&target, fs::Permissions::from_mode(entry.mode))?;
                }
            }
        }
        Ok(())
    }
}

/// The text of the one file in a tar archive.
///
/// # Errors
///
/// Where it is no regular file, or no UTF-8.
pub fn only_text(tar: &[u8]) -> io::Result<String> {
    let mut archive = tar::Archive::new(tar);
    let mut entry = archive.entries()?.next().ok_or(io::ErrorKind::UnexpectedEof)??;
    if !entry.header().entry_type().is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut text = String::new();
    entry.read_to_string(&mut text)?;
    Ok(text)
}

/// Writes the regular files of a tar archive into a folder, each by the last part of its path.
///
/// # Errors
///
/// Of reading and writing; where two files have one name.
pub fn files_into(folder: &Path, tar: impl Read) -> io::Result<Vec<PathBuf>> {
    let mut written = Vec::new();
    for entry in tar::Archive::new(tar).entries()? {
        let mut entry = entry?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let path = entry.path()?.into_owned();
        let name = path.file_name().ok_or(io::ErrorKind::InvalidData)?;
        let path = folder.join(name);
        io::copy(&mut entry, &mut fs::File::create_new(&path)?)?;
        written.push(path);
    }
    Ok(written)
}

/// A file's bytes, and an error instead of its end where they are not what was seen before.
struct Unchanged<'a> {
    file: fs::File,
    path: &'a Path,
    left: u64,
    /// What must be in it, and what was read so far.
    expected: Option<(&'a str, Sha256)>,
}

impl<'a> Unchanged<'a> {
    fn open(path: &'a Path, size: u64, sha256: Option<&'a str>) -> io::Result<Self> {
        let expected = sha256.map(|digits| (digits, Sha256::new()));
        Ok(Self { file: fs::File::open(path)?, path, left: size, expected })
    }

    /// Whether all that was read is what should be there.
    fn is_as_expected(&mut self) -> bool {
        self.left == 0
            && self.expected.take().is_none_or(|(digits, hash)| hexadecimal(&hash.finalize()) == digits)
    }
}

impl Read for Unchanged<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        if let Some((_, hash)) = &mut self.expected {
            hash.update(&buffer[..read]);
        }
        let unchanged = match self.left.checked_sub(read as u64) {
            Some(left) => {
                self.left = left;
                read > 0 || buffer.is_empty() || self.is_as_expected()
            }
            None => false,
        };
        if unchanged {
            return Ok(read);
        }
        Err(io::Error::other(format!("`{}` changed after it was looked at", self.path.display())))
    }
}

/// Seconds since 1970 as RFC 3339 has them, in UTC.
pub(crate) fn rfc3339(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // The calendar repeats every 400 years; years begin in March here, so that a leap day is the last of one.
    let day = days + 719_468;
    let (era, of_era) = (day / 146_097, day % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

/// Bytes as hexadecimal digits.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |digits, byte| digits + &format!("{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(archive: &Archive) -> Vec<(String, u64, u32, u64)> {
        let bytes = archive.to_tar().unwrap();
        let mut reader = tar::Archive::new(bytes.as_slice());
        reader
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let header = entry.header();
                let path = entry.path().unwrap().display().to_string();
                (path, header.uid().unwrap(), header.mode().unwrap(), header.mtime().unwrap())
            })
            .collect()
    }

    #[test]
    fn parents_come_first_and_keep_what_was_said_of_them() {
        let owner = Owner { uid: 7, gid: 8 };
        let mut archive = Archive::default();
        archive.add("a/b/c", "text");
        archive.add_directory("a/b", 0o700, owner);
        archive.add("a/b.txt", "");
        assert_eq!(
            listing(&archive),
            [
                ("a/".into(), 0, 0o755, EPOCH),
                ("a/b/".into(), 7, 0o700, EPOCH),
                ("a/b.txt".into(), 0, 0o644, EPOCH),
                ("a/b/c".into(), 0, 0o644, EPOCH),
            ]
        );
    }

    #[test]
    fn a_file_that_changes_its_size_ends_the_stream() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (declared, real) in [(10, 9), (10, 11), (0, 1)] {
            fs::write(file.path(), vec![0; declared]).unwrap();
            let mut archive = Archive::default();
            archive.add_file("x", 0o644, file.path()).unwrap();
            fs::write(file.path(), vec![0; real]).unwrap();
            let error = archive.write_to(io::sink()).unwrap_err();
            assert!(error.to_string().contains("changed after"), "{declared} → {real}: {error}");
        }
    }

    #[test]
    fn a_file_that_changes_its_content_ends_the_stream() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "as planned").unwrap();
        let mut archive = Archive::default();
        archive.add_file("x", 0o644, file.path()).unwrap();
        let digits = Sha256::digest("as planned")
            .iter()
            .fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
        archive.expect_sha256("x", &digits);
        archive.write_to(io::sink()).unwrap();
        fs::write(file.path(), "as PLANNED").unwrap();
        let folder = tempfile::tempdir().unwrap();
        for error in [archive.write_to(io::sink()), archive.write_into(&folder.path().join("out"))] {
            assert!(error.unwrap_err().to_string().contains("changed after it was looked at"));
        }
    }

    #[test]
    fn seconds_are_dates() {
        for (seconds, date) in [
            (0, "1970-01-01T00:00:00Z"),
            (EPOCH, "1980-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(seconds), date);
        }
    }

    #[test]
    fn paths_stay_below_the_root() {
        for path in ["/etc/passwd", "../x", "a/../../x", "a//b", "", ".", "a/."] {
            let refused = std::panic::catch_unwind(|| Archive::default().add(path, ""));
            assert!(refused.is_err(), "`{path}` was taken");
        }
    }
}
