//! What a command is asked for, read and put together with a base to a plan.

use std::io;
use std::path::{Path, PathBuf};

use super::{Caller, Failure};
use crate::base::Base;
use crate::cli::ImageArgs;
use crate::diagnostic::{Diagnostic, Document};
use crate::engine::{Engine, EngineError, Host};
use crate::plan::{Options, Plan, User, default_base};
use crate::report::Report;
use crate::spec::{self, Spec};
use crate::templates::Templates;
use crate::uv;
use crate::variant::Variant;

/// What is known before any engine is asked.
pub(super) struct Request {
    args: ImageArgs,
    variant: Variant,
    pub(super) templates: Templates,
    list: Document,
    spec: Spec,
    user: User,
    cache: PathBuf,
}

impl Request {
    /// Reads everything the arguments name. Nothing is contacted.
    pub(super) fn read(args: ImageArgs, caller: &Caller) -> Result<Self, Failure> {
        let variant = Variant::read(&args.variant, args.variants.as_deref())?;
        let list = match &args.dependencies {
            Some(path) => read_list(path)?,
            None => variant.dependencies.clone(),
        };
        let spec = match Spec::parse(&list.text) {
            Ok(spec) => spec,
            Err(mistakes) => return Err(Failure::in_document(Some(list), mistakes)),
        };
        let templates = match &args.templates {
            None => Templates::shipped(),
            Some(folder) => Templates::read(folder).map_err(|(path, error)| {
                let what = format!("cannot read the template `{}`", path.display());
                Failure::refused(Diagnostic::new(what).why(error.to_string()))
            })?,
        };
        let user = user(&args);
        let cache =
            args.cache_dir.clone().or_else(|| Some(caller.environment.cache_home.as_ref()?.join("ipybox")));
        let Some(cache) = cache else {
            let what = Diagnostic::new("there is no folder for the cache: `HOME` is not set");
            return Err(Failure::refused(what.advice("give one with `--cache-dir`")));
        };
        Ok(Self { args, variant, templates, list, spec, user, cache })
    }

    /// The plan, asking an engine only where the base's facts are in no file.
    pub(super) async fn resolve(&self, caller: &Caller) -> Result<Plan, Failure> {
        let base = match &self.args.base_facts {
            Some(file) => Base::read(file)?,
            None => self.base(&self.engine(caller).await?, false, &caller.report).await?,
        };
        self.plan(base, &caller.report)
    }

    /// The program that installs packages, on this host.
    pub(super) async fn installer(&self, plan: &Plan) -> Result<PathBuf, Failure> {
        match &self.args.uv {
            Some(program) => Ok(program.clone()),
            None => Ok(plan.uv.obtain(&self.cache).await?),
        }
    }

    pub(super) async fn engine(&self, caller: &Caller) -> Result<Engine, Failure> {
        let host: Host = self.args.host.parse().map_err(|why: String| {
            let what = format!("cannot use the engine at `{}`", self.args.host);
            Failure::usage(Diagnostic::new(what).why(why).advice("correct `DOCKER_HOST` or `--host`"))
        })?;
        Ok(Engine::connect(&host, caller.interrupt.clone()).await?)
    }

    /// The facts of the base, from a file or from an engine, which pulls the image where it has to.
    pub(super) async fn base(&self, engine: &Engine, pull: bool, report: &Report) -> Result<Base, Failure> {
        if let Some(file) = &self.args.base_facts {
            return Ok(Base::read(file)?);
        }
        let reference = match &self.args.base {
            Some(reference) => reference.clone(),
            None => default_base(&self.spec.python, self.args.python)
                .map_err(|error| Failure::of_plan(&self.list, &[error]))?,
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

    pub(super) fn plan(&self, base: Base, report: &Report) -> Result<Plan, Failure> {
        let uv = match (uv::Release::of(&base.platform), &self.args.uv) {
            (Some(release), Some(program)) => Some(release.with_program(program)?),
            (release, _) => release,
        };
        let options = Options { user: self.user, python: self.args.python, uv };
        let plan = Plan::resolve(&self.spec, &self.variant, base, &options)
            .map_err(|errors| Failure::of_plan(&self.list, &errors))?;
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
            report.warning(&format!("dependency `{name}` is not installed: {why}"), "");
        }
        Ok(plan)
    }
}

fn read_list(path: &Path) -> Result<Document, Failure> {
    Document::read(path, spec::MAX_BYTES).map_err(|error| {
        let name = path.display();
        Failure::refused(if error.kind() == io::ErrorKind::NotFound {
            Diagnostic::new(format!("there is no dependency list `{name}`"))
                .advice("check the path, or leave out `-d` for the variant's own list")
        } else {
            Diagnostic::new(format!("cannot read the dependency list `{name}`")).why(error.to_string())
        })
    })
}

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
