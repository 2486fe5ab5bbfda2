//! Builds through BuildKit, by a session of our own.

mod progress;
pub(super) mod session;

use std::collections::HashMap;
use std::time::Duration;

use bollard::models::BuildInfoAux;
use bollard::query_parameters::BuildImageOptionsBuilder;
use futures_util::StreamExt;

use super::images::image_id;
use super::{Engine, EngineError, error};
use crate::archive::Archive;
use crate::reference::ImageId;
pub use progress::BuildEvent;
use progress::Progress;
use session::Session;

/// One build: a context, and what its steps may use without keeping it.
pub struct Build {
    /// The files, `Dockerfile` among them.
    pub context: Archive,
    /// Whether finished steps of earlier builds are done again.
    pub no_cache: bool,
    /// Contents of secret mounts, by their ids.
    pub secrets: HashMap<String, Vec<u8>>,
    /// Docker's predefined build arguments, such as `HTTPS_PROXY`.
    pub build_args: HashMap<String, String>,
    /// The titles of steps, by which a failed one is told: an instruction that begins with `: "TITLE"`.
    pub titles: Vec<String>,
}

/// How long the engine gets to notice that a build was given up.
const FAREWELL: Duration = Duration::from_millis(300);

impl Engine {
    /// Builds an image and returns its id. Nothing is tagged.
    ///
    /// # Errors
    ///
    /// [`EngineError::Step`] where a step of the Dockerfile fails, and others. Whatever the error,
    /// the build is over in the engine.
    pub async fn build(
        &self,
        build: Build,
        mut report: impl FnMut(BuildEvent),
    ) -> Result<ImageId, EngineError> {
        let Build { context, no_cache, secrets, build_args, titles } = build;
        let session = Session::open(&self.host, context, secrets).await?;
        let options = BuildImageOptionsBuilder::default()
            .dockerfile("Dockerfile")
            .nocache(no_cache)
            .buildargs(&build_args)
            .session(session.id())
            .remote(&format!("http://buildkit-session/{}", session.id()))
            .build();
        let mut progress = Progress::new(titles);
        let mut image = None;
        let read = async {
            let body = bollard::body_full(bytes::Bytes::new());
            let mut messages = self.docker.build_image(options, None, Some(body));
            while let Some(message) = messages.next().await {
                match message?.aux {
                    Some(BuildInfoAux::BuildKit(status)) => progress.update(status, &mut report),
                    Some(BuildInfoAux::Default(id)) => image = id.id,
                    None => {}
                }
            }
            Ok(())
        };
        let Ok(built) = self.unless_interrupted(read).await else {
            tokio::time::sleep(FAREWELL).await;
            return Err(EngineError::Interrupted);
        };
        report(BuildEvent::Sent { bytes: session.sent() });
        if let Some(error) = session.failure() {
            return Err(EngineError::Context(error));
        }
        let built = match built {
            Err(error) if image.is_some() && error::is_of_last_line_break(&error) => Ok(()),
            built => built,
        };
        match (built, image) {
            (Ok(()), image @ Some(_)) => image_id(image),
            (Ok(()), None) => Err(EngineError::NoImage),
            (Err(error), _) => Err(progress.failure(error)),
        }
    }
}
