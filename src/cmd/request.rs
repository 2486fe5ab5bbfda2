//! What a command is asked for, read and put together with a base to a plan.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::lists;
use super::{Caller, Failure, FailureKind};
use crate::base::Base;
use crate::cli::ImageArgs;
use crate::context::Local;
use crate::deps::{Dependency, Name, Source, Spec};
use crate::diagnostic::{Diagnostic, Documents};
use crate::engine::{Engine, EngineError};
use crate::explain::{Explanation, explain};
use crate::inputs::git;
use crate::inputs::local::LocalSource;
use crate::inputs::python_archive::PythonArchive;
use crate::inputs::templates::Templates;
use crate::installer;
use crate::plan::{
    Options, Plan, PlanError, Provenance, Target, User, choose, default_base, kernel_needs, needed,
};
use crate::report::Report;
use crate::secret;
use crate::variant::{Packages, Variant, destination};

/// What is known before any engine is asked.
pub(super) struct Request {
    args: ImageArgs,
    pub(super) variant: Variant,
    pub(super) templates: Templates,
    lists: Documents,
    spec: Spec,
    user: User,
    python_archive: Option<PythonArchive>,
    copies: Vec<(String, LocalSource)>,
    cache: PathBuf,
}

impl Request {
    /// Reads everything the arguments name. Nothing is contacted.
    pub(super) fn read(args: ImageArgs, caller: &Caller) -> Result<Self, Failure> {
        let variant = Variant::read(&args.variant, args.variants.as_deref())?;
        let documents = if args.dependencies.is_empty() {
            variant.dependencies.clone().into()
        } else {
            lists::documents(&args.dependencies)?
        };
        let (lists, spec) = lists::read(documents, &args.selection)?;
        let templates = match &args.templates {
            None => Templates::shipped(),
            Some(folder) => Templates::read(folder).map_err(|(path, error)| {
                let what = format!("cannot read the template `{}`", path.display());
                Failure::refused(Diagnostic::new(what).why(error.to_string()))
            })?,
        };
        if templates.get(&format!("runtime/{}", variant.lock)).is_none() {
            let what = format!("the variant `{}` has an unknown `lock`", variant.name);
            let why = format!("there is no `{}` in `runtime/` of the templates", variant.lock.escape_debug());
            return Err(Failure::refused(
                Diagnostic::new(what).why(why).advice("name `server.txt`, `gateway.txt` or `executor.txt`"),
            ));
        }
        if variant.packages == Packages::Inherited && (args.root || args.uid.is_some() || args.gid.is_some())
        {
            let what = format!("the variant `{}` takes over the user of its base", variant.name);
            return Err(Failure::usage(
                Diagnostic::new(what).advice("leave out `--root`, `--uid` and `--gid`"),
            ));
        }
        if variant.packages == Packages::Inherited
            && variant.base.is_none()
            && args.base.is_none()
            && args.base_facts.is_none()
        {
            let what = format!("the variant `{}` needs an image to extend", variant.name);
            return Err(Failure::usage(Diagnostic::new(what).advice("name it with `--base`")));
        }
        if variant.packages == Packages::Inherited && args.python_archive.is_some() {
            let what = format!("the variant `{}` takes over the Python of its base", variant.name);
            return Err(Failure::usage(Diagnostic::new(what).advice("leave out `--python-archive`")));
        }
        if variant.executor().is_some() && args.name.is_none() && variant.executor_name.is_none() {
            // Before anything is pulled.
            return Err(Failure::refused(PlanError::NeedsName(variant.name).diagnostic()));
        }
        check_secrets(&args, &variant)?;
        let python_archive = args.python_archive.as_deref().map(PythonArchive::read).transpose()?;
        let copies = copies(&args, &variant)?;
        let user = user(&args);
        let cache =
            args.cache_dir.clone().or_else(|| Some(caller.environment.cache_home.as_ref()?.join("ipybox")));
        let Some(cache) = cache else {
            let what = Diagnostic::new("there is no folder for the cache: `HOME` is not set");
            return Err(Failure::refused(what.advice("give one with `--cache-dir`")));
        };
        Ok(Self { args, variant, templates, lists, spec, user, python_archive, copies, cache })
    }

