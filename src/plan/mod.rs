//! A [`Spec`] and options to a [`Plan`]: pure, and the only place that makes choices.

mod python;
mod requirement;
mod target;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Range;
use std::path::Path;

use serde::Serialize;

pub use python::{PythonVersion, default_base};
pub use requirement::Requirement;
pub use target::needed;

use crate::base::{Base, Interpreter};
use crate::diagnostic::Diagnostic;
use crate::local::LocalSource;
use crate::spec::{Constraint, Dependency, Name, Priority, Source, Spec, pep508};
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
    /// What the servers' environment is installed from, a file of `templates/runtime/`; with hashes.
    pub lock: String,
    /// Debian packages that are installed, sorted.
    pub apt: Vec<String>,
    /// Whether modules are compiled when they are installed.
    pub bytecode: bool,
    /// What `/opt/venv` is resolved from, sorted by distribution: the list and the kernel's needs.
    pub requirements: Vec<Requirement>,
    /// Versions that must not be left where a distribution is installed, and hashes of its files.
    pub bounds: Vec<Requirement>,
    /// The package indexes that are asked, in their order; the installer's own if none is the default.
    pub indexes: Vec<PackageIndex>,
    /// Distributions that are built, or taken from this host, instead of asked from an index.
    pub sources: BTreeMap<Name, PlannedSource>,
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

/// A package index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PackageIndex {
    /// Its address.
    pub url: String,
    /// When it is asked.
    pub priority: Priority,
    /// The distributions that come from it and no other.
    pub only: Vec<Name>,
}

/// What a distribution is built from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlannedSource {
    /// Where it is from: `git+URL@COMMIT`, an address, or the path as the list has it.
    pub from: String,
    /// The folder of the project inside.
    pub subdirectory: Option<String>,
    /// SHA-256 over its files; `None` for what the build fetches itself.
    pub digest: Option<String>,
    /// SHA-256 that the archive behind an address must have.
    pub sha256: Option<String>,
    /// Its file, where it is one archive and no folder.
    pub file: Option<String>,
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

/// The label that names the variant.
pub const VARIANT_LABEL: &str = "ipybox.variant";

/// The label that names the distributions of the list, with a blank between them.
pub const DEPENDENCIES_LABEL: &str = "ipybox.dependencies";

/// What the kernel of an image needs, whatever the list asks for. pip is here so that code can
/// install packages at run time.
const KERNEL: [&str; 2] = ["ipykernel>=6.31,<8", "pip>=25.3"];

/// The oldest interpreter that the locked servers support.
const OLDEST_PYTHON: PythonVersion = PythonVersion { minor: 10 };

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
    /// The base cannot get the variant's system packages.
    #[error("base image `{base}` has no `apt-get`, which the variant `{variant}` needs for {packages}")]
    NoApt {
        /// The base image.
        base: String,
        /// The variant.
        variant: String,
        /// The packages, in words.
        packages: String,
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
    /// The files of dependencies that come from this host or a repository.
    pub sources: BTreeMap<Name, LocalSource>,
    /// Whether modules are compiled when they are installed.
    pub bytecode: bool,
}

