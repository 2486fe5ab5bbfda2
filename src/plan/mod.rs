//! A [`Request`], a list and a base to a [`Plan`]: pure, and the only place that makes choices.

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

use pep440_rs::VersionSpecifiers;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use error::PlanError;
pub use held::Held;
pub use image::listed;
pub use index::PackageIndex;
pub use packages::{PlannedSource, kernel_needs};
pub use python::{Provenance, default_base};
pub use requirement::Requirement;
pub use steps::StepId;
pub use target::{Environment, Target};

use crate::accounts::User;
use crate::archive::hexadecimal;
use crate::base::{Base, Interpreter, Platform};
use crate::deps::{Name, Source, Spec, Url};
use crate::reference::{ImageId, Reference};
use crate::request::{Libraries, Request};
use crate::variant::{Placement, Server, Step, Variant, When};

/// Everything that decides an image, with nothing left to decide. It is printed as JSON, and read back.
///
/// What only rendering needs travels beside it: the base's facts, places in lists, files of this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// What a plan of this program looks like; counted up where that changes.
    pub format: u32,
    /// The version of this program.
    pub ipybox: String,
    /// The variant's name.
    pub variant: String,
    /// What changes rarely.
    pub foundation: Foundation,
    /// What the list asks for.
    pub packages: Packages,
    /// What comes last, and what the image says of itself.
    pub finish: Finish,
}

/// The part of an image that changes rarely: all that lies below its packages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Foundation {
    /// The image built on.
    pub base: PlannedBase,
    /// The interpreter that both environments are made with.
    pub interpreter: Interpreter,
    /// Where that comes from.
    pub provenance: Provenance,
    /// The archive it is unpacked from, where it is.
    pub python_archive: Option<PlannedArchive>,
    /// Where the packages go.
    pub placement: Placement,
    /// Who the image runs as.
    pub user: User,
    /// The Dockerfile template.
    pub template: String,
    /// SHA-256 over all templates and the files that get into images.
    pub templates: String,
    /// The servers of the image; none where they are the base's.
    pub servers: Vec<Server>,
    /// What their environment is installed from, a file of `templates/runtime/`; with hashes.
    pub servers_lock: String,
    /// Debian packages that are installed, sorted.
    pub apt: Vec<String>,
    /// Further Debian packages, which are installed where that can be; sorted.
    pub wishes: Vec<String>,
    /// The folder of an executor's workspaces, where it is made.
    pub workspaces: Option<String>,
    /// The environment of the image, and of every step.
    pub env: BTreeMap<String, String>,
    /// Files that are copied before the steps below, in this order.
    pub copies: Vec<PlannedCopy>,
    /// Commands that change the image before the packages are there, in this order.
    pub steps: Vec<Step>,
    /// Whether modules are compiled when they are installed.
    pub bytecode: bool,
    /// The installer.
    pub installer: Installer,
}

/// The part of an image that its list asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packages {
    /// What the environment is resolved from, sorted by distribution: the list and the kernel's needs.
    pub requirements: Vec<Requirement>,
    /// Versions that must not be left where a distribution is installed, and hashes of its files.
    pub bounds: Vec<Requirement>,
    /// The package indexes that are asked, in their order; the installer's own if none is the default.
    pub indexes: Vec<PackageIndex>,
    /// Distributions that are built, or taken from this host, instead of asked from an index.
    pub sources: BTreeMap<Name, PlannedSource>,
    /// Distributions that no index has as a wheel, with the versions that will do: their sources are built.
    pub unbuilt: BTreeMap<Name, VersionSpecifiers>,
    /// Debian packages that are there while sources are built, and not in the image; sorted.
    pub build_apt: Vec<String>,
    /// What the base has and keeps: it constrains what is installed, and is not installed.
    pub held: BTreeMap<Name, Held>,
    /// Folders of distributions that a layered environment would not see by itself.
    pub folders: Vec<String>,
    /// What is installed, where a lock says so; nothing is resolved or built then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locked: Option<BTreeMap<Name, Pin>>,
}

