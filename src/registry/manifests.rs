//! Manifests and indexes of a repository, by digest and by tag.

use std::cell::Cell;
use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderName, HeaderValue};
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::auth::{push, remove};
use super::error::{Fault, RegistryError};
use super::exchange::{Answer, Ask, DIGEST, Outgoing};
use super::{Registry, is_digest};
use crate::archive::hexadecimal;

/// Largest manifest that is read or written, in bytes.
///
/// Rule: OCI distribution specification 1.1, "Pushing Manifests".
pub(super) const MAX_MANIFEST: usize = 4 << 20;

/// The media type of an image's manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// The media type of an index of manifests.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// The media type of an image's manifest in Docker's schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// The media type of a list of manifests in Docker's schema 2.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// What a manifest is about, where the registry keeps lists of referrers.
///
/// Rule: OCI distribution specification 1.1, "Pushing Manifests with Subject".
const SUBJECT: HeaderName = HeaderName::from_static("oci-subject");

/// What registries say of a manifest whose blobs are there, while somebody else writes one of them or where not all of their
/// parts have heard of it yet, and how often that is not believed.
///
/// Rule: OCI distribution specification 1.1, "Error Codes".
const UNSETTLED: [&str; 3] = ["DIGEST_INVALID", "MANIFEST_BLOB_UNKNOWN", "BLOB_UNKNOWN"];
const UNSURE: u32 = 3;

const KINDS: [&str; 4] = [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST];

/// What a registry has under a digest.
///
/// Rule: OCI image specification, "Content Descriptors".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// SHA-256 of its bytes, with `sha256:` before it.
    pub digest: String,
    /// What it is.
    pub media_type: String,
    /// In bytes.
    pub size: u64,
}

/// A manifest, or an index of manifests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    digest: String,
    media_type: String,
    bytes: Bytes,
}

impl Manifest {
    /// One of these bytes.
    #[must_use]
    pub fn new(media_type: &str, bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self { digest: digest_of(&bytes), media_type: media_type.to_owned(), bytes }
    }

    /// What names it.
    #[must_use]
    pub fn descriptor(&self) -> Descriptor {
        let Self { digest, media_type, bytes } = self;
        Descriptor { digest: digest.clone(), media_type: media_type.clone(), size: bytes.len() as u64 }
    }

    /// SHA-256 of its bytes, with `sha256:` before it.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// What it is.
    #[must_use]
    pub fn media_type(&self) -> &str {
        &self.media_type
    }

    /// JSON, as it was written.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

impl Registry {
    /// A manifest by a tag or a digest; `None` where there is none.
    pub(super) async fn get_manifest(
        &self,
        repository: &str,
        by: &str,
        scopes: &[String],
    ) -> Result<Option<Manifest>, RegistryError> {
        self.line.patience.insist(async || self.read_manifest(repository, by, scopes).await).await
    }

    /// What a manifest is, without its bytes; `None` where there is none.
    pub(super) async fn look_for_manifest(
        &self,
        repository: &str,
        by: &str,
        scopes: &[String],
    ) -> Result<Option<Descriptor>, RegistryError> {
        self.line.patience.insist(async || self.head_manifest(repository, by, scopes).await).await
    }

    async fn head_manifest(
        &self,
        repository: &str,
        by: &str,
        scopes: &[String],
    ) -> Result<Option<Descriptor>, Fault> {
        let what = format!("say what `{repository}` has as `{by}`");
        let Some(answer) = self.asked_for(Method::HEAD, repository, by, &what, scopes).await? else {
            return Ok(None);
        };
        if is_digest(by) {
            self.line.agrees(&answer, by)?;
        }
        let digest = answer.text(&DIGEST).filter(|digest| is_digest(digest));
        let digest = digest.or(Some(by).filter(|by| is_digest(by)));
        let media_type = answer.text(&CONTENT_TYPE).map(essence).filter(|kind| KINDS.contains(kind));
        // What says too little has to be read.
        let (Some(digest), Some(media_type), Some(size)) = (digest, media_type, answer.size()) else {
            let manifest = self.read_manifest(repository, by, scopes).await?;
            return Ok(manifest.as_ref().map(Manifest::descriptor));
        };
        Ok(Some(Descriptor { digest: digest.to_owned(), media_type: media_type.to_owned(), size }))
    }

