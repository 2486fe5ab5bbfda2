//! From what is asked to a plan: the part that building, planning and rendering have in common.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::installed::Lacking;
use super::lock::Standing;
use super::memory::Memory;
use super::outside::{self, Maker, Outside};
use super::{Caller, Failure, FailureKind};
use crate::base::{Base, Platform};
use crate::cli::{EngineArgs, ImageArgs, variable_of_list};
use crate::deps::Dependency;
use crate::diagnostic::Diagnostic;
use crate::engine::{Engine, EngineError, KnownEngines};
use crate::explain::{Explanation, explain, learn};
use crate::image::context::Local;
use crate::inputs::hashes::KnownHashes;
use crate::inputs::{self, Inputs};
use crate::plan::{
    Installer, Learnt, Plan, PlanError, Provenance, StepId, Target, default_base, kernel_needs,
};
use crate::reference::{ImageId, Reference};
use crate::report::{Report, Work};
use crate::request::Request;
use crate::stored::{Stored, StoredError};

/// What is known before any engine is asked.
pub(super) struct Asked {
    pub(super) request: Request,
    pub(super) inputs: Inputs,
    means: Means,
}

/// What requests are answered with, whatever they ask for.
#[derive(Clone)]
pub(super) struct Means {
    engine: EngineArgs,
    cache: PathBuf,
    known: KnownHashes,
    /// Images that builds which go on side by side have no more use for. Equal ones are one image, so that none is removed
    /// before all of them are over.
    left: Option<Arc<Mutex<Vec<ImageId>>>>,
}

impl Means {
    pub(super) fn of(args: &ImageArgs, caller: &Caller) -> Result<Self, Failure> {
        let cache = caller.cache(args.means.cache_dir.clone())?;
        let known = if args.paranoid { KnownHashes::none() } else { KnownHashes::in_cache(&cache) };
        Ok(Self { engine: args.means.engine.clone(), cache, known, left: None })
    }

    /// The same for builds that go on side by side.
    pub(super) fn shared(self) -> Self {
        Self { left: Some(Arc::default()), ..self }
    }

    /// Removes what such builds have left, once they are over.
    pub(super) async fn sweep(&self, engine: &Engine) {
        let Some(left) = &self.left else { return };
        let left = std::mem::take(&mut *left.lock().unwrap_or_else(PoisonError::into_inner));
        for image in left {
            let _ = engine.remove_image(&image).await;
        }
    }

    /// The engine that is meant.
    pub(super) async fn engine(&self, caller: &Caller) -> Result<Engine, Failure> {
        super::engine(&self.engine, &KnownEngines::in_cache(&self.cache), caller).await
    }

    /// The same; nothing, where none was named and none answers.
    pub(super) async fn engine_if_any(&self, caller: &Caller) -> Result<Option<Engine>, Failure> {
        super::engine_if_any(&self.engine, &KnownEngines::in_cache(&self.cache), caller).await
    }
}

/// A plan, and what travels beside it.
pub(super) struct Planned<'a> {
    pub(super) plan: Plan,
    pub(super) base: Base,
    pub(super) local: Local,
    /// The entries of the list that are installed.
    pub(super) needed: Vec<&'a Dependency>,
    /// What its lock has to do with it.
    pub(super) standing: Standing,
    /// Where what builds of it teach is kept.
    memory: Memory,
}

impl Planned<'_> {
    /// The plan as the image is to remember it: with what was asked for, where its versions are those of one build.
    pub(super) fn as_asked(&self) -> Cow<'_, Plan> {
        match &self.standing {
            Standing::ForNow(packages) => {
                Cow::Owned(Plan { packages: packages.clone(), ..self.plan.clone() })
            }
            _ => Cow::Borrowed(&self.plan),
        }
    }
}

impl Asked {
    /// Reads everything the arguments name. Nothing is contacted.
    pub(super) async fn read(mut args: ImageArgs, caller: &Caller) -> Result<Self, Failure> {
        // Steps get proxies in other ways; a plan does not hold them.
        args.take_proxies();
        let means = Means::of(&args, caller)?;
        Self::of(args.request(caller.environment.ids), means, caller).await
    }

