//! The registries that names are in, each with who asks there.

use std::collections::BTreeMap;

use super::push::failed;
use super::{Caller, Failure};
use crate::credentials::AuthFiles;
use crate::diagnostic::Diagnostic;
use crate::reference::Reference;
use crate::registry::{Patience, Registry, Repository};

/// The registries of several repositories: parts of one that have a login in common are one, so that what is pushed to
/// several of them leaves this host once.
pub(super) struct Registries {
    known: Vec<Registry>,
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
        let files = caller.environment.engine.auth_files();
        Self::with(names, certificates, &files, &Patience::default()).await
    }

    /// The same with the credentials of files, and another patience.
    pub(super) async fn with(
        names: impl IntoIterator<Item = &Reference>,
        certificates: Option<&[u8]>,
        files: &AuthFiles,
        patience: &Patience,
    ) -> Result<Self, Failure> {
        let (mut known, mut places): (Vec<Registry>, _) = (Vec::new(), BTreeMap::new());
        for name in names {
            let whole = name.canonical();
            if places.contains_key(&whole) {
                continue;
            }
            let host = whole.split_once('/').map_or(whole.as_str(), |(host, _)| host);
            let login = files.of_image(name).await.map_err(|why| {
                let what = format!("there are no credentials for `{host}`");
                Failure::refused(Diagnostic::new(what).why(why).advice("mend them with `docker login`"))
            })?;
            let place = match known.iter().position(|registry| registry.is_of(host, login.as_ref())) {
                Some(place) => place,
                None => {
                    let registry = Registry::new(host, login, certificates).map_err(failed)?;
                    known.push(registry.patient(patience.clone()));
                    known.len() - 1
                }
            };
            places.insert(whole, place);
        }
        Ok(Self { known, places })
    }

    /// The repository of one of these names.
    pub(super) fn repository(&self, name: &Reference) -> Result<Repository<'_>, Failure> {
        let whole = name.canonical();
        let (_, path) = whole.split_once('/').expect("a whole name has a registry");
        self.known[self.places[&whole]].repository(path).map_err(failed)
    }
}
