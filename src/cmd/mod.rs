//! One file per subcommand, each a straight line of calls.

mod build;
mod plan;
mod render;
mod variants;

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use tokio_util::sync::CancellationToken;

use crate::base::{Base, BaseError};
use crate::cli::{Command, Environment, ImageArgs};
use crate::diagnostic::{Diagnostic, Document};
use crate::dockerfile::DockerfileError;
use crate::engine::{Engine, EngineError};
use crate::plan::{Options, Plan, PlanError, User, default_base};
use crate::report::Report;
use crate::spec::{self, Spec};
use crate::templates::Templates;
use crate::trust::TrustError;
use crate::uv::{self, UvError};
use crate::variant::{Variant, VariantError};

/// Whom a command works for: what their environment says, how to tell them things, and whether
/// they gave up.
#[derive(Debug)]
pub struct Caller {
    /// What the environment says.
    pub environment: Environment,
    /// How to tell them things.
    pub report: Report,
    /// Cancelled when they give up.
    pub interrupt: CancellationToken,
}

/// Runs one command.
///
/// # Errors
///
/// [`Failure`], which the caller has not been told of yet.
pub async fn run(command: Command, caller: &mut Caller) -> Result<(), Failure> {
    match command {
        Command::Build(args) => build::run(args, caller).await,
        Command::Plan(args) => plan::run(args, caller).await,
        Command::Render(args) => render::run(args, caller).await,
        Command::Variants(args) => variants::run(&args, &caller.report),
    }
}

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub struct Failure {
    /// What kind of failure it is.
    pub kind: FailureKind,
    /// The text that the diagnostics' places speak of.
    pub document: Option<Document>,
    /// What to tell the user; at least one, unless interrupted.
    pub diagnostics: Vec<Diagnostic>,
    /// What a failed step printed.
    pub output: Vec<String>,
}

/// The kinds of failure that callers tell apart by the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// An input is refused, or a step failed.
    Refused,
    /// Something that should not happen.
    Fault,
    /// Engine, registry or index do not answer; worth a retry.
    Unreachable,
    /// The user gave up.
    Interrupted,
}

impl Failure {
    fn refused(diagnostic: Diagnostic) -> Self {
        Self::in_document(None, vec![diagnostic])
    }

    fn in_document(document: Option<Document>, diagnostics: Vec<Diagnostic>) -> Self {
        Self {
            kind: FailureKind::Refused,
            document,
            diagnostics,
            output: Vec::new(),
        }
    }

    fn interrupted() -> Self {
        EngineError::Interrupted.into()
    }

    fn of_plan(document: &Document, errors: &[PlanError]) -> Self {
        let diagnostics = errors.iter().map(PlanError::diagnostic).collect();
        Self::in_document(Some(document.clone()), diagnostics)
    }
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        let kind = match &error {
            EngineError::Interrupted => FailureKind::Interrupted,
            EngineError::NoImage => FailureKind::Fault,
            error if error.is_worth_a_retry() => FailureKind::Unreachable,
            _ => FailureKind::Refused,
        };
        let diagnostics = vec![error.diagnostic()];
        let output = match error {
            EngineError::Step { output, .. } => output,
            _ => Vec::new(),
        };
        Self {
            kind,
            document: None,
            diagnostics,
            output,
        }
    }
}

impl From<VariantError> for Failure {
    fn from(error: VariantError) -> Self {
        let (document, diagnostic) = error.diagnostic();
        Self::in_document(document, vec![diagnostic])
    }
}

/// Of stdout, or of a file whose name the caller knows.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::refused(Diagnostic::new("cannot write the result").why(error.to_string()))
    }
}

macro_rules! refused {
    ($($error:ty),*) => {$(
        impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::refused(error.diagnostic())
            }
        }
    )*};
}

refused!(BaseError, UvError, TrustError, DockerfileError);

/// What is known before any engine is asked.
struct Request {
    args: ImageArgs,
    variant: Variant,
    templates: Templates,
    list: Document,
    spec: Spec,
    user: User,
    cache: PathBuf,
}

impl Request {
    /// Reads everything the arguments name. Nothing is contacted.
    fn read(args: ImageArgs, caller: &Caller) -> Result<Self, Failure> {
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
        let cache = args
            .cache_dir
            .clone()
            .unwrap_or_else(|| caller.environment.cache_home.join("ipybox"));
        Ok(Self {
            args,
            variant,
            templates,
            list,
            spec,
            user,
            cache,
        })
    }

