//! What an image's own files say of it.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use sha2::{Digest, Sha256};

use super::source::{Part, Source, digest_of};
use super::{Fault, Refusal};
use crate::platform::Platform;
use crate::reference::Reference;

/// The largest text that is read, in bytes: what registries take at most.
pub(super) const MOST_TEXT: u64 = 4_000_000;

/// How many layers an image may have.
pub(super) const MOST_LAYERS: usize = 512;

/// How many manifests an index may have, with those of the indexes in it.
const MOST_MANIFESTS: usize = 1000;

/// How many indexes may lie in each other.
const MOST_INDEXES: usize = 4;

pub(super) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(super) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const INDEXES: [&str; 2] =
    ["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"];
const CONFIGS: [&str; 2] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];

/// What says which image a manifest is, beside its own name.
const NAMES: [&str; 2] = ["org.opencontainers.image.ref.name", "io.containerd.image.name"];

/// What an index has beside images.
const ATTESTATION: &str = "vnd.docker.reference.type";

/// Rule: OCI image specification, "Content Descriptors".
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    pub(super) media_type: String,
    pub(super) digest: String,
    pub(super) size: u64,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
    #[serde(default)]
    platform: Option<DescriptorPlatform>,
}

#[derive(Debug, Clone, Deserialize)]
struct DescriptorPlatform {
    os: String,
    architecture: String,
    #[serde(default)]
    variant: Option<String>,
}

/// Rule: OCI image specification, "Image Index".
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    #[serde(default)]
    media_type: Option<String>,
    manifests: Vec<Descriptor>,
    // What has both can be read as either.
    layers: Option<IgnoredAny>,
    config: Option<IgnoredAny>,
}

/// Rule: OCI image specification, "Image Manifest".
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Manifest {
    #[serde(default)]
    media_type: Option<String>,
    pub(super) config: Descriptor,
    pub(super) layers: Vec<Descriptor>,
    manifests: Option<IgnoredAny>,
}

/// Rule: OCI image specification, "Image Configuration".
#[derive(Debug, Deserialize)]
pub(super) struct Config {
    pub(super) os: String,
    pub(super) architecture: String,
    pub(super) rootfs: RootFs,
}

#[derive(Debug, Deserialize)]
pub(super) struct RootFs {
    #[serde(default)]
    pub(super) diff_ids: Vec<String>,
}

