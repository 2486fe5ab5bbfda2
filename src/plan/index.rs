//! Which package indexes are asked for what.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

use crate::deps::{Name, Priority, Spec};

/// A package index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageIndex {
    /// Its address.
    pub url: String,
    /// When it is asked.
    pub priority: Priority,
    /// The distributions that come from it and no other.
    pub only: Vec<Name>,
}

/// The indexes that lists describe, and what is taken from each alone.
pub(super) struct Indexes<'a> {
    described: Vec<(&'a crate::deps::Index, Vec<Name>)>,
    by_name: HashMap<&'a str, usize>,
}

impl<'a> Indexes<'a> {
    pub(super) fn of(spec: &'a Spec) -> Self {
        let described: Vec<_> = spec.indexes.iter().map(|index| (index, Vec::new())).collect();
        let by_name = spec
            .indexes
            .iter()
            .enumerate()
            .filter_map(|(at, index)| Some((index.name.as_deref()?, at)))
            .collect();
        Self { described, by_name }
    }

    pub(super) fn take(&mut self, index: &str, distribution: &Name) -> Option<()> {
        let (_, only) = &mut self.described[*self.by_name.get(index)?];
        only.push(distribution.clone());
        Some(())
    }

    pub(super) fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = self.by_name.keys().map(|&name| name.to_owned()).collect();
        names.sort();
        names
    }

    /// Those that are asked for anything.
    pub(super) fn used(self) -> Vec<PackageIndex> {
        let mut seen = HashSet::new();
        let index = |(index, mut only): (&'a crate::deps::Index, Vec<Name>)| {
            only.sort();
            only.dedup();
            let used = index.priority != Priority::Explicit || !only.is_empty();
            (used && seen.insert((index.url.as_str(), index.priority))).then(|| PackageIndex {
                url: index.url.clone(),
                priority: index.priority,
                only,
            })
        };
        self.described.into_iter().filter_map(index).collect()
    }
}
