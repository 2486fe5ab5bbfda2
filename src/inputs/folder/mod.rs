//! The folder of somebody's Dockerfile, as a build gets it.

mod ignore;
mod images;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::hashes::{Hashes, KnownHashes};
use super::local::LocalError;
use crate::archive::{Archive, hexadecimal};
use ignore::{BadLine, Ignored, Seen};

/// A Dockerfile and its folder.
#[derive(Debug)]
pub struct BuildFolder {
    /// What the build gets.
    pub context: Archive,
    /// The name of the Dockerfile in it.
    pub dockerfile: String,
    /// SHA-256 over paths, modes and contents, in hexadecimal digits.
    pub digest: String,
    /// The images that the Dockerfile is built on or copies from.
    pub images: BTreeSet<String>,
}

/// Files that a context may have, at most.
const MAX_FILES: usize = 200_000;

impl BuildFolder {
    /// Reads the folder of a Dockerfile, without what its `.dockerignore` leaves out.
    ///
    /// Links stay links, as with Docker's client: they are followed in the build, where nothing of this host is.
    ///
    /// # Errors
    ///
    /// [`LocalError`].
    pub fn read(dockerfile: &Path, known: &KnownHashes) -> Result<Self, LocalError> {
        let unreadable = |source| LocalError::Unreadable { path: dockerfile.to_owned(), source };
        let folder = match dockerfile.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        if !fs::metadata(dockerfile).map_err(unreadable)?.is_file() {
            let why = "it is no Dockerfile, which is a file";
            return Err(LocalError::Unpackable { path: dockerfile.to_owned(), why });
        }
        let name = dockerfile.file_name().and_then(|name| name.to_str()).ok_or_else(|| {
            LocalError::Unpackable { path: dockerfile.to_owned(), why: "its name is not UTF-8" }
        })?;
        let images = images::images(&String::from_utf8_lossy(&fs::read(dockerfile).map_err(unreadable)?));
        let root = fs::canonicalize(folder).map_err(unreadable)?;
        let mut own = root.join(name).into_os_string();
        own.push(".dockerignore");
        let ignored = [PathBuf::from(own), root.join(".dockerignore")].into_iter().find_map(|file| {
            match fs::read_to_string(&file) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(source) => Some(Err(LocalError::Unreadable { path: file, source })),
                Ok(text) => Some(Ignored::parse(&text).map_err(|BadLine { line, mistake }| {
                    LocalError::NoPattern { path: file, line, why: mistake.why, fix: mistake.fix }
                })),
            }
        });
        let mut walk = Walk {
            root: &root,
            dockerfile: name,
            ignored: ignored.transpose()?.unwrap_or_default(),
            hashes: known.of(&root),
            buffer: vec![0; 64 << 10],
            context: Archive::default(),
            digest: Sha256::new(),
            count: 0,
            parents: Vec::new(),
        };
        walk.add(&root, "", &Seen::default())?;
        walk.hashes.keep();
        walk.digest.update(name);
        let digest = hexadecimal(&walk.digest.finalize());
        Ok(Self { context: walk.context, dockerfile: name.to_owned(), digest, images })
    }
}

struct Walk<'a> {
    root: &'a Path,
    dockerfile: &'a str,
    ignored: Ignored,
    hashes: Hashes,
    buffer: Vec<u8>,
    context: Archive,
    digest: Sha256,
    count: usize,
    /// Folders around the present one that are left out unless something in them is kept, with their modes.
    parents: Vec<(String, u32)>,
}

