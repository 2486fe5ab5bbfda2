//! The facts of a base image: asked once, cached by image id, or read from a file.

use std::collections::{BTreeMap, BTreeSet};
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
    /// Those of the programs `apt-get`, `curl` and `find` that it has.
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

/// An operating system and a processor, by their names in the OCI image specification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// Such as `linux`.
    pub os: String,
    /// Such as `amd64`.
    pub architecture: String,
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

/// Raised when [`PROBE`] or [`Base`] change, so that facts of another kind are asked again.
const FORMAT: &str = "6";

/// The shell script that asks for the facts that only a container knows. Each of its lines is a kind of fact, a
/// blank and the fact.
pub const PROBE: &str = concat!(
    r#"
for program in apt-get curl find; do command -v $program >/dev/null && echo "program $program"; done
[ -r /etc/os-release ] && (. /etc/os-release; [ -z "$VERSION_CODENAME" ] || echo "codename $VERSION_CODENAME")
for path in /* /usr/* /usr/local/* /var/* /opt/*; do
    [ -d "$path" ] || continue
    real=$(cd -P "$path" && pwd -P) || continue
    [ "$real" = "$path" ] || echo "link $path $real"
    while [ "$real" != / ]; do
        stat -c "folder %a %u %g %n" "$real"
        real=${real%/*} real=${real:-/}
    done
done 2>/dev/null
for path in /opt/venv /opt/ipybox; do { [ -e $path ] || [ -L $path ]; } && echo "taken $path"; done
folders=$PATH:/usr/local/bin:/usr/bin:/opt/conda/bin:/opt/*/bin seen= IFS=:
for folder in $folders; do
    folder_is=$(cd -P "$folder" 2>/dev/null && pwd -P) || continue
    for python in "$folder"/python3 "$folder"/python "$folder"/python3.1[0-9]; do
        [ -x "$python" ] || continue
        file=$folder_is:$(readlink -f "$python" 2>/dev/null || echo "$python")
        case "|$seen|" in *"|$file|"*) continue ;; esac
        seen="$seen|$file"
        PYTHONHOME= PYTHONDONTWRITEBYTECODE=1 "$python" -s -c '"#,
    include_str!("probe.py"),
    r#"' 2>/dev/null || echo "broken $python"
    done
done
exit 0
"#
);

/// Why a base's facts cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum BaseError {
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
            Self::Unreadable { source, .. } => {
                diagnostic.why(source.to_string()).advice("give what `ipybox plan --facts` prints")
            }
        }
    }
}

impl Base {
    /// Takes over what [`PROBE`] printed in a container of this base.
    #[must_use]
    pub fn with_probe(mut self, output: &str) -> Self {
        for line in output.lines().filter(|line| !line.contains(char::is_control)) {
            let (kind, fact) = line.split_once(' ').unwrap_or_default();
            match kind {
                "program" => drop(self.programs.insert(fact.to_owned())),
                "codename" => self.codename = Some(fact.to_owned()),
                "link" => {
                    if let Some((path, target)) = fact.split_once(' ')
                        && target.starts_with('/')
                    {
                        self.links.insert(path.to_owned(), target.to_owned());
                    }
                }
                "folder" => {
                    if let Some((path, folder)) = folder(fact)
                        && folder != (Folder { mode: 0o755, uid: 0, gid: 0 })
                    {
                        self.folders.insert(path.to_owned(), folder);
                    }
                }
                "python" => match serde_json::from_str::<Python>(fact) {
                    // One interpreter has several names.
                    Ok(python) if self.pythons.iter().any(|known| known.prefix == python.prefix) => {}
                    Ok(python) => self.pythons.push(python),
                    Err(_) => self.broken.push("python".to_owned()),
                },
                "taken" => self.taken.push(fact.to_owned()),
                "broken" => self.broken.push(fact.to_owned()),
                _ => {}
            }
        }
        self
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
}

/// Reads `MODE UID GID PATH`.
fn folder(fact: &str) -> Option<(&str, Folder)> {
    let mut parts = fact.splitn(4, ' ');
    let mode = u32::from_str_radix(parts.next()?, 8).ok()?;
    let (uid, gid) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    Some((parts.next()?, Folder { mode, uid, gid }))
}

fn cache_file(cache: &Path, id: &ImageId) -> PathBuf {
    let digits = id.as_str().trim_start_matches("sha256:");
    cache.join("base").join(FORMAT).join(digits).with_extension("json")
}
