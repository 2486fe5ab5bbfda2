//! Which interpreter an image gets.

use std::ops::Range;
use std::str::FromStr;

use pep440_rs::Version;
use serde::{Deserialize, Serialize};

use super::{HOME, PlanError, PlannedArchive};
use crate::base::{Base, Interpreter, Python};
use crate::deps::{Constraint, Spec};
use crate::reference::Reference;
use crate::request::{OLDEST_PYTHON, PythonVersion, Request};
use crate::variant::Placement;

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

/// Where Debian's and Ubuntu's packages put an interpreter.
const OF_DISTRIBUTION: &str = "/usr/bin/python3";

/// The Python that comes with releases of Debian and Ubuntu.
const DISTRIBUTIONS: [(&str, &str); 6] = [
    ("bookworm", "3.11.2"),
    ("trixie", "3.13.5"),
    ("jammy", "3.10.12"),
    ("noble", "3.12.3"),
    ("plucky", "3.13.3"),
    ("questing", "3.13.7"),
];

/// Distributions that tell nothing of what an interpreter is used for.
const INSTALLERS: [&str; 3] = ["pip", "setuptools", "wheel"];

/// Where the interpreter of an image comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Provenance {
    /// The base has it.
    Base,
    /// The package manager of the base's distribution installs it.
    Apt,
    /// It is unpacked from `--python-archive`.
    Archive,
}

/// The Python an image is made with.
///
/// # Errors
///
/// [`PlanError`] where there is none that list and caller admit.
pub(super) fn choose(
    spec: &Spec,
    packages: Placement,
    base: &Base,
    request: &Request,
    archive: Option<&PlannedArchive>,
) -> Result<(Python, Provenance), PlanError> {
    let reference = || base.reference.to_string();
    let check_of = |provenance: Provenance, python: &Python| {
        check(&spec.python, base, provenance, &python.interpreter, request.python)
    };
    let check = |python: &Python| check_of(Provenance::Base, python);
    if let Some(archive) = archive {
        // What is installed for another Python could not be seen.
        let usable =
            base.pythons.iter().find(|python| packages != Placement::Isolated && check(python).is_ok());
        if let Some(python) = usable {
            let path = python.interpreter.path.clone();
            return Err(PlanError::HasPython { base: reference(), path });
        }
        let (path, version) = (format!("{HOME}/python/bin/python3"), archive.version.clone());
        let python =
            provided(Interpreter { path, version, implementation: "cpython".to_owned(), libc: None });
        return check_of(Provenance::Archive, &python).map(|()| (python, Provenance::Archive));
    }
    let candidates: Vec<&Python> = match &request.base_python {
        Some(path) => base.pythons.iter().filter(|python| python.interpreter.path == *path).collect(),
        None => base.pythons.iter().collect(),
    };
    let Some(first) = candidates.first() else {
        let known: Vec<_> = base.pythons.iter().map(|python| python.interpreter.path.clone()).collect();
        if let (Some(path), false) = (&request.base_python, known.is_empty()) {
            return Err(PlanError::NoSuchPython { base: reference(), path: path.clone(), known });
        }
        let version = DISTRIBUTIONS.iter().find(|(name, _)| base.codename.as_deref() == Some(*name));
        return match version {
            Some((_, version)) if base.has("apt-get") && packages != Placement::Inherited => {
                let libc = None;
                let (path, version, implementation) =
                    (OF_DISTRIBUTION.to_owned(), (*version).to_owned(), "cpython".to_owned());
                let python = provided(Interpreter { path, version, implementation, libc });
                check_of(Provenance::Apt, &python).map(|()| (python, Provenance::Apt))
            }
            _ => Err(PlanError::NoInterpreter { base: reference(), broken: base.broken.first().cloned() }),
        };
    };
    if packages == Placement::Inherited {
        return check(first).map(|()| ((*first).clone(), Provenance::Base));
    }
    if let Some(path) = base.taken.first() {
        return Err(PlanError::Replaced { base: reference(), path: path.clone() });
    }
    let usable = || candidates.iter().filter(|python| check(python).is_ok());
    let populated = |python: &&&Python| {
        let is_own = |name: &str| !INSTALLERS.contains(&name.to_ascii_lowercase().as_str());
        python.distributions.iter().any(|one| !one.of_system && is_own(&one.name))
    };
    let preferred = usable().find(populated).filter(|_| packages == Placement::Layered);
    match preferred.or_else(|| usable().next()) {
        Some(python) => Ok(((*python).clone(), Provenance::Base)),
        None => Err(check(first).expect_err("the first is one of those that cannot be used")),
    }
}

