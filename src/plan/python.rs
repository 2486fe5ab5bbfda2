//! Which interpreter an image gets.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use pep440_rs::Version;
use serde::Serialize;

use super::{HOME, OLDEST_PYTHON, PlanError, VENV, admits};
use crate::base::{Base, Interpreter};
use crate::reference::Reference;
use crate::spec::Constraint;

/// A feature version of Python 3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(into = "String")]
pub struct PythonVersion {
    /// The number behind `3.`.
    pub minor: u64,
}

/// Chosen where nothing speaks against it.
const DEFAULT: PythonVersion = PythonVersion { minor: 12 };

/// The newest stable version that is chosen by itself.
const NEWEST: PythonVersion = PythonVersion { minor: 14 };

/// Patch releases considered when a version is chosen before its base is known.
const PATCHES: u64 = 40;

/// The base where the caller names none: the official slim image with the version asked for, else
/// 3.12, else the newest stable version that the list's `python` admits.
///
/// # Errors
///
/// [`PlanError`] where the list admits none of them.
pub fn default_base(
    python: &[(Constraint, Range<usize>)],
    asked: Option<PythonVersion>,
) -> Result<Reference, PlanError> {
    let admits_some = |constraint: &Constraint, version: PythonVersion| {
        (0..PATCHES).any(|patch| constraint.contains(&Version::new([3, version.minor, patch])))
    };
    let admitted = |version: &PythonVersion| {
        (0..PATCHES)
            .map(|patch| Version::new([3, version.minor, patch]))
            .any(|version| python.iter().all(|(constraint, _)| constraint.contains(&version)))
    };
    let newest_first = (OLDEST_PYTHON.minor..=NEWEST.minor).rev().map(|minor| PythonVersion { minor });
    let candidates: Vec<_> = match asked {
        Some(asked) => vec![asked],
        None => std::iter::once(DEFAULT).chain(newest_first).collect(),
    };
    match candidates.into_iter().find(admitted) {
        Some(version) => {
            Ok(format!("python:{version}-slim-bookworm").parse().expect("a version makes a tag"))
        }
        None => {
            // One that excludes all by itself, else the last, which excludes what the others leave.
            let excludes = |(constraint, _): &&(Constraint, Range<usize>)| {
                !(OLDEST_PYTHON.minor..=NEWEST.minor).any(|minor| {
                    asked.is_none_or(|asked| asked.minor == minor)
                        && admits_some(constraint, PythonVersion { minor })
                })
            };
            let culprit = python.iter().find(excludes).or(python.last());
            let (constraint, at) = culprit.expect("only a list's `python` excludes versions");
            let (admits, at) = (admits(constraint), at.clone());
            Err(match asked {
                Some(asked) => PlanError::AskedExcluded { asked, admits, at },
                None => PlanError::NoPython { admits, at },
            })
        }
    }
}

/// The base's interpreter, where it is one that list and caller admit.
pub(super) fn check(
    python: &[(Constraint, Range<usize>)],
    base: &Base,
    asked: Option<PythonVersion>,
) -> Result<Interpreter, PlanError> {
    let reference = || base.reference.to_string();
    let interpreter = base.interpreter.clone().ok_or_else(|| PlanError::NoInterpreter(reference()))?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._+-".contains(&byte);
    if !(interpreter.path.starts_with('/') && interpreter.path.bytes().all(plain)) {
        return Err(PlanError::InterpreterPath { base: reference(), path: interpreter.path });
    }
    if [VENV, HOME].iter().any(|folder| interpreter.path.starts_with(&format!("{folder}/"))) {
        return Err(PlanError::Replaced { base: reference(), path: interpreter.path });
    }
    if interpreter.implementation != "cpython" {
        let implementation = interpreter.implementation;
        return Err(PlanError::Implementation { base: reference(), implementation });
    }
    let found = interpreter.version.clone();
    let Ok(version) = Version::from_str(&found) else {
        return Err(PlanError::NoInterpreter(reference()));
    };
    if version < Version::new([3, OLDEST_PYTHON.minor]) {
        return Err(PlanError::TooOld { base: reference(), found });
    }
    if let Some(asked) = asked
        && !version.release().starts_with(&[3, asked.minor])
    {
        return Err(PlanError::NotAsked { base: reference(), found, asked });
    }
    if let Some((constraint, at)) = python.iter().find(|(constraint, _)| !constraint.contains(&version)) {
        let (admits, at) = (admits(constraint), at.clone());
        return Err(PlanError::PythonExcluded { base: reference(), found, admits, at });
    }
    Ok(interpreter)
}

/// The versions there are, for people.
pub(super) fn supported() -> String {
    format!("{OLDEST_PYTHON} to {NEWEST}")
}

impl fmt::Display for PythonVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "3.{}", self.minor)
    }
}

impl From<PythonVersion> for String {
    fn from(version: PythonVersion) -> Self {
        version.to_string()
    }
}

impl FromStr for PythonVersion {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.strip_prefix("3.")
            .and_then(|minor| minor.parse().ok())
            .map(|minor| Self { minor })
            .filter(|version| *version >= OLDEST_PYTHON)
            .ok_or_else(|| format!("expected a version such as 3.12, {OLDEST_PYTHON} or newer"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_chooses_the_interpreter() {
        for (python, asked, chosen) in [
            (None, None, Some("3.12")),
            (Some("^3.10"), None, Some("3.12")),
            (Some(">=3.13"), None, Some("3.14")),
            (Some("<3.12"), None, Some("3.11")),
            (Some(">=3.12.4"), None, Some("3.12")),
            (Some("^3.10"), Some("3.11"), Some("3.11")),
            (Some("~3.10"), Some("3.11"), None),
            (Some("<3.10"), None, None),
        ] {
            let python: Vec<_> =
                python.map(|text| (Constraint::parse(text).unwrap(), 0..0)).into_iter().collect();
            let base = default_base(&python, asked.map(|asked| asked.parse().unwrap()));
            let tag = base.ok().map(|base| base.tag().unwrap().to_owned());
            assert_eq!(tag, chosen.map(|version| format!("{version}-slim-bookworm")), "for {python:?}");
        }
    }
}
