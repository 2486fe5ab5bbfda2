//! The files images are made of: Dockerfile templates and what ends up inside an image, shipped in
//! the binary or read from a folder that replaces them.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::archive::hexadecimal;
use crate::diagnostic::Document;

/// Files by their path below `templates/`, with `/` between folders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Templates(BTreeMap<String, String>);

macro_rules! shipped {
    ($($path:literal),* $(,)?) => {
        &[$(($path, include_str!(concat!("../../templates/", $path)))),*]
    };
}

const SHIPPED: &[(&str, &str)] = shipped![
    "server.tera",
    "extend.tera",
    "apt.tera",
    "began.tera",
    "compile.tera",
    "copies.tera",
    "head.tera",
    "fetched.tera",
    "index.tera",
    "installed.tera",
    "lib.tera",
    "login.tera",
    "mounts.tera",
    "notes.tera",
    "resolve.tera",
    "step.tera",
    "trust.tera",
    "uv-env.tera",
    "wheels.tera",
    "build/as_user.py",
    "build/compile.py",
    "build/copy.py",
    "build/hashes.py",
    "build/index.py",
    "build/look.py",
    "build/wheel.py",
    "runtime/activate.sh",
    "runtime/executor.txt",
    "runtime/gateway.txt",
    "runtime/health.sh",
    "runtime/init-firewall.sh",
    "runtime/ipybox/__init__.py",
    "runtime/ipybox/channels.py",
    "runtime/ipybox/executor/__init__.py",
    "runtime/ipybox/executor/bash.py",
    "runtime/ipybox/executor/guest.py",
    "runtime/ipybox/executor/kernels.py",
    "runtime/ipybox/executor/output.py",
    "runtime/ipybox/executor/server.py",
    "runtime/ipybox/health.py",
    "runtime/ipybox/kernel.py",
    "runtime/ipybox/mcp/__init__.py",
    "runtime/ipybox/mcp/generate.py",
    "runtime/ipybox/mcp/run.py",
    "runtime/ipybox/mcp/tools.py",
    "runtime/ipybox/modinfo.py",
    "runtime/ipybox/resource/__init__.py",
    "runtime/ipybox/resource/app.py",
    "runtime/ipybox/resource/server.py",
    "runtime/ipybox/supervisor.py",
    "runtime/jupyter_kernel_gateway_config.py",
    "runtime/kernel.json",
    "runtime/profile.sh",
    "runtime/server.txt",
];

/// The largest file that is read, in bytes.
const MAX_BYTES: u64 = 4_000_000;

impl Templates {
    /// The files in the binary.
    #[must_use]
    pub fn shipped() -> Self {
        let owned = |&(path, text): &(&str, &str)| (path.to_owned(), text.to_owned());
        Self(SHIPPED.iter().map(owned).collect())
    }

    /// The files of a folder laid out like `templates/`, which may have some of them, further `*.tera` and further
    /// requirements in `runtime/`; what it has not is the shipped one.
    ///
    /// # Errors
    ///
    /// The path of the first file that cannot be read, with the reason.
    pub fn read(folder: &Path) -> Result<Self, (PathBuf, io::Error)> {
        let Self(mut files) = Self::shipped();
        let known: Vec<String> = SHIPPED.iter().map(|(path, _)| (*path).to_owned()).collect();
        let further =
            [("", "tera"), ("runtime", "txt")].map(|(inside, ending)| found(folder, inside, ending));
        let mut own: Vec<String> = known.into_iter().filter(|path| folder.join(path).exists()).collect();
        for paths in further {
            own.extend(paths?);
        }
        if own.is_empty() {
            let none = io::Error::new(io::ErrorKind::NotFound, "there is no template in it");
            return Err((folder.to_owned(), none));
        }
        for path in own {
            let text = read(&folder.join(&path))?;
            files.insert(path, text);
        }
        Ok(Self(files))
    }