/// A Python that nothing is installed for yet.
fn provided(interpreter: Interpreter) -> Python {
    Python {
        interpreter,
        prefix: String::new(),
        is_virtual: false,
        folders: Vec::new(),
        distributions: Vec::new(),
    }
}

/// Whether list and caller admit an interpreter.
fn check(
    python: &[(Constraint, Range<usize>)],
    base: &Base,
    provenance: Provenance,
    interpreter: &Interpreter,
    asked: Option<PythonVersion>,
) -> Result<(), PlanError> {
    let reference = || base.reference.to_string();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._+-".contains(&byte);
    if !(interpreter.path.starts_with('/') && interpreter.path.bytes().all(plain)) {
        return Err(PlanError::InterpreterPath { base: reference(), path: interpreter.path.clone() });
    }
    if interpreter.implementation != "cpython" {
        let implementation = interpreter.implementation.clone();
        return Err(PlanError::Implementation { base: reference(), implementation });
    }
    let found = interpreter.version.clone();
    let Ok(version) = Version::from_str(&found) else {
        return Err(PlanError::NoInterpreter { base: reference(), broken: Some(interpreter.path.clone()) });
    };
    if version < Version::new([3, OLDEST_PYTHON.minor]) {
        return Err(PlanError::TooOld { base: reference(), provenance, found });
    }
    if let Some(asked) = asked
        && !version.release().starts_with(&[3, asked.minor])
    {
        return Err(PlanError::NotAsked { base: reference(), provenance, found, asked });
    }
    if let Some((constraint, at)) = python.iter().find(|(constraint, _)| !constraint.contains(&version)) {
        let (admits, at) = (admits(constraint), at.clone());
        return Err(PlanError::PythonExcluded { base: reference(), provenance, found, admits, at });
    }
    Ok(())
}

/// A constraint as a list writes it.
fn admits(constraint: &Constraint) -> String {
    format!("`{constraint}`")
}

