//! Images: what they say of themselves, fetching them and naming them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::time::Duration;

use bollard::models::{CreateImageInfo, HealthConfig, ImageConfig, ImageHistoryResponseItem, ImageSummary};
use bollard::query_parameters::{
    CreateImageOptionsBuilder, ListImagesOptions, RemoveImageOptions, TagImageOptionsBuilder,
};
use futures_util::{Stream, StreamExt, TryStreamExt};
use serde::Deserialize;
use serde_json::Value;

use super::build::session::chunks;
use super::{Builder, Engine, EngineError, credentials, error, transport};
use crate::archive::Archive;
use crate::reference::{ImageId, Reference};

/// A local image, and what its configuration says.
///
/// Rule: OCI image specification, "Image Configuration"; shell, health check and `ONBUILD` are Docker's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Its id.
    pub id: ImageId,
    /// Such as `linux`.
    pub os: String,
    /// Such as `amd64`.
    pub architecture: String,
    /// Who its processes run as; empty is root.
    pub user: String,
    /// Its environment, as `NAME=VALUE`.
    pub env: Vec<String>,
    /// Its entry point.
    pub entrypoint: Vec<String>,
    /// Its command.
    pub cmd: Vec<String>,
    /// What shell forms run in, where it says so.
    pub shell: Vec<String>,
    /// Where its commands begin.
    pub workdir: String,
    /// TCP ports that its servers listen on, as far as it says so.
    pub ports: BTreeSet<u16>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its health check, as Docker has it: `CMD` or `CMD-SHELL` and a command.
    pub health: Vec<String>,
    /// Instructions that run when something is built on it.
    pub on_build: Vec<String>,
    /// When it was made, as RFC 3339 has it, to the second.
    pub created: Option<String>,
    /// All that its configuration says but for labels, by Docker's names.
    pub settings: BTreeMap<String, Value>,
    /// Its size, in bytes.
    pub bytes: u64,
    /// The digests of its layers, uncompressed, the lowest first.
    pub layers: Vec<String>,
}

/// An image as lists tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedImage {
    /// Its id.
    pub id: ImageId,
    /// Its names.
    pub names: Vec<String>,
    /// Its names by digest, under which it was pulled or pushed.
    pub digests: Vec<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its size, in bytes.
    pub bytes: u64,
    /// When it was made, in seconds since 1970.
    pub created: i64,
}

/// An instruction that made a part of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// The instruction.
    pub command: String,
    /// How much its files take, uncompressed; 0 where it only changed the configuration.
    pub bytes: u64,
}

/// How far a layer of an image that is pulled has come, or something else that is told in the same words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerEvent {
    /// The engine's name for it.
    pub layer: String,
    /// The engine's word for what is done with it, such as `Downloading`.
    pub state: String,
    /// Bytes of it that this is done with.
    pub done: Option<u64>,
    /// All of its bytes.
    pub total: Option<u64>,
}

/// What a configuration says, but for labels and for what it leaves to the engine.
fn settings(config: &ImageConfig) -> BTreeMap<String, Value> {
    let is_said = |value: &Value| match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(all) => !all.is_empty(),
        Value::Object(all) => !all.is_empty(),
        _ => true,
    };
    let Ok(Value::Object(mut all)) = serde_json::to_value(config) else { return BTreeMap::new() };
    // These are sets.
    for set in ["ExposedPorts", "Volumes"] {
        if let Some(Value::Array(all)) = all.get_mut(set) {
            all.sort_by_key(Value::to_string);
        }
    }
    all.into_iter().filter(|(name, value)| name != "Labels" && is_said(value)).collect()
}

impl LayerEvent {
    /// Whether it is where it was to go.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        ["Pull complete", "Already exists", "Pushed"].contains(&self.state.as_str())
    }
}

/// Longest wait where the engine answers only after it has read or fetched everything.
pub(super) const PATIENCE: Duration = Duration::from_secs(6 * 3600);

