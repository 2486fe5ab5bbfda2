//! The facts of a base image: asked once, cached by image id, or read from a file.

mod cache;
mod layers;
mod probe;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::diagnostic::{Diagnostic, Document};
use crate::engine::{Engine, EngineError};
pub use crate::platform::Platform;
use crate::reference::{ImageId, Reference};
use crate::stored::{Stored, StoredError};

/// An image that others are built on, and what a build must know of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    /// The name it was asked for by.
    pub reference: Reference,
    /// Its image id.
    pub id: ImageId,
    /// What it runs on.
    pub platform: Platform,
    /// Its Pythons: those on its `PATH` in that order, then those in places where images keep further ones.
    pub pythons: Vec<Python>,
    /// What its configuration says.
    pub config: Config,
    /// Its `/etc/passwd`; empty where there is none.
    pub passwd: String,
    /// Its `/etc/group`; empty where there is none.
    pub group: String,
    /// The release of its distribution, such as `bookworm`; `None` where it does not say.
    pub codename: Option<String>,
    /// Those of the programs `apt-get`, `curl`, `find` and `pkill` that it has.
    pub programs: BTreeSet<String>,
    /// Folders near its root that are symbolic links, and the folders they lead to.
    pub links: BTreeMap<String, String>,
    /// Of the folders near its root those whose mode is not 755, or whose owner is not root.
    pub folders: BTreeMap<String, Folder>,
    /// Those of the places that images have for themselves where it has something already.
    pub taken: Vec<String>,
    /// Programs of Python's names that end with an error, or answer nonsense.
    pub broken: Vec<String>,
    /// Whether it has no `/etc/hosts`, or an empty one. The engine would create it for each step of
    /// a build, and so give `/etc` a new time.
    pub lacks_hosts: bool,
    /// The same of `/etc/resolv.conf`.
    pub lacks_resolv_conf: bool,
}

/// What a folder's permissions are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Folder {
    /// Permissions, with set-id and sticky bits.
    pub mode: u32,
    /// User id of its owner.
    pub uid: u32,
    /// Its group id.
    pub gid: u32,
}

/// The parts of an image's configuration that decide what is built on it.
///
/// Rule: OCI image specification, "Image Configuration"; `shell` is Docker's.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Config {
    /// Who its processes run as; empty is root.
    pub user: String,
    /// Its environment, as `NAME=VALUE`.
    pub env: Vec<String>,
    /// Its entry point.
    pub entrypoint: Vec<String>,
    /// Its command.
    pub cmd: Vec<String>,
    /// What shell forms run in, where it says so.
    pub shell: Vec<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Instructions that run when something is built on it.
    #[serde(default)]
    pub on_build: Vec<String>,
}

impl Config {
    /// The value of a variable.
    #[must_use]
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.env.iter().find_map(|variable| variable.strip_prefix(name)?.strip_prefix('='))
    }
}

/// An interpreter of a base image, and what is installed for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Python {
    /// The interpreter.
    #[serde(flatten)]
    pub interpreter: Interpreter,
    /// The folder it is installed in.
    pub prefix: String,
    /// Whether it is a virtual environment.
    pub is_virtual: bool,
    /// The folders its distributions are in.
    pub folders: Vec<String>,
    /// Its distributions.
    pub distributions: Vec<Distribution>,
}

/// A Python interpreter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interpreter {
    /// Absolute path inside the image.
    pub path: String,
    /// Such as `3.12.8`.
    pub version: String,
    /// Such as `cpython`.
    pub implementation: String,
    /// C library and its version, such as `glibc 2.36`; `None` where it does not say.
    pub libc: Option<String>,
}

/// A distribution that is installed in a base, as its metadata has it.
///
/// Rule: Python packaging, "Core metadata specifications".
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Distribution {
    /// Its name, not normalized.
    pub name: String,
    /// Its version, which need not be one of PEP 440.
    pub version: String,
    /// What it requires, each in PEP 508 or what somebody took for that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requires: Vec<String>,
    /// Its optional features.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extras: Vec<String>,
    /// Whether the system's package manager has installed it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub of_system: bool,
}

/// The largest file of facts that is read, in bytes.
const MAX_BYTES: u64 = 16_000_000;