/// Choices of alternatives that are tried one after another, at most.
const MAX_CHOICES: usize = 32;

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
        let (needed, dropped) = needed(spec, &base);
        let mut requirements = kernel_requirements(variant);
        let mut bounds: Vec<_> = spec.bounds.iter().map(Requirement::lower).collect();
        let mut sources = BTreeMap::new();
        let mut indexes = Indexes::of(spec);
        let mut choices = 1_usize;
        let names: Vec<_> = needed.iter().map(|dependency| dependency.name.clone()).collect();
        for dependency in needed {
            if dependency.constraint.is_empty() {
                let (name, at) = (dependency.name.clone(), dependency.at.clone());
                errors.push(PlanError::NoVersion { name, constraint: dependency.constraint.to_string(), at });
                continue;
            }
            let mut requirement = Requirement::lower(dependency);
            if requirement.alternatives.len() > 1 {
                let before = choices;
                choices = choices.saturating_mul(requirement.alternatives.len());
                if choices > MAX_CHOICES && before <= MAX_CHOICES {
                    errors.push(PlanError::TooManyAlternatives { choices, at: dependency.at.clone() });
                }
            }
            match source(dependency, &options.sources, &mut indexes) {
                Ok(Some(source)) => {
                    requirement.source = Source::default();
                    let name = dependency.name.clone();
                    if sources.insert(name.clone(), source.clone()).is_some_and(|earlier| earlier != source) {
                        errors.push(PlanError::TwoSources { name, at: dependency.at.clone() });
                    }
                }
                Ok(None) => {}
                Err(error) => errors.push(error),
            }
            if !requirement.hashes.is_empty() && requirement.source == Source::default() {
                bounds.push(requirement.clone());
            }
            requirements.push(requirement);
        }
        let primary = spec.indexes.iter().any(|index| index.priority == Priority::Default);
        let supplemental = spec.indexes.iter().find(|index| index.priority == Priority::Supplemental);
        if let (false, Some(index)) = (primary, supplemental) {
            errors.push(PlanError::Supplemental { url: index.url.clone(), at: index.at.clone() });
        }
        requirements.sort_by(|one, other| one.name.cmp(&other.name));
        bounds.sort_by(|one, other| one.name.cmp(&other.name));
        let interpreter =
            python::check(&spec.python, &base, options.python).map_err(|error| errors.push(error));
        let uv = options.uv.clone().ok_or_else(|| {
            errors.push(PlanError::Platform {
                base: base.reference.to_string(),
                platform: format!("{}/{}", base.platform.os, base.platform.architecture),
            });
        });
        if !variant.apt.is_empty() && !base.has_apt {
            let (base, variant_name) = (base.reference.to_string(), variant.name.clone());
            errors.push(PlanError::NoApt { base, variant: variant_name, packages: variant.apt.join(", ") });
        }
        let (true, Ok(interpreter), Ok(uv)) = (errors.is_empty(), interpreter, uv) else {
            return Err(errors);
        };
        let version = env!("CARGO_PKG_VERSION");
        let dependencies: BTreeSet<_> = names.iter().map(Name::as_str).collect();
        let dependencies = Vec::from_iter(dependencies).join(" ");
        let labels = [
            (DEPENDENCIES_LABEL, dependencies.as_str()),
            ("ipybox.python", interpreter.version.as_str()),
            (VARIANT_LABEL, &variant.name),
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
            lock: variant.lock.clone(),
            apt: BTreeSet::from_iter(variant.apt.clone()).into_iter().collect(),
            bytecode: options.bytecode,
            user: options.user,
            interpreter,
            base,
            requirements,
            bounds,
            indexes: indexes.used(),
            sources,
            dropped,
            uv,
        })
    }
}

impl Plan {
    /// What to ask the installer for: requirements, one list for each choice of alternatives. The first
    /// that resolves is taken; newer versions come first.
    #[must_use]
    pub fn requests(&self) -> Vec<Vec<String>> {
        let open = self.requirements.iter().enumerate().filter(|(_, one)| one.alternatives.len() > 1);
        let mut choices: Vec<Vec<(usize, usize)>> = vec![Vec::new()];
        for (at, requirement) in open {
            let extended = |choice: Vec<(usize, usize)>| {
                (0..requirement.alternatives.len())
                    .map(move |index| [choice.as_slice(), &[(at, index)]].concat())
            };
            choices = choices.into_iter().flat_map(extended).collect();
        }
        choices.sort_by_key(|choice| choice.iter().map(|(_, index)| index).sum::<usize>());
        let request = |choice: Vec<(usize, usize)>| {
            let mut texts: Vec<String> = self.requirements.iter().map(ToString::to_string).collect();
            for (at, index) in choice {
                texts[at] = self.requirements[at].alternative(index);
            }
            texts
        };
        choices.into_iter().map(request).collect()
    }
}