impl Engine {
    /// A local image, by a name or an id; `None` where there is none.
    ///
    /// # Errors
    ///
    /// [`EngineError`].
    pub async fn image(&self, name: &str) -> Result<Option<Image>, EngineError> {
        let inspected = match self.docker.inspect_image(name).await {
            Ok(image) => image,
            Err(error) if error::status(&error) == Some(404) => return Ok(None),
            Err(error) => return Err(EngineError::api("inspect an image")(error)),
        };
        let config = inspected.config.unwrap_or_default();
        let settings = settings(&config);
        let health = config.healthcheck.and_then(|health| health.test);
        let health = match (self.builder, &inspected.id) {
            (Builder::Classic, Some(id)) => self.health_in_podman(id).await,
            _ => health.unwrap_or_default(),
        };
        let exposed = config.exposed_ports.iter().flatten();
        Ok(Some(Image {
            id: image_id(inspected.id)?,
            os: inspected.os.unwrap_or_default(),
            architecture: inspected.architecture.unwrap_or_default(),
            user: config.user.unwrap_or_default(),
            env: config.env.unwrap_or_default(),
            entrypoint: config.entrypoint.unwrap_or_default(),
            cmd: config.cmd.unwrap_or_default(),
            shell: config.shell.unwrap_or_default(),
            workdir: config.working_dir.unwrap_or_default(),
            ports: exposed.filter_map(|port| port.strip_suffix("/tcp")?.parse().ok()).collect(),
            labels: config.labels.unwrap_or_default().into_iter().collect(),
            health,
            on_build: config.on_build.unwrap_or_default(),
            settings,
            created: inspected.created.filter(|time| time.offset().is_utc()).map(|time| {
                let date = format!("{:04}-{:02}-{:02}", time.year(), u8::from(time.month()), time.day());
                format!("{date}T{:02}:{:02}:{:02}Z", time.hour(), time.minute(), time.second())
            }),
            bytes: inspected.size.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or_default(),
            layers: inspected.root_fs.and_then(|root| root.layers).unwrap_or_default(),
        }))
    }

    /// The health check of an image, which podman tells in its own API alone.
    async fn health_in_podman(&self, id: &str) -> Vec<String> {
        #[derive(Default, Deserialize)]
        #[serde(rename_all = "PascalCase", default)]
        struct Inspected {
            healthcheck: Option<HealthConfig>,
        }
        let answer = transport::get(&self.dialer, &format!("/v4.0.0/libpod/images/{id}/json")).await;
        let inspected: Inspected =
            answer.ok().and_then(|body| serde_json::from_slice(&body).ok()).unwrap_or_default();
        inspected.healthcheck.and_then(|health| health.test).unwrap_or_default()
    }

    /// What made an image, the newest first.
    ///
    /// # Errors
    ///
    /// [`EngineError`].
    pub async fn history(&self, image: &ImageId) -> Result<Vec<Layer>, EngineError> {
        let history = self.docker.image_history(image.as_str()).await;
        let history = history.map_err(EngineError::api("ask for the history of an image"))?;
        let layer = |step: ImageHistoryResponseItem| Layer {
            command: step.created_by,
            bytes: step.size.try_into().unwrap_or_default(),
        };
        Ok(history.into_iter().map(layer).collect())
    }

    /// Fetches an image from its registry, with the credentials of Docker's own client, for another `platform` than the
    /// engine's own where one is named. `tell` hears of its layers.
    ///
    /// # Errors
    ///
    /// [`EngineError::Pull`], and others.
    pub async fn pull(
        &self,
        reference: &Reference,
        platform: Option<&str>,
        mut tell: impl FnMut(LayerEvent),
    ) -> Result<(), EngineError> {
        let version = reference.digest().or(reference.tag()).unwrap_or("latest");
        let mut options =
            CreateImageOptionsBuilder::default().from_image(reference.repository()).tag(version);
        if let Some(platform) = platform {
            options = options.platform(platform);
        }
        let options = options.build();
        let (credentials, helper) = match credentials::of_image(&self.auth, reference).await {
            Ok(credentials) => (credentials, None),
            Err(why) => (None, Some(why)),
        };
        let docker = self.docker.clone().with_timeout(PATIENCE);
        // podman says nothing of the kind at the end, and ends its answer with an error where there is one.
        let mut whole = self.builder == Builder::Classic;
        let pulled = docker.create_image(Some(options), None, credentials).try_for_each(|message| {
            // Only the last message says what has become of it.
            whole |= message.status.as_ref().is_some_and(|status| status.starts_with("Status: "));
            tell_layer(message, &mut tell);
            std::future::ready(Ok(()))
        });
        let pulled = self.unless_interrupted(pulled).await?;
        match pulled {
            Ok(()) if whole => Ok(()),
            Err(error) if whole && error::is_of_last_line_break(&error) => Ok(()),
            Ok(()) => Err(EngineError::cut("pull an image")),
            Err(error) if error::is_of_last_line_break(&error) => Err(EngineError::cut("pull an image")),
            Err(error) => Err(EngineError::pull(reference.clone(), &error, helper)),
        }
    }

    /// Gives an image a further name. An image that had the name before loses it.
    ///
    /// # Errors
    ///
    /// [`EngineError`].
    pub async fn tag(&self, image: &ImageId, reference: &Reference) -> Result<(), EngineError> {
        let options = TagImageOptionsBuilder::default()
            .repo(reference.repository())
            .tag(reference.tag().unwrap_or("latest"))
            .build();
        let tagged = self.docker.tag_image(image.as_str(), Some(options)).await;
        tagged.map_err(|source| EngineError::Tag { reference: reference.clone(), source: Box::new(source) })
    }

