//! The facts of a base image: asked once, cached by image id, or read from a file.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::diagnostic::{Diagnostic, Document};
use crate::reference::{ImageId, Reference};

/// An image that others are built on, and what a build must know of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    /// The name it was asked for by.
    pub reference: Reference,
    /// Its image id.
    pub id: ImageId,
    /// What it runs on.
    pub platform: Platform,
    /// The first `python3` or `python` on its `PATH`; `None` where there is none.
    pub interpreter: Option<Interpreter>,
    /// Installed distributions and their versions, as that interpreter sees them.
    pub distributions: BTreeMap<String, String>,
    /// `PATH` of its configuration; empty where it has none.
    pub path: String,
    /// Its `/etc/passwd`; empty where there is none.
    pub passwd: String,
    /// Its `/etc/group`; empty where there is none.
    pub group: String,
    /// Whether it has Debian's `apt-get`.
    pub has_apt: bool,
    /// Whether it has no `/etc/hosts`, or an empty one. The engine would create it for each step of
    /// a build, and so give `/etc` a new time.
    pub lacks_hosts: bool,
    /// The same of `/etc/resolv.conf`.
    pub lacks_resolv_conf: bool,
}

/// An operating system and a processor, by their names in the OCI image specification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// Such as `linux`.
    pub os: String,
    /// Such as `amd64`.
    pub architecture: String,
}

/// A Python interpreter of a base image.
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

/// The largest file of facts that is read, in bytes.
const MAX_BYTES: u64 = 16_000_000;

/// Raised when [`PROBE`] or [`Base`] change, so that facts of another kind are asked again.
const FORMAT: &str = "2";

/// The shell script that asks for the facts that only a container knows. Its lines are `apt`, where there
/// is `apt-get`, and last the facts of the interpreter as JSON, where one could run a kernel.
pub const PROBE: &str = r#"
command -v apt-get >/dev/null && echo apt
python=$(command -v python3 || command -v python) || exit 0
exec "$python" -I -c '
import json, platform, sys
try:
    from importlib.metadata import distributions
except ImportError:
    distributions = list
found = {}
for distribution in distributions():
    try:
        name, version = distribution.metadata["Name"], distribution.version
    except Exception:
        continue
    if isinstance(name, str) and isinstance(version, str):
        found[name] = version
print(json.dumps({
    "interpreter": {
        "path": sys.executable,
        "version": "%d.%d.%d" % sys.version_info[:3],
        "implementation": sys.implementation.name,
        "libc": " ".join(platform.libc_ver()).strip() or None,
    },
    "distributions": found,
}))
'
"#;

/// What [`PROBE`] prints.
#[derive(Deserialize)]
struct Probed {
    interpreter: Interpreter,
    distributions: BTreeMap<String, String>,
}

/// Why a base's facts cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum BaseError {
    /// What the interpreter printed is no answer to [`PROBE`].
    #[error("the Python of base image `{reference}` does not answer")]
    Probe {
        /// The base image.
        reference: Reference,
        /// What it printed.
        output: String,
    },
    /// A file of facts cannot be read.
    #[error("cannot read the base's facts from `{}`", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl BaseError {
    /// The refusal.
    #[must_use]
    pub fn diagnostic(&self) -> Diagnostic {
        let diagnostic = Diagnostic::new(self.to_string());
        match self {
            Self::Probe { output, .. } => {
                let last: String = output.lines().last().unwrap_or_default().chars().take(200).collect();
                diagnostic
                    .why(format!("it printed `{}`", last.escape_debug()))
                    .advice("try `python3 -c 1` in a container of it")
            }
            Self::Unreadable { source, .. } => diagnostic
                .why(source.to_string())
                .advice("give the `base` of a plan that `ipybox plan` printed"),
        }
    }
}

impl Base {
    /// Takes over what [`PROBE`] printed in a container of this base.
    ///
    /// # Errors
    ///
    /// [`BaseError::Probe`] for anything else.
    pub fn with_probe(mut self, output: &str) -> Result<Self, BaseError> {
        let mut lines = output.lines();
        self.has_apt = output.starts_with("apt\n");
        let Some(line) = lines.next_back().filter(|line| *line != "apt") else {
            return Ok(self);
        };
        let probed: Probed = serde_json::from_str(line)
            .map_err(|_| BaseError::Probe { reference: self.reference.clone(), output: output.to_owned() })?;
        self.interpreter = Some(probed.interpreter);
        self.distributions = probed.distributions;
        Ok(self)
    }

    /// Reads the facts from a JSON file, such as the `base` of a printed plan.
    ///
    /// # Errors
    ///
    /// [`BaseError::Unreadable`], also where it holds something else.
    pub fn read(path: &Path) -> Result<Self, BaseError> {
        let unreadable = |source| BaseError::Unreadable { path: path.to_owned(), source };
        let document = Document::read(path, MAX_BYTES).map_err(unreadable)?;
        serde_json::from_str(&document.text).map_err(|error| unreadable(error.into()))
    }

    /// The cached facts of the image `id`; `None` where there are none that can be read.
    #[must_use]
    pub fn cached(cache: &Path, id: &ImageId, reference: &Reference) -> Option<Self> {
        let base = Self::read(&cache_file(cache, id)).ok()?;
        (base.id == *id).then(|| Self { reference: reference.clone(), ..base })
    }

    /// Keeps the facts for the next build on this image.
    ///
    /// # Errors
    ///
    /// Of the file system.
    pub fn cache(&self, cache: &Path) -> io::Result<()> {
        let file = cache_file(cache, &self.id);
        let folder = file.parent().expect("the file lies in a folder of the cache");
        fs::create_dir_all(folder)?;
        let mut unfinished = tempfile::NamedTempFile::new_in(folder)?;
        serde_json::to_writer(&mut unfinished, self)?;
        unfinished.flush()?;
        unfinished.persist(file)?;
        Ok(())
    }

    /// The tag under which this very image is built on, whatever happens to its own tag meanwhile.
    #[must_use]
    pub fn private_tag(&self) -> Reference {
        format!("ipybox-base:{}", self.id.short()).parse().expect("an image id is hexadecimal")
    }
}

fn cache_file(cache: &Path, id: &ImageId) -> PathBuf {
    let digits = id.as_str().trim_start_matches("sha256:");
    cache.join("base").join(FORMAT).join(digits).with_extension("json")
}
