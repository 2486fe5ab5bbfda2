//! What a list means where its packages will run: decided once, before anything is fetched.

use std::collections::{BTreeMap, HashSet};

use super::{Materials, PlanError, Provenance, image, packages, python};
use crate::base::{Base, Platform, Python};
use crate::deps::{Dependency, Marker, Name, Operand, Spec};
use crate::request::Request;
use crate::variant::{Placement, Variant};

/// The values of `sys.platform` that people write.
const PLATFORMS: [&str; 7] = ["linux", "win32", "darwin", "cygwin", "emscripten", "wasi", "android"];

/// What a list and a base come to.
#[derive(Debug, Clone)]
pub struct Target<'a> {
    /// The interpreter that both environments are made with.
    pub python: Python,
    /// Where it comes from.
    pub provenance: Provenance,
    /// The entries that are needed.
    pub needed: Vec<&'a Dependency>,
    /// The names of the others, with the reason.
    pub dropped: BTreeMap<String, String>,
}

impl<'a> Target<'a> {
    /// Chooses the interpreter, and what of the list is needed with it. Nothing of `materials` that comes from the
    /// list has to be there yet.
    ///
    /// # Errors
    ///
    /// Every [`PlanError`] that shows before the list's own files are looked at.
    pub fn choose(
        request: &Request,
        spec: &'a Spec,
        variant: &Variant,
        base: &Base,
        materials: &Materials,
    ) -> Result<Self, Vec<PlanError>> {
        let mut errors = Vec::new();
        let archive = materials.python_archive.as_ref();
        let chosen = python::choose(spec, variant.packages, base, request, archive);
        let chosen = chosen.map_err(|error| errors.push(error)).ok();
        let python = chosen.as_ref().map(|(python, _)| python);
        let reference = || base.reference.to_string();
        if variant.packages == Placement::Inherited {
            let lacks = image::lacks(base, python);
            if !lacks.is_empty() {
                // What else may be wrong with it does not matter.
                return Err(vec![PlanError::NotExtensible { base: reference(), lacks }]);
            }
        }
        errors.extend(image::unfit(base, python, variant.packages));
        let version = python.map(|python| python.interpreter.version.as_str());
        let (needed, dropped) = needed(spec, Environment { platform: &base.platform, python: version });
        let provenance = chosen.as_ref().map(|(_, provenance)| *provenance);
        let apt = image::apt(variant, provenance, request);
        if !apt.is_empty() && !base.has("apt-get") {
            let packages = apt.into_iter().collect::<Vec<_>>().join(", ");
            errors.push(PlanError::NoApt { base: reference(), packages });
        }
        if materials.installer.is_none() {
            let Platform { os, architecture } = &base.platform;
            errors.push(PlanError::Platform { base: reference(), platform: format!("{os}/{architecture}") });
        }
        match (chosen, errors.is_empty()) {
            (Some((python, provenance)), true) => Ok(Self { python, provenance, needed, dropped }),
            (chosen, _) => {
                let python = chosen.as_ref().map(|(python, _)| python);
                packages::packages(spec, &needed, python, variant, base, None, &mut errors);
                let user = image::user(variant.packages, base, request).map_err(|error| errors.push(error));
                image::environment(variant, base, user.ok(), request, &mut errors);
                Err(errors)
            }
        }
    }
}

/// What decides whether a marker holds.
#[derive(Debug, Clone, Copy)]
pub struct Environment<'a> {
    /// What images of it run on.
    pub platform: &'a Platform,
    /// The interpreter's version, where there is one yet.
    pub python: Option<&'a str>,
}

/// The dependencies that are needed on a base, and the names of the others with the reason. A marker
/// that depends on the kernel a container will run on counts as one that holds.
#[must_use]
pub(super) fn needed<'a>(
    spec: &'a Spec,
    target: Environment<'_>,
) -> (Vec<&'a Dependency>, BTreeMap<String, String>) {
    let mut needed: Vec<&Dependency> = Vec::new();
    let mut dropped: BTreeMap<&Name, String> = BTreeMap::new();
    for dependency in &spec.dependencies {
        if dependency.optional {
            dropped.insert(&dependency.name, "optional, and nothing asks for it".to_owned());
            continue;
        }
        match &dependency.marker {
            Some(marker) if marker.holds(&|name| target.variable(name)) == Some(false) => {
                dropped.insert(&dependency.name, reason(marker, target));
            }
            _ => needed.push(dependency),
        }
    }
    // Of alternatives for different environments, one that is needed says it all.
    let installed: HashSet<&Name> = needed.iter().map(|dependency| &dependency.name).collect();
    dropped.retain(|name, _| !installed.contains(name));
    (needed, dropped.into_iter().map(|(name, why)| (name.to_string(), why)).collect())
}

impl Environment<'_> {
    /// A variable of markers; `None` where the target does not decide it.
    ///
    /// Rule: PEP 508, "Environment Markers".
    #[must_use]
    pub fn variable(self, name: &str) -> Option<String> {
        let Self { platform, python } = self;
        Some(match name {
            "os_name" => "posix".to_owned(),
            "sys_platform" => platform.os.clone(),
            "platform_system" if platform.os == "linux" => "Linux".to_owned(),
            "platform_machine" => match platform.architecture.as_str() {
                "amd64" => "x86_64".to_owned(),
                "arm64" => "aarch64".to_owned(),
                other => other.to_owned(),
            },
            "platform_python_implementation" => "CPython".to_owned(),
            "implementation_name" => "cpython".to_owned(),
            "python_full_version" | "implementation_version" => python?.to_owned(),
            "python_version" => python?.splitn(3, '.').take(2).collect::<Vec<_>>().join("."),
            // The extras of a project, and a list is none.
            "extra" => String::new(),
            _ => return None,
        })
    }
}

fn reason(marker: &Marker, target: Environment<'_>) -> String {
    let Environment { platform, python } = target;
    let python = python.map_or(String::new(), |version| format!(" with Python {version}"));
    let meant =
        odd_platform(marker).map_or(String::new(), |meant| format!("; did you mean the platform `{meant}`?"));
    format!("`{marker}` never holds on {}/{}{python}{meant}", platform.os, platform.architecture)
}

/// The platform that a misspelled one means.
fn odd_platform(marker: &Marker) -> Option<&'static str> {
    match marker {
        Marker::And(parts) | Marker::Or(parts) => parts.iter().find_map(odd_platform),
        Marker::Compare(Operand::Variable("sys_platform"), "==", Operand::Text(written)) => {
            let near = |platform: &&str| strsim::damerau_levenshtein(platform, written) <= 2;
            PLATFORMS.into_iter().find(near).filter(|_| !PLATFORMS.contains(&written.as_str()))
        }
        Marker::Compare(..) => None,
    }
}
