//! Containers that last: made once under a name, found again by it, and used by many.

mod files;
mod run;

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime};

use bollard::container::LogOutput;
use bollard::errors::Error as Api;
use bollard::models::{
    BollardDate, ContainerCreateBody, ContainerInspectResponse, ContainerSummary, HostConfig, Mount,
    MountType, PortBinding, VolumeCreateRequest,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, ListContainersOptionsBuilder,
    ListVolumesOptionsBuilder, LogsOptionsBuilder, RemoveContainerOptionsBuilder, RemoveVolumeOptions,
    RenameContainerOptionsBuilder, StartContainerOptions, StopContainerOptionsBuilder,
};
use futures_util::{Stream, StreamExt};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{Engine, EngineError, error, transport};
pub use files::PATH;
pub use run::{Piece, Run, Running};

/// How a container that lasts is made.
#[derive(Debug, Clone, Default)]
pub struct Lasting {
    /// Its name, which no other container of the engine has.
    pub name: String,
    /// The id of its image.
    pub image: String,
    /// In place of the image's entry point and command; as the image has it if there is none.
    pub command: Option<Vec<String>>,
    /// Who it runs as; as the image says if there is none.
    pub user: Option<String>,
    /// Where its commands begin; as the image says if there is none.
    pub workdir: Option<String>,
    /// Added to the image's environment, as `NAME=VALUE`.
    pub env: Vec<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Folders of the engine's host, with their places in it.
    pub folders: Vec<(Folder, String)>,
    /// Volumes by name, with their places in it; they have the container's labels.
    pub volumes: Vec<(String, String)>,
    /// Most memory, in bytes; there is no swap beside it.
    pub memory: i64,
    /// Most processors, in billionths.
    pub nano_cpus: i64,
    /// Most processes and threads.
    pub pids: i64,
    /// Whether its root cannot be written, but for `/tmp`, `/var/tmp` and `/run`.
    pub is_read_only: bool,
    /// The network it is on.
    pub network: String,
    /// What runs it, in place of the engine's default.
    pub runtime: Option<String>,
    /// Capabilities it keeps; it has no others.
    pub capabilities: Vec<String>,
    /// Ports that are published on free ones of the engine's loopback.
    pub ports: Vec<u16>,
}

/// A folder of the engine's host that a container sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder {
    /// Its path there.
    pub source: String,
    /// Whether nothing in it can be changed.
    pub is_read_only: bool,
}

/// A container as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Container {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The engine's word for its state, such as `running` or `exited`.
    pub state: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The image it was made from, as it was named then.
    pub image: String,
    /// The id of that.
    pub image_id: String,
    /// Where its ports are published.
    pub ports: BTreeMap<u16, SocketAddr>,
    /// When it was made, in seconds since 1970; 0 where the engine does not say.
    pub created: i64,
}

/// What only one container is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspected {
    /// What lists know, too.
    pub container: Container,
    /// Who it runs as, as it was made to; root where that is empty.
    pub user: String,
    /// Its environment, as `NAME=VALUE`.
    pub env: Vec<String>,
    /// What its health check says, where it has one: `starting`, `healthy` or `unhealthy`.
    pub health: Option<String>,
    /// How it ended, where it did.
    pub exit_code: Option<i64>,
    /// When it was started last, where it ever was.
    pub started: Option<SystemTime>,
    /// When it ended last, where it did.
    pub finished: Option<SystemTime>,
}

impl Inspected {
    /// Whether it runs, and takes commands.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.container.state == "running"
    }
}

/// How often a state that passes by itself is asked for.
const MOMENT: Duration = Duration::from_millis(20);

/// How long the engine may take to be done with removing a container.
const LONGEST_REMOVAL: Duration = Duration::from_secs(30);

/// What is writable where a root is not, as a mount option of a file system in memory.
const WRITABLE: [(&str, &str); 3] =
    [("/tmp", "mode=1777,exec"), ("/var/tmp", "mode=1777"), ("/run", "mode=755")];

impl Engine {
    /// The container of a name or an id; `None` where there is none.
    ///
    /// # Errors
    ///
    /// [`EngineError`].
    pub async fn lasting(&self, name: &str) -> Result<Option<Inspected>, EngineError> {
        match self.docker.inspect_container(name, None::<InspectContainerOptions>).await {
            Ok(inspected) => Ok(Some(of_inspection(inspected))),
            Err(error) if error::status(&error) == Some(404) => Ok(None),
            Err(Api::JsonDataError { .. } | Api::JsonSerdeError { .. }) => self.lasting_in_podman(name).await,
            Err(error) => Err(EngineError::api("inspect a container")(error)),
        }
    }

