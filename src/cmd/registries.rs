//! The registries that names are in, each with who asks there.

use std::collections::BTreeMap;

use super::push::{Login, connected, failed};
use super::{Caller, Failure};
use crate::reference::Reference;
use crate::registry::{Registry, Repository};

/// The registries of several repositories: parts of one that have a login in common are one, so that what is pushed to
/// several of them leaves this host once.
pub(super) struct Registries {
    known: Vec<(Login, Registry)>,
    /// By whole names of repositories.
    places: BTreeMap<String, usize>,
}

impl Registries {
    /// Those of these names. Credentials are asked for; no registry is.
    pub(super) async fn of(
        names: impl IntoIterator<Item = &Reference>,
        certificates: Option<&[u8]>,
        caller: &Caller,
    ) -> Result<Self, Failure> {
        let (mut known, mut places) = (Vec::new(), BTreeMap::new());
        for name in names {
            let whole = name.canonical();
            if !places.contains_key(&whole) {
                let host = whole.split_once('/').map_or(whole.as_str(), |(host, _)| host);
                let place = connected(&mut known, host, name, certificates, caller).await?;
                places.insert(whole, place);
            }
        }
        Ok(Self { known, places })
    }

    /// The repository of one of these names.
    pub(super) fn repository(&self, name: &Reference) -> Result<Repository<'_>, Failure> {
        let whole = name.canonical();
        let (_, registry) = &self.known[self.places[&whole]];
        let (_, path) = whole.split_once('/').expect("a whole name has a registry");
        registry.repository(path).map_err(failed)
    }
}
