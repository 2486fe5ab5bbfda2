//! PEP 508 requirements: the quoted lines of ipybox 0.5 and later, and everything pip reads.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use pep440_rs::{VersionSpecifier, VersionSpecifiers};

use super::{Constraint, Dependency, Marker, Name, Source, Url, source};
use crate::diagnostic::Diagnostic;

/// The first character that cannot be told from another, or from none, and where it is.
pub(super) fn odd_character(text: &str) -> Option<(usize, char)> {
    text.char_indices().find(|&(_, character)| is_odd(character))
}

/// What is wrong with such a character, and what is meant.
pub(super) fn oddity(odd: char) -> (String, &'static str) {
    let (why, instead) = if odd.is_whitespace() && !odd.is_control() {
        ("looks like a space, and is none", " ")
    } else {
        ("cannot be seen, and belongs in no requirement", "")
    };
    (format!("U+{:04X} {why}", u32::from(odd)), instead)
}

/// Parses one requirement.
///
/// Rule: PEP 508, "Grammar".
///
/// # Errors
///
/// A [`Diagnostic`] whose place is in bytes of `text`.
pub fn parse(text: &str) -> Result<Dependency, Diagnostic> {
    let inside = |part: &str| {
        let start = part.as_ptr() as usize - text.as_ptr() as usize;
        start..start + part.len()
    };
    if let Some((at, odd)) = odd_character(text) {
        let mistake = Diagnostic::new("invalid requirement").at(at..at + odd.len_utf8());
        // Two lines would become one name.
        if odd == '\r' {
            let why = "U+000D cannot be seen, and ends no line by itself";
            return Err(mistake.why(why).advice("write a line feed at the end of each line"));
        }
        let (why, instead) = oddity(odd);
        return Err(mistake.why(why).replace(instead));
    }
    let head = trim(text);
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
    let mut dependency = Dependency::any(name, inside(written));
    let mut rest = trim(&head[name_length..]);
    if let Some(after) = rest.strip_prefix('[') {
        let Some((list, after)) = after.split_once(']') else {
            return Err(Diagnostic::new(format!("requirement `{written}` has an open list of extras"))
                .at(inside(rest))
                .why("expected `]`")
                .advice("write extras as `name[first,second]`"));
        };
        for extra in list.split(',').filter(|_| !trim(list).is_empty()) {
            dependency.extras.push(Name::parse(trim(extra)).ok_or_else(|| {
                Diagnostic::new(format!("requirement `{written}` has an invalid extra"))
                    .at(inside(extra))
                    .why("expected a name: letters, digits, `.`, `-` and `_`")
                    .advice("write extras as `name[first,second]`")
            })?);
        }
        rest = trim(after);
    }
    let marker = match rest.strip_prefix('@') {
        Some(address) => {
            let address = trim(address);
            let length = address.find(WHITE_SPACE).unwrap_or(address.len());
            let (address, behind) = address.split_at(length);
            dependency.source =
                address_source(written, address).map_err(|mistake| mistake.at(inside(address)))?;
            let behind = trim(behind);
            match behind.strip_prefix(';') {
                None if !behind.is_empty() => {
                    return Err(Diagnostic::new(format!(
                        "requirement `{written}` has something behind its address"
                    ))
                    .at(inside(behind))
                    .why("expected `;` and a marker, or the end")
                    .advice("remove it"));
                }
                marker => marker,
            }
        }
        None => {
            let (specifiers, marker) = match rest.split_once(';') {
                Some((specifiers, marker)) => (specifiers, Some(marker)),
                None => (rest, None),
            };
            dependency.constraint = versions(written, trim(specifiers), &inside)?;
            marker
        }
    };
    if let Some(marker) = marker {
        let start = inside(marker).start;
        dependency.marker = Some(Marker::parse(marker).map_err(|error| {
            let mistake = Diagnostic::new(format!("requirement `{written}` has an invalid marker"))
                .at(start + error.at.start..start + error.at.end)
                .why(error.why);
            match error.instead {
                Some(instead) => mistake.replace(instead),
                None => mistake.advice("write a PEP 508 marker such as `python_version < \"3.12\"`"),
            }
        })?);
    }
    Ok(dependency)
}

/// What PEP 508 calls white space.
const WHITE_SPACE: [char; 2] = [' ', '\t'];

fn trim(text: &str) -> &str {
    text.trim_matches(WHITE_SPACE)
}

/// White space that PEP 508 does not know, such as a no-break space from a web page, and what cannot
/// be seen at all.
fn is_odd(character: char) -> bool {
    let invisible = character.is_control() || matches!(character, '\u{200b}'..='\u{200d}' | '\u{feff}');
    (character.is_whitespace() || invisible) && !WHITE_SPACE.contains(&character)
}

