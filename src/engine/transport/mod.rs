//! The one place where connections to an engine are opened: those of its API, and those of sessions.

mod ssh;
mod tls;
mod upgrade;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bollard::{BollardRequest, Docker};
use http_body_util::{BodyExt, Limited};
use hyper::Uri;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tower_service::Service;

use super::host::{Address, Host};
use super::{Builder, EngineError, MAX_ANSWER};
pub(super) use upgrade::{Upgrade, upgrade};

/// Longest wait for the headers of an ordinary answer, in seconds.
const TIMEOUT: u64 = 120;

/// Longest wait for the first answer of an engine; ssh may have to pass several hosts.
const PATIENCE: Duration = Duration::from_secs(10);
const PATIENCE_WITH_SSH: Duration = Duration::from_secs(30);

/// What is told of an engine that speaks TLS and ends the connection, as it does where it wants another certificate.
pub(super) const NO_WORD: &str = "it ends the connection before it says a word";

/// What is read from and written to, whatever carries it.
trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A connection to an engine, or to a server in one of its containers.
pub struct Stream(Box<dyn Duplex>);

impl Stream {
    pub(super) fn new(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        Self(Box::new(stream))
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, bytes)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl tonic::transport::server::Connected for Stream {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

/// Opens connections to one engine.
#[derive(Clone)]
pub(super) struct Dialer {
    pub(super) host: Arc<Host>,
    tls: Option<TlsConnector>,
}

impl std::fmt::Debug for Dialer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.host)
    }
}

impl Dialer {
    /// Reads what TLS needs; nothing is contacted.
    pub(super) fn new(host: Host) -> io::Result<Self> {
        let tls = host.tls.as_ref().map(tls::connector).transpose()?;
        Ok(Self { host: Arc::new(host), tls })
    }

    /// A connection of its own, for what is no HTTP after its first answer.
    pub(super) async fn connect(&self) -> io::Result<Stream> {
        match &self.host.address {
            Address::Unix(socket) => Ok(Stream::new(UnixStream::connect(socket).await?)),
            Address::Ssh(destination) => Ok(Stream::new(ssh::connect(destination)?)),
            Address::Tcp { name, port } => {
                let stream = TcpStream::connect((name.as_str(), self.host.port(*port))).await?;
                stream.set_nodelay(true)?;
                match &self.tls {
                    Some(connector) => {
                        Ok(Stream::new(connector.connect(tls::server_name(name)?, stream).await?))
                    }
                    None => Ok(Stream::new(stream)),
                }
            }
        }
    }

    /// What requests name as their host.
    fn authority(&self) -> String {
        match &self.host.address {
            Address::Tcp { name, port } if name.contains(':') => {
                format!("[{name}]:{}", self.host.port(*port))
            }
            Address::Tcp { name, port } => format!("{name}:{}", self.host.port(*port)),
            Address::Unix(_) | Address::Ssh(_) => "docker".to_owned(),
        }
    }
}

impl Service<Uri> for Dialer {
    type Response = TokioIo<Stream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<Stream>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let dialer = self.clone();
        Box::pin(async move { dialer.connect().await.map(TokioIo::new) })
    }
}

/// A client of the API, once the engine has answered, and what builds there; where that is known, it is enough that
/// somebody listens.
pub(super) async fn client(
    dialer: &Dialer,
    known: Option<Builder>,
) -> Result<(Docker, Builder), EngineError> {
    let authority = dialer.authority();
    let client = Client::builder(TokioExecutor::new()).build(dialer.clone());
    let pinged = hyper::Request::builder()
        .uri(format!("http://{authority}/_ping"))
        .body(bollard::body_full(bytes::Bytes::new()))
        .map_err(io::Error::other);
    let answered = async {
        if let Some(builder) = known {
            return dialer.connect().await.map(|_| builder);
        }
        let answer = client.request(pinged?).await.map_err(|error| root(&error))?;
        let (status, is_podman) = (answer.status(), answer.headers().contains_key("Libpod-Api-Version"));
        // Its body is two letters; read, so that the connection serves the next request.
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await.map_err(io::Error::other)?;
        if !status.is_success() {
            let said =
                String::from_utf8_lossy(&body.to_bytes()).lines().next().unwrap_or_default().to_owned();
            return Err(io::Error::other(format!("it answers {status}: {}", said.trim())));
        }
        Ok(if is_podman { Builder::Classic } else { Builder::BuildKit })
    };
    let patience = match dialer.host.address {
        Address::Ssh(_) => PATIENCE_WITH_SSH,
        Address::Unix(_) | Address::Tcp { .. } => PATIENCE,
    };
    let silent = |_| {
        let seconds = patience.as_secs();
        io::Error::new(io::ErrorKind::TimedOut, format!("it does not answer within {seconds} seconds"))
    };
    let builder = timeout(patience, answered).await.unwrap_or_else(|late| Err(silent(late)));
    let builder = builder.map_err(|source| EngineError::Connect {
        host: dialer.host.clone(),
        source: match source.kind() {
            io::ErrorKind::UnexpectedEof if dialer.tls.is_some() => io::Error::other(NO_WORD),
            _ => source,
        },
    })?;
    let transport = move |request: BollardRequest| {
        let client = client.clone();
        async move { client.request(request).await.map_err(bollard::errors::Error::from) }
    };
    let address = Some(format!("http://{authority}"));
    let docker =
        Docker::connect_with_custom_transport(transport, address, TIMEOUT, bollard::API_DEFAULT_VERSION);
    Ok((docker.map_err(EngineError::api("connect"))?.with_request_modifier(repair), builder))
}

/// The body of an answer to what bollard does not know to ask, of at most [`MAX_ANSWER`] bytes.
pub(super) async fn get(dialer: &Dialer, path: &str) -> io::Result<bytes::Bytes> {
    let stream = TokioIo::new(dialer.connect().await?);
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(stream).await.map_err(io::Error::other)?;
    let connection = tokio::spawn(connection);
    let request = hyper::Request::builder().uri(path).header("Host", dialer.authority());
    let request = request.body(bollard::body_full(bytes::Bytes::new())).map_err(io::Error::other)?;
    let body = timeout(PATIENCE, async {
        let answer = sender.send_request(request).await.map_err(io::Error::other)?;
        Limited::new(answer.into_body(), MAX_ANSWER).collect().await.map_err(io::Error::other)
    });
    let body = body.await;
    connection.abort();
    Ok(body??.to_bytes())
}

/// What an error comes from: the first of input and output among its causes, or the last of all.
fn root(error: &(dyn std::error::Error + 'static)) -> io::Error {
    let mut cause = error;
    loop {
        if let Some(found) = cause.downcast_ref::<io::Error>() {
            return io::Error::new(found.kind(), found.to_string());
        }
        match cause.source() {
            Some(source) => cause = source,
            None => return io::Error::other(cause.to_string()),
        }
    }
}

/// Mends what bollard writes on the wire: builds are always BuildKit's, through a session of our
/// own, though bollard is asked for a classic one so that it opens no second session; and Docker
/// decodes credentials as URL-safe base64.
fn repair(mut request: BollardRequest) -> BollardRequest {
    if request.uri().path().ends_with("/build") {
        let uri = request.uri().to_string().replace("version=1", "version=2");
        *request.uri_mut() = uri.parse().expect("a digit for a digit");
    }
    for name in ["x-registry-auth", "x-registry-config"] {
        if let Some(header) = request.headers_mut().get_mut(name)
            && let Ok(text) = header.to_str()
            && let Ok(safe) = text.replace('+', "-").replace('/', "_").parse()
        {
            *header = safe;
        }
    }
    request
}