    /// The same where podman has a word of its own for the state: `stopped` is one that has ended a moment ago.
    async fn lasting_in_podman(&self, name: &str) -> Result<Option<Inspected>, EngineError> {
        let unread = |err| EngineError::api("inspect a container")(Api::IOError { err });
        let body = transport::get(&self.dialer, &format!("/containers/{name}/json")).await.map_err(unread)?;
        let mut told: serde_json::Value =
            serde_json::from_slice(&body).map_err(|error| unread(error.into()))?;
        if told["State"]["Status"] == "stopped" {
            told["State"]["Status"] = "exited".into();
        }
        let inspected = serde_json::from_value(told).map_err(|error| unread(error.into()))?;
        Ok(Some(of_inspection(inspected)))
    }

    /// All containers with these labels, running or not, the oldest first. A label without a value has any.
    ///
    /// # Errors
    ///
    /// [`EngineError`].
    pub async fn all_lasting(&self, labels: &[String]) -> Result<Vec<Container>, EngineError> {
        self.containers("label", labels).await
    }

    /// All containers that were made from an image, or from one that is built on it.
    ///
    /// # Errors
    ///
    /// [`EngineError`].
    pub async fn containers_of(&self, image: &str) -> Result<Vec<Container>, EngineError> {
        self.containers("ancestor", &[image.to_owned()]).await
    }

    /// All containers that have a volume.
    ///
    /// # Errors
    ///
    /// [`EngineError`].
    pub async fn containers_with(&self, volume: &str) -> Result<Vec<Container>, EngineError> {
        self.containers("volume", &[volume.to_owned()]).await
    }

