//! Where an engine listens, as people and `DOCKER_HOST` write it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Where an engine listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    pub(super) socket: PathBuf,
}

impl Default for Host {
    fn default() -> Self {
        Self { socket: "/var/run/docker.sock".into() }
    }
}

impl FromStr for Host {
    type Err = String;

    /// Reads `unix:///path/of/the.sock`. Empty means the default socket, as in Docker's own client.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        match text.strip_prefix("unix://") {
            Some(path) if Path::new(path).is_absolute() => Ok(Self { socket: path.into() }),
            _ => Err("only unix sockets are supported yet, as `unix:///var/run/docker.sock`".into()),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unix://{}", self.socket.display())
    }
}

impl Host {
    /// Where ports that containers publish are reached.
    #[expect(clippy::unused_self, reason = "hosts differ in it as soon as there is another kind")]
    pub(super) fn published_at(&self) -> IpAddr {
        // The engine behind a socket of this host publishes on this host.
        Ipv4Addr::LOCALHOST.into()
    }
}
