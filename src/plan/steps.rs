//! The steps of a build that run something.

use super::{Foundation, Plan, Provenance};
use crate::variant::Placement;

/// A step of a build, by what it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepId {
    /// An interpreter is unpacked from an archive.
    Python,
    /// Debian packages are installed.
    Apt,
    /// The servers are installed.
    Servers,
    /// Debian packages are installed for the builds of wheels, where the image does not get them.
    BuildApt,
    /// Wheels are built of what is none.
    Wheels,
    /// The dependency list is resolved and fetched, apart from what is installed.
    Resolve,
    /// The dependency list is installed, and resolved where that is not done before.
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
            Self::BuildApt => "install what builds need".to_owned(),
            Self::Wheels => "build wheels".to_owned(),
            Self::Resolve => "resolve the packages".to_owned(),
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
        let Foundation { provenance, apt, wishes, placement, .. } = &self.foundation;
        let fixed = [
            (StepId::Python, *provenance == Provenance::Archive),
            (StepId::Apt, !apt.is_empty() || !wishes.is_empty()),
            (StepId::Servers, *placement != Placement::Inherited),
            (StepId::BuildApt, self.packages.builds() && !self.packages.build_apt.is_empty()),
            (StepId::Wheels, self.packages.builds()),
            (StepId::Resolve, !self.packages.hosts().is_empty()),
            (StepId::Packages, true),
            (StepId::Copies, self.copies().next().is_some()),
        ];
        let fixed = fixed.into_iter().filter_map(|(id, there)| there.then_some(id));
        fixed.chain((0..self.own_steps().count()).map(StepId::Own)).collect()
    }
}