    /// The plan and the files of local sources, asking an engine only where the base's facts are in no
    /// file.
    pub(super) async fn resolve(&self, caller: &Caller) -> Result<(Plan, Local), Failure> {
        let base = match &self.args.base_facts {
            Some(file) => Base::read(file)?,
            None => self.base(&self.engine(caller).await?, false, &caller.report).await?,
        };
        self.plan(base, caller).await
    }

    /// The program that installs packages, on this host.
    pub(super) async fn installer(&self, plan: &Plan) -> Result<PathBuf, Failure> {
        match &self.args.uv {
            Some(program) => Ok(program.clone()),
            None => Ok(plan.uv.obtain(&self.cache).await?),
        }
    }

    pub(super) async fn engine(&self, caller: &Caller) -> Result<Engine, Failure> {
        super::engine(&self.args.host, caller).await
    }

    /// The facts of the base, from a file or from an engine, which pulls the image where it has to.
    pub(super) async fn base(&self, engine: &Engine, pull: bool, report: &Report) -> Result<Base, Failure> {
        if let Some(file) = &self.args.base_facts {
            return Ok(Base::read(file)?);
        }
        let reference = match self.args.base.as_ref().or(self.variant.base.as_ref()) {
            Some(reference) => reference.clone(),
            None => default_base(&self.spec.python, self.args.python)
                .map_err(|error| Failure::of_plan(&self.lists, &[error]))?,
        };
        if !pull && let Some(base) = engine.base(&reference, &self.cache).await? {
            return Ok(base);
        }
        report.note(&format!("pulling {reference}"));
        engine.pull(&reference).await?;
        match engine.base(&reference, &self.cache).await? {
            Some(base) => Ok(base),
            None => Err(EngineError::NotFound { reference, why: "it is gone after the pull".into() }.into()),
        }
    }

    pub(super) async fn plan(&self, base: Base, caller: &Caller) -> Result<(Plan, Local), Failure> {
        let report = &caller.report;
        let uv = match (installer::Release::of(&base.platform), &self.args.uv) {
            (Some(release), Some(program)) => Some(release.with_program(program)?),
            (release, _) => release,
        };
        let mut options = Options {
            python: self.args.python,
            base_python: self.args.base_python.clone(),
            archive: self.python_archive.clone(),
            name: self.args.name.clone(),
            apt: self.args.apt.clone(),
            env: self.args.env.iter().cloned().collect(),
            labels: self.args.label.iter().cloned().collect(),
            copies: self.copies.clone(),
            bytecode: !self.args.no_bytecode,
            ..Options::new(self.user, uv)
        };
        let sources = self.sources(&base, &options, caller);
        options.sources =
            caller.interrupt.run_until_cancelled(sources).await.ok_or_else(Failure::interrupted)??;
        let plan = Plan::resolve(&self.spec, &self.variant, base, &options)
            .map_err(|errors| Failure::of_plan(&self.lists, &errors))?;
        let is_ours = matches!(plan.user, User::Unprivileged { .. });
        if rustix::process::getuid().is_root() && is_ours && self.args.uid.is_none() {
            let (uid, gid) = plan.user.ids();
            report.warning(
                &format!("you are root, so the image's user gets the ids {uid}:{gid}"),
                &format!(
                    "folders that you mount into a container must belong to {uid}, or use `--uid` or `--root`"
                ),
            );
        }
        for (name, why) in &plan.dropped {
            report.note(&format!("`{name}` is left out: {why}"));
        }
        if plan.provenance == Provenance::Apt {
            report.note(&format!(
                "the base has no Python; its distribution's own, {}, is installed",
                plan.interpreter.version
            ));
        }
        let local = Local {
            sources: options.sources,
            copies: options.copies.into_iter().map(|(_, files)| files).collect(),
            python_archive: self.python_archive.as_ref().map(|archive| archive.path().to_owned()),
        };
        Ok((plan, local))
    }

    /// What a failed build means to the caller.
    pub(super) fn explain(&self, plan: &Plan, error: EngineError) -> Failure {
        let EngineError::Step { step, output, .. } = &error else { return error.into() };
        let titled = plan.build_steps().into_iter().find(|id| step.ends_with(&id.title()));
        let kernel = kernel_needs(&self.variant);
        let explained = titled.and_then(|id| explain(plan, &self.spec, &kernel, id, output));
        let Some(Explanation { diagnostics, is_worth_a_retry }) = explained else { return error.into() };
        let kind = if is_worth_a_retry { FailureKind::Unreachable } else { FailureKind::Refused };
        Failure { kind, documents: self.lists.clone(), diagnostics, ..Failure::from(error) }
    }

