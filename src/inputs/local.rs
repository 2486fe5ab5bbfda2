//! Files of this host that get into a build: dependencies from a folder, an archive or a repository, and what is
//! copied into an image.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::hashes::{Hashes, KnownHashes};
use crate::archive::hexadecimal;
use crate::deps::is_distribution;
use crate::diagnostic::Diagnostic;
use crate::plan::Files;

/// Files by path, with what they are worth to a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalSource {
    /// Sorted by path.
    files: Vec<LocalFile>,
    /// Whether it is one archive.
    is_file: bool,
    digest: String,
    commit: Option<String>,
}

/// A file of this host, as it was when it was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalFile {
    /// Its path below the folder, with `/` between parts.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// Its permissions in an image.
    pub mode: u32,
    /// Its size, in bytes.
    pub size: u64,
    /// SHA-256 of what is in it.
    pub sha256: [u8; 32],
}

/// Files that a project may have, at most.
const MAX_FILES: usize = 100_000;

/// Why the files of a dependency cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// The path is not there, or cannot be read.
    #[error("cannot read `{}`", path.display())]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is neither a wheel nor a source archive.
    #[error("`{}` is no distribution", .0.display())]
    NoDistribution(PathBuf),
    /// The folder has neither `pyproject.toml` nor `setup.py`.
    #[error("`{}` is no Python project", .0.display())]
    NoProject(PathBuf),
    /// A path or a link leads out of the folder it may speak of.
    #[error("`{}` leads out of its folder", .0.display())]
    Escapes(PathBuf),
    /// What a build cannot take: a name that is not UTF-8, too many files, or a link that cannot be followed.
    #[error("`{}` cannot be packed", path.display())]
    Unpackable {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        why: &'static str,
    },
    /// A line of a `.dockerignore` says nothing, or not what it seems to.
    #[error("line {line} of `{}` is no pattern", path.display())]
    NoPattern {
        /// The file.
        path: PathBuf,
        /// The number of the line, from 1.
        line: usize,
        /// Why.
        why: &'static str,
        /// What to do.
        fix: &'static str,
    },
}

impl LocalError {
    /// The refusal.
    #[must_use]
    pub fn diagnostic(&self) -> Diagnostic {
        let what = Diagnostic::new(self.to_string());
        match self {
            Self::Unreadable { source, .. } if source.kind() == io::ErrorKind::NotFound => what
                .why("there is no such file or folder")
                .advice("correct the path; in a file it is relative to that file's folder"),
            Self::Unreadable { source, .. } => what.why(source.to_string()).advice("make it readable"),
            Self::NoDistribution(_) => what
                .why("its name ends neither in `.whl` nor in `.tar.gz` or `.zip`")
                .advice("name a wheel, a source archive or a folder"),
            Self::NoProject(_) => what
                .why("it has neither `pyproject.toml` nor `setup.py`")
                .advice("correct the path, or add `subdirectory`"),
            Self::Escapes(_) => {
                what.why("what it leads to would get into the build").advice("copy the file into the folder")
            }
            Self::Unpackable { why, .. } => what.why(*why).advice("keep it out of the folder, or change it"),
            Self::NoPattern { why, fix, .. } => what.why(*why).advice(*fix),
        }
    }
}

impl LocalSource {
    /// What a plan knows of them.
    #[must_use]
    pub fn planned(&self) -> Files {
        Files {
            digest: self.digest.clone(),
            file: self.file().map(str::to_owned),
            commit: self.commit.clone(),
        }
    }

    /// Reads what is at `path`: a wheel, a source archive, or a folder whose `subdirectory` holds a
    /// project. Version control, virtual environments and caches are left out of folders.
    ///
    /// # Errors
    ///
    /// [`LocalError`].
    pub fn read(path: &Path, subdirectory: Option<&str>, known: &KnownHashes) -> Result<Self, LocalError> {
        let unreadable = |source| LocalError::Unreadable { path: path.to_owned(), source };
        let metadata = fs::metadata(path).map_err(unreadable)?;
        let mut files = Vec::new();
        if metadata.is_dir() {
            let project = path.join(subdirectory.unwrap_or_default());
            let root = fs::canonicalize(path).map_err(unreadable)?;
            let inside = fs::canonicalize(&project)
                .map_err(|source| LocalError::Unreadable { path: project.clone(), source })?;
            if !inside.starts_with(&root) {
                return Err(LocalError::Escapes(project));
            }
            if !["pyproject.toml", "setup.py"].iter().any(|file| project.join(file).is_file()) {
                return Err(LocalError::NoProject(project));
            }
            collect(&root, &root, "", Which::Sources, &mut files)?;
        } else {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._+-!".contains(&byte));
            if !(is_distribution(name) && plain) {
                return Err(LocalError::NoDistribution(path.to_owned()));
            }
            files.push(Found {
                name: name.to_owned(),
                path: path.to_owned(),
                mode: 0o644,
                metadata: metadata.clone(),
            });
        }
        Self::of(files, !metadata.is_dir(), known.of(path))
    }

