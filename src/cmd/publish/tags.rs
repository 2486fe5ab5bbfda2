//! Tags of registries that move all at once, or not at all.

use std::collections::BTreeMap;

use futures_util::{StreamExt, TryStreamExt, stream};

use super::super::push::failed;
use super::super::registries::Registries;
use super::super::{Caller, Failure};
use super::{AT_ONCE, counted, unjournaled};
use crate::diagnostic::Diagnostic;
use crate::publish::{Journal, Move, Standing};
use crate::reference::Reference;
use crate::registry::{Descriptor, Manifest};

/// What tags name now: each is asked once.
pub(super) async fn named_now(
    names: &[Reference],
    registries: &Registries,
) -> Result<Vec<Option<Descriptor>>, Failure> {
    let asking = names.iter().map(async |name| {
        let repository = registries.repository(name)?;
        repository.head(tag_of(name)).await.map_err(failed)
    });
    stream::iter(asking).buffered(AT_ONCE).try_collect().await
}

fn tag_of(name: &Reference) -> &str {
    name.tag().unwrap_or("latest")
}

/// Finishes what a run that was killed has left: all that its tags are to name had been pushed by then. Where the registry has
/// lost some of it, tags go back to what they named.
pub(super) async fn finish(
    journal: &mut Journal,
    certificates: Option<&[u8]>,
    force: bool,
    caller: &Caller,
) -> Result<(), Failure> {
    if journal.moves.is_empty() {
        return Ok(());
    }
    caller.report.note(&format!(
        "an earlier run was stopped while {} moved; it is finished first",
        counted(journal.moves.len(), "tag")
    ));
    let finished = Box::pin(finished(journal, certificates, force, caller)).await;
    finished.map_err(|mut failure| {
        let place = journal.moves.first().map_or(String::new(), |one| one.name.canonical());
        let what = Diagnostic::new("what an earlier run has begun is not finished");
        let why =
            format!("its tags are those of `{place}` and others, as `{}` says", journal.file().display());
        failure.diagnostics.push(
            what.why(why)
                .advice("run the same again later; where that registry is gone for good, remove the file"),
        );
        failure
    })
}

async fn finished(
    journal: &mut Journal,
    certificates: Option<&[u8]>,
    force: bool,
    caller: &Caller,
) -> Result<(), Failure> {
    let moves = journal.moves.clone();
    let registries = &Registries::of(moves.iter().map(|one| &one.name), certificates, caller).await?;
    let looking = stream::iter(&moves).map(async |one| {
        let repository = registries.repository(&one.name)?;
        repository.head(&one.after).await.map(|there| there.is_none()).map_err(failed)
    });
    let looking = looking.buffered(AT_ONCE).try_collect::<Vec<bool>>();
    let lost = caller.interrupt.run_until_cancelled(looking).await.ok_or_else(Failure::interrupted)??;
    if lost.contains(&true) {
        caller.report.note("the registry no longer has all of what was pushed: the tags go back");
        back(&moves, registries, caller).await?;
        return journal.end().map_err(unjournaled);
    }
    move_all(journal, moves, registries, force, caller).await
}

/// Moves tags, each a moment after it was seen to be where it was. What fails moves all of them back.
pub(super) async fn move_all(
    journal: &mut Journal,
    moves: Vec<Move>,
    registries: &Registries,
    force: bool,
    caller: &Caller,
) -> Result<(), Failure> {
    if moves.is_empty() {
        return Ok(());
    }
    journal.begin(moves).map_err(unjournaled)?;
    let mut begun = Vec::new();
    let moved = Box::pin(each_moved(journal, &mut begun, registries, force, caller)).await;
    let Err(mut failure) = moved else { return journal.end().map_err(unjournaled) };
    match Box::pin(back(&begun, registries, caller)).await {
        Ok(()) => {
            failure.diagnostics.iter_mut().for_each(|what| {
                let why = if what.why.is_empty() { String::new() } else { format!("{}; ", what.why) };
                *what = what.clone().why(format!("{why}all tags name what they did before"));
            });
            journal.end().map_err(unjournaled)?;
        }
        Err(worse) => {
            failure.diagnostics.extend(worse.diagnostics);
            let what = Diagnostic::new("not all tags name what they did before");
            failure.diagnostics.push(what.advice("run the same again: it finishes what was begun"));
        }
    }
    Err(failure)
}

