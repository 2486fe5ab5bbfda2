//! `ipybox build`: a dependency list in, a tagged image out.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::time::Instant;

use tokio::sync::{Mutex, Semaphore, SemaphorePermit};

use super::fresh::{self, Found};
use super::image::failed_step;
use super::installed::Installed;
use super::lock::Standing;
use super::outcome::{self, Clock, Unwritten};
use super::output::Source;
use super::{Asked, Caller, Failure, FailureKind, Planned, direct, engineless, output, push, verify};
use crate::archive::EPOCH;
use crate::base::Base;
use crate::cli::{
    BuildArgs, BuilderChoice, Environment, ImageArgs, Network, Output, StepsArgs, variable_of_list,
};
use crate::deps::Name;
use crate::diagnostic::Diagnostic;
use crate::engine::{Build, BuildEvent, Builder, Engine, EngineError};
use crate::freshness::Stamp;
use crate::image::context::{self, Local};
use crate::image::dockerfile::{self, Goal};
use crate::inputs::templates::Templates;
use crate::inputs::{secrets, trust};
use crate::installer;
use crate::oci::store::Store;
use crate::plan::{Foundation, PackageIndex, Plan, StepId};
use crate::reference::{ImageId, Reference};
use crate::report::{self, Progress, Report, Work};
use crate::supply::Supplies;

pub(super) async fn run(args: BuildArgs, caller: &mut Caller) -> Result<(), Failure> {
    show(args.progress, caller)?;
    let order = Order::read(args, caller).await?;
    if let Some(place) = order.asked.request.base_files.clone() {
        let Order { args, asked, gathered, secrets, clock } = order;
        let made = engineless::build(&args, &asked, &place, (gathered, secrets), clock, caller);
        return Box::pin(made).await;
    }
    let together = Together::new(order.asked.engine(caller).await?, 1);
    if order.args.dry_run {
        return order.dry_run(&together.engine, caller).await;
    }
    match Box::pin(order.built(&together, caller)).await? {
        Some(Built { image, .. }) => {
            let written = caller.report.result(|out| writeln!(out, "{image}"));
            written.map_err(|error| Failure::unwritable("stdout", &error))
        }
        None => Ok(()),
    }
}

/// Tells progress in the way that is asked for.
pub(super) fn show(progress: Progress, caller: &mut Caller) -> Result<(), Failure> {
    caller.report.show(progress).map_err(|why| {
        let what = Diagnostic::new("progress cannot be told in the way that is asked for").why(why);
        Failure::usage(what.advice("leave out `--progress`: it is chosen by who reads"))
    })
}

/// An image that is to be built, and everything that was read for it before anything is contacted.
pub(super) struct Order {
    args: BuildArgs,
    asked: Asked,
    gathered: Gathered,
    secrets: BTreeMap<String, Vec<u8>>,
    clock: Clock,
}

/// What builds have in common that go on side by side.
pub(super) struct Together {
    pub(super) engine: Engine,
    /// One for each build that may use the engine's builder, or resolve packages.
    turns: Semaphore,
    /// One image at a time is pulled and looked at: others have the same base.
    bases: Mutex<()>,
}

/// What came of a build.
pub(super) struct Built {
    pub(super) image: ImageId,
    /// Whether it was there already.
    pub(super) was_there: bool,
}

impl Together {
    pub(super) fn new(engine: Engine, jobs: usize) -> Self {
        Self { engine, turns: Semaphore::new(jobs), bases: Mutex::new(()) }
    }

    async fn turn(&self, caller: &Caller) -> Result<SemaphorePermit<'_>, Failure> {
        let turn = caller.interrupt.run_until_cancelled(self.turns.acquire()).await;
        Ok(turn.ok_or_else(Failure::interrupted)?.expect("nobody closes it"))
    }
}

