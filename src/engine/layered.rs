//! An image with further layers, of which only those travel that the engine lacks.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind, Write};
use std::sync::Arc;

use bollard::errors::Error as Api;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::blobs::{Blobs, Descriptor, TAR};
use super::normal::config;
use super::{Builder, Engine, EngineError, Spec, error};
use crate::archive::{Archive, EPOCH, hexadecimal, rfc3339};
use crate::reference::ImageId;
use crate::ustar::{self, Ids};

/// What writes the tar stream of a layer.
pub type Content = dyn Fn(&mut dyn Write) -> io::Result<()> + Send + Sync;

/// A layer that is put on an image.
#[derive(Clone)]
pub struct Put {
    /// SHA-256 over its tar stream, with `sha256:` before it.
    pub diff_id: String,
    /// Its size in bytes.
    pub size: u64,
    /// What it is, for whoever asks for the history of the image.
    pub title: String,
    /// Writes the stream.
    pub content: Arc<Content>,
}

/// The types of what is in an archive, as the OCI names them.
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// The label of containers that are made to see whether an image is whole, and are not started.
const LABEL: &str = "ipybox.whole";

/// Why an image with further layers was not made.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    /// The engine refuses something.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The engine makes no image of layers that it has, for a reason.
    #[error("the engine takes no layers: {0}")]
    Untaken(String),
    /// A layer cannot be read.
    #[error(transparent)]
    Layer(io::Error),
    /// A layer is not what its digest says.
    #[error("a layer has another digest than `{0}`")]
    Digest(String),
}

impl Engine {
    /// The image `below` with layers above it and further labels, of which its history tells in a `step`. Of the layers the
    /// first that an image of `known` layers has do not travel. No name is moved. Its configuration is told, too.
    ///
    /// Rule: Docker image specification v1.2, "Combined Image JSON + Filesystem Changeset Format"; an engine finds layers by
    /// their chain and does not open the files of those it has.
    ///
    /// # Errors
    ///
    /// [`PutError`].
    pub async fn with_layers(
        &self,
        below: &ImageId,
        base: &ImageId,
        layers: &[Put],
        (labels, step): (&BTreeMap<String, String>, &str),
        known: &[String],
    ) -> Result<(ImageId, String), PutError> {
        if self.builder() == Builder::Classic {
            return Err(PutError::Untaken("podman".to_owned()));
        }
        let (of_below, of_base) = tokio::try_join!(self.told(below), self.told(base))?;
        let unknown = || PutError::Untaken("it is not known which steps made its layers".to_owned());
        let mut config = config(&of_below, &of_base, EPOCH).ok_or_else(unknown)?;
        add(&mut config, layers, labels, step);
        let id = self.of_layers(&config, below, &of_below.layers(), layers, known).await?;
        Ok((id, config.to_string()))
    }

