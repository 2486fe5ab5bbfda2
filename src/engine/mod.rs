//! A connection to one container engine; the only room that imports bollard, whose types stop at
//! this door.

mod build;
mod container;
mod credentials;
mod error;
mod host;
mod images;
mod transport;

use std::future::Future;

use bollard::Docker;
use tokio_util::sync::CancellationToken;

pub use build::{Build, BuildEvent};
pub use container::{Container, Exec, Spec};
pub use error::{EngineError, PullCause};
pub use host::Host;
pub use images::Image;

/// Most that is read of what a program prints, or of a file in an image, in bytes.
const MAX_ANSWER: usize = 4 << 20;

/// A connection to one engine. What runs in it ends when its token is cancelled.
#[derive(Debug, Clone)]
pub struct Engine {
    docker: Docker,
    host: Host,
    interrupt: CancellationToken,
}

impl Engine {
    /// Connects to the engine at `host`.
    ///
    /// # Errors
    ///
    /// [`EngineError`] where nobody listens or listens to us.
    pub async fn connect(host: &Host, interrupt: CancellationToken) -> Result<Self, EngineError> {
        let opened = transport::connect(host).await;
        opened.map_err(|source| EngineError::Connect { host: host.clone(), source })?;
        Ok(Self { docker: transport::client(host)?, host: host.clone(), interrupt })
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