    /// The plan, asking an engine only where the base's facts are in no file.
    async fn resolve(&self, caller: &Caller) -> Result<Plan, Failure> {
        let base = match &self.args.base_facts {
            Some(file) => Base::read(file)?,
            None => {
                let engine = self.engine(caller).await?;
                self.base(&engine, false, &caller.report).await?
            }
        };
        self.plan(base, &caller.report)
    }

    /// The program that installs packages, on this host.
    async fn installer(&self, plan: &Plan) -> Result<PathBuf, Failure> {
        match &self.args.uv {
            Some(program) => Ok(program.clone()),
            None => Ok(plan.uv.obtain(&self.cache).await?),
        }
    }

    async fn engine(&self, caller: &Caller) -> Result<Engine, Failure> {
        Ok(Engine::connect(&self.args.host, caller.interrupt.clone()).await?)
    }

    /// The facts of the base, from a file or from an engine, which pulls the image where it has to.
    async fn base(&self, engine: &Engine, pull: bool, report: &Report) -> Result<Base, Failure> {
        if let Some(file) = &self.args.base_facts {
            return Ok(Base::read(file)?);
        }
        let reference = match &self.args.base {
            Some(reference) => reference.clone(),
            None => default_base(self.spec.python.as_ref(), self.args.python)
                .map_err(|error| Failure::of_plan(&self.list, &[error]))?,
        };
        if !pull && let Some(base) = engine.base(&reference, &self.cache).await? {
            return Ok(base);
        }
        report.note(&format!("pulling {reference}"));
        engine.pull(&reference).await?;
        match engine.base(&reference, &self.cache).await? {
            Some(base) => Ok(base),
            None => Err(EngineError::NotFound {
                reference,
                why: "it is gone after the pull".into(),
            }
            .into()),
        }
    }

    fn plan(&self, base: Base, report: &Report) -> Result<Plan, Failure> {
        let uv = match (uv::Release::of(&base.platform), &self.args.uv) {
            (Some(release), Some(program)) => Some(release.with_program(program)?),
            (release, _) => release,
        };
        let options = Options {
            user: self.user,
            python: self.args.python,
            uv,
        };
        let plan = Plan::resolve(&self.spec, &self.variant, base, &options)
            .map_err(|errors| Failure::of_plan(&self.list, &errors))?;
        if rustix::process::getuid().is_root() && !self.args.root && self.args.uid.is_none() {
            report.warning(
                "you are root, so the image's user gets the ids 1000:1000",
                "folders that you mount into a container must belong to 1000, or use `--uid` or `--root`",
            );
        }
        for (name, why) in &plan.dropped {
            report.warning(&format!("dependency `{name}` is not installed: {why}"), "");
        }
        Ok(plan)
    }
}

fn read_list(path: &Path) -> Result<Document, Failure> {
    let name = path.display().to_string();
    let refused = |why: String| {
        let what = format!("cannot read the dependency list `{name}`");
        Failure::refused(Diagnostic::new(what).why(why))
    };
    let mut bytes = Vec::new();
    let read =
        std::fs::File::open(path).and_then(|file| file.take(spec::MAX_BYTES + 1).read_to_end(&mut bytes));
    match read {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let what = format!("there is no dependency list `{name}`");
            return Err(Failure::refused(
                Diagnostic::new(what).advice("check the path, or leave out `-d` for the variant's own list"),
            ));
        }
        Err(error) => return Err(refused(error.to_string())),
        Ok(length) if length as u64 > spec::MAX_BYTES => {
            return Err(refused(format!("it is larger than {} MB", spec::MAX_BYTES >> 20)));
        }
        Ok(_) => {}
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = valid.iter().filter(|&&byte| byte == b'\n').count() + 1;
        refused(format!("line {line} is not UTF-8"))
    })?;
    Ok(Document { name, text })
}

/// Who the image runs as: the caller, unless that is root.
fn user(args: &ImageArgs) -> User {
    if args.root {
        return User::Root;
    }
    let (uid, gid) = if rustix::process::getuid().is_root() {
        (1000, 1000)
    } else {
        (
            rustix::process::getuid().as_raw(),
            rustix::process::getgid().as_raw(),
        )
    };
    User::Unprivileged {
        uid: args.uid.unwrap_or(uid),
        gid: args.gid.unwrap_or(gid),
    }
}
