//! The steps of a build that run something.

use super::{Plan, Provenance};
use crate::variant::Packages;

/// A step of a build, by what it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepId {
    /// An interpreter is unpacked from an archive.
    Python,
    /// Debian packages are installed.
    Apt,
    /// The servers are installed.
    Servers,
    /// Wheels are built of what is none.
    Wheels,
    /// The dependency list is resolved and installed.
    Packages,
    /// Files are copied into the image.
    Copies,
    /// A step of the variant, by its place among those, from 0.
    Own(usize),
}

impl StepId {
    /// What people are told, and what a template's instruction begins with: `RUN : "TITLE" && …`.
    #[must_use]
    pub fn title(self) -> String {
        match self {
            Self::Python => "unpack Python".to_owned(),
            Self::Apt => "install system packages".to_owned(),
            Self::Servers => "install the servers".to_owned(),
            Self::Wheels => "build wheels".to_owned(),
            Self::Packages => "install the packages".to_owned(),
            Self::Copies => "copy files".to_owned(),
            Self::Own(number) => format!("own step {}", number + 1),
        }
    }
}

impl Plan {
    /// Its steps; each has a title of its own.
    #[must_use]
    pub fn build_steps(&self) -> Vec<StepId> {
        let fixed = [
            (StepId::Python, self.provenance == Provenance::Archive),
            (StepId::Apt, !self.apt.is_empty() || self.wants_curl),
            (StepId::Servers, self.packages != Packages::Inherited),
            (StepId::Wheels, !self.sources.is_empty()),
            (StepId::Packages, true),
            (StepId::Copies, !self.copies.is_empty()),
        ];
        let fixed = fixed.into_iter().filter_map(|(id, there)| there.then_some(id));
        fixed.chain((0..self.steps.len()).map(StepId::Own)).collect()
    }
}
