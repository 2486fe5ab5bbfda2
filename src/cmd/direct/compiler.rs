//! A Python that compiles modules: the image's own, or one of this host.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::pin::Pin as Pinned;
use std::process::Stdio;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::process::{Child, ChildStdout, Command};

use super::{Failure, unassembled};
use crate::archive::Archive;
use crate::engine::{Container, Running};
use crate::inputs::templates::Templates;
use crate::oci::segment::{Entry, Unfinished};
use crate::oci::wheel::bytecode;

/// A Python of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HostPython {
    pub(super) program: PathBuf,
    /// Such as `3.12.8`.
    pub(super) version: String,
}

/// A Python that compiles modules.
pub(super) struct Compiler {
    process: Process,
    input: Pinned<Box<dyn AsyncWrite + Send>>,
    output: BytesMut,
    said: Vec<u8>,
}

/// Where it runs.
enum Process {
    Container(Running),
    Host {
        output: ChildStdout,
        /// Ended when it is dropped.
        _child: Child,
    },
}

/// What stands in place of a length where a module is no Python.
const NOT_PYTHON: u32 = u32::MAX;

/// How it is started: without what a user has set up, and with sets of constants in one order.
const OPTIONS: [&str; 4] = ["-s", "-S", "-B", "-c"];
const SEED: (&str, &str) = ("PYTHONHASHSEED", "0");

fn script(templates: &Templates) -> &str {
    templates.get("build/compile.py").expect("templates are read with all their files")
}

impl Compiler {
    /// The Python of a container.
    pub(super) async fn inside(
        container: &Container,
        python: &str,
        templates: &Templates,
    ) -> Result<Self, Failure> {
        let seed = format!("{}={}", SEED.0, SEED.1);
        let mut command = vec!["/usr/bin/env", "-i", &seed, python];
        command.extend(OPTIONS.into_iter().chain([script(templates), "frames"]));
        let mut running = container.run(&command).await?;
        let input = running.input().ok_or_else(|| unassembled("the image's Python reads nothing"))?;
        Ok(Self { process: Process::Container(running), input, output: BytesMut::new(), said: Vec::new() })
    }

    /// A Python of this host.
    pub(super) fn here(python: &HostPython, templates: &Templates) -> Result<Self, Failure> {
        let mut command = Command::new(&python.program);
        // It would import what lies in the caller's folder.
        command.current_dir("/");
        command.env_clear().env(SEED.0, SEED.1).args(OPTIONS).args([script(templates), "frames"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let what = |error: io::Error| unassembled(&format!("`{}`: {error}", python.program.display()));
        let mut child = command.spawn().map_err(what)?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let (input, output) =
            input.zip(output).ok_or_else(|| unassembled("this host's Python reads nothing"))?;
        let process = Process::Host { output, _child: child };
        Ok(Self { process, input: Box::pin(input), output: BytesMut::new(), said: Vec::new() })
    }

    /// Adds the bytecode of a wheel's modules.
    pub(super) async fn compile(
        &mut self,
        unfinished: &mut Unfinished,
        cache_tag: &str,
    ) -> Result<(), Failure> {
        let asked = self.ask(unfinished.modules(), |number| unfinished.source(number)).await?;
        self.answers(asked, cache_tag, |place, code| {
            let entry = Entry { path: place, size: code.len() as u64, ..Entry::default() };
            unfinished.add(&entry, |out| out.write_all(code))
        })
        .await
    }

    /// Adds the bytecode of the modules in an archive.
    pub(super) async fn compile_all(
        &mut self,
        archive: &mut Archive,
        cache_tag: &str,
    ) -> Result<(), Failure> {
        let modules = archive.texts().filter(|(path, _)| path.strip_suffix(".py").is_some());
        let (paths, sources): (Vec<String>, Vec<Vec<u8>>) =
            modules.map(|(path, text)| (path.to_owned(), text.to_vec())).unzip();
        let asked = self.ask(paths, |number| Ok(sources[number].clone())).await?;
        self.answers(asked, cache_tag, |place, code| {
            archive.add(place, code);
            Ok(())
        })
        .await
    }

    /// Sends modules and their sources, ordered by their folders. In this order they are answered.
    async fn ask(
        &mut self,
        paths: Vec<String>,
        mut source: impl FnMut(usize) -> io::Result<Vec<u8>>,
    ) -> Result<Vec<String>, Failure> {
        let mut modules: Vec<_> = paths.into_iter().enumerate().collect();
        let folder = |path: &str| path.rfind('/').map_or(0, |end| end);
        modules.sort_by(|(_, one), (_, other)| {
            (&one[..folder(one)], one).cmp(&(&other[..folder(other)], other))
        });
        if modules.is_empty() {
            return Ok(Vec::new());
        }
        for (number, path) in &modules {
            let source = source(*number).map_err(failed)?;
            for frame in [format!("/{path}").as_bytes(), &source] {
                let length = u32::try_from(frame.len()).map_err(|error| failed(io::Error::other(error)))?;
                self.input.write_all(&length.to_be_bytes()).await.map_err(failed)?;
                self.input.write_all(frame).await.map_err(failed)?;
            }
        }
        self.input.write_all(&0_u32.to_be_bytes()).await.map_err(failed)?;
        self.input.flush().await.map_err(failed)?;
        Ok(modules.into_iter().map(|(_, path)| path).collect())
    }

    /// Keeps the bytecode of these modules at its places; of two modules with one place that of the first.
    async fn answers(
        &mut self,
        modules: Vec<String>,
        cache_tag: &str,
        mut keep: impl FnMut(&str, &[u8]) -> io::Result<()>,
    ) -> Result<(), Failure> {
        let mut taken = BTreeSet::new();
        for path in modules {
            let length = self.read(4).await?;
            let length = u32::from_be_bytes(length.as_ref().try_into().expect("four bytes were read"));
            if length == NOT_PYTHON {
                continue;
            }
            let code = self.read(usize::try_from(length).unwrap_or(usize::MAX)).await?;
            let place = bytecode(&path, cache_tag);
            if taken.insert(place.clone()) {
                keep(&place, &code).map_err(failed)?;
            }
        }
        Ok(())
    }

    async fn read(&mut self, count: usize) -> Result<Bytes, Failure> {
        while self.output.len() < count {
            let has_ended = match &mut self.process {
                Process::Container(running) => match running.next().await? {
                    Some(piece) if piece.is_error => {
                        self.said.extend_from_slice(&piece.bytes);
                        false
                    }
                    Some(piece) => {
                        self.output.extend_from_slice(&piece.bytes);
                        false
                    }
                    None => true,
                },
                Process::Host { output, .. } => {
                    let read = output.read_buf(&mut self.output).await;
                    read.map_err(|error| unassembled(&error.to_string()))? == 0
                }
            };
            if has_ended {
                let said = String::from_utf8_lossy(&self.said).trim().to_owned();
                return Err(unassembled(&format!("the Python that compiles modules has ended: {said}")));
            }
        }
        Ok(self.output.split_to(count).freeze())
    }
}

#[expect(clippy::needless_pass_by_value, reason = "errors are mapped with it")]
fn failed(error: io::Error) -> Failure {
    unassembled(&format!("Python compiles nothing: {error}"))
}

/// What names of bytecode have in them.
///
/// Rule: Python, `sys.implementation.cache_tag`.
pub(super) fn cache_tag(python: &str) -> String {
    format!("cpython-{}", python.split('.').take(2).collect::<String>())
}
