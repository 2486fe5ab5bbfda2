//! Commands in a sandbox, and how what they started is ended.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::firewall::{GUARD, is_restricted};
use super::words;
use crate::engine::{Engine, EngineError, LastingContainer, Run};

/// The variable that marks whatever a command starts.
const MARK: &str = "IPYBOX_EXEC";

/// Tells when the sandbox was used, where that can be written; goes to the folder that is asked for; and becomes the
/// command.
const BEGIN: &str = "[ -p /dev/shm/.ipybox-used ] || { echo 1<>/dev/shm/.ipybox-used; } 2>/dev/null; [ -z \"$1\" ] || cd -- \"$1\" || exit 126; shift; exec \"$@\"";

/// Ends what carries a mark.
const END: &str = include_str!("end.sh");

/// How often an engine is asked to start a script that it does not start, and how long is waited in between.
const ATTEMPTS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(50);

/// How long a script of these is waited for.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// Prints how long nobody has used the sandbox, in seconds; nothing where something that was started still runs, or
/// somebody is connected to one of these ports, which are told in hexadecimal digits, as the kernel lists them.
const IDLE: &str = "\
    PATH=/usr/sbin:/usr/bin:/sbin:/bin; \
    for folder in /proc/[0-9]*; do while IFS= read -r text || [ -n \"$text\" ]; do \
        case $text in *IPYBOX_EXEC=*) exit ;; esac; done <$folder/environ; done 2>/dev/null; \
    for port; do for table in tcp tcp6; do while read -r _ local _ state _; do \
        case $local$state in *:${port}01) exit ;; esac; done </proc/net/$table; done; done 2>/dev/null; \
    used=$(stat -c %Y /dev/shm/.ipybox-used 2>/dev/null || stat -c %Y /proc/1); echo $(($(date +%s) - used))";

/// A command that is run in a sandbox.
#[derive(Debug, Clone)]
pub struct Command {
    mark: String,
}

impl Command {
    /// One that nothing else is taken for.
    #[must_use]
    pub fn new() -> Self {
        Self { mark: format!("{MARK}={:032x}", rand::random::<u128>()) }
    }

    /// How it is run in a container: these words, in a folder, with these variables.
    #[must_use]
    pub fn run<'a>(
        &self,
        container: &'a LastingContainer,
        folder: &str,
        env: &[String],
        command: &[String],
    ) -> Run<'a> {
        let script = if is_restricted(container) { [GUARD, BEGIN].concat() } else { BEGIN.to_owned() };
        let begin = words(&["/bin/sh", "-c", &script, "ipybox", folder]);
        Run { command: [begin.as_slice(), command].concat(), ..self.run_plainly(container, env, command) }
    }

    /// How it is run where there is no shell.
    #[must_use]
    pub fn run_plainly<'a>(
        &self,
        container: &'a LastingContainer,
        env: &[String],
        command: &[String],
    ) -> Run<'a> {
        let env = env.iter().cloned().chain([self.mark.clone()]).collect();
        Run { container: &container.id, command: command.to_vec(), env, ..Run::default() }
    }
}

impl Default for Command {
    fn default() -> Self {
        Self::new()
    }
}

/// Ends a command in a container, and everything it started: first with SIGTERM, then with SIGKILL. False where something
/// does not end, or nobody can tell.
pub async fn end(engine: &Engine, container: &str, command: &Command) -> bool {
    let script = words(&["/bin/sh", "-c", END, "sh", &command.mark]);
    for _ in 0..ATTEMPTS {
        let run = Run { container, command: script.clone(), ..Run::default() };
        // A container can keep a script waiting.
        match timeout(PATIENCE, engine.ran(run)).await {
            Ok(Ok(None | Some((0, _)))) => return true,
            Ok(Ok(Some((1, _)))) => return false,
            // Where there are as many processes as there may be, the engine has to be lucky to start one.
            _ => sleep(PAUSE).await,
        }
    }
    false
}

/// How long nobody has used a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Idle {
    /// Something runs in it.
    Busy,
    /// So long.
    For(Duration),
    /// It does not tell.
    Unknown,
}

/// Asks a container how long nobody has used it.
///
/// # Errors
///
/// [`EngineError`].
pub async fn idle(engine: &Engine, container: &LastingContainer) -> Result<Idle, EngineError> {
    let ports = container.ports.keys().map(|port| format!("{port:04X}"));
    let command = words(&["/bin/sh", "-c", IDLE, "sh"]).into_iter().chain(ports).collect();
    let asked = engine.ran(Run { container: &container.id, command, ..Run::default() });
    let Ok(asked) = timeout(PATIENCE, asked).await else { return Ok(Idle::Unknown) };
    let Some((0, said)) = asked? else { return Ok(Idle::Unknown) };
    Ok(match said.trim() {
        "" => Idle::Busy,
        said => said.parse().map_or(Idle::Unknown, |seconds| Idle::For(Duration::from_secs(seconds))),
    })
}
