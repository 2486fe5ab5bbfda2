//! What two locks have differently, and why.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Entry, Lock};
use crate::deps::Name;

/// A package that is locked otherwise than before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The package.
    pub name: Name,
    /// The version before; `None` where it is new.
    pub from: Option<String>,
    /// The version now; `None` where it is gone.
    pub to: Option<String>,
    /// Why.
    pub why: String,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, from, to, why } = self;
        match (from, to) {
            (Some(from), Some(to)) if from == to => write!(f, "{name} {to}, another file: {why}"),
            (Some(from), Some(to)) => write!(f, "{name} {from} → {to}, {why}"),
            (None, Some(to)) => write!(f, "{name} {to} is new, {why}"),
            (Some(from), None) => write!(f, "{name} {from} is gone, {why}"),
            (None, None) => write!(f, "{name}"),
        }
    }
}

/// Why entries may have changed, beside what the locks themselves tell.
#[derive(Debug, Clone, Default)]
pub struct Reasons {
    /// What the list asks for otherwise than before, in words, by package.
    pub asked: BTreeMap<Name, String>,
    /// Whether newer versions were asked for.
    pub upgrade: bool,
}

/// What a lock has otherwise than an earlier one.
#[must_use]
pub fn differences(earlier: &Lock, later: &Lock, reasons: &Reasons) -> Vec<Difference> {
    let (before, after) = (&earlier.entries, &later.entries);
    let names = before.keys().chain(after.keys().filter(|name| !before.contains_key(*name)));
    let mut differences = Vec::new();
    for name in names {
        let (old, new) = (before.get(name), after.get(name));
        if old.map(|entry| &entry.wheel.sha256) == new.map(|entry| &entry.wheel.sha256) {
            continue;
        }
        let version = |entry: &Entry| entry.version.to_string();
        differences.push(Difference {
            name: name.clone(),
            from: old.map(version),
            to: new.map(version),
            why: why(name, earlier, later, reasons),
        });
    }
    differences.sort_by(|one, other| one.name.cmp(&other.name));
    differences
}

/// Why a package changed: what the list says, what needs it, or time.
fn why(name: &Name, earlier: &Lock, later: &Lock, reasons: &Reasons) -> String {
    if let Some(asked) = reasons.asked.get(name) {
        return format!("because {asked}");
    }
    let needs = |lock: &Lock| -> Vec<(Name, String)> {
        let needs = lock.entries.iter().filter(|(_, entry)| entry.dependencies.contains(name));
        needs.map(|(parent, entry)| (parent.clone(), entry.version.to_string())).collect()
    };
    let (before, after) = (needs(earlier), needs(later));
    if !later.entries.contains_key(name) {
        return "because nothing needs it any more".to_owned();
    }
    let is_new = !earlier.entries.contains_key(name);
    match after.iter().find(|parent| !before.contains(parent)).filter(|_| is_new || !reasons.upgrade) {
        Some((parent, version)) => format!("because {parent} {version} needs it"),
        None if reasons.upgrade => "the newest that will do".to_owned(),
        None => match after.first() {
            Some((parent, version)) if is_new => {
                format!("because {parent} {version} needs it")
            }
            _ => "the version before will not do, or is gone".to_owned(),
        },
    }
}
