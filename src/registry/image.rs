//! What is pushed: images, other artifacts and what they consist of.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};

use super::manifests::{Descriptor, Manifest, OCI_INDEX, OCI_MANIFEST};
use crate::platform::Platform;

/// What writes the bytes of a blob.
pub type Content = dyn Fn(&mut dyn Write) -> io::Result<()> + Send + Sync;

/// What an artifact has that is no image and needs no configuration.
///
/// Rule: OCI image specification 1.1, "Guidance for an Empty Descriptor".
const EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// A layer or a config that a manifest names.
#[derive(Clone)]
pub struct Blob {
    /// SHA-256 of its bytes, with `sha256:` before it.
    pub digest: String,
    /// In bytes.
    pub size: u64,
    /// What it is.
    pub media_type: String,
    /// Writes its bytes, the same each time. Asked only where the registry neither has it nor can mount it.
    pub content: Arc<Content>,
    /// A repository of the same registry that may have it.
    pub mount_from: Option<String>,
}

/// A manifest with the blobs that it names: an image, or another artifact.
#[derive(Clone)]
pub struct Image {
    /// What names it.
    pub manifest: Manifest,
    /// Config and layers. The same may be in it twice.
    pub blobs: Vec<Blob>,
}

/// One image of an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its manifest.
    pub manifest: Descriptor,
    /// What it runs on.
    pub platform: Platform,
}

impl Blob {
    /// One of these bytes.
    #[must_use]
    pub fn of(media_type: &str, bytes: impl Into<Bytes>) -> Self {
        let bytes: Bytes = bytes.into();
        Self {
            digest: super::manifests::digest_of(&bytes),
            size: bytes.len() as u64,
            media_type: media_type.to_owned(),
            content: Arc::new(move |to: &mut dyn Write| to.write_all(&bytes)),
            mount_from: None,
        }
    }

    /// One that the registry is known to have, whose bytes are not here: [`super::Repository::layers`] tells of such. Where the
    /// registry has lost it meanwhile, it is not pushed.
    #[must_use]
    pub fn known(blob: &Descriptor) -> Self {
        let gone =
            || io::Error::new(io::ErrorKind::NotFound, "the registry no longer has it, and it is not here");
        Self {
            digest: blob.digest.clone(),
            size: blob.size,
            media_type: blob.media_type.clone(),
            content: Arc::new(move |_: &mut dyn Write| Err(gone())),
            mount_from: None,
        }
    }

    /// What names it.
    #[must_use]
    pub fn descriptor(&self) -> Descriptor {
        Descriptor { digest: self.digest.clone(), media_type: self.media_type.clone(), size: self.size }
    }
}

impl Image {
    /// An artifact about a manifest: of such a type, with these layers.
    ///
    /// Rule: OCI image specification 1.1, "Guidelines for Artifact Usage".
    #[must_use]
    pub fn artifact(
        subject: &Descriptor,
        artifact_type: &str,
        layers: Vec<Blob>,
        annotations: &BTreeMap<String, String>,
    ) -> Self {
        let empty = Blob::of(EMPTY, "{}");
        let mut blobs = if layers.is_empty() { vec![empty.clone()] } else { layers };
        let named: Vec<Value> = blobs.iter().map(|blob| json(&blob.descriptor())).collect();
        let mut manifest = json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": artifact_type,
            "config": json(&empty.descriptor()),
            "layers": named,
            "subject": json(subject),
        });
        annotate(&mut manifest, annotations);
        blobs.push(empty);
        Self { manifest: Manifest::new(OCI_MANIFEST, manifest.to_string()), blobs }
    }

    /// An artifact of such a type by itself, each of whose layers has annotations.
    ///
    /// Rule: OCI image specification 1.1, "Guidelines for Artifact Usage".
    #[must_use]
    pub fn collection(artifact_type: &str, layers: Vec<(Blob, BTreeMap<String, String>)>) -> Self {
        let empty = Blob::of(EMPTY, "{}");
        let named = layers.iter().map(|(blob, annotations)| {
            let mut named = json(&blob.descriptor());
            annotate(&mut named, annotations);
            named
        });
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": artifact_type,
            "config": json(&empty.descriptor()),
            "layers": named.collect::<Vec<_>>(),
        });
        let blobs = layers.into_iter().map(|(blob, _)| blob).chain([empty]).collect();
        Self { manifest: Manifest::new(OCI_MANIFEST, manifest.to_string()), blobs }
    }
}

