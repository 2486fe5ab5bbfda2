//! A way to a server in a container, wherever the engine is.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use bollard::Docker;
use bollard::container::LogOutput;
use bollard::exec::{CreateExecOptions, StartExecOptions, StartExecResults};
use futures_util::StreamExt;
use tokio::net::TcpStream;
use tokio_util::io::StreamReader;

use super::transport::Stream;

/// Passes what comes in on to a port inside the container, and what comes back out.
const RELAY: &str = include_str!("relay.py");

/// Starts the relay with an interpreter of the image: that of its servers, or its own.
const START: &str = "for python in /opt/ipybox/server/bin/python python3 python; do \
                     if command -v $python >/dev/null; then exec $python -I -c \"$0\" \"$1\"; fi; done; \
                     echo 'the image has no Python' >&2; exit 1";

/// A way to a server in a container.
#[derive(Debug, Clone)]
pub struct Door(Way);

#[derive(Debug, Clone)]
enum Way {
    /// Its port is published on this host.
    Published(SocketAddr),
    /// Nothing of it is published: through the engine, by a program in the container.
    Inside { docker: Docker, container: String, port: u16 },
}

impl Door {
    pub(super) fn published(port: u16) -> Self {
        Self(Way::Published(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)))
    }

    pub(super) fn inside(docker: Docker, container: String, port: u16) -> Self {
        Self(Way::Inside { docker, container, port })
    }

    /// Opens a connection.
    ///
    /// # Errors
    ///
    /// Why there is none. Behind a relay, that nobody listens shows when one reads.
    pub async fn open(&self) -> io::Result<Stream> {
        match &self.0 {
            Way::Published(address) => Ok(Stream::new(TcpStream::connect(address).await?)),
            Way::Inside { docker, container, port } => {
                relay(docker, container, *port).await.map_err(io::Error::other)
            }
        }
    }
}

/// As a client's requests name it.
impl fmt::Display for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Way::Published(address) => address.fmt(f),
            Way::Inside { port, .. } => write!(f, "127.0.0.1:{port}"),
        }
    }
}

async fn relay(docker: &Docker, container: &str, port: u16) -> Result<Stream, bollard::errors::Error> {
    let options = CreateExecOptions {
        cmd: Some(vec![
            "/bin/sh".to_owned(),
            "-c".to_owned(),
            START.to_owned(),
            RELAY.to_owned(),
            port.to_string(),
        ]),
        attach_stdin: Some(true),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        ..CreateExecOptions::default()
    };
    let id = docker.create_exec(container, options).await?.id;
    let StartExecResults::Attached { output, input } =
        docker.start_exec(&id, None::<StartExecOptions>).await?
    else {
        unreachable!("it was not asked to be detached")
    };
    let bytes = output.map(|chunk| match chunk.map_err(io::Error::other)? {
        LogOutput::StdErr { message } => {
            Err(io::Error::other(String::from_utf8_lossy(&message).trim().to_owned()))
        }
        chunk => Ok(chunk.into_bytes()),
    });
    Ok(Stream::new(tokio::io::join(StreamReader::new(bytes), input)))
}
