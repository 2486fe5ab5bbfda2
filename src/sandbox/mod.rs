//! Long-lived containers for agents, one for each user of a project. What is agreed on is in the engine: names, which it
//! gives once, and labels.

mod end;
mod firewall;
mod owner;
mod settings;
mod up;

use std::time::Duration;

use crate::diagnostic::Diagnostic;
use crate::engine::{EngineError, Inspected};
pub use end::{Command, Idle, end, idle};
pub use firewall::is_in_force;
pub use owner::{Owner, filter, image_of};
pub use settings::{Brought, IMAGE_LABEL, SETTINGS_LABEL, Settings, differences};
pub use up::{GIVE_LABEL, up};

/// A sandbox that is ready.
#[derive(Debug, Clone)]
pub struct Up {
    /// The container.
    pub inspected: Inspected,
    /// What was done to have it.
    pub outcome: Outcome,
    /// Why another container was replaced.
    pub why: Vec<String>,
    /// What of its settings cannot be heeded today.
    pub warnings: Vec<String>,
}

/// What was done to have a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing: it ran.
    Running,
    /// It was there, and was started.
    Started,
    /// It was made.
    Created,
    /// It was made in place of another.
    Replaced,
}

impl Outcome {
    /// In a word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Started => "started",
            Self::Created => "created",
            Self::Replaced => "replaced",
        }
    }
}

/// Why there is no sandbox.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The engine refuses something.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A container of somebody else has the name.
    #[error("the container `{0}` is none of this program")]
    Taken(String),
    /// Its command has ended.
    #[error("the container ended by itself{}", code.map(|code| format!(", with exit code {code}")).unwrap_or_default())]
    Ended {
        /// How.
        code: Option<i64>,
        /// What its image is for, such as `linux/amd64`.
        platform: String,
        /// The last lines it wrote.
        lines: Vec<String>,
    },
    /// It is not ready in time, or says that it never will be.
    #[error("the container is not ready after {} s", after.as_secs())]
    NotReady {
        /// How long that was waited for.
        after: Duration,
        /// What it is waited for.
        what: String,
        /// The last lines it wrote.
        lines: Vec<String>,
    },
    /// Its volumes cannot be given to whom it runs as.
    #[error("the volumes cannot be given to whom the container runs as")]
    Volumes(String),
    /// What it may reach cannot be restricted.
    #[error("what the container may reach cannot be restricted")]
    Firewall(String),
    /// Others replace it all the time.
    #[error("other callers replace the container as often as it is made")]
    Contended,
}

impl SandboxError {
    /// The refusal.
    #[must_use]
    pub fn diagnostic(&self) -> Diagnostic {
        let what = Diagnostic::new(self.to_string());
        match self {
            Self::Engine(error) => error.diagnostic(),
            Self::Taken(_) => what.advice("remove or rename it, if it is of no use"),
            Self::Ended { lines, platform, .. }
                if lines.iter().any(|line| line.contains(OTHER_PROCESSOR)) =>
            {
                let why =
                    format!("its program is for another processor; the image says that it is for {platform}");
                what.why(why).advice("take an image for the engine's processor, or give the engine emulation")
            }
            Self::Ended { lines, .. } => what
                .why(last_words(lines))
                .advice("give it a command that stays, such as `-- sleep infinity`"),
            Self::NotReady { what: awaited, lines, .. } => {
                let is_hopeless = awaited.ends_with("unhealthy");
                what.why(format!("{awaited}; {}", last_words(lines))).advice(if is_hopeless {
                    "mend the image or its health check"
                } else {
                    "wait longer with `--wait SECONDS`, or mend the image; `ipybox sandbox down` removes what hangs"
                })
            }
            Self::Volumes(why) => what
                .why(why.clone())
                .advice("take an image with `/bin/sh`, `stat` and `chown`, or leave out `--volume`"),
            Self::Firewall(why) => what
                .why(why.clone())
                .advice("take an image of this program with an unprivileged user, or `--network none`"),
            Self::Contended => what.advice("let all of them ask for the same image and settings"),
        }
    }
}

/// Characters of a line that are told.
const WIDTH: usize = 300;

/// What a container wrote last, as a reason.
#[must_use]
pub fn last_words(lines: &[String]) -> String {
    if lines.is_empty() {
        "it wrote nothing".to_owned()
    } else {
        let shown = |line: &String| format!("  | {}", line.chars().take(WIDTH).collect::<String>());
        format!("its last lines:\n{}", lines.iter().map(shown).collect::<Vec<_>>().join("\n"))
    }
}

/// What is said where a program is for another processor.
const OTHER_PROCESSOR: &str = "exec format error";

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}
