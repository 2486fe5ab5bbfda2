//! An image outside of engines: its configuration, its packed layers, and what holds them together.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::blobs::Packed;
use crate::archive::hexadecimal;
use crate::reference::ImageId;

/// An image of packed layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Its configuration, as JSON.
    ///
    /// Rule: OCI image specification, "Image Configuration".
    pub config: Vec<u8>,
    /// Its layers, the lowest first.
    pub layers: Vec<Packed>,
}

/// What names a blob.
///
/// Rule: OCI image specification, "Content Descriptors".
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What kind of blob it is.
    pub media_type: &'static str,
    /// SHA-256 over it, with `sha256:` before it.
    pub digest: String,
    /// How many bytes it has.
    pub size: u64,
}

/// The kinds of blobs that an image consists of.
///
/// Rule: OCI image specification, "Media Types".
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

impl Descriptor {
    /// Of a text.
    #[must_use]
    pub fn of(media_type: &'static str, bytes: &[u8]) -> Self {
        Self { media_type, digest: digest(bytes), size: bytes.len() as u64 }
    }

    /// Of a packed layer.
    #[must_use]
    pub fn of_layer(packed: &Packed) -> Self {
        Self { media_type: LAYER, digest: packed.digest.clone(), size: packed.size }
    }
}

impl Image {
    /// Its id in engines that know images by their configuration.
    #[must_use]
    pub fn id(&self) -> ImageId {
        ImageId::try_from(digest(&self.config)).expect("a digest is an id")
    }

    /// The value of a label.
    #[must_use]
    pub fn label(&self, name: &str) -> Option<String> {
        self.labels().remove(name)
    }

    /// Its labels.
    #[must_use]
    pub fn labels(&self) -> BTreeMap<String, String> {
        labels(&self.config)
    }

    /// The descriptor of its configuration.
    #[must_use]
    pub fn config(&self) -> Descriptor {
        Descriptor::of(CONFIG, &self.config)
    }

    /// Its manifest, as JSON.
    ///
    /// Rule: OCI image specification, "Image Manifest".
    #[must_use]
    pub fn manifest(&self) -> Vec<u8> {
        self.annotated_manifest(&BTreeMap::new())
    }

    /// The same with annotations.
    #[must_use]
    pub fn annotated_manifest(&self, annotations: &BTreeMap<String, String>) -> Vec<u8> {
        let layers: Vec<Descriptor> = self.layers.iter().map(Descriptor::of_layer).collect();
        let mut manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": self.config(), "layers": layers,
        });
        if !annotations.is_empty() {
            manifest["annotations"] = json!(annotations);
        }
        manifest.to_string().into_bytes()
    }
}

/// The labels of a configuration; none, where it is none.
#[must_use]
pub fn labels(config: &[u8]) -> BTreeMap<String, String> {
    #[derive(Deserialize, Default)]
    struct Config {
        config: Inner,
    }
    #[derive(Deserialize, Default)]
    #[serde(rename_all = "PascalCase")]
    struct Inner {
        labels: Option<BTreeMap<String, String>>,
    }
    let config: Config = serde_json::from_slice(config).unwrap_or_default();
    config.config.labels.unwrap_or_default()
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hexadecimal(&Sha256::digest(bytes)))
}
