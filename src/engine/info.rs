//! What an engine says of itself.

use super::{Builder, Engine, EngineError, credentials};
use crate::reference::Reference;

/// What an engine says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    /// Where it listens.
    pub host: String,
    /// Its version, such as `20.10.24`.
    pub version: String,
    /// What builds images there.
    pub builder: Builder,
    /// How it stores them, such as `overlay2`.
    pub storage: String,
    /// The folder it keeps them in, on its host.
    pub folder: String,
    /// How many processors its containers have.
    pub processors: usize,
}

impl Engine {
    /// Asks it.
    ///
    /// # Errors
    ///
    /// [`EngineError`].
    pub async fn info(&self) -> Result<Info, EngineError> {
        let told = self.docker.info().await.map_err(EngineError::api("ask the engine what it is"))?;
        Ok(Info {
            host: self.dialer.host.to_string(),
            version: told.server_version.unwrap_or_default(),
            builder: self.builder,
            storage: told.driver.unwrap_or_default(),
            folder: told.docker_root_dir.unwrap_or_default(),
            processors: told.ncpu.and_then(|count| usize::try_from(count).ok()).unwrap_or_default(),
        })
    }

    /// Whether the registry of an image gives it to us; nothing is fetched.
    ///
    /// # Errors
    ///
    /// [`EngineError::Pull`].
    pub async fn can_pull(&self, reference: &Reference) -> Result<(), EngineError> {
        let (credentials, helper) = match credentials::of_image(&self.auth, reference).await {
            Ok(credentials) => (credentials, None),
            Err(why) => (None, Some(why)),
        };
        let name = reference.to_string();
        let asked = self.docker.inspect_registry_image(&name, credentials);
        match self.unless_interrupted(asked).await? {
            Ok(_) => Ok(()),
            Err(error) => Err(EngineError::pull(reference.clone(), &error, helper)),
        }
    }
}
