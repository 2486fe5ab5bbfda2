//! `ipybox build` on a base in files or of a registry: the image is made on this host alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::FutureExt;

use super::build::{Gathered, How};
use super::lock::Standing;
use super::outcome::{self, Clock, Unwritten};
use super::output::{self, Source};
use super::outside::Outside;
use super::registries::Registries;
use super::sharing::Sharing;
use super::{Asked, Caller, Failure, direct, fresh, push};
use crate::cli::BuildArgs;
use crate::diagnostic::Diagnostic;
use crate::freshness::Stamp;
use crate::oci::store::Store;
use crate::reference::ImageId;
use crate::report;

pub(super) async fn build(
    args: &BuildArgs,
    asked: &Asked,
    outside: &Outside,
    (gathered, secrets): (Gathered, BTreeMap<String, Vec<u8>>),
    sharing: Option<Sharing>,
    mut clock: Clock,
    caller: &mut Caller,
) -> Result<(), Failure> {
    fits(args)?;
    let unwritten =
        |path: &Option<_>| path.as_deref().filter(|_| !args.check).map(Unwritten::new).transpose();
    let (id_file, metadata_file) = (unwritten(&args.iidfile)?, unwritten(&args.metadata_file)?);
    let (stored, base) = asked.stored(outside, caller).await?;
    let stored = Arc::new(stored);
    clock.lap("base");
    let mut planned = asked.plan(base, caller).await?;
    clock.lap("plan");
    let supplies = gathered.with(secrets, asked, &planned.plan, caller)?;
    let forgotten = direct::Forgotten::default();
    let how = How {
        anew: args.no_cache.then_some(&forgotten),
        network: None,
        epoch: None,
        supplies: &supplies,
        sharing: sharing.as_ref(),
    };
    if let (Standing::Stale(_, changes), true) = (&planned.standing, args.check) {
        asked.tell_stale("the lock is not what the list asks for:", changes, &planned, &caller.report);
        return Err(fresh::stale());
    }
    if let Some(why) = direct::here::obstacle(&planned, &how) {
        let what = Diagnostic::new("the image cannot be made without an engine").why(why);
        return Err(Failure::refused(what.advice("build on a base that an engine has")));
    }
    asked.relock(&mut planned, how, caller).await?;
    asked.lock_for_now(&mut planned, how, caller).await?;
    clock.lap("lock");
    let stamp = Stamp::of(&planned.plan);
    let is_anew = args.force || args.no_cache;
    let found = args.output.iter().map(|output| output::fresh(output, &args.tag, &stamp, asked.cache()));
    let found: Vec<Option<ImageId>> = found.map(|found| found.filter(|_| !is_anew)).collect();
    clock.lap("look");
    let stale =
        || args.output.iter().zip(&found).filter(|(_, found)| found.is_none()).map(|(output, _)| output);
    for output in stale() {
        caller.report.note(&format!("`{output}` is not there, or not what is asked for"));
    }
    // Whether a registry has it, the registry is asked.
    let is_fresh = stale().next().is_none() && !args.push;
    if args.check {
        return if is_fresh { Ok(()) } else { Err(fresh::stale()) };
    }
    let image = match found.iter().flatten().next().filter(|_| is_fresh) {
        Some(image) => image.clone(),
        None => {
            let caller = &*caller;
            let made = || direct::here::made(asked, &planned, &stored, how, caller).boxed_local();
            let image = made().await?;
            clock.lap("build");
            let outputs: Vec<_> = stale().collect();
            let source = Source::Made(&image, &made);
            output::write(&outputs, &source, &stamp, &args.tag, asked.cache(), caller).await?;
            clock.lap("write");
            if args.push {
                let store = Store::in_cache(asked.cache());
                let registries = Registries::of(&args.tag, supplies.certificates.as_deref(), caller).await?;
                push::push(&image, &store, &args.tag, &registries, caller).await?;
                clock.lap("push");
            }
            image.id()
        }
    };
    if let Some(file) = metadata_file {
        file.write(&outcome::metadata(&planned, &image, &args.tag, &[], 0, &clock))?;
    }
    if let Some(file) = id_file {
        file.write(image.as_str())?;
    }
    let pushed = args.tag.iter().filter(|_| args.push).map(ToString::to_string);
    let names: Vec<_> = args.output.iter().map(ToString::to_string).chain(pushed).collect();
    let names = names.join(", ");
    caller.report.note(&if is_fresh {
        format!("{names}: up to date")
    } else {
        format!("wrote {names} in {}", report::duration(clock.elapsed()))
    });
    if let Some(sharing) = &sharing {
        sharing.give(&caller.report, &caller.interrupt).await;
    }
    let written = caller.report.result(|out| writeln!(out, "{image}"));
    written.map_err(|error| Failure::unwritable("stdout", &error))
}

/// Refuses what only an engine can do.
fn fits(args: &BuildArgs) -> Result<(), Failure> {
    let refuse = |what: &str, advice: &str| Err(Failure::usage(Diagnostic::new(what).advice(advice)));
    if args.push {
        push::fits(args)?;
    } else if args.output.is_empty() {
        return refuse(
            "an image that is made without an engine has to go to a file or a registry",
            "say where, as `--output type=oci,dest=FILE.tar`, or `--push`",
        );
    }
    let of_engine = [
        ("--verify", args.verify),
        ("--max-size", args.max_size.is_some()),
        ("--pull", args.pull),
        ("--network", args.steps.network.is_some()),
        ("--builder buildkit", args.builder == crate::cli::BuilderChoice::Buildkit),
        ("--dry-run", args.dry_run),
    ];
    match of_engine.into_iter().find(|(_, is_given)| *is_given) {
        Some((option, _)) => {
            let what = format!("`{option}` needs an engine, and an image on such a base is made without one");
            refuse(&what, "leave it out; `ipybox verify` proves the image once an engine has loaded it")
        }
        None => Ok(()),
    }
}
