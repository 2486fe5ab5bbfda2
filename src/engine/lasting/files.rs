//! Files in and out of a container that lasts.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::path::Path;
use std::pin::pin;

use bollard::errors::Error as Api;
use bollard::query_parameters::{
    ContainerArchiveInfoOptionsBuilder, DownloadFromContainerOptionsBuilder, InspectContainerOptions,
    UploadToContainerOptionsBuilder,
};
use futures_util::future::{Either, select};
use futures_util::{StreamExt, TryStreamExt};
use tokio::io::AsyncWriteExt;

use super::{Engine, EngineError, Run, WRITABLE, error};
use crate::archive::Archive;
use crate::engine::build::session::chunks;

impl Engine {
    /// Whether a container has something at a path; links are not followed.
    ///
    /// # Errors
    ///
    /// [`EngineError`].
    pub async fn has_file(&self, container: &str, path: &str) -> Result<bool, EngineError> {
        let options = ContainerArchiveInfoOptionsBuilder::default().path(path).build();
        match self.docker.get_container_archive_info(container, Some(options)).await {
            Ok(_) => Ok(true),
            Err(error) if error::status(&error) == Some(404) => Ok(false),
            Err(error) => Err(EngineError::api("look for a file of a container")(error)),
        }
    }

    /// Puts files into a folder of a container. False where there is no such folder, or no container.
    ///
    /// # Errors
    ///
    /// [`EngineError`], also where a file would replace a folder, or the other way round.
    pub async fn put(&self, container: &str, folder: &str, files: Archive) -> Result<bool, EngineError> {
        let is_read_only = self.is_read_only(container).await?;
        if !is_in_memory(folder, is_read_only) {
            let body = chunks(files.clone(), &self.dialer.host).map_ok(bytes::Bytes::from);
            let options = UploadToContainerOptionsBuilder::default()
                .path(folder)
                .no_overwrite_dir_non_dir("true")
                .build();
            let put =
                self.docker.upload_to_container(container, Some(options), bollard::body_try_stream(body));
            match put.await {
                Ok(()) => return Ok(true),
                Err(error) if error::message(&error).contains("not a directory") => return Ok(false),
                Err(error) if error::status(&error) == Some(404) && !is_read_only => return Ok(false),
                // What is reached by a link may be writable all the same.
                Err(error) if error::status(&error) == Some(404) => {}
                Err(error) if error::message(&error).contains("read-only") => {}
                Err(error) => return Err(EngineError::api(PUTTING)(error)),
            }
        }
        let way = if self.is_local() { "-xof" } else { "-xzof" };
        let words: Vec<&str> = [folder, way].into_iter().chain(files.top_directories()).collect();
        let programs = programs(UNPACK, UNPACK_IN_PYTHON, &words);
        let put = self.moved(container, programs, PUTTING, Moved::In(files)).await?;
        put.ok_or_else(|| refused(PUTTING, NO_PROGRAM.to_owned()))
    }

    /// Writes a file or folder of a container as a tar archive, as engines have it; false where there is none.
    ///
    /// # Errors
    ///
    /// [`EngineError`], also where nothing can be written.
    pub async fn get(&self, container: &str, path: &str, mut to: impl Write) -> Result<bool, EngineError> {
        let options = DownloadFromContainerOptionsBuilder::default().path(path).build();
        let mut chunks = self.docker.download_from_container(container, Some(options));
        while let Some(chunk) = chunks.next().await {
            let chunk = match chunk {
                Ok(chunk) => chunk,
                Err(error) if error::status(&error) == Some(404) => return Ok(false),
                Err(error) => return Err(EngineError::api(GETTING)(error)),
            };
            to.write_all(&chunk).map_err(unkept)?;
        }
        Ok(true)
    }

    /// Writes a file or folder of a container as [`Engine::get`], or as only programs in the container have it.
    ///
    /// # Errors
    ///
    /// [`EngineError`], also where nothing can be written.
    pub async fn get_from_within(&self, container: &str, path: &str, to: &File) -> Result<bool, EngineError> {
        let is_in_memory = is_in_memory(path, self.is_read_only(container).await?);
        if !is_in_memory && self.get(container, path, to).await? {
            return Ok(true);
        }
        let whole = Path::new("/").join(path);
        let names = (whole.parent().and_then(Path::to_str), whole.file_name().and_then(|name| name.to_str()));
        let (Some(folder), Some(name)) = names else { return Ok(false) };
        let programs = programs(PACK, PACK_IN_PYTHON, &[folder, name]);
        match self.moved(container, programs, GETTING, Moved::Out(to)).await? {
            Some(found) => Ok(found),
            None if is_in_memory => {
                emptied(to).map_err(unkept)?;
                self.get(container, path, to).await
            }
            None => Ok(false),
        }
    }

    /// Whether a container's root cannot be written.
    async fn is_read_only(&self, container: &str) -> Result<bool, EngineError> {
        match self.docker.inspect_container(container, None::<InspectContainerOptions>).await {
            Ok(inspected) => Ok(inspected.host_config.and_then(|host| host.readonly_rootfs) == Some(true)),
            Err(error) if error::status(&error) == Some(404) => Ok(false),
            Err(error) => Err(EngineError::api("inspect a container")(error)),
        }
    }

