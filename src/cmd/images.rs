//! `ipybox cleanup`, `images` and `prune`: what this program has left in an engine.

use std::collections::BTreeSet;
use std::time::SystemTime;

use serde_json::json;

use super::sandbox::FOLDER_LABEL;
use super::{Caller, Failure};
use crate::base::Platform;
use crate::cli::{CleanupArgs, DEFAULT_TAG, EngineArgs, ImagesArgs, PruneArgs};
use crate::diagnostic::Diagnostic;
use crate::engine::{Engine, KnownEngines, LastingContainer, ListedImage};
use crate::freshness::{Stamp, newest_step};
use crate::plan::{Installer, VARIANT_LABEL};
use crate::reference::ImageId;
use crate::report::{in_one_line, size};
use crate::sandbox::IMAGE_LABEL;

async fn engine(args: &EngineArgs, caller: &Caller) -> Result<Engine, Failure> {
    super::engine(args, &KnownEngines::default(), caller).await
}

pub(super) async fn cleanup(args: CleanupArgs, caller: &Caller) -> Result<(), Failure> {
    let engine = engine(&args.engine, caller).await?;
    let containers = containers_of(&engine, &args.ancestor).await?;
    if containers.is_empty() {
        caller.report.note(&format!("no containers of `{}`", args.ancestor.escape_debug()));
    }
    for container in containers {
        engine.unless_interrupted(engine.discard(&container.id)).await??;
        let line = format!("{} ({}): removed", container.name, container.id.get(..12).unwrap_or_default());
        let written = caller.report.result(|out| writeln!(out, "{line}"));
        written.map_err(|error| Failure::unwritable("stdout", &error))?;
    }
    Ok(())
}

/// All containers that were made from an image, which may be gone.
async fn containers_of(engine: &Engine, image: &str) -> Result<Vec<LastingContainer>, Failure> {
    let containers = engine.containers_of(image).await?;
    if !containers.is_empty() {
        return Ok(containers);
    }
    if let Some(image) = engine.image(image).await? {
        // podman wants names in full.
        return Ok(engine.containers_of(image.id.as_str()).await?);
    }
    // Of an image that is gone, an engine finds none.
    let mut containers = engine.all_lasting(&[]).await?;
    containers.retain(|container| {
        let LastingContainer { labels, image: name, image_id, .. } = container;
        [labels.get(IMAGE_LABEL), Some(name), Some(image_id)]
            .into_iter()
            .flatten()
            .any(|known| known == image)
    });
    // Scripts that name none ask for nothing in particular.
    if containers.is_empty() && image != DEFAULT_TAG {
        let what = Diagnostic::new(format!("there is no image `{}`", image.escape_debug()));
        let what = what.why("and no container was made from one of that name");
        return Err(Failure::refused(what.advice("look for its name with `ipybox images`")));
    }
    Ok(containers)
}

/// What an image is to this program.
fn kind(image: &ListedImage) -> Option<String> {
    if let Some(variant) = image.labels.get(VARIANT_LABEL) {
        return Some(variant.clone());
    }
    if image.labels.contains_key(FOLDER_LABEL) {
        return Some("of a Dockerfile".to_owned());
    }
    let is_private = |kind: &str| image.names.iter().any(|name| name.starts_with(kind));
    if is_private(INSTALLERS) {
        return Some("installer".to_owned());
    }
    if is_private(FOUNDATIONS) {
        return Some("foundation".to_owned());
    }
    is_private(BASES).then(|| "base".to_owned())
}

/// The name that installers have in an engine, before their version.
const INSTALLERS: &str = "ipybox-uv:";

/// The name of what packages are put on as layers.
const FOUNDATIONS: &str = "ipybox-foundation:";

/// The name by which bases are built on.
const BASES: &str = "ipybox-base:";

/// Where the images have their names that are built for the sandboxes of a project.
const SANDBOXES: &str = "ipybox-sandbox/";

/// A label that podman gives to all it builds.
const PODMAN_LABEL: &str = "io.buildah.version";

pub(super) async fn list(args: ImagesArgs, caller: &Caller) -> Result<(), Failure> {
    let engine = engine(&args.engine, caller).await?;
    let images = engine.unless_interrupted(engine.images()).await??;
    let ours: Vec<_> = images.iter().filter_map(|image| Some((image, kind(image)?))).collect();
    let told = |(image, kind): &(&ListedImage, String)| {
        json!({
            "id": image.id, "names": image.names, "kind": kind, "bytes": image.bytes, "created": image.created,
            "base": base_of(image),
        })
    };
    let written = caller.report.result(|out| {
        if args.json {
            return writeln!(out, "{:#}", json!(ours.iter().map(told).collect::<Vec<_>>()));
        }
        for (image, kind) in &ours {
            let names = if image.names.is_empty() { "no name".to_owned() } else { image.names.join(" ") };
            let (id, age) = (image.id.short(), age(image.created));
            let line = format!("{id}  {kind:15}  {:>9}  {age:>9}  {names}", size(image.bytes));
            writeln!(out, "{}", in_one_line(&caller.report.redacted(&line)))?;
        }
        Ok(())
    });
    written.map_err(|error| Failure::unwritable("stdout", &error))
}

/// How old something is that was made so many seconds after 1970.
fn age(created: i64) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let seconds = i64::try_from(now.as_secs()).unwrap_or_default().saturating_sub(created).max(0);
    match seconds {
        0..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86400),
    }
}

