//! Poetry's dependencies: `name = "constraint"`, `name = { version = "…", … }`, or a list of these.

use std::ops::Range;

use super::toml::{Named, Owner};
use super::value::{Table, Value};
use super::{
    Constraint, Dependency, Marker, Name, Parsed, Source, in_backticks, nearest, pep508, source, toml,
};
use crate::diagnostic::{Diagnostic, Fix};

/// A kind of dependency table: its first key makes it that kind, and the others may stand beside.
///
/// Rule: poetry-core's schema of `[tool.poetry.dependencies]`, with one change: a file or an address
/// may be asked for pre-releases, which means nothing for it.
const KINDS: [(&str, &[&str]); 6] = [
    ("git", &["branch", "tag", "rev", "subdirectory", "develop", "allow-prereleases", "allows-prereleases"]),
    ("file", &["subdirectory"]),
    ("path", &["subdirectory", "develop"]),
    ("url", &["subdirectory"]),
    ("version", &["source", "allow-prereleases", "allows-prereleases"]),
    ("", &["source", "allow-prereleases", "develop"]),
];

/// Keys that every kind has, and those that only a table with a version or another source has.
const WHERE: [&str; 3] = ["markers", "python", "platform"];
const WHAT: [&str; 2] = ["extras", "optional"];

/// Reads a list of Poetry's lines.
pub(in crate::deps) fn parse(text: &str, parsed: &mut Parsed) {
    const ADVICE: &str = "write one dependency per line, as `name = \"constraint\"`";
    if let Some(table) = toml::parse(text, &mut parsed.mistakes, ADVICE, broken_line) {
        dependencies(&table, text, parsed);
    }
}

/// Reads a table of dependencies, whose `python` is the interpreter's version.
pub(in crate::deps) fn dependencies(table: &Table<'_>, text: &str, parsed: &mut Parsed) {
    let entries = table.entries();
    let mut names = Vec::with_capacity(entries.len());
    parsed.spec.dependencies.reserve(entries.len());
    for (key, value) in entries {
        if parsed.is_hopeless() {
            break;
        }
        let at = key.at.clone();
        let written = key.name.as_ref();
        let name = Name::parse(written);
        names.extend(name.clone().map(|name| (name, at.clone())));
        if written.eq_ignore_ascii_case("python") {
            let mut owner = Owner { text, what: Named("", "python"), parsed };
            if let Some(constraint) = owner.python(value) {
                parsed.spec.python.push((constraint, at));
            }
            continue;
        }
        let what = Named("dependency", written);
        let mut entry = Entry { written, at, owner: Owner { text, what, parsed } };
        match name {
            Some(name) => entry.read(name, value),
            None => entry.refuse_name(),
        }
    }
    super::report_duplicates(&names, text, &mut parsed.mistakes);
}

/// What is wrong with a line that is no TOML, where what it means can be told.
fn broken_line(line: &str, message: &str) -> Option<Diagnostic> {
    if message.contains("duplicate key") {
        return None;
    }
    if let Some((_, odd)) = pep508::odd_character(line)
        && let (why, instead @ " ") = pep508::oddity(odd)
    {
        return Some(Diagnostic::new("invalid TOML").why(why).replace(line.replace(odd, instead)));
    }
    // A comment stays where it is.
    let (line, comment) = match line.find(" #") {
        Some(at) => line.split_at(line[..at].trim_end().len()),
        None => (line, ""),
    };
    if let Some(entry) = entry_meant_by(line).filter(|entry| entry != line) {
        let entry = entry + comment;
        return Some(Diagnostic::new("invalid TOML").why("expected `name = \"constraint\"`").replace(entry));
    }
    let requirement = pep508::parse(line.trim_end_matches([',', ';']));
    requirement.ok().map(|dependency| {
        let mistake = Diagnostic::new("invalid TOML").why("this is a requirement as pip writes it");
        match line_of(&dependency) {
            Some(line) => mistake.replace(line + comment),
            None => mistake
                .advice("write it as Poetry does: `name = \"constraint\"`, where `*` means any version"),
        }
    })
}

