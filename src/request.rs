//! What one image is asked to be: plain data, whoever asks.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::Serialize;

use crate::accounts::User;
use crate::deps::Selection;
use crate::reference::Reference;

/// What one image is asked to be. Paths are of this host, and nothing of it has been looked at.
#[derive(Debug, Clone)]
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
    /// The image built on.
    pub base: Option<Reference>,
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
    /// Environment beside the variant's.
    pub env: BTreeMap<String, String>,
    /// Whether variables may have names that look like those of secrets.
    pub allow_secret_env: bool,
    /// Labels beside the variant's.
    pub labels: BTreeMap<String, String>,
    /// Files and folders to copy, with their places in the image.
    pub copies: Vec<(PathBuf, String)>,
    /// Whether modules are compiled when they are installed.
    pub bytecode: bool,
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
            base: None,
            base_facts: None,
            python: None,
            base_python: None,
            python_archive: None,
            name: None,
            user,
            user_is_chosen: false,
            apt: Vec::new(),
            env: BTreeMap::new(),
            allow_secret_env: false,
            labels: BTreeMap::new(),
            copies: Vec::new(),
            bytecode: true,
            installer: None,
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
