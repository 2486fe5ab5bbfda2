//! What one image is asked to be: plain data, whoever asks.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::Serialize;

use crate::accounts::User;
use crate::base::Platform;
use crate::deps::{Index, Name, Selection};
use crate::reference::Reference;
use crate::stored::Place;

/// What becomes of shared libraries that packages need and nothing brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Libraries {
    /// They are told of.
    #[default]
    Told,
    /// The Debian packages that have them are installed.
    Added,
}

/// What is asked of a lock.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Locking {
    /// Its file, where somebody names it: it is meant to be there then.
    pub file: Option<PathBuf>,
    /// Where one is looked for that nobody names, where that is not beside the list: a folder, and the name that stands
    /// between `pylock.` and `.toml`.
    pub own: Option<(PathBuf, String)>,
    /// Whether nothing is installed but what it says.
    pub is_demanded: bool,
    /// Whether a tag of the image tells its digest, which then is not to change on the way.
    pub is_in_tag: bool,
}

/// What one image is asked to be. Paths are of this host, and nothing of it has been looked at.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is a question of its own")]
pub struct Request {
    /// The variant's name.
    pub variant: String,
    /// A folder of variants in place of those that are shipped.
    pub variants: Option<PathBuf>,
    /// A folder of templates in place of those that are shipped.
    pub templates: Option<PathBuf>,
    /// Dependency lists, `-` for standard input; the variant's own if there is none.
    pub dependencies: Vec<PathBuf>,
    /// What is asked for beside a project's own dependencies.
    pub selection: Selection,
    /// What is asked of a lock.
    pub lock: Locking,
    /// The image built on.
    pub base: Option<Reference>,
    /// Whether that was just built in the engine, and no registry has it.
    pub base_is_local: bool,
    /// The same in files of this host, where no engine has a part in it.
    pub base_files: Option<Place>,
    /// The image to build on, where a registry has it and no engine is asked for it.
    pub base_registry: Option<Reference>,
    /// A file with the facts of the image built on, which then is not asked.
    pub base_facts: Option<PathBuf>,
    /// The interpreter's version.
    pub python: Option<PythonVersion>,
    /// The path of the base's interpreter.
    pub base_python: Option<String>,
    /// An interpreter for a base that has none.
    pub python_archive: Option<PathBuf>,
    /// What an executor server calls itself.
    pub name: Option<String>,
    /// Who the image runs as, unless that is inherited.
    pub user: User,
    /// Whether somebody chose that, or it follows from who asks.
    pub user_is_chosen: bool,
    /// Debian packages beside the variant's.
    pub apt: Vec<String>,
    /// What becomes of shared libraries that packages need and nothing brings.
    pub libraries: Libraries,
    /// What may be built from its source where no index has a wheel of it.
    pub from_source: FromSource,
    /// Debian packages that such builds need.
    pub build_apt: Vec<String>,
    /// Programs that somebody asks for first.
    pub tools: Option<Tools>,
    /// Environment beside the variant's.
    pub env: BTreeMap<String, String>,
    /// Whether variables may have names that look like those of secrets.
    pub allow_secret_env: bool,
    /// Build arguments that own steps find in their environment.
    pub args: BTreeMap<String, String>,
    /// What the image is to run on, where that is not what the engine chooses.
    pub platform: Option<Platform>,
    /// Labels beside the variant's.
    pub labels: BTreeMap<String, String>,
    /// Files and folders to copy, with their places in the image.
    pub copies: Vec<(PathBuf, String)>,
    /// Whether modules are compiled when they are installed.
    pub bytecode: bool,
    /// Package indexes beside those of the lists.
    pub indexes: Vec<Index>,
    /// Contents for secret mounts of the steps of variants, by their ids.
    pub secrets: BTreeMap<String, SecretFrom>,
    /// An installer in place of the pinned one.
    pub installer: Option<PathBuf>,
}

impl Request {
    /// Nothing is asked for but an image of `variant` that runs as `user`.
    #[must_use]
    pub fn new(variant: &str, user: User) -> Self {
        Self {
            variant: variant.to_owned(),
            variants: None,
            templates: None,
            dependencies: Vec::new(),
            selection: Selection::default(),
            lock: Locking::default(),
            base: None,
            base_is_local: false,
            base_files: None,
            base_registry: None,
            base_facts: None,
            python: None,
            base_python: None,
            python_archive: None,
            name: None,
            user,
            user_is_chosen: false,
            apt: Vec::new(),
            libraries: Libraries::default(),
            from_source: FromSource::Auto,
            build_apt: Vec::new(),
            tools: None,
            env: BTreeMap::new(),
            allow_secret_env: false,
            args: BTreeMap::new(),
            platform: None,
            labels: BTreeMap::new(),
            copies: Vec::new(),
            bytecode: true,
            indexes: Vec::new(),
            secrets: BTreeMap::new(),
            installer: None,
        }
    }
}

/// Where a secret is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretFrom {
    /// In a file of this host.
    File(PathBuf),
    /// In a variable of the environment.
    Variable(String),
}

/// What may be built from its source where no index has a wheel of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromSource {
    /// Whatever it is.
    Auto,
    /// Nothing.
    Never,
    /// These.
    Only(BTreeSet<Name>),
}

impl FromSource {
    /// Whether a distribution may be built.
    #[must_use]
    pub fn allows(&self, name: &Name) -> bool {
        match self {
            Self::Auto => true,
            Self::Never => false,
            Self::Only(names) => names.contains(name),
        }
    }
}

/// Programs by who asks for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tools {
    /// What agents run first in a shell.
    Agent,
}

impl Tools {
    /// The Debian packages that have them.
    #[must_use]
    pub fn packages(self) -> &'static [&'static str] {
        match self {
            Self::Agent => &["asciinema", "curl", "git", "jq", "less", "procps", "ripgrep", "tmux", "unzip"],
        }
    }
}

/// A feature version of Python 3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(into = "String")]
pub struct PythonVersion {
    /// The number behind `3.`.
    pub minor: u64,
}

/// The oldest interpreter that the locked servers support.
pub const OLDEST_PYTHON: PythonVersion = PythonVersion { minor: 10 };

impl fmt::Display for PythonVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "3.{}", self.minor)
    }
}

impl From<PythonVersion> for String {
    fn from(version: PythonVersion) -> Self {
        version.to_string()
    }
}

impl FromStr for PythonVersion {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.strip_prefix("3.")
            .and_then(|minor| minor.parse().ok())
            .map(|minor| Self { minor })
            .filter(|version| *version >= OLDEST_PYTHON)
            .ok_or_else(|| format!("expected a version such as 3.12, {OLDEST_PYTHON} or newer"))
    }
}