/// A wheel that a lock names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// Its version.
    pub version: String,
    /// The name of its file.
    pub file: String,
    /// Its address; `None` where it is a file of this host.
    pub url: Option<String>,
    /// SHA-256 of it.
    pub sha256: String,
    /// In bytes.
    pub size: Option<u64>,
    /// Whether the list asks for this file itself.
    pub is_direct: bool,
    /// The generation of the lock in which it came: what is newer lies in layers above.
    #[serde(default, skip_serializing_if = "is_first")]
    pub generation: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
fn is_first(generation: &u32) -> bool {
    *generation == 0
}

/// The part of an image that comes last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finish {
    /// Files that are copied into the image, in this order.
    pub copies: Vec<PlannedCopy>,
    /// Commands that change the image, in this order.
    pub steps: Vec<Step>,
    /// What all own commands find in their environment.
    pub args: BTreeMap<String, String>,
    /// TCP ports that the image exposes.
    pub ports: Vec<u16>,
    /// The labels of the image.
    pub labels: BTreeMap<String, String>,
}

/// The image built on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedBase {
    /// The name it was asked for by.
    pub reference: Reference,
    /// Its image id.
    pub id: ImageId,
    /// What it runs on.
    pub platform: Platform,
}

/// A build of uv: its version, and SHA-256 of what it is taken from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Installer {
    /// The version; `custom` for a program of the caller's.
    pub version: String,
    /// The architecture by its name in OCI images.
    pub architecture: String,
    /// Of the wheel it comes in, or of the program itself where the caller gave one.
    pub sha256: String,
}

/// An archive that an interpreter is unpacked from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedArchive {
    /// The folder in it that is the installation.
    pub folder: String,
    /// The interpreter's version.
    pub version: String,
    /// SHA-256 of the archive.
    pub sha256: String,
}

/// A file or folder that is copied into an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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

/// Files of this host or of a repository, as far as a plan knows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// SHA-256 over all of them.
    pub digest: String,
    /// The name of the one archive or file, where it is no folder.
    pub file: Option<String>,
    /// The commit they are of, where they are of a repository.
    pub commit: Option<String>,
}

/// What a plan is made of beside a request, a list and a base.
#[derive(Debug, Clone, Default)]
pub struct Materials {
    /// SHA-256 over all templates.
    pub templates: String,
    /// The installer; `None` where there is none for the base's platform.
    pub installer: Option<Installer>,
    /// An interpreter for a base that has none.
    pub python_archive: Option<PlannedArchive>,
    /// What is copied into the image, by its place there.
    pub copies: Vec<(String, Files)>,
    /// The files of dependencies that come from this host or a repository.
    pub sources: BTreeMap<Name, Files>,
}

/// What earlier builds have taught: what no index has as a wheel, from those that failed for want of it, and what
/// installed packages lack.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Learnt {
    /// With the versions that will do.
    pub names: BTreeMap<Name, VersionSpecifiers>,
    /// Whether one of them does not build without a compiler.
    pub needs_compiler: bool,
    /// Debian packages with shared libraries that installed packages need.
    #[serde(default)]
    pub libraries: BTreeSet<String>,
}

/// What a plan of this program looks like.
pub const FORMAT: u32 = 1;

/// Where an image keeps what is its own.
pub const HOME: &str = "/opt/ipybox";

/// The home of the environment that generated code runs in.
pub const VENV: &str = "/opt/venv";

/// The interpreter of the servers.
pub const SERVERS_PYTHON: &str = "/opt/ipybox/server/bin/python";

/// The label that names the variant.
pub const VARIANT_LABEL: &str = "ipybox.variant";

/// The label of images whose executor server is this program's.
pub const EXECUTOR_LABEL: &str = "ipybox.executor";

/// Where containers work; it belongs to the image's user.
pub const WORKDIR: &str = "/app";

/// Where agents that enter a container work, if nobody tells them otherwise; it belongs to the image's user.
pub const WORKSPACE: &str = "/workspace";

/// The label that says what an image speaks, with a blank between.
pub const SERVES_LABEL: &str = "ipybox.serves";

/// The label that names the distributions of the list, with a blank between them.
pub const DEPENDENCIES_LABEL: &str = "ipybox.dependencies";

