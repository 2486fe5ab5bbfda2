//! A connection to one container engine; the only module that imports bollard, whose types stop at
//! this door.

mod container;
mod credentials;
mod error;
mod progress;
mod session;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use bollard::Docker;
use bollard::container::LogOutput;
use bollard::models::{BuildInfoAux, ContainerCreateBody, HostConfig};
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, BuildImageOptionsBuilder, ContainerArchiveInfoOptionsBuilder,
    CreateContainerOptions, CreateImageOptionsBuilder, DownloadFromContainerOptionsBuilder,
    InspectContainerOptions, RemoveContainerOptionsBuilder, StartContainerOptions, TagImageOptionsBuilder,
};
use futures_util::{Stream, StreamExt, TryStreamExt, future};
use tokio_util::sync::CancellationToken;

pub use container::{Container, Exec, Start};
pub use error::EngineError;
pub use progress::BuildEvent;

use crate::archive::{self, Archive};
use crate::base::{self, Base, Config, Platform};
use crate::reference::{ImageId, Reference};
use progress::Progress;
use session::Session;

/// Where an engine listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    socket: PathBuf,
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

/// A connection to one engine. What runs in it ends when its token is cancelled.
#[derive(Debug, Clone)]
pub struct Engine {
    docker: Docker,
    host: Host,
    interrupt: CancellationToken,
}

/// A local image, and what it says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Its id.
    pub id: ImageId,
    /// Who its processes run as; empty is root.
    pub user: String,
    /// Its environment, as `NAME=VALUE`.
    pub env: Vec<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its health check, as Docker has it: `CMD` or `CMD-SHELL` and a command.
    pub health: Vec<String>,
    /// The commands that made its layers.
    pub history: Vec<String>,
}

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
}

/// Longest wait for the headers of an ordinary answer, in seconds.
const TIMEOUT: u64 = 120;

/// Longest wait where the engine answers only after it has read or fetched everything.
const PATIENCE: Duration = Duration::from_secs(6 * 3600);

/// Longest time an interpreter may take to tell its facts.
const PROBE_TIME: Duration = Duration::from_secs(60);

/// Most that is read of a probe's answer or of a file in an image, in bytes.
const MAX_ANSWER: usize = 4 << 20;

/// How long the engine gets to notice that a build was given up.
const FAREWELL: Duration = Duration::from_millis(300);

impl Engine {
    /// Connects to the engine at `host`.
    ///
    /// # Errors
    ///
    /// [`EngineError`] where nobody listens or listens to us.
    pub async fn connect(host: &Host, interrupt: CancellationToken) -> Result<Self, EngineError> {
        tokio::net::UnixStream::connect(&host.socket)
            .await
            .map_err(|source| EngineError::Connect { host: host.clone(), source })?;
        let socket = host.socket.to_string_lossy();
        let docker = Docker::connect_with_unix(&socket, TIMEOUT, bollard::API_DEFAULT_VERSION)
            .map_err(EngineError::api("connect"))?
            .with_request_modifier(repair);
        Ok(Self { docker, host: host.clone(), interrupt })
    }

    /// The engine's own word for how it stores images, such as `overlay2`.
    ///
    /// # Errors
    ///
    /// [`EngineError`].
    pub async fn storage_driver(&self) -> Result<String, EngineError> {
        let info = self.docker.info().await.map_err(EngineError::api("ask the engine for its settings"))?;
        Ok(info.driver.unwrap_or_default())
    }

    /// The id of a local image; `None` where there is none of this name.
    ///
    /// # Errors
    ///
    /// [`EngineError`].
    pub async fn image_id(&self, reference: &Reference) -> Result<Option<String>, EngineError> {
        Ok(self.inspect(reference).await?.map(|image| image.id.unwrap_or_default()))
    }

    /// A local image; `None` where there is none of this name.
    ///
    /// # Errors
    ///
    /// [`EngineError`].
    pub async fn image(&self, name: &str) -> Result<Option<Image>, EngineError> {
        let inspected = match self.docker.inspect_image(name).await {
            Ok(image) => image,
            Err(error) if error::status(&error) == Some(404) => return Ok(None),
            Err(error) => return Err(EngineError::api("inspect an image")(error)),
        };
        let history = self.docker.image_history(name).await;
        let history = history.map_err(EngineError::api("ask for the history of an image"))?;
        let config = inspected.config.unwrap_or_default();
        Ok(Some(Image {
            id: image_id(inspected.id)?,
            user: config.user.unwrap_or_default(),
            env: config.env.unwrap_or_default(),
            labels: config.labels.unwrap_or_default().into_iter().collect(),
            health: config.healthcheck.and_then(|health| health.test).unwrap_or_default(),
            history: history.into_iter().map(|step| step.created_by).collect(),
        }))
    }

    async fn inspect(
        &self,
        reference: &Reference,
    ) -> Result<Option<bollard::models::ImageInspect>, EngineError> {
        match self.docker.inspect_image(&reference.to_string()).await {
            Ok(image) => Ok(Some(image)),
            Err(error) if error::status(&error) == Some(404) => Ok(None),
            Err(error) => Err(EngineError::api("inspect an image")(error)),
        }
    }

