//! TOML with all of its broken lines reported at once, and values with what is wrong with them.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use toml_edit::Document;

use super::value::{Table, Value};
use super::{Constraint, Marker, Parsed};
use crate::diagnostic::{Diagnostic, Fix};

/// Syntax errors looked for in one file. Each costs a parse of the whole.
const MAX_SYNTAX_ERRORS: usize = 10;

/// Parses TOML, going on behind each broken line so that all of them are reported. `explain` says
/// what is wrong with a line and its first error, where it knows better than the parser.
pub(crate) fn parse(
    text: &str,
    mistakes: &mut Vec<Diagnostic>,
    advice: &str,
    explain: impl Fn(&str, &str) -> Option<Diagnostic>,
) -> Option<Table<'static>> {
    let mut remaining = Cow::Borrowed(text);
    for _ in 0..MAX_SYNTAX_ERRORS {
        let error = match Document::parse(remaining.clone()) {
            Ok(document) => return Some(Table::of(document.as_table())),
            Err(error) => error,
        };
        let at = error.span().unwrap_or_default();
        let at = at.start.min(text.len())..at.end.min(text.len());
        let line = line_around(text, at.start);
        let message = error.message().lines().next().unwrap_or_default();
        let written = text[line.clone()].trim();
        let start = line.start + text[line.clone()].len() - text[line.clone()].trim_start().len();
        mistakes.push(match explain(written, message) {
            Some(mistake) => mistake.at(start..start + written.len()),
            None => syntax_error(text, start, at, message, advice),
        });
        let blank: String = remaining[line.clone()]
            .chars()
            .map(|character| if character == '\n' { "\n".into() } else { " ".repeat(character.len_utf8()) })
            .collect();
        if blank == remaining[line.clone()] {
            return None;
        }
        remaining.to_mut().replace_range(line, &blank);
    }
    None
}

fn line_around(text: &str, position: usize) -> Range<usize> {
    let start = text.as_bytes()[..position].iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
    let end = text.as_bytes()[position..]
        .iter()
        .position(|&byte| byte == b'\n')
        .map_or(text.len(), |at| at + position);
    start..end
}

fn syntax_error(text: &str, line_start: usize, at: Range<usize>, message: &str, advice: &str) -> Diagnostic {
    if message.contains("duplicate key") {
        let key = text[at.clone()].trim_matches(['"', '\'']).escape_debug().to_string();
        return if at.start == line_start && advice.contains("dependency") {
            Diagnostic::new(format!("dependency `{key}` is listed twice"))
                .at(at)
                .why("an earlier line names the same distribution")
                .advice("keep one entry")
        } else {
            Diagnostic::new(format!("the key `{key}` is given twice"))
                .at(at)
                .why("the table has it already")
                .advice("keep one of them")
        };
    }
    Diagnostic::new("invalid TOML").at(at).why(message).advice(advice)
}

/// What values belong to: a kind of thing, where it needs saying, and a name as written.
#[derive(Clone, Copy)]
pub(super) struct Named<'a>(pub(super) &'static str, pub(super) &'a str);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let space = if self.0.is_empty() { "" } else { " " };
        write!(f, "{}{space}`{}`", self.0, self.1.escape_debug())
    }
}

/// Something of a list that values belong to, while it is read.
pub(super) struct Owner<'a> {
    pub(super) text: &'a str,
    pub(super) what: Named<'a>,
    pub(super) parsed: &'a mut Parsed,
}

