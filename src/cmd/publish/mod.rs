//! `ipybox publish`: the images of a fleet to their registries, and their tags all at once.
//!
//! ```text
//! build ─▶ what is asked of each tag ─▶ verify and push by digest, where no tag names it ─▶ journal ─▶ tags ─▶ record
//! ```

mod bake;
mod bring;
mod ready;
mod shards;
mod tags;
mod written;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::build::show;
use super::fleet::{self, Opened, Outcome};
use super::order::Built;
use super::registries::Registries;
use super::{Caller, Failure, FailureKind};
use crate::cli::{BuildArgs, PublishArgs};
use crate::deps::in_backticks;
use crate::diagnostic::Diagnostic;
use crate::fleet::FILE;
use crate::inputs::trust;
use crate::publish::{Journal, JournalError, Left, Move, Record, Recorded, TagMoved};
use crate::reference::Reference;
use crate::report;
use bring::Publisher;
use shards::Releases;

/// Requests to registries that are under way at once.
const AT_ONCE: usize = 16;

pub(super) async fn run(mut args: PublishArgs, caller: &mut Caller) -> Result<(), Failure> {
    let begun = Instant::now();
    show(args.build.progress, caller)?;
    let file = args.build.file.take().unwrap_or_else(|| FILE.into());
    if let [option, ..] = args.build.of_one.as_slice() {
        let what = Diagnostic::new(format!("`{option}` means nothing to a fleet that is published"));
        return Err(Failure::usage(what.advice(format!("leave it out; `{FILE}` describes the images"))));
    }
    let platform = args.build.image.platform.clone();
    let mut opened = Opened::read(&file, &args.build.names, platform.as_ref(), caller).await?;
    if let Some(shard) = args.shard {
        opened.keep(|tree| shard.has(tree));
        platform.as_ref().map_or(Ok(()), |platform| shards::are_for_several(&opened, platform))?;
    }
    if args.registry.is_some() || args.print_bake.is_none() {
        opened.publish_to(args.registry.as_deref())?;
    }
    if let Some(folder) = args.print_bake.clone() {
        return Box::pin(bake::write(&opened, &args, &folder, caller)).await;
    }
    if args.print_matrix {
        let matrix = opened.fleet.matrix(&opened.chosen, &opened.names);
        let written = caller.report.result(|out| writeln!(out, "{matrix}"));
        return written.map_err(|error| Failure::unwritable("stdout", &error));
    }
    let environment = &caller.environment;
    let certificates =
        trust::bundle(environment.ssl_cert_file.as_deref(), args.build.steps.ca_cert.as_deref())?;
    let published = opened.names.iter().flat_map(|names| &names.published);
    let registries = Registries::of(published, certificates.as_deref(), caller).await?;
    let cache = caller.cache(args.build.image.means.cache_dir.clone())?;
    let hosts: BTreeSet<&str> =
        opened.names.iter().flat_map(|names| &names.published).map(Reference::host).collect();
    let is_here = |name: &Reference| hosts.contains(name.host());
    if args.build.dry_run {
        let left = Left::read(&cache, &file, is_here).map_err(unjournaled)?;
        let foretold = tags::foretold(&left, certificates.as_deref(), args.build.force, caller).await?;
        return dry_run(&opened, foretold, args, &registries, caller).await;
    }
    let mut journal = Journal::open(&cache, &file, is_here).map_err(unjournaled)?;
    tags::finish(&mut journal, certificates.as_deref(), args.build.force, caller).await?;
    // Builds may bring locks up to date: what is published is what was there before them.
    let releases = Releases::of(&opened, &file, &args, &cache, caller).await?;
    let recorded = if args.merge {
        shards::merge(&opened, &args, &releases, &registries, caller).await?
    } else {
        let built = built(&opened, &args, caller).await?;
        let publisher =
            Publisher { args: &args, opened: &opened, releases: &releases, registries: &registries };
        Box::pin(publisher.publish(built, &cache, caller)).await?
    };
    let moves = moves(&recorded);
    let (record, has_moved) = (Record::new(recorded), !moves.is_empty());
    // What cannot be written is found out before anything moves.
    let files = written::Files::open(&args, &record, has_moved)?;
    let moving = tags::move_all(&mut journal, moves, &registries, args.build.force, caller).await;
    if let Err(failure) = moving {
        if !journal.left.here.is_empty() {
            // What cannot be removed keeps nobody from hearing why.
            let _ = files.forget();
        }
        return Err(failure);
    }
    files.write(&record, caller)?;
    if args.merge {
        shards::clear(&opened, &releases, &registries, caller).await?;
    }
    let moved: usize = record.images.iter().map(|image| moved(image).count()).sum();
    let sent: u64 = record.images.iter().flat_map(|image| &image.platforms).map(|part| part.sent).sum();
    caller.report.note(&format!(
        "{} published in {}: {} sent, {}",
        counted(record.images.len(), "image"),
        report::duration(begun.elapsed()),
        report::size(sent),
        if moved == 0 { "no tag moved".to_owned() } else { format!("{} moved", counted(moved, "tag")) },
    ));
    Ok(())
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

#[expect(clippy::needless_pass_by_value, reason = "errors are mapped with it")]
fn unjournaled(error: JournalError) -> Failure {
    let advice = match &error {
        JournalError::Busy => "wait until it is over".to_owned(),
        JournalError::Nonsense(file) => {
            format!(
                "remove it, and look at the tags: a run that was killed may have moved some of them: {}",
                file.display()
            )
        }
        JournalError::Io(..) => "another folder can be named with `--cache-dir`".to_owned(),
    };
    let what = Diagnostic::new("nothing can be published").why(error.to_string());
    Failure::refused(what.advice(advice))
}

/// The tags of an image that name something else now.
fn moved(image: &Recorded) -> impl Iterator<Item = &TagMoved> {
    image.tags.iter().filter(|tag| tag.is_moved(&image.digest))
}

/// Tags that are there before those that are new: what fails with them has made nothing that stays.
fn moves(recorded: &[Recorded]) -> Vec<Move> {
    let of_image = |image: &Recorded| {
        let moves = moved(image).map(|tag| Move {
            name: tag.name.clone(),
            before: tag.before.clone(),
            after: image.digest.clone(),
        });
        moves.collect::<Vec<_>>()
    };
    let mut moves: Vec<Move> = recorded.iter().flat_map(of_image).collect();
    moves.sort_by_key(|one| one.before.is_none());
    moves
}

/// The images that are published, all of them there.
async fn built(
    opened: &Opened,
    args: &PublishArgs,
    caller: &mut Caller,
) -> Result<BTreeMap<usize, Built>, Failure> {
    let build = BuildArgs { force: false, ..args.build.clone() };
    let outcomes = Box::pin(fleet::build(opened, build, caller)).await?;
    if caller.interrupt.is_cancelled() {
        return Err(Failure::interrupted());
    }
    if let Some(failure) = fleet::failure(opened, &outcomes) {
        let mut failure = failure;
        failure.diagnostics.iter_mut().for_each(|what| {
            *what = what.clone().why(format!("{}; nothing was pushed, and no tag has moved", what.why));
        });
        return Err(failure);
    }
    let there = |(index, outcome)| match outcome {
        Outcome::There(Some(built)) => Some((index, built)),
        _ => None,
    };
    Ok(outcomes.into_iter().filter_map(there).collect())
}

/// Says what would be done, behind what is said of earlier runs. Registries are asked for nothing but what their tags name.
async fn dry_run(
    opened: &Opened,
    mut text: String,
    args: PublishArgs,
    registries: &Registries,
    caller: &mut Caller,
) -> Result<(), Failure> {
    let build = BuildArgs { check: true, dry_run: false, force: false, ..args.build };
    let outcomes = Box::pin(fleet::build(opened, build, caller)).await?;
    if caller.interrupt.is_cancelled() {
        return Err(Failure::interrupted());
    }
    for (index, names) in opened.chosen.iter().zip(&opened.names) {
        let image = &opened.fleet.images[*index];
        let state = match &outcomes[index] {
            Outcome::There(_) => "up to date".to_owned(),
            Outcome::Failed(FailureKind::ToDo) => "to be built".to_owned(),
            Outcome::Failed(_) => "cannot be built".to_owned(),
            Outcome::NotBegun(Some(parent)) => format!("to be built on {}", opened.fleet.images[*parent].id),
            Outcome::NotBegun(None) => "not looked at".to_owned(),
        };
        text += &format!("{}: {state}\n", image.id);
        let now = tags::named_now(&names.published, registries).await?;
        for (name, now) in names.published.iter().zip(now) {
            let now = now.map_or("is new".to_owned(), |now| format!("names {}", now.digest));
            text += &format!("  {name} {now}\n");
        }
    }
    let written = caller.report.result(|out| out.write_all(text.as_bytes()));
    written.map_err(|error| Failure::unwritable("stdout", &error))?;
    let real: Vec<&str> = outcomes
        .iter()
        .filter(|(_, outcome)| matches!(outcome, Outcome::Failed(kind) if *kind != FailureKind::ToDo))
        .map(|(index, _)| opened.fleet.images[*index].id.as_str())
        .collect();
    if real.is_empty() {
        return Ok(());
    }
    let what = Diagnostic::new(format!("{} cannot be built", in_backticks(real.into_iter())));
    Err(Failure::refused(what.why("as told above")))
}
