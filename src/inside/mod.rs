//! What is inside an image: its packages, who asked for each, and what they take.

mod compare;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use compare::{Comparison, compare};
#[cfg(test)]
pub(crate) use tests::inside;

use crate::base::Platform;
use crate::deps::{Dependency, Name, pep508};
use crate::engine::{Engine, EngineError, Image, Spec};
use crate::freshness::Stamp;
use crate::plan::{DEPENDENCIES_LABEL, Environment, Requirement, VARIANT_LABEL, VENV};
use crate::reference::ImageId;

/// What is inside an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Inside {
    /// The name it was asked for by.
    pub name: String,
    /// Its id.
    pub image: ImageId,
    /// What it runs on, such as `linux/amd64`.
    pub platform: String,
    /// When it was made, as RFC 3339 has it; `None` where the engine does not say.
    pub created: Option<String>,
    /// Its size, in bytes.
    pub bytes: u64,
    /// The variant, where its label says so.
    pub variant: Option<String>,
    /// What it was built on, where it says so.
    pub base: Option<String>,
    /// Whether a lock said what is installed.
    pub locked: bool,
    /// The version of the interpreter that code runs in.
    pub python: String,
    /// What that can import, by name.
    pub packages: BTreeMap<Name, Package>,
    /// Debian packages, by name.
    pub debian: BTreeMap<String, DebianPackage>,
    /// The digests of its layers, the base's first.
    pub layers: Vec<String>,
}

/// An installed distribution.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Package {
    /// Its version, as it says itself.
    pub version: String,
    /// Its licence, where it says so in a line.
    pub licence: Option<String>,
    /// How many files it has.
    pub files: u64,
    /// What they take.
    pub bytes: u64,
    /// SHA-256 over the names and hashes of its files, without what installers add.
    pub digest: String,
    /// Whether the base brought it.
    pub of_base: bool,
    /// SHA-256 of the wheel, where a lock said which.
    pub sha256: Option<String>,
    /// Who asks for it by name, if anybody does.
    pub asked: Option<Asked>,
    /// What of the others it needs.
    pub needs: BTreeSet<Name>,
    /// What of the others needs it.
    pub needed_by: BTreeSet<Name>,
}

/// Who asks for a package, and for what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Asked {
    /// Whether it is the list, or the image itself.
    pub by_list: bool,
    /// As PEP 508 has it.
    pub requirement: String,
}

/// An installed Debian package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DebianPackage {
    /// Its version.
    pub version: String,
    /// Its architecture.
    pub architecture: String,
    /// What it says that it takes.
    pub bytes: u64,
}

/// Why nothing is known of an image's inside.
#[derive(Debug, thiserror::Error)]
pub enum InsideError {
    /// The engine fails.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// No interpreter tells it.
    #[error("no Python of the image tells what is installed")]
    Silent,
}

/// What the script in the container prints.
#[derive(Deserialize)]
struct Facts {
    python: String,
    packages: Vec<PackageFacts>,
    debian: Vec<DebianFacts>,
}

#[derive(Deserialize)]
struct PackageFacts {
    name: String,
    version: String,
    requires: Vec<String>,
    licence: Option<String>,
    files: u64,
    bytes: u64,
    digest: String,
    own: bool,
}

#[derive(Deserialize)]
struct DebianFacts {
    name: String,
    #[serde(flatten)]
    package: DebianPackage,
}

/// The script that tells what is installed.
const PROBE: &str = include_str!("probe.py");

/// Runs it with the first interpreter of those named that there is.
const RUN: &str = "for python; do \
    [ -n \"$python\" ] && command -v \"$python\" >/dev/null && exec \"$python\" -I -B -c \"$PROBE\"; done; exit 3";

/// The label of containers that are asked.
const LABEL: &str = "ipybox.inside";

/// Longest time that they take.
const TIME: Duration = Duration::from_secs(120);

