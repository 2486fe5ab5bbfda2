//! Files in and out of a container that lasts.

use std::io::Write;

use bollard::errors::Error as Api;
use bollard::query_parameters::{DownloadFromContainerOptionsBuilder, UploadToContainerOptionsBuilder};
use futures_util::{StreamExt, TryStreamExt};

use super::{Engine, EngineError, error};
use crate::archive::Archive;
use crate::engine::build::session::chunks;

impl Engine {
    /// Puts files into a folder of a container. False where there is no such folder, or no container.
    ///
    /// # Errors
    ///
    /// [`EngineError`].
    pub async fn put(&self, container: &str, folder: &str, files: Archive) -> Result<bool, EngineError> {
        let body = chunks(files, &self.dialer.host).map_ok(bytes::Bytes::from);
        let options = UploadToContainerOptionsBuilder::default().path(folder).build();
        let put = self.docker.upload_to_container(container, Some(options), bollard::body_try_stream(body));
        match put.await {
            Ok(()) => Ok(true),
            Err(error) if error::status(&error) == Some(404) => Ok(false),
            Err(error) if error.to_string().contains("not a directory") => Ok(false),
            Err(error) => Err(EngineError::api("put files into a container")(error)),
        }
    }

    /// Writes a file or folder of a container as a tar archive; false where there is none.
    ///
    /// # Errors
    ///
    /// [`EngineError`], also where nothing can be written.
    pub async fn get(&self, container: &str, path: &str, mut to: impl Write) -> Result<bool, EngineError> {
        let options = DownloadFromContainerOptionsBuilder::default().path(path).build();
        let mut chunks = self.docker.download_from_container(container, Some(options));
        while let Some(chunk) = chunks.next().await {
            let chunk = match chunk {
                Ok(chunk) => chunk,
                Err(error) if error::status(&error) == Some(404) => return Ok(false),
                Err(error) => return Err(EngineError::api("read a file of a container")(error)),
            };
            to.write_all(&chunk)
                .map_err(|err| EngineError::api("keep a file of a container")(Api::IOError { err }))?;
        }
        Ok(true)
    }
}