    /// Reads a file, or a folder with everything in it.
    ///
    /// # Errors
    ///
    /// [`LocalError`].
    pub fn read_all(path: &Path, known: &KnownHashes) -> Result<Self, LocalError> {
        let unreadable = |source| LocalError::Unreadable { path: path.to_owned(), source };
        let metadata = fs::metadata(path).map_err(unreadable)?;
        let mut files = Vec::new();
        if metadata.is_dir() {
            let root = fs::canonicalize(path).map_err(unreadable)?;
            collect(&root, &root, "", Which::All, &mut files)?;
        } else if !metadata.is_file() {
            return Err(LocalError::Unpackable {
                path: path.to_owned(),
                why: "it is neither a file nor a folder",
            });
        } else {
            let name = fs::canonicalize(path).map_err(unreadable)?;
            let Some(name) = name.file_name().and_then(|name| name.to_str()) else {
                return Err(LocalError::Unpackable { path: path.to_owned(), why: "its name is not UTF-8" });
            };
            let mode = mode(&metadata);
            files.push(Found {
                name: name.to_owned(),
                path: path.to_owned(),
                mode,
                metadata: metadata.clone(),
            });
        }
        Self::of(files, !metadata.is_dir(), known.of(path))
    }

    /// As [`Self::read_all`], where the path lies in `folder`.
    ///
    /// # Errors
    ///
    /// [`LocalError`].
    pub fn read_inside(folder: &Path, path: &Path, known: &KnownHashes) -> Result<Self, LocalError> {
        let path = folder.join(path);
        let real = |path: &Path| {
            fs::canonicalize(path).map_err(|source| LocalError::Unreadable { path: path.to_owned(), source })
        };
        if real(&path)?.starts_with(real(folder)?) {
            Self::read_all(&path, known)
        } else {
            Err(LocalError::Escapes(path))
        }
    }

    fn of(mut found: Vec<Found>, is_file: bool, mut hashes: Hashes) -> Result<Self, LocalError> {
        found.sort_by(|one, other| one.name.cmp(&other.name));
        let files = looked_at(found, &mut hashes)?;
        hashes.keep();
        let digest = digest(&files);
        Ok(Self { files, is_file, digest, commit: None })
    }

    /// The same files, of a commit.
    #[must_use]
    pub fn at_commit(self, commit: String) -> Self {
        Self { commit: Some(commit), ..self }
    }

    /// The files, sorted by path.
    #[must_use]
    pub fn files(&self) -> &[LocalFile] {
        &self.files
    }

    /// The name of the one file it is; `None` for a folder.
    #[must_use]
    pub fn file(&self) -> Option<&str> {
        self.files.first().filter(|_| self.is_file).map(|file| file.name.as_str())
    }

    /// SHA-256 over paths, modes and contents, in hexadecimal digits.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The commit, where it is of a repository.
    #[must_use]
    pub fn commit(&self) -> Option<&str> {
        self.commit.as_deref()
    }
}

/// A file that is there.
struct Found {
    name: String,
    path: PathBuf,
    mode: u32,
    metadata: fs::Metadata,
}

/// Which files of a folder count.
#[derive(Debug, Clone, Copy)]
enum Which {
    /// Those of a project that are its source.
    Sources,
    All,
}

/// Adds the files below `folder`, whose path below `root` is `prefix`.
fn collect(
    root: &Path,
    folder: &Path,
    prefix: &str,
    which: Which,
    files: &mut Vec<Found>,
) -> Result<(), LocalError> {
    let unreadable = |source| LocalError::Unreadable { path: folder.to_owned(), source };
    for entry in folder.read_dir().map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let path = entry.path();
        let Ok(name) = entry.file_name().into_string() else {
            return Err(LocalError::Unpackable { path, why: "its name is not UTF-8" });
        };
        let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
        // Links to nothing are leftovers of editors; links to folders could lead around in a circle.
        // What is no link is where it is found, since the folder is.
        let target = if is_link { fs::canonicalize(&path) } else { Ok(path.clone()) };
        let target = match (target, which) {
            (Ok(target), Which::Sources) if is_left_out(&name, &path) || is_link && target.is_dir() => {
                continue;
            }
            (Ok(target), Which::All) if is_link && target.is_dir() => {
                return Err(LocalError::Unpackable { path, why: "it is a link to a folder" });
            }
            (Ok(target), _) => target,
            (Err(_), Which::Sources) => continue,
            (Err(_), Which::All) => return Err(LocalError::Unpackable { path, why: "it leads nowhere" }),
        };
        if !target.starts_with(root) {
            return Err(LocalError::Escapes(path));
        }
        let metadata = if is_link { fs::metadata(&path) } else { entry.metadata() };
        let metadata = metadata.map_err(|source| LocalError::Unreadable { path: path.clone(), source })?;
        let relative = format!("{prefix}{name}");
        if metadata.is_dir() {
            collect(root, &path, &format!("{relative}/"), which, files)?;
        } else if metadata.is_file() {
            if files.len() == MAX_FILES {
                return Err(LocalError::Unpackable {
                    path: root.to_owned(),
                    why: "it holds more than 100,000 files",
                });
            }
            files.push(Found { name: relative, path, mode: mode(&metadata), metadata });
        } else if let Which::All = which {
            return Err(LocalError::Unpackable { path, why: "it is neither a file nor a folder" });
        }
    }
    Ok(())
}