    /// Reads everything a request names. Nothing is contacted.
    pub(super) async fn of(request: Request, means: Means, caller: &Caller) -> Result<Self, Failure> {
        let inputs = Inputs::read(&request, &means.known, variable_of_list);
        let inputs = caller.interrupt.run_until_cancelled(inputs).await;
        let inputs = inputs.ok_or_else(Failure::interrupted)??;
        PlanError::of_request(&request, &inputs.variant)
            .map_err(|error| Failure::of_plan(&inputs.documents, &[error]))?;
        if request.templates.is_some() {
            let replaced: Vec<_> = inputs.templates.replaced().collect();
            let replaced =
                if replaced.is_empty() { "none of the shipped ones".to_owned() } else { replaced.join(", ") };
            caller.report.note(&format!("templates that are replaced: {replaced}"));
        }
        Ok(Self { request, inputs, means })
    }

    /// Removes an image that this build has no more use for, unless it has a name. One that stays is in nobody's way.
    pub(super) async fn leave(&self, engine: &Engine, image: &ImageId) {
        match &self.means.left {
            Some(left) => left.lock().unwrap_or_else(PoisonError::into_inner).push(image.clone()),
            None => drop(engine.remove_image(image).await),
        }
    }

    /// The folder for what need not be asked twice.
    pub(super) fn cache(&self) -> &Path {
        &self.means.cache
    }

    pub(super) async fn engine(&self, caller: &Caller) -> Result<Engine, Failure> {
        self.means.engine(caller).await
    }

