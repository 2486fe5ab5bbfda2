//! What two images have differently inside.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Inside;

/// What the later of two images has otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Comparison {
    /// The versions of Python, where they differ.
    pub python: Option<(String, String)>,
    /// What they were built on, where that differs by name.
    pub base: Option<(Option<String>, Option<String>)>,
    /// Packages that differ, by name.
    pub packages: Vec<Difference>,
    /// Debian packages that differ, by name.
    pub debian: Vec<Difference>,
    /// The sizes of the two, in bytes.
    pub bytes: (u64, u64),
    /// How many layers they have in common from the lowest on, and how many each has.
    pub layers: (usize, usize, usize),
}

/// A package that one of the two has, or has otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The package.
    pub name: String,
    /// The earlier version; `None` where it is new.
    pub from: Option<String>,
    /// The later version; `None` where it is gone.
    pub to: Option<String>,
    /// How much more its files take, in bytes.
    pub bytes: i64,
}

/// A version, a size in bytes, and what tells equal files; by the name of a package.
type Known<'a> = BTreeMap<&'a str, (&'a str, u64, &'a str)>;

/// Compares what two images have inside.
#[must_use]
pub fn compare(earlier: &Inside, later: &Inside) -> Comparison {
    let common = earlier.layers.iter().zip(&later.layers).take_while(|(one, other)| one == other).count();
    let python = (earlier.python.clone(), later.python.clone());
    let base = (earlier.base.clone(), later.base.clone());
    Comparison {
        python: (python.0 != python.1).then_some(python),
        base: (base.0 != base.1).then_some(base),
        packages: differences(&packages(earlier), &packages(later)),
        debian: differences(&debian(earlier), &debian(later)),
        bytes: (earlier.bytes, later.bytes),
        layers: (common, earlier.layers.len(), later.layers.len()),
    }
}

fn packages(inside: &Inside) -> Known<'_> {
    let packages = inside.packages.iter();
    packages
        .map(|(name, one)| (name.as_str(), (one.version.as_str(), one.bytes, one.digest.as_str())))
        .collect()
}

fn debian(inside: &Inside) -> Known<'_> {
    inside.debian.iter().map(|(name, one)| (name.as_str(), (one.version.as_str(), one.bytes, ""))).collect()
}

fn differences(earlier: &Known<'_>, later: &Known<'_>) -> Vec<Difference> {
    let names = earlier.keys().chain(later.keys().filter(|name| !earlier.contains_key(*name)));
    let mut differences = Vec::new();
    for name in names {
        let (old, new) = (earlier.get(name), later.get(name));
        // Sizes differ by what was compiled; versions and the files' own hashes decide.
        let same = |known: Option<&(&str, u64, &str)>| {
            known.map(|(version, _, digest)| format!("{version} {digest}"))
        };
        if same(old) == same(new) {
            continue;
        }
        let version = |known: &(&str, u64, &str)| known.0.to_owned();
        let bytes = |known: Option<&(&str, u64, &str)>| {
            known.map_or(0, |known| i64::try_from(known.1).unwrap_or(i64::MAX))
        };
        differences.push(Difference {
            name: (*name).to_owned(),
            from: old.map(version),
            to: new.map(version),
            bytes: bytes(new) - bytes(old),
        });
    }
    differences.sort_by(|one, other| one.name.cmp(&other.name));
    differences
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, from, to, .. } = self;
        match (from, to) {
            (Some(from), Some(to)) if from == to => write!(f, "{name} {to}: other files"),
            (Some(from), Some(to)) => write!(f, "{name} {from} → {to}"),
            (None, Some(to)) => write!(f, "{name} {to} is new"),
            (Some(from), None) => write!(f, "{name} {from} is gone"),
            (None, None) => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::inside;
    use super::*;
    use crate::deps::Name;

    #[test]
    fn what_differs_is_told_by_name() {
        let earlier = inside();
        let mut later = earlier.clone();
        let name = |text: &str| Name::parse(text).unwrap();
        later.packages.get_mut(&name("urllib3")).unwrap().version = "1.1".to_owned();
        later.packages.get_mut(&name("tornado")).unwrap().digest = "cd".repeat(32);
        later.packages.get_mut(&name("requests")).unwrap().bytes = 2000;
        later.packages.remove(&name("chardet"));
        later.debian.clear();
        later.layers[1] = "sha256:3".to_owned();
        let comparison = compare(&earlier, &later);
        let told =
            |differences: &[Difference]| differences.iter().map(ToString::to_string).collect::<Vec<_>>();
        let expected = ["chardet 1.0 is gone", "tornado 1.0: other files", "urllib3 1.0 → 1.1"];
        assert_eq!(told(&comparison.packages), expected);
        assert_eq!(told(&comparison.debian), ["libc6 2.36-9 is gone"]);
        assert_eq!((comparison.layers, comparison.python), ((1, 2, 2), None));
        assert!(compare(&earlier, &earlier).packages.is_empty());
    }
}