/// What a dependency is built from; `None` for what the installer gets as it is.
fn source(
    dependency: &Dependency,
    local: &BTreeMap<Name, LocalSource>,
    indexes: &mut Indexes<'_>,
) -> Result<Option<PlannedSource>, PlanError> {
    let (name, at) = (|| dependency.name.clone(), || dependency.at.clone());
    let from_host = |from: String, subdirectory: &Option<String>| {
        let files = local.get(&dependency.name).expect("the files of needed sources are read before");
        let subdirectory = subdirectory.clone().filter(|_| files.file().is_none());
        PlannedSource {
            from,
            subdirectory,
            sha256: None,
            digest: Some(files.digest().to_owned()),
            file: files.file().map(str::to_owned),
        }
    };
    match &dependency.source {
        Source::Registry { index: None } => Ok(None),
        Source::Registry { index: Some(index) } => {
            indexes.take(index, &dependency.name).map(|()| None).ok_or_else(|| PlanError::UnknownIndex {
                name: name(),
                index: index.clone(),
                known: indexes.names(),
                at: at(),
            })
        }
        Source::Git { url, subdirectory, .. } => {
            let commit = local.get(&dependency.name).and_then(LocalSource::commit).unwrap_or_default();
            Ok(Some(from_host(format!("git+{url}@{commit}"), subdirectory)))
        }
        Source::Path { path, subdirectory, .. } => Ok(Some(from_host(path.clone(), subdirectory))),
        Source::Url { url, .. } if is_wheel(url) => Ok(None),
        Source::Url { url, subdirectory, sha256 } => Ok(Some(PlannedSource {
            from: url.clone(),
            subdirectory: subdirectory.clone(),
            sha256: sha256.clone(),
            digest: None,
            file: None,
        })),
    }
}

/// Whether an address leads to a wheel, by its name.
fn is_wheel(url: &str) -> bool {
    let path = url.split('?').next().unwrap_or_default();
    Path::new(path).extension().is_some_and(|extension| extension == "whl")
}

/// The indexes that lists describe, and what is taken from each alone.
struct Indexes<'a> {
    described: Vec<(&'a crate::spec::Index, Vec<Name>)>,
    by_name: HashMap<&'a str, usize>,
}

impl<'a> Indexes<'a> {
    fn of(spec: &'a Spec) -> Self {
        let described: Vec<_> = spec.indexes.iter().map(|index| (index, Vec::new())).collect();
        let by_name = spec
            .indexes
            .iter()
            .enumerate()
            .filter_map(|(at, index)| Some((index.name.as_deref()?, at)))
            .collect();
        Self { described, by_name }
    }

    fn take(&mut self, index: &str, distribution: &Name) -> Option<()> {
        let (_, only) = &mut self.described[*self.by_name.get(index)?];
        only.push(distribution.clone());
        Some(())
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = self.by_name.keys().map(|&name| name.to_owned()).collect();
        names.sort();
        names
    }

    /// Those that are asked for anything.
    fn used(self) -> Vec<PackageIndex> {
        let mut seen = HashSet::new();
        let index = |(index, mut only): (&'a crate::spec::Index, Vec<Name>)| {
            only.sort();
            only.dedup();
            let used = index.priority != Priority::Explicit || !only.is_empty();
            (used && seen.insert((index.url.as_str(), index.priority))).then(|| PackageIndex {
                url: index.url.clone(),
                priority: index.priority,
                only,
            })
        };
        self.described.into_iter().filter_map(index).collect()
    }
}

/// The supervisor with the servers' commands, with `--` between them.
fn command(servers: &[Server]) -> Vec<String> {
    let supervisor =
        [&format!("{HOME}/server/bin/python"), "-I", "-m", "ipybox.supervisor"].map(str::to_owned);
    let commands: Vec<_> = servers.iter().map(|server| server.command.clone()).collect();
    [supervisor.to_vec(), commands.join(&"--".to_owned())].concat()
}

fn kernel_requirements(variant: &Variant) -> Vec<Requirement> {
    let kernel = KERNEL.map(|text| pep508::parse(text).expect("a constant requirement"));
    kernel.iter().chain(&variant.kernel).map(Requirement::lower).collect()
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
            Self::NoApt { .. } => what.advice("choose a base of Debian or Ubuntu, or the variant `kernel`"),
            Self::Platform { .. } => what.advice("choose a base for linux/amd64 or linux/arm64"),
        }
    }
}

/// A constraint as a list writes it.
fn admits(constraint: &Constraint) -> String {
    format!("`{constraint}`")
}
