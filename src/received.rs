//! What a tar stream of somebody who is not trusted makes of files.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, linkat, mkdirat, openat, renameat,
    statat, symlinkat, utimensat,
};
use rustix::io::Errno;

/// One file or folder of somebody who is not trusted, as a tar archive tells it. All of it is looked at before anything of
/// it is written.
#[derive(Debug)]
pub struct Received {
    tar: fs::File,
    /// What it consists of, by the path below the file or folder itself, which is empty.
    items: BTreeMap<PathBuf, Item>,
}

#[derive(Debug)]
struct Item {
    kind: Kind,
    /// Who may read, write and run it, and nothing else.
    mode: Mode,
    /// In seconds since 1970.
    modified: u64,
}

#[derive(Debug)]
enum Kind {
    Folder,
    /// A symbolic link, and where it leads.
    Link(PathBuf),
    File {
        /// Where its content is in the archive, in bytes.
        at: u64,
        size: u64,
        /// The other file that it is a hard link to.
        first: Option<PathBuf>,
    },
}

/// Why what was received is not written.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The archive cannot be read, or a file not be written.
    #[error(transparent)]
    File(#[from] io::Error),
    /// Something in it does not get here.
    #[error("it holds what is not taken")]
    Refused(Vec<Refused>),
    /// There is something else at its place.
    #[error("`{}` is there", .place.display())]
    Occupied {
        /// Below the folder that is written into.
        place: PathBuf,
        /// Whether that is a folder, and a file or link was received.
        is_folder: bool,
    },
}

/// What does not get here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Its path below what was received; as the archive has it where it is none below that.
    pub path: PathBuf,
    /// What is wrong with it, as a clause.
    pub why: String,
}

/// How many refusals are told.
const MOST_REFUSED: usize = 10;

/// How many folders may lie in each other. Removing them takes a file descriptor for each.
const MOST_PARTS: usize = 200;

/// The length of what ends a tar archive: zeros.
const TAR_END: usize = 1024;

/// The name of what was received while it is not at its place.
const WHOLE: &str = "received";

impl Received {
    /// Looks at all that a tar archive tells of one file or folder.
    ///
    /// # Errors
    ///
    /// Of reading, and [`ReceiveError::Refused`].
    pub fn read(mut tar: fs::File) -> Result<Self, ReceiveError> {
        let length = tar.seek(SeekFrom::End(0))?;
        let mut end = Vec::new();
        tar.seek(SeekFrom::Start(length.saturating_sub(TAR_END as u64)))?;
        tar.read_to_end(&mut end)?;
        if end != [0; TAR_END] {
            return Err(cut().into());
        }
        tar.rewind()?;
        let (mut items, mut refused) = (BTreeMap::new(), Vec::new());
        let mut whole = None;
        for entry in tar::Archive::new(&tar).entries_with_seek()? {
            let entry = entry?;
            if entry.header().entry_type().is_pax_global_extensions() {
                continue;
            }
            let raw = entry.path_bytes();
            let (path, item) = match below(&raw, &mut whole) {
                Some(path) => (path.clone(), Item::of(&entry, &path, &items, &mut whole)),
                None => (OsStr::from_bytes(&raw).into(), Err("its path leads elsewhere".to_owned())),
            };
            match item {
                Ok(item) => drop(items.insert(path, item)),
                Err(why) => refused.push(Refused { path, why }),
            }
            if refused.len() == MOST_REFUSED {
                break;
            }
        }
        if items.is_empty() && refused.is_empty() {
            let why = "no archive can hold it; it may be a socket".to_owned();
            refused.push(Refused { path: PathBuf::new(), why });
        }
        if refused.is_empty() { Ok(Self { tar, items }) } else { Err(ReceiveError::Refused(refused)) }
    }

    /// Where it leads, if all of it is a symbolic link.
    #[must_use]
    pub fn link(&self) -> Option<&Path> {
        match &self.items.get(Path::new(""))?.kind {
            Kind::Link(target) => Some(target),
            _ => None,
        }
    }

