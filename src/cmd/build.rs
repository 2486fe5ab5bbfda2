//! `ipybox build`: a dependency list in, a tagged image out.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::time::Instant;

use super::fresh::{self, Found};
use super::image::failed_step;
use super::installed::Installed;
use super::order::{Built, Order, Together};
use super::outside::Maker;
use super::sharing::Sharing;
use super::{Asked, Caller, Failure, FailureKind, Planned, direct, engineless, outcome};
use crate::base::Base;
use crate::cli::{BuildArgs, BuilderChoice, Environment, ImageArgs, Network, StepsArgs, variable_of_list};
use crate::deps::Name;
use crate::diagnostic::Diagnostic;
use crate::engine::{Build, BuildEvent, Builder, Engine, EngineError};
use crate::freshness::Stamp;
use crate::image::context::{self, Local};
use crate::image::dockerfile::{self, Goal};
use crate::inputs::templates::Templates;
use crate::inputs::{secrets, trust};
use crate::installer;
use crate::plan::{Foundation, PackageIndex, Plan, StepId};
use crate::reference::{ImageId, Reference};
use crate::report::{self, Progress, Report, Work};
use crate::supply::Supplies;

pub(super) async fn run(args: BuildArgs, caller: &mut Caller) -> Result<(), Failure> {
    show(args.progress, caller)?;
    let order = Order::read(args, caller).await?;
    let sharing = Sharing::of(&order.args, &order.args.tag, caller)?;
    let goes_elsewhere = order.args.push || !order.args.output.is_empty();
    let engine = match order.asked.maker(goes_elsewhere, order.args.steps.ca_cert.as_deref(), caller).await? {
        Maker::Engine(engine) => engine,
        Maker::Here(outside) => {
            let Order { args, asked, gathered, secrets, clock } = order;
            let made =
                engineless::build(&args, &asked, &outside, (gathered, secrets), sharing, clock, caller);
            return Box::pin(made).await;
        }
    };
    let together = Together::new(engine, sharing, 1);
    if order.args.dry_run {
        return order.dry_run(&together.engine, caller).await;
    }
    match Box::pin(order.built(&together, caller)).await? {
        Some(Built { image, .. }) => {
            if let Some(sharing) = &together.sharing {
                sharing.give(&caller.report, &caller.interrupt).await;
            }
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

/// The image of a plan: its packages are put into layers where that is asked for, or can be; else the engine's builder
/// installs them. Layers of the image under a tag do not travel.
pub(super) async fn made(
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
        (BuilderChoice::Auto, Some(why)) => Some(why),
        (BuilderChoice::Auto, None) if !is_locked => {
            Some("there is no lock; `ipybox lock` makes one".to_owned())
        }
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
    let how = How { anew: None, network: steps.network, epoch: None, supplies: &supplies, sharing: None };
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

/// The time that the environment gives to images, in seconds since 1970.
pub(super) fn time(environment: &Environment) -> Result<Option<u64>, Failure> {
    // The last second of the year 9999.
    const LAST: u64 = 253_402_300_799;
    let Some(text) = &environment.source_date_epoch else { return Ok(None) };
    let seconds = text.trim().parse().ok().filter(|seconds| *seconds <= LAST);
    seconds.map(Some).ok_or_else(|| {
        let what = Diagnostic::new(format!("`SOURCE_DATE_EPOCH` is `{}`", text.escape_debug()));
        let why = "it is a number of seconds since 1970, of a day before the year 10000";
        Failure::usage(
            what.why(why).advice("unset it, or set it to such as `git log -1 --format=%ct` prints"),
        )
    })
}

/// The image with one time in its configuration, in place of the other.
pub(super) async fn normalised(
    engine: &Engine,
    asked: &Asked,
    image: ImageId,
    planned: &Planned<'_>,
    seconds: u64,
    report: &Report,
) -> Result<ImageId, Failure> {
    let base = &planned.plan.foundation.base.id;
    let Some(same) = engine.with_time(&image, base, seconds).await? else {
        let what = "this engine makes no image with a time of ours: its id is another each time it is built";
        report.warning(what, "compare its layers, which are equal, or build with an engine of Docker");
        return Ok(image);
    };
    if same != image {
        fresh::remember(asked.cache(), &same);
        asked.leave(engine, &image).await;
    }
    Ok(same)
}

/// Refuses a plan whose locked wheels alone are larger than an image may be.
pub(super) fn wheels_within(most: u64, planned: &Planned<'_>) -> Result<(), Failure> {
    let locked: u64 = planned.plan.packages.locked.iter().flatten().filter_map(|(_, pin)| pin.size).sum();
    if locked <= most {
        return Ok(());
    }
    let what = format!("the image would be larger than {}", report::size(most));
    let why = format!("its packages take {} already as they are downloaded", report::size(locked));
    Err(Failure::refused(Diagnostic::new(what).why(why).advice("leave something out, or raise `--max-size`")))
}

/// Refuses an image that is larger than it may be.
pub(super) async fn within(most: u64, engine: &Engine, image: &ImageId) -> Result<(), Failure> {
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
    /// Where nothing of what is cached is used: what of it was forgotten already.
    pub(super) anew: Option<&'a direct::Forgotten>,
    pub(super) network: Option<Network>,
    /// The time of the image, where that is not now; engines since Docker 23 heed it.
    pub(super) epoch: Option<u64>,
    pub(super) supplies: &'a Supplies,
    /// Caches of other machines, where there are any.
    pub(super) sharing: Option<&'a Sharing>,
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
            no_cache: how.anew.is_some(),
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
                    asked.leave(engine, &image).await;
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
        installed.tell_sizes(report);
        installed.warn(&planned.plan, &planned.base, report);
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
