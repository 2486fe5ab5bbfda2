//! The session through which BuildKit asks for the context, for secrets and for credentials.
//!
//! The connection is opened by us and upgraded; from then on the engine is the client, and we
//! serve gRPC on it. Source: moby, `POST /session`; BuildKit, `session`.

use std::collections::HashMap;
use std::io::{self, BufWriter, Write};
use std::iter;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bollard::health::health_check_response::ServingStatus;
use bollard::health::health_server::{Health, HealthServer};
use bollard::health::{HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse};
use bollard::moby::buildkit::secrets::v1::secrets_server::{Secrets, SecretsServer};
use bollard::moby::buildkit::secrets::v1::{GetSecretRequest, GetSecretResponse};
use bollard::moby::filesync::v1::auth_server::{Auth, AuthServer};
use bollard::moby::filesync::v1::{
    CredentialsRequest, CredentialsResponse, FetchTokenRequest, FetchTokenResponse, GetTokenAuthorityRequest,
    GetTokenAuthorityResponse, VerifyTokenAuthorityRequest, VerifyTokenAuthorityResponse,
};
use bollard::moby::upload::v1::BytesMessage;
use bollard::moby::upload::v1::upload_server::{Upload, UploadServer};
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, stream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::archive::Archive;
use crate::credentials::{AuthFiles, DockerCredential};
use crate::engine::transport::{Dialer, Upgrade, upgrade};
use crate::engine::{EngineError, Host};

/// What we serve; the engine calls nothing else.
const METHODS: [&str; 3] = [
    "/moby.upload.v1.Upload/Pull",
    "/moby.buildkit.secrets.v1.Secrets/GetSecret",
    "/moby.filesync.v1.Auth/Credentials",
];

/// Size of one chunk of the context, in bytes.
const CHUNK: usize = 256 << 10;

/// Chunks that are read ahead of the engine.
const IN_FLIGHT: usize = 8;

/// Longest wait for the engine to accept the session.
const HANDSHAKE: Duration = Duration::from_secs(30);

/// An open session; closed when dropped.
pub(super) struct Session {
    id: String,
    server: tokio::task::JoinHandle<()>,
    outcome: Arc<Outcome>,
}

/// How far the context has got.
#[derive(Default)]
struct Outcome {
    sent: AtomicU64,
    failure: Mutex<Option<io::Error>>,
}

