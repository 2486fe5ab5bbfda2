//! One repository of a registry, and all that is done with it.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::auth::pull;
use super::download::Download;
use super::error::RegistryError;
use super::image::{Blob, Image};
use super::manifests::{Descriptor, Manifest};
use super::pushing::{Pushed, Summary};
use super::{Registry, reference};
use crate::platform::Platform;

/// How many manifests of an index are read.
const MANIFESTS: usize = 64;

/// Largest configuration of an image that is read, in bytes.
const MAX_CONFIG: u64 = 8 << 20;

/// One repository of a registry.
#[derive(Clone)]
pub struct Repository<'a> {
    pub(super) registry: &'a Registry,
    pub(super) name: String,
}

impl std::fmt::Debug for Repository<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Repository").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Rule: OCI image specification, "Image Manifest" and "Image Index".
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Named {
    config: Option<Part>,
    #[serde(default)]
    layers: Vec<Part>,
    #[serde(default)]
    manifests: Vec<Part>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Part {
    media_type: String,
    digest: String,
    size: u64,
    platform: Option<Platform>,
}

/// Rule: OCI image specification, "Image Configuration".
#[derive(Deserialize, Default)]
struct Config {
    #[serde(default)]
    rootfs: Rootfs,
}

#[derive(Deserialize, Default)]
struct Rootfs {
    #[serde(default)]
    diff_ids: Vec<String>,
}

/// What an image in a repository consists of.
#[derive(Debug, Clone)]
pub struct Parts {
    /// Its manifest.
    pub manifest: Manifest,
    /// Its configuration.
    pub config: Descriptor,
    /// Its layers, the lowest first.
    pub layers: Vec<Descriptor>,
}

impl From<Part> for Descriptor {
    fn from(Part { media_type, digest, size, .. }: Part) -> Self {
        Self { digest, media_type, size }
    }
}

impl<'a> Repository<'a> {
    /// Its name in requests.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Pushes an image: what the repository lacks of its blobs, a few at once; then its manifest by digest; then its tags, one
    /// after the other. Whether tags or digest name it already is asked before anything else: a registry that serves the
    /// manifest has its blobs, and a tag that names it is left alone. A blob that another repository of the registry has,
    /// as far as this [`Registry`] knows, is mounted. `tell` hears how far each blob has come.
    ///
    /// # Errors
    ///
    /// [`RegistryError`]. What of the blobs was not brought to its end is given up.
    pub async fn push(
        &self,
        image: &Image,
        tags: &[&str],
        tell: impl Fn(Pushed<'_>),
    ) -> Result<Summary, RegistryError> {
        self.registry.push_all(&self.name, &[image], &image.manifest, tags, &tell).await
    }

    /// The same for an index and all images that it names.
    ///
    /// # Errors
    ///
    /// As [`Repository::push`].
    pub async fn push_index(
        &self,
        index: &Manifest,
        images: &[&Image],
        tags: &[&str],
        tell: impl Fn(Pushed<'_>),
    ) -> Result<Summary, RegistryError> {
        self.registry.push_all(&self.name, images, index, tags, &tell).await
    }

    /// Writes a manifest whose blobs are there, by its digest.
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    pub async fn put(&self, manifest: &Manifest) -> Result<(), RegistryError> {
        self.registry.put_manifest(&self.name, manifest.digest(), manifest).await.map(|_| ())
    }

    /// Lets a tag name a manifest whose blobs are there.
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    pub async fn tag(&self, tag: &str, manifest: &Manifest) -> Result<(), RegistryError> {
        super::tag(tag)?;
        self.registry.put_manifest(&self.name, tag, manifest).await.map(|_| ())
    }

    /// Takes a tag or a manifest out. Whether that was done: registries may keep what they have.
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    pub async fn remove(&self, by: &str) -> Result<bool, RegistryError> {
        reference(by)?;
        self.registry.remove_manifest(&self.name, by).await
    }

    /// What a tag or a digest names; `None` where there is nothing.
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    pub async fn head(&self, by: &str) -> Result<Option<Descriptor>, RegistryError> {
        reference(by)?;
        self.registry.look_for_manifest(&self.name, by, &[pull(&self.name)]).await
    }

    /// What tags and digests name, a few asked for at once. Those that name nothing are left out.
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    pub async fn heads<'t>(&self, by: &[&'t str]) -> Result<BTreeMap<&'t str, Descriptor>, RegistryError> {
        by.iter().try_for_each(|by| reference(by))?;
        let found = self.registry.look_for_all(&self.name, by, &[pull(&self.name)]).await?;
        Ok(by.iter().zip(found).filter_map(|(by, found)| found.map(|found| (*by, found))).collect())
    }

    /// A manifest by a tag or a digest; `None` where there is none.
    ///
    /// # Errors
    ///
    /// [`RegistryError`]; [`RegistryError::Digest`] where its bytes are not what digest or registry say.
    pub async fn manifest(&self, by: &str) -> Result<Option<Manifest>, RegistryError> {
        reference(by)?;
        self.registry.get_manifest(&self.name, by, &[pull(&self.name)]).await
    }

    /// Whether it has a blob of this digest and size.
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    pub async fn has(&self, blob: &Descriptor) -> Result<bool, RegistryError> {
        super::digest(&blob.digest)?;
        let what = format!("say whether `{}` has the blob `{}`", self.name, blob.digest);
        let (blob, scopes) = (Blob::known(blob), [pull(&self.name)]);
        let ask = async || self.registry.has_blob(&self.name, &blob, &what, &scopes).await;
        self.registry.line.patience.insist(ask).await
    }

    /// The bytes of a blob.
    ///
    /// # Errors
    ///
    /// [`RegistryError::Name`].
    pub fn blob(&self, blob: &Descriptor) -> Result<Download<'a>, RegistryError> {
        Download::new(self.registry, &self.name, blob)
    }

    /// The packed layers of an image, or of all images of an index, by their diff ids: what has such a diff id need not be
    /// packed again. Nothing where there is no such image, or what the registry has is none.
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    pub async fn layers(&self, by: &str) -> Result<BTreeMap<String, Descriptor>, RegistryError> {
        let mut layers = BTreeMap::new();
        let Some(first) = self.manifest(by).await? else { return Ok(layers) };
        let mut named = vec![self.named(&first)?];
        let images = std::mem::take(&mut named[0].manifests);
        if images.len() > MANIFESTS {
            let what = format!("give the images of `{}` of `{}`", first.digest(), self.name);
            let why = format!("it names {} of them, more than {MANIFESTS}", images.len());
            return Err(self.registry.line.nonsense(&what, why));
        }
        for image in images {
            if let Some(manifest) = self.manifest(&image.digest).await? {
                named.push(self.named(&manifest)?);
            }
        }
        for Named { config, layers: packed, .. } in named {
            let Some(config) = config.filter(|config| config.size <= MAX_CONFIG) else { continue };
            let bytes = self.small(&config.into()).await?;
            let config: Config = serde_json::from_slice(&bytes).unwrap_or_default();
            let diff_ids = config.rootfs.diff_ids;
            if diff_ids.len() == packed.len() {
                layers.extend(diff_ids.into_iter().zip(packed.into_iter().map(Descriptor::from)));
            }
        }
        Ok(layers)
    }

    /// The configuration of an image, or of an index's image for a platform, as it was written. Nothing, where there is no such
    /// image, or an unusually large one.
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    pub async fn config(&self, by: &str, platform: &Platform) -> Result<Option<Vec<u8>>, RegistryError> {
        match self.image(by, platform).await?.map(|image| image.config) {
            Some(config) if config.size <= MAX_CONFIG => self.small(&config).await.map(Some),
            _ => Ok(None),
        }
    }

    /// What an image consists of, or an index's image for a platform. Nothing, where there is no such image.
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    pub async fn image(&self, by: &str, platform: &Platform) -> Result<Option<Parts>, RegistryError> {
        let Some(mut manifest) = self.manifest(by).await? else { return Ok(None) };
        let mut named = self.named(&manifest)?;
        let is_for = |part: &&Part| part.platform.as_ref() == Some(platform);
        if let Some(image) = named.manifests.iter().find(is_for) {
            let Some(of_platform) = self.manifest(&image.digest).await? else { return Ok(None) };
            named = self.named(&of_platform)?;
            manifest = of_platform;
        }
        let Named { config, layers, .. } = named;
        Ok(config.map(|config| Parts {
            manifest,
            config: config.into(),
            layers: layers.into_iter().map(Descriptor::from).collect(),
        }))
    }

    /// What the images of an index run on; nothing, where it is none.
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    pub async fn platforms(&self, by: &str) -> Result<Vec<Platform>, RegistryError> {
        let Some(manifest) = self.manifest(by).await? else { return Ok(Vec::new()) };
        Ok(self.named(&manifest)?.manifests.into_iter().filter_map(|image| image.platform).collect())
    }

    fn named(&self, manifest: &Manifest) -> Result<Named, RegistryError> {
        serde_json::from_slice(manifest.bytes()).map_err(|_| {
            let what = format!("give `{}` of `{}`", manifest.digest(), self.name);
            self.registry.line.nonsense(&what, "it is no manifest of an image")
        })
    }

    /// All bytes of a small blob.
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    pub async fn small(&self, blob: &Descriptor) -> Result<Vec<u8>, RegistryError> {
        let mut download = self.blob(blob)?;
        let mut bytes = Vec::new();
        while let Some(next) = download.next().await? {
            bytes.extend_from_slice(&next);
        }
        Ok(bytes)
    }
}
