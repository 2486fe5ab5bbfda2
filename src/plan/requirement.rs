//! Lowers a [`Dependency`] to its PEP 508 form, and alone says when that is impossible.

use std::fmt;

use pep440_rs::VersionSpecifiers;
use serde::{Serialize, Serializer};

use crate::spec::{Dependency, Marker, Name};

/// The PEP 508 form of a dependency, which installers understand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    /// The distribution.
    pub name: Name,
    /// Its optional features, sorted.
    pub extras: Vec<Name>,
    /// The versions that will do.
    pub specifiers: VersionSpecifiers,
    /// Where it is needed.
    pub marker: Option<Marker>,
}

/// A specifier every version meets. Because it mentions a pre-release, installers consider
/// pre-releases of the package: PEP 440, "Handling of pre-releases".
const WITH_PRERELEASES: &str = ">=0.dev0";

impl Requirement {
    /// Lowers `dependency`; `None` where its constraint is a union, for which PEP 508 has no form.
    #[must_use]
    pub fn lower(dependency: &Dependency) -> Option<Self> {
        let [specifiers] = dependency.constraint.alternatives() else {
            return None;
        };
        let mut specifiers: Vec<_> = specifiers.iter().cloned().collect();
        if dependency.allow_prereleases {
            specifiers.push(WITH_PRERELEASES.parse().expect("a constant specifier"));
        }
        let mut extras = dependency.extras.clone();
        extras.sort();
        extras.dedup();
        Some(Self {
            name: dependency.name.clone(),
            extras,
            specifiers: specifiers.into_iter().collect(),
            marker: dependency.marker.clone(),
        })
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name)?;
        if !self.extras.is_empty() {
            let extras: Vec<_> = self.extras.iter().map(Name::as_str).collect();
            write!(f, "[{}]", extras.join(","))?;
        }
        for (index, specifier) in self.specifiers.iter().enumerate() {
            write!(f, "{}{specifier}", if index > 0 { "," } else { "" })?;
        }
        match &self.marker {
            Some(marker) => write!(f, " ; {marker}"),
            None => Ok(()),
        }
    }
}

impl Serialize for Requirement {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