impl Plan {
    /// Makes a plan for a target that was chosen from the same request, list, variant and base.
    ///
    /// # Errors
    ///
    /// Every [`PlanError`] there is, at once.
    pub fn resolve(
        request: &Request,
        spec: &Spec,
        variant: &Variant,
        base: &Base,
        target: Target<'_>,
        materials: Materials,
    ) -> Result<Self, Vec<PlanError>> {
        let mut errors = Vec::new();
        let packages = packages::packages(
            spec,
            &target.needed,
            Some(&target.python),
            variant,
            base,
            Some(&materials.sources),
            &mut errors,
        );
        let user = image::user(variant.packages, base, request).map_err(|error| errors.push(error)).ok();
        let env = image::environment(variant, base, user, request, &mut errors);
        let (Some(user), Some(installer), true) = (user, materials.installer, errors.is_empty()) else {
            return Err(errors);
        };
        let servers = if variant.packages == Placement::Inherited { &[][..] } else { &variant.servers };
        let apt = image::apt(variant, Some(target.provenance), request);
        let ports = servers.iter().map(|server| server.port_in(&env)).chain(variant.ports.iter().copied());
        let ports = ports.collect::<BTreeSet<_>>().into_iter().collect();
        let labels = image::labels(variant, base, &target, request);
        let at = |when| variant.steps.iter().filter(move |step| step.at == when).cloned().collect();
        let copies = materials.copies.iter().map(|(to, files)| image::copy(to, files, user)).collect();
        // Files are there before the first command that may use them.
        let steps: Vec<Step> = at(When::Foundation);
        let (early, late) = if steps.is_empty() { (Vec::new(), copies) } else { (copies, Vec::new()) };
        let plan = Self {
            format: FORMAT,
            ipybox: env!("CARGO_PKG_VERSION").to_owned(),
            variant: variant.name.clone(),
            foundation: Foundation {
                base: PlannedBase {
                    reference: base.reference.clone(),
                    id: base.id.clone(),
                    platform: base.platform.clone(),
                },
                interpreter: target.python.interpreter,
                provenance: target.provenance,
                python_archive: materials.python_archive,
                placement: variant.packages,
                user,
                template: variant.template.clone(),
                templates: materials.templates,
                servers: servers.to_vec(),
                servers_lock: variant.lock.clone(),
                wishes: image::wishes(servers, base, &apt),
                apt: apt.into_iter().collect(),
                workspaces: image::workspaces(servers, &env),
                env,
                copies: early,
                steps,
                bytecode: request.bytecode,
                installer,
            },
            packages,
            finish: Finish { copies: late, steps: at(When::End), args: request.args.clone(), ports, labels },
        };
        Ok(plan.with_learnt(Learnt::default(), request, base))
    }

    /// The plan with what is known of it from earlier builds, as far as `request` lets that count: what has no wheel is
    /// built, and libraries that are lacking are installed.
    #[must_use]
    pub fn with_learnt(mut self, learnt: Learnt, request: &Request, base: &Base) -> Self {
        if request.libraries == Libraries::Added && base.has("apt-get") {
            // Distributions call packages otherwise, and leave some out: what cannot be had fails no build.
            let Foundation { apt, wishes, .. } = &mut self.foundation;
            let libraries = learnt.libraries.iter().filter(|library| !apt.contains(library)).cloned();
            let all: BTreeSet<String> = wishes.drain(..).chain(libraries).collect();
            wishes.extend(all);
        }
        let interpreter = &self.foundation.interpreter;
        self.packages = packages::with_builds(self.packages, learnt, interpreter, base, request);
        self
    }

    /// The plan where a lock says what is installed.
    #[must_use]
    pub fn with_lock(mut self, pins: BTreeMap<Name, Pin>) -> Self {
        let Packages { sources, unbuilt, build_apt, locked, .. } = &mut self.packages;
        // What is built has become a wheel of the lock.
        sources.clear();
        unbuilt.clear();
        build_apt.clear();
        *locked = Some(pins);
        self
    }

    /// All that is copied, in its order.
    pub fn copies(&self) -> impl Iterator<Item = &PlannedCopy> {
        self.foundation.copies.iter().chain(&self.finish.copies)
    }

    /// The secrets that its own steps read, by their ids.
    #[must_use]
    pub fn secrets(&self) -> BTreeSet<&str> {
        self.own_steps().flat_map(|step| &step.secrets).map(String::as_str).collect()
    }

