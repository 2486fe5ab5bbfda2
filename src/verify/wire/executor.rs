//! Code and commands to an executor server and back.

use std::io;

use hyper::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::http::{Answer, Server};
use super::kernel::Outcome;

/// A server that runs Python and commands in workspaces.
pub(in crate::verify) struct Executor(pub(in crate::verify) Server);

/// What came of a call.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(in crate::verify) struct Ran {
    pub(in crate::verify) stdout: String,
    pub(in crate::verify) stderr: String,
    pub(in crate::verify) exit_code: i32,
    pub(in crate::verify) timed_out: bool,
}

impl From<Ran> for Outcome {
    fn from(ran: Ran) -> Self {
        // Where tracebacks have the error.
        let last = ran.stderr.trim_end().lines().next_back().unwrap_or_default();
        let error = (ran.exit_code != 0).then(|| format!("exit code {}: {last}", ran.exit_code));
        Self { text: ran.stdout, error }
    }
}

/// The workspace of calls that name no other.
pub(in crate::verify) const WORKSPACE: &str = "verify";

impl Executor {
    pub(in crate::verify) async fn python(&self, code: &str) -> io::Result<Ran> {
        self.call("python", json!({ "workspace_id": WORKSPACE, "code": code, "timeout": 100 })).await
    }

    pub(in crate::verify) async fn bash(&self, command: &str) -> io::Result<Ran> {
        self.call("bash", json!({ "workspace_id": WORKSPACE, "command": command, "timeout": 100 })).await
    }

    pub(in crate::verify) async fn call(&self, what: &str, request: Value) -> io::Result<Ran> {
        let answer = self.post(what, &request).await?.good()?;
        Ok(serde_json::from_slice(&answer)?)
    }

    pub(in crate::verify) async fn post(&self, what: &str, request: &Value) -> io::Result<Answer> {
        self.0.ask(Method::POST, &format!("/execute/{what}"), request.to_string()).await
    }
}
