//! The inside of a PEP 621 `dependencies` array: quoted requirements separated by commas.

use std::ops::Range;

use super::{Dependency, MAX_MISTAKES, Names, Spec, pep508};
use crate::diagnostic::Diagnostic;

const OPENING: &str = "list = [\n";

/// Reads quoted requirements; what cannot be understood goes to `mistakes`, and the name of every
/// other entry with its place to `names`.
pub(super) fn parse(text: &str, names: &mut Names, mistakes: &mut Vec<Diagnostic>) -> Spec {
    let document = format!("{OPENING}{text}\n]\n");
    let place = |span: Range<usize>| {
        let within = |position: usize| position.saturating_sub(OPENING.len()).min(text.len());
        within(span.start)..within(span.end)
    };
    let mut spec = Spec { python: None, dependencies: Vec::new() };
    let parsed = match toml_edit::Document::parse(document.as_str()) {
        Ok(parsed) => parsed,
        Err(error) => {
            mistakes.push(
                Diagnostic::new("invalid list of requirements")
                    .at(place(error.span().unwrap_or_default()))
                    .why(error.message().lines().next().unwrap_or_default())
                    .advice("write each requirement in quotes, followed by a comma"),
            );
            return spec;
        }
    };
    for value in parsed["list"].as_array().into_iter().flatten() {
        if mistakes.len() >= MAX_MISTAKES {
            break;
        }
        let span = place(value.span().expect("a parsed document keeps its spans"));
        let entry = match value.as_str() {
            Some(requirement) => requirement_at(requirement, text, span),
            None => Err(Diagnostic::new("invalid requirement")
                .at(span)
                .why("expected a text in quotes")
                .advice("write a PEP 508 requirement such as `\"numpy>=2.2,<3\"`")),
        };
        match entry {
            Ok(dependency) => {
                names.push((dependency.name.clone(), dependency.at.clone()));
                spec.dependencies.push(dependency);
            }
            Err(mistake) => mistakes.push(mistake),
        }
    }
    if parsed.iter().count() > 1 {
        mistakes.push(
            Diagnostic::new("a list of quoted requirements holds something else")
                .at(0..text.lines().next().map_or(0, str::len))
                .why("the list ends before the file does")
                .advice("write every entry in quotes, followed by a comma"),
        );
    }
    spec
}

/// Parses a requirement written at `span`, quotes included.
fn requirement_at(requirement: &str, text: &str, span: Range<usize>) -> Result<Dependency, Diagnostic> {
    // Where the quotes hold escapes, positions inside them are not those of the file.
    let verbatim = text.get(span.start + 1..span.end.saturating_sub(1)) == Some(requirement);
    let result = pep508::parse(requirement);
    if verbatim {
        return result.map_err(|mistake| pep508::shift(mistake, span.start + 1)).map(|mut dependency| {
            dependency.at = dependency.at.start + span.start + 1..dependency.at.end + span.start + 1;
            dependency
        });
    }
    match result {
        Ok(dependency) => Ok(Dependency { at: span, ..dependency }),
        Err(mistake) => Err(mistake.at(span)),
    }
}
