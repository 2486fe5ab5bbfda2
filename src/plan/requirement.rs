//! Lowers a [`Dependency`] to its PEP 508 form.

use std::fmt;
use std::str::FromStr;

use pep440_rs::{Operator, VersionSpecifiers};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::deps::{Constraint, Dependency, Marker, Name, Source, pep508};

/// The PEP 508 form of a dependency, which installers understand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    /// The distribution.
    pub name: Name,
    /// Its optional features, sorted.
    pub extras: Vec<Name>,
    /// The versions that will do: one specifier set for each alternative of a union that PEP 440
    /// cannot spell, newest versions first. Never empty.
    pub alternatives: Vec<VersionSpecifiers>,
    /// Where it is needed.
    pub marker: Option<Marker>,
    /// Where it comes from.
    pub source: Source,
    /// The files that will do.
    pub hashes: Vec<String>,
}

/// A specifier every version meets. Because it mentions a pre-release, installers consider
/// pre-releases of the package: PEP 440, "Handling of pre-releases".
const WITH_PRERELEASES: &str = ">=0.dev0";

impl Requirement {
    /// Lowers `dependency`. Its versions stay the same, but where a union leaves a gap between final
    /// versions and pre-releases are not asked for: see [`crate::deps::Constraint::but_for_prereleases`].
    #[must_use]
    pub fn lower(dependency: &Dependency) -> Self {
        // A pin says itself whether it is one, and its hash must stay beside a plain `==`.
        let with_prereleases = |set: &VersionSpecifiers| {
            if set.iter().any(|one| *one.operator() == Operator::Equal) {
                return set.clone();
            }
            let any = WITH_PRERELEASES.parse().expect("a constant specifier");
            set.iter().cloned().chain(std::iter::once(any)).collect()
        };
        let alternatives = match dependency.source {
            Source::Registry { .. } if dependency.allow_prereleases => {
                dependency.constraint.alternatives().iter().map(with_prereleases).collect()
            }
            _ => dependency.constraint.but_for_prereleases(),
        };
        let mut extras = dependency.extras.clone();
        extras.sort();
        extras.dedup();
        Self {
            name: dependency.name.clone(),
            extras,
            alternatives: alternatives.into_iter().rev().collect(),
            marker: dependency.marker.clone(),
            source: dependency.source.clone(),
            hashes: dependency.hashes.clone(),
        }
    }

    /// Lowers `dependency` without its versions and its source, which are what the base has.
    #[must_use]
    pub fn of_any_version(dependency: &Dependency) -> Self {
        let (constraint, source) = (Constraint::any(), Source::default());
        Self::lower(&Dependency { constraint, source, hashes: Vec::new(), ..dependency.clone() })
    }

    /// The text of one alternative.
    ///
    /// # Panics
    ///
    /// Where there are not so many.
    #[must_use]
    pub fn alternative(&self, index: usize) -> String {
        let mut text = String::new();
        let specifiers = &self.alternatives[index];
        pep508::write(&mut text, &self.name, &self.extras, specifiers, &self.source, self.marker.as_ref())
            .expect("a string takes every text");
        text
    }
}

impl fmt::Display for Requirement {
    /// The newest alternative.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.alternative(0))
    }
}

/// A requirement as a plan has it: a text, a list of texts where there are alternatives, and an object of that and
/// hashes where there are any.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    One(String),
    Alternatives(Vec<String>),
    Hashed { requirement: Vec<String>, hashes: Vec<String> },
}

impl Serialize for Requirement {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut texts: Vec<_> = (0..self.alternatives.len()).map(|index| self.alternative(index)).collect();
        let written = match (texts.len(), self.hashes.as_slice()) {
            (1, []) => Written::One(texts.remove(0)),
            (_, []) => Written::Alternatives(texts),
            (_, hashes) => Written::Hashed { requirement: texts, hashes: hashes.to_vec() },
        };
        written.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Requirement {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (texts, hashes) = match Written::deserialize(deserializer)? {
            Written::One(text) => (vec![text], Vec::new()),
            Written::Alternatives(texts) => (texts, Vec::new()),
            Written::Hashed { requirement, hashes } => (requirement, hashes),
        };
        let mut parsed = texts.iter().map(|text| Self::parse(text).map_err(D::Error::custom));
        let mut requirement =
            parsed.next().ok_or_else(|| D::Error::custom("a requirement has no text"))??;
        for other in parsed {
            requirement.alternatives.extend(other?.alternatives);
        }
        Ok(Self { hashes, ..requirement })
    }
}

impl Requirement {
    /// Reads the text of one alternative.
    fn parse(text: &str) -> Result<Self, String> {
        let Dependency { name, mut extras, marker, source, .. } =
            pep508::parse(text).map_err(|mistake| format!("`{text}`: {}", mistake.why))?;
        extras.sort();
        let before_marker = text.split(';').next().unwrap_or_default();
        let behind_name =
            before_marker.find(|next: char| !next.is_ascii_alphanumeric() && !"._-".contains(next));
        let rest = behind_name.map_or("", |at| &before_marker[at..]);
        let specifiers = rest.split_once(']').map_or(rest, |(_, rest)| rest).trim();
        let specifiers = if specifiers.starts_with('@') { "" } else { specifiers };
        let specifiers =
            VersionSpecifiers::from_str(specifiers).map_err(|error| format!("`{text}`: {error}"))?;
        Ok(Self { name, extras, alternatives: vec![specifiers], marker, source, hashes: Vec::new() })
    }
}