impl Session {
    /// Opens a session that serves `context` and `secrets` for one build.
    pub(super) async fn open(
        dialer: &Dialer,
        context: Archive,
        secrets: HashMap<String, Vec<u8>>,
        auth: AuthFiles,
    ) -> Result<Self, EngineError> {
        let id = format!("{:032x}", rand::random::<u128>());
        let host = &dialer.host;
        let connect = |source| EngineError::Connect { host: host.clone(), source };
        let headers = iter::once(format!("X-Docker-Expose-Session-Uuid: {id}"))
            .chain(METHODS.map(|method| format!("X-Docker-Expose-Session-Grpc-Method: {method}")));
        let headers: Vec<String> = headers.collect();
        let connection = async { upgrade(dialer.connect().await?, "/session", &headers).await };
        let answer = tokio::time::timeout(HANDSHAKE, connection).await;
        let answer = answer.map_err(|_| connect(io::ErrorKind::TimedOut.into()))?.map_err(connect)?;
        let connection = match answer {
            Upgrade::Done(connection) => connection,
            Upgrade::Refused { status: 404, .. } => return Err(EngineError::NoBuildKit(host.clone())),
            Upgrade::Refused { status, line } => {
                return Err(EngineError::Session { host: host.clone(), status, line });
            }
        };
        let outcome = Arc::<Outcome>::default();
        let context = Context {
            archive: Mutex::new(Some(context)),
            host: dialer.host.clone(),
            outcome: outcome.clone(),
        };
        let services = tonic::transport::Server::builder()
            .add_service(HealthServer::new(Alive))
            .add_service(UploadServer::new(context))
            .add_service(SecretsServer::new(Vault(secrets)))
            .add_service(AuthServer::new(Keys(auth)));
        let connections =
            stream::once(std::future::ready(Ok::<_, io::Error>(connection))).chain(stream::pending());
        let server = tokio::spawn(async move {
            // An end of the connection shows in the build's own answer.
            let _ = services.serve_with_incoming(connections).await;
        });
        Ok(Self { id, server, outcome })
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Bytes of the context that the engine has taken so far.
    pub(super) fn sent(&self) -> u64 {
        self.outcome.sent.load(Ordering::Relaxed)
    }

    /// Why the context could not be sent to its end.
    pub(super) fn failure(&self) -> Option<io::Error> {
        self.outcome.failure.lock().expect("no panic while it is held").take()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// An archive as a stream of chunks. A file that cannot be read ends the stream with an error instead of shortening it.
pub(in crate::engine) fn chunks(archive: Archive, host: &Host) -> ReceiverStream<io::Result<Vec<u8>>> {
    streamed(host, move |out| archive.write_to(out))
}

/// What is written as a stream of chunks, by a thread that waits for the reader, and compressed on its way to another host.
/// An error ends the stream.
pub(in crate::engine) fn streamed(
    host: &Host,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()> + Send + 'static,
) -> ReceiverStream<io::Result<Vec<u8>>> {
    let (chunks, taken) = mpsc::channel(IN_FLIGHT);
    let is_local = host.is_local();
    tokio::task::spawn_blocking(move || {
        let mut out = BufWriter::with_capacity(CHUNK, Chunks(chunks.clone()));
        let written = if is_local {
            write(&mut out).and_then(|()| out.flush())
        } else {
            let mut packed = GzEncoder::new(&mut out, Compression::fast());
            write(&mut packed).and_then(|()| packed.finish()?.flush())
        };
        if let Err(error) = written {
            // Nobody to tell where the engine hung up first.
            let _ = chunks.blocking_send(Err(error));
        }
    });
    ReceiverStream::new(taken)
}

struct Chunks(mpsc::Sender<io::Result<Vec<u8>>>);

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let chunk = &bytes[..bytes.len().min(CHUNK)];
        let taken = self.0.blocking_send(Ok(chunk.to_vec()));
        taken.map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(chunk.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Sends the context when the engine asks for it.
struct Context {
    archive: Mutex<Option<Archive>>,
    host: Arc<Host>,
    outcome: Arc<Outcome>,
}

#[tonic::async_trait]
impl Upload for Context {
    type PullStream = BoxStream<'static, Result<BytesMessage, Status>>;

    async fn pull(
        &self,
        _request: Request<tonic::Streaming<BytesMessage>>,
    ) -> Result<Response<Self::PullStream>, Status> {
        let archive = self.archive.lock().expect("no panic while it is held").take();
        let archive = archive.ok_or_else(|| Status::failed_precondition("the context was sent already"))?;
        let outcome = self.outcome.clone();
        let messages = chunks(archive, &self.host).map(move |chunk| match chunk {
            Ok(data) => {
                outcome.sent.fetch_add(data.len() as u64, Ordering::Relaxed);
                Ok(BytesMessage { data })
            }
            Err(error) => {
                let status = Status::aborted(error.to_string());
                *outcome.failure.lock().expect("no panic while it is held") = Some(error);
                Err(status)
            }
        });
        Ok(Response::new(messages.boxed()))
    }
}

struct Alive;

#[tonic::async_trait]
impl Health for Alive {
    async fn check(
        &self,
        _request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        Ok(Response::new(HealthCheckResponse { status: ServingStatus::Serving.into() }))
    }

    async fn list(
        &self,
        _request: Request<HealthListRequest>,
    ) -> Result<Response<HealthListResponse>, Status> {
        Err(Status::unimplemented("list"))
    }

    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    async fn watch(
        &self,
        _request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("watch"))
    }
}

struct Vault(HashMap<String, Vec<u8>>);

#[tonic::async_trait]
impl Secrets for Vault {
    async fn get_secret(
        &self,
        request: Request<GetSecretRequest>,
    ) -> Result<Response<GetSecretResponse>, Status> {
        // Engines ask for secrets of their own, too, and go on without.
        let id = request.into_inner().id;
        match self.0.get(&id) {
            Some(data) => Ok(Response::new(GetSecretResponse { data: data.clone() })),
            None => Err(Status::not_found(format!("secret {id} not found"))),
        }
    }
}

struct Keys(AuthFiles);

#[tonic::async_trait]
impl Auth for Keys {
    async fn credentials(
        &self,
        request: Request<CredentialsRequest>,
    ) -> Result<Response<CredentialsResponse>, Status> {
        let (username, secret) = match self.0.of_host(&request.into_inner().host).await {
            Ok(Some(DockerCredential::UsernamePassword(username, password))) => (username, password),
            // Without a user name BuildKit takes the secret for an identity token.
            Ok(Some(DockerCredential::IdentityToken(token))) => (String::new(), token),
            // The registry refuses where it wants to know, and says so.
            Ok(None) | Err(_) => (String::new(), String::new()),
        };
        Ok(Response::new(CredentialsResponse { username, secret }))
    }

    async fn fetch_token(
        &self,
        _: Request<FetchTokenRequest>,
    ) -> Result<Response<FetchTokenResponse>, Status> {
        Err(Status::unimplemented("fetch_token"))
    }

    async fn get_token_authority(
        &self,
        _: Request<GetTokenAuthorityRequest>,
    ) -> Result<Response<GetTokenAuthorityResponse>, Status> {
        Err(Status::unimplemented("get_token_authority"))
    }

    async fn verify_token_authority(
        &self,
        _: Request<VerifyTokenAuthorityRequest>,
    ) -> Result<Response<VerifyTokenAuthorityResponse>, Status> {
        Err(Status::unimplemented("verify_token_authority"))
    }
}