impl Owner<'_> {
    pub(super) fn refuse<T>(&mut self, mistake: Diagnostic) -> Option<T> {
        self.parsed.refuse(mistake)
    }

    pub(super) fn wrong_type<T>(&mut self, value: &Value<'_>, expected: &str, fix: Fix) -> Option<T> {
        let found = value.kind();
        let what = format!("{} has a value of the wrong type", self.what);
        let mistake =
            Diagnostic::new(what).at(value.at.clone()).why(format!("expected {expected}, found {found}"));
        self.refuse(Diagnostic { fix: Some(fix), ..mistake })
    }

    /// A text, such as `example`.
    pub(super) fn string<'v>(
        &mut self,
        value: &'v Value<'_>,
        expected: &str,
        example: &str,
    ) -> Option<&'v str> {
        let fix = || Fix::Advice(format!("write a text in quotes, such as `\"{example}\"`"));
        value.as_str().or_else(|| self.wrong_type(value, expected, fix()))
    }

    pub(super) fn boolean(&mut self, value: &Value<'_>) -> Option<bool> {
        let fix = || match value.as_str() {
            Some(word @ ("true" | "false")) => Fix::Replace(word.to_owned()),
            _ => Fix::Advice("write `true` or `false`, without quotes".to_owned()),
        };
        value.as_bool().or_else(|| self.wrong_type(value, "`true` or `false`", fix()))
    }

    /// Texts in a list, each with its place and its value.
    pub(super) fn strings<'v, 't>(
        &mut self,
        list: &'v Value<'t>,
        expected: &str,
    ) -> Vec<(&'v Value<'t>, &'v str)> {
        let advice = || Fix::Advice(format!("write {expected} as `[\"first\", \"second\"]`"));
        let Some(array) = list.as_array() else {
            let fix = match list.as_str() {
                Some(word) if !word.contains(['"', '\\']) => Fix::Replace(format!("[\"{word}\"]")),
                _ => advice(),
            };
            self.wrong_type::<()>(list, expected, fix);
            return Vec::new();
        };
        let mut texts = Vec::with_capacity(array.len());
        for value in array {
            match value.as_str() {
                Some(text) => texts.push((value, text)),
                None => {
                    let what = format!("{} has a value of the wrong type", self.what);
                    let why = format!("expected a text in quotes, found {}", value.kind());
                    let mistake = Diagnostic::new(what).at(value.at.clone()).why(why);
                    self.parsed.mistakes.push(Diagnostic { fix: Some(advice()), ..mistake });
                }
            }
        }
        texts
    }

    /// The place of `inner`, bytes of the string `value`, in the file; `None` where the two do not
    /// correspond, or where it is empty.
    pub(super) fn inside(
        &self,
        span: &Range<usize>,
        string: &str,
        inner: &Range<usize>,
    ) -> Option<Range<usize>> {
        let quotes = if ["\"\"\"", "'''"].iter().any(|quotes| self.text[span.clone()].starts_with(quotes)) {
            3
        } else {
            1
        };
        let verbatim = self.text.get(span.start + quotes..span.end.saturating_sub(quotes)) == Some(string);
        (verbatim && !inner.is_empty())
            .then(|| span.start + quotes + inner.start..span.start + quotes + inner.end)
    }

    pub(super) fn constraint(&mut self, value: &Value<'_>) -> Option<Constraint> {
        let span = value.at.clone();
        let Some(text) = value.as_str() else {
            let written = &self.text[span];
            let fix = match Constraint::parse(written) {
                Ok(_) => Fix::Replace(format!("\"{written}\"")),
                Err(_) => Fix::Advice("write a text in quotes, such as `\"^1.2\"`".to_owned()),
            };
            return self.wrong_type(value, "a version constraint in quotes", fix);
        };
        match self.parsed.constraint(text) {
            Ok(constraint) => Some(constraint),
            Err(error) => {
                let inside = self.inside(&span, text, &error.at);
                let diagnostic = Diagnostic::new(format!("{} has an invalid version constraint", self.what))
                    .why(error.why);
                self.refuse(match (inside, error.instead) {
                    (Some(at), Some(instead)) => diagnostic.at(at).replace(instead),
                    (None, Some(instead)) if text.is_empty() => {
                        diagnostic.at(span).replace(format!("\"{instead}\""))
                    }
                    (inside, _) => diagnostic
                        .at(inside.unwrap_or(span))
                        .advice("write `^2.1`, `~2.1`, `2.1.*` or a range such as `>=2.1,<3`"),
                })
            }
        }
    }

    /// The versions of Python that something is for.
    pub(super) fn python(&mut self, value: &Value<'_>) -> Option<Constraint> {
        let constraint = self.constraint(value)?;
        if !constraint.is_empty() {
            return Some(constraint);
        }
        let what = format!("{} admits no version of Python", self.what);
        self.refuse(
            Diagnostic::new(what)
                .at(value.at.clone())
                .why("no version meets all of it")
                .advice("write `||` where one of the parts will do, as in `<3.8 || >3.9`"),
        )
    }

    pub(super) fn marker(&mut self, value: &Value<'_>) -> Option<Marker> {
        let text = self.string(value, "a marker in quotes", "python_version < '3.12'")?;
        if text.is_empty() {
            return None;
        }
        match Marker::parse(text) {
            Ok(marker) => Some(marker),
            Err(error) => {
                let inside = self.inside(&value.at, text, &error.at);
                let mistake = Diagnostic::new(format!("{} has an invalid marker", self.what)).why(error.why);
                self.refuse(match (inside, error.instead) {
                    (Some(at), Some(instead)) => mistake.at(at).replace(instead),
                    (inside, _) => mistake
                        .at(inside.unwrap_or_else(|| value.at.clone()))
                        .advice("write a PEP 508 marker such as `python_version < '3.12'`"),
                })
            }
        }
    }
}
