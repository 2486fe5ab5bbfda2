//! What a command is asked for, read and put together with a base to a plan.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::lists;
use super::{Caller, Failure};
use crate::base::Base;
use crate::cli::ImageArgs;
use crate::diagnostic::{Diagnostic, Documents};
use crate::engine::{Engine, EngineError};
use crate::git;
use crate::local::LocalSource;
use crate::plan::{Options, Plan, PlanError, User, default_base, needed};
use crate::report::Report;
use crate::spec::{Dependency, Name, Source, Spec};
use crate::templates::Templates;
use crate::uv;
use crate::variant::Variant;

/// What is known before any engine is asked.
pub(super) struct Request {
    args: ImageArgs,
    pub(super) variant: Variant,
    pub(super) templates: Templates,
    lists: Documents,
    spec: Spec,
    user: User,
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
                Diagnostic::new(what).why(why).advice("name `server.txt` or `gateway.txt`"),
            ));
        }
        let user = user(&args);
        let cache =
            args.cache_dir.clone().or_else(|| Some(caller.environment.cache_home.as_ref()?.join("ipybox")));
        let Some(cache) = cache else {
            let what = Diagnostic::new("there is no folder for the cache: `HOME` is not set");
            return Err(Failure::refused(what.advice("give one with `--cache-dir`")));
        };
        Ok(Self { args, variant, templates, lists, spec, user, cache })
    }

    /// The plan and the files of local sources, asking an engine only where the base's facts are in no
    /// file.
    pub(super) async fn resolve(&self, caller: &Caller) -> Result<(Plan, LocalSources), Failure> {
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
        let reference = match &self.args.base {
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

    pub(super) async fn plan(&self, base: Base, caller: &Caller) -> Result<(Plan, LocalSources), Failure> {
        let report = &caller.report;
        let uv = match (uv::Release::of(&base.platform), &self.args.uv) {
            (Some(release), Some(program)) => Some(release.with_program(program)?),
            (release, _) => release,
        };
        let sources = self.sources(&base, caller);
        let sources =
            caller.interrupt.run_until_cancelled(sources).await.ok_or_else(Failure::interrupted)??;
        let bytecode = !self.args.no_bytecode;
        let options = Options { user: self.user, python: self.args.python, uv, sources, bytecode };
        let plan = Plan::resolve(&self.spec, &self.variant, base, &options)
            .map_err(|errors| Failure::of_plan(&self.lists, &errors))?;
        if rustix::process::getuid().is_root() && !self.args.root && self.args.uid.is_none() {
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
        Ok((plan, options.sources))
    }

    /// The files of dependencies that come from this host or a repository; all mistakes at once.
    async fn sources(&self, base: &Base, caller: &Caller) -> Result<LocalSources, Failure> {
        let (needed, _) = needed(&self.spec, base);
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
                Err(failure) if failure.kind == super::FailureKind::Unreachable => return Err(failure),
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

/// The files of dependencies, by distribution.
pub(super) type LocalSources = BTreeMap<Name, LocalSource>;

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
