//! What a caller is told when a command does not do what it was asked.

use std::io;

use crate::base::BaseError;
use crate::compose::CompositionError;
use crate::diagnostic::{Diagnostic, Documents};
use crate::engine::{ChoiceError, EngineError};
use crate::image::dockerfile::DockerfileError;
use crate::inputs::InputsError;
use crate::inputs::credentials::CredentialsError;
use crate::inputs::git::GitError;
use crate::inputs::secrets::SecretError;
use crate::inputs::trust::TrustError;
use crate::installer::UvError;
use crate::plan::PlanError;
use crate::variant::VariantError;

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub struct Failure {
    /// What kind of failure it is.
    pub kind: FailureKind,
    /// The texts that the diagnostics' places speak of.
    pub documents: Documents,
    /// What to tell the user; at least one, unless interrupted.
    pub diagnostics: Vec<Diagnostic>,
    /// What a failed step printed.
    pub output: Vec<String>,
}

/// The kinds of failure that callers tell apart by the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// An input is refused, or a step failed.
    Refused,
    /// Packages cannot be put into layers; the engine's builder may install them.
    Unassembled,
    /// The command line is wrong.
    Usage,
    /// Something that should not happen.
    Fault,
    /// A check found something that can be done.
    ToDo,
    /// Engine, registry or index do not answer; worth a retry.
    Unreachable,
    /// The user gave up.
    Interrupted,
    /// What was run in a container ended with this code, or could not be run at all.
    Inside(u8),
}

impl Failure {
    /// A file or folder that cannot be written.
    pub(super) fn unwritable(target: &str, error: &io::Error) -> Self {
        Self::refused(Diagnostic::new(format!("cannot write to {target}")).why(error.to_string()))
    }

    pub(super) fn usage(diagnostic: Diagnostic) -> Self {
        Self { kind: FailureKind::Usage, ..Self::refused(diagnostic) }
    }

    pub(super) fn refused(diagnostic: Diagnostic) -> Self {
        Self::in_documents(Documents::default(), vec![diagnostic])
    }

    /// Packages that cannot be put into layers.
    pub(super) fn unassembled(diagnostic: Diagnostic) -> Self {
        Self { kind: FailureKind::Unassembled, ..Self::refused(diagnostic) }
    }

    pub(super) fn in_documents(documents: Documents, diagnostics: Vec<Diagnostic>) -> Self {
        Self { kind: FailureKind::Refused, documents, diagnostics, output: Vec::new() }
    }

    pub(super) fn interrupted() -> Self {
        EngineError::Interrupted.into()
    }

    pub(super) fn of_plan(documents: &Documents, errors: &[PlanError]) -> Self {
        let failure =
            Self::in_documents(documents.clone(), errors.iter().map(PlanError::diagnostic).collect());
        if errors.iter().all(PlanError::is_of_usage) {
            return Self { kind: FailureKind::Usage, ..failure };
        }
        failure
    }
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        let kind = match &error {
            EngineError::Interrupted => FailureKind::Interrupted,
            EngineError::NoImage => FailureKind::Fault,
            error if error.is_worth_a_retry() => FailureKind::Unreachable,
            _ => FailureKind::Refused,
        };
        let diagnostics = vec![error.diagnostic()];
        let output = match error {
            EngineError::Step { output, .. } => output,
            _ => Vec::new(),
        };
        Self { kind, documents: Documents::default(), diagnostics, output }
    }
}

impl From<ChoiceError> for Failure {
    fn from(error: ChoiceError) -> Self {
        let ChoiceError { what, why, advice } = error;
        Self::usage(Diagnostic::new(what).why(why).advice(advice))
    }
}

impl From<VariantError> for Failure {
    fn from(error: VariantError) -> Self {
        InputsError::from(error).into()
    }
}

impl From<InputsError> for Failure {
    fn from(error: InputsError) -> Self {
        let (documents, diagnostics) = error.diagnostics();
        Self::in_documents(documents, diagnostics)
    }
}

macro_rules! refused {
    ($($error:ty),*) => {$(
        impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::refused(error.diagnostic())
            }
        }
    )*};
}

refused!(CompositionError, CredentialsError, SecretError, TrustError, DockerfileError);

impl From<BaseError> for Failure {
    fn from(error: BaseError) -> Self {
        match error {
            BaseError::Engine(error) => (*error).into(),
            error => Self::refused(error.diagnostic()),
        }
    }
}

impl From<GitError> for Failure {
    fn from(error: GitError) -> Self {
        let kind = if error.is_worth_a_retry() { FailureKind::Unreachable } else { FailureKind::Refused };
        Self { kind, ..Self::refused(error.diagnostic()) }
    }
}

impl From<UvError> for Failure {
    fn from(error: UvError) -> Self {
        let kind = if error.is_worth_a_retry() { FailureKind::Unreachable } else { FailureKind::Refused };
        Self { kind, ..Self::refused(error.diagnostic()) }
    }
}
