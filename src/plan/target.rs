//! What a list means where its packages will run.

use std::collections::{BTreeMap, HashSet};

use crate::base::Base;
use crate::spec::{Dependency, Marker, Name, Operand, Spec};

/// The values of `sys.platform` that people write.
const PLATFORMS: [&str; 7] = ["linux", "win32", "darwin", "cygwin", "emscripten", "wasi", "android"];

/// The dependencies that are needed on a base, and the names of the others with the reason. A marker
/// that depends on the kernel a container will run on counts as one that holds.
#[must_use]
pub fn needed<'a>(spec: &'a Spec, base: &Base) -> (Vec<&'a Dependency>, BTreeMap<String, String>) {
    let mut needed: Vec<&Dependency> = Vec::new();
    let mut dropped: BTreeMap<&Name, String> = BTreeMap::new();
    for dependency in &spec.dependencies {
        if dependency.optional {
            dropped.insert(&dependency.name, "optional, and nothing asks for it".to_owned());
            continue;
        }
        match &dependency.marker {
            Some(marker) if marker.holds(&|name| variable(base, name)) == Some(false) => {
                dropped.insert(&dependency.name, reason(marker, base));
            }
            _ => needed.push(dependency),
        }
    }
    // Of alternatives for different environments, one that is needed says it all.
    let installed: HashSet<&Name> = needed.iter().map(|dependency| &dependency.name).collect();
    dropped.retain(|name, _| !installed.contains(name));
    (needed, dropped.into_iter().map(|(name, why)| (name.to_string(), why)).collect())
}

/// A variable of markers; `None` where the base does not decide it.
///
/// Rule: PEP 508, "Environment Markers".
fn variable(base: &Base, name: &str) -> Option<String> {
    let version = base.interpreter.as_ref().map(|interpreter| interpreter.version.as_str());
    Some(match name {
        "os_name" => "posix".to_owned(),
        "sys_platform" => base.platform.os.clone(),
        "platform_system" if base.platform.os == "linux" => "Linux".to_owned(),
        "platform_machine" => match base.platform.architecture.as_str() {
            "amd64" => "x86_64".to_owned(),
            "arm64" => "aarch64".to_owned(),
            other => other.to_owned(),
        },
        "platform_python_implementation" => "CPython".to_owned(),
        "implementation_name" => "cpython".to_owned(),
        "python_full_version" | "implementation_version" => version?.to_owned(),
        "python_version" => version?.splitn(3, '.').take(2).collect::<Vec<_>>().join("."),
        // The extras of a project, and a list is none.
        "extra" => String::new(),
        _ => return None,
    })
}

fn reason(marker: &Marker, base: &Base) -> String {
    let python =
        base.interpreter.as_ref().map_or(String::new(), |found| format!(" with Python {}", found.version));
    let meant =
        odd_platform(marker).map_or(String::new(), |meant| format!("; did you mean the platform `{meant}`?"));
    let platform = &base.platform;
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
