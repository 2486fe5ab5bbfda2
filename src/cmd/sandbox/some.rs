//! `ipybox sandbox list`, `logs`, `stop`, `down` and `gc`.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write as _};
use std::time::{Duration, SystemTime};

use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::json;

use super::super::{Caller, Failure};
use super::up::token_file;
use super::{Told, found};
use crate::cli::{DownArgs, EngineArgs, GcArgs, ListArgs, LogsArgs, SomeArgs};
use crate::engine::{Engine, KnownEngines, LastingContainer};
use crate::report::in_one_line;
use crate::sandbox::{GIVE_LABEL, Idle, Owner, filter, idle, image_of};

/// How many containers are stopped or removed at once.
const AT_ONCE: usize = 8;

/// How many seconds a container gets to end by itself.
const GRACE: i32 = 5;

async fn engine(args: &EngineArgs, caller: &Caller) -> Result<Engine, Failure> {
    super::super::engine(args, &KnownEngines::default(), caller).await
}

pub(super) async fn list(args: ListArgs, caller: &Caller) -> Result<(), Failure> {
    let engine = engine(&args.engine, caller).await?;
    let mut containers = of(&engine, args.project.as_deref(), args.user.as_deref()).await?;
    containers.retain(|one| Owner::of(one).is_some_and(|owner| owner.container() == one.name));
    let told: Vec<Told> = containers.iter().map(Told::of).collect();
    let written = caller.report.result(|out| {
        if args.json {
            return writeln!(out, "{:#}", json!(told));
        }
        let names = |one: &Told| [in_one_line(&one.project), in_one_line(&one.user)];
        let names: Vec<_> = told.iter().map(names).collect();
        let width = |of: usize| names.iter().map(|names| names[of].chars().count()).max().unwrap_or(0);
        let (project_width, user_width) = (width(0), width(1));
        for (one, [project, user]) in told.iter().zip(&names) {
            let ports: Vec<String> =
                one.ports.iter().map(|(inside, at)| format!("{}→{inside}", at["port"])).collect();
            let line = format!(
                "{project:project_width$}  {user:user_width$}  {:8}  {}  {}",
                one.state,
                in_one_line(&caller.report.redacted(&one.image)),
                ports.join(" ")
            );
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    });
    written.map_err(|error| Failure::unwritable("stdout", &error))
}

pub(super) async fn logs(args: LogsArgs, caller: &Caller) -> Result<(), Failure> {
    let engine = engine(&args.engine, caller).await?;
    let found = found(&engine, &Owner::from(args.owner)).await?;
    let mut pieces = Box::pin(engine.log(&found.container.id, args.tail, args.follow));
    while let Some(piece) = engine.unless_interrupted(pieces.next()).await? {
        let piece = piece?;
        let written = if piece.is_error {
            io::stderr().write_all(&piece.bytes)
        } else {
            let mut out = io::stdout().lock();
            out.write_all(&piece.bytes).and_then(|()| out.flush())
        };
        match written {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            written => written.map_err(|error| Failure::unwritable("stdout", &error))?,
        }
    }
    Ok(())
}

/// Does something to all of these, several at once, and tells of each.
async fn each(
    containers: Vec<LastingContainer>,
    done: &str,
    caller: &Caller,
    work: impl AsyncFn(&LastingContainer) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let work = &work;
    let ended = stream::iter(containers)
        .map(|container| async move {
            work(&container).await?;
            Ok(container)
        })
        .buffer_unordered(AT_ONCE);
    let tell = async |container: LastingContainer| {
        let told = Told::of(&container);
        let (user, project) = (in_one_line(&told.user), in_one_line(&told.project));
        let line = format!("{}: {done} ({user} of {project})", told.name);
        let written = caller.report.result(|out| writeln!(out, "{line}"));
        written.map_err(|error| Failure::unwritable("stdout", &error))
    };
    let all = ended.try_for_each(tell);
    caller.interrupt.run_until_cancelled(all).await.ok_or_else(Failure::interrupted)?
}

pub(super) async fn stop(args: SomeArgs, caller: &Caller) -> Result<(), Failure> {
    let engine = engine(&args.engine, caller).await?;
    let containers = of(&engine, Some(&args.project), args.user.as_deref()).await?;
    none_told(&containers, caller);
    each(containers, "stopped", caller, async |container| Ok(engine.stop(&container.id, GRACE).await?)).await
}

/// Says so where there is none of those that are asked for.
fn none_told(containers: &[LastingContainer], caller: &Caller) {
    if containers.is_empty() {
        caller.report.note("there is no such sandbox");
    }
}

/// The sandboxes of a project, of a user, of both, or all, with those that are to replace one.
async fn of(
    engine: &Engine,
    project: Option<&OsStr>,
    user: Option<&OsStr>,
) -> Result<Vec<LastingContainer>, Failure> {
    let mut containers = engine.unless_interrupted(engine.all_lasting(&filter(project, user))).await??;
    containers.retain(|container| Owner::of(container).is_some());
    Ok(containers)
}

pub(super) async fn down(args: DownArgs, caller: &Caller) -> Result<(), Failure> {
    let cache = caller.cache(args.cache_dir)?;
    let SomeArgs { project, user, engine: wanted } = args.some;
    let engine = engine(&wanted, caller).await?;
    let containers = of(&engine, Some(&project), user.as_deref()).await?;
    none_told(&containers, caller);
    let remove = async |container: &LastingContainer| {
        engine.discard(&container.id).await?;
        let _ = fs::remove_file(token_file(&cache, &container.name));
        Ok(())
    };
    each(containers, "removed", caller, remove).await?;
    if args.volumes {
        for volume in engine.volumes(&filter(Some(&project), user.as_deref())).await? {
            // A killed caller may have left one that was about to give it to its user.
            for container in engine.containers_with(&volume).await? {
                if container.labels.contains_key(GIVE_LABEL) {
                    engine.discard(&container.id).await?;
                }
            }
            engine.remove_volume(&volume).await?;
            let written = caller.report.result(|out| writeln!(out, "{volume}: removed"));
            written.map_err(|error| Failure::unwritable("stdout", &error))?;
        }
    }
    if args.image {
        let name = image_of(&project);
        if engine.image(&name).await?.is_some() {
            engine.untag(&name).await?;
            let written = caller.report.result(|out| writeln!(out, "{name}: removed"));
            written.map_err(|error| Failure::unwritable("stdout", &error))?;
        }
    }
    Ok(())
}

pub(super) async fn gc(args: GcArgs, caller: &Caller) -> Result<(), Failure> {
    let engine = engine(&args.engine, caller).await?;
    let mut unused = Vec::new();
    for container in of(&engine, None, None).await? {
        let since = match container.state.as_str() {
            "running" => unused_for(&engine, &container).await?,
            _ if args.remove => ended_for(&engine, &container).await?,
            _ => None,
        };
        if since.is_some_and(|since| since >= args.idle) {
            unused.push(container);
        }
    }
    let done = match (args.dry_run, args.remove) {
        (true, _) => "not used",
        (false, true) => "removed",
        (false, false) => "stopped",
    };
    each(unused, done, caller, async |container| {
        match (args.dry_run, args.remove) {
            (true, _) => {}
            (false, true) => engine.discard(&container.id).await?,
            (false, false) => engine.stop(&container.id, GRACE).await?,
        }
        Ok(())
    })
    .await
}

/// How long nobody has used a running sandbox; `None` where it is in use, or does not tell.
async fn unused_for(engine: &Engine, container: &LastingContainer) -> Result<Option<Duration>, Failure> {
    Ok(match idle(engine, container).await? {
        Idle::For(time) => Some(time),
        Idle::Busy | Idle::Unknown => None,
    })
}

/// How long one has not run; `None` where it is gone, or runs by now.
async fn ended_for(engine: &Engine, container: &LastingContainer) -> Result<Option<Duration>, Failure> {
    let Some(inspected) = engine.lasting(&container.id).await?.filter(|one| !one.is_running()) else {
        return Ok(None);
    };
    let made =
        SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(container.created).unwrap_or_default());
    Ok(SystemTime::now().duration_since(inspected.finished.unwrap_or(made)).ok())
}