impl Inside {
    /// Asks a container of an image; `name` is what it is called.
    ///
    /// # Errors
    ///
    /// [`InsideError`].
    pub async fn of(engine: &Engine, name: &str, image: &Image) -> Result<Self, InsideError> {
        let stamp = Stamp::read(&image.labels);
        let said = |path: &str| {
            let part = stamp.as_ref()?.parts(&[path]);
            path.split('.').try_fold(&part, |value, name| value.get(name)).cloned()
        };
        let text = |path: &str| said(path).and_then(|value| value.as_str().map(str::to_owned));
        // Kernels of an extended image run in the interpreter of its base.
        let inherited = text("foundation.placement").is_some_and(|placement| placement == "inherited");
        let known = text("foundation.interpreter.path").filter(|_| inherited).unwrap_or_default();
        let venv = format!("{VENV}/bin/python");
        let command = ["/bin/sh", "-c", RUN, "sh", &known, &venv, "python3", "python"];
        let script = [format!("PROBE={PROBE}")];
        let spec =
            Spec { label: LABEL, command: Some(&command), env: &script, is_locked: true, ..Spec::default() };
        let asked = engine.with_container(&image.id, spec, async |container| {
            tokio::time::timeout(TIME, container.output()).await
        });
        let output = Box::pin(asked).await?.map_err(|_| InsideError::Silent)??;
        let facts = output.output.lines().rev().find_map(|line| serde_json::from_str::<Facts>(line).ok());
        let facts = facts.filter(|_| output.code == 0).ok_or(InsideError::Silent)?;
        let platform = Platform { os: image.os.clone(), architecture: image.architecture.clone() };
        let locked = said("packages.locked").filter(|locked| !locked.is_null());
        let asked = asked_for(&said("packages.requirements").unwrap_or_default(), image);
        let mut packages = packages(facts.packages, &asked, locked.as_ref(), &platform, &facts.python);
        // Where both are in one folder, only the plan tells them apart.
        let held = said("packages.held").unwrap_or_default();
        for (name, package) in &mut packages {
            let version = held.get(name.as_str()).and_then(|held| held.get("version")?.as_str());
            package.of_base |= version == Some(&package.version);
        }
        Ok(Self {
            name: name.to_owned(),
            image: image.id.clone(),
            created: image.created.clone(),
            bytes: image.bytes,
            variant: image.labels.get(VARIANT_LABEL).cloned(),
            base: text("foundation.base.reference"),
            locked: locked.is_some(),
            packages,
            platform: platform.to_string(),
            python: facts.python,
            debian: facts.debian.into_iter().map(|one| (one.name, one.package)).collect(),
            layers: image.layers.clone(),
        })
    }

    /// The ways from what is asked for by name to a package, each from the one to the other; the shortest of each.
    #[must_use]
    pub fn ways_to(&self, name: &Name) -> Vec<Vec<&Name>> {
        // From the package towards what needs it; the first way found is a shortest.
        let Some((name, _)) = self.packages.get_key_value(name) else { return Vec::new() };
        let mut towards: BTreeMap<&Name, Option<&Name>> = BTreeMap::from([(name, None)]);
        let mut open = VecDeque::from([name]);
        let mut ways = Vec::new();
        while let Some(current) = open.pop_front() {
            let package = &self.packages[current];
            if package.asked.is_some() {
                let next = |name: &&Name| towards.get(*name).copied().flatten();
                ways.push(std::iter::successors(Some(current), next).collect());
            }
            for parent in &package.needed_by {
                if !towards.contains_key(parent) {
                    towards.insert(parent, Some(current));
                    open.push_back(parent);
                }
            }
        }
        ways
    }

    /// What all its packages take, in bytes.
    #[must_use]
    pub fn bytes_of_packages(&self) -> u64 {
        self.packages.values().map(|package| package.bytes).sum()
    }
}

/// What an image was asked for, by name: the requirements of its plan.
fn asked_for(requirements: &Value, image: &Image) -> BTreeMap<Name, (Asked, Vec<Name>)> {
    let requirements: Vec<Requirement> = serde_json::from_value(requirements.clone()).unwrap_or_default();
    let of_list = image.labels.get(DEPENDENCIES_LABEL).map(String::as_str).unwrap_or_default();
    let of_list: BTreeSet<Name> = of_list.split_whitespace().filter_map(Name::parse).collect();
    let mut asked = BTreeMap::new();
    for requirement in requirements {
        let by_list = of_list.contains(&requirement.name);
        let text = (0..requirement.alternatives.len()).map(|index| requirement.alternative(index));
        let text = text.collect::<Vec<_>>().join(" || ");
        asked.insert(requirement.name, (Asked { by_list, requirement: text }, requirement.extras));
    }
    asked
}