impl Walk<'_> {
    /// Adds what is in a folder, whose path below the root is `prefix`, in the order of names.
    fn add(&mut self, folder: &Path, prefix: &str, seen: &Seen) -> Result<(), LocalError> {
        let mut entries = match folder.read_dir().and_then(Iterator::collect::<io::Result<Vec<_>>>) {
            Ok(entries) => entries,
            Err(error) if seen.is_out && error.kind() == io::ErrorKind::PermissionDenied => return Ok(()),
            Err(source) => return Err(LocalError::Unreadable { path: folder.to_owned(), source }),
        };
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = entry.path();
            let unpackable = |why| LocalError::Unpackable { path: path.clone(), why };
            let unreadable = |source| LocalError::Unreadable { path: path.clone(), source };
            let file_name = entry.file_name();
            let name = format!("{prefix}{}", file_name.to_string_lossy());
            let metadata = entry.metadata().map_err(unreadable)?;
            let seen = self.ignored.look(&name, seen);
            // Engines read the Dockerfile from the context.
            let is_needed =
                name == self.dockerfile || metadata.is_dir() && self.ignored.may_keep_below(&name);
            if seen.is_out && !is_needed {
                continue;
            }
            if file_name.to_str().is_none() {
                return Err(unpackable("its name is not UTF-8"));
            }
            if metadata.is_dir() {
                let around = self.parents.len();
                self.parents.push((name.clone(), metadata.permissions().mode() & 0o7777));
                if !seen.is_out {
                    self.add_parents();
                }
                self.add(&path, &format!("{name}/"), &seen)?;
                self.parents.truncate(around);
                continue;
            }
            self.add_parents();
            self.count += 1;
            if self.count > MAX_FILES {
                let why = "it holds more than 200,000 files; leave some out in `.dockerignore`";
                return Err(LocalError::Unpackable { path: self.root.to_owned(), why });
            }
            if metadata.is_symlink() {
                let target = fs::read_link(&path).map_err(unreadable)?;
                let Some(target) = target.to_str() else {
                    return Err(unpackable("it leads to what is not UTF-8"));
                };
                self.context.add_link(&name, target);
                self.digest.update(format!("{name}@\0{target}\0"));
            } else if metadata.is_file() {
                let mode = metadata.permissions().mode() & 0o7777;
                let (size, sha256) =
                    self.hashes.look(&path, &metadata, &mut self.buffer).map_err(unreadable)?;
                self.context.add_seen_file(&name, mode, &path, size);
                self.digest.update(format!("{name}\0{mode:o}\0"));
                self.digest.update(sha256);
            }
            // Sockets and their like get into no image.
        }
        Ok(())
    }

    /// Adds the folders that what is added next is in.
    fn add_parents(&mut self) {
        for (name, mode) in self.parents.drain(..) {
            self.context.add_directory(&name, mode, crate::archive::Owner::default());
            self.digest.update(format!("{name}/\0{mode:o}\0"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Paths and modes in a context.
    fn listing(read: &BuildFolder) -> Vec<String> {
        let tar = read.context.to_tar().unwrap();
        let mut archive = tar::Archive::new(tar.as_slice());
        let entries = archive.entries().unwrap().map(|entry| {
            let entry = entry.unwrap();
            let link = entry.link_name().unwrap().map(|to| format!(" -> {}", to.display()));
            let mode = entry.header().mode().unwrap();
            format!("{}{} {mode:o}", entry.path().unwrap().display(), link.unwrap_or_default())
        });
        entries.collect()
    }

    #[test]
    fn a_folder_is_what_counts_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        for (path, text) in [
            ("bot/Dockerfile", "FROM x"),
            ("bot/.dockerignore", "*.log\nDockerfile\n"),
            ("bot/a.log", "1"),
            ("bot/src/a.py", "a = 1"),
        ] {
            write(path, text);
        }
        std::os::unix::fs::symlink("/etc/passwd", folder.path().join("bot/link")).unwrap();
        let read = || BuildFolder::read(&folder.path().join("bot/Dockerfile"), &KnownHashes::none()).unwrap();
        let first = read();
        write("bot/a.log", "2");
        assert_eq!(read().digest, first.digest);
        write("bot/src/a.py", "a = 2");
        assert_ne!(read().digest, first.digest);
        fs::write(folder.path().join("bot/src/a.py"), "a = 1").unwrap();
        assert_eq!(
            listing(&first),
            [".dockerignore 644", "Dockerfile 644", "link -> /etc/passwd 777", "src/ 755", "src/a.py 644"]
        );
        assert!(BuildFolder::read(folder.path(), &KnownHashes::none()).is_err());
    }

    #[test]
    fn folders_are_kept_with_what_is_kept_in_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = |path: &str| folder.path().join(path);
        for (file, text) in [
            ("Dockerfile", "FROM x"),
            (".dockerignore", "*\n!keep/**\n!a/b/x\n"),
            ("keep/c/d", ""),
            ("keep/e", ""),
            ("a/b/x", ""),
            ("a/b/y", ""),
            ("a/c", ""),
            ("else/keep/x", ""),
        ] {
            fs::create_dir_all(path(file).parent().unwrap()).unwrap();
            fs::write(path(file), text).unwrap();
        }
        let odd = std::os::unix::ffi::OsStrExt::from_bytes(b"else/\xff");
        fs::write(folder.path().join(Path::new::<std::ffi::OsStr>(odd)), "").unwrap();
        for (folder, mode) in [("keep", 0o750), ("a", 0o711), ("a/b", 0o700)] {
            fs::set_permissions(path(folder), fs::Permissions::from_mode(mode)).unwrap();
        }
        let read = || BuildFolder::read(&path("Dockerfile"), &KnownHashes::none());
        assert_eq!(
            listing(&read().unwrap()),
            [
                "Dockerfile 644",
                "a/ 711",
                "a/b/ 700",
                "a/b/x 644",
                "keep/ 750",
                "keep/c/ 755",
                "keep/c/d 644",
                "keep/e 644"
            ]
        );
        fs::write(path(".dockerignore"), "*\n!**/d\n").unwrap();
        assert_eq!(listing(&read().unwrap()), ["Dockerfile 644", "keep/ 750", "keep/c/ 755", "keep/c/d 644"]);
        fs::write(path(".dockerignore"), "!else\n").unwrap();
        assert!(matches!(read(), Err(LocalError::Unpackable { .. })));
        fs::write(path("Dockerfile.dockerignore"), "*\n[\n").unwrap();
        let refused = read().unwrap_err().diagnostic();
        assert!(refused.what.starts_with("line 2 of `"), "{refused:?}");
        assert!(refused.what.ends_with("/Dockerfile.dockerignore` is no pattern"), "{refused:?}");
        assert_eq!(refused.why, "its `[` is not closed");
    }
}
