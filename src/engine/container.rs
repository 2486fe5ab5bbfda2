//! Containers that run while something is tried, and are gone afterwards.

use std::collections::HashMap;
use std::io::Write;
use std::time::{Duration, Instant, SystemTime};

use bollard::container::LogOutput;
use bollard::errors::Error as Api;
use bollard::exec::{CreateExecOptions, StartExecOptions, StartExecResults};
use bollard::models::{ContainerCreateBody, ContainerInspectResponse, HostConfig, PortBinding};
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, ContainerArchiveInfoOptionsBuilder, CreateContainerOptionsBuilder,
    DownloadFromContainerOptionsBuilder, InspectContainerOptions, ListContainersOptionsBuilder,
    LogsOptionsBuilder, RemoveContainerOptionsBuilder, StartContainerOptions, StopContainerOptionsBuilder,
};
use futures_util::StreamExt;

use super::{Door, Engine, EngineError, MAX_ANSWER, Run, Running, error};
use crate::reference::ImageId;

/// How a container is made. What is not said is as the image has it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Spec<'a> {
    /// What it is for: a label of this name, and a part of its name.
    pub label: &'a str,
    /// In place of the image's entry point and command.
    pub command: Option<&'a [&'a str]>,
    /// Who its first process runs as.
    pub user: Option<&'a str>,
    /// Whether it has neither a network nor capabilities.
    pub is_locked: bool,
    /// Where its root cannot be written, the folders that can, and are empty at first. None: it can be written.
    pub read_only_but: &'a [&'a str],
    /// TCP ports of servers; on an engine of this host they are published on free ports of its loopback.
    pub ports: &'a [u16],
    /// Added to the image's environment, as `NAME=VALUE`.
    pub env: &'a [String],
    /// Volumes by name, with their places in it.
    pub volumes: &'a [(String, String)],
    /// A container whose network and processes are its own, too.
    pub beside: Option<&'a str>,
    /// After what time it is left over, where that is less than what any work takes.
    pub longest: Option<Duration>,
    /// Added to Docker's default capabilities, such as `NET_ADMIN`.
    pub capabilities: &'a [&'a str],
}

/// A container that is removed when its work is done.
#[derive(Debug)]
pub struct Container {
    engine: Engine,
    id: String,
    doors: HashMap<u16, Door>,
}

/// What a program run in a container left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exec {
    /// Its exit code.
    pub code: i64,
    /// What it wrote to stdout and stderr, the two mixed.
    pub output: String,
}

/// The label that says when a container is left over, in seconds since 1970: its work is done long before.
const UNTIL: &str = "ipybox.until";

/// Longest time that any work in a container takes.
const LONGEST: Duration = Duration::from_secs(2 * 3600);

/// Stopping takes longer than this only where SIGTERM is ignored.
const STOP_SECONDS: i32 = 10;

