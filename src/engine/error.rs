//! What goes wrong with an engine.

use std::io;
use std::sync::Arc;

use bollard::errors::Error as Api;

use super::transport::NO_WORD;
use super::{Candidate, Host};
use crate::diagnostic::Diagnostic;
use crate::reference::{ImageId, Reference};

/// Why an engine did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Nobody listens there, or not to us.
    #[error("no container engine answers at `{host}`")]
    Connect {
        /// Where it should listen.
        host: Arc<Host>,
        /// Why not.
        source: io::Error,
    },
    /// Nobody was chosen, and nobody listens where engines are known to.
    #[error("no container engine answers")]
    NoEngine {
        /// What was tried, in order, and what came of it.
        tried: Vec<(Candidate, io::Error)>,
    },
    /// The engine has no BuildKit, as podman has none.
    #[error("the engine at `{0}` has no BuildKit")]
    NoBuildKit(Arc<Host>),
    /// The engine answers, and opens no session.
    #[error("the engine at `{host}` refuses a build: {line}")]
    Session {
        /// The engine.
        host: Arc<Host>,
        /// The HTTP status; 0 where there is none.
        status: u16,
        /// The line that says so.
        line: String,
    },
    /// There is no such image, and none was asked for.
    #[error("image `{reference}` cannot be found")]
    NotFound {
        /// The image.
        reference: Reference,
        /// Why not.
        why: String,
    },
    /// An image cannot be fetched.
    #[error("image `{reference}` cannot be pulled: {cause}")]
    Pull {
        /// The image.
        reference: Reference,
        /// What that comes from.
        cause: PullCause,
        /// What engine or registry said.
        why: String,
        /// What a credential helper said that did not work.
        helper: Option<String>,
    },
    /// An answer has no end.
    #[error("cannot {doing}: the engine's answer was cut")]
    Cut {
        /// What was asked.
        doing: &'static str,
    },
    /// A step of the Dockerfile failed.
    #[error("step `{step}` failed{}", exit_code.map(|code| format!(" with exit code {code}")).unwrap_or_default())]
    Step {
        /// The instruction, shortened.
        step: String,
        /// Its place among the titles of the build.
        title: Option<usize>,
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

    pub(super) fn pull(reference: Reference, source: &Api, helper: Option<String>) -> Self {
        let why = message(source);
        let cause = PullCause::of(&why);
        Self::Pull { reference, cause, why, helper }
    }

    pub(super) fn cut(doing: &'static str) -> Self {
        Self::Cut { doing }
    }

    /// Whether the same call may work in a while.
    #[must_use]
    pub fn is_worth_a_retry(&self) -> bool {
        match self {
            Self::Connect { source, .. } => ConnectCause::of(source) == ConnectCause::Unreachable,
            Self::NoEngine { tried } => {
                tried.iter().all(|tried| ConnectCause::of_tried(tried) == ConnectCause::Unreachable)
            }
            Self::Pull { cause, .. } => {
                matches!(cause, PullCause::Unreachable | PullCause::Busy | PullCause::TooManyRequests)
            }
            Self::Session { status, .. } => (500..600).contains(status),
            Self::Cut { .. } => true,
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
            Self::Connect { source, host } => {
                let cause = ConnectCause::of(source);
                let what = match cause {
                    ConnectCause::Denied => {
                        Diagnostic::new(format!("no permission to use the container engine at `{host}`"))
                    }
                    _ => what,
                };
                what.why(source.to_string()).advice(cause.advice())
            }
            Self::NoEngine { tried } => {
                let told = tried.iter().map(|(candidate, source)| {
                    format!("`{}` ({}): {}", candidate.host, candidate.by, short(source))
                });
                let told: Vec<_> = told.collect();
                let causes = tried.iter().map(ConnectCause::of_tried);
                let cause = causes.max_by_key(|&cause| cause != ConnectCause::Unreachable);
                what.why(format!("tried, in order: {}", told.join("; ")))
                    .advice(cause.unwrap_or(ConnectCause::Unreachable).advice())
            }
            Self::NoBuildKit(_) => what.advice("use Docker 20.10 or newer"),
            Self::Session { status: 401 | 403, .. } => {
                what.advice("let the proxy before its socket pass `POST /session` and `POST /build`")
            }
            Self::Session { .. } => what.advice("wait until it has started, then try again"),
            Self::NotFound { why, .. } => {
                what.why(why.clone()).advice("check the name, or give another `--base`")
            }
            Self::Pull { cause, why, helper, .. } => {
                let why = match helper {
                    Some(helper) => format!("{why}; {helper}"),
                    None => why.clone(),
                };
                what.why(why).advice(match cause {
                    PullCause::Absent => "check the name, or give another `--base`",
                    PullCause::Denied if helper.is_some() => "mend the credential helper, or log in again",
                    PullCause::Denied => "check the name, and log in to its registry",
                    PullCause::TooManyRequests => {
                        "wait, log in to the registry, or name a mirror of the image with `--base`"
                    }
                    PullCause::Certificate => "let the engine's host trust the registry's certificate",
                    PullCause::Busy => "try again in a while",
                    PullCause::Unreachable => {
                        "check the engine's network and proxy settings, or give a local image as `--base`"
                    }
                    PullCause::DiskFull => "make room where the engine keeps its images",
                    PullCause::Unknown => {
                        "pull it with the engine's own client to see more, or give another `--base`"
                    }
                })
            }
            Self::Cut { .. } => what.advice("try again; if it stays so, look at the engine's log"),
            // What is not a command's end is the engine's own word, and its last.
            Self::Step { exit_code: None, output, .. } => match output.last() {
                Some(why) => what.why(why.clone()),
                None => what,
            },
            Self::Step { .. } | Self::NoImage | Self::Interrupted => what,
            Self::Context(source) => what.why(source.to_string()),
            Self::Api { source, .. } | Self::Tag { source, .. } => what.why(message(source)),
        }
    }
}