    /// The shipped files that these replace.
    pub fn replaced(&self) -> impl Iterator<Item = &'static str> {
        SHIPPED.iter().filter(|(path, text)| self.get(path) != Some(text)).map(|(path, _)| *path)
    }

    /// The text of one file.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&str> {
        self.0.get(path).map(String::as_str)
    }

    /// The files that a variant's `lock` can name.
    pub fn locks(&self) -> impl Iterator<Item = &str> {
        let inside = self.0.keys().filter_map(|path| path.strip_prefix("runtime/"));
        inside.filter(|name| {
            Path::new(name).extension().is_some_and(|ending| ending == "txt") && !name.contains('/')
        })
    }

    /// SHA-256 over all files with their paths, in hexadecimal digits.
    #[must_use]
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        for (path, text) in &self.0 {
            hash.update(format!("{path}\n{}\n", text.len()));
            hash.update(text);
        }
        hexadecimal(&hash.finalize())
    }

    /// The modules of the package `ipybox` in images: paths below `runtime/`, and texts.
    pub fn modules(&self) -> impl Iterator<Item = (&str, &str)> {
        let entries = self.0.iter().map(|(path, text)| (path.as_str(), text.as_str()));
        entries.filter_map(|(path, text)| {
            let path = path.strip_prefix("runtime/")?;
            path.starts_with("ipybox/").then_some((path, text))
        })
    }

    /// The Dockerfile templates, by name.
    pub fn dockerfiles(&self) -> impl Iterator<Item = (&str, &str)> {
        let entries = self.0.iter().map(|(path, text)| (path.as_str(), text.as_str()));
        entries.filter(|(path, _)| Path::new(path).extension().is_some_and(|extension| extension == "tera"))
    }
}

/// The files of a folder whose names have an ending, by their paths below `root`.
fn found(root: &Path, inside: &str, ending: &str) -> Result<Vec<String>, (PathBuf, io::Error)> {
    let folder = root.join(inside);
    let entries = match folder.read_dir() {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !inside.is_empty() => return Ok(Vec::new()),
        entries => entries,
    };
    let unreadable = |error| (folder.clone(), error);
    let mut paths = Vec::new();
    for entry in entries.map_err(unreadable)? {
        let file = entry.map_err(unreadable)?.path();
        if file.extension().is_some_and(|found| found == ending)
            && let Some(name) = file.file_name().and_then(|name| name.to_str())
        {
            paths.push(if inside.is_empty() { name.to_owned() } else { format!("{inside}/{name}") });
        }
    }
    Ok(paths)
}

fn read(file: &Path) -> Result<String, (PathBuf, io::Error)> {
    match Document::read(file, MAX_BYTES) {
        Ok(document) => Ok(document.text),
        Err(error) => Err((file.to_owned(), error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_may_have_some_of_the_files_and_more() {
        let folder = tempfile::tempdir().unwrap();
        let unreadable = Templates::read(folder.path()).unwrap_err();
        assert!(unreadable.1.to_string().contains("no template"));
        std::fs::create_dir(folder.path().join("runtime")).unwrap();
        for (path, text) in [("runtime/mine.txt", "a==1"), ("mine.tera", "FROM x"), ("apt.tera", "# mine")] {
            std::fs::write(folder.path().join(path), text).unwrap();
        }
        let templates = Templates::read(folder.path()).unwrap();
        assert_eq!(templates.get("runtime/mine.txt"), Some("a==1"));
        assert_eq!(templates.get("mine.tera"), Some("FROM x"));
        assert_eq!(templates.get("server.tera"), Templates::shipped().get("server.tera"));
        assert_eq!(templates.replaced().collect::<Vec<_>>(), ["apt.tera"]);
        assert_eq!(
            templates.locks().collect::<Vec<_>>(),
            ["executor.txt", "gateway.txt", "mine.txt", "server.txt"]
        );
        assert_ne!(templates.digest(), Templates::shipped().digest());
    }
}
