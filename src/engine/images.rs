//! Images: what they say of themselves, fetching them and naming them.

use std::collections::BTreeMap;
use std::time::Duration;

use bollard::query_parameters::{CreateImageOptionsBuilder, TagImageOptionsBuilder};
use futures_util::{Stream, StreamExt, TryStreamExt};

use super::build::session::chunks;
use super::{Engine, EngineError, credentials, error};
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
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its health check, as Docker has it: `CMD` or `CMD-SHELL` and a command.
    pub health: Vec<String>,
    /// Instructions that run when something is built on it.
    pub on_build: Vec<String>,
}

/// Longest wait where the engine answers only after it has read or fetched everything.
const PATIENCE: Duration = Duration::from_secs(6 * 3600);

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
        Ok(Some(Image {
            id: image_id(inspected.id)?,
            os: inspected.os.unwrap_or_default(),
            architecture: inspected.architecture.unwrap_or_default(),
            user: config.user.unwrap_or_default(),
            env: config.env.unwrap_or_default(),
            entrypoint: config.entrypoint.unwrap_or_default(),
            cmd: config.cmd.unwrap_or_default(),
            shell: config.shell.unwrap_or_default(),
            labels: config.labels.unwrap_or_default().into_iter().collect(),
            health: config.healthcheck.and_then(|health| health.test).unwrap_or_default(),
            on_build: config.on_build.unwrap_or_default(),
        }))
    }

    /// The commands that made an image's layers.
    ///
    /// # Errors
    ///
    /// [`EngineError`].
    pub async fn history(&self, image: &ImageId) -> Result<Vec<String>, EngineError> {
        let history = self.docker.image_history(image.as_str()).await;
        let history = history.map_err(EngineError::api("ask for the history of an image"))?;
        Ok(history.into_iter().map(|step| step.created_by).collect())
    }

    /// Fetches an image from its registry, with the credentials of Docker's own client.
    ///
    /// # Errors
    ///
    /// [`EngineError::Pull`], and others.
    pub async fn pull(&self, reference: &Reference) -> Result<(), EngineError> {
        let version = reference.digest().or(reference.tag()).unwrap_or("latest");
        let options =
            CreateImageOptionsBuilder::default().from_image(reference.repository()).tag(version).build();
        let (credentials, helper) = match credentials::of_registry(reference.registry()).await {
            Ok(credentials) => (credentials, None),
            Err(why) => (None, Some(why)),
        };
        let docker = self.docker.clone().with_timeout(PATIENCE);
        let mut whole = false;
        let pulled = docker.create_image(Some(options), None, credentials).try_for_each(|message| {
            // Only the last message says what has become of it.
            whole |= message.status.is_some_and(|status| status.starts_with("Status: "));
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

    /// Makes an image with these files and nothing else.
    ///
    /// # Errors
    ///
    /// [`EngineError`], also where it is not there afterwards.
    pub async fn import(&self, files: Archive, reference: &Reference) -> Result<(), EngineError> {
        let body = chunks(files).map_ok(bytes::Bytes::from);
        let options = CreateImageOptionsBuilder::default()
            .from_src("-")
            .repo(reference.repository())
            .tag(reference.tag().unwrap_or("latest"))
            .build();
        let docker = self.docker.clone().with_timeout(PATIENCE);
        let imported = docker.create_image(Some(options), Some(bollard::body_try_stream(body)), None);
        self.unless_interrupted(to_its_end(imported)).await?.map_err(EngineError::api("import an image"))?;
        match self.image(&reference.to_string()).await? {
            Some(_) => Ok(()),
            None => Err(EngineError::cut("import an image")),
        }
    }
}

/// Reads an answer whose messages do not matter. What it should have done is asked for afterwards.
async fn to_its_end<T>(
    answer: impl Stream<Item = Result<T, bollard::errors::Error>>,
) -> Result<(), bollard::errors::Error> {
    let mut answer = std::pin::pin!(answer);
    while let Some(message) = answer.next().await {
        match message {
            Err(error) if error::is_of_last_line_break(&error) => return Ok(()),
            Err(error) => return Err(error),
            Ok(_) => {}
        }
    }
    Ok(())
}

pub(super) fn image_id(id: Option<String>) -> Result<ImageId, EngineError> {
    ImageId::try_from(id.unwrap_or_default()).map_err(|_| EngineError::NoImage)
}
