//! A [`Spec`] and options to a [`Plan`]: pure, and the only place that makes choices.

mod error;
mod held;
mod image;
mod index;
mod packages;
mod python;
mod requirement;
mod steps;
mod target;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

pub use error::PlanError;
pub use held::Held;
pub use index::PackageIndex;
pub use packages::{PlannedSource, kernel_needs};
pub use python::{Provenance, PythonVersion, choose, default_base};
pub use requirement::Requirement;
pub use steps::StepId;
pub use target::{Target, needed};

pub use crate::accounts::User;

use crate::base::{Base, Interpreter};
use crate::deps::{Name, Spec};
use crate::inputs::local::LocalSource;
use crate::inputs::python_archive::PythonArchive;
use crate::installer;
use crate::variant::{EXECUTOR, Packages, Server, Step, Variant};

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
    pub uv: installer::Release,
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

/// Where an image keeps what is its own.
pub const HOME: &str = "/opt/ipybox";

/// The home of the environment that generated code runs in.
pub const VENV: &str = "/opt/venv";

/// The label that names the variant.
pub const VARIANT_LABEL: &str = "ipybox.variant";

/// The label of images whose executor server is this program's.
pub const EXECUTOR_LABEL: &str = "ipybox.executor";

/// The label that names the distributions of the list, with a blank between them.
pub const DEPENDENCIES_LABEL: &str = "ipybox.dependencies";

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
    pub uv: Option<installer::Release>,
    /// The files of dependencies that come from this host or a repository.
    pub sources: BTreeMap<Name, LocalSource>,
    /// Whether modules are compiled when they are installed.
    pub bytecode: bool,
}

impl Options {
    /// Nothing is asked for but an image that runs as `user`, made with the installer `uv`.
    #[must_use]
    pub fn new(user: User, uv: Option<installer::Release>) -> Self {
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
        errors.extend(image::unfit(&base, python, packages));
        let asked = packages::asked(spec, &needed, variant, &base, &held, options, &mut errors);
        let dependencies = image::dependencies(&needed, packages, &base);
        let uv = options.uv.clone().ok_or_else(|| {
            errors.push(PlanError::Platform {
                base: base.reference.to_string(),
                platform: format!("{}/{}", base.platform.os, base.platform.architecture),
            });
        });
        let user = image::user(packages, &base, options).map_err(|error| errors.push(error));
        let env = image::environment(variant, &base, user.ok(), options, &mut errors);
        let apt = image::apt(variant, chosen.as_ref().map(|(_, provenance)| *provenance), options);
        if !apt.is_empty() && !base.has("apt-get") {
            let packages = apt.iter().cloned().collect::<Vec<_>>().join(", ");
            errors.push(PlanError::NoApt { base: base.reference.to_string(), packages });
        }
        if packages == Packages::Inherited {
            let lacks = image::lacks(&base, python);
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
            labels: image::labels(variant, &base, &python.interpreter, dependencies, options),
            ports: ports.collect::<BTreeSet<_>>().into_iter().collect(),
            servers: servers.to_vec(),
            lock: variant.lock.clone(),
            // Compose files of executors ask for their health with it.
            wants_curl: servers.iter().any(|server| server.runs(EXECUTOR))
                && base.has("apt-get")
                && !base.has("curl"),
            workspaces: image::workspaces(servers, &env),
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
            copies: options.copies.iter().map(|(to, files)| image::copy(to, files, user)).collect(),
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
