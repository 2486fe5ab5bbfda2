//! Files that programs read after a build: its image's id, and what is known of it.

use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;
use tempfile::NamedTempFile;

use super::{Failure, Planned};
use crate::deps::Name;
use crate::engine::Layer;
use crate::reference::{ImageId, Reference};

/// A file that is there whole, or not at all. That it can be written is found out before the work, not after it.
pub(super) struct Unwritten {
    path: PathBuf,
    /// In the same folder; pipes and devices are written as they are.
    beside: Option<NamedTempFile>,
}

impl Unwritten {
    /// One in place of what was there before, which is gone: nobody takes the file of another build for that of one that
    /// fails.
    pub(super) fn new(path: &Path) -> Result<Self, Failure> {
        let unwritten = Self::over(path)?;
        unwritten.forget()?;
        Ok(unwritten)
    }

    /// One in place of what was there before, which stays until this is written, or cannot be.
    pub(super) fn over(path: &Path) -> Result<Self, Failure> {
        let failed = |error: io::Error| Failure::unwritable(&format!("`{}`", path.display()), &error);
        match fs::metadata(path) {
            Ok(found) if found.is_dir() => return Err(failed(io::ErrorKind::IsADirectory.into())),
            Ok(found) if !found.is_file() => return Ok(Self { path: path.to_owned(), beside: None }),
            _ => {}
        }
        let folder = match path.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        let mut builder = tempfile::Builder::new();
        let beside =
            builder.permissions(Permissions::from_mode(0o666)).tempfile_in(folder).map_err(failed)?;
        Ok(Self { path: path.to_owned(), beside: Some(beside) })
    }

    /// Removes what was there before, which is no longer so.
    pub(super) fn forget(&self) -> Result<(), Failure> {
        match self.beside.as_ref().map(|_| fs::remove_file(&self.path)) {
            Some(Err(error)) if error.kind() != io::ErrorKind::NotFound => Err(self.failed(&error)),
            _ => Ok(()),
        }
    }

    pub(super) fn write(mut self, text: &str) -> Result<(), Failure> {
        let written = match self.beside.take() {
            None => fs::write(&self.path, text),
            Some(mut beside) => beside
                .write_all(text.as_bytes())
                .and_then(|()| beside.persist(&self.path).map(drop).map_err(io::Error::from))
                .inspect_err(|_| drop(fs::remove_file(&self.path))),
        };
        written.map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &io::Error) -> Failure {
        Failure::unwritable(&format!("`{}`", self.path.display()), error)
    }
}

/// How long each part of a command took.
pub(super) struct Clock {
    begun: Instant,
    lap: Instant,
    laps: Vec<(&'static str, Duration)>,
}

impl Clock {
    pub(super) fn start() -> Self {
        let now = Instant::now();
        Self { begun: now, lap: now, laps: Vec::new() }
    }

    /// What began with the last call, or the start, is over.
    pub(super) fn lap(&mut self, what: &'static str) {
        let now = Instant::now();
        self.laps.push((what, now - std::mem::replace(&mut self.lap, now)));
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }
}

/// What `--metadata-file` gets.
///
/// Rule: `docs/messages.md`.
#[derive(Serialize)]
struct Metadata<'a> {
    version: u32,
    ipybox: &'a str,
    image: &'a ImageId,
    tags: Vec<String>,
    variant: &'a str,
    base: BaseOf<'a>,
    platform: String,
    python: &'a str,
    installer: String,
    from_source: Vec<&'a str>,
    context_bytes: u64,
    layers: Vec<Size<'a>>,
    seconds: serde_json::Map<String, serde_json::Value>,
}

#[derive(Serialize)]
struct BaseOf<'a> {
    reference: String,
    image: &'a ImageId,
}

#[derive(Serialize)]
struct Size<'a> {
    step: &'a str,
    bytes: u64,
}

/// The title of one of our steps, or the beginning of another instruction.
pub(super) fn title(command: &str) -> &str {
    const MOST: usize = 120;
    let titled = command.split_once(": \"").and_then(|(_, rest)| rest.split_once("\" && "));
    let end = command.char_indices().nth(MOST).map_or(command.len(), |(end, _)| end);
    titled.map_or(&command[..end], |(title, _)| title)
}

/// The text of that file: layers from the base's on, without those that hold nothing.
pub(super) fn metadata(
    Planned { plan, base, .. }: &Planned<'_>,
    image: &ImageId,
    tags: &[Reference],
    layers: &[Layer],
    context_bytes: u64,
    clock: &Clock,
) -> String {
    let foundation = &plan.foundation;
    let seconds = |time: Duration| ((time.as_secs_f64() * 1000.0).round() / 1000.0).into();
    let laps = clock.laps.iter().map(|&(what, time)| (what, time));
    let sizes = layers.iter().rev().filter(|layer| layer.bytes > 0);
    let metadata = Metadata {
        version: 1,
        ipybox: &plan.ipybox,
        image,
        tags: tags.iter().map(ToString::to_string).collect(),
        variant: &plan.variant,
        base: BaseOf { reference: foundation.base.reference.to_string(), image: &foundation.base.id },
        platform: base.platform.to_string(),
        python: &foundation.interpreter.version,
        installer: foundation.installer.to_string(),
        from_source: plan.packages.unbuilt.keys().map(Name::as_str).collect(),
        context_bytes,
        layers: sizes.map(|Layer { command, bytes }| Size { step: title(command), bytes: *bytes }).collect(),
        seconds: laps
            .chain([("total", clock.elapsed())])
            .map(|(what, time)| (what.to_owned(), seconds(time)))
            .collect(),
    };
    format!("{:#}\n", serde_json::json!(metadata))
}
