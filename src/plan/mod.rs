//! A [`Spec`] and options to a [`Plan`]: pure, and the only place that makes choices.

mod python;
mod requirement;

use std::collections::BTreeMap;
use std::ops::Range;

use serde::Serialize;

pub use python::{PythonVersion, default_base};
pub use requirement::Requirement;

use crate::base::{Base, Interpreter};
use crate::diagnostic::Diagnostic;
use crate::spec::{Constraint, Name, Spec, pep508};
use crate::uv;
use crate::variant::{Server, Variant};

/// Everything that decides an image, with nothing left to decide.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// The version of this program.
    pub ipybox: String,
    /// The variant's name.
    pub variant: String,
    /// The Dockerfile template.
    pub template: String,
    /// The image built on.
    pub base: Base,
    /// The interpreter of that base that both environments are made with.
    pub interpreter: Interpreter,
    /// Who the image runs as.
    pub user: User,
    /// What `/opt/venv` is resolved from, sorted by distribution: the list and the kernel's needs.
    pub requirements: Vec<Requirement>,
    /// Entries of the list that are not installed, and why.
    pub dropped: BTreeMap<String, String>,
    /// TCP ports that servers of the image listen on.
    pub ports: Vec<u16>,
    /// The first process of a container, in exec form.
    pub command: Vec<String>,
    /// The environment of the image.
    pub env: BTreeMap<String, String>,
    /// The labels of the image.
    pub labels: BTreeMap<String, String>,
    /// The installer: its version, and the SHA-256 of the wheel it comes in.
    pub uv: uv::Release,
}

/// Who an image runs as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum User {
    /// An unprivileged user with these ids.
    Unprivileged {
        /// User id; never 0.
        uid: u32,
        /// Group id.
        gid: u32,
    },
    /// The superuser, as images of ipybox 0.6 built with `--root`.
    Root,
}

impl User {
    /// The ids its files belong to.
    #[must_use]
    pub fn ids(self) -> (u32, u32) {
        match self {
            Self::Unprivileged { uid, gid } => (uid, gid),
            Self::Root => (0, 0),
        }
    }

    /// Its home directory.
    #[must_use]
    pub fn home(self) -> &'static str {
        match self {
            Self::Unprivileged { .. } => "/home/ipybox",
            Self::Root => "/root",
        }
    }
}

/// Where an image keeps what is its own.
pub const HOME: &str = "/opt/ipybox";

/// The home of the environment that generated code runs in.
pub const VENV: &str = "/opt/venv";

/// What the kernel of an image needs, whatever the list asks for. pip is here so that code can
/// install packages at run time.
const KERNEL: [&str; 2] = ["ipykernel>=6.31,<8", "pip>=25.3"];

/// The oldest interpreter that the locked servers support.
const OLDEST_PYTHON: PythonVersion = PythonVersion { minor: 10 };

/// Why there is no plan. `at` is in bytes of the dependency list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A constraint is a union, for which PEP 508 has no form.
    #[error("dependency `{name}` allows versions that no single requirement can describe")]
    Union {
        /// The distribution.
        name: Name,
        /// Its entry.
        at: Range<usize>,
    },
    /// The list's `python` excludes the base's interpreter.
    #[error("the list excludes the base's Python {found}")]
    PythonExcluded {
        /// The base image.
        base: String,
        /// The base's version.
        found: String,
        /// What the list admits.
        admits: String,
        /// The list's `python`.
        at: Range<usize>,
    },
    /// The list's `python` admits no version that could be chosen.
    #[error("the list admits no supported Python")]
    NoPython {
        /// What the list admits.
        admits: String,
        /// The list's `python`.
        at: Range<usize>,
    },
    /// The version asked for is excluded by the list's `python`.
    #[error("the list excludes Python {asked}, which `--python` asks for")]
    AskedExcluded {
        /// The version asked for.
        asked: PythonVersion,
        /// What the list admits.
        admits: String,
        /// The list's `python`.
        at: Range<usize>,
    },
    /// The base's interpreter is not of the version asked for.
    #[error("base image `{base}` has Python {found}, not {asked}")]
    NotAsked {
        /// The base image.
        base: String,
        /// The base's version.
        found: String,
        /// The version asked for.
        asked: PythonVersion,
    },
    /// The base has no interpreter.
    #[error("base image `{0}` has no Python")]
    NoInterpreter(String),
    /// The path of the base's interpreter is not one that a shell takes as it is.
    #[error("the Python of base image `{base}` has a path that cannot be used")]
    InterpreterPath {
        /// The base image.
        base: String,
        /// The path.
        path: String,
    },
    /// The base's interpreter lies where the image's own environments will.
    #[error("the Python of base image `{base}` lies in `{path}`, which the new image replaces")]
    Replaced {
        /// The base image.
        base: String,
        /// The interpreter.
        path: String,
    },
    /// The base's interpreter is not `CPython`.
    #[error("the Python of base image `{base}` is {implementation}, not CPython")]
    Implementation {
        /// The base image.
        base: String,
        /// By its own name.
        implementation: String,
    },
    /// The base's interpreter is too old.
    #[error("base image `{base}` has Python {found}, which is too old")]
    TooOld {
        /// The base image.
        base: String,
        /// The base's version.
        found: String,
    },
    /// There is no installer for the base's platform.
    #[error("base image `{base}` is for {platform}, where images cannot be built")]
    Platform {
        /// The base image.
        base: String,
        /// Such as `linux/s390x`.
        platform: String,
    },
}