    /// Writes an image with all its layers, as `docker save` does.
    ///
    /// # Errors
    ///
    /// [`EngineError`], also where it cannot be written.
    pub async fn save(&self, image: &ImageId, mut to: impl Write) -> Result<(), EngineError> {
        let failed = EngineError::api("save an image");
        let docker = self.docker.clone().with_timeout(PATIENCE);
        let mut chunks = docker.export_image(image.as_str());
        let write = async {
            while let Some(chunk) = chunks.next().await {
                to.write_all(&chunk?).map_err(|err| bollard::errors::Error::IOError { err })?;
            }
            Ok(())
        };
        self.unless_interrupted(write).await?.map_err(failed)
    }

    /// All images that have a name, or that nothing is built on.
    ///
    /// # Errors
    ///
    /// [`EngineError`].
    pub async fn images(&self) -> Result<Vec<ListedImage>, EngineError> {
        let listed = self.docker.list_images(None::<ListImagesOptions>).await;
        let listed = listed.map_err(EngineError::api("list images"))?;
        let of = |image: ImageSummary| {
            let known =
                |names: Vec<String>| names.into_iter().filter(|name| !name.contains("<none>")).collect();
            Some(ListedImage {
                id: ImageId::try_from(image.id).ok()?,
                names: known(image.repo_tags),
                digests: known(image.repo_digests),
                labels: image.labels.into_iter().collect(),
                bytes: u64::try_from(image.size).unwrap_or_default(),
                created: image.created,
            })
        };
        Ok(listed.into_iter().filter_map(of).collect())
    }

    /// Takes a name from an image, which is gone where it has no other and nothing uses it.
    ///
    /// # Errors
    ///
    /// [`EngineError`].
    pub async fn untag(&self, name: &str) -> Result<(), EngineError> {
        let removed = self.docker.remove_image(name, None::<RemoveImageOptions>, None).await;
        match removed {
            Err(error) if !matches!(error::status(&error), Some(404 | 409)) => {
                Err(EngineError::api("remove an image")(error))
            }
            _ => Ok(()),
        }
    }

    /// Removes an image, unless it has a name: the engine would take that from it.
    ///
    /// # Errors
    ///
    /// [`EngineError`].
    pub async fn remove_image(&self, image: &ImageId) -> Result<(), EngineError> {
        let inspected = self.docker.inspect_image(image.as_str()).await;
        let names = inspected.map(|image| image.repo_tags.unwrap_or_default());
        if names.is_ok_and(|names| !names.is_empty()) {
            return Ok(());
        }
        let removed = self.docker.remove_image(image.as_str(), None::<RemoveImageOptions>, None).await;
        removed.map(drop).map_err(EngineError::api("remove an image"))
    }

    /// Makes an image with these files and nothing else; to the engine it is for its own platform.
    ///
    /// # Errors
    ///
    /// [`EngineError`], also where it is not there afterwards.
    pub async fn import(&self, files: Archive, reference: &Reference) -> Result<(), EngineError> {
        let body = chunks(files, &self.dialer.host).map_ok(bytes::Bytes::from);
        // podman gives every image it imports the tag `latest`; one without a name gets ours on every engine.
        let options = CreateImageOptionsBuilder::default().from_src("-").build();
        let docker = self.docker.clone().with_timeout(PATIENCE);
        let imported = docker.create_image(Some(options), Some(bollard::body_try_stream(body)), None);
        let status = self.unless_interrupted(last_status(imported)).await??;
        let id = ImageId::try_from(status).map_err(|_| EngineError::cut("import an image"))?;
        self.tag(&id, reference).await
    }
}

/// Tells of a message of a pull, where it is about a layer.
fn tell_layer(message: CreateImageInfo, tell: &mut impl FnMut(LayerEvent)) {
    let (Some(layer), Some(state)) = (message.id, message.status) else { return };
    // The name of what is pulled comes first, with its tag as the id.
    if layer.len() != 12 || !layer.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return;
    }
    let bytes =
        |count: Option<i64>| count.and_then(|count| u64::try_from(count).ok()).filter(|count| *count > 0);
    let detail = message.progress_detail.unwrap_or_default();
    tell(LayerEvent { layer, state, done: bytes(detail.current), total: bytes(detail.total) });
}

/// Reads the answer to an import to its end, and returns what it said last.
async fn last_status(
    answer: impl Stream<Item = Result<CreateImageInfo, bollard::errors::Error>>,
) -> Result<String, EngineError> {
    let mut answer = std::pin::pin!(answer);
    let mut last = String::new();
    while let Some(message) = answer.next().await {
        match message {
            Err(error) if error::is_of_last_line_break(&error) => break,
            Err(error) => return Err(EngineError::api("import an image")(error)),
            Ok(message) => last = message.status.unwrap_or(last),
        }
    }
    Ok(last)
}

pub(super) fn image_id(id: Option<String>) -> Result<ImageId, EngineError> {
    ImageId::try_from(id.unwrap_or_default()).map_err(|_| EngineError::NoImage)
}