/// Writes the parts of a requirement.
///
/// # Errors
///
/// Of the formatter.
pub(crate) fn write(
    f: &mut dyn fmt::Write,
    name: &Name,
    extras: &[Name],
    specifiers: &VersionSpecifiers,
    source: &Source,
    marker: Option<&Marker>,
) -> fmt::Result {
    write!(f, "{name}")?;
    for (index, extra) in extras.iter().enumerate() {
        write!(f, "{}{extra}", if index > 0 { "," } else { "[" })?;
    }
    if !extras.is_empty() {
        f.write_char(']')?;
    }
    if let Source::Registry { .. } = source {
        for (index, specifier) in specifiers.iter().enumerate() {
            write!(f, "{}{specifier}", if index > 0 { "," } else { "" })?;
        }
    } else {
        write!(f, " @ {source}")?;
    }
    match marker {
        Some(marker) => write!(f, " ; {marker}"),
        None => Ok(()),
    }
}

/// What stands behind an `@`.
fn address_source(written: &str, address: &str) -> Result<Source, Diagnostic> {
    if Url::parse(address.strip_prefix("git+").unwrap_or(address)).is_some_and(|url| url.has_credentials()) {
        return Err(source::credentials(&format!("requirement `{written}`")));
    }
    let path = address.starts_with(['.', '/']);
    let source = if path { Some(path_source(address)) } else { source::parse_url(address) };
    source.ok_or_else(|| {
        Diagnostic::new(format!("requirement `{written}` has an invalid address"))
            .why("expected a scheme and a host, or a path")
            .advice("write `https://…`, `git+https://…`, `file:///…` or `./…` behind the `@`")
    })
}

/// A path, perhaps with `#subdirectory=…` behind.
pub(super) fn path_source(text: &str) -> Source {
    let (path, fragment) = text.split_once('#').unwrap_or((text, ""));
    let subdirectory = fragment.split('&').find_map(|pair| pair.strip_prefix("subdirectory="));
    let subdirectory = subdirectory.filter(|path| source::is_inside(path)).map(str::to_owned);
    Source::Path { path: path.to_owned(), subdirectory, develop: false }
}

fn versions(
    written: &str,
    specifiers: &str,
    inside: &dyn Fn(&str) -> Range<usize>,
) -> Result<Constraint, Diagnostic> {
    let inner = match specifiers.strip_prefix('(') {
        Some(inner) => inner.strip_suffix(')').ok_or_else(|| {
            Diagnostic::new(format!("requirement `{written}` has an open parenthesis"))
                .at(inside(specifiers))
                .why("expected `)`")
                .advice("leave the parentheses out")
        })?,
        None => specifiers,
    };
    specifier_set(inner).map_err(|(part, why)| {
        let diagnostic = Diagnostic::new(format!("requirement `{written}` has an invalid version specifier"))
            .at(inside(part))
            .why(why);
        if part.starts_with("~=") {
            return diagnostic.advice("give at least two numbers: `~=1.2` is any 1.x from 1.2 on");
        }
        match (in_poetrys_language(part), part.starts_with(['^', '~']) && !part.starts_with("~>")) {
            (Some(meant), poetry) => {
                let diagnostic = if poetry {
                    diagnostic.why("`^` and `~` belong to Poetry's language")
                } else {
                    diagnostic
                };
                diagnostic.replace(meant)
            }
            _ => diagnostic.advice("write a range such as `>=2.2,<3`"),
        }
    })
}

/// The specifiers that a part means which only Poetry's language has, such as `^2` or `=>1`.
fn in_poetrys_language(part: &str) -> Option<String> {
    let constraint =
        Constraint::parse(part).or_else(|error| Constraint::parse(&error.instead.unwrap_or_default()));
    let constraint = constraint.ok()?;
    let plain = part.starts_with(['^', '~', '=', '<', '>', '!'])
        && constraint.alternatives().len() == 1
        && !constraint.is_any();
    plain.then(|| constraint.to_string())
}

const NO_SPECIFIER: &str = "expected a version specifier such as `>=2.2`; each requirement stands alone";

fn specifier_set(text: &str) -> Result<Constraint, (&str, String)> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(Constraint::any());
    }
    let parts = text.strip_suffix(',').unwrap_or(text).split(',');
    let specifiers: Result<Vec<_>, _> = parts
        .map(|part| {
            let part = trim(part);
            VersionSpecifier::from_str(part).map_err(|error| {
                let operator = part.starts_with(['<', '>', '=', '!', '~']);
                let why = if operator { first_line(&error.to_string()) } else { NO_SPECIFIER.to_owned() };
                (part, why)
            })
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
        let dependency = parse("a[b] @ https://host.invalid/a;b.whl ; os_name == 'posix'").unwrap();
        assert_eq!(dependency.source.to_string(), "https://host.invalid/a;b.whl");
        assert!(dependency.marker.is_some());
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
            ("numpy @ git+https:/x", 8..20),
            ("numpy @ https://host.invalid/x y", 31..32),
            ("num py>=1", 4..9),
            ("$(touch x)", 0..10),
        ] {
            assert_eq!(parse(text).unwrap_err().at, Some(at), "for `{text}`");
        }
    }
}