/// Moves one after the other; `begun` are those that may have moved. A move that has begun comes to its end.
async fn each_moved(
    journal: &mut Journal,
    begun: &mut Vec<Move>,
    registries: &Registries,
    force: bool,
    caller: &Caller,
) -> Result<(), Failure> {
    let mut manifests: BTreeMap<String, Manifest> = BTreeMap::new();
    for place in 0..journal.moves.len() {
        if caller.interrupt.is_cancelled() {
            return Err(Failure::interrupted());
        }
        let mut one = journal.moves[place].clone();
        let repository = registries.repository(&one.name)?;
        let now = repository.head(tag_of(&one.name)).await.map_err(failed)?.map(|now| now.digest);
        match one.standing(now.as_deref()) {
            Standing::After => continue,
            Standing::Elsewhere if !force => return Err(moved_meanwhile(&one, now.as_deref())),
            Standing::Elsewhere => {
                // Where it goes back to, if it has to.
                one.before = now;
                let mut moves = journal.moves.clone();
                moves[place] = one.clone();
                journal.begin(moves).map_err(unjournaled)?;
            }
            Standing::Before => {}
        }
        let key = format!("{}@{}", one.name.canonical(), one.after);
        if !manifests.contains_key(&key) {
            manifests.insert(key.clone(), manifest(&one, &one.after, registries).await?);
        }
        begun.push(one.clone());
        repository.tag(tag_of(&one.name), &manifests[&key]).await.map_err(failed)?;
    }
    Ok(())
}

async fn manifest(one: &Move, digest: &str, registries: &Registries) -> Result<Manifest, Failure> {
    let found = registries.repository(&one.name)?.manifest(digest).await.map_err(failed)?;
    found.ok_or_else(|| {
        let what = format!("the registry no longer has `{digest}` of `{}`", one.name.canonical());
        Failure::refused(Diagnostic::new(what).why("somebody has removed it meanwhile"))
    })
}

fn moved_meanwhile(one: &Move, now: Option<&str>) -> Failure {
    let what = Diagnostic::new(format!("somebody else has moved `{}` meanwhile", one.name));
    let why = match (&one.before, now) {
        (_, None) => "it is gone".to_owned(),
        (Some(before), Some(now)) => format!("it named {before}, and names {now}"),
        (None, Some(now)) => format!("it was not there, and names {now}"),
    };
    Failure::refused(what.why(why).advice("look at it and run the same again, or move it with `--force`"))
}

/// Lets tags that have moved name again what they did. Those of others are left alone; one that cannot be moved keeps no other
/// from it.
async fn back(moves: &[Move], registries: &Registries, caller: &Caller) -> Result<(), Failure> {
    let going = stream::iter(moves.iter().rev()).map(async |one| moved_back(one, registries, caller).await);
    let gone: Vec<Result<(), Failure>> = going.buffer_unordered(AT_ONCE).collect().await;
    let mut failures = gone.into_iter().filter_map(Result::err);
    let Some(mut first) = failures.next() else { return Ok(()) };
    first.diagnostics.extend(failures.flat_map(|failure| failure.diagnostics));
    Err(first)
}

async fn moved_back(one: &Move, registries: &Registries, caller: &Caller) -> Result<(), Failure> {
    let repository = registries.repository(&one.name)?;
    let tag = tag_of(&one.name);
    let now = repository.head(tag).await.map_err(failed)?.map(|now| now.digest);
    if one.standing(now.as_deref()) != Standing::After {
        return Ok(());
    }
    match &one.before {
        Some(before) => {
            let manifest = manifest(one, before, registries).await?;
            repository.tag(tag, &manifest).await.map_err(failed)
        }
        None => {
            if !repository.remove(tag).await.map_err(failed)? {
                caller.report.warning(
                    &format!("`{}` is new, and stays: its registry removes no tags", one.name),
                    "nobody knew it before; it names an image that is whole",
                );
            }
            Ok(())
        }
    }
}
