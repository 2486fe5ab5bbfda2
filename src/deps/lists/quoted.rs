//! The inside of a PEP 621 `dependencies` array: quoted requirements separated by commas.

use std::ops::Range;

use super::{Dependency, Parsed, pep508, poetry, report_duplicates};
use crate::diagnostic::Diagnostic;

/// Reads quoted requirements.
pub(in crate::deps) fn parse(text: &str, parsed: &mut Parsed) {
    let mut names = Vec::new();
    let mut position = 0;
    let mut comma_missing_at = None;
    while let Some(start) = next_entry(text, position, &mut comma_missing_at)
        && !parsed.is_hopeless()
    {
        if let Some(at) = comma_missing_at.take() {
            parsed.mistakes.push(missing_comma(text, at));
        }
        let end = entry_end(text, start);
        match requirement(text, start..end) {
            Ok(dependency) => {
                if dependency.marker.is_none() && dependency.name.as_str() != "python" {
                    names.push((dependency.name.clone(), dependency.at.clone()));
                }
                parsed.take(dependency);
            }
            Err(mistake) => parsed.mistakes.push(mistake),
        }
        comma_missing_at = Some(start..end);
        position = end;
    }
    report_duplicates(&names, text, &mut parsed.mistakes);
}

/// The next byte that is neither white space nor comment; a comma on the way is noted.
fn next_entry(text: &str, mut position: usize, comma_missing_at: &mut Option<Range<usize>>) -> Option<usize> {
    loop {
        let rest = text[position..].trim_start();
        position = text.len() - rest.len();
        match rest.as_bytes().first()? {
            b',' => {
                *comma_missing_at = None;
                position += 1;
            }
            b'#' => position += rest.find('\n').unwrap_or(rest.len()),
            _ => return Some(position),
        }
    }
}

/// Where an entry ends: behind its closing quote, or at the next comma or line break where it has
/// none.
fn entry_end(text: &str, start: usize) -> usize {
    let rest = &text[start..];
    let open = |end: &[char]| start + rest.find(end).unwrap_or(rest.len());
    let Some(quote @ (b'"' | b'\'')) = rest.bytes().next() else { return open(&[',', '\n']) };
    let mut escaped = false;
    for (at, byte) in rest.bytes().enumerate().skip(1) {
        match byte {
            b'\n' => break,
            _ if escaped => escaped = false,
            b'\\' if quote == b'"' => escaped = true,
            byte if byte == quote => return start + at + 1,
            _ => {}
        }
    }
    open(&['\n'])
}

fn missing_comma(text: &str, at: Range<usize>) -> Diagnostic {
    let entry = text[at.clone()].to_owned();
    Diagnostic::new("a comma is missing between two requirements")
        .at(at)
        .why("expected a comma behind this")
        .replace(entry + ",")
}

/// Reads the requirement at `at`, quotes included.
pub(in crate::deps) fn requirement(text: &str, at: Range<usize>) -> Result<Dependency, Diagnostic> {
    let written = &text[at.clone()];
    let unquoted = match written.parse::<toml_edit::Value>() {
        Ok(toml_edit::Value::String(text)) => text.into_value(),
        _ => {
            let refused =
                Diagnostic::new("invalid requirement").at(at).why("expected a text in quotes, on one line");
            let bare = written.trim().trim_matches(['"', '\'', '“', '”', '‘', '’']);
            return Err(match meant_by(bare) {
                Some(meant) => refused.replace(format!("\"{meant}\"")),
                None => refused.advice("write a PEP 508 requirement such as `\"numpy>=2.2,<3\",`"),
            });
        }
    };
    // Where the quotes hold escapes, positions inside them are not those of the file.
    let verbatim = written.get(1..written.len() - 1) == Some(&unquoted);
    let place = |inner: Range<usize>| {
        if verbatim { at.start + 1 + inner.start..at.start + 1 + inner.end } else { at.clone() }
    };
    match pep508::parse(&unquoted) {
        Ok(dependency) => Ok(Dependency { at: place(dependency.at.clone()), ..dependency }),
        Err(mistake) if verbatim => Err(Diagnostic { at: mistake.at.clone().map(place), ..mistake }),
        // A replacement would not fit the place.
        Err(mistake) => Err(Diagnostic { at: Some(at), ..mistake }
            .advice("write a PEP 508 requirement such as `\"numpy>=2.2,<3\",`")),
    }
}

/// The requirement that an entry without quotes surely means: one as pip writes it, or a line of
/// Poetry's.
fn meant_by(entry: &str) -> Option<String> {
    if entry.contains(['\\', '\n']) || !entry.starts_with(|first: char| first.is_ascii_alphabetic()) {
        return None;
    }
    if !entry.contains('"') && pep508::parse(entry).is_ok() {
        return Some(entry.to_owned());
    }
    poetry_line(entry).filter(|requirement| !requirement.contains('"'))
}

/// A line of Poetry's language as requirement; `None` where it is none, or no single requirement.
pub(in crate::deps) fn poetry_line(line: &str) -> Option<String> {
    if !line.contains('=') {
        return None;
    }
    let mut parsed = Parsed::default();
    poetry::parse(line, &mut parsed);
    let ([dependency], true) = (parsed.spec.dependencies.as_slice(), parsed.mistakes.is_empty()) else {
        return None;
    };
    let [specifiers] = dependency.constraint.alternatives() else { return None };
    let Dependency { name, extras, source, marker, .. } = dependency;
    let mut text = String::new();
    pep508::write(&mut text, name, extras, specifiers, source, marker.as_ref())
        .expect("a string takes every text");
    Some(text)
}