    /// The plan, asking an engine only where the base's facts are in no file. It is held to its lock, and one whose lock
    /// is stale is told of.
    pub(super) async fn resolve(&self, caller: &Caller) -> Result<Planned<'_>, Failure> {
        let planned = self.plan(self.any_base(None, caller).await?, caller).await?;
        if let Standing::Stale(..) = &planned.standing {
            let advice = "bring it up to date with `ipybox lock`; `ipybox build` does so by itself";
            caller.report.warning("the lock is not what the list asks for, and not in this plan", advice);
        }
        Ok(planned)
    }

    /// The same without its lock.
    pub(super) async fn resolve_unlocked(
        &self,
        ca_cert: Option<&Path>,
        caller: &Caller,
    ) -> Result<Planned<'_>, Failure> {
        self.plan_unlocked(self.any_base(ca_cert, caller).await?, caller).await
    }

    /// The facts of the base, asking an engine only where they are in no file.
    async fn any_base(&self, ca_cert: Option<&Path>, caller: &Caller) -> Result<Base, Failure> {
        if let Some(file) = &self.request.base_facts {
            return self.suits(Base::read(file)?);
        }
        match self.outside(ca_cert, caller).await? {
            Some(outside) => self.stored(&outside, caller).await.map(|(_, base)| base),
            None => self.base(&self.engine(caller).await?, false, &caller.report).await,
        }
    }

    /// The base that no engine is asked for; one of a registry is fetched.
    pub(super) async fn outside(
        &self,
        ca_cert: Option<&Path>,
        caller: &Caller,
    ) -> Result<Option<Outside>, Failure> {
        if let Some(name) = &self.request.base_registry {
            let platform = self.request.platform.as_ref();
            let fetching = outside::fetched(name, platform, ca_cert, &self.means.cache, caller);
            return Box::pin(fetching).await.map(Some);
        }
        let place = self.request.base_files.clone();
        Ok(place.map(|place| Outside { reference: place.reference(), place }))
    }

    /// Who makes the image: where none was named and none answers, this host does, if it is to go anywhere else.
    pub(super) async fn maker(
        &self,
        goes_elsewhere: bool,
        ca_cert: Option<&Path>,
        caller: &Caller,
    ) -> Result<Maker, Failure> {
        if let Some(outside) = self.outside(ca_cert, caller).await? {
            return Ok(Maker::Here(outside));
        }
        if !goes_elsewhere {
            return self.engine(caller).await.map(Maker::Engine);
        }
        if let Some(engine) = self.means.engine_if_any(caller).await? {
            return Ok(Maker::Engine(engine));
        }
        let name = self.base_reference()?;
        caller
            .report
            .note(&format!("no engine answers: the image is made without one, on `docker://{name}`"));
        let platform = self.request.platform.as_ref();
        let fetching = outside::fetched(&name, platform, ca_cert, &self.means.cache, caller);
        Box::pin(fetching).await.map(Maker::Here)
    }

    /// A base that no engine has, and its facts.
    pub(super) async fn stored(
        &self,
        Outside { place, reference }: &Outside,
        caller: &Caller,
    ) -> Result<(Stored, Base), Failure> {
        let (began, work) = (Instant::now(), Work::Probe(reference.to_string()));
        caller.report.began(&work);
        let (place, reference) = (place.clone(), reference.clone());
        let (platform, cache) = (self.request.platform.clone(), self.means.cache.clone());
        // All its layers are read where it was not seen before.
        let reading = tokio::task::spawn_blocking(move || -> Result<(Stored, Base), Failure> {
            let failed = |error: StoredError| Failure::refused(error.diagnostic());
            let stored = Stored::open(&place, platform.as_ref()).map_err(failed)?;
            let base = Base::outside(&stored, &reference, &cache)?;
            Ok((stored, base))
        });
        let read = caller.interrupt.run_until_cancelled(reading).await.ok_or_else(Failure::interrupted)?;
        let ended = |error: tokio::task::JoinError| Failure::refused(Diagnostic::new(error.to_string()));
        let (stored, base) = read.map_err(ended)??;
        caller.report.ended(&work, began.elapsed());
        Ok((stored, self.suits(base)?))
    }

    /// The facts of the base, from a file or from an engine, which pulls the image where it has to.
    pub(super) async fn base(&self, engine: &Engine, pull: bool, report: &Report) -> Result<Base, Failure> {
        if let Some(file) = &self.request.base_facts {
            return self.suits(Base::read(file)?);
        }
        let reference = self.base_reference()?;
        if self.request.base_is_local {
            let base = self.looked_at(&reference, engine, report).await?;
            let gone = || EngineError::NotFound { reference, why: "it was built, and is gone again".into() };
            return self.suits(base.ok_or_else(gone)?);
        }
        if !pull
            && let Some(base) = self.looked_at(&reference, engine, report).await?
            && let Ok(base) = self.suits(base)
        {
            return Ok(base);
        }
        let (began, work) = (Instant::now(), Work::Pull(reference.to_string()));
        report.began(&work);
        let platform = self.request.platform.as_ref().map(ToString::to_string);
        engine.pull(&reference, platform.as_deref(), |layer| report.layer(&layer)).await?;
        report.ended(&work, began.elapsed());
        match self.looked_at(&reference, engine, report).await? {
            Some(base) => self.suits(base),
            None => Err(EngineError::NotFound { reference, why: "it is gone after the pull".into() }.into()),
        }
    }

    /// A base, where it is for the platform that is asked for.
    fn suits(&self, base: Base) -> Result<Base, Failure> {
        match &self.request.platform {
            Some(platform) if *platform != base.platform => {
                let what =
                    format!("the base `{}` is for {}, and not for {platform}", base.reference, base.platform);
                let advice = if self.request.base_is_local {
                    "give both images the same `platforms`, or choose one with `--platform`"
                } else {
                    "choose a base that is built for it with `--base`"
                };
                Err(Failure::refused(Diagnostic::new(what).advice(advice)))
            }
            _ => Ok(base),
        }
    }

    /// The facts of an image that the engine has.
    async fn looked_at(
        &self,
        reference: &Reference,
        engine: &Engine,
        report: &Report,
    ) -> Result<Option<Base>, Failure> {
        let (began, work) = (Instant::now(), Work::Probe(reference.to_string()));
        report.began(&work);
        let base = Base::of(engine, reference, self.cache()).await?;
        report.ended(&work, began.elapsed());
        Ok(base)
    }

    /// The name of the base, and its facts where they are in a file or the engine has the image.
    pub(super) async fn local_base(&self, engine: &Engine) -> Result<(Reference, Option<Base>), Failure> {
        let reference = self.base_reference()?;
        let base = match &self.request.base_facts {
            Some(file) => Some(Base::read(file)?),
            None => Base::of(engine, &reference, self.cache()).await?,
        };
        Ok((reference, base))
    }

    fn base_reference(&self) -> Result<Reference, Failure> {
        let Self { request, inputs, .. } = self;
        match request.base.as_ref().or(inputs.variant.base.as_ref()) {
            Some(reference) => Ok(reference.clone()),
            None => default_base(&inputs.spec.python, request.python)
                .map_err(|error| Failure::of_plan(&inputs.documents, &[error])),
        }
    }

    /// The plan, held to its lock.
    ///
    /// Where nothing but a lock will do, one that is stale is refused.
    pub(super) async fn plan(&self, base: Base, caller: &Caller) -> Result<Planned<'_>, Failure> {
        let mut planned = self.plan_unlocked(base, caller).await?;
        self.tell(&planned.plan, caller.environment.is_root(), &caller.report);
        self.hold(&mut planned, caller)?;
        self.refuse_stale(&planned)?;
        Ok(planned)
    }

    /// Chooses the target, then fetches what its list needs, then makes the plan.
    async fn plan_unlocked(&self, base: Base, caller: &Caller) -> Result<Planned<'_>, Failure> {
        let Self { request, inputs, means: Means { cache, known, .. } } = self;
        let (spec, variant, report) = (&inputs.spec, &inputs.variant, &caller.report);
        let of_plan = |errors: Vec<PlanError>| Failure::of_plan(&inputs.documents, &errors);
        let installer = match (Installer::of(&base.platform), &request.installer) {
            (Some(installer), Some(program)) => Some(installer.with_program(program)?),
            (installer, _) => installer,
        };
        let mut materials = inputs.materials(installer);
        let target = Target::choose(request, spec, variant, &base, &materials).map_err(of_plan)?;
        let sources = inputs.sources(&target.needed, cache, known, |what| report.note(what));
        let sources = caller.interrupt.run_until_cancelled(sources).await;
        let (sources, mut mistakes) = sources.ok_or_else(Failure::interrupted)??;
        materials.sources = inputs::planned(&sources);
        let (needed, dropped) = (target.needed.clone(), target.dropped.clone());
        let plan = match Plan::resolve(request, spec, variant, &base, target, materials) {
            Ok(plan) if mistakes.is_empty() => plan,
            resolved => {
                let errors = resolved.err().unwrap_or_default();
                mistakes.extend(errors.iter().map(PlanError::diagnostic));
                return Err(Failure::in_documents(inputs.documents.clone(), mistakes));
            }
        };
        let memory = Memory::of(&plan, cache);
        let plan = plan.with_learnt(memory.recall(), request, &base);
        for (name, why) in &dropped {
            report.note(&format!("`{name}` is left out: {why}"));
        }
        let local = Local {
            sources,
            copies: inputs.copies.iter().map(|(_, files)| files.clone()).collect(),
            python_archive: inputs.python_archive.as_ref().map(|archive| archive.path().to_owned()),
            wheels: BTreeMap::new(),
        };
        Ok(Planned { plan, base, local, needed, standing: Standing::Unlocked, memory })
    }

    /// The plan that a failed step leads to, where it failed for want of a wheel, or of a compiler.
    pub(super) fn learn(
        &self,
        planned: &Planned<'_>,
        step: StepId,
        output: &[String],
        report: &Report,
    ) -> Option<Plan> {
        let Planned { plan, base, needed, memory, .. } = planned;
        let kernel = kernel_needs(&self.inputs.variant);
        let learnt = learn(plan, needed, &kernel, step, output, &self.request.from_source)?;
        let learnt = Learnt { libraries: memory.recall().libraries, ..learnt };
        let next = plan.clone().with_learnt(learnt.clone(), &self.request, base);
        if next.packages == plan.packages {
            return None;
        }
        match learnt.names.keys().find(|name| !plan.packages.unbuilt.contains_key(*name)) {
            Some(name) => {
                report.note(&format!(
                    "no index has a wheel of `{name}` that fits: it is built from its source"
                ));
            }
            None => report.note("a build needs compilers: they are installed for it, and not in the image"),
        }
        memory.keep(&learnt);
        Some(next)
    }

    /// The plan that has the libraries which installed packages lack, where they are to be added and are known.
    pub(super) fn with_libraries(
        &self,
        planned: &Planned<'_>,
        lacking: &Lacking,
        report: &Report,
    ) -> Option<Plan> {
        let Planned { plan, base, memory, .. } = planned;
        let found: BTreeSet<String> = lacking.packages().map(str::to_owned).collect();
        let before = memory.recall();
        let libraries: BTreeSet<String> = before.libraries.union(&found).cloned().collect();
        if libraries == before.libraries {
            return None;
        }
        let learnt = Learnt {
            names: plan.packages.unbuilt.clone(),
            needs_compiler: !plan.packages.build_apt.is_empty(),
            libraries,
        };
        memory.keep(&learnt);
        // What is locked stays so.
        let mut next = plan.clone().with_learnt(learnt, &self.request, base);
        next.packages = plan.packages.clone();
        if next == *plan {
            return None;
        }
        report.note(&format!("built once more with {}", found.into_iter().collect::<Vec<_>>().join(", ")));
        Some(next)
    }

    /// What a plan means that its caller may not expect.
    fn tell(&self, plan: &Plan, caller_is_root: bool, report: &Report) {
        let foundation = &plan.foundation;
        if caller_is_root && !self.request.user_is_chosen && foundation.user.is_unprivileged() {
            let (uid, gid) = foundation.user.ids();
            report.warning(
                &format!("you are root, so the image's user gets the ids {uid}:{gid}"),
                &format!(
                    "folders that you mount into a container must belong to {uid}, or use `--uid` or `--root`"
                ),
            );
        }
        if foundation.provenance == Provenance::Apt {
            report.note(&format!(
                "the base has no Python; its distribution's own, {}, is installed",
                foundation.interpreter.version
            ));
        }
    }

    /// The program that installs packages in build steps.
    pub(super) async fn installer(&self, plan: &Plan) -> Result<PathBuf, Failure> {
        match &self.request.installer {
            Some(program) => Ok(program.clone()),
            None => Ok(plan.foundation.installer.obtain(self.cache()).await?),
        }
    }

    /// The program that resolves packages on this host: the same release where there is one for it, else its own.
    pub(super) async fn installer_here(&self) -> Result<PathBuf, Failure> {
        match (&self.request.installer, Installer::of(&Platform::here())) {
            (Some(program), _) => Ok(program.clone()),
            (None, Some(installer)) => Ok(installer.obtain(self.cache()).await?),
            (None, None) => Ok("uv".into()),
        }
    }

    /// What a failed build means to the caller.
    pub(super) fn explain(&self, planned: &Planned<'_>, error: EngineError) -> Failure {
        let Some((step, output, exit_code)) = failed_step(&planned.plan, &error) else { return error.into() };
        match self.explanation(planned, step, output, exit_code) {
            Some(failure) => Failure { output: Failure::from(error).output, ..failure },
            None => error.into(),
        }
    }

    /// What a step means that has failed, as far as that is known.
    pub(super) fn explanation(
        &self,
        planned: &Planned<'_>,
        step: StepId,
        output: &[String],
        exit_code: Option<i32>,
    ) -> Option<Failure> {
        let Planned { plan, needed, .. } = planned;
        let kernel = kernel_needs(&self.inputs.variant);
        let Explanation { diagnostics, is_worth_a_retry } =
            explain(plan, needed, &kernel, step, output, exit_code)?;
        let kind = if is_worth_a_retry { FailureKind::Unreachable } else { FailureKind::Refused };
        Some(Failure { kind, ..Failure::in_documents(self.inputs.documents.clone(), diagnostics) })
    }
}

/// The step of a plan that has failed, what it printed, and how it ended.
pub(super) fn failed_step<'e>(
    plan: &Plan,
    error: &'e EngineError,
) -> Option<(StepId, &'e [String], Option<i32>)> {
    let EngineError::Step { title: Some(title), output, exit_code, .. } = error else { return None };
    Some((*plan.build_steps().get(*title)?, output, *exit_code))
}

impl Caller {
    /// The folder for what need not be asked or fetched twice.
    pub(super) fn cache(&self, given: Option<PathBuf>) -> Result<PathBuf, Failure> {
        let of_user = || self.environment.cache_home.as_deref().map(|home: &Path| home.join("ipybox"));
        given.or_else(of_user).ok_or_else(|| {
            let what =
                crate::diagnostic::Diagnostic::new("there is no folder for the cache: `HOME` is not set");
            Failure::refused(what.advice("give one with `--cache-dir`"))
        })
    }
}