    /// Fetches an image from its registry, with the credentials of Docker's own client.
    ///
    /// # Errors
    ///
    /// [`EngineError::NotFound`] or [`EngineError::RegistryUnreachable`], and others.
    pub async fn pull(&self, reference: &Reference) -> Result<(), EngineError> {
        let version = reference.digest().or(reference.tag()).unwrap_or("latest");
        let options =
            CreateImageOptionsBuilder::default().from_image(reference.repository()).tag(version).build();
        let credentials = credentials::of_registry(reference.registry()).await;
        let docker = self.docker.clone().with_timeout(PATIENCE);
        let pulled = to_its_end(docker.create_image(Some(options), None, credentials));
        self.unless_interrupted(pulled).await?.map_err(|source| EngineError::pull(reference.clone(), source))
    }

    /// Gives an image a further name. An image that had the name before loses it.
    ///
    /// # Errors
    ///
    /// [`EngineError`].
    pub async fn tag(&self, image: &ImageId, reference: &Reference) -> Result<(), EngineError> {
        let options = TagImageOptionsBuilder::default()
            .repo(reference.repository())
            .tag(reference.tag().unwrap_or("latest"))
            .build();
        let tagged = self.docker.tag_image(image.as_str(), Some(options)).await;
        tagged.map_err(|source| EngineError::Tag { reference: reference.clone(), source: Box::new(source) })
    }

    /// Makes an image with these files and nothing else.
    ///
    /// # Errors
    ///
    /// [`EngineError`].
    pub async fn import(&self, files: Archive, reference: &Reference) -> Result<(), EngineError> {
        let body = session::chunks(files).map_ok(bytes::Bytes::from);
        let options = CreateImageOptionsBuilder::default()
            .from_src("-")
            .repo(reference.repository())
            .tag(reference.tag().unwrap_or("latest"))
            .build();
        let docker = self.docker.clone().with_timeout(PATIENCE);
        let imported =
            to_its_end(docker.create_image(Some(options), Some(bollard::body_try_stream(body)), None));
        self.unless_interrupted(imported).await?.map_err(EngineError::api("import an image"))
    }

    /// The facts of a local image; `None` where there is none of this name. Those that were asked
    /// before are taken from `cache`.
    ///
    /// # Errors
    ///
    /// [`EngineError`].
    pub async fn base(&self, reference: &Reference, cache: &Path) -> Result<Option<Base>, EngineError> {
        let Some(image) = self.inspect(reference).await? else {
            return Ok(None);
        };
        let id = image_id(image.id)?;
        if let Some(base) = Base::cached(cache, &id, reference) {
            return Ok(Some(base));
        }
        let config = image.config.unwrap_or_default();
        let base = Base {
            reference: reference.clone(),
            id,
            platform: Platform {
                os: image.os.unwrap_or_default(),
                architecture: image.architecture.unwrap_or_default(),
            },
            pythons: Vec::new(),
            config: Config {
                user: config.user.unwrap_or_default(),
                env: config.env.unwrap_or_default(),
                entrypoint: config.entrypoint.unwrap_or_default(),
                cmd: config.cmd.unwrap_or_default(),
                shell: config.shell.unwrap_or_default(),
                labels: config.labels.unwrap_or_default().into_iter().collect(),
                on_build: config.on_build.unwrap_or_default(),
            },
            passwd: String::new(),
            group: String::new(),
            codename: None,
            programs: BTreeSet::new(),
            links: BTreeMap::new(),
            folders: BTreeMap::new(),
            taken: Vec::new(),
            broken: Vec::new(),
            lacks_hosts: false,
            lacks_resolv_conf: false,
        };
        let base = self.probe(base).await?;
        // Without a cache the next build asks again, and that is all.
        let _ = base.cache(cache);
        Ok(Some(base))
    }

    /// Asks a throw-away container of the image for its facts.
    async fn probe(&self, base: Base) -> Result<Base, EngineError> {
        let body = ContainerCreateBody {
            image: Some(base.id.to_string()),
            entrypoint: Some(vec!["/bin/sh".into(), "-c".into(), base::PROBE.into()]),
            cmd: Some(Vec::new()),
            user: Some("0:0".into()),
            network_disabled: Some(true),
            attach_stdout: Some(true),
            labels: Some(HashMap::from([("ipybox.probe".into(), base.reference.to_string())])),
            host_config: Some(HostConfig { cap_drop: Some(vec!["ALL".into()]), ..HostConfig::default() }),
            ..ContainerCreateBody::default()
        };
        let container = self
            .docker
            .create_container(None::<CreateContainerOptions>, body)
            .await
            .map_err(EngineError::api("create a container"))?
            .id;
        let facts = self.unless_interrupted(self.facts(&container, base)).await;
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        let removed = self.docker.remove_container(&container, Some(options)).await;
        let facts = facts??;
        removed.map_err(EngineError::api("remove a container"))?;
        Ok(facts)
    }

