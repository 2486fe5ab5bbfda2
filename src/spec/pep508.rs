//! PEP 508 requirements: the quoted lines of ipybox 0.5 and later.

use std::str::FromStr;

use pep440_rs::{VersionSpecifier, VersionSpecifiers};

use super::{Constraint, Dependency, Marker, Name};
use crate::diagnostic::Diagnostic;

/// Parses one requirement.
///
/// Rule: PEP 508, "Grammar".
///
/// # Errors
///
/// A [`Diagnostic`] whose place is in bytes of `text`.
pub fn parse(text: &str) -> Result<Dependency, Diagnostic> {
    let (head, marker) = match text.split_once(';') {
        Some((head, marker)) => {
            let start = text.len() - marker.len();
            let marker = Marker::parse(marker).map_err(|error| {
                Diagnostic::new("invalid marker")
                    .at(start + error.at.start..start + error.at.end)
                    .why(error.why)
                    .advice("write a PEP 508 marker such as `python_version < \"3.12\"`")
            })?;
            (head, Some(marker))
        }
        None => (text, None),
    };
    let inside = |part: &str| {
        let start = part.as_ptr() as usize - text.as_ptr() as usize;
        start..start + part.len()
    };
    let head = head.trim();
    let name_length =
        head.find(|next: char| !next.is_ascii_alphanumeric() && !"._-".contains(next)).unwrap_or(head.len());
    let written = &head[..name_length];
    let Some(name) = Name::parse(written) else {
        let at = if written.is_empty() { head } else { written };
        return Err(Diagnostic::new("invalid requirement")
            .at(inside(at))
            .why("expected a distribution name: letters, digits, `.`, `-` and `_`")
            .advice("write a PEP 508 requirement such as `numpy>=2.2,<3`"));
    };
    let mut rest = head[name_length..].trim_start();
    let mut extras = Vec::new();
    if let Some(after) = rest.strip_prefix('[') {
        let Some((list, after)) = after.split_once(']') else {
            return Err(Diagnostic::new(format!("requirement `{written}` has an open list of extras"))
                .at(inside(rest))
                .why("expected `]`")
                .advice("write extras as `name[first,second]`"));
        };
        for extra in list.split(',').filter(|extra| !(extra.trim().is_empty() && list.trim().is_empty())) {
            extras.push(Name::parse(extra.trim()).ok_or_else(|| {
                Diagnostic::new(format!("requirement `{written}` has an invalid extra"))
                    .at(inside(extra))
                    .why("expected a name: letters, digits, `.`, `-` and `_`")
                    .advice("write extras as `name[first,second]`")
            })?);
        }
        rest = after.trim_start();
    }
    if rest.starts_with('@') {
        return Err(super::unsupported_source(written, inside(rest)));
    }
    let specifiers = match rest.strip_prefix('(') {
        Some(inner) => inner.strip_suffix(')').ok_or_else(|| {
            Diagnostic::new(format!("requirement `{written}` has an open parenthesis"))
                .at(inside(rest))
                .why("expected `)`")
                .advice("leave the parentheses out")
        })?,
        None => rest,
    };
    let constraint = specifier_set(specifiers).map_err(|(part, why)| {
        let diagnostic = Diagnostic::new(format!("requirement `{written}` has an invalid version specifier"))
            .at(inside(part))
            .why(why);
        match part.trim_start().strip_prefix(['^', '~']) {
            Some(version) if !version.starts_with('=') => {
                diagnostic.advice("`^` and `~` belong to Poetry's language: write a range such as `>=2.2,<3`")
            }
            _ => diagnostic.advice("write a range such as `>=2.2,<3`"),
        }
    })?;
    Ok(Dependency {
        name,
        extras,
        constraint,
        marker,
        optional: false,
        allow_prereleases: false,
        at: inside(head),
    })
}

fn specifier_set(text: &str) -> Result<Constraint, (&str, String)> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(Constraint::any());
    }
    let parts = text.strip_suffix(',').unwrap_or(text).split(',');
    let specifiers: Result<Vec<_>, _> = parts
        .map(|part| {
            VersionSpecifier::from_str(part.trim())
                .map_err(|error| (part.trim(), first_line(&error.to_string())))
        })
        .collect();
    Ok(specifiers?.into_iter().collect::<VersionSpecifiers>().into())
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_a_requirement_is_read() {
        let dependency = parse("Foo.Bar[a, B_c] (>=1.2,<2) ; os_name == 'posix'").unwrap();
        assert_eq!(dependency.name.as_str(), "foo-bar");
        assert_eq!(dependency.extras, ["a", "b-c"].map(|extra| Name::parse(extra).unwrap()));
        assert_eq!(dependency.constraint.to_string(), ">=1.2,<2");
        assert_eq!(dependency.marker.unwrap().to_string(), "os_name == \"posix\"");
        assert_eq!(parse("numpy").unwrap().constraint, Constraint::any());
        assert_eq!(parse("numpy[]==2.*").unwrap().constraint.to_string(), "==2.*");
    }

    #[test]
    fn what_is_refused_is_named_by_its_bytes() {
        for (text, at) in [
            ("", 0..0),
            ("numpy^2.2", 5..9),
            ("numpy >=2,, <3", 10..10),
            ("numpy[a", 5..7),
            ("numpy[a b]", 6..9),
            ("numpy; python > '3'", 7..13),
            ("numpy @ git+https://example.invalid/x", 6..37),
            ("num py>=1", 4..9),
            ("$(touch x)", 0..10),
        ] {
            assert_eq!(parse(text).unwrap_err().at, Some(at), "for `{text}`");
        }
    }
}
