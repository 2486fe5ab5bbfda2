//! Poetry's dependency lines: `name = "constraint"` or `name = { version = "…", … }`.

use std::ops::Range;

use toml_edit::{Document, Item, Key, TableLike, Value};

use super::{Constraint, Dependency, MAX_MISTAKES, Marker, Name, Names, Spec, nearest, unsupported_source};
use crate::diagnostic::{Diagnostic, Fix};

/// The keys of a dependency table that are read.
const KEYS: [&str; 7] =
    ["version", "extras", "markers", "python", "platform", "optional", "allow-prereleases"];

/// Keys of a dependency that does not come from a package index.
const SOURCES: [&str; 9] = ["git", "branch", "tag", "rev", "subdirectory", "url", "path", "file", "develop"];

/// Syntax errors looked for in one file. Each costs a parse of the whole.
const MAX_SYNTAX_ERRORS: usize = 10;

/// Reads Poetry's lines; what cannot be understood goes to `mistakes`, and the name of every entry
/// with its place to `names`.
pub(super) fn parse(text: &str, names: &mut Names, mistakes: &mut Vec<Diagnostic>) -> Spec {
    let mut spec = Spec { python: None, dependencies: Vec::new() };
    let Some(document) = parse_toml(text, mistakes) else {
        return spec;
    };
    for (key, item) in entries(document.as_table()) {
        if mistakes.len() >= MAX_MISTAKES {
            break;
        }
        let at = key.span().expect("a parsed document keeps its spans");
        let written = key.get();
        let mut entry = Entry { text, written, mistakes };
        names.extend(Name::parse(written).map(|name| (name, at.clone())));
        if written.eq_ignore_ascii_case("python") {
            spec.python = entry.python(item).map(|constraint| (constraint, at));
        } else if let Some(dependency) = entry.dependency(at, item) {
            spec.dependencies.push(dependency);
        }
    }
    spec
}

/// Keys with their items, in the order written.
fn entries(table: &dyn TableLike) -> impl Iterator<Item = (&Key, &Item)> {
    table.iter().map(|(name, _)| table.get_key_value(name).expect("the name comes from this table"))
}