    async fn facts(&self, container: &str, mut base: Base) -> Result<Base, EngineError> {
        base.lacks_hosts = self.is_empty(container, "/etc/hosts").await?;
        base.lacks_resolv_conf = self.is_empty(container, "/etc/resolv.conf").await?;
        base.passwd = self.file(container, "/etc/passwd", &base).await?;
        base.group = self.file(container, "/etc/group", &base).await?;
        let output = tokio::time::timeout(PROBE_TIME, self.output(container, &base.reference))
            .await
            .map_err(|_| EngineError::ProbeTimeout(base.reference.clone()))??;
        let state = self.docker.inspect_container(container, None::<InspectContainerOptions>).await;
        let state = state.map_err(EngineError::api("inspect a container"))?.state;
        match state.and_then(|state| state.exit_code) {
            Some(0) => {}
            code => {
                let (reference, code) = (base.reference, code.unwrap_or(-1));
                return Err(EngineError::ProbeFailed { reference, code });
            }
        }
        Ok(base.with_probe(&output))
    }

    /// Whether a file is empty in a container that was not started yet; the engine itself puts an empty
    /// file where the image has none.
    async fn is_empty(&self, container: &str, path: &str) -> Result<bool, EngineError> {
        let options = ContainerArchiveInfoOptionsBuilder::default().path(path).build();
        match self.docker.get_container_archive_info(container, Some(options)).await {
            Ok(file) => Ok(file.size == 0),
            Err(error) if error::status(&error) == Some(404) => Ok(false),
            Err(error) => Err(EngineError::api("read a file of the base")(error)),
        }
    }

    /// The text of a file in a container; empty where there is none.
    async fn file(&self, container: &str, path: &'static str, base: &Base) -> Result<String, EngineError> {
        let unusable = |why: String| EngineError::Accounts { reference: base.reference.clone(), path, why };
        let options = DownloadFromContainerOptionsBuilder::default().path(path).build();
        let mut chunks = self.docker.download_from_container(container, Some(options));
        let mut bytes = Vec::new();
        while let Some(chunk) = chunks.next().await {
            match chunk {
                Ok(chunk) => bytes.extend_from_slice(&chunk),
                Err(error) if error::status(&error) == Some(404) => return Ok(String::new()),
                Err(error) => return Err(EngineError::api("read a file of the base")(error)),
            }
            if bytes.len() > MAX_ANSWER {
                return Err(unusable("it is too large".to_owned()));
            }
        }
        archive::only_text(&bytes).map_err(|error| unusable(error.to_string()))
    }

    /// What a container that was not started yet prints until it ends.
    async fn output(&self, container: &str, reference: &Reference) -> Result<String, EngineError> {
        let options = AttachContainerOptionsBuilder::default().stdout(true).stream(true).build();
        let mut attached = self
            .docker
            .attach_container(container, Some(options))
            .await
            .map_err(EngineError::api("attach to a container"))?;
        self.docker.start_container(container, None::<StartContainerOptions>).await.map_err(|source| {
            EngineError::NoShell { reference: reference.clone(), source: Box::new(source) }
        })?;
        let mut output = Vec::new();
        while let Some(chunk) = attached.output.next().await {
            if let LogOutput::StdOut { message } = chunk.map_err(EngineError::api("read from a container"))? {
                output.extend_from_slice(&message);
            }
            if output.len() > MAX_ANSWER {
                break;
            }
        }
        Ok(String::from_utf8_lossy(&output).into_owned())
    }

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
        let Build { context, no_cache, secrets, build_args } = build;
        let session = Session::open(&self.host, context, secrets).await?;
        let options = BuildImageOptionsBuilder::default()
            .dockerfile("Dockerfile")
            .nocache(no_cache)
            .buildargs(&build_args)
            .session(session.id())
            .remote(&format!("http://buildkit-session/{}", session.id()))
            .build();
        let mut progress = Progress::default();
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

    /// Does `work` unless the caller gives up meanwhile.
    ///
    /// # Errors
    ///
    /// [`EngineError::Interrupted`].
    pub async fn unless_interrupted<T>(&self, work: impl Future<Output = T>) -> Result<T, EngineError> {
        self.interrupt.run_until_cancelled(work).await.ok_or(EngineError::Interrupted)
    }
}

/// Reads an answer whose messages do not matter. What it should have done is asked for afterwards.
async fn to_its_end<T>(
    answer: impl Stream<Item = Result<T, bollard::errors::Error>>,
) -> Result<(), bollard::errors::Error> {
    match answer.try_for_each(|_| future::ready(Ok(()))).await {
        Err(error) if error::is_of_last_line_break(&error) => Ok(()),
        ended => ended,
    }
}

fn image_id(id: Option<String>) -> Result<ImageId, EngineError> {
    ImageId::try_from(id.unwrap_or_default()).map_err(|_| EngineError::NoImage)
}

/// Mends what bollard writes on the wire: builds are always BuildKit's, through a session of our
/// own, though bollard is asked for a classic one so that it opens no second session; and Docker
/// decodes credentials as URL-safe base64.
fn repair(mut request: bollard::BollardRequest) -> bollard::BollardRequest {
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
