//! What a build may use and must not keep: certificates, proxies, logins and secrets.

use std::collections::{BTreeMap, HashMap};

use crate::diagnostic::Diagnostic;
use crate::engine::{Build, Builder};
use crate::image::context;
use crate::image::dockerfile::{CA_SECRET, NETRC_SECRET, Supply};
use crate::inputs::credentials::Credentials;

/// What a build may use and must not keep.
#[derive(Debug, Clone, Default)]
pub struct Supplies {
    /// What its steps trust, in PEM, where that is more than the base does.
    pub certificates: Option<Vec<u8>>,
    /// Proxy settings, by variable.
    pub proxies: HashMap<String, String>,
    /// Logins for package indexes.
    pub credentials: Credentials,
    /// What the steps of the variant read, by id.
    pub secrets: BTreeMap<String, Vec<u8>>,
}

impl Supplies {
    /// How the Dockerfile of such a build finds them.
    #[must_use]
    pub fn kind(&self, builder: Builder) -> Supply {
        match builder {
            Builder::BuildKit => Supply::Engine,
            Builder::Classic => Supply::Plain { certificates: self.certificates.is_some() },
        }
    }

    /// Why an engine cannot bring them, where it cannot.
    #[must_use]
    pub fn refusal(&self, builder: Builder) -> Option<Diagnostic> {
        let what = match (builder, self.credentials.hosts().next(), self.secrets.keys().next()) {
            (Builder::BuildKit, ..) | (Builder::Classic, None, None) => return None,
            (Builder::Classic, Some(host), _) => {
                format!("the login for `{host}` cannot reach builds on podman")
            }
            (Builder::Classic, None, Some(id)) => format!("the secret `{id}` cannot reach builds on podman"),
        };
        let what = Diagnostic::new(what)
            .why("its Docker API has no secrets, and anything else would stay in the image");
        Some(what.advice(
            "use an engine of Docker (`--host`, `--context`), or an index that answers without a login",
        ))
    }

    /// Gives them to a build, by the way that its engine has.
    pub fn bring(&self, builder: Builder, build: &mut Build) {
        build.build_args.extend(self.proxies.clone());
        if builder == Builder::BuildKit {
            build.secrets.extend(self.secrets.clone());
            build.secrets.extend(self.credentials.netrc().map(|netrc| (NETRC_SECRET.to_owned(), netrc)));
        }
        let Some(bundle) = &self.certificates else { return };
        match builder {
            Builder::BuildKit => drop(build.secrets.insert(CA_SECRET.to_owned(), bundle.clone())),
            Builder::Classic => build.context.add(context::CERTIFICATES, bundle.as_slice()),
        }
    }
}