    async fn containers(&self, filter: &str, values: &[String]) -> Result<Vec<Container>, EngineError> {
        let filters = HashMap::from([(filter.to_owned(), values.to_vec())]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let listed = self.docker.list_containers(Some(options)).await;
        let listed = listed.map_err(EngineError::api("list containers"))?;
        let mut containers: Vec<Container> = listed.into_iter().map(of_summary).collect();
        containers.sort_by(|one, other| (one.created, &one.name).cmp(&(other.created, &other.name)));
        Ok(containers)
    }

    /// Makes the volumes of a container that are missing. Returns whether all of them were.
    ///
    /// # Errors
    ///
    /// [`EngineError`].
    pub async fn make_volumes(&self, lasting: &Lasting) -> Result<bool, EngineError> {
        let mut are_new = true;
        for (volume, _) in &lasting.volumes {
            if self.docker.inspect_volume(volume).await.is_err() {
                let request = VolumeCreateRequest {
                    name: Some(volume.clone()),
                    labels: Some(lasting.labels.clone().into_iter().collect()),
                    ..VolumeCreateRequest::default()
                };
                self.docker.create_volume(request).await.map_err(EngineError::api("create a volume"))?;
            } else {
                are_new = false;
            }
        }
        Ok(are_new)
    }

    /// Makes a container, and returns its id; `None` where its name is taken.
    ///
    /// # Errors
    ///
    /// [`EngineError`].
    pub async fn make_lasting(&self, lasting: &Lasting) -> Result<Option<String>, EngineError> {
        let options = CreateContainerOptionsBuilder::default().name(&lasting.name).build();
        match self.docker.create_container(Some(options), lasting.body()).await {
            Ok(created) => Ok(Some(created.id)),
            Err(error) if error::status(&error) == Some(409) || is_taken(&error) => Ok(None),
            Err(error) => Err(EngineError::api("create a container")(error)),
        }
    }

    /// Starts a container, unless it runs, or lets one go on that is paused. False where it is gone.
    ///
    /// # Errors
    ///
    /// [`EngineError`], also where its command cannot be started.
    pub async fn start(&self, id: &str, is_paused: bool) -> Result<bool, EngineError> {
        let started = if is_paused {
            self.docker.unpause_container(id).await
        } else {
            self.docker.start_container(id, None::<StartContainerOptions>).await
        };
        match started {
            Ok(()) => Ok(true),
            Err(error) if matches!(error::status(&error), Some(304)) => Ok(true),
            Err(error) if is_going(&error) => Ok(false),
            Err(error) => Err(EngineError::api("start a container")(error)),
        }
    }

    /// Gives a container another name. False where that is taken, or the container gone.
    ///
    /// # Errors
    ///
    /// [`EngineError`].
    pub async fn rename(&self, id: &str, name: &str) -> Result<bool, EngineError> {
        let options = RenameContainerOptionsBuilder::default().name(name).build();
        match self.docker.rename_container(id, options).await {
            Ok(()) => Ok(true),
            // It may have that name by now.
            Err(error) if matches!(error::status(&error), Some(400 | 404 | 409)) => Ok(false),
            Err(error) if is_taken(&error) => Ok(false),
            Err(error) => Err(EngineError::api("rename a container")(error)),
        }
    }

    /// Stops a container; one that does not heed it within these seconds is ended.
    ///
    /// # Errors
    ///
    /// [`EngineError`].
    pub async fn stop(&self, id: &str, seconds: i32) -> Result<(), EngineError> {
        let options = StopContainerOptionsBuilder::default().t(seconds).build();
        match self.docker.stop_container(id, Some(options)).await {
            Ok(()) => Ok(()),
            Err(error) if matches!(error::status(&error), Some(304 | 404)) => Ok(()),
            Err(error) => Err(EngineError::api("stop a container")(error)),
        }
    }

    /// Removes a container, whatever it does, and waits until its name is free.
    ///
    /// # Errors
    ///
    /// [`EngineError`].
    pub async fn discard(&self, id: &str) -> Result<(), EngineError> {
        let begun = tokio::time::Instant::now();
        loop {
            let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
            match self.docker.remove_container(id, Some(options)).await {
                Ok(()) => return Ok(()),
                Err(error) if error::status(&error) == Some(404) => return Ok(()),
                Err(error) if is_going(&error) && begun.elapsed() < LONGEST_REMOVAL => {
                    tokio::time::sleep(MOMENT).await;
                }
                Err(error) => return Err(EngineError::api("remove a container")(error)),
            }
        }
    }

    /// The names of volumes with these labels.
    ///
    /// # Errors
    ///
    /// [`EngineError`].
    pub async fn volumes(&self, labels: &[String]) -> Result<Vec<String>, EngineError> {
        let filters = HashMap::from([("label".to_owned(), labels.to_vec())]);
        let options = ListVolumesOptionsBuilder::default().filters(&filters).build();
        let listed = self.docker.list_volumes(Some(options)).await;
        let listed = listed.map_err(EngineError::api("list volumes"))?;
        Ok(listed.volumes.unwrap_or_default().into_iter().map(|volume| volume.name).collect())
    }

    /// Removes a volume that no container has.
    ///
    /// # Errors
    ///
    /// [`EngineError`].
    pub async fn remove_volume(&self, name: &str) -> Result<(), EngineError> {
        match self.docker.remove_volume(name, None::<RemoveVolumeOptions>).await {
            Ok(()) => Ok(()),
            Err(error) if error::status(&error) == Some(404) => Ok(()),
            Err(error) => Err(EngineError::api("remove a volume")(error)),
        }
    }

    /// What a container has written: its last lines, and what follows where that is asked for.
    pub fn log(
        &self,
        id: &str,
        last: Option<usize>,
        follow: bool,
    ) -> impl Stream<Item = Result<Piece, EngineError>> + use<> {
        let tail = last.map_or_else(|| "all".to_owned(), |last| last.to_string());
        let options = LogsOptionsBuilder::default().stdout(true).stderr(true).follow(follow).tail(&tail);
        self.docker.logs(id, Some(options.build())).map(|chunk| match chunk {
            Ok(chunk) => Ok(Piece::of(chunk)),
            Err(error) => Err(EngineError::api("read what a container wrote")(error)),
        })
    }

    /// The last lines that a container has written.
    ///
    /// # Errors
    ///
    /// [`EngineError`].
    pub async fn last_lines(&self, id: &str, count: usize) -> Result<Vec<String>, EngineError> {
        let mut pieces = Box::pin(self.log(id, Some(count), false));
        let mut text = String::new();
        while let Some(piece) = pieces.next().await {
            text += &String::from_utf8_lossy(&piece?.bytes);
        }
        Ok(text.lines().map(str::to_owned).collect())
    }
}

/// Whether a name is another container's.
fn is_taken(error: &Api) -> bool {
    error.to_string().contains("already in use")
}

/// Whether a container is gone, or about to be.
fn is_going(error: &Api) -> bool {
    let said = error.to_string();
    // Networks that are not there are not found, too.
    error::status(error) == Some(404) && said.to_ascii_lowercase().contains("no such container")
        || said.contains("no container with")
        || said.contains("is already in progress")
        || said.contains("marked for removal")
}

impl Piece {
    fn of(chunk: LogOutput) -> Self {
        let is_error = matches!(chunk, LogOutput::StdErr { .. });
        Self { is_error, bytes: chunk.into_bytes() }
    }
}

impl Lasting {
    fn body(&self) -> ContainerCreateBody {
        let bindings = self.ports.iter().map(|port| {
            let host = PortBinding { host_ip: Some("127.0.0.1".to_owned()), host_port: Some(String::new()) };
            (format!("{port}/tcp"), Some(vec![host]))
        });
        let folder = |(folder, place): &(Folder, String)| Mount {
            target: Some(place.clone()),
            source: Some(folder.source.clone()),
            typ: Some(MountType::BIND),
            read_only: Some(folder.is_read_only),
            ..Mount::default()
        };
        let volume = |(name, place): &(String, String)| Mount {
            target: Some(place.clone()),
            source: Some(name.clone()),
            typ: Some(MountType::VOLUME),
            ..Mount::default()
        };
        let writable = WRITABLE.map(|(place, options)| (place.to_owned(), options.to_owned()));
        ContainerCreateBody {
            image: Some(self.image.clone()),
            entrypoint: self.command.clone(),
            cmd: self.command.as_ref().map(|_| Vec::new()),
            user: self.user.clone(),
            working_dir: self.workdir.clone(),
            env: Some(self.env.clone()),
            labels: Some(self.labels.clone().into_iter().collect()),
            exposed_ports: Some(self.ports.iter().map(|port| format!("{port}/tcp")).collect()),
            host_config: Some(HostConfig {
                port_bindings: Some(bindings.collect()),
                mounts: Some(
                    self.folders.iter().map(folder).chain(self.volumes.iter().map(volume)).collect(),
                ),
                memory: Some(self.memory),
                memory_swap: Some(self.memory),
                nano_cpus: Some(self.nano_cpus),
                pids_limit: Some(self.pids),
                readonly_rootfs: Some(self.is_read_only),
                tmpfs: self.is_read_only.then(|| HashMap::from(writable)),
                network_mode: Some(self.network.clone()),
                runtime: self.runtime.clone(),
                cap_drop: Some(vec!["ALL".to_owned()]),
                cap_add: Some(self.capabilities.clone()),
                security_opt: Some(vec!["no-new-privileges:true".to_owned()]),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        }
    }
}

fn of_inspection(inspected: ContainerInspectResponse) -> Inspected {
    let ContainerInspectResponse { id, name, state, config, image, network_settings, created, .. } =
        inspected;
    let (state, config) = (state.unwrap_or_default(), config.unwrap_or_default());
    let published = network_settings.and_then(|network| network.ports).unwrap_or_default();
    let ports = published.into_iter().filter_map(|(port, bindings)| {
        let port = port.strip_suffix("/tcp")?.parse().ok()?;
        let address = |one: PortBinding| address(one.host_ip.as_deref(), one.host_port?.parse().ok()?);
        Some((port, bindings.into_iter().flatten().find_map(address)?))
    });
    let running = state.running.unwrap_or_default();
    Inspected {
        user: config.user.unwrap_or_default(),
        env: config.env.unwrap_or_default(),
        health: state.health.and_then(|health| health.status).map(|status| status.to_string()),
        exit_code: state.exit_code.filter(|_| !running),
        started: state.started_at.as_deref().and_then(moment),
        finished: state.finished_at.as_deref().and_then(moment),
        container: Container {
            id: id.unwrap_or_default(),
            name: name.unwrap_or_default().trim_start_matches('/').to_owned(),
            state: state.status.map(|status| status.to_string()).unwrap_or_default(),
            labels: config.labels.unwrap_or_default().into_iter().collect(),
            image: config.image.unwrap_or_default(),
            image_id: image.unwrap_or_default(),
            ports: ports.collect(),
            created: created.map_or(0, BollardDate::unix_timestamp),
        },
    }
}

/// A time as engines write it; what never was is in the year 1.
fn moment(text: &str) -> Option<SystemTime> {
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    (time > OffsetDateTime::UNIX_EPOCH).then(|| time.into())
}

fn of_summary(summary: ContainerSummary) -> Container {
    let ports = summary.ports.into_iter().flatten().filter_map(|port| {
        let address = address(port.ip.as_deref(), port.public_port?)?;
        Some((port.private_port, address))
    });
    Container {
        name: summary
            .names
            .into_iter()
            .flatten()
            .next()
            .unwrap_or_default()
            .trim_start_matches('/')
            .to_owned(),
        state: summary.state.map(|state| state.to_string()).unwrap_or_default(),
        labels: summary.labels.unwrap_or_default().into_iter().collect(),
        image: summary.image.unwrap_or_default(),
        image_id: summary.image_id.unwrap_or_default(),
        ports: ports.collect(),
        created: summary.created.unwrap_or_default(),
        id: summary.id.unwrap_or_default(),
    }
}

fn address(ip: Option<&str>, port: u16) -> Option<SocketAddr> {
    let ip: IpAddr = ip.filter(|ip| !ip.is_empty()).unwrap_or("127.0.0.1").parse().ok()?;
    Some(SocketAddr::new(ip, port))
}