    /// The files of dependencies that come from this host or a repository; all mistakes at once.
    async fn sources(
        &self,
        base: &Base,
        options: &Options,
        caller: &Caller,
    ) -> Result<LocalSources, Failure> {
        let python = choose(&self.spec, self.variant.packages, base, options).ok();
        let version = python.as_ref().map(|(python, _)| python.interpreter.version.as_str());
        let (needed, _) = needed(&self.spec, Target { platform: &base.platform, python: version });
        let mut sources = LocalSources::new();
        let mut mistakes = Vec::new();
        for dependency in needed {
            match self.source(dependency, caller).await {
                Ok(Some(source)) => {
                    let two = sources
                        .insert(dependency.name.clone(), source.clone())
                        .is_some_and(|earlier| earlier != source);
                    if two {
                        let error = PlanError::TwoSources {
                            name: dependency.name.clone(),
                            at: dependency.at.clone(),
                        };
                        mistakes.push(error.diagnostic());
                    }
                }
                Ok(None) => {}
                Err(failure) if failure.kind == FailureKind::Unreachable => return Err(failure),
                Err(failure) => {
                    mistakes.extend(failure.diagnostics.into_iter().map(|one| one.at(dependency.at.clone())));
                }
            }
        }
        if mistakes.is_empty() {
            Ok(sources)
        } else {
            Err(Failure::in_documents(self.lists.clone(), mistakes))
        }
    }

    async fn source(&self, dependency: &Dependency, caller: &Caller) -> Result<Option<LocalSource>, Failure> {
        match &dependency.source {
            Source::Path { path, subdirectory, .. } => {
                let path = lists::folder(&self.lists, dependency).join(path);
                Ok(Some(LocalSource::read(&path, subdirectory.as_deref())?))
            }
            Source::Git { url, reference, subdirectory, .. } => {
                caller.report.note(&format!("fetching {url}"));
                let commit = git::fetch(url, reference.as_deref(), &self.cache).await?;
                let source = LocalSource::read(&commit.folder, subdirectory.as_deref())?;
                Ok(Some(source.at_commit(commit.id)))
            }
            Source::Registry { .. } | Source::Url { .. } => Ok(None),
        }
    }
}

/// What flags and variant copy into the image. A variant copies nothing from outside of its folder.
fn copies(args: &ImageArgs, variant: &Variant) -> Result<Vec<(String, LocalSource)>, Failure> {
    let mut copies = Vec::new();
    if let Some(folder) = &variant.folder {
        for copy in &variant.copies {
            let files = LocalSource::read_inside(folder, &copy.from)?;
            copies.push((copy.to.clone(), files));
        }
    }
    for (from, to) in &args.copy {
        copies.push((to.clone(), LocalSource::read_all(from)?));
    }
    for (to, files) in &copies {
        for (path, ..) in files.files().filter(|_| files.file().is_none()) {
            let place = format!("{}/{path}", to.trim_end_matches('/'));
            destination(&place).map_err(|why| {
                Failure::refused(
                    Diagnostic::new(format!("cannot copy to `{}`", place.escape_debug())).why(why),
                )
            })?;
        }
    }
    Ok(copies)
}

/// The environment of an image stays in it for everybody to read.
fn check_secrets(args: &ImageArgs, variant: &Variant) -> Result<(), Failure> {
    let names = args.env.iter().map(|(name, _)| name).chain(variant.env.keys());
    match names.into_iter().find(|name| secret::is_telling(name)) {
        Some(name) if !args.allow_secret_env => Err(Failure::refused(
            Diagnostic::new(format!("the variable `{name}` looks like a secret"))
                .why("everybody who has the image can read its environment")
                .advice("give it to containers when they start, or use `--allow-secret-env` if it is none"),
        )),
        _ => Ok(()),
    }
}

/// The files of dependencies, by distribution.
type LocalSources = BTreeMap<Name, LocalSource>;

/// Who the image runs as: the caller, unless that is root.
fn user(args: &ImageArgs) -> User {
    if args.root {
        return User::Root;
    }
    let (uid, gid) = if rustix::process::getuid().is_root() {
        (1000, 1000)
    } else {
        (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw())
    };
    User::Unprivileged { uid: args.uid.unwrap_or(uid), gid: args.gid.unwrap_or(gid) }
}