    /// The image that has this configuration, and the layers of `below` with further ones above them. None travels that the
    /// engine has, and no name is moved.
    ///
    /// # Errors
    ///
    /// [`PutError`]; what the engine has made then is gone again.
    pub(super) async fn of_layers(
        &self,
        config: &Value,
        below: &ImageId,
        of_below: &[String],
        layers: &[Put],
        known: &[String],
    ) -> Result<ImageId, PutError> {
        let blobs = Blobs::open(&self.dialer).await.map_err(unread)?;
        let kept = match &blobs {
            Some(blobs) => blobs.layers(below, of_below).await.map_err(unread)?,
            None => None,
        };
        let blobs = blobs.filter(|_| kept.is_some());
        let thin = Thin::new(config, of_below, kept, layers);
        let id = thin.id();
        let shared = known.iter().zip(&thin.diff_ids).take_while(|(known, wanted)| known == wanted).count();
        let mut lacks: Vec<bool> = (of_below.len()..).map(|at| at >= shared).take(layers.len()).collect();
        if let Some(blobs) = &blobs {
            if let Some(lost) = lacking(blobs, &thin.layers[..of_below.len()]).await?.first() {
                let digest = &thin.layers[*lost].digest;
                return Err(PutError::Untaken(format!("it has lost `{digest}` of `{below}`")));
            }
            let lost = lacking(blobs, &thin.layers[of_below.len()..]).await?;
            lacks = (0..layers.len()).map(|at| lost.contains(&at)).collect();
        }
        if self.has(&id, &thin, blobs.as_ref()).await? {
            return Ok(id);
        }
        loop {
            let (written, puts, travels) = (thin.clone(), layers.to_vec(), lacks.clone());
            let (told, failed) = std::sync::mpsc::channel();
            let loaded = self.load(move |out| {
                let written = written.write(out, &puts, &travels);
                written.inspect_err(|error| drop(told.send(io::Error::new(error.kind(), error.to_string()))))
            });
            let loaded = loaded.await?;
            if self.has(&id, &thin, blobs.as_ref()).await? {
                return Ok(id);
            }
            // One of which layers are missing is there all the same where manifests are kept.
            let _ = self.remove_image(&id).await;
            // A pipe breaks where the engine hears no more; why, it says itself.
            if let Some(error) = failed.try_recv().ok().filter(|error| error.kind() != ErrorKind::BrokenPipe)
            {
                return Err(PutError::Layer(error));
            }
            let refused = match loaded {
                Err(error) if error::is_of_transport(&error) => {
                    return Err(EngineError::api("load an image")(error).into());
                }
                Err(error) => EngineError::api("load an image")(error).into(),
                Ok(said) => PutError::Untaken(said.trim().to_owned()),
            };
            // Somebody may have removed what it had.
            if lacks.contains(&false) {
                lacks.fill(true);
                continue;
            }
            // Engines say so in many words, and some take it all the same.
            let puts = layers.to_vec();
            let odd = tokio::task::spawn_blocking(move || odd(&puts)).await;
            let odd = odd.unwrap_or_else(|error| Err(error.into())).map_err(PutError::Layer)?;
            return Err(odd.map_or(refused, PutError::Digest));
        }
    }

    /// Whether an image is there, with all its layers.
    async fn has(&self, id: &ImageId, thin: &Thin, blobs: Option<&Blobs>) -> Result<bool, PutError> {
        let is_told = match self.image(id.as_str()).await {
            Ok(image) => image.is_some_and(|image| image.layers == thin.diff_ids),
            // Docker 28 leaves out what it must say of every image, where blobs are missing.
            Err(EngineError::Api { source, .. }) if matches!(*source, Api::JsonDataError { .. }) => false,
            Err(error) => return Err(error.into()),
        };
        if !is_told {
            return Ok(false);
        }
        let Some(blobs) = blobs else { return Ok(true) };
        if !lacking(blobs, &thin.layers).await?.is_empty() {
            return Ok(false);
        }
        // It is unpacked now, or never.
        let spec = Spec { label: LABEL, command: Some(&["/"]), is_locked: true, ..Spec::default() };
        match Box::pin(self.with_container(id, spec, async |_| ())).await {
            Err(EngineError::Interrupted) => Err(EngineError::Interrupted.into()),
            made => Ok(made.is_ok()),
        }
    }
}

/// The digest of the first layer that has another one.
fn odd(layers: &[Put]) -> io::Result<Option<String>> {
    for layer in layers {
        let mut hash = Hash(Sha256::new());
        (layer.content)(&mut hash)?;
        if format!("sha256:{}", hexadecimal(&hash.0.finalize())) != layer.diff_id {
            return Ok(Some(layer.diff_id.clone()));
        }
    }
    Ok(None)
}

struct Hash(Sha256);

