//! A connection to one container engine; the only room that imports bollard, whose types stop at
//! this door.

mod blobs;
mod build;
mod choice;
mod container;
mod credentials;
mod door;
mod error;
mod host;
mod images;
mod info;
mod known;
mod lasting;
mod layered;
mod normal;
mod transport;

use std::future::Future;

use bollard::Docker;
use tokio_util::sync::CancellationToken;

use crate::credentials::AuthFiles;

pub use build::{Build, BuildEvent};
pub use choice::{Candidate, Choice, ChoiceError};
pub use container::{Container, Exec, Spec};
pub use door::Door;
pub use error::{EngineError, PullCause};
pub use host::Host;
pub use images::{Image, Layer, LayerEvent, ListedImage};
pub use info::Info;
pub use known::KnownEngines;
pub use lasting::{Container as LastingContainer, Folder, Inspected, Lasting, PATH, Piece, Run, Running};
pub use layered::{Content, Put, PutError};
use transport::Dialer;
pub use transport::Stream;

/// Most that is read of what a program prints, or of a file in an image, in bytes.
const MAX_ANSWER: usize = 4 << 20;

/// What builds images in an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Builder {
    /// Docker's, which asks for context and secrets.
    BuildKit,
    /// The one of the API before BuildKit, which podman answers; it has no secrets.
    Classic,
}

/// A connection to one engine. What runs in it ends when its token is cancelled.
#[derive(Debug, Clone)]
pub struct Engine {
    docker: Docker,
    dialer: Dialer,
    builder: Builder,
    /// Where credentials for registries are.
    auth: AuthFiles,
    interrupt: CancellationToken,
}

impl Engine {
    /// Connects to the first of the candidates that answers. One that is `known` is only reached, and asked nothing.
    ///
    /// # Errors
    ///
    /// [`EngineError::Connect`] or [`EngineError::NoEngine`] where nobody listens or listens to us.
    pub async fn connect(
        candidates: Vec<Candidate>,
        auth: AuthFiles,
        known: &KnownEngines,
        interrupt: CancellationToken,
    ) -> Result<Self, EngineError> {
        let mut tried = Vec::new();
        for candidate in candidates {
            let host = &candidate.host;
            let opened = async {
                let dialer = Dialer::new(host.clone())
                    .map_err(|source| EngineError::Connect { host: host.clone().into(), source })?;
                let is_known = known.builder(host);
                let (docker, builder) = transport::client(&dialer, is_known).await?;
                if is_known.is_none() {
                    known.keep(host, builder);
                }
                Ok(((docker, builder), dialer))
            };
            let opened = interrupt.run_until_cancelled(opened).await.ok_or(EngineError::Interrupted)?;
            match opened {
                Ok(((docker, builder), dialer)) => {
                    return Ok(Self { docker, dialer, builder, auth, interrupt });
                }
                Err(EngineError::Connect { source, .. }) => tried.push((candidate, source)),
                Err(error) => return Err(error),
            }
        }
        Err(match (tried.len(), tried.pop()) {
            (1, Some((Candidate { host, .. }, source))) => EngineError::Connect { host: host.into(), source },
            (_, last) => EngineError::NoEngine { tried: tried.into_iter().chain(last).collect() },
        })
    }

    /// What builds images there.
    #[must_use]
    pub fn builder(&self) -> Builder {
        self.builder
    }

    /// Whether it is on this host, so that what it publishes is reached from here.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.dialer.host.is_local()
    }

    /// Its socket, where it has one on this host.
    #[must_use]
    pub fn socket(&self) -> Option<&std::path::Path> {
        self.dialer.host.socket()
    }

    /// What is cancelled when the caller gives up.
    #[must_use]
    pub fn interrupt(&self) -> &CancellationToken {
        &self.interrupt
    }

    /// Does `work` unless the caller gives up meanwhile.
    ///
    /// # Errors
    ///
    /// [`EngineError::Interrupted`].
    pub async fn unless_interrupted<T>(&self, work: impl Future<Output = T>) -> Result<T, EngineError> {
        self.interrupt.run_until_cancelled(work).await.ok_or(EngineError::Interrupted)
    }
}