/// The entry that a broken line surely means: a name, perhaps with extras, and a constraint with
/// quotes or `=` missing, `:` in place of `=`, curly quotes, or a comma behind.
fn entry_meant_by(line: &str) -> Option<String> {
    let line = line.replace(['“', '”', '„', '‘', '’'], "\"");
    let bare = line.strip_prefix('"').and_then(|line| line.split_once('"'));
    let (name, rest) = match bare.filter(|(_, rest)| rest.trim_start().starts_with(['=', ':'])) {
        Some(split) => split,
        None => {
            line.split_at(line.find(|next: char| !next.is_ascii_alphanumeric() && !"._-".contains(next))?)
        }
    };
    Name::parse(name).filter(|_| name.matches('.').count() < 2)?;
    let (extras, rest) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((extras, rest)) => (Some(extras), rest),
        None => (None, rest),
    };
    let rest = rest.trim_start();
    let rest = rest.strip_prefix(':').unwrap_or(rest);
    let rest = match rest.strip_prefix("=>").filter(|rest| rest.trim_start().starts_with('"')) {
        Some(rest) => rest.trim_start(),
        None => rest,
    };
    let (rest, equals) =
        match rest.strip_prefix("==").filter(|rest| rest.trim_start().starts_with(['"', '\''])) {
            Some(rest) => (rest, true),
            None if rest.starts_with("==") => (rest, false),
            None => (rest.strip_prefix('=').unwrap_or(rest), rest.starts_with('=')),
        };
    let constraint = rest.trim().trim_end_matches([',', ';']).trim_matches(['"', '\'']);
    if !equals && pep508::parse(&line).is_ok() {
        return None;
    }
    Constraint::parse(constraint).ok()?;
    let extras = match extras {
        Some(extras) => extras.split(',').map(|extra| Name::parse(extra.trim())).collect::<Option<_>>()?,
        None => Vec::new(),
    };
    Some(written_as(name, constraint, &extras, None))
}

/// A registry dependency as a line of Poetry's language; `None` for others.
fn line_of(dependency: &Dependency) -> Option<String> {
    let Source::Registry { index: None } = dependency.source else { return None };
    let constraint = dependency.constraint.to_string();
    Some(written_as(dependency.name.as_str(), &constraint, &dependency.extras, dependency.marker.as_ref()))
}

fn written_as(name: &str, constraint: &str, extras: &[Name], marker: Option<&Marker>) -> String {
    let name = if name.contains('.') { format!("\"{name}\"") } else { name.to_owned() };
    if extras.is_empty() && marker.is_none() {
        return format!("{name} = \"{constraint}\"");
    }
    let mut table = format!("{name} = {{ version = \"{constraint}\"");
    if !extras.is_empty() {
        let extras: Vec<_> = extras.iter().map(|extra| format!("\"{extra}\"")).collect();
        table += &format!(", extras = [{}]", extras.join(", "));
    }
    if let Some(marker) = marker {
        table += &format!(", markers = {}", toml_edit::Value::from(marker.to_string()));
    }
    table + " }"
}

/// One entry while it is read.
struct Entry<'a> {
    written: &'a str,
    /// Its name.
    at: Range<usize>,
    owner: Owner<'a>,
}