impl Write for Hash {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The places of the blobs that are not there.
async fn lacking(blobs: &Blobs, layers: &[Descriptor]) -> Result<Vec<usize>, PutError> {
    let ask = async |(at, layer): (usize, &Descriptor)| {
        blobs.has(layer).await.map(|has| (!has).then_some(at)).map_err(unread)
    };
    let asked = futures_util::future::try_join_all(layers.iter().enumerate().map(ask)).await?;
    Ok(asked.into_iter().flatten().collect())
}

fn unread(err: io::Error) -> PutError {
    EngineError::api("read what the engine keeps")(Api::IOError { err }).into()
}

/// Adds layers and labels to a configuration.
fn add(config: &mut Value, layers: &[Put], labels: &BTreeMap<String, String>, step: &str) {
    let time = rfc3339(EPOCH);
    for layer in layers {
        if let Some(history) = config["history"].as_array_mut() {
            history.push(json!({ "created": time, "created_by": layer.title }));
        }
        if let Some(diff_ids) = config["rootfs"]["diff_ids"].as_array_mut() {
            diff_ids.push(layer.diff_id.clone().into());
        }
    }
    if let Some(history) = config["history"].as_array_mut() {
        history.push(json!({ "created": time, "created_by": step, "empty_layer": true }));
    }
    for (name, value) in labels {
        config["config"]["Labels"][name.as_str()] = value.clone().into();
    }
}

/// An image as it is loaded, of which most layers are named and absent.
///
/// Rule: OCI image specification, "Image Layout Specification", beside the `manifest.json` of Docker's: engines that keep
/// manifests read the one, and find blobs by their digests; the others read the other, and find layers by their chain.
#[derive(Clone)]
struct Thin {
    config: String,
    /// Where the engine keeps such.
    manifest: Option<String>,
    diff_ids: Vec<String>,
    layers: Vec<Descriptor>,
}

impl Thin {
    /// `kept` are the layers below as the engine keeps them.
    fn new(config: &Value, below: &[String], kept: Option<Vec<Descriptor>>, layers: &[Put]) -> Self {
        let config = config.to_string();
        let keeps_manifests = kept.is_some();
        let blob =
            |digest: &str, size| Descriptor { media_type: TAR.to_owned(), digest: digest.to_owned(), size };
        let named = || below.iter().map(|diff_id| blob(diff_id, 0)).collect();
        let above = layers.iter().map(|layer| blob(&layer.diff_id, layer.size));
        let all: Vec<Descriptor> = kept.unwrap_or_else(named).into_iter().chain(above).collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": { "mediaType": CONFIG, "digest": digest(&config), "size": config.len() },
            "layers": all,
        });
        Self {
            config,
            manifest: keeps_manifests.then(|| manifest.to_string()),
            diff_ids: below.iter().cloned().chain(layers.iter().map(|layer| layer.diff_id.clone())).collect(),
            layers: all,
        }
    }

    /// What the engine will call it.
    fn id(&self) -> ImageId {
        ImageId::try_from(digest(self.manifest.as_ref().unwrap_or(&self.config))).expect("a digest is an id")
    }

    /// Writes it with those of the layers above that travel.
    fn write(&self, mut out: &mut dyn Write, layers: &[Put], travels: &[bool]) -> io::Result<()> {
        let root = Ids { uid: 0, gid: 0 };
        let mut written = BTreeSet::new();
        for (layer, _) in layers.iter().zip(travels).filter(|(_, travels)| **travels) {
            if written.insert(&layer.diff_id) {
                let path = blob(&layer.diff_id);
                ustar::written_file(&mut out, &path, 0o644, root, EPOCH, layer.size, |out| {
                    (layer.content)(out)
                })?;
            }
        }
        let paths: Vec<String> = self.layers.iter().map(|layer| blob(&layer.digest)).collect();
        let docker = json!([{ "Config": blob(&digest(&self.config)), "RepoTags": null, "Layers": paths }]);
        let mut rest = Archive::default();
        rest.add(&blob(&digest(&self.config)), self.config.as_str());
        rest.add("manifest.json", docker.to_string());
        if let Some(manifest) = &self.manifest {
            let entry = json!({ "mediaType": MANIFEST, "digest": digest(manifest), "size": manifest.len() });
            rest.add(&blob(&digest(manifest)), manifest.as_str());
            rest.add("index.json", json!({ "schemaVersion": 2, "manifests": [entry] }).to_string());
            rest.add("oci-layout", json!({ "imageLayoutVersion": "1.0.0" }).to_string());
        }
        rest.write_to(out)
    }
}

fn digest(text: &str) -> String {
    format!("sha256:{}", hexadecimal(&Sha256::digest(text)))
}

