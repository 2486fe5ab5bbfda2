//! Why a registry did not do what it was asked.

use std::io;
use std::time::Duration;

use thiserror::Error;

use crate::diagnostic::Diagnostic;

/// Why a registry did not do what it was asked.
#[derive(Debug, Error)]
pub enum RegistryError {
    /// The text names no registry.
    #[error("`{0}` is no registry's host")]
    Address(String),
    /// A repository, tag or digest cannot be one.
    #[error("`{text}` is no {what}")]
    Name {
        /// What it should be.
        what: &'static str,
        /// What it is.
        text: String,
    },
    /// No client can be made of these settings.
    #[error("no client for registries can be set up")]
    Settings(#[source] io::Error),
    /// Nobody answers, or not to the end.
    #[error("the registry `{registry}` does not answer: {why}")]
    Unreachable {
        /// Its name.
        registry: String,
        /// How that shows.
        why: String,
    },
    /// Its certificate is by nobody who is trusted.
    #[error("the registry `{registry}` cannot be trusted: {why}")]
    Untrusted {
        /// Its name.
        registry: String,
        /// What is wrong with its certificate.
        why: String,
    },
    /// It has no time, however often it is asked.
    #[error("the registry `{registry}` is busy: {why}")]
    Busy {
        /// Its name.
        registry: String,
        /// What it says.
        why: String,
    },
    /// It does not let us.
    #[error("the registry `{registry}` does not allow to {what}: {why}")]
    Denied {
        /// Its name.
        registry: String,
        /// What it was asked.
        what: String,
        /// What it says.
        why: String,
        /// Whether it was told who asks.
        known: bool,
    },
    /// It does not do it.
    #[error("the registry `{registry}` does not {what}: {why}")]
    Refused {
        /// Its name.
        registry: String,
        /// What it was asked.
        what: String,
        /// What it says.
        why: String,
        /// With which status of HTTP.
        status: u16,
    },
    /// It answers what no registry does.
    #[error("the registry `{registry}`, asked to {what}, answers what no registry does: {why}")]
    Nonsense {
        /// Its name.
        registry: String,
        /// What it was asked.
        what: String,
        /// What is wrong with the answer.
        why: String,
    },
    /// It has other bytes than it says, or than it was sent.
    #[error("the registry `{registry}` answers with `{found}` where `{expected}` belongs")]
    Digest {
        /// Its name.
        registry: String,
        /// The digest of what was asked for, or sent.
        expected: String,
        /// The digest of what it has.
        found: String,
    },
    /// It leads to a place where nothing is sent.
    #[error("the registry `{registry}` leads to `{place}`: {why}")]
    Elsewhere {
        /// Its name.
        registry: String,
        /// Scheme, host and port.
        place: String,
        /// Why nothing is sent there.
        why: &'static str,
    },
    /// What is to be pushed cannot be read, or is not what its digest says.
    #[error("the blob `{digest}` cannot be pushed: {why}")]
    Content {
        /// Its digest.
        digest: String,
        /// What is wrong with it.
        why: String,
    },
}

impl RegistryError {
    /// Whether the same may work later, without anything changed here.
    #[must_use]
    pub fn is_worth_a_retry(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Busy { .. })
    }

    /// Whether who answers is not who should, so that nothing more is said to them.
    pub(super) fn is_of_trust(&self) -> bool {
        matches!(self, Self::Untrusted { .. } | Self::Elsewhere { .. } | Self::Digest { .. })
    }

    /// The refusal.
    #[must_use]
    pub fn diagnostic(&self) -> Diagnostic {
        let of = |registry: &str, what: &str| Diagnostic::new(format!("the registry `{registry}` {what}"));
        match self {
            Self::Address(_) => Diagnostic::new(self.to_string()).advice(
                "name it as `HOST` or `HOST:PORT`; `http://` in front asks for a connection without TLS",
            ),
            Self::Name { what, .. } => {
                Diagnostic::new(self.to_string()).advice(format!("give another {what}"))
            }
            Self::Settings(source) => Diagnostic::new(self.to_string()).why(source.to_string()).advice(
                "see that `--ca-cert` names certificates in PEM, and what proxy the environment names",
            ),
            Self::Unreachable { registry, why } => of(registry, "does not answer")
                .why(why.clone())
                .advice("check its name, the network and proxy settings, and try again"),
            Self::Untrusted { registry, why } => of(registry, "cannot be trusted")
                .why(why.clone())
                .advice("name the certificate of its authority with `--ca-cert`"),
            Self::Busy { registry, why } => {
                of(registry, "has no time for this").why(why.clone()).advice("try again later")
            }
            Self::Denied { registry, what, why, known } => {
                let advice = if *known {
                    format!(
                        "ask its owner for the right to, or log in as somebody else: `docker login {registry}`"
                    )
                } else {
                    format!("log in to it: `docker login {registry}`")
                };
                of(registry, &format!("does not allow to {what}")).why(why.clone()).advice(advice)
            }
            Self::Refused { registry, what, why, status } => {
                of(registry, &format!("does not {what}")).why(why.clone()).advice(of_status(*status))
            }
            Self::Nonsense { registry, what, why } => of(registry, "answers what no registry does")
                .why(format!("asked to {what}: {why}"))
                .advice("see that the name is that of a registry, and what stands between it and this host"),
            Self::Digest { registry, expected, found } => of(registry, "answers with something else")
                .why(format!("`{found}`, where `{expected}` belongs"))
                .advice("trust nothing that it has under this name, and tell its owner"),
            Self::Elsewhere { registry, place, why } => of(registry, &format!("leads to `{place}`"))
                .why((*why).to_owned())
                .advice("tell its owner; a proxy in front of it may have to set `X-Forwarded-Proto`"),
            Self::Content { digest, why } => Diagnostic::new(format!("the blob `{digest}` cannot be pushed"))
                .why(why.clone())
                .advice("build the image again, and see that nothing changes the cache meanwhile"),
        }
    }
}

/// What can be done about a refusal.
fn of_status(status: u16) -> &'static str {
    match status {
        404 => {
            "see that its name is right; some registries want a repository to be created before anything is pushed"
        }
        405 => "see that it takes pushes: a mirror or cache of another registry does not",
        409 | 412 => "push under another tag, or ask its owner to let this one move",
        413 => "ask its owner to let larger bodies through what stands before it",
        _ => "see what it says, and ask its owner",
    }
}

/// An error, and whether it may pass.
#[derive(Debug)]
pub(super) enum Fault {
    /// It may, after a while; the registry may have said how long.
    Passing { error: RegistryError, wait: Option<Duration> },
    /// Nobody was reached, which passes less often.
    Unreached(RegistryError),
    /// It will not.
    Lasting(RegistryError),
}

impl Fault {
    /// Whether the registry was reached and had no time.
    pub(super) fn is_of_busy(&self) -> bool {
        matches!(self, Self::Passing { error: RegistryError::Busy { .. }, .. })
    }

    /// One that may pass, in a time that nobody knows.
    pub(super) fn passing(error: RegistryError) -> Self {
        Self::Passing { error, wait: None }
    }
}

impl From<RegistryError> for Fault {
    fn from(error: RegistryError) -> Self {
        Self::Lasting(error)
    }
}

impl From<Fault> for RegistryError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Passing { error, .. } | Fault::Unreached(error) | Fault::Lasting(error) => error,
        }
    }
}
