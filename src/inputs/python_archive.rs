//! An interpreter in a tar archive, for bases that have none.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use sha2::{Digest, Sha256};

use crate::archive::hexadecimal;
use crate::diagnostic::Diagnostic;
use crate::plan::PlannedArchive;

/// A tar archive with one folder, which is an installation of `CPython` that runs wherever it lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PythonArchive {
    path: PathBuf,
    sha256: String,
    folder: String,
    version: String,
}

/// The largest `patchlevel.h` that is read, in bytes.
const MAX_HEADER: u64 = 100_000;

/// Why an archive is no interpreter.
#[derive(Debug, thiserror::Error)]
pub enum PythonArchiveError {
    /// It cannot be read.
    #[error("cannot read the Python archive `{}`", path.display())]
    Unreadable {
        /// The archive.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It holds something else.
    #[error("`{}` is no archive of a Python installation", .0.display())]
    NoPython(PathBuf),
}

impl PythonArchiveError {
    /// The refusal.
    #[must_use]
    pub fn diagnostic(&self) -> Diagnostic {
        let what = Diagnostic::new(self.to_string());
        match self {
            Self::Unreadable { source, .. } => {
                what.why(source.to_string()).advice("give a tar archive, compressed with gzip or not")
            }
            Self::NoPython(_) => what
                .why("expected one folder with `bin/python3` and `include/python3.N/patchlevel.h` inside")
                .advice("give an archive of python-build-standalone, of the kind `install_only`"),
        }
    }
}

impl PythonArchive {
    /// Reads what is in an archive.
    ///
    /// # Errors
    ///
    /// [`PythonArchiveError`].
    pub fn read(path: &Path) -> Result<Self, PythonArchiveError> {
        let unreadable = |source| PythonArchiveError::Unreadable { path: path.to_owned(), source };
        let mut file = File::open(path).map_err(unreadable)?;
        let sha256 = sha256(&mut file).map_err(unreadable)?;
        let mut magic = [0; 2];
        file.rewind().and_then(|()| file.read_exact(&mut magic)).map_err(unreadable)?;
        file.rewind().map_err(unreadable)?;
        let file = BufReader::new(file);
        let tar: Box<dyn Read> =
            if magic == [0x1f, 0x8b] { Box::new(GzDecoder::new(file)) } else { Box::new(file) };
        let found = contents(tar).map_err(unreadable)?;
        let (folder, version) = found.ok_or_else(|| PythonArchiveError::NoPython(path.to_owned()))?;
        Ok(Self { path: path.to_owned(), sha256, folder, version })
    }

    /// What a plan knows of it.
    #[must_use]
    pub fn planned(&self) -> PlannedArchive {
        let Self { folder, version, sha256, .. } = self.clone();
        PlannedArchive { folder, version, sha256 }
    }

    /// The archive on this host.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// SHA-256 of the archive, in hexadecimal digits.
    #[must_use]
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// The folder in the archive that is the installation.
    #[must_use]
    pub fn folder(&self) -> &str {
        &self.folder
    }

    /// The version of the interpreter, such as `3.12.8`.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }
}

/// The folder of an installation in a tar stream, and its version.
fn contents(tar: impl Read) -> io::Result<Option<(String, String)>> {
    let mut program = None;
    let mut version = None;
    for entry in tar::Archive::new(tar).entries()? {
        let entry = entry?;
        let path = entry.path()?.to_string_lossy().into_owned();
        let parts: Vec<_> = path.trim_start_matches("./").split('/').collect();
        match parts.as_slice() {
            [folder, "bin", "python3"] => program = Some((*folder).to_owned()),
            [_, "include", _, "patchlevel.h"] => {
                let mut text = String::new();
                entry.take(MAX_HEADER).read_to_string(&mut text)?;
                version = version_in(&text);
            }
            _ => {}
        }
    }
    let plain = |folder: &String| {
        folder.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._+-".contains(&byte))
            && !folder.starts_with('.')
    };
    Ok(program.filter(plain).zip(version))
}

/// The version of `PY_VERSION` in `patchlevel.h`, without what follows its numbers.
fn version_in(header: &str) -> Option<String> {
    let define = header.lines().find_map(|line| line.strip_prefix("#define PY_VERSION"))?;
    let text = define.trim().trim_matches('"');
    let numbers = text.trim_end_matches('+');
    let plain =
        numbers.split('.').count() == 3 && numbers.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    plain.then(|| numbers.to_owned())
}

fn sha256(file: &mut File) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hexadecimal(&hash.finalize())),
            read => hash.update(&buffer[..read]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::Archive;

    #[test]
    fn an_installation_is_told_from_anything_else() {
        let folder = tempfile::tempdir().unwrap();
        let read = |files: &[(&str, &str)]| {
            let mut archive = Archive::default();
            for (path, text) in files {
                archive.add(path, *text);
            }
            let path = folder.path().join("python.tar");
            archive.write_to(File::create(&path).unwrap()).unwrap();
            PythonArchive::read(&path)
        };
        let header = "#define PY_MAJOR_VERSION 3\n#define PY_VERSION \t\"3.12.8\"\n";
        let program = ("python/bin/python3", "");
        let found = read(&[program, ("python/include/python3.12/patchlevel.h", header)]).unwrap();
        assert_eq!((found.folder(), found.version()), ("python", "3.12.8"));
        for files in [&[program][..], &[("python/include/python3.12/patchlevel.h", header)], &[("a", "")]] {
            assert!(matches!(read(files), Err(PythonArchiveError::NoPython(_))), "for {files:?}");
        }
        std::fs::write(folder.path().join("x"), "no tar at all").unwrap();
        assert!(PythonArchive::read(&folder.path().join("x")).is_err());
    }
}