    async fn read_manifest(
        &self,
        repository: &str,
        by: &str,
        scopes: &[String],
    ) -> Result<Option<Manifest>, Fault> {
        /// Rule: OCI image specification, "Image Manifest" and "Image Index".
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Kind {
            schema_version: u64,
            media_type: Option<String>,
        }
        let what = format!("give the manifest `{by}` of `{repository}`");
        let Some(mut answer) = self.asked_for(Method::GET, repository, by, &what, scopes).await? else {
            return Ok(None);
        };
        let nonsense = |why: &str| Fault::from(self.line.nonsense(&what, why));
        let bytes = answer.bytes(&self.line, MAX_MANIFEST).await?;
        let bytes = bytes.ok_or_else(|| nonsense("it has more than 4 MiB"))?;
        let said = answer.text(&CONTENT_TYPE).map(essence).filter(|kind| KINDS.contains(kind));
        let kind: Kind = serde_json::from_slice(&bytes).map_err(|_| nonsense("it is no manifest"))?;
        if kind.schema_version != 2 {
            return Err(nonsense("it is of another version than 2"));
        }
        let media_type = match (said, kind.media_type) {
            (Some(said), Some(own)) if said != own => return Err(nonsense("its media type is ambiguous")),
            (Some(kind), _) => kind.to_owned(),
            (None, Some(kind)) if KINDS.contains(&kind.as_str()) => kind,
            _ => return Err(nonsense("it is of no known media type")),
        };
        let manifest = Manifest::new(&media_type, bytes);
        if is_digest(by) && manifest.digest != by {
            return Err(self.line.differs(by, &manifest.digest).into());
        }
        self.line.agrees(&answer, &manifest.digest)?;
        Ok(Some(manifest))
    }

    async fn asked_for(
        &self,
        method: Method,
        repository: &str,
        by: &str,
        what: &str,
        scopes: &[String],
    ) -> Result<Option<Answer>, Fault> {
        let url = self.url(repository, &format!("manifests/{by}")).await?;
        let mut ask = Ask::new(self, what, method, url, scopes);
        ask.headers
            .insert(ACCEPT, HeaderValue::from_str(&KINDS.join(", ")).expect("media types are a header"));
        let answer = self.ask(&ask).await?;
        match answer.status {
            StatusCode::OK => Ok(Some(answer)),
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(answer.refused(&self.line, what).into()),
        }
    }

    /// Takes a tag or a manifest out, where the registry does that.
    ///
    /// Rule: OCI distribution specification 1.1, "Deleting tags".
    pub(super) async fn remove_manifest(&self, repository: &str, by: &str) -> Result<bool, RegistryError> {
        let what = format!("remove `{by}` of `{repository}`");
        let scopes = [remove(repository)];
        let ask = async || {
            let url = self.url(repository, &format!("manifests/{by}")).await?;
            let answer = self.ask(&Ask::new(self, &what, Method::DELETE, url, &scopes)).await?;
            if answer.status.is_success() {
                return Ok(());
            }
            Err(Fault::from(answer.refused(&self.line, &what)))
        };
        match self.line.patience.insist(ask).await {
            Ok(()) => Ok(true),
            Err(RegistryError::Denied { .. } | RegistryError::Refused { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Writes a manifest, under its digest or a tag. Returns the digest of the manifest that the registry says it is about.
    pub(super) async fn put_manifest(
        &self,
        repository: &str,
        by: &str,
        manifest: &Manifest,
    ) -> Result<Option<String>, RegistryError> {
        let what = format!("take `{by}` into `{repository}`");
        let Ok(media_type) = HeaderValue::from_str(&manifest.media_type) else {
            return Err(RegistryError::Name { what: "media type", text: manifest.media_type.clone() });
        };
        let scopes = [push(repository)];
        let left = Cell::new(UNSURE);
        let put = async || {
            let url = self.url(repository, &format!("manifests/{by}")).await?;
            let mut ask = Ask::new(self, &what, Method::PUT, url, &scopes);
            ask.headers.insert(CONTENT_TYPE, media_type.clone());
            let gone = AtomicU64::new(0);
            let make = || manifest.bytes.clone().into();
            let size = manifest.bytes.len() as u64;
            ask.body = Some(Outgoing { size, make: &make, gone: &gone, tell: &|_| () });
            let answer = self.ask(&ask).await?;
            if !answer.status.is_success() {
                let refused = answer.refused(&self.line, &what);
                if answer.complains_of(&UNSETTLED) && left.get() > 0 {
                    left.set(left.get() - 1);
                    return Err(Fault::passing(refused));
                }
                return Err(refused.into());
            }
            self.line.agrees(&answer, &manifest.digest)?;
            Ok(answer.text(&SUBJECT).map(str::to_owned))
        };
        self.line.patience.insist(put).await
    }
}

/// The digest of these bytes, with `sha256:` before it.
pub(super) fn digest_of(bytes: &[u8]) -> String {
    format!("sha256:{}", hexadecimal(&Sha256::digest(bytes)))
}

/// A media type without its parameters.
pub(super) fn essence(media_type: &str) -> &str {
    media_type.split(';').next().unwrap_or_default().trim()
}
