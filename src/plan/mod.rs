//! A [`Spec`] and options to a [`Plan`]: pure, and the only place that makes choices.

mod error;
mod held;
mod index;
mod python;
mod requirement;
mod target;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::str::FromStr;

use pep440_rs::Version;
use serde::Serialize;

pub use error::PlanError;
pub use held::Held;
pub use index::PackageIndex;
pub use python::{Provenance, PythonVersion, choose, default_base};
pub use requirement::Requirement;
pub use target::{Target, needed};

use crate::accounts;
use crate::base::{Base, Interpreter, Python};
use crate::local::LocalSource;
use crate::python_archive::PythonArchive;
use crate::spec::{Dependency, Name, Priority, Source, Spec, pep508};
use crate::uv;
use crate::variant::{self, Packages, Server, Step, Variant};
use index::Indexes;

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
    /// The interpreter that both environments are made with.
    pub interpreter: Interpreter,
    /// Where that comes from.
    pub provenance: Provenance,
    /// The archive it is unpacked from, where it is.
    pub python_archive: Option<PlannedArchive>,
    /// Where the packages go.
    pub packages: Packages,
    /// What the base has and keeps: it constrains what is installed, and is not installed.
    pub held: BTreeMap<Name, Held>,
    /// Folders of distributions that a layered environment would not see by itself.
    pub folders: Vec<String>,
    /// Who the image runs as.
    pub user: User,
    /// What the servers' environment is installed from, a file of `templates/runtime/`; with hashes.
    pub lock: String,
    /// Debian packages that are installed, sorted.
    pub apt: Vec<String>,
    /// Whether Debian's curl is installed where that can be.
    pub wants_curl: bool,
    /// The folder of an executor's workspaces, where it is made.
    pub workspaces: Option<String>,
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
    /// Files that are copied into the image, in this order.
    pub copies: Vec<PlannedCopy>,
    /// Commands that change the image, in this order.
    pub steps: Vec<Step>,
    /// TCP ports that the image exposes.
    pub ports: Vec<u16>,
    /// The servers of the image; none where they are the base's.
    pub servers: Vec<Server>,
    /// The environment of the image.
    pub env: BTreeMap<String, String>,
    /// The labels of the image.
    pub labels: BTreeMap<String, String>,
    /// The installer: its version, and the SHA-256 of the wheel it comes in.
    pub uv: uv::Release,
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

/// An archive that an interpreter is unpacked from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlannedArchive {
    /// The folder in it that is the installation.
    pub folder: String,
    /// SHA-256 of the archive.
    pub sha256: String,
}

/// A file or folder that is copied into an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlannedCopy {
    /// An absolute path.
    pub to: String,
    /// Whether it is a folder.
    pub is_folder: bool,
    /// User and group id it belongs to.
    pub owner: (u32, u32),
    /// SHA-256 over its files.
    pub digest: String,
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
    /// Whoever the base runs as.
    Inherited {
        /// User id.
        uid: u32,
        /// Group id.
        gid: u32,
    },
}

impl User {
    /// The ids its files belong to.
    #[must_use]
    pub fn ids(self) -> (u32, u32) {
        match self {
            Self::Unprivileged { uid, gid } | Self::Inherited { uid, gid } => (uid, gid),
            Self::Root => (0, 0),
        }
    }

