//! An image that is to be built: from what was read for it to what came of it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use tokio::sync::{Mutex, Semaphore, SemaphorePermit};

use super::build::{Gathered, How, made, normalised, time, wheels_within, within};
use super::deliver::{Delivered, looked};
use super::lock::Standing;
use super::outcome::{self, Clock, Unwritten};
use super::sharing::Sharing;
use super::{Asked, Caller, Failure, Planned, direct, fresh, lock, push, verify};
use crate::archive::EPOCH;
use crate::cli::BuildArgs;
use crate::diagnostic::Diagnostic;
use crate::engine::{Builder, Engine};
use crate::plan::{Foundation, Plan};
use crate::reference::ImageId;

/// An image that is to be built, and everything that was read for it before anything is contacted.
pub(super) struct Order {
    pub(super) args: BuildArgs,
    pub(super) asked: Asked,
    pub(super) gathered: Gathered,
    pub(super) secrets: BTreeMap<String, Vec<u8>>,
    pub(super) clock: Clock,
}

/// What builds have in common that go on side by side.
pub(super) struct Together {
    pub(super) engine: Engine,
    pub(super) sharing: Option<Sharing>,
    /// One for each build that may use the engine's builder, or resolve packages.
    turns: Semaphore,
    /// One image at a time is pulled and looked at: others have the same base.
    bases: Mutex<()>,
    /// Of what is made anew.
    forgotten: direct::Forgotten,
    /// Locks that are brought up to date, each by one image at a time.
    locks: std::sync::Mutex<BTreeMap<PathBuf, Arc<Mutex<()>>>>,
}

/// What came of a build.
pub(super) struct Built {
    pub(super) image: ImageId,
    /// Whether it was there already.
    pub(super) was_there: bool,
    pub(super) plan: Box<Plan>,
}

impl Together {
    pub(super) fn new(engine: Engine, sharing: Option<Sharing>, jobs: usize) -> Self {
        Self {
            engine,
            sharing,
            turns: Semaphore::new(jobs),
            bases: Mutex::new(()),
            forgotten: direct::Forgotten::default(),
            locks: std::sync::Mutex::default(),
        }
    }

    /// Waits for a turn, where a build has none yet.
    async fn turn<'a>(
        &'a self,
        turn: &mut Option<SemaphorePermit<'a>>,
        caller: &Caller,
    ) -> Result<(), Failure> {
        if turn.is_none() {
            let next = caller.interrupt.run_until_cancelled(self.turns.acquire()).await;
            *turn = Some(next.ok_or_else(Failure::interrupted)?.expect("nobody closes it"));
        }
        Ok(())
    }

    /// Brings the lock of a plan up to date where it is stale, alone among the images that share it.
    async fn relock<'a>(
        &'a self,
        (asked, how): (&Asked, How<'_>),
        planned: &mut Planned<'_>,
        turn: &mut Option<SemaphorePermit<'a>>,
        caller: &Caller,
    ) -> Result<(), Failure> {
        let (Standing::Stale(..), Some(file)) = (&planned.standing, lock::place(&asked.request)) else {
            return Ok(());
        };
        let lock = self.locks.lock().unwrap_or_else(PoisonError::into_inner).entry(file).or_default().clone();
        let alone = caller.interrupt.run_until_cancelled(lock.lock()).await;
        let _alone = alone.ok_or_else(Failure::interrupted)?;
        self.turn(turn, caller).await?;
        // Another image may have brought it up to date meanwhile.
        planned.standing = Standing::Unlocked;
        asked.hold(planned, caller)?;
        asked.relock(planned, how, caller).await
    }
}

impl Order {
    pub(super) async fn read(mut args: BuildArgs, caller: &mut Caller) -> Result<Self, Failure> {
        let clock = Clock::start();
        let gathered = Gathered::of(&args.steps, &mut args.image, caller)?;
        let asked = Asked::read(args.image.clone(), caller).await?;
        let secrets = asked.secrets(&caller.report)?;
        Ok(Self { args, asked, gathered, secrets, clock })
    }

    /// The order of what is asked for in other ways than by options that describe an image.
    pub(super) fn of(
        args: BuildArgs,
        asked: Asked,
        gathered: Gathered,
        caller: &Caller,
    ) -> Result<Self, Failure> {
        let secrets = asked.secrets(&caller.report)?;
        Ok(Self { args, asked, gathered, secrets, clock: Clock::start() })
    }