/// Why a base's facts cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum BaseError {
    /// The engine fails.
    #[error(transparent)]
    Engine(Box<EngineError>),
    /// The image in files cannot be read.
    #[error(transparent)]
    Stored(Box<StoredError>),
    /// Its configuration cannot be understood.
    #[error("cannot read the configuration of base image `{reference}`")]
    Configuration {
        /// The image.
        reference: Reference,
        /// Why not.
        why: String,
    },
    /// A container of the image does not start a shell.
    #[error("base image `{reference}` has no shell that runs")]
    NoShell {
        /// The image.
        reference: Reference,
        /// What the engine said.
        why: String,
    },
    /// A list of users or groups that cannot be taken over.
    #[error("cannot use `{path}` of base image `{reference}`")]
    Accounts {
        /// The image.
        reference: Reference,
        /// The file.
        path: &'static str,
        /// Why not.
        why: String,
    },
    /// The script that asks for facts ends with an error.
    #[error("the Python of base image `{reference}` does not run")]
    ProbeFailed {
        /// The image.
        reference: Reference,
        /// Its exit code.
        code: i64,
    },
    /// It does not end.
    #[error("the Python of base image `{0}` does not answer in time")]
    ProbeTimeout(Reference),
    /// A file of facts cannot be read.
    #[error("cannot read the base's facts from `{}`", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl From<EngineError> for BaseError {
    fn from(error: EngineError) -> Self {
        Self::Engine(Box::new(error))
    }
}

impl From<StoredError> for BaseError {
    fn from(error: StoredError) -> Self {
        Self::Stored(Box::new(error))
    }
}

impl BaseError {
    /// The refusal.
    #[must_use]
    pub fn diagnostic(&self) -> Diagnostic {
        let diagnostic = Diagnostic::new(self.to_string());
        match self {
            Self::Engine(error) => error.diagnostic(),
            Self::Stored(error) => error.diagnostic(),
            Self::Configuration { why, .. } => {
                diagnostic.why(why.clone()).advice("write the image anew with `docker save` or `skopeo copy`")
            }
            Self::NoShell { why, .. } => {
                diagnostic.why(why.clone()).advice("choose a base with a shell at `/bin/sh`")
            }
            Self::Accounts { why, .. } => {
                diagnostic.why(why.clone()).advice("choose a base where it is a text file")
            }
            Self::ProbeFailed { code, .. } => diagnostic
                .why(format!("it ended with exit code {code}"))
                .advice("try `python3 -c 1` in a container of it"),
            Self::ProbeTimeout(_) => diagnostic.advice("try `python3 -c 1` in a container of it"),
            Self::Unreadable { source, .. } => {
                diagnostic.why(source.to_string()).advice("give what `ipybox plan --facts` prints")
            }
        }
    }
}

impl Base {
    /// The facts of a local image; `None` where there is none of this name. Those that were asked before are taken from
    /// `cache`, a folder.
    ///
    /// # Errors
    ///
    /// [`BaseError`].
    pub async fn of(engine: &Engine, reference: &Reference, cache: &Path) -> Result<Option<Self>, BaseError> {
        let Some(image) = engine.image(&reference.to_string()).await? else {
            return Ok(None);
        };
        if let Some(base) = Self::cached(cache, &image.id, reference) {
            return Ok(Some(base));
        }
        let base = probe::ask(engine, image, reference).await?;
        // Without a cache the next build asks again, and that is all.
        let _ = base.cache(cache);
        Ok(Some(base))
    }

    /// The facts of an image that no engine has; those of an image that was read before are in the cache.
    ///
    /// # Errors
    ///
    /// As [`Base::of_stored`].
    pub fn outside(stored: &Stored, reference: &Reference, cache: &Path) -> Result<Self, BaseError> {
        let id = ImageId::try_from(stored.config_digest.clone()).ok();
        if let Some(base) = id.and_then(|id| Self::cached(cache, &id, reference)) {
            return Ok(base);
        }
        let base = Self::of_stored(stored, reference)?;
        // Without a cache the next build reads again, and that is all.
        let _ = base.cache(cache);
        Ok(base)
    }

    /// Whether it has one of the programs that are asked for.
    #[must_use]
    pub fn has(&self, program: &str) -> bool {
        self.programs.contains(program)
    }

    /// Reads the facts from a JSON file, as `ipybox plan --facts` prints them.
    ///
    /// # Errors
    ///
    /// [`BaseError::Unreadable`], also where it holds something else.
    pub fn read(path: &Path) -> Result<Self, BaseError> {
        let unreadable = |source| BaseError::Unreadable { path: path.to_owned(), source };
        let document = Document::read(path, MAX_BYTES).map_err(unreadable)?;
        serde_json::from_str(&document.text).map_err(|error| unreadable(error.into()))
    }
}