    /// Its home directory; `None` where that is the base's matter.
    #[must_use]
    pub fn home(self) -> Option<&'static str> {
        match self {
            Self::Unprivileged { .. } => Some("/home/ipybox"),
            Self::Root => Some("/root"),
            Self::Inherited { .. } => None,
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

/// What a kernel in a layered environment needs: any that the base may have.
const LAYERED_KERNEL: [&str; 2] = ["ipykernel>=6", "pip>=25.3"];

/// The variable that names an executor server.
const EXECUTOR_NAME: &str = "EXECUTOR_NAME";

/// The module that is an executor server.
const EXECUTOR: &str = "ipybox.executor.server";

/// The oldest interpreter that the locked servers support.
const OLDEST_PYTHON: PythonVersion = PythonVersion { minor: 10 };

/// What the caller decides.
#[derive(Debug, Clone)]
pub struct Options {
    /// Who the image runs as, unless that is inherited.
    pub user: User,
    /// The interpreter's version, where the caller names one.
    pub python: Option<PythonVersion>,
    /// The path of the base's interpreter, where the caller names one.
    pub base_python: Option<String>,
    /// An interpreter for a base that has none.
    pub archive: Option<PythonArchive>,
    /// What an executor server calls itself.
    pub name: Option<String>,
    /// Debian packages beside the variant's.
    pub apt: Vec<String>,
    /// Environment beside the variant's.
    pub env: BTreeMap<String, String>,
    /// Labels beside the variant's.
    pub labels: BTreeMap<String, String>,
    /// What is copied into the image, by its place there.
    pub copies: Vec<(String, LocalSource)>,
    /// The installer; `None` where there is none for the base's platform.
    pub uv: Option<uv::Release>,
    /// The files of dependencies that come from this host or a repository.
    pub sources: BTreeMap<Name, LocalSource>,
    /// Whether modules are compiled when they are installed.
    pub bytecode: bool,
}

impl Options {
    /// Nothing is asked for but an image that runs as `user`, made with the installer `uv`.
    #[must_use]
    pub fn new(user: User, uv: Option<uv::Release>) -> Self {
        Self {
            user,
            python: None,
            base_python: None,
            archive: None,
            name: None,
            apt: Vec::new(),
            env: BTreeMap::new(),
            labels: BTreeMap::new(),
            copies: Vec::new(),
            uv,
            sources: BTreeMap::new(),
            bytecode: true,
        }
    }
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
        let packages = variant.packages;
        let chosen = choose(spec, packages, &base, options).map_err(|error| errors.push(error)).ok();
        let python = chosen.as_ref().map(|(python, _)| python);
        let version = python.map(|python| python.interpreter.version.as_str());
        let target = Target { platform: &base.platform, python: version };
        let (needed, dropped) = needed(spec, target);
        let held = python.map(|python| held::held(python, packages)).unwrap_or_default();
        errors.extend(unfit(&base, python, packages));
        let asked = asked(spec, &needed, variant, &base, &held, options, &mut errors);
        let dependencies = dependencies(&needed, packages, &base);
        let uv = options.uv.clone().ok_or_else(|| {
            errors.push(PlanError::Platform {
                base: base.reference.to_string(),
                platform: format!("{}/{}", base.platform.os, base.platform.architecture),
            });
        });
        let user = user(packages, &base, options).map_err(|error| errors.push(error));
        let env = environment(variant, &base, user.ok(), options, &mut errors);
        let apt = apt(variant, chosen.as_ref().map(|(_, provenance)| *provenance), options);
        if !apt.is_empty() && !base.has("apt-get") {
            let packages = apt.iter().cloned().collect::<Vec<_>>().join(", ");
            errors.push(PlanError::NoApt { base: base.reference.to_string(), packages });
        }
        if packages == Packages::Inherited {
            let lacks = lacks(&base, python);
            if !lacks.is_empty() {
                // What else may be wrong with it does not matter.
                return Err(vec![PlanError::NoExecutor { base: base.reference.to_string(), lacks }]);
            }
        }
        let (true, Some((python, provenance)), Ok(uv), Ok(user)) = (errors.is_empty(), chosen, uv, user)
        else {
            return Err(errors);
        };
        let servers = if packages == Packages::Inherited { &[][..] } else { &variant.servers };
        let ports = servers.iter().map(|server| server.port_in(&env)).chain(variant.ports.iter().copied());
        Ok(Self {
            ipybox: env!("CARGO_PKG_VERSION").to_owned(),
            variant: variant.name.clone(),
            template: variant.template.clone(),
            labels: labels(variant, &base, &python.interpreter, dependencies, options),
            ports: ports.collect::<BTreeSet<_>>().into_iter().collect(),
            servers: servers.to_vec(),
            lock: variant.lock.clone(),
            // Compose files of executors ask for their health with it.
            wants_curl: servers.iter().any(|server| server.runs(EXECUTOR))
                && base.has("apt-get")
                && !base.has("curl"),
            workspaces: workspaces(servers, &env),
            folders: if python.is_virtual && packages == Packages::Layered {
                python.folders
            } else {
                Vec::new()
            },
            python_archive: options.archive.as_ref().map(|archive| PlannedArchive {
                folder: archive.folder().to_owned(),
                sha256: archive.sha256().to_owned(),
            }),
            bytecode: options.bytecode,
            copies: options.copies.iter().map(|(to, files)| copy(to, files, user)).collect(),
            steps: variant.steps.clone(),
            interpreter: python.interpreter,
            provenance,
            packages,
            held,
            env,
            apt: apt.into_iter().collect(),
            user,
            base,
            requirements: asked.requirements,
            bounds: asked.bounds,
            indexes: asked.indexes,
            sources: asked.sources,
            dropped,
            uv,
        })
    }

    /// The first process of a container, in exec form; empty where it is the base's.
    #[must_use]
    pub fn command(&self) -> Vec<String> {
        if self.servers.is_empty() {
            return Vec::new();
        }
        let supervisor = [&self.servers_python(), "-I", "-m", "ipybox.supervisor"].map(str::to_owned);
        let commands: Vec<_> = self.servers.iter().map(|server| server.command.clone()).collect();
        [supervisor.to_vec(), commands.join(&"--".to_owned())].concat()
    }

    /// A command that ends well where every server answers, in exec form.
    #[must_use]
    pub fn health(&self) -> Vec<String> {
        let program = [&self.servers_python(), "-I", "-m", "ipybox.health"].map(str::to_owned);
        let port = |server: &Server| match &server.port_variable {
            Some(variable) => format!("{variable}={}", server.port_in(&self.env)),
            None => server.port.to_string(),
        };
        program.into_iter().chain(self.servers.iter().map(port)).collect()
    }

    /// Whether hashes of the list are checked apart from the installer, which does not do so with what was
    /// resolved before.
    #[must_use]
    pub fn checks_hashes(&self) -> bool {
        self.packages != Packages::Isolated && self.bounds.iter().any(|bound| !bound.hashes.is_empty())
    }

    /// The interpreter that build steps may use once the servers are installed.
    #[must_use]
    pub fn servers_python(&self) -> String {
        match self.packages {
            Packages::Inherited => self.interpreter.path.clone(),
            Packages::Isolated | Packages::Layered => format!("{HOME}/server/bin/python"),
        }
    }
}

/// What the installer is asked for.
#[derive(Default)]
struct Asked {
    requirements: Vec<Requirement>,
    bounds: Vec<Requirement>,
    sources: BTreeMap<Name, PlannedSource>,
    indexes: Vec<PackageIndex>,
}

fn asked(
    spec: &Spec,
    needed: &[&Dependency],
    variant: &Variant,
    base: &Base,
    held: &BTreeMap<Name, Held>,
    options: &Options,
    errors: &mut Vec<PlanError>,
) -> Asked {
    let mut asked =
        Asked { requirements: kernel_requirements(variant, base, held, errors), ..Asked::default() };
    let mut indexes = Indexes::of(spec);
    let mut choices = 1_usize;
    for bound in &spec.bounds {
        match held.get(&bound.name).map(|held| held::check(bound, held, &base.reference)) {
            Some(agrees) => errors.extend(agrees.err()),
            None => asked.bounds.push(Requirement::lower(bound)),
        }
    }
    for &dependency in needed {
        let name = || dependency.name.clone();
        if dependency.constraint.is_empty() {
            let (constraint, at) = (dependency.constraint.to_string(), dependency.at.clone());
            errors.push(PlanError::NoVersion { name: name(), constraint, at });
            continue;
        }
        if let Some(held) = held.get(&dependency.name) {
            errors.extend(held::check(dependency, held, &base.reference).err());
            asked.requirements.push(Requirement::of_any_version(dependency));
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
                let earlier = asked.sources.insert(name(), source.clone());
                if earlier.is_some_and(|earlier| earlier != source) {
                    errors.push(PlanError::TwoSources { name: name(), at: dependency.at.clone() });
                }
            }
            Ok(None) => {}
            Err(error) => errors.push(error),
        }
        if !requirement.hashes.is_empty() && requirement.source == Source::default() {
            asked.bounds.push(requirement.clone());
        }
        asked.requirements.push(requirement);
    }
    let primary = spec.indexes.iter().any(|index| index.priority == Priority::Default);
    let supplemental = spec.indexes.iter().find(|index| index.priority == Priority::Supplemental);
    if let (false, Some(index)) = (primary, supplemental) {
        errors.push(PlanError::Supplemental { url: index.url.clone(), at: index.at.clone() });
    }
    asked.requirements.sort_by(|one, other| one.name.cmp(&other.name));
    asked.bounds.sort_by(|one, other| one.name.cmp(&other.name));
    asked.indexes = indexes.used();
    asked
}

