//! A dependency list's text to a [`Spec`]: knows Poetry's language and byte positions, nothing of
//! images.
//!
//! Two forms are read, recognised by their content: Poetry's lines (`numpy = "^2.2"`), and the
//! quoted, comma-separated PEP 508 requirements of ipybox 0.5 (`"numpy>=2.2,<3",`).

mod constraint;
mod list;
mod marker;
mod name;
pub mod pep508;
mod poetry;

use std::collections::HashMap;
use std::ops::Range;

pub use constraint::{Constraint, ConstraintError};
pub use marker::{Marker, MarkerError, Operand, VARIABLES};
pub use name::Name;

use crate::diagnostic::Diagnostic;

/// The largest dependency list that is read, in bytes. 10,000 Poetry lines are about 200 kB.
pub const MAX_BYTES: u64 = 1_000_000;

/// Mistakes after which a text is given up: it is not what it was taken for.
const MAX_MISTAKES: usize = 1000;

/// What a dependency list asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// The interpreters the list admits: Poetry's `python = "…"`, with its place.
    pub python: Option<(Constraint, Range<usize>)>,
    /// In the order written; no name twice.
    pub dependencies: Vec<Dependency>,
}

/// One entry of a dependency list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dependency {
    /// The distribution.
    pub name: Name,
    /// Its optional features that are asked for, in the order written.
    pub extras: Vec<Name>,
    /// The versions that will do.
    pub constraint: Constraint,
    /// Where it is needed; everywhere if `None`.
    pub marker: Option<Marker>,
    /// Poetry's `optional`: not installed unless something asks for it.
    pub optional: bool,
    /// Poetry's `allow-prereleases`.
    pub allow_prereleases: bool,
    /// Bytes of the file that hold the entry's name.
    pub at: Range<usize>,
}

/// The names a list mentions, with their places, in the order written.
type Names = Vec<(Name, Range<usize>)>;

impl Spec {
    /// Reads a dependency list. An empty one is fine.
    ///
    /// # Errors
    ///
    /// Every mistake of the text, in the order of their places; of very many, the first.
    ///
    /// ```
    /// use ipybox::spec::Spec;
    ///
    /// let spec = Spec::parse("numpy = \"^2.2\"").unwrap();
    /// assert_eq!(spec.dependencies[0].constraint.to_string(), ">=2.2,<3");
    /// ```
    pub fn parse(text: &str) -> Result<Self, Vec<Diagnostic>> {
        if let Some(mistake) = project_file(text) {
            return Err(vec![mistake]);
        }
        let mut mistakes = Vec::new();
        let mut names = Names::new();
        let parse = if is_pep508_list(text) { list::parse } else { poetry::parse };
        let spec = parse(text, &mut names, &mut mistakes);
        report_duplicates(&names, text, &mut mistakes);
        if mistakes.is_empty() {
            return Ok(spec);
        }
        mistakes.sort_by_key(|mistake| mistake.at.as_ref().map(|at| at.start));
        Err(mistakes)
    }
}

/// The refusal of a `pyproject.toml`, known by its tables.
fn project_file(text: &str) -> Option<Diagnostic> {
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let table = line.trim();
        if matches!(table, "[project]" | "[build-system]") || table.starts_with("[tool.") {
            let refused = Diagnostic::new("this is a `pyproject.toml`, not a dependency list");
            return Some(
                refused
                    .at(start..start + table.len())
                    .why("tables of projects are not supported yet")
                    .advice("copy the dependencies into a file of their own, one per line"),
            );
        }
        start += line.len();
    }
    None
}

/// Whether the first entry is a quoted requirement: a string that no `=` or `.` follows, as one
/// would follow a quoted key of TOML.
fn is_pep508_list(text: &str) -> bool {
    let first = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
    let Some(first) = first else { return false };
    let Some(quote @ ('"' | '\'')) = first.chars().next() else {
        return false;
    };
    match first[1..].find(quote) {
        Some(end) => !first[end + 2..].trim_start().starts_with(['=', '.', ':']),
        None => !first.contains(" = "),
    }
}

fn report_duplicates(names: &Names, text: &str, mistakes: &mut Vec<Diagnostic>) {
    let line_ends: Vec<_> = text.match_indices('\n').map(|(end, _)| end).collect();
    let mut first = HashMap::new();
    for (name, at) in names {
        if mistakes.len() >= MAX_MISTAKES {
            return;
        }
        let earlier = first.entry(name).or_insert(at);
        if *earlier != at {
            let line = line_ends.partition_point(|&end| end < earlier.start) + 1;
            mistakes.push(
                Diagnostic::new(format!("dependency `{name}` is listed twice"))
                    .at(at.clone())
                    .why(format!("line {line} names the same distribution"))
                    .advice("keep one entry"),
            );
        }
    }
}

/// The refusal of a dependency that does not come from a package index.
fn unsupported_source(name: &str, at: Range<usize>) -> Diagnostic {
    Diagnostic::new(format!("dependency `{name}` does not come from a package index"))
        .at(at)
        .why("git, url and path sources are not supported yet")
        .advice("use a version that is published on the index")
}

/// The candidate that a slip of the finger may have turned into `word`.
fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|&(distance, candidate)| distance * 3 <= candidate.len().max(3))
        .min()
        .map(|(_, candidate)| candidate)
}