impl Engine {
    /// Makes a container, lets `work` start and use it, and removes it, whatever came of the work. Those that a killed
    /// process left are removed first.
    ///
    /// # Errors
    ///
    /// [`EngineError`] of making and removing it, and of giving up.
    pub async fn with_container<T>(
        &self,
        image: &ImageId,
        spec: Spec<'_>,
        work: impl AsyncFnOnce(&mut Container) -> T,
    ) -> Result<T, EngineError> {
        self.remove_left_over().await;
        let published = spec.ports.iter().filter(|_| self.dialer.host.is_local());
        let bindings = published.map(|port| {
            let binding =
                PortBinding { host_ip: Some("127.0.0.1".to_owned()), host_port: Some(String::new()) };
            (format!("{port}/tcp"), Some(vec![binding]))
        });
        let owned = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        let until = (now() + spec.longest.unwrap_or(LONGEST)).as_secs().to_string();
        let body = ContainerCreateBody {
            image: Some(image.to_string()),
            entrypoint: spec.command.map(owned),
            cmd: spec.command.map(|_| Vec::new()),
            user: spec.user.map(str::to_owned),
            network_disabled: Some(spec.is_locked),
            attach_stdout: Some(true),
            env: Some(spec.env.to_vec()),
            labels: Some(HashMap::from([
                (spec.label.to_owned(), image.short().to_owned()),
                (UNTIL.to_owned(), until),
            ])),
            exposed_ports: Some(spec.ports.iter().map(|port| format!("{port}/tcp")).collect()),
            host_config: Some(HostConfig {
                port_bindings: Some(bindings.collect()),
                cap_add: Some(owned(spec.capabilities)),
                network_mode: spec.beside.map(|other| format!("container:{other}")),
                pid_mode: spec.beside.map(|other| format!("container:{other}")),
                binds: Some(spec.volumes.iter().map(|(name, place)| format!("{name}:{place}")).collect()),
                readonly_rootfs: Some(!spec.read_only_but.is_empty()),
                tmpfs: Some(
                    spec.read_only_but.iter().map(|&folder| (folder.to_owned(), String::new())).collect(),
                ),
                cap_drop: spec.is_locked.then(|| vec!["ALL".to_owned()]),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        };
        // A name of ours, so that it can be removed even where the engine's answer is lost.
        let name = format!("{}-{:016x}", spec.label, rand::random::<u64>()).replace('.', "-");
        let options = CreateContainerOptionsBuilder::default().name(&name).build();
        let mut container = Container { engine: self.clone(), id: name, doors: HashMap::new() };
        let worked = self
            .unless_interrupted(async {
                let created = self.docker.create_container(Some(options), body).await;
                created.map_err(EngineError::api("create a container"))?;
                Ok::<_, EngineError>(Box::pin(work(&mut container)).await)
            })
            .await;
        let removed = self.remove(&container.id).await;
        let worked = worked??;
        removed?;
        Ok(worked)
    }

    async fn remove(&self, container: &str) -> Result<(), EngineError> {
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        let removed = self.docker.remove_container(container, Some(options)).await;
        removed.map_err(EngineError::api("remove a container"))
    }

    /// Removes containers of this program whose time is over. What cannot be removed is somebody's next time.
    async fn remove_left_over(&self) {
        let filters = HashMap::from([("label".to_owned(), vec![UNTIL.to_owned()])]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        for container in self.docker.list_containers(Some(options)).await.unwrap_or_default() {
            let until =
                container.labels.unwrap_or_default().get(UNTIL).and_then(|until| until.parse::<u64>().ok());
            if let (Some(id), Some(until)) = (container.id, until)
                && until < now().as_secs()
            {
                let _ = self.remove(&id).await;
            }
        }
    }
}

/// Since 1970.
fn now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

impl Container {
    /// Starts it, and finds out how its servers are reached.
    ///
    /// # Errors
    ///
    /// [`EngineError`].
    pub async fn start(&mut self) -> Result<(), EngineError> {
        let docker = &self.engine.docker;
        let started = docker.start_container(&self.id, None::<StartContainerOptions>).await;
        started.map_err(EngineError::api("start a container"))?;
        let ports =
            self.inspect().await?.network_settings.and_then(|network| network.ports).unwrap_or_default();
        for (name, bindings) in ports {
            let port = name.strip_suffix("/tcp").and_then(|port| port.parse().ok());
            let host = bindings.into_iter().flatten().find_map(|one| one.host_port?.parse().ok());
            let door = match (port, host) {
                (Some(_), Some(host)) => Door::published(host),
                (Some(port), None) if !self.engine.dialer.host.is_local() => {
                    Door::inside(docker.clone(), self.id.clone(), port)
                }
                _ => continue,
            };
            self.doors.extend(port.map(|port| (port, door)));
        }
        Ok(())
    }

    /// Starts a program in it, which reads and writes, as root.
    ///
    /// # Errors
    ///
    /// [`EngineError`].
    pub async fn run(&self, command: &[&str]) -> Result<Running, EngineError> {
        let command = command.iter().map(|&word| word.to_owned()).collect();
        let run = Run { container: &self.id, command, user: Some("0:0"), has_input: true, ..Run::default() };
        self.engine.run(run).await?.ok_or_else(|| EngineError::cut("run a program in a container"))
    }

    /// Starts it, and reads what it writes to stdout until it ends; at most 4 MiB.
    ///
    /// # Errors
    ///
    /// [`EngineError`], also where its program cannot be started.
    pub async fn output(&self) -> Result<Exec, EngineError> {
        let docker = &self.engine.docker;
        let options = AttachContainerOptionsBuilder::default().stdout(true).stream(true).build();
        let attached = docker.attach_container(&self.id, Some(options)).await;
        let mut attached = attached.map_err(EngineError::api("attach to a container"))?;
        let started = docker.start_container(&self.id, None::<StartContainerOptions>).await;
        started.map_err(EngineError::api("start a container"))?;
        let mut output = Vec::new();
        while let Some(chunk) = attached.output.next().await {
            if let LogOutput::StdOut { message } = chunk.map_err(EngineError::api("read from a container"))? {
                output.extend_from_slice(&message);
            }
            if output.len() > MAX_ANSWER {
                break;
            }
        }
        let code = self.ended().await?.unwrap_or(-1);
        Ok(Exec { code, output: String::from_utf8_lossy(&output).into_owned() })
    }

    /// The size of a file, in bytes, before the container is started; the engine itself puts an empty file where some
    /// are missing. `None` where there is none.
    ///
    /// # Errors
    ///
    /// [`EngineError`].
    pub async fn size_of(&self, path: &str) -> Result<Option<i64>, EngineError> {
        let options = ContainerArchiveInfoOptionsBuilder::default().path(path).build();
        match self.engine.docker.get_container_archive_info(&self.id, Some(options)).await {
            Ok(file) => Ok(Some(file.size)),
            Err(error) if error::status(&error) == Some(404) => Ok(None),
            Err(error) => Err(EngineError::api("read a file of an image")(error)),
        }
    }

    /// A file as a tar archive with nothing else; `None` where there is none, or a larger one than 4 MiB.
    ///
    /// # Errors
    ///
    /// [`EngineError`].
    pub async fn tar_of(&self, path: &str) -> Result<Option<Vec<u8>>, EngineError> {
        let options = DownloadFromContainerOptionsBuilder::default().path(path).build();
        let mut chunks = self.engine.docker.download_from_container(&self.id, Some(options));
        let mut bytes = Vec::new();
        while let Some(chunk) = chunks.next().await {
            match chunk {
                Ok(chunk) => bytes.extend_from_slice(&chunk),
                Err(error) if error::status(&error) == Some(404) => return Ok(None),
                Err(error) => return Err(EngineError::api("read a file of an image")(error)),
            }
            if bytes.len() > MAX_ANSWER {
                break;
            }
        }
        Ok(Some(bytes))
    }

    /// Writes a file or folder as a tar archive; false where there is none.
    ///
    /// # Errors
    ///
    /// [`EngineError`], also where nothing can be written.
    pub async fn copy_out(&self, path: &str, to: impl Write) -> Result<bool, EngineError> {
        self.engine.get(&self.id, path, to).await
    }

    /// The way to a server; `None` once the container has ended.
    #[must_use]
    pub fn door(&self, port: u16) -> Option<Door> {
        self.doors.get(&port).cloned()
    }

    /// Runs a program as `user` to its end.
    ///
    /// # Errors
    ///
    /// [`EngineError`], also where there is no such program.
    pub async fn exec(&self, user: &str, command: &[&str]) -> Result<Exec, EngineError> {
        let failed = || EngineError::api("run a program in a container");
        let docker = &self.engine.docker;
        let options = CreateExecOptions {
            cmd: Some(command.to_vec()),
            user: Some(user),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            ..CreateExecOptions::default()
        };
        let id = docker.create_exec(&self.id, options).await.map_err(failed())?.id;
        let started = docker.start_exec(&id, None::<StartExecOptions>).await.map_err(failed())?;
        let mut bytes = Vec::new();
        if let StartExecResults::Attached { mut output, .. } = started {
            while let Some(chunk) = output.next().await {
                bytes.extend_from_slice(&chunk.map_err(failed())?.into_bytes());
                if bytes.len() > MAX_ANSWER {
                    break;
                }
            }
        }
        let code = docker.inspect_exec(&id).await.map_err(failed())?.exit_code.unwrap_or(-1);
        Ok(Exec { code, output: String::from_utf8_lossy(&bytes).into_owned() })
    }

    /// The exit code, once the container has ended.
    ///
    /// # Errors
    ///
    /// [`EngineError`].
    pub async fn ended(&self) -> Result<Option<i64>, EngineError> {
        let state = self.inspect().await?.state;
        Ok(state.filter(|state| state.running != Some(true)).and_then(|state| state.exit_code))
    }

    /// podman has a state that Docker does not know, between the end of a container and its cleanup: it is asked again.
    async fn inspect(&self) -> Result<ContainerInspectResponse, EngineError> {
        const TRIES: u32 = 50;
        for _ in 0..TRIES {
            let inspected = self.engine.docker.inspect_container(&self.id, None::<InspectContainerOptions>);
            match inspected.await {
                Err(Api::JsonDataError { .. }) => tokio::time::sleep(Duration::from_millis(50)).await,
                inspected => return inspected.map_err(EngineError::api("inspect a container")),
            }
        }
        Err(EngineError::cut("inspect a container"))
    }

    /// The last lines the container wrote.
    ///
    /// # Errors
    ///
    /// [`EngineError`].
    pub async fn last_words(&self) -> Result<String, EngineError> {
        let options = LogsOptionsBuilder::default().stdout(true).stderr(true).tail("5").build();
        let mut lines = self.engine.docker.logs(&self.id, Some(options));
        let mut text = String::new();
        while let Some(line) = lines.next().await {
            let line: LogOutput = line.map_err(EngineError::api("read what a container wrote"))?;
            text += &String::from_utf8_lossy(&line.into_bytes());
        }
        Ok(text.trim().to_owned())
    }

    /// Stops the container as `docker stop` does, and tells how long that took.
    ///
    /// # Errors
    ///
    /// [`EngineError`].
    pub async fn stop(&self) -> Result<Duration, EngineError> {
        // What it takes to reach the engine does not count.
        self.inspect().await?;
        let begun = Instant::now();
        let options = StopContainerOptionsBuilder::default().t(STOP_SECONDS).build();
        let stopped = self.engine.docker.stop_container(&self.id, Some(options)).await;
        stopped.map_err(EngineError::api("stop a container"))?;
        Ok(begun.elapsed())
    }
}
