//! What the installer is asked for.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::held;
use super::index::Indexes;
use super::{Files, Held, Learnt, Packages, PlanError, Requirement};
use crate::base::{Base, Interpreter, Python};
use crate::deps::{Dependency, Name, Priority, Source, Spec, pep508};
use crate::request::Request;
use crate::variant::{Placement, Variant};

/// What a distribution is built from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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

/// What the kernel of an image needs, whatever the list asks for. pip is here so that code can
/// install packages at run time.
const KERNEL: [&str; 2] = ["ipykernel>=6.31,<8", "pip>=25.3"];

/// What a kernel in a layered environment needs: any that the base may have.
const LAYERED_KERNEL: [&str; 2] = ["ipykernel>=6", "pip>=25.3"];

/// Choices of alternatives that are tried one after another, at most.
pub(super) const MAX_CHOICES: usize = 32;

/// What a list asks the installer for. Without `sources`, what comes from files is only looked at as far as the
/// list goes.
pub(super) fn packages(
    spec: &Spec,
    needed: &[&Dependency],
    python: Option<&Python>,
    variant: &Variant,
    base: &Base,
    sources: Option<&BTreeMap<Name, Files>>,
    errors: &mut Vec<PlanError>,
) -> Packages {
    let held = python.map(|python| held::held(python, variant.packages)).unwrap_or_default();
    let mut asked = Packages {
        requirements: kernel_requirements(variant, base, &held, errors),
        bounds: Vec::new(),
        indexes: Vec::new(),
        sources: BTreeMap::new(),
        unbuilt: BTreeMap::new(),
        build_apt: Vec::new(),
        held: BTreeMap::new(),
        folders: Vec::new(),
        locked: None,
    };
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
        match source(dependency, sources, &mut indexes) {
            Ok(Some(source)) => {
                let earlier = asked.sources.insert(name(), source.clone());
                if earlier.is_some_and(|earlier| earlier != source) {
                    errors.push(PlanError::TwoSources { name: name(), at: dependency.at.clone() });
                }
            }
            Ok(None) => {}
            Err(error) => errors.push(error),
        }
        // Indexes and files are told by distribution; what is left is the address of a wheel.
        if !matches!(&requirement.source, Source::Url { url, .. } if is_wheel(url)) {
            requirement.source = Source::default();
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
    if let Some(python) = python.filter(|python| python.is_virtual && variant.packages == Placement::Layered)
    {
        asked.folders.clone_from(&python.folders);
    }
    asked.held = held;
    asked
}

/// What C and C++ are compiled with.
const COMPILERS: [&str; 4] = ["g++", "gcc", "libc6-dev", "make"];

/// Where Debian's own Python lies, whose headers are a package of their own.
const OF_DISTRIBUTION: &str = "/usr/bin/python3";

/// Adds what is built from sources, and what that takes.
pub(super) fn with_builds(
    packages: Packages,
    learnt: Learnt,
    interpreter: &Interpreter,
    base: &Base,
    request: &Request,
) -> Packages {
    let unbuilt = learnt.names.into_iter().filter(|(name, _)| request.from_source.allows(name));
    let mut packages = Packages { unbuilt: unbuilt.collect(), build_apt: Vec::new(), ..packages };
    let compiles = learnt.needs_compiler && base.has("apt-get") || !request.build_apt.is_empty();
    if packages.builds() && compiles {
        let of_distribution = interpreter.path.starts_with(OF_DISTRIBUTION);
        let headers = of_distribution.then_some("python3-dev");
        let own = COMPILERS.into_iter().chain(headers).map(str::to_owned);
        packages.build_apt = own.chain(request.build_apt.iter().cloned()).collect();
        packages.build_apt.sort();
        packages.build_apt.dedup();
    }
    packages
}

/// What an image of the variant itself needs of the kernel's environment.
fn needs(variant: &Variant) -> Vec<Dependency> {
    let kernel: &[&str] = match variant.packages {
        Placement::Isolated => &KERNEL,
        Placement::Layered => &LAYERED_KERNEL,
        Placement::Inherited => &[],
    };
    let kernel = kernel.iter().map(|text| pep508::parse(text).expect("a constant requirement"));
    kernel.chain(variant.kernel.iter().cloned()).collect()
}

/// The same as requirements.
#[must_use]
pub fn kernel_needs(variant: &Variant) -> Vec<Requirement> {
    needs(variant).iter().map(Requirement::lower).collect()
}

/// What generated code needs whatever the list; all of it, or an error for what the base has otherwise.
fn kernel_requirements(
    variant: &Variant,
    base: &Base,
    held: &BTreeMap<Name, Held>,
    errors: &mut Vec<PlanError>,
) -> Vec<Requirement> {
    let mut requirements = Vec::new();
    for dependency in needs(variant) {
        let refused =
            held.get(&dependency.name).and_then(|held| held::check(&dependency, held, &base.reference).err());
        if let Some(PlanError::BaseHas { base, name, has, asks, .. }) = refused {
            errors.push(PlanError::KernelNeeds { base, name, has, asks });
        }
        requirements.push(Requirement::lower(&dependency));
    }
    requirements
}

/// What a dependency is built from; `None` for what the installer gets as it is.
fn source(
    dependency: &Dependency,
    files: Option<&BTreeMap<Name, Files>>,
    indexes: &mut Indexes<'_>,
) -> Result<Option<PlannedSource>, PlanError> {
    let (name, at) = (|| dependency.name.clone(), || dependency.at.clone());
    let files = match (files, &dependency.source) {
        (Some(files), Source::Git { .. } | Source::Path { .. }) => files.get(&dependency.name),
        _ => None,
    };
    let from_host = |from: String, subdirectory: &Option<String>| {
        let files = files?;
        let subdirectory = subdirectory.clone().filter(|_| files.file.is_none());
        let (digest, file) = (Some(files.digest.clone()), files.file.clone());
        Some(PlannedSource { from, subdirectory, sha256: None, digest, file })
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
            let commit = files.and_then(|files| files.commit.as_deref()).unwrap_or_default();
            Ok(from_host(format!("git+{url}@{commit}"), subdirectory))
        }
        Source::Path { path, subdirectory, .. } => Ok(from_host(path.clone(), subdirectory)),
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