impl Order {
    async fn read(mut args: BuildArgs, caller: &mut Caller) -> Result<Self, Failure> {
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
        let how = How { no_cache: args.no_cache, network: args.steps.network, epoch, supplies: &supplies };
        let mut turn = None;
        if let Standing::Stale(_, changes) = &planned.standing {
            if args.check {
                asked.tell_stale(
                    "the lock is not what the list asks for:",
                    changes,
                    &planned,
                    &caller.report,
                );
                return Err(fresh::stale());
            }
            turn = Some(together.turn(caller).await?);
        }
        asked.relock(&mut planned, how, caller).await?;
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
            Some(image) => image.clone(),
            None => {
                if turn.is_none() {
                    turn = Some(together.turn(caller).await?);
                }
                let way = (args.builder, args.tag.first());
                let image = made(engine, &asked, &mut planned, how, way, caller, &mut sent).await?;
                fresh::remember(asked.cache(), &image);
                clock.lap("build");
                image
            }
        };
        let image = match epoch {
            Some(seconds) => {
                normalised(engine, image, &planned, seconds, asked.cache(), &caller.report).await?
            }
            None => image,
        };
        if let Some(most) = args.max_size {
            within(most, engine, &image).await?;
        }
        if args.verify {
            let (variant, own) = (&asked.inputs.variant, asked.request.variants.as_deref());
            verify::prove(engine, &image, variant, own, &caller.report).await?;
            clock.lap("verify");
        }
        drop(turn);
        let layers = if metadata_file.is_some() { engine.history(&image).await? } else { Vec::new() };
        let made = Delivered { engine, image: &image, planned: &planned, looked: &looked };
        let delivered = made.deliver(&args, (&asked, &supplies), epoch.is_some(), &mut clock, caller).await;
        made.clear(&args).await;
        // Who asks for files alone is told what they hold: no engine has it, and engines that keep manifests call it otherwise.
        let image = delivered?.filter(|_| args.tag.is_empty()).unwrap_or(image);
        if let Some(file) = metadata_file {
            file.write(&outcome::metadata(&planned, &image, &args.tag, &layers, sent, &clock))?;
        }
        if let Some(file) = id_file {
            file.write(image.as_str())?;
        }
        caller.report.note(&looked.outcome(&args, &clock));
        Ok(Some(Built { image, was_there: looked.there.is_some() }))
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

/// What is there already of what is asked for.
struct Looked {
    /// Under the tags.
    found: Vec<Found>,
    /// In files and folders.
    in_files: Vec<Option<ImageId>>,
    /// Whether nothing is left to do.
    is_fresh: bool,
    /// The image, where it need not be built.
    there: Option<ImageId>,
}

/// Looks, and tells why there is something to do.
async fn looked(
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
    fn outcome(&self, args: &BuildArgs, clock: &Clock) -> String {
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
struct Delivered<'a> {
    engine: &'a Engine,
    image: &'a ImageId,
    planned: &'a Planned<'a>,
    looked: &'a Looked,
}

impl Delivered<'_> {
    /// Writes it to files, pushes it, and then moves its tags. Told is what the files hold.
    async fn deliver(
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
            let whole = output::taken(engine, image, plan, &store).await?;
            push::push(&whole, &store, &args.tag, supplies.certificates.as_deref(), caller).await?;
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
    async fn clear(&self, args: &BuildArgs) {
        if args.tag.is_empty() && self.looked.there.is_none() {
            let _ = self.engine.remove_image(self.image).await;
        }
    }
}

/// The image of a plan: its packages are put into layers where that is asked for, or can be; else the engine's builder
/// installs them. Layers of the image under a tag do not travel.
async fn made(
    engine: &Engine,
    asked: &Asked,
    planned: &mut Planned<'_>,
    how: How<'_>,
    (builder, tag): (BuilderChoice, Option<&Reference>),
    caller: &Caller,
    sent: &mut u64,
) -> Result<ImageId, Failure> {
    let obstacle = direct::obstacle((&planned.plan, &planned.base), engine, &how);
    let is_locked = planned.plan.packages.locked.is_some();
    let why = match (builder, obstacle) {
        (BuilderChoice::Buildkit, _) => None,
        (BuilderChoice::Direct, Some(why)) => {
            let what = Diagnostic::new("the image cannot be made with `--builder direct`").why(why);
            return Err(Failure::refused(what.advice("leave that out: the engine's builder makes it")));
        }
        (BuilderChoice::Direct, None) => {
            Box::pin(asked.lock_for_now(planned, how, caller)).await?;
            let image = directly(engine, asked, planned, how, tag, caller, sent).await?;
            planned.plan = planned.as_asked().into_owned();
            return Ok(image);
        }
        (BuilderChoice::Auto, _) if !is_locked => None,
        (BuilderChoice::Auto, Some(why)) => Some(why),
        (BuilderChoice::Auto, None) => match directly(engine, asked, planned, how, tag, caller, sent).await {
            Err(Failure { kind: FailureKind::Unassembled, diagnostics, .. }) => {
                let what = diagnostics.into_iter().next();
                what.map(|Diagnostic { what, why, .. }| format!("{what}: {why}"))
            }
            image => return image,
        },
    };
    if let Some(why) = why {
        caller.report.note(&format!("the engine's builder installs the packages, since {why}"));
    }
    built(engine, asked, planned, how, Goal::Image, caller, sent).await
}

/// The image of a plan whose packages are put into layers.
async fn directly(
    engine: &Engine,
    asked: &Asked,
    planned: &mut Planned<'_>,
    how: How<'_>,
    tag: Option<&Reference>,
    caller: &Caller,
    sent: &mut u64,
) -> Result<ImageId, Failure> {
    let there = match tag {
        Some(tag) => engine.image(&tag.to_string()).await?,
        None => None,
    };
    let known = there.map(|image| image.layers).unwrap_or_default();
    direct::built(engine, asked, planned, how, &known, caller, sent).await
}

/// The image of a request under one tag, built where it is not fresh.
pub(super) async fn fresh_image(
    mut image: ImageArgs,
    steps: StepsArgs,
    engine: &Engine,
    tag: &Reference,
    caller: &mut Caller,
) -> Result<ImageId, Failure> {
    let gathered = Gathered::of(&steps, &mut image, caller)?;
    let asked = &Asked::read(image, caller).await?;
    let base = asked.base(engine, false, &caller.report).await?;
    let mut planned = asked.plan(base, caller).await?;
    let secrets = asked.secrets(&caller.report)?;
    let supplies = gathered.with(secrets, asked, &planned.plan, caller)?;
    if let Some(refusal) = supplies.refusal(engine.builder()) {
        return Err(Failure::refused(refusal));
    }
    let how = How { no_cache: false, network: steps.network, epoch: None, supplies: &supplies };
    asked.relock(&mut planned, how, caller).await?;
    let tags = std::slice::from_ref(tag);
    let found = fresh::look(engine, tags, &Stamp::of(&planned.plan), asked.cache()).await?;
    if let Some(image) = found.iter().find_map(Found::fresh) {
        return Ok(image.clone());
    }
    fresh::tell(&found, tags, asked, &planned, &caller.report);
    let way = (BuilderChoice::Auto, Some(tag));
    let image = made(engine, asked, &mut planned, how, way, caller, &mut 0).await?;
    fresh::remember(asked.cache(), &image);
    engine.tag(&image, tag).await?;
    Ok(image)
}

/// The time of repeatable images, in seconds since 1970.
fn time(environment: &Environment) -> Result<u64, Failure> {
    let Some(text) = &environment.source_date_epoch else { return Ok(EPOCH) };
    text.trim().parse().map_err(|_| {
        let what = format!("`SOURCE_DATE_EPOCH` is `{}`", text.escape_debug());
        Failure::usage(Diagnostic::new(what).why("it is a number of seconds since 1970"))
    })
}

/// The image with one time in its configuration, in place of the other.
async fn normalised(
    engine: &Engine,
    image: ImageId,
    planned: &Planned<'_>,
    seconds: u64,
    cache: &Path,
    report: &Report,
) -> Result<ImageId, Failure> {
    let base = &planned.plan.foundation.base.id;
    let Some(same) = engine.with_time(&image, base, seconds).await? else {
        let what = "this engine makes no image with a time of ours: its id is another each time it is built";
        report.warning(what, "compare its layers, which are equal, or build with an engine of Docker");
        return Ok(image);
    };
    if same != image {
        fresh::remember(cache, &same);
        // It may have other names, and keeps them.
        let _ = engine.remove_image(&image).await;
    }
    Ok(same)
}

/// Refuses a plan whose locked wheels alone are larger than an image may be.
fn wheels_within(most: u64, planned: &Planned<'_>) -> Result<(), Failure> {
    let locked: u64 = planned.plan.packages.locked.iter().flatten().filter_map(|(_, pin)| pin.size).sum();
    if locked <= most {
        return Ok(());
    }
    let what = format!("the image would be larger than {}", report::size(most));
    let why = format!("its packages take {} already as they are downloaded", report::size(locked));
    Err(Failure::refused(Diagnostic::new(what).why(why).advice("leave something out, or raise `--max-size`")))
}

/// Refuses an image that is larger than it may be.
async fn within(most: u64, engine: &Engine, image: &ImageId) -> Result<(), Failure> {
    let found = engine.image(image.as_str()).await?;
    let gone = || Failure::refused(Diagnostic::new("the image is gone from the engine"));
    let bytes = found.ok_or_else(gone)?.bytes;
    if bytes <= most {
        return Ok(());
    }
    let layers = engine.history(image).await?;
    let mut largest: Vec<_> =
        layers.iter().map(|layer| (layer.bytes, outcome::title(&layer.command))).collect();
    largest.sort_unstable_by(|one, other| other.cmp(one));
    let largest = largest.iter().take(3).map(|(bytes, step)| match *step {
        "" => format!("{} by the base", report::size(*bytes)),
        step => format!("{} by `{step}`", report::size(*bytes)),
    });
    let what = format!("the image has {}, and may have {}", report::size(bytes), report::size(most));
    let why = format!("no tag was moved; the most was added {}", largest.collect::<Vec<_>>().join(", "));
    Err(Failure::refused(Diagnostic::new(what).why(why).advice("leave something out, or raise `--max-size`")))
}

/// How an image is built, beside what its plan says.
#[derive(Clone, Copy)]
pub(super) struct How<'a> {
    pub(super) no_cache: bool,
    pub(super) network: Option<Network>,
    /// The time of the image, where that is not now; engines since Docker 23 heed it.
    pub(super) epoch: Option<u64>,
    pub(super) supplies: &'a Supplies,
}

/// What a build may use and must not keep, as far as it is known before its list.
#[derive(Clone)]
pub(super) struct Gathered {
    certificates: Option<Vec<u8>>,
    proxies: HashMap<String, String>,
}

impl Gathered {
    /// Reads certificates and proxies; nobody sees them from now on.
    pub(super) fn of(steps: &StepsArgs, image: &mut ImageArgs, caller: &mut Caller) -> Result<Self, Failure> {
        let environment = &caller.environment;
        let certificates = trust::bundle(environment.ssl_cert_file.as_deref(), steps.ca_cert.as_deref())?;
        let mut proxies = environment.proxies.clone();
        proxies.extend(image.take_proxies());
        caller.report.conceal(|redaction| redaction.hide_addresses(proxies.values().map(String::as_str)));
        Ok(Self { certificates, proxies })
    }

