//! The folder of somebody's Dockerfile, as a build gets it.

mod ignore;

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::hashes::{Hashes, KnownHashes};
use super::local::LocalError;
use crate::archive::{Archive, hexadecimal};
use ignore::Ignored;

/// A Dockerfile and its folder.
#[derive(Debug)]
pub struct BuildFolder {
    /// What the build gets.
    pub context: Archive,
    /// The name of the Dockerfile in it.
    pub dockerfile: String,
    /// SHA-256 over paths, modes and contents, in hexadecimal digits.
    pub digest: String,
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
        let root = fs::canonicalize(folder).map_err(unreadable)?;
        let mut own = root.join(name).into_os_string();
        own.push(".dockerignore");
        let ignored = [PathBuf::from(own), root.join(".dockerignore")].into_iter().find_map(|file| {
            match fs::read_to_string(&file) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(source) => Some(Err(LocalError::Unreadable { path: file, source })),
                Ok(text) => Some(Ok(Ignored::parse(&text))),
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
        };
        walk.add(&root, "")?;
        walk.hashes.keep();
        walk.digest.update(name);
        let digest = hexadecimal(&walk.digest.finalize());
        Ok(Self { context: walk.context, dockerfile: name.to_owned(), digest })
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
}

impl Walk<'_> {
    /// Adds what is in a folder, whose path below the root is `prefix`, in the order of names.
    fn add(&mut self, folder: &Path, prefix: &str) -> Result<(), LocalError> {
        let unreadable = |source| LocalError::Unreadable { path: folder.to_owned(), source };
        let mut entries =
            folder.read_dir().and_then(Iterator::collect::<io::Result<Vec<_>>>).map_err(unreadable)?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = entry.path();
            let unpackable = |why| LocalError::Unpackable { path: path.clone(), why };
            let unreadable = |source| LocalError::Unreadable { path: path.clone(), source };
            let Ok(name) = entry.file_name().into_string() else {
                return Err(unpackable("its name is not UTF-8"));
            };
            let name = format!("{prefix}{name}");
            let metadata = entry.metadata().map_err(unreadable)?;
            // Engines read the Dockerfile from the context.
            let is_out = name != self.dockerfile && self.ignored.leaves_out(&name);
            if metadata.is_dir() {
                if !is_out || self.ignored.has_exceptions() {
                    if !is_out {
                        let mode = metadata.permissions().mode() & 0o7777;
                        self.context.add_directory(&name, mode, crate::archive::Owner::default());
                        self.digest.update(format!("{name}/\0{mode:o}\0"));
                    }
                    self.add(&path, &format!("{name}/"))?;
                }
                continue;
            }
            if is_out {
                continue;
            }
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
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let tar = first.context;
        let tar = {
            fs::write(folder.path().join("bot/src/a.py"), "a = 1").unwrap();
            tar.to_tar().unwrap()
        };
        let mut archive = tar::Archive::new(tar.as_slice());
        let entries: Vec<String> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let link = entry.link_name().unwrap().map(|to| format!(" -> {}", to.display()));
                format!("{}{}", entry.path().unwrap().display(), link.unwrap_or_default())
            })
            .collect();
        assert_eq!(entries, [".dockerignore", "Dockerfile", "link -> /etc/passwd", "src/", "src/a.py"]);
        assert!(BuildFolder::read(folder.path(), &KnownHashes::none()).is_err());
    }
}
