//! What makes a plan impossible.

use std::ops::Range;

use super::packages::MAX_CHOICES;
use super::{Provenance, python};
use crate::deps::Name;
use crate::diagnostic::Diagnostic;
use crate::request::{OLDEST_PYTHON, PythonVersion, Request};
use crate::variant::{Interface, Placement, Variant};

/// Why there is no plan. `at` is in bytes of the dependency list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A constraint holds for no version.
    #[error("no version of `{name}` can meet its constraint")]
    NoVersion {
        /// The distribution.
        name: Name,
        /// What it asks for.
        constraint: String,
        /// Its entry.
        at: Range<usize>,
    },
    /// So many unions that trying each choice would take too long.
    #[error("the list leaves {choices} choices of alternatives to try")]
    TooManyAlternatives {
        /// How many.
        choices: usize,
        /// The last entry with alternatives.
        at: Range<usize>,
    },
    /// A dependency names an index that no list describes.
    #[error("dependency `{name}` comes from an index that is not described: `{index}`")]
    UnknownIndex {
        /// The distribution.
        name: Name,
        /// What it calls the index.
        index: String,
        /// Those that are described.
        known: Vec<String>,
        /// Its entry.
        at: Range<usize>,
    },
    /// An index would have to be asked behind the installer's own.
    #[error("the index `{url}` would be asked before the installer's own")]
    Supplemental {
        /// Its address.
        url: String,
        /// Where it is described.
        at: Range<usize>,
    },
    /// Two entries get one distribution from different places.
    #[error("dependency `{name}` comes from two places")]
    TwoSources {
        /// The distribution.
        name: Name,
        /// The second entry.
        at: Range<usize>,
    },
    /// The list's `python` excludes the base's interpreter.
    #[error("the list excludes Python {found}, which {} has", owner(base, *provenance))]
    PythonExcluded {
        /// The base image.
        base: String,
        /// Where the interpreter comes from.
        provenance: Provenance,
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
    #[error("{} has Python {found}, not {asked}", owner(base, *provenance))]
    NotAsked {
        /// The base image.
        base: String,
        /// Where the interpreter comes from.
        provenance: Provenance,
        /// The base's version.
        found: String,
        /// The version asked for.
        asked: PythonVersion,
    },
    /// The base has no interpreter.
    #[error("base image `{base}` has no Python")]
    NoInterpreter {
        /// The base image.
        base: String,
        /// A program that has the name of one, and does not answer.
        broken: Option<String>,
    },
    /// An interpreter is given for a base that has one.
    #[error("base image `{base}` has a Python already, at `{path}`")]
    HasPython {
        /// The base image.
        base: String,
        /// The interpreter.
        path: String,
    },
    /// The base lacks a program that build steps need.
    #[error("base image `{base}` has no program `{program}`")]
    NoProgram {
        /// The base image.
        base: String,
        /// The program.
        program: &'static str,
    },
    /// The base wants to do something in each image that is built on it.
    #[error("base image `{base}` has instructions for what is built on it")]
    OnBuild {
        /// The base image.
        base: String,
        /// The first.
        instruction: String,
    },
    /// The base has a distribution that the installer cannot work beside.
    #[error("base image `{base}` has `{name}` in the version `{version}`, which is none of PEP 440")]
    OddVersion {
        /// The base image.
        base: String,
        /// The distribution.
        name: Name,
        /// Its version.
        version: String,
    },
    /// The path of the base's interpreter is not one that a shell takes as it is.
    #[error("the Python of base image `{base}` has a path that cannot be used")]
    InterpreterPath {
        /// The base image.
        base: String,
        /// The path.
        path: String,
    },
    /// The base's interpreter lies where the image's own environments will.
    #[error("`{path}` of base image `{base}` lies where the new image has its own")]
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
    #[error("{} has Python {found}, which is too old", owner(base, *provenance))]
    TooOld {
        /// The base image.
        base: String,
        /// Where the interpreter comes from.
        provenance: Provenance,
        /// The base's version.
        found: String,
    },
    /// The base cannot get the variant's system packages.
    #[error("base image `{base}` has no `apt-get`, which is needed for {packages}")]
    NoApt {
        /// The base image.
        base: String,
        /// The packages, in words.
        packages: String,
    },
    /// The base has no interpreter at the path that `--base-python` names.
    #[error("base image `{base}` has no Python at `{path}`")]
    NoSuchPython {
        /// The base image.
        base: String,
        /// The path asked for.
        path: String,
        /// The paths there are.
        known: Vec<String>,
    },
    /// The list asks for another version than the base has, and the base's packages stay as they are.
    #[error("base image `{base}` has `{name}` {has}, which stays as it is")]
    BaseHas {
        /// The base image.
        base: String,
        /// The distribution.
        name: Name,
        /// The base's version.
        has: String,
        /// What the list asks for.
        asks: String,
        /// Its entry.
        at: Range<usize>,
    },
    /// The same of what kernels need.
    #[error("base image `{base}` has `{name}` {has}, and kernels need `{asks}`")]
    KernelNeeds {
        /// The base image.
        base: String,
        /// The distribution.
        name: Name,
        /// The base's version.
        has: String,
        /// What a kernel needs.
        asks: String,
    },
    /// The base has nothing that could be extended.
    #[error("base image `{base}` cannot be extended")]
    NotExtensible {
        /// The base image.
        base: String,
        /// What it lacks, in phrases.
        lacks: Vec<String>,
    },
    /// The base runs as a user that cannot be known.
    #[error("base image `{base}` runs as the user `{user}`, whose ids are not known")]
    BaseUser {
        /// The base image.
        base: String,
        /// As its configuration has it.
        user: String,
    },
    /// The variant takes over the user of its base, and somebody asks for another.
    #[error("the variant `{0}` takes over the user of its base")]
    InheritsUser(String),
    /// The variant takes over the Python of its base, and somebody gives another.
    #[error("the variant `{0}` takes over the Python of its base")]
    InheritsPython(String),
    /// The variant extends an image, and nobody says which.
    #[error("the variant `{0}` needs an image to extend")]
    NeedsBase(String),
    /// The variant has an executor server, and nobody gave it a name.
    #[error("the variant `{0}` needs a name for its executor")]
    NeedsName(String),
    /// There is a name for an executor server, and the variant has none.
    #[error("the variant `{0}` has no executor that could be given a name")]
    NothingToName(String),
    /// A variable that the image sets itself.
    #[error("the variable `{0}` is the image's own")]
    OwnVariable(String),
    /// There is no installer for the base's platform.
    #[error("base image `{base}` is for {platform}, where images cannot be built")]
    Platform {
        /// The base image.
        base: String,
        /// Such as `linux/s390x`.
        platform: String,
    },
}