/// Why there is no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ConnectCause {
    /// The socket belongs to others.
    Denied,
    /// A file that TLS needs cannot be used.
    Files,
    /// The two do not believe each other's certificates.
    Certificate,
    /// ssh would have to ask somebody.
    Login,
    /// ssh does not know the host, or knows it with another key.
    HostKey,
    /// It speaks TLS, and we do not.
    WantsTls,
    /// It answers, and not as an engine does.
    Refused,
    /// The account at the other end of ssh may not use the engine.
    DeniedThere,
    /// There is no client of the engine at the other end of ssh.
    NoClient,
    /// Nobody answers.
    Unreachable,
}

impl ConnectCause {
    fn of(error: &io::Error) -> Self {
        let words = error.to_string();
        let says = |signs: &[&str]| signs.iter().any(|sign| words.contains(sign));
        match error.kind() {
            io::ErrorKind::PermissionDenied => Self::Denied,
            io::ErrorKind::InvalidInput => Self::Files,
            // The words of rustls.
            _ if says(&[
                "invalid peer certificate",
                "received fatal alert",
                "received corrupt message",
                NO_WORD,
            ]) =>
            {
                Self::Certificate
            }
            // Those of Go's server.
            _ if says(&["HTTP request to an HTTPS server"]) => Self::WantsTls,
            _ if says(&["it answers 4"]) => Self::Refused,
            // Those of OpenSSH, and of shells.
            _ if says(&["Permission denied (", "Too many authentication failures"]) => Self::Login,
            _ if says(&["permission denied while trying to connect", "connect: permission denied"]) => {
                Self::DeniedThere
            }
            _ if says(&["Host key verification failed"]) => Self::HostKey,
            _ if says(&["command not found", "docker: not found"]) => Self::NoClient,
            _ => Self::Unreachable,
        }
    }

    /// Of a place that was tried because engines may listen there: a folder of others holds no socket of ours.
    fn of_tried((candidate, source): &(Candidate, io::Error)) -> Self {
        match Self::of(source) {
            Self::Denied if !candidate.host.is_seen() => Self::Unreachable,
            cause => cause,
        }
    }

