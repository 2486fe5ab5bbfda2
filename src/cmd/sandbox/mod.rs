//! `ipybox sandbox`: containers for agents that last.

mod copy;
mod exec;
mod mount;
mod some;
mod up;

pub(super) use up::FOLDER_LABEL;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{Caller, Failure};
use crate::cli::{OwnerArgs, SandboxCommand};
use crate::diagnostic::Diagnostic;
use crate::engine::{Engine, Inspected, LastingContainer};
use crate::sandbox::{IMAGE_LABEL, Owner, SandboxError, last_words};

pub(super) async fn run(command: SandboxCommand, caller: &mut Caller) -> Result<(), Failure> {
    match command {
        SandboxCommand::Up(args) => Box::pin(up::run(*args, caller)).await,
        SandboxCommand::Exec(args) => Box::pin(exec::run(args, caller)).await,
        SandboxCommand::List(args) => some::list(args, caller).await,
        SandboxCommand::Logs(args) => some::logs(args, caller).await,
        SandboxCommand::Cp(args) => copy::run(args, caller).await,
        SandboxCommand::Stop(args) => some::stop(args, caller).await,
        SandboxCommand::Down(args) => some::down(args, caller).await,
        SandboxCommand::Gc(args) => some::gc(args, caller).await,
    }
}

impl From<OwnerArgs> for Owner {
    fn from(args: OwnerArgs) -> Self {
        Self { project: args.project, user: args.user }
    }
}

/// A sandbox as lists tell it.
#[derive(Debug, Serialize)]
struct Told {
    project: String,
    user: String,
    name: String,
    id: String,
    image: String,
    image_id: String,
    state: String,
    ports: Map<String, Value>,
    created: i64,
}

impl Told {
    fn of(container: &LastingContainer) -> Self {
        let LastingContainer { id, name, state, labels, image, image_id, ports, created } = container;
        let owner = Owner::of(container).unwrap_or_default();
        let port = |(port, address): (&u16, &std::net::SocketAddr)| {
            (port.to_string(), json!({ "host": address.ip().to_string(), "port": address.port() }))
        };
        Self {
            project: owner.project.to_string_lossy().into_owned(),
            user: owner.user.to_string_lossy().into_owned(),
            name: name.clone(),
            id: id.clone(),
            image: labels.get(IMAGE_LABEL).unwrap_or(image).clone(),
            image_id: image_id.clone(),
            state: state.clone(),
            ports: ports.iter().map(port).collect(),
            created: *created,
        }
    }
}

/// The sandbox of an owner.
///
/// # Errors
///
/// A refusal where there is none, or where its name is another's.
async fn found(engine: &Engine, owner: &Owner) -> Result<Inspected, Failure> {
    let Some(found) = engine.unless_interrupted(engine.lasting(&owner.container())).await?? else {
        let what = Diagnostic::new(format!("there is no sandbox of {}", whose(owner)));
        return Err(Failure::refused(what.advice("make it with `ipybox sandbox up`")));
    };
    if Owner::of(&found.container).as_ref() != Some(owner) {
        return Err(Failure::refused(SandboxError::Taken(found.container.name).diagnostic()));
    }
    Ok(found)
}

fn whose(owner: &Owner) -> String {
    let (project, user) = (owner.project.to_string_lossy(), owner.user.to_string_lossy());
    format!("`{}` of project `{}`", user.escape_debug(), project.escape_debug())
}

/// Why a sandbox does not take what it was given: there is none, or it does not run.
async fn not_running(engine: &Engine, owner: &Owner) -> Result<Failure, Failure> {
    let found = match found(engine, owner).await {
        Ok(found) => found,
        Err(none) => return Ok(none),
    };
    let lines = engine.last_lines(&found.container.id, 10).await.unwrap_or_default();
    let ended = found.exit_code.map(|code| format!("; it ended with exit code {code}")).unwrap_or_default();
    let what = Diagnostic::new(format!("the sandbox of {} does not run", whose(owner)));
    let why = format!("its state is `{}`{ended}; {}", found.container.state, last_words(&lines));
    Ok(Failure::refused(what.why(why).advice("start it with `ipybox sandbox up`")))
}
