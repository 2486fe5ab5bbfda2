//! The forms that lists are written in, and how they are told apart.

pub(in crate::deps) mod foreign;
mod form;
mod index;
mod lines;
pub(in crate::deps) mod poetry;
mod project;
mod quoted;
mod requirements;
mod script;
mod uv;

pub use form::Form;

// What every form is read with.
use super::{
    Constraint, Dependency, Include, Index, IndexError, Marker, Name, Parsed, Priority, Selection, Source,
    Spec, Surroundings, Url, in_backticks, name, nearest, pep508, report_duplicates, source, toml, value,
};
