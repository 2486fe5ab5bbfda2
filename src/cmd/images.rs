//! `ipybox cleanup`, `images` and `prune`: what this program has left in an engine.

use std::collections::BTreeSet;
use std::time::SystemTime;

use serde_json::json;

use super::sandbox::FOLDER_LABEL;
use super::{Caller, Failure};
use crate::base::Platform;
use crate::cli::{CleanupArgs, EngineArgs, ImagesArgs, PruneArgs};
use crate::engine::{Engine, KnownEngines, ListedImage};
use crate::freshness::Stamp;
use crate::plan::{Installer, VARIANT_LABEL};
use crate::report::size;

async fn engine(args: &EngineArgs, caller: &Caller) -> Result<Engine, Failure> {
    super::engine(args, &KnownEngines::default(), caller).await
}

pub(super) async fn cleanup(args: CleanupArgs, caller: &Caller) -> Result<(), Failure> {
    let engine = engine(&args.engine, caller).await?;
    for container in engine.containers_of(&args.ancestor).await? {
        engine.unless_interrupted(engine.discard(&container.id)).await??;
        let line = format!("{} ({}): removed", container.name, container.id.get(..12).unwrap_or_default());
        let written = caller.report.result(|out| writeln!(out, "{line}"));
        written.map_err(|error| Failure::unwritable("stdout", &error))?;
    }
    Ok(())
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
    is_private(BASES).then(|| "base".to_owned())
}

/// The name that installers have in an engine, before their version.
const INSTALLERS: &str = "ipybox-uv:";

/// The name by which bases are built on.
const BASES: &str = "ipybox-base:";

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
            writeln!(out, "{}", caller.report.redacted(&line))?;
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

/// The id of the base that an image says it was built on.
fn base_of(image: &ListedImage) -> Option<String> {
    let part = Stamp::read(&image.labels)?.parts(&["foundation.base.id"]);
    Some(part.pointer("/foundation/base/id")?.as_str()?.to_owned())
}

pub(super) async fn prune(args: PruneArgs, caller: &Caller) -> Result<(), Failure> {
    let engine = engine(&args.engine, caller).await?;
    let images = engine.unless_interrupted(engine.images()).await??;
    let used: BTreeSet<String> =
        engine.all_lasting(&[]).await?.into_iter().map(|container| container.image_id).collect();
    let is_ours = |image: &ListedImage| {
        image.labels.contains_key(VARIANT_LABEL) || image.labels.contains_key(FOLDER_LABEL)
    };
    // An image that was replaced under its name, and that nothing runs.
    let is_over =
        |image: &ListedImage| is_ours(image) && image.names.is_empty() && !used.contains(image.id.as_str());
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
