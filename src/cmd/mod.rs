//! One file per subcommand, each a straight line of calls.

mod build;
mod cache;
mod compose;
mod deliver;
mod deps;
mod direct;
mod doctor;
mod engineless;
mod failure;
mod fleet;
mod fresh;
mod image;
mod images;
mod init;
mod inspect;
mod installed;
mod lock;
mod memory;
mod order;
mod outcome;
mod output;
mod outside;
mod pages;
mod plan;
mod publish;
mod published;
mod push;
mod rebuild;
mod registries;
mod render;
mod sandbox;
mod sharing;
mod variants;
mod verify;

use tokio_util::sync::CancellationToken;

pub use failure::{Failure, FailureKind};
pub use fleet::is_meant as builds_fleet;
use image::{Asked, Planned};

use crate::cli::{Command, EngineArgs, Environment};
use crate::engine::{Choice, Engine, EngineError, KnownEngines};
use crate::inputs::credentials::Login;
use crate::report::Report;
use crate::supply::Supplies;

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

impl Caller {
    /// Keeps to itself what a build must not keep, and warns where others can read it.
    fn conceal(&mut self, supplies: &Supplies) {
        self.report.conceal(|redaction| {
            for Login { user, password } in supplies.credentials.logins() {
                redaction.hide_login(user, password);
            }
            for content in supplies.secrets.values() {
                redaction.hide_secret(content);
            }
        });
        if let Some(netrc) = &supplies.credentials.readable {
            let what = format!("others can read the passwords in `{}`", netrc.display());
            self.report.warning(&what, &format!("chmod 600 {}", netrc.display()));
        }
    }
}

/// What decides which engine is used.
fn choice(asked: &EngineArgs, caller: &Caller) -> Choice {
    let empty_is_none = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    Choice {
        host: empty_is_none(&asked.host),
        context: empty_is_none(&asked.context),
        ..caller.environment.engine.clone()
    }
}

/// A connection to the engine that is meant; the cache may know what kind it is.
async fn engine(asked: &EngineArgs, known: &KnownEngines, caller: &Caller) -> Result<Engine, Failure> {
    let choice = choice(asked, caller);
    Ok(Engine::connect(choice.candidates()?, choice.auth_files(), known, caller.interrupt.clone()).await?)
}

/// The same; nothing, where none was named and none answers.
async fn engine_if_any(
    asked: &EngineArgs,
    known: &KnownEngines,
    caller: &Caller,
) -> Result<Option<Engine>, Failure> {
    let choice = choice(asked, caller);
    let connecting =
        Engine::connect(choice.candidates()?, choice.auth_files(), known, caller.interrupt.clone());
    match connecting.await {
        Err(EngineError::NoEngine { .. }) => Ok(None),
        engine => Ok(Some(engine?)),
    }
}

/// Runs one command.
///
/// # Errors
///
/// [`Failure`], which the caller has not been told of yet.
pub async fn run(command: Command, caller: &mut Caller) -> Result<(), Failure> {
    match command {
        Command::Build(args) => match fleet::file(&args, &caller.report)? {
            Some(file) => Box::pin(fleet::run(args, &file, caller)).await,
            None => Box::pin(build::run(args, caller)).await,
        },
        Command::Publish(args) => Box::pin(publish::run(args, caller)).await,
        Command::Init(args) => init::run(&args, &caller.report),
        Command::Lock(args) => Box::pin(lock::run(args, caller)).await,
        Command::Plan(args) => plan::run(args, caller).await,
        Command::Render(args) => render::run(args, caller).await,
        Command::Deps(args) => deps::run(&args, caller),
        Command::Verify(args) if args.rebuild => Box::pin(rebuild::run(args, caller)).await,
        Command::Verify(args) if args.publication.published => Box::pin(published::run(args, caller)).await,
        Command::Verify(args) => verify::run(args, caller).await,
        Command::Inspect(args) => inspect::inspect(args, caller).await,
        Command::Why(args) => inspect::why(args, caller).await,
        Command::Diff(args) => inspect::diff(args, caller).await,
        Command::Sandbox(args) => Box::pin(sandbox::run(args.command, caller)).await,
        Command::Cleanup(args) => images::cleanup(args, caller).await,
        Command::Images(args) => images::list(args, caller).await,
        Command::Cache(args) => cache::run(args.command, caller),
        Command::Prune(args) => images::prune(args, caller).await,
        Command::Compose(args) => compose::run(args, caller).await,
        Command::Doctor(args) => Box::pin(doctor::run(args, caller)).await,
        Command::Variants(args) => variants::run(&args, &caller.report),
        Command::Completions { shell } => pages::completions(shell, &caller.report),
        Command::Man { command } => pages::man(command.as_deref(), &caller.report),
    }
}
