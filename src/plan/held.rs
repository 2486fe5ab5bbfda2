//! What a base has, and keeps as it is.

use std::collections::BTreeMap;
use std::str::FromStr;

use pep440_rs::Version;
use serde::{Deserialize, Serialize};

use super::PlanError;
use crate::base::Python;
use crate::deps::{Dependency, Name, Source, pep508};
use crate::reference::Reference;
use crate::variant::Placement;

/// A distribution of the base that is never installed, upgraded or replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Its version; `None` where it is none of PEP 440, and counts as any.
    pub version: Option<Version>,
    /// What it and its extras require. What the base itself does not meet is left out: it was the base's
    /// matter before it became ours.
    pub requires: Vec<String>,
    /// Its optional features.
    pub extras: Vec<Name>,
}

/// The distributions of a base that stay as they are, by name.
pub(super) fn held(python: &Python, packages: Placement) -> BTreeMap<Name, Held> {
    // A layered environment has a pip of its own, since a base's may be too old or refuse to install.
    let kept = |name: &Name| match packages {
        Placement::Isolated => false,
        Placement::Layered => name.as_str() != "pip",
        Placement::Inherited => true,
    };
    let mut versions = BTreeMap::<Name, Option<Version>>::new();
    for one in &python.distributions {
        if let Some(name) = Name::parse(&one.name).filter(|name| kept(name)) {
            // The first is the one that is imported.
            versions.entry(name).or_insert_with(|| Version::from_str(&one.version).ok());
        }
    }
    let is_met = |dependency: &Dependency| match versions.get(&dependency.name) {
        Some(Some(version)) => dependency.constraint.contains(version),
        Some(None) => true,
        None => false,
    };
    let required = |line: &String| {
        let dependency = pep508::parse(line).ok()?;
        let of_extra = dependency.marker.as_ref().is_some_and(|marker| marker.mentions("extra"));
        // An extra may bring what the base lacks, but nothing in place of what it has.
        let counts = is_met(&dependency) || of_extra && !versions.contains_key(&dependency.name);
        let is_usable = matches!(dependency.source, Source::Registry { .. });
        (is_usable && counts).then(|| line.trim().to_owned())
    };
    let mut held = BTreeMap::new();
    for one in &python.distributions {
        let Some(name) = Name::parse(&one.name) else { continue };
        if let Some(version) = versions.get(&name) {
            held.entry(name).or_insert_with(|| Held {
                version: version.clone(),
                requires: one.requires.iter().filter_map(required).collect(),
                extras: one.extras.iter().filter_map(|extra| Name::parse(extra)).collect(),
            });
        }
    }
    held
}

/// Whether a dependency agrees with what the base has of it.
pub(super) fn check(dependency: &Dependency, held: &Held, base: &Reference) -> Result<(), PlanError> {
    let from_index = matches!(dependency.source, Source::Registry { .. });
    let fits = held.version.as_ref().is_none_or(|version| dependency.constraint.contains(version));
    if from_index && fits {
        return Ok(());
    }
    let asks = if from_index { dependency.constraint.to_string() } else { dependency.source.to_string() };
    Err(PlanError::BaseHas {
        base: base.to_string(),
        name: dependency.name.clone(),
        has: held.version.as_ref().map_or_else(|| "another".to_owned(), ToString::to_string),
        asks,
        at: dependency.at.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Base, Distribution};

    fn held_of(packages: Placement, distributions: &[(&str, &str, &[&str])]) -> BTreeMap<Name, Held> {
        let facts = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/base.json");
        let mut base = Base::read(facts.as_ref()).unwrap();
        let one = |(name, version, requires): &(&str, &str, &[&str])| Distribution {
            name: (*name).to_owned(),
            version: (*version).to_owned(),
            requires: requires.iter().map(|text| (*text).to_owned()).collect(),
            extras: Vec::new(),
            of_system: false,
        };
        base.pythons[0].distributions = distributions.iter().map(one).collect();
        held(&base.pythons[0], packages)
    }

    #[test]
    fn what_a_base_does_not_meet_itself_is_not_asked_for() {
        let torch: &[&str] = &[
            "numpy>=1.20",
            "filelock<3",
            "missing",
            "sympy; extra == 'opt'",
            "numpy>=2; extra == 'opt'",
            "triton @ https://host.invalid/triton.whl",
            "not a requirement",
            "numpy>=3; sys_platform == 'win32'",
        ];
        let distributions =
            [("Torch", "2.3.0+cu121", torch), ("numpy", "1.26.4", &[]), ("filelock", "3.1", &[])];
        let held = held_of(Placement::Layered, &distributions);
        let torch = &held[&Name::parse("torch").unwrap()];
        assert_eq!(torch.version.as_ref().unwrap().to_string(), "2.3.0+cu121");
        assert_eq!(torch.requires, ["numpy>=1.20", "sympy; extra == 'opt'"]);
    }

    #[test]
    fn of_two_spellings_the_first_is_the_one_that_is_imported() {
        let held = held_of(Placement::Layered, &[("jinja2", "3.1.6", &[]), ("Jinja2", "3.1.2", &[])]);
        assert_eq!(held[&Name::parse("jinja2").unwrap()].version.as_ref().unwrap().to_string(), "3.1.6");
    }

    #[test]
    fn a_layered_environment_has_a_pip_of_its_own() {
        let names = |packages| {
            let held =
                held_of(packages, &[("pip", "23.0", &[]), ("odd_Name", "no version", &[]), ("-", "1", &[])]);
            held.into_iter()
                .map(|(name, held)| (name.to_string(), held.version.is_some()))
                .collect::<Vec<_>>()
        };
        assert_eq!(names(Placement::Isolated), []);
        assert_eq!(names(Placement::Layered), [("odd-name".to_owned(), false)]);
        assert_eq!(names(Placement::Inherited), [("odd-name".to_owned(), false), ("pip".to_owned(), true)]);
    }
}