/// An image in `manifest.json`.
///
/// Rule: Docker image specification 1.2, "Combined Image JSON + Filesystem Changeset Format".
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Saved {
    pub(super) config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    pub(super) layers: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct LayoutFile {
    image_layout_version: String,
}

/// A text as what it should be.
pub(super) fn parsed<T: DeserializeOwned>(text: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(text).map_err(|error| Refusal::malformed(&error))
}

fn text(source: &Source, path: &str) -> Result<Vec<u8>, Fault> {
    source.open(path)?.read(MOST_TEXT).map_err(|refusal| refusal.of(path))
}

/// The digits of a digest.
pub(super) fn digits(digest: &str) -> Result<&str, Refusal> {
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let digits = digest.strip_prefix("sha256:");
    digits
        .filter(|digits| digits.len() == 64 && digits.bytes().all(is_digit))
        .ok_or_else(|| Refusal::UnknownDigest(digest.to_owned()))
}

impl Descriptor {
    /// Where it is, which is as long as it should be.
    pub(super) fn part(&self, source: &Source) -> Result<Part, Fault> {
        let named = |refusal: Refusal| refusal.of(&self.digest);
        let digits = digits(&self.digest).map_err(named)?;
        let part = source.open(&format!("blobs/sha256/{digits}"))?;
        if part.length != self.size {
            return Err(named(Refusal::Size { said: self.size, is: part.length }));
        }
        Ok(part)
    }

    /// Its bytes, which are those of its digest.
    pub(super) fn text(&self, source: &Source) -> Result<Vec<u8>, Fault> {
        let named = |refusal: Refusal| refusal.of(&self.digest);
        let text = self.part(source)?.read(MOST_TEXT).map_err(named)?;
        if digest_of(Sha256::new_with_prefix(&text)) == self.digest {
            Ok(text)
        } else {
            Err(named(Refusal::Digest(self.digest.clone())))
        }
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        let annotations = self.annotations.iter();
        NAMES
            .iter()
            .flat_map(move |name| annotations.clone().filter_map(move |all| all.get(*name)))
            .map(String::as_str)
    }

    fn is_called(&self, name: &str) -> bool {
        self.digest == name || self.names().any(|own| own == name || is_same_name(own, name))
    }

    fn is_attestation(&self) -> bool {
        let is_unknown =
            |platform: &DescriptorPlatform| platform.os == "unknown" && platform.architecture == "unknown";
        self.platform.as_ref().is_some_and(is_unknown)
            || self.annotations.as_ref().is_some_and(|all| all.contains_key(ATTESTATION))
    }

    /// Whether it is one of several processors of a kind.
    fn is_special(&self) -> bool {
        self.platform.as_ref().is_some_and(|platform| {
            platform.variant.as_deref().is_some_and(|variant| !matches!(variant, "" | "v8"))
        })
    }

    /// What it runs on; `None` where it is no image.
    fn platform(&self, source: &Source) -> Result<Option<Platform>, Fault> {
        if let Some(DescriptorPlatform { os, architecture, .. }) = &self.platform {
            return Ok(Some(Platform { os: os.clone(), architecture: architecture.clone() }));
        }
        match self.manifest(source) {
            Ok(manifest) => {
                let config = manifest.config.text(source)?;
                let config: Config =
                    parsed(&config).map_err(|refusal| refusal.of(&manifest.config.digest))?;
                Ok(Some(Platform { os: config.os, architecture: config.architecture }))
            }
            Err(Fault { refusal: Refusal::MediaType(_), .. }) => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// The manifest that it is of.
    pub(super) fn manifest(&self, source: &Source) -> Result<Manifest, Fault> {
        let named = |refusal: Refusal| refusal.of(&self.digest);
        if ![OCI_MANIFEST, DOCKER_MANIFEST].contains(&self.media_type.as_str()) {
            return Err(named(Refusal::MediaType(self.media_type.clone())));
        }
        let manifest: Manifest = parsed(&self.text(source)?).map_err(named)?;
        let is_another = manifest.media_type.as_ref().is_some_and(|own| *own != self.media_type);
        if is_another || manifest.manifests.is_some() {
            return Err(named(Refusal::malformed(&"it can be read as something else than a manifest")));
        }
        if !CONFIGS.contains(&manifest.config.media_type.as_str()) {
            return Err(named(Refusal::MediaType(manifest.config.media_type)));
        }
        Ok(manifest)
    }
}

/// Whether two names are one to Docker.
fn is_same_name(one: &str, other: &str) -> bool {
    let full = |name: &str| {
        let name = name.parse::<Reference>().ok()?.in_full();
        let name = name.strip_prefix("docker.io/").unwrap_or(&name);
        Some(name.strip_prefix("library/").unwrap_or(name).to_owned())
    };
    full(one).is_some_and(|one| Some(one) == full(other))
}

/// The manifest that is wanted of a layout.
pub(super) fn chosen(
    source: &Source,
    name: Option<&str>,
    wanted: Option<&Platform>,
) -> Result<Descriptor, Fault> {
    let layout: LayoutFile =
        parsed(&text(source, "oci-layout")?).map_err(|refusal| refusal.of("oci-layout"))?;
    if !layout.image_layout_version.starts_with("1.") {
        return Err(Refusal::malformed(&format!("version {}", layout.image_layout_version)).of("oci-layout"));
    }
    let named = |refusal: Refusal| refusal.of("index.json");
    let index = index(&text(source, "index.json")?, None).map_err(named)?;
    let mut tops: Vec<_> = index.manifests.iter().filter(|top| !top.is_attestation()).collect();
    let names =
        || -> Vec<String> { tops.iter().filter_map(|top| top.names().next()).map(str::to_owned).collect() };
    match name {
        Some(name) => {
            let refusal = Refusal::Name(names());
            tops.retain(|top| top.is_called(name));
            if tops.is_empty() {
                return Err(refusal.of(name));
            }
        }
        None => {
            let of_first = |top: &&Descriptor| top.digest == tops[0].digest;
            let mut different = names();
            different.dedup();
            if different.len() > 1 && !tops.iter().all(of_first) {
                return Err(Refusal::Several(different).into());
            }
        }
    }
    let mut manifests = Vec::new();
    for top in tops {
        flatten(source, top, MOST_INDEXES, &mut manifests)?;
    }
    let mut images = Vec::new();
    for manifest in manifests {
        if let Some(platform) = manifest.platform(source)? {
            images.push((platform, manifest));
        }
    }
    let mut there: Vec<Platform> = Vec::new();
    for (platform, _) in &images {
        if !there.contains(platform) {
            there.push(platform.clone());
        }
    }
    let wanted = match (wanted, there.as_slice()) {
        (Some(wanted), _) => wanted.clone(),
        (None, [only]) => only.clone(),
        (None, []) => return Err(Refusal::Empty.into()),
        (None, _) => Platform::here(),
    };
    images.retain(|(platform, _)| *platform == wanted);
    // What runs on all of a kind runs on those that can do more.
    images.sort_by_key(|(_, manifest)| manifest.is_special());
    match images.into_iter().next() {
        Some((_, manifest)) => Ok(manifest),
        None if there.is_empty() => Err(Refusal::Empty.into()),
        None => Err(Refusal::Platform { wanted, there }.into()),
    }
}

/// Reads an index, of which is said that it is of a media type.
fn index(text: &[u8], said: Option<&str>) -> Result<Index, Refusal> {
    let index: Index = parsed(text)?;
    let is_another = index
        .media_type
        .as_deref()
        .is_some_and(|own| said.map_or(!INDEXES.contains(&own), |said| own != said));
    if is_another || index.layers.is_some() || index.config.is_some() {
        return Err(Refusal::malformed(&"it can be read as something else than an index"));
    }
    if index.manifests.len() > MOST_MANIFESTS {
        return Err(Refusal::Limit("1000 manifests"));
    }
    Ok(index)
}

/// The manifests of an index, and of those in it.
fn flatten(source: &Source, of: &Descriptor, most: usize, to: &mut Vec<Descriptor>) -> Result<(), Fault> {
    let named = |refusal: Refusal| refusal.of(&of.digest);
    if of.is_attestation() || to.iter().any(|known| known.digest == of.digest) {
        return Ok(());
    }
    if !INDEXES.contains(&of.media_type.as_str()) {
        if to.len() == MOST_MANIFESTS {
            return Err(named(Refusal::Limit("1000 manifests")));
        }
        to.push(of.clone());
        return Ok(());
    }
    let deeper = most.checked_sub(1).ok_or_else(|| named(Refusal::Limit("4 indexes in each other")))?;
    let index = index(&of.text(source)?, Some(&of.media_type)).map_err(named)?;
    for manifest in &index.manifests {
        flatten(source, manifest, deeper, to)?;
    }
    Ok(())
}

/// The image that is wanted of what `docker save` writes.
pub(super) fn saved(source: &Source, name: Option<&str>) -> Result<Saved, Fault> {
    const MANIFEST: &str = "manifest.json";
    let images: Vec<Saved> = parsed(&text(source, MANIFEST)?).map_err(|refusal| refusal.of(MANIFEST))?;
    let tags = |image: &Saved| image.repo_tags.clone().unwrap_or_default();
    let names = || images.iter().flat_map(tags).collect::<Vec<_>>();
    let Some(name) = name else {
        return match images.as_slice() {
            [] => Err(Refusal::Empty.into()),
            [image] => Ok(image.clone()),
            _ => Err(Refusal::Several(names()).into()),
        };
    };
    let is_called = |image: &&Saved| tags(image).iter().any(|own| own == name || is_same_name(own, name));
    let found = images.iter().find(is_called);
    found.cloned().ok_or_else(|| Refusal::Name(names()).of(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_as_docker_does() {
        for (one, other, same) in [
            ("x", "x:latest", true),
            ("docker.io/library/x:1", "x:1", true),
            ("docker.io/a/x:1", "a/x:1", true),
            ("x:1", "x:2", false),
            ("registry.invalid/x", "x", false),
            ("NO NAME", "NO NAME", false),
        ] {
            assert_eq!(is_same_name(one, other), same, "{one} {other}");
        }
    }
}
