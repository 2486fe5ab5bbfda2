//! From what is asked to a plan: the part that building, planning and rendering have in common.

use std::path::{Path, PathBuf};

use super::{Caller, Failure, FailureKind};
use crate::base::Base;
use crate::cli::{ImageArgs, variable_of_list};
use crate::deps::Dependency;
use crate::engine::{Engine, EngineError};
use crate::explain::{Explanation, explain};
use crate::image::context::Local;
use crate::inputs::{self, Inputs};
use crate::plan::{Installer, Plan, PlanError, Provenance, Target, default_base, kernel_needs};
use crate::report::Report;
use crate::request::Request;

/// What is known before any engine is asked.
pub(super) struct Asked {
    pub(super) request: Request,
    pub(super) inputs: Inputs,
    host: String,
    cache: PathBuf,
}

/// A plan, and what travels beside it.
pub(super) struct Planned<'a> {
    pub(super) plan: Plan,
    pub(super) base: Base,
    pub(super) local: Local,
    /// The entries of the list that are installed.
    pub(super) needed: Vec<&'a Dependency>,
}

impl Asked {
    /// Reads everything the arguments name. Nothing is contacted.
    pub(super) async fn read(args: ImageArgs, caller: &Caller) -> Result<Self, Failure> {
        let (host, cache) = (args.engine.host.clone(), caller.cache(args.cache_dir.clone())?);
        let request = args.request(caller.environment.ids);
        let inputs = caller.interrupt.run_until_cancelled(Inputs::read(&request, variable_of_list)).await;
        let inputs = inputs.ok_or_else(Failure::interrupted)??;
        PlanError::of_request(&request, &inputs.variant)
            .map_err(|error| Failure::of_plan(&inputs.documents, &[error]))?;
        if request.templates.is_some() {
            let replaced: Vec<_> = inputs.templates.replaced().collect();
            let replaced =
                if replaced.is_empty() { "none of the shipped ones".to_owned() } else { replaced.join(", ") };
            caller.report.note(&format!("templates that are replaced: {replaced}"));
        }
        Ok(Self { request, inputs, host, cache })
    }

    pub(super) async fn engine(&self, caller: &Caller) -> Result<Engine, Failure> {
        super::engine(&self.host, caller).await
    }

    /// The plan, asking an engine only where the base's facts are in no file.
    pub(super) async fn resolve(&self, caller: &Caller) -> Result<Planned<'_>, Failure> {
        let base = match &self.request.base_facts {
            Some(file) => Base::read(file)?,
            None => self.base(&self.engine(caller).await?, false, &caller.report).await?,
        };
        self.plan(base, caller).await
    }

    /// The facts of the base, from a file or from an engine, which pulls the image where it has to.
    pub(super) async fn base(&self, engine: &Engine, pull: bool, report: &Report) -> Result<Base, Failure> {
        let Self { request, inputs, cache, .. } = self;
        if let Some(file) = &request.base_facts {
            return Ok(Base::read(file)?);
        }
        let reference = match request.base.as_ref().or(inputs.variant.base.as_ref()) {
            Some(reference) => reference.clone(),
            None => default_base(&inputs.spec.python, request.python)
                .map_err(|error| Failure::of_plan(&inputs.documents, &[error]))?,
        };
        if !pull && let Some(base) = Base::of(engine, &reference, cache).await? {
            return Ok(base);
        }
        report.note(&format!("pulling {reference}"));
        engine.pull(&reference).await?;
        match Base::of(engine, &reference, cache).await? {
            Some(base) => Ok(base),
            None => Err(EngineError::NotFound { reference, why: "it is gone after the pull".into() }.into()),
        }
    }

    /// Chooses the target, then fetches what its list needs, then makes the plan.
    pub(super) async fn plan(&self, base: Base, caller: &Caller) -> Result<Planned<'_>, Failure> {
        let Self { request, inputs, cache, .. } = self;
        let (spec, variant, report) = (&inputs.spec, &inputs.variant, &caller.report);
        let of_plan = |errors: Vec<PlanError>| Failure::of_plan(&inputs.documents, &errors);
        let installer = match (Installer::of(&base.platform), &request.installer) {
            (Some(installer), Some(program)) => Some(installer.with_program(program)?),
            (installer, _) => installer,
        };
        let mut materials = inputs.materials(installer);
        let target = Target::choose(request, spec, variant, &base, &materials).map_err(of_plan)?;
        let sources = inputs.sources(&target.needed, cache, |what| report.note(what));
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
        self.tell(&plan, caller.environment.is_root(), report);
        for (name, why) in &dropped {
            report.note(&format!("`{name}` is left out: {why}"));
        }
        let local = Local {
            sources,
            copies: inputs.copies.iter().map(|(_, files)| files.clone()).collect(),
            python_archive: inputs.python_archive.as_ref().map(|archive| archive.path().to_owned()),
        };
        Ok(Planned { plan, base, local, needed })
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

    /// The program that installs packages, on this host.
    pub(super) async fn installer(&self, plan: &Plan) -> Result<PathBuf, Failure> {
        match &self.request.installer {
            Some(program) => Ok(program.clone()),
            None => Ok(plan.foundation.installer.obtain(&self.cache).await?),
        }
    }

    /// What a failed build means to the caller.
    pub(super) fn explain(&self, planned: &Planned<'_>, error: EngineError) -> Failure {
        let EngineError::Step { title: Some(title), output, .. } = &error else { return error.into() };
        let Planned { plan, needed, .. } = planned;
        let titled = plan.build_steps().get(*title).copied();
        let kernel = kernel_needs(&self.inputs.variant);
        let explained = titled.and_then(|id| explain(plan, needed, &kernel, id, output));
        let Some(Explanation { diagnostics, is_worth_a_retry }) = explained else { return error.into() };
        let kind = if is_worth_a_retry { FailureKind::Unreachable } else { FailureKind::Refused };
        Failure { kind, documents: self.inputs.documents.clone(), diagnostics, ..Failure::from(error) }
    }
}

impl Caller {
    /// The folder for what need not be asked or fetched twice.
    fn cache(&self, given: Option<PathBuf>) -> Result<PathBuf, Failure> {
        let of_user = || self.environment.cache_home.as_deref().map(|home: &Path| home.join("ipybox"));
        given.or_else(of_user).ok_or_else(|| {
            let what =
                crate::diagnostic::Diagnostic::new("there is no folder for the cache: `HOME` is not set");
            Failure::refused(what.advice("give one with `--cache-dir`"))
        })
    }
}
