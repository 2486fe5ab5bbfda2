//! Images and other artifacts to and from registries, by the OCI distribution specification 1.1.
//!
//! A [`Registry`] is one connection, one login and one knowledge of where blobs are; its [`Repository`]s are what images are
//! pushed to.

mod address;
mod auth;
mod blobs;
mod challenge;
mod download;
mod error;
mod exchange;
mod homes;
mod image;
mod limits;
mod manifests;
mod patience;
mod pushing;
mod range;
mod referrers;
mod repository;
mod session;
mod source;
mod upload;

use std::collections::BTreeMap;
use std::io;

use reqwest::{Method, Url, redirect};
use tokio::sync::{Mutex, OnceCell, Semaphore};

use address::Address;
use auth::Auth;
pub use blobs::Arrival;
pub use download::Download;
use error::Fault;
pub use error::RegistryError;
use exchange::Line;
use homes::Homes;
pub use image::{Blob, Content, Entry, Image};
use limits::Limits;
pub use manifests::{DOCKER_LIST, DOCKER_MANIFEST, Descriptor, Manifest, OCI_INDEX, OCI_MANIFEST};
pub use patience::Patience;
pub use pushing::{Pushed, Summary};
pub use referrers::Referrer;
pub use repository::{Parts, Repository};

use crate::credentials::DockerCredential;
use crate::http;
use crate::reference::Reference;

/// How many blobs travel to a registry at once, and how much a repository is asked for at once.
const AT_ONCE: usize = 4;

/// A client of one registry. What is pushed to several of its repositories, also at the same time, leaves this host once.
pub struct Registry {
    address: Address,
    line: Line,
    auth: Auth,
    base: OnceCell<Url>,
    homes: Homes,
    limits: Limits,
    /// Uploads that may run.
    uploads: Semaphore,
    /// What was added to lists of referrers under tags, held by whoever changes one.
    listing: Mutex<BTreeMap<String, Vec<Referrer>>>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Registry {
    /// A client of the registry at `HOST` or `HOST:PORT`, that trusts this host's certificates and these, in PEM.
    ///
    /// Only a host on the loopback may be without TLS, and others that are named with `http://` in front.
    ///
    /// # Errors
    ///
    /// [`RegistryError::Address`], [`RegistryError::Settings`].
    pub fn new(
        registry: &str,
        credential: Option<DockerCredential>,
        certificates: Option<&[u8]>,
    ) -> Result<Self, RegistryError> {
        let address: Address = registry.parse()?;
        let mut http = http::client(certificates).map_err(RegistryError::Settings)?;
        if address::is_loopback(&address.tls) {
            http = http.no_proxy();
        }
        let http = http.redirect(redirect::Policy::none()).build();
        let http = http.map_err(|error| RegistryError::Settings(io::Error::other(error)))?;
        let line = Line { http, registry: address.name.clone(), patience: Patience::default() };
        Ok(Self {
            address,
            line,
            auth: Auth::new(credential),
            base: OnceCell::new(),
            homes: Homes::default(),
            limits: Limits::default(),
            uploads: Semaphore::new(AT_ONCE),
            listing: Mutex::default(),
        })
    }

    /// The same with another patience.
    #[must_use]
    pub fn patient(mut self, patience: Patience) -> Self {
        self.line.patience = patience;
        self
    }

    /// Whether it is a client of the registry at `HOST` or `HOST:PORT` with this login.
    #[must_use]
    pub fn is_of(&self, registry: &str, credential: Option<&DockerCredential>) -> bool {
        self.address.name == registry && self.auth.credential() == credential
    }

    /// One of its repositories, which need not exist yet.
    ///
    /// # Errors
    ///
    /// [`RegistryError::Name`].
    pub fn repository(&self, name: &str) -> Result<Repository<'_>, RegistryError> {
        Ok(Repository { registry: self, name: self.in_full(name)? })
    }

    /// The registry's address. On the loopback it is found out once whether there is TLS.
    async fn base(&self) -> Result<&Url, Fault> {
        let find = async || {
            let Address { tls, plain, is_tls, .. } = &self.address;
            match is_tls {
                Some(true) => return Ok(tls.clone()),
                Some(false) => return Ok(plain.clone()),
                None => {}
            }
            let request = self.line.http.request(Method::GET, tls.join("v2/").expect("a path"));
            match tokio::time::timeout(self.line.patience.silence, request.send()).await {
                Ok(Ok(_)) => Ok(tls.clone()),
                Ok(Err(error)) if is_plain(&error) => Ok(plain.clone()),
                Ok(Err(error)) => Err(self.line.fault(error)),
                Err(_) => Err(self.line.silent(self.line.patience.silence)),
            }
        };
        self.base.get_or_try_init(find).await
    }

    /// An address of a repository.
    async fn url(&self, repository: &str, path: &str) -> Result<Url, Fault> {
        let base = self.base().await?;
        Ok(base.join(&format!("v2/{repository}/{path}")).expect("names that were checked are a path"))
    }

    /// A repository by its name in requests.
    fn in_full(&self, name: &str) -> Result<String, RegistryError> {
        let in_full: Result<Reference, _> = format!("registry.invalid/{name}").parse();
        if !in_full.is_ok_and(|found| found.repository().len() == name.len() + "registry.invalid/".len()) {
            let text = name.escape_debug().to_string();
            return Err(RegistryError::Name { what: "repository", text });
        }
        let is_official = address::is_hub(&self.address.name) && !name.contains('/');
        Ok(if is_official { format!("library/{name}") } else { name.to_owned() })
    }
}

/// Whether a host that was spoken to with TLS speaks without: it answers something else, or hangs up on what it does not
/// know. One that is not there does neither.
fn is_plain(error: &reqwest::Error) -> bool {
    exchange::causes(error).any(|cause| {
        let tls = cause.downcast_ref().is_some_and(|tls| matches!(tls, rustls::Error::InvalidMessage(_)));
        let hangs_up = |error: &io::Error| {
            matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset)
        };
        tls || cause.downcast_ref().is_some_and(hangs_up)
    })
}

fn is_digest(text: &str) -> bool {
    text.contains(':') && digest(text).is_ok()
}

fn digest(text: &str) -> Result<(), RegistryError> {
    match format!("x@{text}").parse::<Reference>() {
        Ok(found) if found.digest() == Some(text) => Ok(()),
        _ => Err(RegistryError::Name { what: "digest", text: text.escape_debug().to_string() }),
    }
}

fn tag(text: &str) -> Result<(), RegistryError> {
    match format!("x:{text}").parse::<Reference>() {
        Ok(found) if found.tag() == Some(text) && !is_digest(text) => Ok(()),
        _ => Err(RegistryError::Name { what: "tag", text: text.escape_debug().to_string() }),
    }
}

/// A tag or a digest.
fn reference(text: &str) -> Result<(), RegistryError> {
    if is_digest(text) { Ok(()) } else { tag(text) }
}
