//! Images to push, and those who push them.

use std::fs;
use std::io::Write;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use ipybox::registry::{Blob, Manifest, OCI_MANIFEST, Patience, Registry as Client, RegistryError, Summary};
use sha2::{Digest, Sha256};

use super::{Fate, Registry, Request, run};

pub const REPOSITORY: &str = "team/app";
pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// An image of layers with random files of these sizes in bytes.
pub struct Image {
    pub blobs: Vec<Blob>,
    pub manifest: Manifest,
}

pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hexadecimal(&Sha256::digest(bytes)))
}

pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |digits, byte| digits + &format!("{byte:02x}"))
}

impl Image {
    pub fn of(sizes: &[usize]) -> Self {
        let mut blobs = Vec::new();
        let mut diff_ids = Vec::new();
        for (number, &size) in sizes.iter().enumerate() {
            let mut header = tar::Header::new_gnu();
            header.set_size(size as u64);
            header.set_mode(0o644);
            header.set_cksum();
            let mut tar = tar::Builder::new(Vec::new());
            let mut content = vec![0; size];
            rand::fill(content.as_mut_slice());
            tar.append_data(&mut header, format!("file{number}"), content.as_slice()).unwrap();
            let tar = tar.into_inner().unwrap();
            diff_ids.push(digest(&tar));
            let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
            packed.write_all(&tar).unwrap();
            blobs.push(Blob::of(LAYER, packed.finish().unwrap()));
        }
        let config = serde_json::json!({
            "architecture": "amd64", "os": "linux", "config": {"Labels": {"ipybox.test": "registry"}},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        blobs.push(Blob::of("application/vnd.oci.image.config.v1+json", config.to_string().into_bytes()));
        let named: Vec<_> = blobs
            .iter()
            .map(|blob| {
                serde_json::json!({"mediaType": blob.media_type, "digest": blob.digest, "size": blob.size})
            })
            .collect();
        let (config, layers) = named.split_last().unwrap();
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers,
        });
        Self { blobs, manifest: Manifest::new(OCI_MANIFEST, manifest.to_string()) }
    }

    pub async fn push(&self, client: &Client, tags: &[&str]) -> Result<Summary, RegistryError> {
        self.push_to(client, REPOSITORY, tags).await
    }

    pub async fn push_to(
        &self,
        client: &Client,
        repository: &str,
        tags: &[&str],
    ) -> Result<Summary, RegistryError> {
        client.repository(repository)?.push(&self.whole(), tags, |_| ()).await
    }

    /// As it is pushed.
    pub fn whole(&self) -> ipybox::registry::Image {
        ipybox::registry::Image { manifest: self.manifest.clone(), blobs: self.blobs.clone() }
    }

    /// The same with these layers, too.
    pub fn with(mut self, layers: &[Blob]) -> Self {
        let mut manifest: serde_json::Value = serde_json::from_slice(self.manifest.bytes()).unwrap();
        for blob in layers {
            let named = serde_json::json!({"mediaType": LAYER, "digest": blob.digest, "size": blob.size});
            manifest["layers"].as_array_mut().unwrap().push(named);
            self.blobs.push(blob.clone());
        }
        self.manifest = Manifest::new(OCI_MANIFEST, manifest.to_string());
        self
    }

    /// The same with a place that its blobs may be mounted from.
    pub fn from(mut self, repository: &str) -> Self {
        for blob in &mut self.blobs {
            blob.mount_from = Some(repository.to_owned());
        }
        self
    }

    /// Asserts that others find all of it, whatever happened.
    pub fn is_at(&self, registry: &Registry, tag: &str) {
        let folder = tempfile::tempdir().unwrap();
        let source = format!("docker://{}/{REPOSITORY}:{tag}", registry.address);
        let target = format!("dir:{}", folder.path().join("copy").display());
        run(Command::new("skopeo").args(["copy", "--quiet", "--src-tls-verify=false", &source, &target]));
        let manifest = fs::read(folder.path().join("copy/manifest.json")).unwrap();
        assert_eq!(digest(&manifest), self.manifest.digest());
        for blob in &self.blobs {
            let file = folder.path().join("copy").join(&blob.digest["sha256:".len()..]);
            assert_eq!(fs::metadata(file).unwrap().len(), blob.size);
        }
    }
}

pub fn client(address: &str) -> Client {
    Client::new(address, None, None).unwrap().patient(hasty())
}

pub fn hasty() -> Patience {
    Patience {
        silence: Duration::from_millis(700),
        closing: Duration::from_secs(5),
        pause: Duration::from_millis(20),
        longest: Duration::from_millis(1500),
        total: Duration::from_secs(8),
    }
}

/// A fate for the first so many requests that it is for; all others are forwarded.
pub fn first(
    times: usize,
    of: impl Fn(&Request) -> bool + Send + Sync + 'static,
    fate: impl Fn() -> Fate + Send + Sync + 'static,
) -> impl Fn(&Request) -> Fate + Send + Sync + 'static {
    let done = AtomicUsize::new(0);
    move |request| {
        if of(request) && done.fetch_add(1, Ordering::Relaxed) < times { fate() } else { Fate::Forward }
    }
}
