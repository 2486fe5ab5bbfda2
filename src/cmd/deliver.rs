//! What is there already of what is asked for, and a complete image on its way to where it is wanted.

use super::fresh::{self, Found};
use super::outcome::Clock;
use super::output::{self, Source};
use super::registries::Registries;
use super::{Asked, Caller, Failure, Planned, push};
use crate::cli::{BuildArgs, Output};
use crate::engine::Engine;
use crate::freshness::Stamp;
use crate::oci::store::Store;
use crate::reference::ImageId;
use crate::report;
use crate::supply::Supplies;

/// What is there already of what is asked for.
pub(super) struct Looked {
    /// Under the tags.
    pub(super) found: Vec<Found>,
    /// In files and folders.
    pub(super) in_files: Vec<Option<ImageId>>,
    /// Whether nothing is left to do.
    pub(super) is_fresh: bool,
    /// The image, where it need not be built.
    pub(super) there: Option<ImageId>,
}

/// Looks, and tells why there is something to do.
pub(super) async fn looked(
    args: &BuildArgs,
    engine: &Engine,
    asked: &Asked,
    planned: &Planned<'_>,
    needs_engine: bool,
    caller: &Caller,
) -> Result<Looked, Failure> {
    let stamp = Stamp::of(&planned.plan);
    let found = fresh::look(engine, &args.tag, &stamp, asked.cache()).await?;
    let is_anew = args.force || args.no_cache;
    let in_file = |output| output::fresh(output, &args.tag, &stamp, asked.cache()).filter(|_| !is_anew);
    let in_files: Vec<_> = args.output.iter().map(in_file).collect();
    let is_fresh = found.iter().all(|found| found.fresh().is_some()) && in_files.iter().all(Option::is_some);
    let in_file = in_files.iter().flatten().next().filter(|_| is_fresh && !needs_engine);
    let there = found.iter().find_map(Found::fresh).or(in_file).filter(|_| !is_anew).cloned();
    if args.check || there.is_none() && !args.force {
        fresh::tell(&found, &args.tag, asked, planned, &caller.report);
        for (output, _) in args.output.iter().zip(&in_files).filter(|(_, found)| found.is_none()) {
            caller.report.note(&format!("`{output}` is not there, or not what is asked for"));
        }
    }
    Ok(Looked { found, in_files, is_fresh, there })
}

impl Looked {
    /// What came of the command, in words.
    pub(super) fn outcome(&self, args: &BuildArgs, clock: &Clock) -> String {
        let outputs = args.output.iter().map(ToString::to_string);
        let names: Vec<_> = args.tag.iter().map(ToString::to_string).chain(outputs).collect();
        let names = names.join(", ");
        match (self.there.is_some(), self.is_fresh) {
            (true, true) => format!("{names}: up to date"),
            (true, false) => format!("{names}: tagged, and up to date"),
            (false, _) => format!("built {names} in {}", report::duration(clock.elapsed())),
        }
    }
}

/// An image that is complete, and goes to where it is wanted.
pub(super) struct Delivered<'a> {
    pub(super) engine: &'a Engine,
    pub(super) image: &'a ImageId,
    pub(super) planned: &'a Planned<'a>,
    pub(super) looked: &'a Looked,
}

impl Delivered<'_> {
    /// Writes it to files, pushes it, and then moves its tags. Told is what the files hold.
    pub(super) async fn deliver(
        &self,
        args: &BuildArgs,
        (asked, supplies): (&Asked, &Supplies),
        is_dated: bool,
        clock: &mut Clock,
        caller: &Caller,
    ) -> Result<Option<ImageId>, Failure> {
        let Self { engine, image, planned, looked } = *self;
        let (plan, cache) = (&planned.plan, asked.cache());
        let unwritten = args.output.iter().zip(&looked.in_files).filter(|(_, found)| found.is_none());
        let unwritten: Vec<&Output> = unwritten.map(|(output, _)| output).collect();
        let mut held = looked.in_files.iter().flatten().next().cloned();
        if !unwritten.is_empty() {
            let source = Source::Engine(engine, image, plan);
            held = output::write(&unwritten, &source, &Stamp::of(plan), &args.tag, cache, caller).await?;
            clock.lap("write");
        }
        if args.push {
            let store = Store::in_cache(cache);
            let registries = Registries::of(&args.tag, supplies.certificates.as_deref(), caller).await?;
            let unpacked = output::unpacked(engine, image, &store).await?;
            let elsewhere = push::elsewhere(unpacked, &args.tag, &registries, caller).await?;
            let whole = output::taken(engine, image, plan, &store, &elsewhere).await?;
            push::push(&whole, &store, &args.tag, &registries, caller).await?;
            clock.lap("push");
        }
        for (tag, found) in args.tag.iter().zip(&looked.found) {
            if found.fresh() != Some(image) || is_dated {
                engine.tag(image, tag).await?;
            }
        }
        clock.lap("tag");
        Ok(held)
    }

    /// Who asked for files alone has no use for the image in the engine, whatever came of it.
    pub(super) async fn clear(&self, args: &BuildArgs, asked: &Asked) {
        if args.tag.is_empty() && self.looked.there.is_none() {
            asked.leave(self.engine, self.image).await;
        }
    }
}