/// Parses TOML, going on behind each broken line so that all of them are reported at once.
fn parse_toml(text: &str, mistakes: &mut Vec<Diagnostic>) -> Option<Document<String>> {
    let mut remaining = text.to_owned();
    for _ in 0..MAX_SYNTAX_ERRORS {
        let error = match Document::parse(remaining.clone()) {
            Ok(document) => return Some(document),
            Err(error) => error,
        };
        let at = error.span().unwrap_or_default();
        let at = at.start.min(text.len())..at.end.min(text.len());
        let line = line_around(text, at.start);
        mistakes.push(syntax_error(text, &line, at, error.message()));
        let blank: String = remaining[line.clone()]
            .chars()
            .map(|character| if character == '\n' { "\n".into() } else { " ".repeat(character.len_utf8()) })
            .collect();
        if blank == remaining[line.clone()] {
            return None;
        }
        remaining.replace_range(line, &blank);
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

fn syntax_error(text: &str, line: &Range<usize>, at: Range<usize>, message: &str) -> Diagnostic {
    let message = message.lines().next().unwrap_or_default();
    let written = text[line.clone()].trim();
    let whole = {
        let start = line.start + text[line.clone()].len() - text[line.clone()].trim_start().len();
        start..start + written.len()
    };
    if message.contains("duplicate key") {
        let key = text[at.clone()].trim_matches(['"', '\'']);
        if at.start != whole.start {
            let what = format!("the key `{}` is given twice", key.escape_debug());
            return Diagnostic::new(what).at(at).why("the table has it already").advice("keep one of them");
        }
        return Diagnostic::new(format!("dependency `{}` is listed twice", key.escape_debug()))
            .at(at)
            .why("an earlier line names the same distribution")
            .advice("keep one entry");
    }
    let diagnostic = Diagnostic::new("invalid TOML");
    if let Some(entry) = entry_meant_by(written) {
        return diagnostic.at(whole).why("expected `name = \"constraint\"`").replace(entry);
    }
    if super::pep508::parse(written).is_ok() {
        return diagnostic
            .at(whole)
            .why("this is a requirement as pip writes it")
            .advice("write it as Poetry does: `name = \"constraint\"`, where `*` means any version");
    }
    diagnostic.at(at).why(message).advice("write one dependency per line, as `name = \"constraint\"`")
}

/// The entry that a broken line surely means: a name and a constraint with quotes or `=` missing,
/// `:` in place of `=`, or a comma behind.
fn entry_meant_by(line: &str) -> Option<String> {
    let end = line.find(|next: char| !next.is_ascii_alphanumeric() && !"._-".contains(next))?;
    let (name, rest) = line.split_at(end);
    Name::parse(name)?;
    let rest = rest.trim_start();
    let rest = rest.strip_prefix(':').unwrap_or(rest);
    let rest = if rest.starts_with("==") { rest } else { rest.strip_prefix('=').unwrap_or(rest) };
    let constraint = rest.trim().trim_end_matches(',').trim_matches(['"', '\'']);
    Constraint::parse(constraint).ok()?;
    let name = if name.contains('.') { format!("\"{name}\"") } else { name.to_owned() };
    Some(format!("{name} = \"{constraint}\""))
}

/// One entry while it is read.
struct Entry<'a> {
    text: &'a str,
    written: &'a str,
    mistakes: &'a mut Vec<Diagnostic>,
}

impl Entry<'_> {
    fn refuse<T>(&mut self, diagnostic: Diagnostic) -> Option<T> {
        self.mistakes.push(diagnostic);
        None
    }

    fn dependency(&mut self, at: Range<usize>, item: &Item) -> Option<Dependency> {
        let written = self.written;
        let Some(name) = Name::parse(written) else {
            return self.refuse(
                Diagnostic::new(format!("`{}` is no distribution name", written.escape_debug()))
                    .at(at)
                    .why("expected letters, digits, `.`, `-` and `_`, with a letter or digit at both ends")
                    .advice("write the name as the package index has it"),
            );
        };
        let plain = Dependency {
            name,
            extras: Vec::new(),
            constraint: Constraint::any(),
            marker: None,
            optional: false,
            allow_prereleases: false,
            at,
        };
        let scalar = |value: &&Value| !value.is_array() && !value.is_inline_table();
        if let Some(value) = item.as_value().filter(scalar) {
            let constraint = self.constraint(value)?;
            return Some(Dependency { constraint, ..plain });
        }
        match item.as_table_like() {
            Some(table) => self.table(table, plain),
            None => {
                let at = span(item, &plain.at);
                self.refuse(
                    Diagnostic::new(format!("dependency `{written}` has an invalid constraint"))
                        .at(at)
                        .why("lists of alternatives are not supported yet")
                        .advice(format!("keep the one you want, as `{written} = \"^1.2\"`")),
                )
            }
        }
    }

    fn table(&mut self, table: &dyn TableLike, mut dependency: Dependency) -> Option<Dependency> {
        let before = self.mistakes.len();
        let mut markers = Vec::new();
        let mut has_version = false;
        let mut has_source = false;
        for (key, item) in entries(table) {
            let key_at = key.span().unwrap_or_else(|| dependency.at.clone());
            let value_at = span(item, &key_at);
            let Some(value) = item.as_value() else {
                self.unknown_key(key.get(), key_at, &dependency);
                continue;
            };
            match key.get() {
                "version" => {
                    has_version = true;
                    if let Some(constraint) = self.constraint(value) {
                        dependency.constraint = constraint;
                    }
                }
                "python" => {
                    markers.extend(self.constraint(value).and_then(|python| Marker::of_python(&python)));
                }
                "markers" => markers.extend(self.marker(value)),
                "platform" => {
                    let platform =
                        self.string(value, "a platform in quotes", "linux").map(Marker::of_platform);
                    match platform {
                        Some(Ok(marker)) => markers.extend(marker),
                        Some(Err(error)) => self.mistakes.push(
                            Diagnostic::new(format!("dependency `{}` has an invalid platform", self.written))
                                .at(value_at)
                                .why(error.why)
                                .advice("write a value of `sys.platform`, such as `linux`"),
                        ),
                        None => {}
                    }
                }
                "extras" => dependency.extras = self.extras(value),
                "optional" => dependency.optional = self.boolean(value).unwrap_or_default(),
                "allow-prereleases" => dependency.allow_prereleases = self.boolean(value).unwrap_or_default(),
                source if SOURCES.contains(&source) => {
                    if !std::mem::replace(&mut has_source, true) {
                        self.mistakes.push(unsupported_source(self.written, key_at));
                    }
                }
                "source" => self.mistakes.push(
                    Diagnostic::new(format!("dependency `{}` names an index of its own", self.written))
                        .at(key_at)
                        .why("`source` is not supported yet")
                        .advice("remove `source`; the package is looked for on the default index"),
                ),
                unknown => self.unknown_key(unknown, key_at, &dependency),
            }
        }
        if !has_version && self.mistakes.len() == before {
            let at = dependency.at;
            return self.refuse(
                Diagnostic::new(format!("dependency `{}` says no version", self.written))
                    .at(at)
                    .why("its table has no `version`")
                    .advice("add `version = \"*\"` if any version will do"),
            );
        }
        dependency.marker = Marker::all(markers);
        (self.mistakes.len() == before).then_some(dependency)
    }

    fn unknown_key(&mut self, key: &str, at: Range<usize>, dependency: &Dependency) {
        let what = Diagnostic::new(format!(
            "dependency `{}` has an unknown key `{}`",
            self.written,
            key.escape_debug()
        ));
        let dotted = self.text.get(dependency.at.end..at.start).is_some_and(|between| between.trim() == ".");
        self.mistakes.push(if dotted {
            let whole = dependency.at.start..at.end;
            let name = self.text[whole.clone()].replace(' ', "");
            what.at(whole).why("in TOML a dot opens a table").replace(format!("\"{name}\""))
        } else if let Some(meant) = nearest(key, KEYS) {
            what.at(at).why(format!("did you mean `{meant}`?")).replace(meant)
        } else {
            what.at(at)
                .why("expected one of the keys of a Poetry dependency")
                .advice(format!("use `{}`", KEYS.join("`, `")))
        });
    }

    fn wrong_type<T>(&mut self, value: &Value, expected: &str, fix: Fix) -> Option<T> {
        let found = value.type_name();
        let at = value.span().unwrap_or_default();
        let what = format!("dependency `{}` has a value of the wrong type", self.written);
        let mistake = Diagnostic::new(what).at(at).why(format!("expected {expected}, found {found}"));
        self.refuse(Diagnostic { fix: Some(fix), ..mistake })
    }

    /// A text, such as `example`.
    fn string<'v>(&mut self, value: &'v Value, expected: &str, example: &str) -> Option<&'v str> {
        let fix = || Fix::Advice(format!("write a text in quotes, such as `\"{example}\"`"));
        value.as_str().or_else(|| self.wrong_type(value, expected, fix()))
    }

    fn boolean(&mut self, value: &Value) -> Option<bool> {
        let fix = || Fix::Advice("write `true` or `false`, without quotes".to_owned());
        value.as_bool().or_else(|| self.wrong_type(value, "`true` or `false`", fix()))
    }

    /// The place of `inner`, bytes of the string `value`, in the file; `None` where the two do not
    /// correspond, or where it is empty.
    fn inside(&self, value: &Value, string: &str, inner: &Range<usize>) -> Option<Range<usize>> {
        let span = value.span().unwrap_or_default();
        let verbatim = self.text.get(span.start + 1..span.end.saturating_sub(1)) == Some(string);
        (verbatim && !inner.is_empty()).then(|| span.start + 1 + inner.start..span.start + 1 + inner.end)
    }

    fn constraint(&mut self, value: &Value) -> Option<Constraint> {
        let span = value.span().unwrap_or_default();
        let Some(text) = value.as_str() else {
            let written = &self.text[span.clone()];
            let fix = match Constraint::parse(written) {
                Ok(_) => Fix::Replace(format!("\"{written}\"")),
                Err(_) => Fix::Advice("write a text in quotes, such as `\"^1.2\"`".to_owned()),
            };
            return self.wrong_type(value, "a version constraint in quotes", fix);
        };
        match Constraint::parse(text) {
            Ok(constraint) => Some(constraint),
            Err(error) => {
                let inside = self.inside(value, text, &error.at);
                let what = format!("dependency `{}` has an invalid version constraint", self.written);
                let diagnostic = Diagnostic::new(what).why(error.why);
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

    fn python(&mut self, item: &Item) -> Option<Constraint> {
        match item.as_value() {
            Some(value) => self.constraint(value),
            None => self.refuse(
                Diagnostic::new("`python` is not a version constraint")
                    .at(item.span().unwrap_or_default())
                    .why("expected a text in quotes")
                    .advice("write `python = \">=3.11,<3.14\"`"),
            ),
        }
    }

    fn marker(&mut self, value: &Value) -> Option<Marker> {
        let text = self.string(value, "a marker in quotes", "python_version < '3.12'")?;
        match Marker::parse(text) {
            Ok(marker) => Some(marker),
            Err(error) => {
                let at = self.inside(value, text, &error.at).or(value.span()).unwrap_or_default();
                self.refuse(
                    Diagnostic::new(format!("dependency `{}` has an invalid marker", self.written))
                        .at(at)
                        .why(error.why)
                        .advice("write a PEP 508 marker such as `python_version < '3.12'`"),
                )
            }
        }
    }

    fn extras(&mut self, value: &Value) -> Vec<Name> {
        let advice = || Fix::Advice("write a list of texts, such as `[\"extra\"]`".to_owned());
        let Some(array) = value.as_array() else {
            let fix = match value.as_str() {
                Some(extra) if Name::parse(extra).is_some() => Fix::Replace(format!("[\"{extra}\"]")),
                _ => advice(),
            };
            self.wrong_type::<()>(value, "a list of extras", fix);
            return Vec::new();
        };
        let mut extras = Vec::new();
        for value in array {
            match value.as_str().map(Name::parse) {
                Some(Some(extra)) => extras.push(extra),
                Some(None) => {
                    let at = value.span().unwrap_or_default();
                    self.mistakes.push(
                        Diagnostic::new(format!("dependency `{}` has an invalid extra", self.written))
                            .at(at)
                            .why("expected letters, digits, `.`, `-` and `_`")
                            .advice("write the extra as its package names it"),
                    );
                }
                None => {
                    self.wrong_type::<()>(value, "an extra in quotes", advice());
                }
            }
        }
        extras
    }
}

fn span(item: &Item, otherwise: &Range<usize>) -> Range<usize> {
    item.span().unwrap_or_else(|| otherwise.clone())
}
