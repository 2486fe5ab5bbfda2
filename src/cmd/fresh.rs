//! Whether the images under tags are what a plan asks for, told to the caller.

use std::fs;
use std::path::{Path, PathBuf};

use futures_util::future::try_join_all;
use serde::Serialize;

use super::{Asked, Failure, FailureKind, Planned};
use crate::deps::Name;
use crate::diagnostic::Diagnostic;
use crate::engine::{Engine, EngineError, Image};
use crate::freshness::{Change, FINGERPRINT_LABEL, Stamp};
use crate::reference::{ImageId, Reference};
use crate::report::Report;

/// What is under a tag.
#[derive(Debug)]
pub(super) enum Found {
    /// What is asked for.
    Fresh(ImageId),
    /// One of ours, of another plan.
    Changed(Vec<Change>),
    /// Nothing.
    Gone,
    /// Something that was not built from a plan, or that somebody changed since.
    Foreign,
}

impl Found {
    /// The image that is what is asked for.
    pub(super) fn fresh(&self) -> Option<&ImageId> {
        match self {
            Self::Fresh(image) => Some(image),
            _ => None,
        }
    }
}

/// What is under each of the tags, each asked once.
pub(super) async fn look(
    engine: &Engine,
    tags: &[Reference],
    wanted: &Stamp,
    cache: &Path,
) -> Result<Vec<Found>, EngineError> {
    try_join_all(tags.iter().map(async |tag| {
        let Some(image) = engine.image(&tag.to_string()).await? else { return Ok(Found::Gone) };
        Ok(match stamp_of(engine, &image, cache).await? {
            Some(stamp) if stamp == *wanted => Found::Fresh(image.id),
            Some(stamp) => Found::Changed(stamp.changes(wanted)),
            None => Found::Foreign,
        })
    }))
    .await
}

/// Tells why tags need a build.
pub(super) fn tell(
    found: &[Found],
    tags: &[Reference],
    asked: &Asked,
    planned: &Planned<'_>,
    report: &Report,
) {
    for (found, tag) in found.iter().zip(tags) {
        match found {
            Found::Fresh(_) => {}
            Found::Gone => report.note(&format!("{tag} is not there yet")),
            Found::Foreign => {
                report.note(&format!("{tag} is an image that was not built by ipybox, or was changed since"));
            }
            Found::Changed(changes) => {
                let lines = lines(&placed(changes, asked, planned));
                report.note(&format!("{tag} is of another plan:\n{}", lines.join("\n")));
            }
        }
    }
}

/// What an image says it was built from, where it is just that: one that was built on it, or made from a container of it,
/// has its labels as well.
pub(super) async fn stamp_of(
    engine: &Engine,
    image: &Image,
    cache: &Path,
) -> Result<Option<Stamp>, EngineError> {
    let Some(stamp) = Stamp::read(&image.labels) else { return Ok(None) };
    if known(cache, &image.id).exists() {
        return Ok(Some(stamp));
    }
    let history = engine.history(&image.id).await?;
    let is_ours = ends_with(history.iter().map(|layer| layer.command.as_str()), &stamp.fingerprint());
    if is_ours {
        remember(cache, &image.id);
    }
    Ok(is_ours.then_some(stamp))
}

/// Whether steps, the newest first, write labels and nothing after them, this fingerprint among them.
fn ends_with<'a>(steps: impl Iterator<Item = &'a str>, fingerprint: &str) -> bool {
    let mut last = steps.take_while(|command| command.contains("LABEL "));
    last.any(|command| command.contains(FINGERPRINT_LABEL) && command.contains(fingerprint))
}

/// Keeps in mind that an image is just what its labels say. Where that fails, the engine is asked once more.
pub(super) fn remember(cache: &Path, image: &ImageId) {
    let known = known(cache, image);
    let made = known.parent().map_or(Ok(()), fs::create_dir_all);
    let _ = made.and_then(|()| fs::write(known, ""));
}

fn known(cache: &Path, image: &ImageId) -> PathBuf {
    cache.join("images").join(image.as_str().trim_start_matches("sha256:"))
}

/// A change, and where the entry is that it is about.
#[derive(Serialize)]
pub(super) struct Placed<'a> {
    #[serde(flatten)]
    change: &'a Change,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
}

impl Placed<'_> {
    /// The distribution it is about.
    pub(super) fn entry(&self) -> Option<Name> {
        self.change.entry.as_deref().and_then(Name::parse)
    }

    /// In words.
    pub(super) fn what(&self) -> &str {
        &self.change.what
    }

    /// File and line, where it is about an entry that stands there.
    pub(super) fn place(&self) -> Option<String> {
        Some(format!("{}:{}", self.file.as_ref()?, self.line?))
    }
}

/// Changes at the lines of the list.
pub(super) fn placed<'a>(changes: &'a [Change], asked: &Asked, planned: &Planned<'_>) -> Vec<Placed<'a>> {
    let place = |change: &'a Change| {
        let name = change.entry.as_deref().and_then(Name::parse);
        let entry = name.and_then(|name| planned.needed.iter().find(|entry| entry.name == name));
        let place = entry.and_then(|entry| asked.inputs.documents.find(&entry.at));
        let (file, line) = place.map(|place| (place.document.name().into_owned(), place.line())).unzip();
        Placed { change, file, line }
    };
    changes.iter().map(place).collect()
}

/// Lines that tell of changes; those that follow from others are indented.
pub(super) fn lines(changes: &[Placed<'_>]) -> Vec<String> {
    let line = |placed: &Placed<'_>| {
        let place = placed.place().map_or(String::new(), |place| format!(" ({place})"));
        format!("{}{}{place}", if placed.change.follows { "    so " } else { "  " }, placed.what())
    };
    changes.iter().map(line).collect()
}

/// A check that found something to build.
pub(super) fn stale() -> Failure {
    let what = Diagnostic::new("there is something to build").advice("run the same without `--check`");
    Failure { kind: FailureKind::ToDo, ..Failure::refused(what) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::freshness::newest_step;

    #[test]
    fn an_image_is_known_by_its_history_whichever_way_it_was_made() {
        let labels = BTreeMap::from([(FINGERPRINT_LABEL.to_owned(), "abc".to_owned())]);
        let direct = newest_step(&labels);
        for (steps, is_ours) in [
            (vec![direct.as_str(), "2 packages: a b"], true),
            (vec!["LABEL ipybox.plan=x", "LABEL ipybox.fingerprint=abc", "RUN x"], true),
            // One that was built on it, has its labels, and is something else.
            (vec!["RUN x", &direct], false),
            (vec!["LABEL of ipybox ipybox.fingerprint=abd"], false),
            (vec!["LABEL of ipybox"], false),
            (vec![], false),
        ] {
            assert_eq!(ends_with(steps.iter().copied(), "abc"), is_ours, "{steps:?}");
        }
    }
}
