//! Everything that is read from this host before any decision.

pub mod git;
pub mod local;
pub mod python_archive;
pub mod templates;
pub mod trust;