    /// With what a plan wants to know.
    pub(super) fn with(
        self,
        secrets: BTreeMap<String, Vec<u8>>,
        asked: &Asked,
        plan: &Plan,
        caller: &mut Caller,
    ) -> Result<Supplies, Failure> {
        let Self { certificates, proxies } = self;
        let credentials = asked.inputs.credentials(&plan.packages, variable_of_list)?;
        let supplies = Supplies { certificates, proxies, credentials, secrets };
        caller.conceal(&supplies);
        Ok(supplies)
    }
}

impl Asked {
    /// The secrets that steps of the variant read; others are told of.
    pub(super) fn secrets(&self, report: &Report) -> Result<BTreeMap<String, Vec<u8>>, Failure> {
        let secrets = secrets::read(&self.request, &self.inputs.variant, variable_of_list)?;
        for id in self.request.secrets.keys().filter(|id| !secrets.contains_key(*id)) {
            let advice = "name it in `secrets` of a `[[step]]` in `variant.toml`";
            report.warning(&format!("no step of the variant uses the secret `{id}`"), advice);
        }
        Ok(secrets)
    }
}

/// The image of a plan, which may become another one on the way, where something turns out to have no wheel; or one with
/// the wheels that are built for it.
pub(super) async fn built(
    engine: &Engine,
    asked: &Asked,
    planned: &mut Planned<'_>,
    how: How<'_>,
    goal: Goal,
    caller: &Caller,
    sent: &mut u64,
) -> Result<ImageId, Failure> {
    let report = &caller.report;
    if how.network != Some(Network::Host) && engine.builder() == Builder::BuildKit {
        warn_of_loopback(&planned.plan, report);
    }
    supply(engine, &planned.plan, asked.installer(&planned.plan), report).await?;
    let began = Instant::now();
    let (image, work, installed) = loop {
        let work = Work::Build { steps: planned.plan.build_steps().len() };
        report.began(&work);
        let build = Build {
            no_cache: how.no_cache,
            network: how.network.map(Network::name),
            platform: asked.request.platform.as_ref().map(ToString::to_string),
            ..ordered(
                (&planned.plan, &planned.base, &planned.local),
                &asked.inputs.templates,
                engine.builder(),
                how,
                goal,
            )?
        };
        let mut installed = None;
        let tell = |event| {
            match &event {
                BuildEvent::Sent { bytes } => *sent += bytes,
                BuildEvent::Output { line, .. } => {
                    if let Some(told) = Installed::read(line) {
                        // It is told in other words, once the image is there.
                        installed = Some(told);
                        return;
                    }
                }
                _ => {}
            }
            report.event(&event);
        };
        // What was built before it failed is not built again.
        match engine.build(build, tell).await {
            Ok(image) => {
                let lacking = installed.as_ref().map(Installed::lacking);
                if let Some(plan) =
                    lacking.and_then(|lacking| asked.with_libraries(planned, &lacking, report))
                {
                    planned.plan = plan;
                    engine.remove_image(&image).await?;
                    continue;
                }
                break (image, work, installed);
            }
            Err(error @ EngineError::Interrupted) if engine.builder() == Builder::Classic => {
                report.note("the step that runs goes on in the engine until it ends");
                return Err(error.into());
            }
            Err(error) => {
                let failed = failed_step(&planned.plan, &error);
                match failed.and_then(|(step, output, _)| asked.learn(planned, step, output, report)) {
                    Some(plan) => planned.plan = plan,
                    None => return Err(asked.explain(planned, error)),
                }
            }
        }
    };
    report.ended(&work, began.elapsed());
    if let Some(installed) = installed {
        installed.tell(&planned.plan, &planned.base, report);
    }
    let built: Vec<_> = planned.plan.packages.unbuilt.keys().map(Name::as_str).collect();
    if !built.is_empty() {
        report
            .note(&format!("built from source, since no index has a wheel that fits: {}", built.join(", ")));
    }
    Ok(image)
}

/// Warns where steps, which run in containers, would look for an index in themselves.
fn warn_of_loopback(plan: &Plan, report: &Report) {
    let is_here = |index: &&PackageIndex| ["localhost", "127.0.0.1", "[::1]"].contains(&&*index.host());
    for index in plan.packages.indexes.iter().filter(is_here) {
        report.warning(
            &format!("the package index `{}` is this host's, and build steps run in containers", index.url),
            "use `--network host`, or an address of this host that containers reach",
        );
    }
}

/// The build of a plan: its files, what its steps are called, and what they may use.
pub(super) fn ordered(
    (plan, base, local): (&Plan, &Base, &Local),
    templates: &Templates,
    builder: Builder,
    how: How<'_>,
    goal: Goal,
) -> Result<Build, Failure> {
    let supplies = how.supplies;
    let dockerfile = dockerfile::render(plan, base, templates, supplies.kind(builder), goal)?;
    let context = context::of(plan, base, templates, dockerfile, local, None).map_err(|error| {
        Failure::refused(Diagnostic::new("cannot read a file of the build").why(error.to_string()))
    })?;
    let titles = plan.build_steps().into_iter().map(StepId::title).collect();
    let mut build = Build { titles, ..Build::of(context) };
    supplies.bring(builder, &mut build);
    build.build_args.extend(how.epoch.map(|seconds| ("SOURCE_DATE_EPOCH".to_owned(), seconds.to_string())));
    Ok(build)
}

impl Order {
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
                if args.pull {
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
        let written = caller.report.result(|out| lines.iter().try_for_each(|line| writeln!(out, "{line}")));
        written.map_err(|error| Failure::unwritable("stdout", &error))
    }
}

/// Makes sure that the engine has what the Dockerfile names: the base under its private tag, and
/// the installer.
pub(super) async fn supply(
    engine: &Engine,
    plan: &Plan,
    program: impl Future<Output = Result<PathBuf, Failure>>,
    report: &Report,
) -> Result<(), Failure> {
    let Foundation { base, installer: release, .. } = &plan.foundation;
    let installer = release.private_tag();
    let installer_name = installer.to_string();
    let private = base.private_tag();
    let (present, tagged) = tokio::join!(engine.image(&installer_name), engine.tag(&base.id, &private));
    match tagged {
        Err(error) if error.is_not_found() => {
            let why = format!("the engine has no image `{}`", base.id);
            return Err(EngineError::NotFound { reference: base.reference.clone(), why }.into());
        }
        tagged => tagged?,
    }
    if present?.is_none() {
        let (began, work) = (Instant::now(), Work::Load(release.to_string()));
        report.began(&work);
        let program = engine.unless_interrupted(program).await??;
        engine.import(installer::image(&program)?, &installer).await?;
        report.ended(&work, began.elapsed());
    }
    Ok(())
}