impl Manifest {
    /// An index of images for several platforms.
    ///
    /// Rule: OCI image specification, "Image Index".
    #[must_use]
    pub fn index(images: &[Entry], annotations: &BTreeMap<String, String>) -> Self {
        let entry = |Entry { manifest, platform }: &Entry| {
            let mut entry = json(manifest);
            entry["platform"] = json!(platform);
            entry
        };
        let entries: Vec<Value> = images.iter().map(entry).collect();
        let mut index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries });
        annotate(&mut index, annotations);
        Self::new(OCI_INDEX, index.to_string())
    }

    /// What is noted in it; nothing where it is none that can be read.
    ///
    /// Rule: OCI image specification, "Annotations".
    #[must_use]
    pub fn annotations(&self) -> BTreeMap<String, String> {
        #[derive(serde::Deserialize)]
        struct Noted {
            #[serde(default)]
            annotations: BTreeMap<String, String>,
        }
        serde_json::from_slice::<Noted>(self.bytes()).map(|noted| noted.annotations).unwrap_or_default()
    }
}

/// A descriptor as manifests have it.
pub(super) fn json(Descriptor { digest, media_type, size }: &Descriptor) -> Value {
    json!({ "mediaType": media_type, "digest": digest, "size": size })
}

fn annotate(described: &mut Value, annotations: &BTreeMap<String, String>) {
    if !annotations.is_empty() {
        described["annotations"] = json!(annotations);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject() -> Descriptor {
        Manifest::new(OCI_MANIFEST, "{}").descriptor()
    }

    #[test]
    fn an_artifact_names_what_it_is_about() {
        let notes = BTreeMap::from([("org.opencontainers.image.created".to_owned(), "then".to_owned())]);
        let bill = Blob::of("application/vnd.cyclonedx+json", "{\"bomFormat\": \"CycloneDX\"}");
        let artifact =
            Image::artifact(&subject(), "application/vnd.cyclonedx+json", vec![bill.clone()], &notes);
        let said: Value = serde_json::from_slice(artifact.manifest.bytes()).unwrap();
        assert_eq!(said["subject"]["digest"], subject().digest);
        assert_eq!(said["artifactType"], "application/vnd.cyclonedx+json");
        assert_eq!(said["annotations"], json!(notes));
        assert_eq!(said["layers"][0]["digest"], bill.digest);
        // As the specification writes the empty descriptor.
        assert_eq!(
            said["config"]["digest"],
            "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
        );
        assert_eq!(said["config"]["size"], 2);
        assert_eq!(artifact.blobs.len(), 2);
        // One that says all in its annotations has the empty layer.
        let alone = Image::artifact(&subject(), "application/vnd.example", Vec::new(), &notes);
        let said: Value = serde_json::from_slice(alone.manifest.bytes()).unwrap();
        assert_eq!(said["layers"][0], said["config"]);
    }

    #[test]
    fn an_index_names_its_platforms() {
        let entry = |text: &str| Entry { manifest: subject(), platform: text.parse().unwrap() };
        let index = Manifest::index(&[entry("linux/amd64"), entry("linux/arm64")], &BTreeMap::new());
        let said: Value = serde_json::from_slice(index.bytes()).unwrap();
        assert_eq!(said["manifests"][1]["platform"], json!({"os": "linux", "architecture": "arm64"}));
        assert_eq!(said["annotations"], Value::Null);
        assert_eq!(index.media_type(), OCI_INDEX);
    }
}