    /// Writes it into a folder of this host, by a name or, where that is empty, as what is in the folder. Files and links
    /// replace others, folders are added to; links are not followed. Everything belongs to the caller.
    ///
    /// # Errors
    ///
    /// Of the file system, and [`ReceiveError::Occupied`]. Nothing has changed then, unless something else changes the folder
    /// at the same time.
    pub fn write_into(&self, folder: &Path, name: &OsStr) -> Result<(), ReceiveError> {
        let temporary = tempfile::Builder::new().prefix(".ipybox-").tempdir_in(folder)?;
        let folder = Place::open(folder)?;
        let unpacked = Place(folder.within(temporary.path().file_name().unwrap_or_default())?);
        self.unpack(&unpacked)?;
        self.settle(&unpacked, &folder, name, true)?;
        self.settle(&unpacked, &folder, name, false)
    }

    fn unpack(&self, place: &Place) -> io::Result<()> {
        let is_first = |item: &Item| !matches!(item.kind, Kind::File { first: Some(_), .. });
        let (firsts, others): (Vec<_>, Vec<_>) = self.items.iter().partition(|(_, item)| is_first(item));
        for (path, item) in firsts.into_iter().chain(others) {
            let path = Path::new(WHOLE).join(path);
            let (parent, last) = place.parent(&path)?;
            match &item.kind {
                // Its owner can always add to it and remove it.
                Kind::Folder => mkdirat(&parent, last, item.mode | Mode::RWXU)?,
                Kind::Link(target) => symlinkat(target, &parent, last)?,
                Kind::File { at, size, first } => {
                    if let Some(first) = first {
                        let first = Path::new(WHOLE).join(first);
                        let (folder, name) = place.parent(&first)?;
                        if linkat(folder, name, &parent, last, AtFlags::empty()).is_ok() {
                            continue;
                        }
                    }
                    let flags =
                        OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    let mut file = fs::File::from(openat(&parent, last, flags, item.mode)?);
                    (&self.tar).seek(SeekFrom::Start(*at))?;
                    if io::copy(&mut (&self.tar).take(*size), &mut file)? != *size {
                        return Err(cut());
                    }
                }
            }
        }
        // What is put into a folder changes its time.
        for (path, item) in self.items.iter().rev() {
            let path = Path::new(WHOLE).join(path);
            let (parent, last) = place.parent(&path)?;
            let last_access = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
            let seconds = i64::try_from(item.modified).unwrap_or_default();
            let last_modification = Timespec { tv_sec: seconds, tv_nsec: 0 };
            let times = Timestamps { last_access, last_modification };
            utimensat(parent, last, &times, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Ok(())
    }

    /// Moves what was unpacked to its place, or only looks whether that is free.
    fn settle(&self, from: &Place, to: &Place, name: &OsStr, looks_only: bool) -> Result<(), ReceiveError> {
        let mut moved: Option<&Path> = None;
        for (path, item) in &self.items {
            if moved.is_some_and(|moved| path.starts_with(moved)) {
                continue;
            }
            let place = Path::new(name).join(path);
            let is_folder = matches!(item.kind, Kind::Folder);
            let there = if place.as_os_str().is_empty() { Some(true) } else { to.has_folder(&place)? };
            match there {
                Some(true) if is_folder => continue,
                Some(there) if there != is_folder => {
                    return Err(ReceiveError::Occupied { place, is_folder: there });
                }
                _ if looks_only => {}
                _ => {
                    let unpacked = Path::new(WHOLE).join(path);
                    let ((source, old), (target, new)) = (from.parent(&unpacked)?, to.parent(&place)?);
                    renameat(source, old, target, new).map_err(io::Error::from)?;
                }
            }
            moved = Some(path);
        }
        Ok(())
    }
}

impl Item {
    /// What an entry of an archive is, after these; or why that is not taken.
    fn of(
        entry: &tar::Entry<'_, impl Read>,
        path: &Path,
        items: &BTreeMap<PathBuf, Self>,
        whole: &mut Option<Vec<u8>>,
    ) -> Result<Self, String> {
        let is_folder = |path| matches!(items.get(path), Some(Self { kind: Kind::Folder, .. }));
        let header = entry.header();
        let unclear = |error: io::Error| format!("it is unclear what it is: {error}");
        if path.parent().is_some_and(|parent| !is_folder(parent)) {
            return Err("it lies in what is no folder".to_owned());
        }
        if path.components().count() > MOST_PARTS {
            return Err(format!("it lies in more than {MOST_PARTS} folders"));
        }
        if items.contains_key(path) {
            return Err("it is there twice".to_owned());
        }
        let target = entry.link_name_bytes().unwrap_or_default();
        let shown = || String::from_utf8_lossy(&target).escape_debug().to_string();
        let kind = match header.entry_type() {
            tar::EntryType::Directory => Kind::Folder,
            tar::EntryType::Regular => {
                Kind::File { at: entry.raw_file_position(), size: entry.size(), first: None }
            }
            tar::EntryType::Link => {
                match below(&target, whole).and_then(|path| Some((items.get(&path)?, path))) {
                    Some((&Self { kind: Kind::File { at, size, ref first }, .. }, path)) => {
                        Kind::File { at, size, first: first.clone().or(Some(path)) }
                    }
                    _ => return Err(format!("it is a hard link to `{}`, which is not part of it", shown())),
                }
            }
            tar::EntryType::Symlink => {
                let target = PathBuf::from(OsStr::from_bytes(&target));
                // What is a link as a whole is not written.
                if path != Path::new("") && !stays(path, &target) {
                    return Err(format!("it is a link to `{}`, which is or may be elsewhere", shown()));
                }
                Kind::Link(target)
            }
            tar::EntryType::Fifo => return Err("it is a FIFO".to_owned()),
            tar::EntryType::Char | tar::EntryType::Block => return Err("it is a device".to_owned()),
            _ => return Err("it is neither file, folder nor link".to_owned()),
        };
        let mode = Mode::from_raw_mode(header.mode().map_err(unclear)? & 0o777);
        Ok(Self { kind, mode, modified: header.mtime().map_err(unclear)? })
    }
}

/// A path of an archive, below the one file or folder that the archive is of.
fn below(path: &[u8], whole: &mut Option<Vec<u8>>) -> Option<PathBuf> {
    let mut parts = path.split(|&byte| byte == b'/').filter(|part| !matches!(*part, b"" | b"."));
    let first = parts.next()?;
    let parts: PathBuf = parts.map(OsStr::from_bytes).collect();
    let is_below = !path.starts_with(b"/") && whole.get_or_insert_with(|| first.to_vec()) == first;
    let is_clean = |part| matches!(part, Component::Normal(_));
    (is_below && first != b".." && parts.components().all(is_clean)).then_some(parts)
}

/// Whether a link stays within what it is part of. Its target goes up first, by no more folders than it lies in, and down
/// then: whatever other links of that kind it meets there stay within, too.
fn stays(path: &Path, target: &Path) -> bool {
    let up = target.components().take_while(|part| *part == Component::ParentDir).count();
    let mut down = target.components().skip(up).filter(|part| *part != Component::CurDir);
    target != Path::new("")
        && up < path.components().count()
        && down.all(|part| matches!(part, Component::Normal(_)))
}

/// A folder that is open. Nothing that is found from it is elsewhere: no link is followed, whoever puts one there, and when.
struct Place(OwnedFd);

impl Place {
    const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

    fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(rustix::fs::open(path, Self::FOLDER, Mode::empty())?))
    }