/// What is installed, with what needs what there.
fn packages(
    facts: Vec<PackageFacts>,
    asked: &BTreeMap<Name, (Asked, Vec<Name>)>,
    locked: Option<&Value>,
    platform: &Platform,
    python: &str,
) -> BTreeMap<Name, Package> {
    let mut requires = BTreeMap::<Name, Vec<Dependency>>::new();
    let mut packages = BTreeMap::new();
    for PackageFacts { name, version, requires: lines, licence, files, bytes, digest, own } in facts {
        let Some(name) = Name::parse(&name) else { continue };
        requires
            .insert(name.clone(), lines.iter().filter_map(|line| pep508::parse(line.trim()).ok()).collect());
        let sha256 = locked.and_then(|locked| locked.get(name.as_str())?.get("sha256")?.as_str());
        let package = Package {
            version,
            licence,
            files,
            bytes,
            digest,
            of_base: !own,
            sha256: sha256.map(str::to_owned),
            asked: asked.get(&name).map(|(asked, _)| asked.clone()),
            needs: BTreeSet::new(),
            needed_by: BTreeSet::new(),
        };
        packages.insert(name, package);
    }
    let environment = Environment { platform, python: Some(python) };
    let holds = |dependency: &Dependency, extra: &str| {
        let variable = |name: &str| match name {
            "extra" => Some(extra.to_owned()),
            name => environment.variable(name),
        };
        dependency.marker.as_ref().is_none_or(|marker| marker.holds(&variable) != Some(false))
    };
    // Every package with nothing, and with each extra that somebody asks for.
    let plain = packages.keys().map(|name| (name.clone(), String::new()));
    let extras = asked.iter().flat_map(|(name, (_, extras))| {
        extras.iter().map(move |extra| (name.clone(), extra.as_str().to_owned()))
    });
    let mut open: VecDeque<(Name, String)> = plain.chain(extras).collect();
    let mut seen: BTreeSet<(Name, String)> = open.iter().cloned().collect();
    while let Some((name, extra)) = open.pop_front() {
        for dependency in requires.get(&name).into_iter().flatten() {
            let is_of_extra = dependency.marker.as_ref().is_some_and(|marker| marker.mentions("extra"));
            if is_of_extra == extra.is_empty() || !holds(dependency, &extra) {
                continue;
            }
            for wanted in &dependency.extras {
                let next = (dependency.name.clone(), wanted.as_str().to_owned());
                if seen.insert(next.clone()) {
                    open.push_back(next);
                }
            }
            if let Some(needed) = packages.get_mut(&dependency.name).filter(|_| dependency.name != name) {
                needed.needed_by.insert(name.clone());
                if let Some(package) = packages.get_mut(&name) {
                    package.needs.insert(dependency.name.clone());
                }
            }
        }
    }
    packages
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(name: &str, requires: &[&str]) -> PackageFacts {
        PackageFacts {
            name: name.to_owned(),
            version: "1.0".to_owned(),
            requires: requires.iter().map(|&line| line.to_owned()).collect(),
            licence: Some("MIT".to_owned()),
            files: 2,
            bytes: 1000,
            digest: "ab".repeat(32),
            own: true,
        }
    }

    pub(crate) fn inside() -> Inside {
        let name = |text: &str| Name::parse(text).unwrap();
        let asked = |by_list, requirement: &str| Asked { by_list, requirement: requirement.to_owned() };
        let roots = BTreeMap::from([
            (name("requests"), (asked(true, "requests[socks]>=2"), vec![name("socks")])),
            (name("ipykernel"), (asked(false, "ipykernel>=6"), Vec::new())),
        ]);
        let installed = vec![
            facts("requests", &["urllib3<3", "PySocks; extra == 'socks'", "chardet; extra == 'other'"]),
            facts("urllib3", &["pywin32; sys_platform == 'win32'"]),
            facts("PySocks", &[]),
            facts("chardet", &[]),
            facts("ipykernel", &["tornado"]),
            facts("tornado", &["urllib3"]),
            facts("pywin32", &[]),
        ];
        let platform = Platform { os: "linux".to_owned(), architecture: "amd64".to_owned() };
        Inside {
            name: "sandbox".to_owned(),
            image: format!("sha256:{}", "0a".repeat(32)).try_into().unwrap(),
            platform: platform.to_string(),
            created: Some("2026-01-02T03:04:05Z".to_owned()),
            bytes: 300_000_000,
            variant: Some("kernel".to_owned()),
            base: Some("python:3.12-slim-bookworm".to_owned()),
            locked: false,
            python: "3.12.8".to_owned(),
            packages: packages(installed, &roots, None, &platform, "3.12.8"),
            debian: BTreeMap::from([(
                "libc6".to_owned(),
                DebianPackage {
                    version: "2.36-9".to_owned(),
                    architecture: "amd64".to_owned(),
                    bytes: 13_000_000,
                },
            )]),
            layers: vec!["sha256:1".to_owned(), "sha256:2".to_owned()],
        }
    }

    #[test]
    fn a_package_is_there_for_whoever_needs_it() {
        let inside = inside();
        let ways = |text: &str| {
            let ways = inside.ways_to(&Name::parse(text).unwrap());
            let text = |way: &Vec<&Name>| way.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(" ");
            ways.iter().map(text).collect::<Vec<_>>()
        };
        assert_eq!(ways("urllib3"), ["requests urllib3", "ipykernel tornado urllib3"]);
        assert_eq!(ways("pysocks"), ["requests pysocks"]);
        assert_eq!(ways("requests"), ["requests"]);
        assert_eq!([ways("chardet"), ways("pywin32"), ways("unknown")], [const { Vec::<String>::new() }; 3]);
    }
}
