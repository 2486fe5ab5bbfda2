//! What the step that installs packages tells of them: how large they are, and which libraries they lack.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::base::Base;
use crate::installer::package_of;
use crate::plan::Plan;
use crate::report::{Report, size};

/// What a line begins with that `templates/build/look.py` prints.
const MARK: &str = "ipybox-look: ";

/// Packages of CUDA are told of where they take more than this, in bytes.
const MUCH: u64 = 500_000_000;

/// What that script tells.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Installed {
    largest: Vec<(String, u64)>,
    bytes: u64,
    cuda: u64,
    missing: BTreeMap<String, Vec<String>>,
}

/// Shared libraries that installed packages need and nothing has, with those packages.
#[derive(Debug, Clone, Default)]
pub(super) struct Lacking(BTreeMap<String, Vec<String>>);

impl Lacking {
    /// The Debian packages that have them, as far as they are known.
    pub(super) fn packages(&self) -> impl Iterator<Item = &'static str> {
        self.0.keys().filter_map(|library| package_of(library)).collect::<BTreeSet<_>>().into_iter()
    }
}

impl Installed {
    /// Reads a line of a step; `None` for any other.
    pub(super) fn read(line: &str) -> Option<Self> {
        serde_json::from_str(line.trim().strip_prefix(MARK)?).ok()
    }

    pub(super) fn lacking(&self) -> Lacking {
        Lacking(self.missing.clone())
    }

    /// Tells how large they are.
    pub(super) fn tell_sizes(&self, report: &Report) {
        let largest = self.largest.iter().map(|(name, bytes)| format!("{name} {}", size(*bytes)));
        let largest = largest.collect::<Vec<_>>().join(", ");
        report.note(&format!("packages take {}; the largest: {largest}", size(self.bytes)));
    }

    /// Warns of what may be wrong in an image by this plan, on this base.
    pub(super) fn warn(&self, plan: &Plan, base: &Base, report: &Report) {
        if self.cuda > MUCH {
            let what = format!("libraries of CUDA take {}", size(self.cuda));
            let advice = "where no GPU is used, name an index with builds for CPUs as the `source` of the package that \
                          brings them, as docs/indexes.md shows for torch";
            report.warning(&what, advice);
        }
        let mut told = BTreeMap::<&[String], Vec<&str>>::new();
        for (library, needed_by) in &self.missing {
            told.entry(needed_by).or_default().push(library);
        }
        for (needed_by, libraries) in told {
            let names =
                |names: &[&str]| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
            let needed_by: Vec<&str> = needed_by.iter().map(String::as_str).collect();
            let what = format!("{} may not work: nothing has {}", names(&needed_by), names(&libraries));
            let packages: BTreeSet<&str> =
                libraries.iter().filter_map(|library| package_of(library)).collect();
            let wishes = &plan.foundation.wishes;
            let wished = wishes.iter().any(|wish| packages.contains(wish.as_str()));
            let advice = if !base.has("apt-get") {
                "take a base that has it, if this is used".to_owned()
            } else if packages.is_empty() || wished {
                "name the package of the base's distribution that has it with `--apt`, if this is used"
                    .to_owned()
            } else {
                let options = packages.iter().map(|package| format!("--apt {package}")).collect::<Vec<_>>();
                format!("add `{}`, or let `--apt auto` do so", options.join(" "))
            };
            report.warning(&what, &advice);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_step_is_known_by_its_beginning() {
        let line = "ipybox-look: {\"largest\": [[\"numpy\", 7]], \"bytes\": 9, \"cuda\": 0, \"missing\": {\"libGL.so.1\": [\"cv\"], \"libX.so\": [\"cv\"]}}";
        let installed = Installed::read(line).unwrap();
        assert_eq!((installed.bytes, &installed.largest[0].0[..]), (9, "numpy"));
        assert_eq!(installed.lacking().packages().collect::<Vec<_>>(), ["libgl1"]);
        assert!(
            Installed::read("ipybox-look: {").is_none() && Installed::read("Installed 3 packages").is_none()
        );
    }
}
