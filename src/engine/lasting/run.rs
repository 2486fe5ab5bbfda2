//! Programs that are run in a container that lasts.

use std::pin::Pin;
use std::time::Duration;

use bollard::errors::Error as Api;
use bollard::exec::{CreateExecOptions, ResizeExecOptions, StartExecOptions, StartExecResults};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use tokio::io::AsyncWrite;
use tokio::time::{Instant, timeout_at};

use super::{Engine, EngineError, error};

/// A program that is run in a container.
#[derive(Debug, Clone, Default)]
pub struct Run<'a> {
    /// The container's name or id.
    pub container: &'a str,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Added to the container's environment, as `NAME=VALUE`.
    pub env: Vec<String>,
    /// Who it runs as; as the container does if there is none.
    pub user: Option<&'a str>,
    /// Where it begins, from the root; where the container's commands do if there is none.
    pub workdir: Option<&'a str>,
    /// Whether it is given something to read.
    pub has_input: bool,
    /// Whether it gets a terminal.
    pub has_terminal: bool,
}

/// A program that runs in a container.
pub struct Running {
    engine: Engine,
    id: String,
    output: Pin<Box<dyn Stream<Item = Result<Piece, Api>> + Send>>,
    input: Option<Pin<Box<dyn AsyncWrite + Send>>>,
    /// When it is looked whether the program has ended although somebody holds its output open.
    look: Instant,
}

/// A piece of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Whether it was written to stderr.
    pub is_error: bool,
    /// What was written.
    pub bytes: Bytes,
}

/// How much output is taken at once, in bytes.
const CAPACITY: usize = 64 << 10;

/// How long nothing is written before it is looked whether the program has ended.
const SILENCE: Duration = Duration::from_millis(250);

/// How long the engine may take to notice that a program has ended.
const LATE: Duration = Duration::from_millis(5);

impl Engine {
    /// Starts a program in a container; `None` where there is no such container, or it does not run.
    ///
    /// # Errors
    ///
    /// [`EngineError`], also where the program cannot be started.
    pub async fn run(&self, run: Run<'_>) -> Result<Option<Running>, EngineError> {
        let Run { container, command, env, user, workdir, has_input, has_terminal } = run;
        let options = CreateExecOptions {
            cmd: Some(command),
            env: Some(env),
            user: user.map(str::to_owned),
            working_dir: workdir.map(str::to_owned),
            attach_stdin: Some(has_input),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            tty: Some(has_terminal),
            ..CreateExecOptions::default()
        };
        let id = match self.docker.create_exec(container, options).await {
            Ok(created) => created.id,
            Err(error) if matches!(error::status(&error), Some(404 | 409)) => return Ok(None),
            Err(error) => return Err(EngineError::api("run a program in a container")(error)),
        };
        let options = StartExecOptions { detach: false, tty: has_terminal, output_capacity: Some(CAPACITY) };
        let started = self.docker.start_exec(&id, Some(options)).await;
        match started.map_err(EngineError::api("run a program in a container"))? {
            StartExecResults::Attached { output, input } => Ok(Some(Running {
                engine: self.clone(),
                id,
                output: Box::pin(output.map(|chunk| chunk.map(Piece::of))),
                input: has_input.then_some(input),
                look: Instant::now() + SILENCE,
            })),
            StartExecResults::Detached => unreachable!("it was not asked to be detached"),
        }
    }

    /// Runs a program to its end, and returns its exit code and what it wrote; `None` as [`Engine::run`].
    ///
    /// # Errors
    ///
    /// [`EngineError`].
    pub async fn ran(&self, run: Run<'_>) -> Result<Option<(i64, String)>, EngineError> {
        let Some(mut running) = self.run(run).await? else { return Ok(None) };
        let mut bytes = Vec::new();
        while let Some(piece) = running.next().await? {
            if bytes.len() < super::super::MAX_ANSWER {
                bytes.extend_from_slice(&piece.bytes);
            }
        }
        Ok(Some((running.exit_code().await?, String::from_utf8_lossy(&bytes).into_owned())))
    }
}

impl Running {
    /// The next piece of its output; `None` once it has ended. What it left running may hold the output open, and is not
    /// waited for.
    ///
    /// # Errors
    ///
    /// [`EngineError`].
    pub async fn next(&mut self) -> Result<Option<Piece>, EngineError> {
        loop {
            match timeout_at(self.look, self.output.next()).await {
                Ok(Some(Ok(piece))) => {
                    self.look = Instant::now() + SILENCE;
                    return Ok(Some(piece));
                }
                Ok(Some(Err(source))) => return Err(EngineError::api("read what a program writes")(source)),
                Ok(None) => return Ok(None),
                Err(_) => {
                    self.look = Instant::now() + SILENCE;
                    if self.ended().await?.is_some() {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// What it reads, once.
    pub fn input(&mut self) -> Option<Pin<Box<dyn AsyncWrite + Send>>> {
        self.input.take()
    }

    /// Gives its terminal a size, in characters. Where that fails it keeps the one it has.
    pub async fn resize(&self, columns: u16, rows: u16) {
        let size = ResizeExecOptions { width: columns, height: rows };
        let _ = self.engine.docker.resize_exec(&self.id, size).await;
    }

    /// How it ended, which is waited for.
    ///
    /// # Errors
    ///
    /// [`EngineError`].
    pub async fn exit_code(&self) -> Result<i64, EngineError> {
        loop {
            match self.ended().await? {
                Some(code) => return Ok(code),
                None => tokio::time::sleep(LATE).await,
            }
        }
    }

    async fn ended(&self) -> Result<Option<i64>, EngineError> {
        let inspected = self.engine.docker.inspect_exec(&self.id).await;
        let inspected = inspected.map_err(EngineError::api("ask how a program ended"))?;
        Ok(inspected.exit_code.filter(|_| inspected.running != Some(true)))
    }
}