    fn within(&self, name: &OsStr) -> io::Result<OwnedFd> {
        Ok(openat(&self.0, name, Self::FOLDER | OFlags::NOFOLLOW, Mode::empty())?)
    }

    /// The folder that something is in, and the name it has there.
    fn parent<'a>(&self, path: &'a Path) -> io::Result<(OwnedFd, &'a OsStr)> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let mut folder = Self(self.0.try_clone()?);
        for part in parent {
            folder = Self(folder.within(part)?);
        }
        Ok((folder.0, name))
    }

    /// Whether there is a folder at a path; `None` where there is nothing.
    fn has_folder(&self, path: &Path) -> io::Result<Option<bool>> {
        let (parent, name) = self.parent(path)?;
        match statat(parent.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) => Ok(Some(FileType::from_raw_mode(found.st_mode) == FileType::Directory)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

fn cut() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the archive was cut")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tar archive as somebody hostile writes it: kinds, paths, where links lead, and content.
    fn hostile(entries: &[(tar::EntryType, &str, &str, &str)]) -> fs::File {
        let mut file = tempfile::tempfile().unwrap();
        let mut tar = tar::Builder::new(&mut file);
        for (kind, path, target, content) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(0o7755);
            header.set_mtime(1_000_000_000);
            header.set_size(content.len() as u64);
            let old = header.as_old_mut();
            old.name[..path.len()].copy_from_slice(path.as_bytes());
            old.linkname[..target.len()].copy_from_slice(target.as_bytes());
            header.set_cksum();
            tar.append(&header, content.as_bytes()).unwrap();
        }
        tar.finish().unwrap();
        drop(tar);
        file
    }

    const FOLDER: tar::EntryType = tar::EntryType::Directory;
    const FILE: tar::EntryType = tar::EntryType::Regular;
    const LINK: tar::EntryType = tar::EntryType::Symlink;
    const HARD: tar::EntryType = tar::EntryType::Link;

    #[test]
    fn what_a_hostile_archive_holds_is_refused_by_name_and_nothing_is_written() {
        for (entries, path, why) in [
            (&[(LINK, "out/l", "/etc/passwd", "")][..], "l", "a link to `/etc/passwd`"),
            (&[(LINK, "out/l", "../x", "")], "l", "a link to `../x`"),
            (&[(LINK, "out/l", "", "")], "l", "a link to ``"),
            (&[(FOLDER, "out/d/", "", ""), (LINK, "out/d/l", "../../x", "")], "d/l", "a link to `../../x`"),
            // Where `u` leads up, this would lead out.
            (&[(FOLDER, "out/d/", "", ""), (LINK, "out/l", "d/u/../..", "")], "l", "a link to `d/u/../..`"),
            (&[(LINK, "out/l", "d", ""), (FILE, "out/l/x", "", "1")], "l/x", "in what is no folder"),
            (&[(FILE, "out/l", "", ""), (FOLDER, "out/l", "", "")], "l", "there twice"),
            (&[(LINK, "out/l", "d", ""), (FOLDER, "out/l/", "", "")], "l", "there twice"),
            (&[(FILE, "/etc/x", "", "1")], "/etc/x", "leads elsewhere"),
            (&[(FILE, "../x", "", "1")], "../x", "leads elsewhere"),
            (&[(FILE, "out/../../x", "", "1")], "out/../../x", "leads elsewhere"),
            (&[(FILE, "other", "", "1")], "other", "leads elsewhere"),
            (&[(FILE, "out/d/x", "", "1")], "d/x", "in what is no folder"),
            (&[(tar::EntryType::Fifo, "out/f", "", "")], "f", "a FIFO"),
            (&[(tar::EntryType::Char, "out/c", "", "")], "c", "a device"),
            (&[(tar::EntryType::Block, "out/b", "", "")], "b", "a device"),
            (&[(tar::EntryType::new(b'Z'), "out/z", "", "")], "z", "neither file, folder nor link"),
            (&[(HARD, "out/h", "/etc/shadow", "")], "h", "a hard link to `/etc/shadow`"),
            (&[(HARD, "out/h", "../shadow", "")], "h", "a hard link to `../shadow`"),
            (&[(HARD, "out/h", "out/later", ""), (FILE, "out/later", "", "")], "h", "a hard link"),
            (&[(LINK, "out/l", "d", ""), (HARD, "out/h", "out/l", "")], "h", "a hard link to `out/l`"),
        ] {
            let entries = [&[(FOLDER, "out/", "", "")], entries].concat();
            let refused = match Received::read(hostile(&entries)) {
                Err(ReceiveError::Refused(refused)) => refused,
                other => panic!("{entries:?}: {other:?}"),
            };
            let found = &refused[0];
            assert!(found.path == Path::new(path) && found.why.contains(why), "{entries:?}: {refused:?}");
        }
        let mut file = tempfile::tempfile().unwrap();
        let mut tar = tar::Builder::new(&mut file);
        for depth in 0..=MOST_PARTS + 1 {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(FOLDER);
            header.set_size(0);
            header.set_mode(0o755);
            header.set_mtime(0);
            tar.append_data(&mut header, ["out/", &"d/".repeat(depth)].concat(), io::empty()).unwrap();
        }
        tar.finish().unwrap();
        drop(tar);
        let ReceiveError::Refused(refused) = Received::read(file).unwrap_err() else { panic!("it was read") };
        assert!(refused.len() == 1 && refused[0].why.contains("more than 200 folders"), "{refused:?}");

        // A socket by itself, and an archive that was cut.
        assert!(matches!(Received::read(hostile(&[])), Err(ReceiveError::Refused(_))));
        let file = hostile(&[(FILE, "x", "", "text")]);
        file.set_len(1024).unwrap();
        assert!(matches!(Received::read(file), Err(ReceiveError::File(_))));
        // What is a link as a whole is for others to follow, and is not written.
        let link = Received::read(hostile(&[(LINK, "l", "/etc/passwd", "")])).unwrap();
        assert_eq!(link.link(), Some(Path::new("/etc/passwd")));
    }

    #[test]
    fn what_is_received_belongs_to_the_caller_and_is_added_to_what_is_there() {
        use std::os::unix::fs::{MetadataExt, symlink};

        let host = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let path = |path: &str| host.path().join(path);
        let text = |name: &str| fs::read_to_string(path(name)).unwrap();
        let names = || {
            let mut names: Vec<_> =
                host.path().read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        let received = Received::read(hostile(&[
            (FOLDER, "./out/", "", ""),
            (FOLDER, "./out/d/", "", ""),
            (FILE, "./out/z", "", "text"),
            (HARD, "./out/d/h", "./out/z", ""),
            (LINK, "./out/d/up", "..", ""),
            (LINK, "./out/d/l", "../z", ""),
            (LINK, "./out/absent", "d/nothing", ""),
        ]))
        .unwrap();
        let mine = fs::metadata(host.path()).unwrap();
        for _ in 0..2 {
            received.write_into(host.path(), OsStr::new("name")).unwrap();
            assert_eq!(names(), ["name"]);
            assert_eq!(
                (text("name/z"), text("name/d/h"), text("name/d/up/d/l")),
                ("text".into(), "text".into(), "text".into())
            );
            assert_eq!(fs::read_link(path("name/absent")).unwrap(), Path::new("d/nothing"));
            for (name, is_file) in [("name/z", true), ("name/d/h", true), ("name/d", false)] {
                let metadata = fs::metadata(path(name)).unwrap();
                assert_eq!(metadata.mode() & 0o7022, 0, "{name}");
                assert_eq!((metadata.mode() & 0o700, metadata.uid()), (0o700, mine.uid()), "{name}");
                assert!(!is_file || metadata.mtime() == 1_000_000_000, "{name}");
            }
            // What was there stays, what is replaced is not written through.
            fs::write(path("name/mine"), "mine").unwrap();
            fs::remove_file(path("name/z")).unwrap();
            fs::write(elsewhere.path().join("file"), "theirs").unwrap();
            symlink(elsewhere.path().join("file"), path("name/z")).unwrap();
        }
        received.write_into(host.path(), OsStr::new("name")).unwrap();
        assert_eq!((text("name/mine"), text("name/z")), ("mine".into(), "text".into()));
        assert_eq!(fs::read_to_string(elsewhere.path().join("file")).unwrap(), "theirs");

        // A folder where a file was, the other way round, and a link where a folder was.
        fs::create_dir(path("other")).unwrap();
        fs::write(path("other/d"), "mine").unwrap();
        symlink(elsewhere.path(), path("link")).unwrap();
        fs::create_dir_all(path("folder/z")).unwrap();
        for (name, place, is_folder) in
            [("other", "other/d", false), ("link", "link", false), ("folder", "folder/z", true)]
        {
            let before = names();
            match received.write_into(host.path(), OsStr::new(name)) {
                Err(ReceiveError::Occupied { place: found, is_folder: there }) => {
                    assert_eq!((found.as_path(), there), (Path::new(place), is_folder));
                }
                done => panic!("{name}: {done:?}"),
            }
            assert_eq!(names(), before);
        }
        assert_eq!(path("other").read_dir().unwrap().count() + path("folder").read_dir().unwrap().count(), 2);
        assert_eq!(elsewhere.path().read_dir().unwrap().count(), 1);

        // What is in it, rather than the folder.
        fs::create_dir(path("new")).unwrap();
        received.write_into(&path("new"), OsStr::new("")).unwrap();
        assert_eq!(text("new/d/h"), "text");
        let file = Received::read(hostile(&[(FILE, "x", "", "text")])).unwrap();
        assert!(matches!(file.write_into(&path("new"), OsStr::new("")), Err(ReceiveError::Occupied { .. })));
        file.write_into(&path("new"), OsStr::new("y")).unwrap();
        assert_eq!(text("new/y"), "text");
    }
}