/// Where a blob lies in the archive.
fn blob(digest: &str) -> String {
    format!("blobs/{}", digest.replacen(':', "/", 1))
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn id(digit: u8) -> String {
        format!("sha256:{}", hexadecimal(&[digit; 32]))
    }

    fn put(digit: u8, content: &'static [u8]) -> Put {
        Put {
            diff_id: id(digit),
            size: content.len() as u64,
            title: "a layer".to_owned(),
            content: Arc::new(|out| out.write_all(content)),
        }
    }

    /// The files of what is written, by their paths.
    fn files(thin: &Thin, layers: &[Put], travels: &[bool]) -> BTreeMap<String, Vec<u8>> {
        let mut bytes = Vec::new();
        thin.write(&mut bytes, layers, travels).unwrap();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let read = archive.entries().unwrap().map(|entry| {
            let (mut entry, mut content) = (entry.unwrap(), Vec::new());
            entry.read_to_end(&mut content).unwrap();
            (entry.path().unwrap().display().to_string(), content)
        });
        read.filter(|(path, _)| !path.ends_with('/')).collect()
    }

    fn parsed(bytes: &[u8]) -> Value {
        serde_json::from_slice(bytes).unwrap()
    }

    #[test]
    fn where_manifests_are_kept_one_names_the_blobs_below_as_they_are_kept() {
        let kept = Descriptor { media_type: format!("{TAR}+gzip"), digest: id(7), size: 70 };
        let layers = [put(2, b"two"), put(3, b"three"), put(2, b"two")];
        let config = json!({ "rootfs": { "diff_ids": [id(1), id(2), id(3), id(2)] } });
        let thin = Thin::new(&config, &[id(1)], Some(vec![kept.clone()]), &layers);
        let files = files(&thin, &layers, &[true, false, true]);
        let names: Vec<&str> = files.keys().map(String::as_str).collect();
        let mut expected = [blob(&id(2)), blob(&digest(&thin.config)), blob(thin.id().as_str())];
        expected.sort();
        assert_eq!(names[..3], expected);
        assert_eq!(names[3..], ["index.json", "manifest.json", "oci-layout"]);
        assert_eq!(files[&blob(&id(2))], b"two");

        let index = parsed(&files["index.json"]);
        assert_eq!(index["manifests"][0]["digest"], thin.id().as_str());
        assert!(index["manifests"][0]["annotations"].is_null(), "no name moves");
        let manifest = &files[&blob(thin.id().as_str())];
        assert_eq!(index["manifests"][0]["size"], manifest.len());
        let manifest = parsed(manifest);
        assert_eq!(manifest["config"]["digest"], digest(&thin.config));
        assert_eq!(manifest["layers"][0], json!(kept));
        assert_eq!(manifest["layers"][2], json!({ "mediaType": TAR, "digest": id(3), "size": 5 }));
        let docker = parsed(&files["manifest.json"]);
        assert_eq!(docker[0]["Layers"], json!([blob(&id(7)), blob(&id(2)), blob(&id(3)), blob(&id(2))]));
        assert_eq!(docker[0]["RepoTags"], Value::Null);
    }

    #[test]
    fn where_none_are_kept_layers_are_found_by_their_configuration() {
        let layers = [put(2, b"two")];
        let thin = Thin::new(&json!({}), &[id(1)], None, &layers);
        assert_eq!(thin.id().as_str(), digest("{}"));
        let written = files(&thin, &layers, &[true]);
        let mut expected = vec![blob(&id(2)), blob(&digest("{}")), "manifest.json".to_owned()];
        expected.sort();
        assert_eq!(written.keys().cloned().collect::<Vec<_>>(), expected);
        let docker = parsed(&written["manifest.json"]);
        assert_eq!(docker[0]["Layers"], json!([blob(&id(1)), blob(&id(2))]));
        // A layer that is not as long as it was said ends the archive.
        let short = [Put { size: 4, ..put(2, b"two") }];
        assert!(thin.write(&mut Vec::new(), &short, &[true]).is_err());
    }
}