impl Entry<'_> {
    fn refuse_name(&mut self) {
        self.owner.refuse::<()>(
            Diagnostic::new(format!("`{}` is no distribution name", self.written.escape_debug()))
                .at(self.at.clone())
                .why("expected letters, digits, `.`, `-` and `_`, with a letter or digit at both ends")
                .advice("write the name as the package index has it"),
        );
    }

    /// Takes the dependency, or the alternatives.
    fn read(&mut self, name: Name, value: &Value<'_>) {
        // `[[name]]` is another way to write a list of tables.
        let Some(alternatives) = value.as_array().or(value.as_tables()) else {
            let dependency = self.alternative(value, name);
            self.owner.parsed.spec.dependencies.extend(dependency);
            return;
        };
        if alternatives.is_empty() {
            let what = format!("{} has an empty list of alternatives", self.owner.what);
            self.owner.refuse::<()>(
                Diagnostic::new(what)
                    .at(value.at.clone())
                    .why("expected at least one constraint or table")
                    .advice(format!("write `{} = \"*\"` if any version will do", self.written)),
            );
        }
        for alternative in alternatives {
            let dependency = self.alternative(alternative, name.clone());
            self.owner.parsed.spec.dependencies.extend(dependency);
        }
    }

    /// A constraint or a table.
    fn alternative(&mut self, value: &Value<'_>, name: Name) -> Option<Dependency> {
        let plain = Dependency::any(name, self.at.clone());
        match value.as_table() {
            Some(table) => self.table(table, plain),
            None if value.as_array().is_some() => self.owner.wrong_type(
                value,
                "a constraint or a table",
                Fix::Advice("write alternatives as one flat list, such as `[\"^1\", \"^2\"]`".to_owned()),
            ),
            None => {
                let constraint = self.owner.constraint(value)?;
                Some(Dependency { constraint, ..plain })
            }
        }
    }

    fn table(&mut self, table: &Table<'_>, mut dependency: Dependency) -> Option<Dependency> {
        let before = self.owner.parsed.mistakes.len();
        let (kind, own) = *KINDS
            .iter()
            .find(|(kind, _)| kind.is_empty() || table.contains(kind))
            .expect("the last kind fits");
        let mut markers = Vec::new();
        let mut origin = Origin::default();
        for (key, value) in table.entries() {
            let key_at = key.at.clone();
            let key = key.name.as_ref();
            let known = key == kind
                || own.contains(&key)
                || WHERE.contains(&key)
                || !kind.is_empty() && WHAT.contains(&key);
            if !known {
                self.misplaced_key(key, key_at, kind, own);
                continue;
            }
            match key {
                "version" => {
                    if let Some(constraint) = self.owner.constraint(value) {
                        dependency.constraint = constraint;
                    }
                }
                "python" if value.as_str() == Some("") => {}
                "python" => {
                    let python = self.owner.python(value);
                    markers.extend(python.and_then(|python| Marker::of_python(&python)));
                }
                "markers" => markers.extend(self.owner.marker(value)),
                "platform" => markers.extend(self.platform(value)),
                "extras" => dependency.extras = self.extras(value),
                "optional" => dependency.optional = self.owner.boolean(value).unwrap_or_default(),
                "allow-prereleases" => {
                    dependency.allow_prereleases = self.owner.boolean(value).unwrap_or_default();
                }
                "develop" => origin.develop = self.owner.boolean(value).unwrap_or_default(),
                // Poetry takes this spelling, too, and does nothing with it.
                "allows-prereleases" => {
                    if self.owner.boolean(value).unwrap_or_default() {
                        let mistake =
                            Diagnostic::new(format!("{} has a key that does nothing", self.owner.what))
                                .at(key_at)
                                .why("Poetry takes `allows-prereleases`, and means nothing by it");
                        let is_there = table.entries().any(|(key, _)| key.name == "allow-prereleases");
                        self.owner.refuse::<()>(if is_there {
                            mistake.advice("leave it out; `allow-prereleases` is enough")
                        } else {
                            mistake.replace("allow-prereleases")
                        });
                    }
                }
                _ => {
                    let text = self.owner.string(value, "a text in quotes", "text").map(str::to_owned);
                    if text.as_deref() == Some("") {
                        self.owner.refuse::<()>(
                            Diagnostic::new(format!("{} has an empty `{key}`", self.owner.what))
                                .at(value.at.clone())
                                .why("expected a text")
                                .advice(format!("write a value, or leave out `{key}`")),
                        );
                    }
                    origin.set(key, text, value.at.clone());
                }
            }
        }
        dependency.source = self.source(kind, origin)?;
        dependency.marker = Marker::all(markers);
        // Only an extra of the project could ask for it.
        dependency.optional |= dependency.marker.as_ref().is_some_and(|marker| marker.mentions("extra"));
        (self.owner.parsed.mistakes.len() == before).then_some(dependency)
    }

    fn source(&mut self, kind: &str, origin: Origin) -> Option<Source> {
        let Origin { value, value_at, branch, tag, rev, subdirectory, index, develop } = origin;
        let url = value.as_deref().filter(|_| ["git", "url"].contains(&kind)).and_then(super::Url::parse);
        if url.is_some_and(|url| url.has_credentials()) {
            let mistake = source::credentials(&self.owner.what.to_string()).at(value_at);
            return self.owner.refuse(mistake);
        }
        if subdirectory.as_deref().is_some_and(|path| !source::is_inside(path)) {
            let what = format!("{} has a `subdirectory` outside of it", self.owner.what);
            return self.owner.refuse(
                Diagnostic::new(what)
                    .at(self.at.clone())
                    .why("expected a path below the project, without `..` and control characters")
                    .advice("name the folder as it is seen from the repository, archive or path"),
            );
        }
        Some(match kind {
            "git" => {
                let url = value?;
                // As pip writes them; Poetry takes that for the same.
                let url = url.strip_prefix("git+").map(str::to_owned).unwrap_or(url);
                let short = url.split_once(':').filter(|_| !url.contains("://"));
                let is_short = short.is_some_and(|(host, path)| {
                    host.contains('@')
                        && !path.is_empty()
                        && source::is_reference(host)
                        && !path.contains(|odd: char| odd.is_whitespace() || odd == '@')
                });
                let address =
                    super::Url::parse(&url).filter(|url| url.fragment.is_none() && !url.path.contains('@'));
                if address.is_none() && (!is_short || url.contains(char::is_control)) {
                    let what = format!("{} has an invalid address", self.owner.what);
                    return self.owner.refuse(
                        Diagnostic::new(what)
                            .at(value_at)
                            .why("expected a scheme and a host, or `user@host:path`, and nothing behind the repository")
                            .advice("write `https://…` to the end, with `branch`, `tag` or `rev` as keys of their own; a folder of this host is a `path`"),
                    );
                }
                let reference = branch.or(tag).or(rev);
                if let Some(reference) =
                    reference.as_deref().filter(|reference| !source::is_reference(reference))
                {
                    let what = format!(
                        "{} asks for `{}`, which git cannot have",
                        self.owner.what,
                        reference.escape_debug()
                    );
                    return self.owner.refuse(
                        Diagnostic::new(what)
                            .at(value_at)
                            .why("a branch, tag or commit has no white space and no `:`, `^`, `~`, `..` or leading `-`")
                            .advice("correct `branch`, `tag` or `rev`"),
                    );
                }
                Source::Git { url, reference, subdirectory, develop }
            }
            "file" | "path" => Source::Path { path: value?, subdirectory, develop },
            "url" => {
                let url = value?;
                let Some(Source::Url { url, sha256, .. }) = source::parse_url(&url) else {
                    let what = format!("{} has an invalid address", self.owner.what);
                    return self.owner.refuse(
                        Diagnostic::new(what)
                            .at(value_at)
                            .why("expected `http://` or `https://`, and a host")
                            .advice(
                                "write `https://…` to the end, or `path = \"…\"` for a file of this host",
                            ),
                    );
                };
                Source::Url { url, subdirectory, sha256 }
            }
            _ => Source::Registry { index },
        })
    }

    fn platform(&mut self, value: &Value<'_>) -> Option<Marker> {
        let text = self.owner.string(value, "a platform in quotes", "linux")?;
        if text.is_empty() {
            return None;
        }
        match Marker::of_platform(text) {
            Ok(marker) => marker,
            Err(error) => {
                let what = format!("{} has an invalid platform", self.owner.what);
                self.owner.refuse(
                    Diagnostic::new(what)
                        .at(value.at.clone())
                        .why(error.why)
                        .advice("write a value of `sys.platform`, such as `linux`"),
                )
            }
        }
    }

    /// Refuses a key that this kind of table does not have.
    fn misplaced_key(&mut self, key: &str, at: Range<usize>, kind: &str, own: &[&str]) {
        let what = self.owner.what;
        let mut keys: Vec<_> =
            [kind].into_iter().chain(own.iter().copied()).chain(WHERE).chain(WHAT).collect();
        if kind.is_empty() {
            keys.extend(KINDS.iter().map(|(kind, _)| *kind));
            keys.extend(["branch", "subdirectory"]);
        }
        keys.retain(|key| !key.is_empty() && *key != "allows-prereleases");
        let text = self.owner.text;
        let before = text[..self.at.start].chars().next_back();
        let dotted = text.get(self.at.end..at.start).is_some_and(|between| between.trim() == ".")
            && before.is_none_or(|before| before == '\n')
            && text[at.end..].trim_start_matches([' ', '\t']).starts_with('=');
        let elsewhere =
            KINDS.iter().any(|(kind, own)| *kind == key || own.contains(&key)) || WHAT.contains(&key);
        let mistake = if dotted {
            let whole = self.at.start..at.end;
            let name = text[whole.clone()].replace(' ', "");
            Diagnostic::new(format!("{what} has an unknown key `{}`", key.escape_debug()))
                .at(whole)
                .why("in TOML a dot opens a table")
                .replace(format!("\"{name}\""))
        } else if elsewhere && kind.is_empty() {
            Diagnostic::new(format!("{what} says no version"))
                .at(at)
                .why(format!("a table with `{key}` needs a version or another source"))
                .advice("add `version = \"*\"` if any version will do")
        } else if elsewhere {
            let sources = KINDS.iter().any(|(kind, _)| *kind == key);
            let why = if sources {
                format!("it comes from `{kind}`, so it cannot come from `{key}`, too")
            } else {
                format!("`{key}` means nothing beside `{kind}`")
            };
            let why = match key {
                "version" => format!("the version is whatever `{kind}` has"),
                _ => why,
            };
            Diagnostic::new(format!("{what} has both `{kind}` and `{key}`")).at(at).why(why).advice(format!(
                "remove one of the two; beside `{kind}` can stand {}",
                in_backticks(keys.into_iter().skip(1))
            ))
        } else {
            let unknown =
                Diagnostic::new(format!("{what} has an unknown key `{}`", key.escape_debug())).at(at);
            let meant = synonym(key)
                .filter(|meant| keys.contains(meant))
                .or_else(|| nearest(key, keys.iter().copied()));
            match meant {
                Some(meant) => unknown.why(format!("did you mean `{meant}`?")).replace(meant),
                None => unknown
                    .why("expected one of the keys of a Poetry dependency")
                    .advice(format!("use {}", in_backticks(keys))),
            }
        };
        self.owner.refuse::<()>(mistake);
    }

    fn extras(&mut self, list: &Value<'_>) -> Vec<Name> {
        let mut extras = Vec::new();
        for (value, written) in self.owner.strings(list, "a list of extras") {
            match Name::parse(written) {
                Some(extra) => extras.push(extra),
                None => {
                    let what = format!("{} has an invalid extra", self.owner.what);
                    self.owner.refuse::<()>(
                        Diagnostic::new(what)
                            .at(value.at.clone())
                            .why("expected letters, digits, `.`, `-` and `_`")
                            .advice("write the extra as its package names it"),
                    );
                }
            }
        }
        extras
    }
}

/// Where a table says its dependency comes from.
#[derive(Default)]
struct Origin {
    /// Of the key that names its kind.
    value: Option<String>,
    value_at: Range<usize>,
    branch: Option<String>,
    tag: Option<String>,
    rev: Option<String>,
    subdirectory: Option<String>,
    index: Option<String>,
    develop: bool,
}

impl Origin {
    fn set(&mut self, key: &str, value: Option<String>, at: Range<usize>) {
        match key {
            "branch" => self.branch = value,
            "tag" => self.tag = value,
            "rev" => self.rev = value,
            "subdirectory" => self.subdirectory = value,
            "source" => self.index = value,
            _ => (self.value, self.value_at) = (value, at),
        }
    }
}

/// The key that a word of other tools means.
fn synonym(key: &str) -> Option<&'static str> {
    Some(match key {
        "ref" | "revision" | "commit" => "rev",
        "editable" => "develop",
        "index" => "source",
        "marker" => "markers",
        "directory" => "subdirectory",
        "python-version" | "python_version" | "requires-python" => "python",
        "prereleases" | "allow_prereleases" | "prerelease" => "allow-prereleases",
        _ => return None,
    })
}