    /// All commands that change the image, in their order.
    pub fn own_steps(&self) -> impl Iterator<Item = &Step> {
        self.foundation.steps.iter().chain(&self.finish.steps)
    }
}

impl Foundation {
    /// SHA-256 over everything in it.
    #[must_use]
    pub fn digest(&self) -> String {
        digest(self)
    }

    /// The first process of a container, in exec form; empty where it is the base's.
    #[must_use]
    pub fn command(&self) -> Vec<String> {
        if self.servers.is_empty() {
            return Vec::new();
        }
        let supervisor = [self.servers_python(), "-I", "-m", "ipybox.supervisor"].map(str::to_owned);
        let asked = std::iter::once("--health".to_owned()).chain(self.asked_ports()).collect();
        let commands = self.servers.iter().map(|server| server.command.clone());
        let groups: Vec<Vec<String>> = std::iter::once(asked).chain(commands).collect();
        [supervisor.to_vec(), groups.join(&"--".to_owned())].concat()
    }

    /// A command that ends well where every server answers, and where something else runs in the container; in exec
    /// form. The engine gives it the whole environment of the container; code of the same user could read the tokens
    /// of servers there while it runs.
    #[must_use]
    pub fn health(&self) -> Vec<String> {
        let without = ["/usr/bin/env", "-u", "EXECUTOR_TOKEN", "-u", "KG_AUTH_TOKEN"].map(str::to_owned);
        let script = ["/bin/sh".to_owned(), format!("{HOME}/health.sh")];
        without.into_iter().chain(script).chain(self.asked_ports()).collect()
    }

    /// Where the health of servers is asked, as `[VARIABLE=]PORT`.
    fn asked_ports(&self) -> impl Iterator<Item = String> {
        self.servers.iter().map(|server| match &server.port_variable {
            Some(variable) => format!("{variable}={}", server.port_in(&self.env)),
            None => server.port.to_string(),
        })
    }

    /// The interpreter that build steps may use once the servers are installed.
    #[must_use]
    pub fn servers_python(&self) -> &str {
        match self.placement {
            Placement::Inherited => &self.interpreter.path,
            Placement::Isolated | Placement::Layered => SERVERS_PYTHON,
        }
    }
}

impl Packages {
    /// SHA-256 over everything in it.
    #[must_use]
    pub fn digest(&self) -> String {
        digest(self)
    }

    /// The bounds whose hashes are checked when everything is resolved; a source's is checked before it is built.
    pub fn hashed(&self) -> impl Iterator<Item = &Requirement> {
        let of_wheels = |bound: &&Requirement| !self.unbuilt.contains_key(&bound.name);
        self.bounds.iter().filter(of_wheels).filter(|bound| !bound.hashes.is_empty())
    }

    /// The hosts that are named, which may want to know who asks: of indexes, and of archives; in lower case.
    #[must_use]
    pub fn hosts(&self) -> BTreeSet<String> {
        let of_archive = |one: &Requirement| match &one.source {
            Source::Url { url, .. } => Url::parse(url).map(|url| url.host_name()),
            _ => None,
        };
        self.indexes
            .iter()
            .map(PackageIndex::host)
            .chain(self.requirements.iter().filter_map(of_archive))
            .collect()
    }

    /// Whether wheels are built.
    #[must_use]
    pub fn builds(&self) -> bool {
        !self.sources.is_empty() || !self.unbuilt.is_empty()
    }

    /// Whether the list names hashes, which are checked before anything is installed.
    #[must_use]
    pub fn checks_hashes(&self) -> bool {
        self.hashed().next().is_some()
    }
}

impl Finish {
    /// SHA-256 over everything in it.
    #[must_use]
    pub fn digest(&self) -> String {
        digest(self)
    }
}

/// SHA-256 over the JSON of a part, whose maps are sorted and whose fields have a fixed order.
fn digest(part: &impl Serialize) -> String {
    let json = serde_json::to_vec(part).expect("a plan is JSON");
    format!("sha256:{}", hexadecimal(&Sha256::digest(&json)))
}

impl PlannedBase {
    /// The tag under which this very image is built on, whatever happens to its own tag meanwhile.
    #[must_use]
    pub fn private_tag(&self) -> Reference {
        format!("ipybox-base:{}", self.id.short()).parse().expect("an image id is hexadecimal")
    }
}