/// What generated code needs whatever the list; all of it, or an error for what the base has otherwise.
fn kernel_requirements(
    variant: &Variant,
    base: &Base,
    held: &BTreeMap<Name, Held>,
    errors: &mut Vec<PlanError>,
) -> Vec<Requirement> {
    let kernel: &[&str] = match variant.packages {
        Packages::Isolated => &KERNEL,
        Packages::Layered => &LAYERED_KERNEL,
        Packages::Inherited => &[],
    };
    let kernel = kernel.iter().map(|text| pep508::parse(text).expect("a constant requirement"));
    let mut requirements = Vec::new();
    for dependency in kernel.chain(variant.kernel.iter().cloned()) {
        let refused =
            held.get(&dependency.name).and_then(|held| held::check(&dependency, held, &base.reference).err());
        if let Some(PlanError::BaseHas { base, name, has, asks, .. }) = refused {
            errors.push(PlanError::KernelNeeds { base, name, has, asks });
        }
        requirements.push(Requirement::lower(&dependency));
    }
    requirements
}

/// Who the image runs as.
fn user(packages: Packages, base: &Base, options: &Options) -> Result<User, PlanError> {
    if packages != Packages::Inherited {
        return Ok(options.user);
    }
    let user = &base.config.user;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
    let ids = accounts::ids(&base.passwd, &base.group, user).filter(|_| user.bytes().all(plain));
    let (uid, gid) = ids.ok_or_else(|| {
        let (base, user) = (base.reference.to_string(), user.escape_debug().to_string());
        PlanError::BaseUser { base, user }
    })?;
    Ok(User::Inherited { uid, gid })
}