    fn advice(self) -> &'static str {
        match self {
            Self::Denied => {
                "join the group that owns the socket (`sudo usermod -aG docker $USER`, then log in again)"
            }
            Self::Files => "put the files where `DOCKER_CERT_PATH` or the context has them",
            Self::Certificate => {
                "compare the authority in `ca.pem` and the names of the engine's certificate, `cert.pem` and the engine's authority, \
                 and the times they are valid; where it speaks no TLS, leave `DOCKER_TLS_VERIFY` unset"
            }
            Self::Login => {
                "let ssh log in without asking: add a key with `ssh-add`, and try `ssh -o BatchMode=yes`"
            }
            Self::HostKey => "log in with `ssh` once, and compare the key that it shows",
            Self::WantsTls => {
                "set `DOCKER_TLS_VERIFY=1`, with `DOCKER_CERT_PATH` for the folder of `ca.pem`, `cert.pem` and `key.pem`"
            }
            Self::Refused => {
                "look at what listens there: is it an engine, or a proxy that does not let you through?"
            }
            Self::DeniedThere => {
                "let that account use the engine (`sudo usermod -aG docker USER` on that host), or name another"
            }
            Self::NoClient => {
                "install Docker's client on that host, for accounts that log in without a terminal, too"
            }
            Self::Unreachable => {
                "start the engine, or name another with `--host`, `--context` or `DOCKER_HOST`"
            }
        }
    }
}

/// Without the number that the system gives it.
fn short(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

/// Why an image cannot be fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullCause {
    /// The registry has no such image.
    Absent,
    /// The registry wants to know who asks, or refuses whoever asks.
    Denied,
    /// The registry has been asked too often.
    TooManyRequests,
    /// The registry's certificate is not trusted.
    Certificate,
    /// The registry answers that it cannot now, or stops in the middle.
    Busy,
    /// The registry does not answer.
    Unreachable,
    /// The engine has no space left.
    DiskFull,
    /// Something else.
    Unknown,
}

impl PullCause {
    /// By the words of engine and registry.
    fn of(why: &str) -> Self {
        const SIGNS: [(PullCause, &[&str]); 7] = [
            (PullCause::DiskFull, &["no space left on device"]),
            (
                PullCause::Certificate,
                &["x509:", "certificate signed by unknown authority", "tls: failed to verify"],
            ),
            (PullCause::TooManyRequests, &["toomanyrequests", "429 Too Many Requests", "rate limit"]),
            (
                PullCause::Unreachable,
                &[
                    "dial tcp",
                    "no such host",
                    "connection refused",
                    "i/o timeout",
                    "request canceled",
                    "deadline exceeded",
                    "network is unreachable",
                    "TLS handshake timeout",
                    "server misbehaving",
                    "proxyconnect",
                ],
            ),
            (
                PullCause::Busy,
                &[
                    "500 Internal Server Error",
                    "502 Bad Gateway",
                    "503 Service Unavailable",
                    "504 Gateway Time",
                    "EOF",
                    "connection reset",
                    "broken pipe",
                    "received unexpected HTTP status: 5",
                ],
            ),
            (
                PullCause::Denied,
                &[
                    "access denied",
                    "access to the resource is denied",
                    "no basic auth",
                    "unauthorized",
                    "authentication required",
                    "403 Forbidden",
                    "denied:",
                ],
            ),
            (PullCause::Absent, &["not found", "manifest unknown", "does not exist", "name unknown"]),
        ];
        let says = |signs: &[&str]| signs.iter().any(|sign| why.contains(sign));
        SIGNS.into_iter().find(|(_, signs)| says(signs)).map_or(Self::Unknown, |(cause, _)| cause)
    }
}

impl std::fmt::Display for PullCause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Absent => "there is none of this name",
            Self::Denied => "its registry refuses",
            Self::TooManyRequests => "its registry has been asked too often",
            Self::Certificate => "the certificate of its registry is not trusted",
            Self::Busy => "its registry cannot answer now",
            Self::Unreachable => "its registry does not answer",
            Self::DiskFull => "the engine has no space left",
            Self::Unknown => "the engine refuses",
        })
    }
}