fn mode(metadata: &fs::Metadata) -> u32 {
    if metadata.permissions().mode() & 0o100 == 0 { 0o644 } else { 0o755 }
}

/// What is no part of a project's source.
///
/// Rule: `CACHEDIR.TAG` marks caches (Cache Directory Tagging Specification), `pyvenv.cfg` virtual
/// environments (PEP 405).
fn is_left_out(name: &str, folder: &Path) -> bool {
    name.to_ascii_lowercase().ends_with(".pyc")
        || [".git", ".hg", ".svn", "__pycache__", "node_modules", ".nox", ".tox"].contains(&name)
        || ["CACHEDIR.TAG", "pyvenv.cfg"].iter().any(|mark| folder.join(mark).is_file())
}

/// Looks at files, by their names, paths and modes.
fn looked_at(found: Vec<Found>, hashes: &mut Hashes) -> Result<Vec<LocalFile>, LocalError> {
    let mut buffer = vec![0; 64 << 10];
    let mut look = |Found { name, path, mode, metadata }| {
        let unreadable = |source| LocalError::Unreadable { path: path.clone(), source };
        let (size, sha256) = hashes.look(&path, &metadata, &mut buffer).map_err(unreadable)?;
        Ok(LocalFile { name, path, mode, size, sha256 })
    };
    found.into_iter().map(&mut look).collect()
}

fn digest(files: &[LocalFile]) -> String {
    let mut all = Sha256::new();
    for LocalFile { name, mode, sha256, .. } in files {
        all.update(format!("{name}\0{mode:o}\0"));
        all.update(sha256);
    }
    hexadecimal(&all.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in [
            ("pyproject.toml", ""),
            ("src/a.py", "a = 1"),
            (".git/config", ""),
            (".venv/pyvenv.cfg", ""),
            ("target/CACHEDIR.TAG", ""),
            ("src/__pycache__/a.pyc", ""),
        ] {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    #[test]
    fn only_sources_of_a_project_count() {
        let folder = project();
        let source = LocalSource::read(folder.path(), None, &KnownHashes::none()).unwrap();
        assert_eq!(
            source.files().iter().map(|file| file.name.as_str()).collect::<Vec<_>>(),
            ["pyproject.toml", "src/a.py"]
        );
        fs::write(folder.path().join(".git/HEAD"), "x").unwrap();
        assert_eq!(LocalSource::read(folder.path(), None, &KnownHashes::none()).unwrap(), source);
        fs::write(folder.path().join("src/a.py"), "a = 2").unwrap();
        assert_ne!(
            LocalSource::read(folder.path(), None, &KnownHashes::none()).unwrap().digest(),
            source.digest()
        );
    }

    #[test]
    fn what_is_no_file_is_refused_and_not_waited_for() {
        let folder = project();
        let fifo = folder.path().join("src/fifo");
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        for path in [fifo.as_path(), folder.path()] {
            let refused = LocalSource::read_all(path, &KnownHashes::none()).unwrap_err();
            assert!(matches!(refused, LocalError::Unpackable { path, .. } if path == fifo));
        }
        assert!(LocalSource::read_all(Path::new("/dev/null"), &KnownHashes::none()).is_err());
    }

    #[test]
    fn nothing_outside_a_project_is_read() {
        let folder = project();
        std::os::unix::fs::symlink("/etc/passwd", folder.path().join("src/passwd")).unwrap();
        assert!(matches!(
            LocalSource::read(folder.path(), None, &KnownHashes::none()),
            Err(LocalError::Escapes(_))
        ));
        fs::remove_file(folder.path().join("src/passwd")).unwrap();
        assert!(matches!(
            LocalSource::read(folder.path(), Some(".."), &KnownHashes::none()),
            Err(LocalError::Escapes(_))
        ));
        assert!(matches!(
            LocalSource::read(folder.path(), Some("src"), &KnownHashes::none()),
            Err(LocalError::NoProject(_))
        ));
        assert!(LocalSource::read(Path::new("/etc/passwd"), None, &KnownHashes::none()).is_err());
    }
}
