//! Builds: through BuildKit, by a session of our own, or without it.

mod classic;
mod progress;
pub(super) mod session;

use std::collections::HashMap;
use std::time::Duration;

use bollard::models::BuildInfoAux;
use bollard::query_parameters::BuildImageOptionsBuilder;
use futures_util::StreamExt;

use super::images::{PATIENCE, image_id};
use super::{Builder, Engine, EngineError, error};
use crate::archive::Archive;
use crate::reference::ImageId;
pub use progress::BuildEvent;
use progress::Progress;
use session::Session;

/// One build: a context, and what its steps may use without keeping it.
pub struct Build {
    /// The files, `Dockerfile` among them.
    pub context: Archive,
    /// The name of the Dockerfile in it.
    pub dockerfile: String,
    /// Labels of the image, beside those of its Dockerfile.
    pub labels: HashMap<String, String>,
    /// Whether finished steps of earlier builds are done again.
    pub no_cache: bool,
    /// Contents of secret mounts, by their ids; only BuildKit has any.
    pub secrets: HashMap<String, Vec<u8>>,
    /// Docker's predefined build arguments, such as `HTTPS_PROXY`.
    pub build_args: HashMap<String, String>,
    /// What it is for, such as `linux/arm64`; the engine's own where nothing is said.
    pub platform: Option<String>,
    /// The network of its steps, such as `host`; the engine's default where there is none.
    pub network: Option<&'static str>,
    /// The titles of steps, by which a failed one is told: an instruction that begins with `: "TITLE"`.
    pub titles: Vec<String>,
}

impl Build {
    /// A build of these files, with nothing else.
    #[must_use]
    pub fn of(context: Archive) -> Self {
        let (secrets, build_args) = (HashMap::new(), HashMap::new());
        Self {
            context,
            dockerfile: "Dockerfile".to_owned(),
            labels: HashMap::new(),
            no_cache: false,
            secrets,
            build_args,
            platform: None,
            network: None,
            titles: Vec::new(),
        }
    }
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
    pub async fn build(&self, build: Build, report: impl FnMut(BuildEvent)) -> Result<ImageId, EngineError> {
        match self.builder {
            Builder::BuildKit => self.build_through_session(build, report).await,
            Builder::Classic => self.build_classic(build, report).await,
        }
    }

    async fn build_through_session(
        &self,
        build: Build,
        mut report: impl FnMut(BuildEvent),
    ) -> Result<ImageId, EngineError> {
        let Build { context, dockerfile, labels, no_cache, secrets, build_args, platform, network, titles } =
            build;
        let session = Session::open(&self.dialer, context, secrets, self.auth.clone()).await?;
        let options = BuildImageOptionsBuilder::default()
            .dockerfile(&dockerfile)
            .labels(&labels)
            .nocache(no_cache)
            .buildargs(&build_args)
            .networkmode(network.unwrap_or_default())
            .platform(platform.as_deref().unwrap_or_default())
            .session(session.id())
            .remote(&format!("http://buildkit-session/{}", session.id()))
            .build();
        let mut progress = Progress::new(titles);
        let mut image = None;
        let mut sent = 0;
        let read = async {
            let body = bollard::body_full(bytes::Bytes::new());
            let mut messages = self.docker.build_image(options, None, Some(body));
            while let Some(message) = messages.next().await {
                let bytes = session.sent();
                if std::mem::replace(&mut sent, bytes) != bytes {
                    report(BuildEvent::Sending { bytes });
                }
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
            (Err(error), _) => error::made_meanwhile(&error).ok_or_else(|| progress.failure(error)),
        }
    }
}
