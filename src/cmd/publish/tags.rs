//! Tags of registries that move all at once, or not at all.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt, stream};

use super::super::push::failed;
use super::super::registries::Registries;
use super::super::{Caller, Failure};
use super::{AT_ONCE, counted, unjournaled};
use crate::diagnostic::Diagnostic;
use crate::publish::{Journal, Left, Move, Standing};
use crate::reference::Reference;
use crate::registry::{Descriptor, Manifest};

/// How often tags are moved and looked at again, at most.
const ROUNDS: usize = 4;

/// The least time until whoever looked at a tag before it moved has moved it, too.
const SETTLED: Duration = Duration::from_millis(250);

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

/// Finishes what a run that was killed has left in registries of this one: all that its tags are to name had been pushed by
/// then. Where the registry has lost some of it, tags go back to what they named.
pub(super) async fn finish(
    journal: &mut Journal,
    certificates: Option<&[u8]>,
    force: bool,
    caller: &Caller,
) -> Result<(), Failure> {
    for run in &journal.left.elsewhere {
        caller.report.note(&waiting(run));
    }
    let moves = journal.left.here.clone();
    let Some(first) = moves.first() else { return Ok(()) };
    caller.report.note(&format!(
        "an earlier run was stopped while {} moved; it is finished first",
        counted(moves.len(), "tag")
    ));
    let place = first.name.canonical();
    let finished = Box::pin(finished(journal, moves, certificates, force, caller)).await;
    finished.map_err(|mut failure| {
        if journal.left.here.is_empty() {
            return failure;
        }
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
    moves: Vec<Move>,
    certificates: Option<&[u8]>,
    force: bool,
    caller: &Caller,
) -> Result<(), Failure> {
    let registries = &Registries::of(moves.iter().map(|one| &one.name), certificates, caller).await?;
    let looking = are_lost(&moves, registries);
    if caller.interrupt.run_until_cancelled(looking).await.ok_or_else(Failure::interrupted)?? {
        caller.report.note("the registry no longer has all of what was pushed: the tags go back");
        back(&moves, registries, caller).await?;
        return journal.end().map_err(unjournaled);
    }
    let begun = moves.clone();
    moved(journal, (moves, begun), registries, force, caller).await
}

/// Whether something that tags were to name is no longer there.
async fn are_lost(moves: &[Move], registries: &Registries) -> Result<bool, Failure> {
    let looking = stream::iter(moves).map(async |one| {
        let repository = registries.repository(&one.name)?;
        repository.head(&one.after).await.map(|there| there.is_none()).map_err(failed)
    });
    Ok(looking.buffered(AT_ONCE).try_collect::<Vec<bool>>().await?.contains(&true))
}

/// What of another registry's is not over.
fn waiting(run: &[Move]) -> String {
    let host = run.first().map_or("", |one| one.name.host());
    let tags = counted(run.len(), "tag");
    format!(
        "an earlier run was stopped while {tags} of `{host}` moved; the next one that goes there finishes it"
    )
}

/// Says what the next run would do with what earlier ones have left.
pub(super) async fn foretold(
    left: &Left,
    certificates: Option<&[u8]>,
    force: bool,
    caller: &Caller,
) -> Result<String, Failure> {
    let mut text = String::new();
    if !left.here.is_empty() {
        let tags = counted(left.here.len(), "tag");
        text += &format!("an earlier run was stopped while {tags} moved; the next one finishes it first:\n");
        let registries = &Registries::of(left.here.iter().map(|one| &one.name), certificates, caller).await?;
        let looking = stream::iter(&left.here).map(async |one| looked_at(one, registries).await);
        let standing: Vec<(Standing, _)> = looking.buffered(AT_ONCE).try_collect().await?;
        let is_elsewhere = |(standing, _): &(Standing, _)| *standing == Standing::Elsewhere;
        let goes_back = if are_lost(&left.here, registries).await? {
            text += "  the registry no longer has all of what was pushed: the tags go back\n";
            true
        } else if !force && standing.iter().any(is_elsewhere) {
            text += "  somebody else has moved one of them: without `--force` the others go back, and nothing is published\n";
            true
        } else {
            false
        };
        for (Move { name, before, after }, (standing, _)) in left.here.iter().zip(standing) {
            let becomes = match (standing, goes_back, before) {
                (Standing::After, true, Some(before)) => format!("would name {before} again"),
                (Standing::After, true, None) => "would be removed".to_owned(),
                (Standing::After, false, _) => format!("names {after} already"),
                (Standing::Before | Standing::Elsewhere, true, _) => "stays where it is".to_owned(),
                (Standing::Before | Standing::Elsewhere, false, _) => format!("would name {after}"),
            };
            text += &format!("  {name} {becomes}\n");
        }
    }
    for run in &left.elsewhere {
        text += &format!("{}\n", waiting(run));
    }
    Ok(text)
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
    moved(journal, (moves, Vec::new()), registries, force, caller).await
}

/// The same, where some may have been moved by an earlier run.
async fn moved(
    journal: &mut Journal,
    (moves, mut begun): (Vec<Move>, Vec<Move>),
    registries: &Registries,
    force: bool,
    caller: &Caller,
) -> Result<(), Failure> {
    journal.begin(moves).map_err(unjournaled)?;
    let moved = Box::pin(all_moved(journal, &mut begun, registries, force, caller)).await;
    let Err(mut failure) = moved else { return journal.end().map_err(unjournaled) };
    match Box::pin(back(&begun, registries, caller)).await {
        Ok(ends) => {
            let now = match (ends.contains(&End::Others), ends.contains(&End::Stays)) {
                (false, false) => "all tags name what they did before",
                (true, false) => {
                    "what others have moved stays where it is, and all other tags name what they did before"
                }
                (false, true) => {
                    "new tags stay, since their registry removes none, and all others name what they did before"
                }
                (true, true) => {
                    "what others have moved and new tags stay, and all others name what they did before"
                }
            };
            failure.diagnostics.iter_mut().for_each(|what| {
                let why = if what.why.is_empty() { String::new() } else { format!("{}; ", what.why) };
                *what = what.clone().why(format!("{why}{now}"));
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

/// Moves all tags until all are seen to name what they are to: two that publish at once may both move one, and whoever gives
/// up moves it back.
async fn all_moved(
    journal: &mut Journal,
    begun: &mut Vec<Move>,
    registries: &Registries,
    force: bool,
    caller: &Caller,
) -> Result<(), Failure> {
    for _ in 0..ROUNDS {
        if Box::pin(each_moved(journal, begun, registries, force, caller)).await? == 0 {
            return Ok(());
        }
    }
    let what = Diagnostic::new("somebody else moves the same tags at the same time");
    let why = format!("they named something else each of {ROUNDS} times that they were looked at");
    Err(Failure::refused(what.why(why).advice("wait until the other run is over, and run the same again")))
}

/// Moves one after the other, and tells how many; `begun` are those that this run or an earlier one may have moved, and those
/// that others have. A move that has begun comes to its end.
///
/// Registries know no better than to look first. Of two who move the first tag at once one finds that of the other there a
/// moment later, before any other has moved.
async fn each_moved(
    journal: &mut Journal,
    begun: &mut Vec<Move>,
    registries: &Registries,
    force: bool,
    caller: &Caller,
) -> Result<usize, Failure> {
    let mut manifests: BTreeMap<String, Manifest> = BTreeMap::new();
    let mut count = 0;
    for place in 0..journal.left.here.len() {
        if caller.interrupt.is_cancelled() {
            return Err(Failure::interrupted());
        }
        let mut one = journal.left.here[place].clone();
        let is_first = begun.is_empty();
        let began = Instant::now();
        let (standing, now) = looked_at(&one, registries).await?;
        begun.retain(|known| standing == Standing::After || known.name != one.name);
        match standing {
            Standing::After => continue,
            Standing::Elsewhere if !force => {
                let why = moved_meanwhile(&one, now.as_deref());
                begun.push(one);
                return Err(why);
            }
            Standing::Elsewhere => {
                // Where it goes back to, if it has to.
                one.before = now;
                let mut moves = journal.left.here.clone();
                moves[place] = one.clone();
                journal.begin(moves).map_err(unjournaled)?;
            }
            Standing::Before => {}
        }
        begun.push(one.clone());
        let key = format!("{}@{}", one.name.canonical(), one.after);
        if !manifests.contains_key(&key) {
            manifests.insert(key.clone(), manifest(&one, &one.after, registries).await?);
        }
        let repository = registries.repository(&one.name)?;
        repository.tag(tag_of(&one.name), &manifests[&key]).await.map_err(failed)?;
        count += 1;
        if is_first && !force {
            let settled = tokio::time::sleep(SETTLED.max(began.elapsed() * 2));
            caller.interrupt.run_until_cancelled(settled).await;
            let (standing, now) = looked_at(&one, registries).await?;
            if standing == Standing::Elsewhere {
                return Err(moved_meanwhile(&one, now.as_deref()));
            }
        }
    }
    Ok(count)
}

/// Where a tag stands, and what it names now.
async fn looked_at(one: &Move, registries: &Registries) -> Result<(Standing, Option<String>), Failure> {
    let now = registries.repository(&one.name)?.head(tag_of(&one.name)).await.map_err(failed)?;
    let now = now.map(|now| now.digest);
    Ok((one.standing(now.as_deref()), now))
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

/// What became of a tag that was to go back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// It names what it did before, or is gone as it was.
    Before,
    /// Others have moved it.
    Others,
    /// It is new, and its registry removes no tags.
    Stays,
}

/// Lets tags that have moved name again what they did. Those of others are left alone; one that cannot be moved keeps no other
/// from it.
async fn back(moves: &[Move], registries: &Registries, caller: &Caller) -> Result<Vec<End>, Failure> {
    let going = stream::iter(moves.iter().rev()).map(async |one| moved_back(one, registries, caller).await);
    let gone: Vec<Result<End, Failure>> = going.buffer_unordered(AT_ONCE).collect().await;
    let ends = gone.iter().flatten().copied().collect();
    let mut failures = gone.into_iter().filter_map(Result::err);
    let Some(mut first) = failures.next() else { return Ok(ends) };
    first.diagnostics.extend(failures.flat_map(|failure| failure.diagnostics));
    Err(first)
}

async fn moved_back(one: &Move, registries: &Registries, caller: &Caller) -> Result<End, Failure> {
    let (repository, tag) = (registries.repository(&one.name)?, tag_of(&one.name));
    match (looked_at(one, registries).await?.0, &one.before) {
        (Standing::Before, _) => Ok(End::Before),
        (Standing::Elsewhere, _) => Ok(End::Others),
        (Standing::After, Some(before)) => {
            let manifest = manifest(one, before, registries).await?;
            repository.tag(tag, &manifest).await.map_err(failed)?;
            Ok(End::Before)
        }
        (Standing::After, None) if repository.remove(tag).await.map_err(failed)? => Ok(End::Before),
        (Standing::After, None) => {
            caller.report.warning(
                &format!("`{}` is new, and stays: its registry removes no tags", one.name),
                "nobody knew it before; it names an image that is whole",
            );
            Ok(End::Stays)
        }
    }
}