    /// Builds it where it is not fresh; `None` for a check that finds nothing to do.
    pub(super) async fn built(
        self,
        together: &Together,
        caller: &mut Caller,
    ) -> Result<Option<Built>, Failure> {
        let Self { args, asked, gathered, secrets, mut clock } = self;
        let engine = &together.engine;
        fits(&args, engine)?;
        clock.lap("inputs");
        // A check leaves the files of the last build alone.
        let unwritten =
            |path: &Option<PathBuf>| path.as_deref().filter(|_| !args.check).map(Unwritten::new).transpose();
        let (id_file, metadata_file) = (unwritten(&args.iidfile)?, unwritten(&args.metadata_file)?);
        let base = {
            let _alone = together.bases.lock().await;
            asked.base(engine, args.pull, &caller.report).await?
        };
        clock.lap("base");
        let mut planned = asked.plan(base, caller).await?;
        clock.lap("plan");
        let supplies = gathered.with(secrets, &asked, &planned.plan, caller)?;
        if let Some(refusal) = supplies.refusal(engine.builder()) {
            return Err(Failure::refused(refusal));
        }
        let epoch = args.reproducible.then(|| time(&caller.environment)).transpose()?;
        let epoch = epoch.map(|time| time.unwrap_or(EPOCH));
        let how = How {
            anew: args.no_cache.then_some(&together.forgotten),
            network: args.steps.network,
            epoch,
            supplies: &supplies,
            sharing: together.sharing.as_ref(),
        };
        if let (Standing::Stale(_, changes), true) = (&planned.standing, args.check) {
            asked.tell_stale("the lock is not what the list asks for:", changes, &planned, &caller.report);
            return Err(fresh::stale());
        }
        let mut turn = None;
        together.relock((&asked, how), &mut planned, &mut turn, caller).await?;
        clock.lap("lock");
        if let Some(most) = args.max_size {
            wheels_within(most, &planned)?;
        }
        let needs_engine =
            args.verify || args.reproducible || args.max_size.is_some() || metadata_file.is_some();
        let looked = looked(&args, engine, &asked, &planned, needs_engine, caller).await?;
        clock.lap("look");
        if args.check {
            return if looked.is_fresh { Ok(None) } else { Err(fresh::stale()) };
        }
        let mut sent = 0;
        let image = match &looked.there {
            Some(image) => {
                if let Some(sharing) = &together.sharing {
                    sharing.used(direct::keys(&planned.plan));
                }
                image.clone()
            }
            None => {
                together.turn(&mut turn, caller).await?;
                let way = (args.builder, args.tag.first());
                let image = made(engine, &asked, &mut planned, how, way, caller, &mut sent).await?;
                fresh::remember(asked.cache(), &image);
                clock.lap("build");
                image
            }
        };
        if args.verify || epoch.is_some() {
            together.turn(&mut turn, caller).await?;
        }
        let image = match epoch {
            Some(seconds) => normalised(engine, &asked, image, &planned, seconds, &caller.report).await?,
            None => image,
        };
        if let Some(most) = args.max_size {
            within(most, engine, &image).await?;
        }
        if args.verify {
            let (variant, own) = (&asked.inputs.variant, asked.request.variants.as_deref());
            verify::prove(engine, &image, Some(variant), own, &caller.report).await?;
            clock.lap("verify");
        }
        drop(turn);
        let layers = if metadata_file.is_some() { engine.history(&image).await? } else { Vec::new() };
        let made = Delivered { engine, image: &image, planned: &planned, looked: &looked };
        let delivered = made.deliver(&args, (&asked, &supplies), epoch.is_some(), &mut clock, caller).await;
        made.clear(&args, &asked).await;
        // Who asks for files alone is told what they hold: no engine has it, and engines that keep manifests call it otherwise.
        let image = delivered?.filter(|_| args.tag.is_empty()).unwrap_or(image);
        if let Some(file) = metadata_file {
            file.write(&outcome::metadata(&planned, &image, &args.tag, &layers, sent, &clock))?;
        }
        if let Some(file) = id_file {
            file.write(image.as_str())?;
        }
        caller.report.note(&looked.outcome(&args, &clock));
        Ok(Some(Built { image, was_there: looked.there.is_some(), plan: Box::new(planned.plan) }))
    }

    /// Says what a build would do. The base is looked at, as it is for every plan.
    pub(super) async fn dry_run(&self, engine: &Engine, caller: &Caller) -> Result<(), Failure> {
        let Self { args, asked, .. } = self;
        fits(args, engine)?;
        let mut lines = Vec::new();
        match asked.local_base(engine).await? {
            (reference, None) => {
                lines.push(format!("pull {reference}"));
                lines.push("plan what follows, once the base is there".to_owned());
            }
            (reference, Some(base)) => {
                if args.pull && !asked.request.base_is_local {
                    lines.push(format!("pull {reference}, if there is a newer one"));
                }
                let Planned { plan, .. } = asked.plan(base, caller).await?;
                let Foundation { base, installer, .. } = &plan.foundation;
                if engine.image(&installer.private_tag().to_string()).await?.is_none() {
                    lines.push(format!("load {installer} into the engine"));
                }
                lines.push(format!("build {} on {} ({})", plan.variant, base.reference, base.id.short()));
                lines.extend(plan.build_steps().into_iter().map(|step| format!("  {}", step.title())));
            }
        }
        lines.extend(args.output.iter().map(|output| format!("write {output}")));
        lines.extend(args.tag.iter().filter(|_| args.push).map(|tag| format!("push {tag}")));
        lines.extend(args.tag.iter().map(|tag| format!("tag {tag}")));
        lines.extend(args.sharing.cache_to.iter().map(|cache| format!("share packages as {cache}")));
        let written = caller.report.result(|out| lines.iter().try_for_each(|line| writeln!(out, "{line}")));
        written.map_err(|error| Failure::unwritable("stdout", &error))
    }
}

/// Refuses what cannot go together, with this engine.
fn fits(args: &BuildArgs, engine: &Engine) -> Result<(), Failure> {
    if let (Builder::Classic, Some(network)) = (engine.builder(), args.steps.network) {
        let what = Diagnostic::new(format!("`--network {}` cannot be kept on podman", network.name()));
        let why = "its Docker API gives steps the network of its host, whatever is asked for";
        return Err(Failure::refused(what.why(why).advice("leave it out, or use an engine of Docker")));
    }
    if args.push {
        push::fits(args)?;
    }
    Ok(())
}
