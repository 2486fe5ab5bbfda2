//! What a list means where its packages will run.

use std::collections::{BTreeMap, HashSet};

use crate::base::Platform;
use crate::deps::{Dependency, Marker, Name, Operand, Spec};

/// The values of `sys.platform` that people write.
const PLATFORMS: [&str; 7] = ["linux", "win32", "darwin", "cygwin", "emscripten", "wasi", "android"];

/// What decides whether a marker holds.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// What images of it run on.
    pub platform: &'a Platform,
    /// The interpreter's version, where there is one yet.
    pub python: Option<&'a str>,
}

/// The dependencies that are needed on a base, and the names of the others with the reason. A marker
/// that depends on the kernel a container will run on counts as one that holds.
#[must_use]
pub fn needed<'a>(spec: &'a Spec, target: Target<'_>) -> (Vec<&'a Dependency>, BTreeMap<String, String>) {
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

impl Target<'_> {
    /// A variable of markers; `None` where the target does not decide it.
    ///
    /// Rule: PEP 508, "Environment Markers".
    fn variable(self, name: &str) -> Option<String> {
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

fn reason(marker: &Marker, target: Target<'_>) -> String {
    let Target { platform, python } = target;
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
