//! The files images are made of: Dockerfile templates and what ends up inside an image, shipped in
//! the binary or read from a folder that replaces them.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

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
    "copies.tera",
    "head.tera",
    "lib.tera",
    "mounts.tera",
    "notes.tera",
    "resolve.tera",
    "step.tera",
    "trust.tera",
    "uv-env.tera",
    "wheels.tera",
    "build/as_user.py",
    "build/copy.py",
    "build/hashes.py",
    "runtime/executor.txt",
    "runtime/gateway.txt",
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

    /// The same files from a folder laid out like `templates/`, with any further `*.tera` in it.
    ///
    /// # Errors
    ///
    /// The path of the first file that cannot be read, with the reason.
    pub fn read(folder: &Path) -> Result<Self, (PathBuf, io::Error)> {
        let mut files = BTreeMap::new();
        for (path, _) in SHIPPED {
            let file = folder.join(path);
            let text = read(&file)?;
            files.insert((*path).to_owned(), text);
        }
        let unreadable = |error| (folder.to_owned(), error);
        for entry in folder.read_dir().map_err(unreadable)? {
            let file = entry.map_err(unreadable)?.path();
            if file.extension().is_some_and(|extension| extension == "tera")
                && let Some(name) = file.file_name().and_then(|name| name.to_str())
            {
                let text = read(&file)?;
                files.insert(name.to_owned(), text);
            }
        }
        Ok(Self(files))
    }

    /// The text of one file.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&str> {
        self.0.get(path).map(String::as_str)
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

fn read(file: &Path) -> Result<String, (PathBuf, io::Error)> {
    match Document::read(file, MAX_BYTES) {
        Ok(document) => Ok(document.text),
        Err(error) => Err((file.to_owned(), error)),
    }
}