/// The images of this program that were replaced under their names, and that nothing runs.
async fn replaced<'a>(engine: &Engine, images: &'a [ListedImage]) -> Result<Vec<&'a ImageId>, Failure> {
    let containers = engine.all_lasting(&[]).await?;
    let used: BTreeSet<String> = containers.into_iter().map(|container| container.image_id).collect();
    let is_of_dockerfile = |image: &&ListedImage| image.labels.contains_key(FOLDER_LABEL);
    let is_left = |image: &&ListedImage| {
        let is_labelled = image.labels.contains_key(VARIANT_LABEL) || is_of_dockerfile(image);
        let is_nameless = image.names.is_empty() && image.digests.is_empty();
        is_labelled && is_nameless && !used.contains(image.id.as_str())
    };
    let left: Vec<_> = images.iter().filter(is_left).collect();
    let mut recipes = BTreeSet::new();
    if left.iter().any(is_of_dockerfile) {
        let is_of_project = |name: &String| name.trim_start_matches("localhost/").starts_with(SANDBOXES);
        for image in images.iter().filter(is_of_dockerfile) {
            if image.names.iter().any(is_of_project) {
                recipes.extend(Recipe::of(image, engine).await?);
            }
        }
    }
    let mut replaced = Vec::new();
    for image in left {
        let Some(recipe) = Recipe::of(image, engine).await? else { continue };
        // One of a Dockerfile ends with no step of ours, and is known by what replaced it.
        if recipes.contains(&recipe) || recipe.is_stamped(image, engine).await? {
            replaced.push(&image.id);
        }
    }
    Ok(replaced)
}

/// How an image was made. One that is built on it has its labels too, but further steps, or further labels.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Recipe {
    /// Its instructions, the newest first.
    steps: Vec<String>,
    /// The names of its labels: builds may add some without a step.
    labels: BTreeSet<String>,
}

impl Recipe {
    /// That of an image; `None` where it is gone.
    async fn of(image: &ListedImage, engine: &Engine) -> Result<Option<Self>, Failure> {
        let steps = match engine.unless_interrupted(engine.history(&image.id)).await? {
            Err(error) if error.is_not_found() => return Ok(None),
            history => history?.into_iter().map(|layer| layer.command).collect(),
        };
        Ok(Some(Self { steps, labels: image.labels.keys().cloned().collect() }))
    }

    /// Whether its last steps write the labels that an image's stamp speaks of, or its layers are of no step and its newest one
    /// tells of that stamp, and its base has all other labels.
    async fn is_stamped(&self, image: &ListedImage, engine: &Engine) -> Result<bool, Failure> {
        let (Some(stamp), Some(base)) = (Stamp::read(&image.labels), base_of(image)) else {
            return Ok(false);
        };
        let written = stamp.written();
        let is_step = |(step, name): (&String, &String)| {
            let instruction = step.trim_start_matches("/bin/sh -c #(nop) ");
            let label = instruction.strip_prefix("LABEL ").and_then(|label| label.split_once('='));
            label.is_some_and(|(label, _)| label == name)
        };
        let is_of_layers = self.steps.first() == Some(&newest_step(&image.labels));
        let is_of_steps =
            self.steps.len() >= written.len() && self.steps.iter().zip(written.iter().rev()).all(is_step);
        if !is_of_layers && !is_of_steps {
            return Ok(false);
        }
        let inherited = engine.image(&base).await?.map(|base| base.labels).unwrap_or_default();
        let is_known =
            |name: &String| written.contains(name) || inherited.contains_key(name) || name == PODMAN_LABEL;
        Ok(self.labels.iter().all(is_known))
    }
}

/// The id of the base that an image says it was built on.
fn base_of(image: &ListedImage) -> Option<String> {
    let part = Stamp::read(&image.labels)?.parts(&["foundation.base.id"]);
    Some(part.pointer("/foundation/base/id")?.as_str()?.to_owned())
}

pub(super) async fn prune(args: PruneArgs, caller: &Caller) -> Result<(), Failure> {
    let engine = engine(&args.engine, caller).await?;
    let images = engine.unless_interrupted(engine.images()).await??;
    let replaced = replaced(&engine, &images).await?;
    let is_over = |image: &ListedImage| replaced.contains(&&image.id);
    let bases: BTreeSet<String> = images.iter().filter(|image| !is_over(image)).filter_map(base_of).collect();
    let current = installers_of_today();
    let is_needless = |image: &ListedImage, name: &str| {
        name.starts_with(INSTALLERS) && !current.iter().any(|current| current == name)
            || name.starts_with(BASES) && !bases.contains(image.id.as_str())
    };
    let done = if args.dry_run { "would be removed" } else { "removed" };
    let mut freed = 0;
    let tell = |what: &str| {
        let written = caller.report.result(|out| writeln!(out, "{}: {done}", caller.report.redacted(what)));
        written.map_err(|error| Failure::unwritable("stdout", &error))
    };
    for image in &images {
        if is_over(image) {
            if !args.dry_run {
                engine.remove_image(&image.id).await?;
            }
            freed += image.bytes;
            tell(&format!("{} (no name, {})", image.id.short(), size(image.bytes)))?;
        }
        for name in image.names.iter().filter(|name| is_needless(image, name)) {
            if !args.dry_run {
                engine.untag(name).await?;
            }
            tell(name)?;
        }
    }
    if freed > 0 {
        caller.report.note(&format!("at most {} of that were of no other image", size(freed)));
    }
    Ok(())
}

/// The names of installers that builds of this program use.
fn installers_of_today() -> Vec<String> {
    let platform =
        |architecture: &str| Platform { os: "linux".to_owned(), architecture: architecture.to_owned() };
    let installers = ["amd64", "arm64"].map(platform);
    let installers = installers.iter().filter_map(Installer::of);
    installers.map(|installer| installer.private_tag().to_string()).collect()
}
