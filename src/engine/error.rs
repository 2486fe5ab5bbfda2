//! What goes wrong with an engine.

use std::io;

use bollard::errors::Error as Api;

use super::Host;
use crate::base::BaseError;
use crate::diagnostic::Diagnostic;
use crate::reference::Reference;

/// Why an engine did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Nobody listens at the socket, or not to us.
    #[error("no Docker engine answers at `{host}`")]
    Connect {
        /// Where it should listen.
        host: Host,
        /// Why not.
        source: io::Error,
    },
    /// The engine has no BuildKit, as podman has none.
    #[error("the engine at `{0}` has no BuildKit")]
    NoBuildKit(Host),
    /// There is no such image, or none that we may have.
    #[error("image `{reference}` cannot be found")]
    NotFound {
        /// The image.
        reference: Reference,
        /// What the registry said.
        why: String,
    },
    /// The registry does not answer.
    #[error("the registry of image `{reference}` does not answer")]
    RegistryUnreachable {
        /// The image.
        reference: Reference,
        /// What the engine said.
        why: String,
    },
    /// A container of the image does not start a shell.
    #[error("base image `{reference}` has no shell that runs")]
    NoShell {
        /// The image.
        reference: Reference,
        /// What the engine said.
        source: Box<Api>,
    },
    /// A list of users or groups that cannot be taken over.
    #[error("cannot use `{path}` of base image `{reference}`")]
    Accounts {
        /// The image.
        reference: Reference,
        /// The file.
        path: &'static str,
        /// Why not.
        why: String,
    },
    /// The image's interpreter ends with an error.
    #[error("the Python of base image `{reference}` does not run")]
    ProbeFailed {
        /// The image.
        reference: Reference,
        /// Its exit code.
        code: i64,
    },
    /// The image's interpreter does not end.
    #[error("the Python of base image `{0}` does not answer in time")]
    ProbeTimeout(Reference),
    /// The image's interpreter answers nonsense.
    #[error(transparent)]
    Base(#[from] BaseError),
    /// A step of the Dockerfile failed.
    #[error("step `{step}` failed{}", exit_code.map(|code| format!(" with exit code {code}")).unwrap_or_default())]
    Step {
        /// The instruction, shortened.
        step: String,
        /// Of its command.
        exit_code: Option<i32>,
        /// The last lines it printed, oldest first.
        output: Vec<String>,
    },
    /// A file of the context cannot be sent.
    #[error("cannot send the build context")]
    Context(#[source] io::Error),
    /// The engine named neither an image nor an error.
    #[error("the engine answered without naming an image")]
    NoImage,
    /// The caller gave up.
    #[error("interrupted")]
    Interrupted,
    /// An image cannot be given a name.
    #[error("cannot give the image the name `{reference}`")]
    Tag {
        /// The name.
        reference: Reference,
        /// What the engine said.
        source: Box<Api>,
    },
    /// Anything else the API refuses.
    #[error("cannot {doing}")]
    Api {
        /// What was asked.
        doing: &'static str,
        /// What the engine said.
        source: Box<Api>,
    },
}

impl EngineError {
    pub(super) fn api(doing: &'static str) -> impl FnOnce(Api) -> Self {
        move |source| Self::Api { doing, source: Box::new(source) }
    }

    pub(super) fn pull(reference: Reference, source: Api) -> Self {
        const NETWORK: [&str; 8] = [
            "dial tcp",
            "no such host",
            "connection refused",
            "i/o timeout",
            "request canceled",
            "network is unreachable",
            "TLS handshake timeout",
            "server misbehaving",
        ];
        const ABSENT: [&str; 5] =
            ["not found", "manifest unknown", "does not exist", "access denied", "no basic auth"];
        let why = message(&source);
        let says = |signs: &[&str]| signs.iter().any(|sign| why.contains(sign));
        if says(&NETWORK) {
            Self::RegistryUnreachable { reference, why }
        } else if says(&ABSENT) || why.contains("unauthorized") {
            Self::NotFound { reference, why }
        } else {
            Self::Api { doing: "pull an image", source: Box::new(source) }
        }
    }

    /// Whether the same call may work in a while.
    #[must_use]
    pub fn is_worth_a_retry(&self) -> bool {
        match self {
            Self::Connect { source, .. } => source.kind() != io::ErrorKind::PermissionDenied,
            Self::RegistryUnreachable { .. } => true,
            Self::Api { source, .. } | Self::Tag { source, .. } => is_of_transport(source),
            _ => false,
        }
    }

    /// Whether the engine knows nothing of what was asked for.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Api { source, .. } | Self::Tag { source, .. } if status(source) == Some(404))
    }

    /// The refusal.
    #[must_use]
    pub fn diagnostic(&self) -> Diagnostic {
        let what = Diagnostic::new(self.to_string());
        match self {
            Self::Connect { source, host } if source.kind() == io::ErrorKind::PermissionDenied => {
                Diagnostic::new(format!("no permission to use the Docker engine at `{host}`"))
                    .advice("join the group that owns the socket (`sudo usermod -aG docker $USER`, then log in again)")
            }
            Self::Connect { source, .. } => what
                .why(source.to_string())
                .advice("start Docker, or point `DOCKER_HOST` at a running engine"),
            Self::NoBuildKit(_) => what.advice("use Docker 20.10 or newer"),
            Self::NotFound { why, .. } => what
                .why(why.clone())
                .advice("check the name, log in to its registry, or give another `--base`"),
            Self::RegistryUnreachable { why, .. } => what
                .why(why.clone())
                .advice("check the engine's network and proxy settings, or give a local image as `--base`"),
            Self::NoShell { source, .. } => what
                .why(message(source))
                .advice("choose a base with a shell at `/bin/sh`"),
            Self::Accounts { why, .. } => what.why(why.clone()).advice("choose a base where it is a text file"),
            Self::ProbeFailed { code, .. } => what
                .why(format!("it ended with exit code {code}"))
                .advice("try `python3 -c 1` in a container of it"),
            Self::ProbeTimeout(_) => what.advice("try `python3 -c 1` in a container of it"),
            Self::Base(error) => error.diagnostic(),
            Self::Step { .. } | Self::NoImage | Self::Interrupted => what,
            Self::Context(source) => what.why(source.to_string()),
            Self::Api { source, .. } | Self::Tag { source, .. } => what.why(message(source)),
        }
    }
}

/// Whether an error only says that a line break was left at the end of an answer. bollard takes a message for whole
/// as soon as it can be parsed, and stumbles over the line break behind the last one where that arrives by itself.
pub(super) fn is_of_last_line_break(error: &Api) -> bool {
    matches!(error, Api::IOError { err } if err.to_string() == "bytes remaining on stream")
}

/// The HTTP status of an answer that is an error.
pub(super) fn status(error: &Api) -> Option<u16> {
    match error {
        Api::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

/// Whether the connection failed, rather than what was asked for.
fn is_of_transport(error: &Api) -> bool {
    matches!(
        error,
        Api::HyperResponseError { .. }
            | Api::HyperLegacyError { .. }
            | Api::IOError { .. }
            | Api::RequestTimeoutError
            | Api::SocketNotFoundError(_)
    )
}

/// The engine's own words.
pub(super) fn message(error: &Api) -> String {
    match error {
        Api::DockerResponseServerError { message, .. } => message.trim().to_owned(),
        Api::DockerStreamError { error } => error.trim().to_owned(),
        other => {
            let mut text = other.to_string();
            let mut source = std::error::Error::source(other);
            while let Some(cause) = source {
                text = cause.to_string();
                source = cause.source();
            }
            text
        }
    }
}