/// What an image lacks to be extended.
fn lacks(base: &Base, python: Option<&Python>) -> Vec<String> {
    let mut lacks = Vec::new();
    let command = [base.config.entrypoint.as_slice(), &base.config.cmd].concat().join(" ");
    if ![EXECUTOR, "executor_server:app"].iter().any(|server| command.contains(server)) {
        lacks.push("no command that starts an executor server".to_owned());
    }
    if base.pythons.is_empty() {
        lacks.push("no Python".to_owned());
    } else if let Some(python) = python {
        let has = |name: &str| python.distributions.iter().any(|one| one.name.eq_ignore_ascii_case(name));
        if !has("ipykernel") {
            lacks.push(format!("no `ipykernel` for `{}`", python.interpreter.path.escape_debug()));
        }
    }
    lacks
}

/// Why nothing can be built on a base, whatever is asked for.
fn unfit(base: &Base, python: Option<&Python>, packages: Packages) -> Vec<PlanError> {
    let reference = || base.reference.to_string();
    let mut errors = Vec::new();
    if !base.has("find") {
        errors.push(PlanError::NoProgram { base: reference(), program: "find" });
    }
    if let Some(instruction) = base.config.on_build.first() {
        errors.push(PlanError::OnBuild { base: reference(), instruction: instruction.clone() });
    }
    if packages == Packages::Inherited {
        let distributions = python.map(|python| python.distributions.as_slice()).unwrap_or_default();
        let odd = distributions.iter().find(|one| Version::from_str(&one.version).is_err());
        if let Some((one, name)) = odd.and_then(|one| Some((one, Name::parse(&one.name)?))) {
            let version = one.version.escape_debug().to_string();
            errors.push(PlanError::OddVersion { base: reference(), name, version });
        }
    }
    errors
}