/// The versions there are, for people.
pub(super) fn supported() -> String {
    format!("{OLDEST_PYTHON} to {NEWEST}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::User;
    use crate::base::Distribution;

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

    /// Pythons by version and distributions, in the order they were found.
    fn base(pythons: &[(&str, &str, &[&str])]) -> Base {
        let mut base = Base::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/base.json").as_ref()).unwrap();
        let python = |(path, version, distributions): &(&str, &str, &[&str])| {
            let mut python = base.pythons[0].clone();
            python.interpreter.path = (*path).to_owned();
            python.interpreter.version = (*version).to_owned();
            python.prefix = path.replace("/bin/python3", "");
            let distribution = |name: &&str| Distribution {
                name: name.trim_start_matches("system:").to_owned(),
                version: "1".to_owned(),
                requires: Vec::new(),
                extras: Vec::new(),
                of_system: name.starts_with("system:"),
            };
            python.distributions = distributions.iter().map(distribution).collect();
            python
        };
        base.pythons = pythons.iter().map(python).collect();
        base
    }

    fn chosen(packages: Placement, base: &Base, list: &str) -> Result<String, PlanError> {
        let request = Request::new("any-base", User::Root);
        choose(&Spec::parse(list).unwrap(), packages, base, &request, None)
            .map(|(python, _)| python.interpreter.path)
    }

    #[test]
    fn of_several_pythons_the_one_with_packages_counts() {
        let one: (&str, &str, &[&str]) =
            ("/usr/bin/python3", "3.11.2", &["pip", "setuptools", "system:mercurial"]);
        let other: (&str, &str, &[&str]) = ("/opt/conda/bin/python3", "3.12.1", &["pip", "torch"]);
        let old: (&str, &str, &[&str]) = ("/usr/bin/python3", "3.8.10", &["torch"]);
        let (layered, isolated) = (Placement::Layered, Placement::Isolated);
        for (pythons, packages, list, expected) in [
            (&[one, other][..], layered, "", Ok("/opt/conda/bin/python3")),
            (&[one, other], isolated, "", Ok("/usr/bin/python3")),
            (&[other, one], isolated, "", Ok("/opt/conda/bin/python3")),
            (&[one, other], layered, "python = \"<3.12\"\n", Ok("/usr/bin/python3")),
            (&[one], layered, "", Ok("/usr/bin/python3")),
            (&[old, one], layered, "", Ok("/usr/bin/python3")),
            (&[old], layered, "", Err("which is too old")),
            (&[old], isolated, "", Err("which is too old")),
            (&[one], layered, "python = \">=3.13\"\n", Err("excludes")),
            (&[("/usr/bin/py thon", "3.11.2", &[])], layered, "", Err("has a path that cannot be used")),
        ] {
            let found = chosen(packages, &base(pythons), list).map_err(|error| error.to_string());
            match (&found, expected) {
                (Ok(path), Ok(expected)) => assert_eq!(path, expected),
                (Err(error), Err(part)) => assert!(error.contains(part), "{error}"),
                _ => panic!("{found:?} instead of {expected:?}"),
            }
        }
    }

    #[test]
    fn an_interpreter_that_will_not_do_is_told_as_whose_it_is() {
        let archive = |version: &str| PlannedArchive {
            folder: "python".to_owned(),
            version: version.to_owned(),
            sha256: String::new(),
        };
        let request = Request::new("minimal", User::Root);
        let told = |list: &str, base: &Base, archive: Option<&PlannedArchive>| {
            let spec = Spec::parse(list).unwrap();
            let error = choose(&spec, Placement::Isolated, base, &request, archive).unwrap_err();
            let what = error.diagnostic();
            format!("{}: {:?}", what.what, what.fix.unwrap())
        };
        let mut bare = base(&[]);
        bare.codename = Some("bookworm".to_owned());
        bare.programs = std::iter::once("apt-get".to_owned()).collect();
        let old = told("", &bare, Some(&archive("3.9.1")));
        assert!(
            old.starts_with("the archive of `--python-archive` has Python 3.9.1")
                && old.contains("another archive"),
            "{old}"
        );
        let excluded = told("python = \">=3.12\"\n", &bare, None);
        assert!(
            excluded.contains("which the distribution of base image")
                && excluded.contains("--python-archive"),
            "{excluded}"
        );
    }

    #[test]
    fn a_base_without_python_gets_that_of_its_release() {
        let mut base = base(&[]);
        for (codename, apt, expected) in [
            (Some("bookworm"), true, Some("3.11.2")),
            (Some("noble"), true, Some("3.12.3")),
            (Some("focal"), true, None),
            (Some("bookworm"), false, None),
            (None, true, None),
        ] {
            base.codename = codename.map(str::to_owned);
            base.programs = apt.then(|| "apt-get".to_owned()).into_iter().collect();
            let request = Request::new("any-base", User::Root);
            let found = choose(&Spec::parse("").unwrap(), Placement::Layered, &base, &request, None).ok();
            assert_eq!(found.as_ref().map(|(python, _)| python.interpreter.version.as_str()), expected);
            assert!(found.is_none_or(|(_, provenance)| provenance == Provenance::Apt));
        }
    }
}
