//! One file per subcommand, each a straight line of calls.

mod build;
mod deps;
mod failure;
mod image;
mod plan;
mod render;
mod variants;
mod verify;

use tokio_util::sync::CancellationToken;

pub use failure::{Failure, FailureKind};
use image::{Asked, Planned};

use crate::cli::{Command, Environment};
use crate::diagnostic::Diagnostic;
use crate::engine::{Engine, Host};
use crate::report::Report;

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

/// A connection to the engine at `host`, as it is written in `DOCKER_HOST`.
async fn engine(host: &str, caller: &Caller) -> Result<Engine, Failure> {
    let host: Host = host.parse().map_err(|why: String| {
        let what = format!("cannot use the engine at `{host}`");
        Failure::usage(Diagnostic::new(what).why(why).advice("correct `DOCKER_HOST` or `--host`"))
    })?;
    Ok(Engine::connect(&host, caller.interrupt.clone()).await?)
}

/// Runs one command.
///
/// # Errors
///
/// [`Failure`], which the caller has not been told of yet.
pub async fn run(command: Command, caller: &mut Caller) -> Result<(), Failure> {
    match command {
        Command::Build(args) => Box::pin(build::run(args, caller)).await,
        Command::Plan(args) => plan::run(args, caller).await,
        Command::Render(args) => render::run(args, caller).await,
        Command::Deps(args) => deps::run(&args, caller),
        Command::Verify(args) => verify::run(args, caller).await,
        Command::Variants(args) => variants::run(&args, &caller.report),
    }
}