impl PlanError {
    /// What of a request and a variant does not go together, before anything is looked at.
    ///
    /// # Errors
    ///
    /// The first of those.
    pub fn of_request(request: &Request, variant: &Variant) -> Result<(), Self> {
        let name = || variant.name.clone();
        let inherits = variant.packages == Placement::Inherited;
        let names_base = request.base.is_some()
            || request.base_files.is_some()
            || request.base_registry.is_some()
            || request.base_facts.is_some()
            || variant.base.is_some();
        if inherits && request.user_is_chosen {
            Err(Self::InheritsUser(name()))
        } else if inherits && !names_base {
            Err(Self::NeedsBase(name()))
        } else if inherits && request.python_archive.is_some() {
            Err(Self::InheritsPython(name()))
        } else if !inherits
            && variant.server(Interface::Executor).is_some()
            && request.name.is_none()
            && variant.executor_name.is_none()
        {
            Err(Self::NeedsName(name()))
        } else {
            Ok(())
        }
    }

    /// Whether the command line is wrong, rather than what it names.
    #[must_use]
    pub fn is_of_usage(&self) -> bool {
        matches!(self, Self::InheritsUser(_) | Self::InheritsPython(_) | Self::NeedsBase(_))
    }

    /// The refusal; its place is in bytes of the dependency list.
    #[must_use]
    pub fn diagnostic(&self) -> Diagnostic {
        let what = Diagnostic::new(self.to_string());
        match self {
            Self::NoVersion { constraint, at, .. } => what
                .at(at.clone())
                .why(format!("`{constraint}` excludes every version"))
                .advice("write `||` where one of the parts will do"),
            Self::TooManyAlternatives { at, .. } => what
                .at(at.clone())
                .why(format!("each has to be resolved, and {MAX_CHOICES} are tried at most"))
                .advice("write fewer unions; `>=1,!=2.*` says what `<2 || >=3` says, without a choice"),
            Self::UnknownIndex { known, at, .. } => {
                let what = what.at(at.clone()).why("`source` is the name of a package index");
                if known.is_empty() {
                    what.advice("describe it with `[[tool.poetry.source]]` in a `pyproject.toml`, or leave out `source`")
                } else {
                    what.advice(format!("name one of {}", known.join(", ")))
                }
            }
            Self::Supplemental { at, .. } => what
                .at(at.clone())
                .why("uv asks its own index last, and takes a package from the first index that has it")
                .advice("make it `explicit` and name it with `source`, or `primary`"),
            Self::TwoSources { at, .. } => what
                .at(at.clone())
                .why("another entry takes it from elsewhere")
                .advice("keep one of the two"),
            Self::PythonExcluded { provenance, admits, at, .. } => what
                .at(at.clone())
                .why(format!("admits {admits}"))
                .advice(format!(
                    "widen `python` (`3.11` is 3.11.0 alone, `3.11.*` any 3.11), or {}",
                    another(*provenance)
                )),
            Self::NoPython { admits, at } => what
                .at(at.clone())
                .why(format!("admits {admits}"))
                .advice(format!("widen `python`; {} are supported", python::supported())),
            Self::AskedExcluded { admits, at, .. } => what
                .at(at.clone())
                .why(format!("admits {admits}"))
                .advice("widen `python`, or ask for another version"),
            Self::NotAsked { provenance, .. } => {
                what.advice(format!("leave out `--python`, or {}", another(*provenance)))
            }
            Self::NoInterpreter { broken, .. } => what
                .why(without_interpreter(broken.as_deref()))
                .advice("give one with `--python-archive FILE`, or choose a base with Python, such as `python:3.12-slim-bookworm`"),
            Self::HasPython { .. } => what
                .why("what is installed for it could not be seen by another")
                .advice("leave out `--python-archive`, or choose another with `--base-python`"),
            Self::NoProgram { .. } => what.advice("install it in the base; it is in the package `findutils`"),
            Self::OnBuild { instruction, .. } => what
                .why(format!("`ONBUILD {}` speaks of files that this build does not have", instruction.escape_debug()))
                .advice("choose a base without `ONBUILD`"),
            Self::OddVersion { .. } => what
                .why("uv reads all that is installed before it installs more, and stops there")
                .advice("remove it from the base, or install another version of it"),
            Self::InterpreterPath { path, .. } => what
                .why(format!("it is `{}`", path.escape_debug()))
                .advice("choose a base whose Python has an absolute path of letters, digits, `.`, `_`, `+` and `-`"),
            Self::Replaced { .. } => what
                .advice("add packages to an image of this program with `-V extend-base`, or choose what it was built on"),
            Self::Implementation { .. } => what.advice("choose a base with CPython"),
            Self::TooOld { provenance, .. } => {
                what.advice(format!("{}, of Python {OLDEST_PYTHON} or newer", another(*provenance)))
            }
            Self::NoSuchPython { known, .. } => what.advice(format!("name one of {}", known.join(", "))),
            Self::BaseHas { name, asks, at, .. } => what
                .at(at.clone())
                .why(format!("this asks for `{asks}`"))
                .advice(format!("widen the constraint of `{name}`, leave it out, or choose another base")),
            Self::KernelNeeds { .. } => what
                .why("packages of the base are never replaced")
                .advice("choose a base with a newer one, or without any"),
            Self::NotExtensible { lacks, .. } => what
                .why(format!("it has {}", lacks.join(", ")))
                .advice("extend an image of this program, or build one on this base: `-V any-base`"),
            Self::BaseUser { .. } => what
                .why("neither is it a number, nor does `/etc/passwd` of the base have it")
                .advice("choose another base"),
            Self::InheritsUser(_) => what.advice("leave out `--root`, `--uid` and `--gid`"),
            Self::InheritsPython(_) => what.advice("leave out `--python-archive`"),
            Self::NeedsBase(_) => what.advice("name it with `--base`"),
            Self::NeedsName(_) => what
                .why("clients find an executor by its name")
                .advice("give one with `--name`, such as `--name science`"),
            Self::NothingToName(_) => what.advice("leave out `--name`, or choose `-V any-base`"),
            Self::OwnVariable(name) if name == "EXECUTOR_NAME" => what.advice("give it with `--name`"),
            Self::OwnVariable(_) => what
                .why("interpreter and packages would not be found with another value")
                .advice("leave it out"),
            Self::NoApt { .. } => what.advice("choose a base of Debian or Ubuntu, or do without these packages"),
            Self::Platform { .. } => what.advice("choose a base for linux/amd64 or linux/arm64"),
        }
    }
}

/// Whose an interpreter is, in words.
fn owner(base: &str, provenance: Provenance) -> String {
    match provenance {
        Provenance::Base => format!("base image `{base}`"),
        Provenance::Apt => format!("the distribution of base image `{base}`"),
        Provenance::Archive => "the archive of `--python-archive`".to_owned(),
    }
}

/// What to choose in place of an interpreter.
fn another(provenance: Provenance) -> &'static str {
    match provenance {
        Provenance::Base => "choose another base",
        Provenance::Apt => "choose another base, or give a Python with `--python-archive`",
        Provenance::Archive => "give another archive",
    }
}

/// Why a base has no interpreter: none is found, or one has a reason behind its path.
fn without_interpreter(broken: Option<&str>) -> String {
    let Some(path) = broken else {
        return "none is on its PATH or in `/opt`, and it is no release of Debian or Ubuntu whose own could be installed"
            .to_owned();
    };
    match path.split_once(" (") {
        Some((path, why)) => {
            let why = why.trim_end_matches(')').escape_debug();
            format!("`{}` cannot be used: {why}", path.escape_debug())
        }
        None => format!("`{}` ends with an error, or says nothing of use", path.escape_debug()),
    }
}