    /// Moves an archive by the first of these programs that the container has: false where the program does not find what
    /// is asked for, `None` where there is no program.
    async fn moved(
        &self,
        container: &str,
        programs: [Vec<String>; 2],
        doing: &'static str,
        moved: Moved<'_>,
    ) -> Result<Option<bool>, EngineError> {
        for command in programs {
            let has_input = matches!(moved, Moved::In(_));
            let env = vec![PATH.to_owned()];
            let run = Run { container, command, env, has_input, ..Run::default() };
            let Some(mut running) = self.run(run).await? else { return Ok(Some(false)) };
            let input = running.input();
            let fed = pin!(async {
                let (Moved::In(files), Some(mut input)) = (&moved, input) else { return Ok(()) };
                let mut chunks = chunks(files.clone(), &self.dialer.host);
                while let Some(chunk) = chunks.next().await {
                    // How the program ends says why it reads no more.
                    if input.write_all(&chunk?).await.is_err() {
                        break;
                    }
                }
                let _ = input.shutdown().await;
                io::Result::Ok(())
            });
            let ended = pin!(async {
                if let Moved::Out(to) = moved {
                    emptied(to).map_err(unkept)?;
                }
                let mut said = Vec::new();
                while let Some(piece) = running.next().await? {
                    if let (&Moved::Out(mut to), false) = (&moved, piece.is_error) {
                        to.write_all(&piece.bytes).map_err(unkept)?;
                    } else if said.len() < MOST_SAID {
                        said.extend_from_slice(&piece.bytes);
                    }
                }
                Ok::<_, EngineError>((running.exit_code().await?, said))
            });
            let (code, said) = match select(ended, fed).await {
                Either::Left((ended, _)) => ended?,
                Either::Right((fed, ended)) => {
                    fed.map_err(|error| refused(doing, error.to_string()))?;
                    ended.await?
                }
            };
            match code {
                0 => return Ok(Some(true)),
                ABSENT => return Ok(Some(false)),
                126 | 127 => {}
                _ => {
                    let said = String::from_utf8_lossy(&said);
                    return Err(refused(doing, said.lines().take(MOST_LINES).collect::<Vec<_>>().join("; ")));
                }
            }
        }
        Ok(None)
    }
}

/// Where programs are that nobody in a container may have changed.
pub const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What is moved by a program in a container.
enum Moved<'a> {
    In(Archive),
    Out(&'a File),
}

const PUTTING: &str = "put files into a container";
const GETTING: &str = "read a file of a container";

const NO_PROGRAM: &str = "engines put nothing into what is read-only or in memory, and the container has neither a shell \
    with `tar` nor `python3` to do so; mount a folder instead";

/// Unpacks what it reads into a folder. tar would remove files where folders of the archive are to be.
const UNPACK: &str = "\
    [ -d \"$1\" ] || exit 44; folder=$1; way=$2; shift 2; \
    for name; do [ ! -e \"$folder/$name\" ] || [ -d \"$folder/$name\" ] || { \
        echo \"$folder/$name is there, and no folder\"; exit 1; }; done; \
    command -v tar >/dev/null && exec tar \"$way\" - -C \"$folder\"; exec python3 -c \"$0\" \"$folder\"";
const UNPACK_IN_PYTHON: &str = "\
import os, sys, tarfile
os.path.isdir(sys.argv[1]) or sys.exit(44)
with tarfile.open(fileobj=sys.stdin.buffer, mode='r|*') as tar:
    tar.extraction_filter = lambda member, path: member
    tar.extractall(sys.argv[1])
";

/// Packs what is in a folder by some name.
const PACK: &str = "\
    cd \"$1\" 2>/dev/null && { [ -e \"./$2\" ] || [ -L \"./$2\" ]; } || exit 44; \
    command -v tar >/dev/null && exec tar -cf - \"./$2\"; exec python3 -c \"$0\" \"$1\" \"$2\"";
const PACK_IN_PYTHON: &str = "\
import os, sys, tarfile
path = os.path.join(*sys.argv[1:])
os.path.lexists(path) or sys.exit(44)
with tarfile.open(fileobj=sys.stdout.buffer, mode='w|') as tar:
    tar.add(path, sys.argv[2])
";

/// How these end where there is no such folder or file.
const ABSENT: i64 = 44;

/// How much of what they say is kept, in bytes, and told, in lines.
const MOST_SAID: usize = 4000;
const MOST_LINES: usize = 4;

/// A script as a shell runs it, and as Python does where there is no shell.
fn programs(script: &str, python: &str, words: &[&str]) -> [Vec<String>; 2] {
    [&["/bin/sh", "-c", script, python][..], &["python3", "-c", python]]
        .map(|program| [program, words].concat().into_iter().map(str::to_owned).collect())
}

/// Whether a path of a container is in memory. Engines find there what its image has.
fn is_in_memory(path: &str, is_read_only: bool) -> bool {
    let path = Path::new("/").join(path);
    path.starts_with("/dev") || is_read_only && WRITABLE.iter().any(|(place, _)| path.starts_with(place))
}

fn emptied(mut file: &File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()
}

fn unkept(err: io::Error) -> EngineError {
    EngineError::api("keep a file of a container")(Api::IOError { err })
}

fn refused(doing: &'static str, error: String) -> EngineError {
    EngineError::api(doing)(Api::DockerStreamError { error })
}
