//! The address of a package index, which projects and requirements files name.

use std::ops::Range;

use super::{Index, IndexError, Parsed, Priority};
use crate::diagnostic::Diagnostic;

/// A package index, where its address is one that may stand in a plan.
pub(super) fn read(
    name: Option<&str>,
    url: &str,
    priority: Priority,
    at: Range<usize>,
    parsed: &mut Parsed,
) -> Option<Index> {
    match Index::of(name, url, priority) {
        Ok(index) => Some(Index { at, ..index }),
        Err(IndexError::NoAddress) => parsed.refuse(
            Diagnostic::new("this is no address of a package index")
                .at(at)
                .why("expected `https://`, a host and a path")
                .advice("write the address that ends with `/simple`"),
        ),
        Err(IndexError::Credentials) => parsed.refuse(
            Diagnostic::new("the address of a package index holds credentials")
                .at(at)
                .why("they would stand in the plan, and in what is left of the build")
                .advice("leave out what stands before the `@`, and keep it in `~/.netrc`"),
        ),
    }
}