/// Whether an error only says that a line break was left at the end of an answer. bollard takes a message for whole
/// as soon as it can be parsed, and stumbles over the line break behind the last one where that arrives by itself.
pub(super) fn is_of_last_line_break(error: &Api) -> bool {
    matches!(error, Api::IOError { err } if err.to_string() == "bytes remaining on stream")
}

/// The image that somebody else made at the same moment, where that is all that stopped a build.
///
/// Rule: moby 26, containerd image store; of two builds without a name that make one image only one may enter it.
pub(super) fn made_meanwhile(error: &Api) -> Option<ImageId> {
    let message = message(error);
    let (_, rest) = message.split_once("image \"moby-dangling@")?;
    let (id, rest) = rest.split_once('"')?;
    (rest == ": already exists").then(|| ImageId::try_from(id.to_owned()).ok())?
}

/// The HTTP status of an answer that is an error.
pub(super) fn status(error: &Api) -> Option<u16> {
    match error {
        Api::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

/// Whether the connection failed, rather than what was asked for.
pub(super) fn is_of_transport(error: &Api) -> bool {
    matches!(
        error,
        Api::HyperResponseError { .. }
            | Api::HyperLegacyError { .. }
            | Api::IOError { .. }
            | Api::RequestTimeoutError
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_that_two_builds_make_at_once_is_known_by_the_words_of_the_engine() {
        let digest = format!("sha256:{}", "0123456789abcdef".repeat(4));
        let of = |error: String| made_meanwhile(&Api::DockerStreamError { error });
        let said = format!("image \"moby-dangling@{digest}\": already exists");
        assert_eq!(of(said.clone()).unwrap().as_str(), digest);
        assert_eq!(of(format!("{said}, too")), None);
        assert_eq!(of(said.replace("moby-dangling", "a")), None);
        assert_eq!(of(said.replace("sha256:0", "sha256:")), None);
    }

    #[test]
    fn what_stops_a_pull_is_known_by_the_words_of_engines_and_registries() {
        for (why, cause) in [
            // Docker 20.10 to 28, before registries of the distribution project and others.
            (
                "manifest for host.invalid/a:1 not found: manifest unknown: manifest unknown",
                PullCause::Absent,
            ),
            (
                "repository host.invalid/a not found: name unknown: repository name not known to registry",
                PullCause::Absent,
            ),
            (
                "pull access denied for a, repository does not exist or may require 'docker login': denied: requested access to the resource is denied",
                PullCause::Denied,
            ),
            ("Head \"https://host.invalid/v2/a/manifests/1\": no basic auth credentials", PullCause::Denied),
            ("unauthorized: authentication required", PullCause::Denied),
            ("error parsing HTTP 403 response body: denied: 403 Forbidden", PullCause::Denied),
            ("toomanyrequests: You have reached your pull rate limit.", PullCause::TooManyRequests),
            ("received unexpected HTTP status: 503 Service Unavailable", PullCause::Busy),
            ("Get \"https://host.invalid/v2/\": EOF", PullCause::Busy),
            ("read tcp 10.0.0.1:4->10.0.0.2:443: read: connection reset by peer", PullCause::Busy),
            (
                "Get \"https://host.invalid/v2/\": x509: certificate signed by unknown authority",
                PullCause::Certificate,
            ),
            (
                "Get \"https://host.invalid/v2/\": tls: failed to verify certificate: x509: certificate has expired",
                PullCause::Certificate,
            ),
            (
                "Get \"https://host.invalid/v2/\": dial tcp: lookup host.invalid: no such host",
                PullCause::Unreachable,
            ),
            (
                "Get \"https://host.invalid/v2/\": dial tcp 127.0.0.1:443: connect: connection refused",
                PullCause::Unreachable,
            ),
            (
                "Get \"https://host.invalid/v2/\": net/http: request canceled while waiting for connection",
                PullCause::Unreachable,
            ),
            (
                "Get \"https://host.invalid/v2/\": proxyconnect tcp: dial tcp 127.0.0.1:9: connect: connection refused",
                PullCause::Unreachable,
            ),
            ("write /var/lib/docker/tmp/x: no space left on device", PullCause::DiskFull),
            ("something else", PullCause::Unknown),
        ] {
            assert_eq!(PullCause::of(why), cause, "{why}");
        }
    }
}
