//! `ipybox cache`: what is kept on this host for layers that no step makes.

use std::io;

use serde_json::json;

use super::{Caller, Failure};
use crate::cli::{CacheCommand, CacheFolder, CacheInfoArgs, CachePruneArgs, CacheVerifyArgs};
use crate::oci::store::Store;
use crate::report::size;

pub(super) fn run(command: CacheCommand, caller: &Caller) -> Result<(), Failure> {
    match command {
        CacheCommand::Info(args) => info(args, caller),
        CacheCommand::Verify(args) => verify(args, caller),
        CacheCommand::Prune(args) => prune(args, caller),
    }
}

fn store(folder: CacheFolder, caller: &Caller) -> Result<Store, Failure> {
    Ok(Store::in_cache(&caller.cache(folder.cache_dir)?))
}

fn unusable(error: &io::Error) -> Failure {
    Failure::unwritable("the cache", error)
}

fn info(args: CacheInfoArgs, caller: &Caller) -> Result<(), Failure> {
    let held = store(args.folder, caller)?.held().map_err(|error| unusable(&error))?;
    let written = caller.report.result(|out| {
        if args.json {
            return writeln!(out, "{:#}", json!(held));
        }
        held.iter().try_for_each(|(kind, held)| {
            writeln!(out, "{kind:8}  {:>6}  {:>9}", held.count, size(held.bytes))
        })
    });
    written.map_err(|error| Failure::unwritable("stdout", &error))
}

fn verify(args: CacheVerifyArgs, caller: &Caller) -> Result<(), Failure> {
    let spoilt = store(args.folder, caller)?.verify().map_err(|error| unusable(&error))?;
    for key in &spoilt {
        let written =
            caller.report.result(|out| writeln!(out, "{key}: was not what it was, and is forgotten"));
        written.map_err(|error| Failure::unwritable("stdout", &error))?;
    }
    if spoilt.is_empty() {
        caller.report.note("everything is what it was");
    }
    Ok(())
}

fn prune(args: CachePruneArgs, caller: &Caller) -> Result<(), Failure> {
    let freed = store(args.folder, caller)?.prune(args.keep).map_err(|error| unusable(&error))?;
    caller.report.note(&format!("{} are free", size(freed)));
    Ok(())
}
