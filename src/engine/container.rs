//! Containers that run while something is tried, and are gone afterwards.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use bollard::container::LogOutput;
use bollard::exec::{CreateExecOptions, StartExecOptions, StartExecResults};
use bollard::models::{ContainerCreateBody, HostConfig, PortBinding};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, LogsOptionsBuilder,
    RemoveContainerOptionsBuilder, StartContainerOptions, StopContainerOptionsBuilder,
};
use futures_util::StreamExt;

use super::{Engine, EngineError, MAX_ANSWER};
use crate::reference::ImageId;

/// How a container is started. Its command, user and working directory are the image's.
#[derive(Debug, Clone, Default)]
pub struct Start<'a> {
    /// TCP ports that are published on free ports of this host's loopback.
    pub ports: &'a [u16],
    /// Added to the image's environment, as `NAME=VALUE`.
    pub env: &'a [String],
    /// Added to Docker's default capabilities, such as `NET_ADMIN`.
    pub capabilities: &'a [&'a str],
}

/// A running container.
#[derive(Debug)]
pub struct Container {
    engine: Engine,
    id: String,
    ports: HashMap<u16, SocketAddr>,
}

/// What a program run in a container left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exec {
    /// Its exit code.
    pub code: i64,
    /// What it wrote to stdout and stderr, the two mixed.
    pub output: String,
}

/// The label of containers that are removed when their work is done.
const LABEL: &str = "ipybox.verify";

/// Stopping takes longer than this only where SIGTERM is ignored.
const STOP_SECONDS: i32 = 10;

impl Engine {
    /// Starts a container, lets `work` use it, and removes it, whatever came of the work.
    ///
    /// # Errors
    ///
    /// [`EngineError`] of starting and removing it, and of giving up.
    pub async fn with_container<T>(
        &self,
        image: &ImageId,
        start: &Start<'_>,
        work: impl AsyncFnOnce(&Container) -> T,
    ) -> Result<T, EngineError> {
        let bindings = start.ports.iter().map(|port| {
            let loopback = PortBinding {
                host_ip: Some(Ipv4Addr::LOCALHOST.to_string()),
                host_port: Some(String::new()),
            };
            (format!("{port}/tcp"), Some(vec![loopback]))
        });
        let body = ContainerCreateBody {
            image: Some(image.to_string()),
            env: Some(start.env.to_vec()),
            labels: Some(HashMap::from([(LABEL.to_owned(), image.short().to_owned())])),
            exposed_ports: Some(start.ports.iter().map(|port| format!("{port}/tcp")).collect()),
            host_config: Some(HostConfig {
                port_bindings: Some(bindings.collect()),
                cap_add: Some(start.capabilities.iter().map(|&name| name.to_owned()).collect()),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        };
        // A name of ours, so that it can be removed even where the engine's answer is lost.
        let name = format!("{LABEL}-{:016x}", rand::random::<u64>()).replace('.', "-");
        let options = CreateContainerOptionsBuilder::default().name(&name).build();
        let created = self.docker.create_container(Some(options), body).await;
        let mut container = Container { engine: self.clone(), id: name, ports: HashMap::new() };
        let worked = self
            .unless_interrupted(async {
                created.map_err(EngineError::api("create a container"))?;
                container.run().await?;
                Ok::<_, EngineError>(Box::pin(work(&container)).await)
            })
            .await;
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        let removed = self.docker.remove_container(&container.id, Some(options)).await;
        let worked = worked??;
        removed.map_err(EngineError::api("remove a container"))?;
        Ok(worked)
    }
}

impl Container {
    async fn run(&mut self) -> Result<(), EngineError> {
        let docker = &self.engine.docker;
        let started = docker.start_container(&self.id, None::<StartContainerOptions>).await;
        started.map_err(EngineError::api("start a container"))?;
        let inspected = docker.inspect_container(&self.id, None::<InspectContainerOptions>).await;
        let inspected = inspected.map_err(EngineError::api("inspect a container"))?;
        let ports = inspected.network_settings.and_then(|network| network.ports).unwrap_or_default();
        for (name, bindings) in ports {
            let port = name.strip_suffix("/tcp").and_then(|port| port.parse().ok());
            let host = bindings.into_iter().flatten().find_map(|one| one.host_port?.parse().ok());
            if let (Some(port), Some(host)) = (port, host) {
                self.ports.insert(port, SocketAddr::from((Ipv4Addr::LOCALHOST, host)));
            }
        }
        Ok(())
    }

    /// Where a published port is reached; `None` once the container has ended.
    #[must_use]
    pub fn address(&self, port: u16) -> Option<SocketAddr> {
        self.ports.get(&port).copied()
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
        let inspected = self.engine.docker.inspect_container(&self.id, None::<InspectContainerOptions>).await;
        let state = inspected.map_err(EngineError::api("inspect a container"))?.state;
        Ok(state.filter(|state| state.running != Some(true)).and_then(|state| state.exit_code))
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
        let begun = Instant::now();
        let options = StopContainerOptionsBuilder::default().t(STOP_SECONDS).build();
        let stopped = self.engine.docker.stop_container(&self.id, Some(options)).await;
        stopped.map_err(EngineError::api("stop a container"))?;
        Ok(begun.elapsed())
    }
}