/// What the caller decides.
#[derive(Debug, Clone)]
pub struct Options {
    /// Who the image runs as.
    pub user: User,
    /// The interpreter's version, where the caller names one.
    pub python: Option<PythonVersion>,
    /// The installer; `None` where there is none for the base's platform.
    pub uv: Option<uv::Release>,
}

impl Plan {
    /// Resolves a dependency list, a variant and a base to a plan.
    ///
    /// # Errors
    ///
    /// Every [`PlanError`] there is, at once.
    pub fn resolve(
        spec: &Spec,
        variant: &Variant,
        base: Base,
        options: &Options,
    ) -> Result<Self, Vec<PlanError>> {
        let mut errors = Vec::new();
        let mut requirements = kernel_requirements();
        let mut dropped = BTreeMap::new();
        for dependency in &spec.dependencies {
            if dependency.optional {
                dropped.insert(dependency.name.to_string(), "optional, and nothing asks for it".to_owned());
                continue;
            }
            match Requirement::lower(dependency) {
                Some(requirement) => requirements.push(requirement),
                None => {
                    errors
                        .push(PlanError::Union { name: dependency.name.clone(), at: dependency.at.clone() });
                }
            }
        }
        requirements.sort_by(|one, other| one.name.cmp(&other.name));
        let interpreter =
            python::check(&spec.python, &base, options.python).map_err(|error| errors.push(error));
        let uv = options.uv.clone().ok_or_else(|| {
            errors.push(PlanError::Platform {
                base: base.reference.to_string(),
                platform: format!("{}/{}", base.platform.os, base.platform.architecture),
            });
        });
        let (true, Ok(interpreter), Ok(uv)) = (errors.is_empty(), interpreter, uv) else {
            return Err(errors);
        };
        let version = env!("CARGO_PKG_VERSION");
        let labels = [
            ("ipybox.python", interpreter.version.as_str()),
            ("ipybox.variant", &variant.name),
            ("ipybox.version", version),
            ("org.opencontainers.image.base.name", &base.reference.to_string()),
        ];
        Ok(Self {
            ipybox: version.to_owned(),
            variant: variant.name.clone(),
            template: variant.template.clone(),
            env: environment(&base, options.user),
            labels: labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            ports: variant.servers.iter().map(|server| server.port).collect(),
            command: command(&variant.servers),
            user: options.user,
            interpreter,
            base,
            requirements,
            dropped,
            uv,
        })
    }
}

/// The supervisor with the servers' commands, with `--` between them.
fn command(servers: &[Server]) -> Vec<String> {
    let supervisor =
        [format!("{HOME}/server/bin/python"), "-I".into(), format!("{HOME}/lib/ipybox/supervisor.py")];
    let commands: Vec<_> = servers.iter().map(|server| server.command.clone()).collect();
    [supervisor.to_vec(), commands.join(&"--".to_owned())].concat()
}

fn kernel_requirements() -> Vec<Requirement> {
    let lower = |text| {
        let dependency = pep508::parse(text).expect("a constant requirement");
        Requirement::lower(&dependency).expect("a requirement holds no union")
    };
    KERNEL.map(lower).into()
}

fn environment(base: &Base, user: User) -> BTreeMap<String, String> {
    const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let rest = if base.path.is_empty() { SYSTEM_PATH } else { &base.path };
    let variables = [
        ("HOME", user.home().to_owned()),
        ("PATH", format!("{VENV}/bin:{rest}")),
        ("VIRTUAL_ENV", VENV.to_owned()),
    ];
    variables.map(|(name, value)| (name.to_owned(), value)).into()
}

impl PlanError {
    /// The refusal; its place is in bytes of the dependency list.
    #[must_use]
    pub fn diagnostic(&self) -> Diagnostic {
        let what = Diagnostic::new(self.to_string());
        match self {
            Self::Union { at, .. } => what
                .at(at.clone())
                .why("unions joined by `||` are not supported yet")
                .advice("keep the alternative you want, such as `^2.2`"),
            Self::PythonExcluded { base, admits, at, .. } => what
                .at(at.clone())
                .why(format!("admits {admits}"))
                .advice(format!(
                    "widen `python` (`3.11` is 3.11.0 alone, `3.11.*` any 3.11), or choose another base than `{base}`"
                )),
            Self::NoPython { admits, at } => what
                .at(at.clone())
                .why(format!("admits {admits}"))
                .advice(format!("widen `python`; {} are supported", python::supported())),
            Self::AskedExcluded { admits, at, .. } => what
                .at(at.clone())
                .why(format!("admits {admits}"))
                .advice("widen `python`, or ask for another version"),
            Self::NotAsked { .. } => what.advice("leave out `--python`, or choose another base"),
            Self::NoInterpreter(_) => what
                .why("neither `python3` nor `python` on its PATH runs")
                .advice("choose a base with Python, such as `python:3.12-slim-bookworm`"),
            Self::InterpreterPath { path, .. } => what
                .why(format!("it is `{}`", path.escape_debug()))
                .advice("choose a base whose Python has an absolute path of letters, digits, `.`, `_`, `+` and `-`"),
            Self::Replaced { .. } => what.advice("choose the base that image was built on"),
            Self::Implementation { .. } => what.advice("choose a base with CPython"),
            Self::TooOld { .. } => what.advice(format!("choose a base with Python {OLDEST_PYTHON} or newer")),
            Self::Platform { .. } => what.advice("choose a base for linux/amd64 or linux/arm64"),
        }
    }
}

/// A constraint as a list writes it.
fn admits(constraint: &Constraint) -> String {
    format!("`{constraint}`")
}