/// Debian packages: those asked for, and a Python that the base lacks.
fn apt(variant: &Variant, provenance: Option<Provenance>, options: &Options) -> BTreeSet<String> {
    let asked = variant.apt.iter().chain(&options.apt).cloned();
    let python = (provenance == Some(Provenance::Apt)).then(|| "python3".to_owned());
    asked.chain(python).collect()
}

/// The folder of an executor's workspaces, where that is one that an image can have.
fn workspaces(servers: &[Server], env: &BTreeMap<String, String>) -> Option<String> {
    let folder = env.get("WORKSPACES_DIR").filter(|_| servers.iter().any(|server| server.runs(EXECUTOR)))?;
    variant::destination(folder).ok().map(|()| folder.trim_end_matches('/').to_owned())
}

/// What is in the label of the list's distributions.
fn dependencies(needed: &[&Dependency], packages: Packages, base: &Base) -> String {
    let before = base.config.labels.get(DEPENDENCIES_LABEL).filter(|_| packages == Packages::Inherited);
    let before = before.map(String::as_str).unwrap_or_default().split_whitespace();
    let names: BTreeSet<_> = needed.iter().map(|dependency| dependency.name.as_str()).chain(before).collect();
    names.into_iter().collect::<Vec<_>>().join(" ")
}

fn labels(
    variant: &Variant,
    base: &Base,
    interpreter: &Interpreter,
    dependencies: String,
    options: &Options,
) -> BTreeMap<String, String> {
    let own = [
        (DEPENDENCIES_LABEL, dependencies),
        ("ipybox.python", interpreter.version.clone()),
        (VARIANT_LABEL, variant.name.clone()),
        ("ipybox.version", env!("CARGO_PKG_VERSION").to_owned()),
        ("org.opencontainers.image.base.name", base.reference.to_string()),
    ];
    let mut labels = variant.labels.clone();
    labels.extend(options.labels.clone());
    labels.extend(own.map(|(name, value)| (name.to_owned(), value)));
    labels
}

fn environment(
    variant: &Variant,
    base: &Base,
    user: Option<User>,
    options: &Options,
    errors: &mut Vec<PlanError>,
) -> BTreeMap<String, String> {
    const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let mut env = variant.env.clone();
    env.extend(options.env.clone());
    let own = ["HOME", "PATH", "VIRTUAL_ENV", "PYTHONHOME", EXECUTOR_NAME];
    errors.extend(
        own.iter().filter(|name| env.contains_key(**name)).map(|name| PlanError::OwnVariable((*name).into())),
    );
    match (options.name.as_ref().or(variant.executor_name.as_ref()), variant.executor()) {
        (Some(name), Some(_)) => {
            env.insert(EXECUTOR_NAME.to_owned(), name.clone());
        }
        (None, Some(_)) => {
            errors.push(PlanError::NeedsName(variant.name.clone()));
        }
        (Some(_), None) => errors.push(PlanError::NothingToName(variant.name.clone())),
        _ => {}
    }
    if let Some(home) = user.and_then(User::home) {
        let rest = base.config.variable("PATH").filter(|path| !path.is_empty()).unwrap_or(SYSTEM_PATH);
        env.insert("HOME".to_owned(), home.to_owned());
        env.insert("PATH".to_owned(), format!("{VENV}/bin:{rest}"));
        env.insert("VIRTUAL_ENV".to_owned(), VENV.to_owned());
        if base.config.variable("PYTHONHOME").is_some() {
            env.insert("PYTHONHOME".to_owned(), String::new());
        }
    }
    env
}

fn copy(to: &str, files: &LocalSource, user: User) -> PlannedCopy {
    let to = match files.file().filter(|_| to.ends_with('/')) {
        Some(file) => format!("{to}{file}"),
        None => to.trim_end_matches('/').to_owned(),
    };
    let theirs = ["/app"].into_iter().chain(user.home()).any(|folder| Path::new(&to).starts_with(folder));
    PlannedCopy {
        is_folder: files.file().is_none(),
        owner: if theirs { user.ids() } else { (0, 0) },
        digest: files.digest().to_owned(),
        to,
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
