//! Which package indexes are asked for what.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::deps::{Index, Name, Priority, Spec, Url};

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

impl PackageIndex {
    /// One that no distribution comes from alone.
    #[must_use]
    pub fn of(index: &Index) -> Self {
        Self { url: index.url.clone(), priority: index.priority, only: Vec::new() }
    }

    /// The host it is on, without the port, in lower case.
    #[must_use]
    pub fn host(&self) -> String {
        Url::parse(&self.url).map_or_else(String::new, |address| address.host_name())
    }
}

/// The indexes that lists describe, and what is taken from each alone.
pub(super) struct Indexes<'a> {
    described: Vec<(&'a Index, Vec<Name>)>,
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
        let mut used: Vec<PackageIndex> = Vec::new();
        for (index, only) in self.described {
            // Two names may be those of one address, as of a mirror.
            let same = |other: &&mut PackageIndex| other.url == index.url && other.priority == index.priority;
            match used.iter_mut().find(same) {
                Some(known) => known.only.extend(only),
                None if index.priority == Priority::Explicit && only.is_empty() => {}
                None => used.push(PackageIndex { only, ..PackageIndex::of(index) }),
            }
        }
        for index in &mut used {
            index.only.sort();
            index.only.dedup();
        }
        used
    }
}
