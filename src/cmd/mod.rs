//! One file per subcommand, each a straight line of calls.

mod build;
mod deps;
mod failure;
mod lists;
mod plan;
mod render;
mod request;
mod variants;

use tokio_util::sync::CancellationToken;

pub use failure::{Failure, FailureKind};
use request::Request;

use crate::cli::{Command, Environment};
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
        Command::Deps(args) => deps::run(&args, caller),
        Command::Variants(args) => variants::run(&args, &caller.report),
    }
}
