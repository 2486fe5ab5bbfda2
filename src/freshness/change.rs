//! What two plans have differently, in words.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;
use serde_json::{Map, Value};

/// Something that two plans have differently.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Where in the plan, such as `packages.requirements.numpy`.
    pub path: String,
    /// In words.
    pub what: String,
    /// Whether it follows from another that is told before it.
    pub follows: bool,
    /// The distribution whose entry in a list this is about.
    #[serde(skip)]
    pub entry: Option<String>,
}

impl Change {
    /// What others may follow from.
    fn root(&self) -> Option<&'static str> {
        let is_below = |root: &str| {
            self.path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        ROOTS.into_iter().find(|root| is_below(root))
    }
}

/// What the later of two plans, or of the same parts of them, has otherwise; roots before what follows from them.
#[must_use]
pub fn between(earlier: &Value, later: &Value) -> Vec<Change> {
    let mut changes = Vec::new();
    compare("", earlier, later, &mut changes);
    let roots: Vec<&'static str> = changes.iter().filter_map(Change::root).collect();
    let reference = |plan: &Value| plan.pointer("/foundation/base/reference").map(plain);
    for change in &mut changes {
        if let (true, Some(name)) = (change.path == "foundation.base.id", reference(later))
            && reference(earlier).as_ref() == Some(&name)
        {
            change.what = change.what.replacen("base image", &format!("the base `{name}` moved"), 1);
        }
        change.follows =
            consequence_of(&change.path).is_some_and(|of| of.iter().any(|root| roots.contains(root)));
    }
    changes.sort_by_key(|change| (change.follows, rank(&change.path)));
    changes
}

/// Changes that others follow from.
const ROOTS: [&str; 7] = [
    "ipybox",
    "variant",
    "foundation.base.reference",
    "foundation.base.id",
    "foundation.python_archive",
    "foundation.interpreter.version",
    "packages.requirements",
];

/// What a change may follow from, by the beginning of its path.
fn consequence_of(path: &str) -> Option<&'static [&'static str]> {
    const BASE: &[&str] = &["foundation.base.reference", "foundation.base.id"];
    const PYTHON: &[&str] = &[
        "foundation.base.reference",
        "foundation.base.id",
        "foundation.python_archive",
        "foundation.interpreter.version",
    ];
    const VARIANT: &[&str] = &["variant"];
    const TABLE: [(&str, &[&str]); 18] = [
        ("foundation.templates", &["ipybox"]),
        ("foundation.template", VARIANT),
        ("foundation.servers", VARIANT),
        ("foundation.placement", VARIANT),
        ("finish.ports", VARIANT),
        ("finish.labels.ipybox.dependencies", &["packages.requirements"]),
        ("foundation.base.id", &["foundation.base.reference"]),
        ("foundation.base.platform", BASE),
        ("foundation.interpreter", BASE),
        ("foundation.provenance", BASE),
        ("packages.held", BASE),
        ("packages.folders", BASE),
        ("packages.locked", &["packages.requirements"]),
        ("foundation.installer", &["ipybox"]),
        ("finish.labels.ipybox.version", &["ipybox"]),
        ("finish.labels.ipybox.python", PYTHON),
        ("finish.labels.org.opencontainers.image.base.name", BASE),
        ("finish.labels.ipybox.variant", &["variant"]),
    ];
    TABLE.into_iter().find(|(begin, _)| path.starts_with(begin)).map(|(_, of)| of)
}

/// The order of a plan's parts, the first what decides most.
fn rank(path: &str) -> usize {
    const ORDER: [&str; 15] = [
        "format",
        "ipybox",
        "variant",
        "foundation.base.reference",
        "foundation.base.id",
        "foundation.base",
        "foundation.python_archive",
        "foundation.interpreter",
        "foundation.user",
        "packages.requirements",
        "packages.locked",
        "packages",
        "foundation.apt",
        "foundation",
        "finish",
    ];
    ORDER.iter().position(|begin| path.starts_with(begin)).unwrap_or(ORDER.len())
}

/// Compares two values, and tells of what differs below their path.
fn compare(path: &str, old: &Value, new: &Value, changes: &mut Vec<Change>) {
    if old == new {
        return;
    }
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    if let Some(name) = path.strip_prefix("packages.locked.") {
        changes.push(relocked(path, name, old, new));
        return;
    }
    if path == "packages.locked" && (old.is_null() || new.is_null()) {
        let what = if old.is_null() { "versions are locked now" } else { "versions are not locked any more" };
        changes.push(Change { path: path.to_owned(), what: what.to_owned(), follows: false, entry: None });
        return;
    }
    match (old, new) {
        (Value::Object(one), Value::Object(other)) => {
            let names = one.keys().chain(other.keys().filter(|name| !one.contains_key(*name)));
            for name in names {
                let (old, new) =
                    (one.get(name).unwrap_or(&Value::Null), other.get(name).unwrap_or(&Value::Null));
                compare(&below(name), old, new, changes);
            }
        }
        (Value::Array(one), Value::Array(other)) => {
            let (one, other) = (keyed(one), keyed(other));
            let names = one.keys().chain(other.keys().filter(|name| !one.contains_key(*name)));
            let before = changes.len();
            for name in names {
                let (old, new) = (one.get(name).copied(), other.get(name).copied());
                if old != new {
                    // What is in a list is told as a whole, by its name.
                    changes.push(told(
                        &below(name),
                        old.unwrap_or(&Value::Null),
                        new.unwrap_or(&Value::Null),
                    ));
                }
            }
            if changes.len() == before {
                changes.push(Change {
                    path: path.to_owned(),
                    what: format!("{}: in another order", title(path)),
                    follows: false,
                    entry: None,
                });
            }
        }
        _ => changes.push(told(path, old, new)),
    }
}

/// The entries of a list by what they are known by; equal ones are counted.
fn keyed(list: &[Value]) -> BTreeMap<String, &Value> {
    let mut keyed = BTreeMap::new();
    for (number, entry) in list.iter().enumerate() {
        let of_object = |map: &Map<String, Value>| {
            // What a requirement with hashes, a copy, an index and a server are known by.
            let of_requirement =
                || map.get("requirement")?.get(0)?.as_str().map(|text| name_of(text).to_owned());
            let named = || ["to", "url", "port"].iter().find_map(|key| map.get(*key)).map(plain);
            of_requirement().or_else(named).unwrap_or_else(|| (number + 1).to_string())
        };
        let name = match entry {
            Value::String(text) => name_of(text).to_owned(),
            // The alternatives of a requirement.
            Value::Array(texts) => {
                texts.first().map_or_else(String::new, |text| name_of(&plain(text)).to_owned())
            }
            Value::Object(map) => of_object(map),
            other => plain(other),
        };
        let mut unique = name.clone();
        let mut count = 1;
        while keyed.contains_key(&unique) {
            count += 1;
            unique = format!("{name}#{count}");
        }
        keyed.insert(unique, entry);
    }
    keyed
}

/// The name that a requirement begins with; another text as it is.
fn name_of(text: &str) -> &str {
    let end =
        text.find(|next: char| !next.is_ascii_alphanumeric() && !"-_.".contains(next)).unwrap_or(text.len());
    if end == 0 || text.starts_with('/') { text } else { &text[..end] }
}

/// A locked package that changed, in words.
fn relocked(path: &str, name: &str, old: &Value, new: &Value) -> Change {
    let version = |entry: &Value| entry.get("version").map(plain);
    let what = match (version(old), version(new)) {
        (Some(old), Some(new)) if old == new => format!("{name} {new} that is locked: another file"),
        (Some(old), Some(new)) => format!("{name} that is locked: {old} → {new}"),
        (None, Some(new)) => format!("{name} {new} that is locked is new"),
        (Some(old), None) => format!("{name} {old} that was locked is gone"),
        (None, None) => format!("{name} that is locked changed"),
    };
    Change { path: path.to_owned(), what, follows: false, entry: Some(name.to_owned()) }
}

/// A change of one value, in words.
fn told(path: &str, old: &Value, new: &Value) -> Change {
    let mut parts = path.splitn(3, '.');
    let (room, part, rest) =
        (parts.next().unwrap_or(""), parts.next().unwrap_or(""), parts.next().unwrap_or(""));
    let is_named = |what: &str| format!("{what} `{rest}`");
    let (subject, entry) = match (room, part) {
        ("packages", "requirements" | "bounds") => (rest.to_owned(), Some(rest.to_owned())),
        ("packages", "unbuilt") => (is_named("what is built of"), Some(rest.to_owned())),
        ("packages", "sources") => {
            let name = rest.split('.').next().unwrap_or(rest);
            (
                format!("the source of `{name}` ({})", rest[name.len()..].trim_start_matches('.')),
                Some(name.to_owned()),
            )
        }
        ("foundation", "env") => (is_named("the variable"), None),
        ("finish", "args") => (is_named("the build argument"), None),
        ("finish", "labels") => (is_named("the label"), None),
        ("foundation" | "finish", "copies") => (format!("what is copied to `{rest}`"), None),
        ("foundation" | "finish", "steps") => (format!("own step {rest}"), None),
        ("foundation", "apt") => (is_named("the Debian package"), None),
        ("packages", "build_apt") => (format!("the Debian package `{rest}` for builds"), None),
        ("packages", "indexes") => (is_named("the package index"), None),
        ("packages", "held") => (format!("`{rest}` of the base"), None),
        _ => (title(path), None),
    };
    let is_digest =
        |value: &Value| value.as_str().is_some_and(|text| text.starts_with("sha256:") || is_hash(text));
    let what = match (old, new) {
        (Value::Null, Value::String(_)) if is_digest(new) => format!("{subject} is new"),
        (Value::Null, new) => match plain(new) {
            text if text == rest || subject.contains(&text) => format!("{subject} is new"),
            text => format!("{subject} is new: {text}"),
        },
        (_, Value::Null) => format!("{subject} is gone"),
        (old, new) if is_digest(old) && is_digest(new) && !subject.starts_with("base") => {
            format!("{subject} changed")
        }
        (Value::Object(one), Value::Object(other)) => {
            let names = one.keys().chain(other.keys().filter(|name| !one.contains_key(*name)));
            let of = |map: &Map<String, Value>, name| map.get(name).cloned().unwrap_or(Value::Null);
            let fields = names.map(|name| (name, of(one, name), of(other, name)));
            let fields: Vec<_> = fields.filter(|(_, old, new)| old != new).collect();
            if fields.iter().all(|(_, old, new)| is_digest(old) && is_digest(new)) {
                format!("{subject} changed")
            } else {
                let told =
                    fields.iter().map(|(name, old, new)| format!("{name} {} → {}", plain(old), plain(new)));
                format!("{subject}: {}", told.collect::<Vec<_>>().join(", "))
            }
        }
        (old, new) => format!("{subject}: {} → {}", shown(old, rest), shown(new, rest)),
    };
    Change { path: path.to_owned(), what, follows: false, entry }
}

/// A value without the name it begins with, as a requirement has it.
fn shown(value: &Value, name: &str) -> String {
    let text = plain(value);
    match text.strip_prefix(name).map(str::trim) {
        Some("") if !name.is_empty() => "any version".to_owned(),
        Some(rest) if !name.is_empty() => rest.to_owned(),
        _ => text,
    }
}

/// What a part of a plan is called.
fn title(path: &str) -> String {
    const TITLES: [(&str, &str); 22] = [
        ("format", "the format of plans"),
        ("ipybox", "ipybox"),
        ("variant", "variant"),
        ("foundation.base.reference", "base"),
        ("foundation.base.id", "base image"),
        ("foundation.base.platform", "platform"),
        ("foundation.interpreter.version", "Python"),
        ("foundation.interpreter", "interpreter"),
        ("foundation.provenance", "where Python comes from"),
        ("foundation.python_archive", "archive of Python"),
        ("foundation.placement", "where packages go"),
        ("foundation.user", "user"),
        ("foundation.templates", "what ipybox puts into images"),
        ("foundation.template", "template"),
        ("foundation.servers_lock", "requirements of the servers"),
        ("foundation.servers", "servers"),
        ("foundation.bytecode", "bytecode"),
        ("foundation.installer", "installer"),
        ("foundation.workspaces", "workspaces"),
        ("foundation.wishes", "wanted Debian packages"),
        ("packages.folders", "folders of the base"),
        ("finish.ports", "ports"),
    ];
    let known = TITLES.iter().find(|(begin, _)| path.starts_with(begin));
    match known.map(|(begin, title)| (*title, path[begin.len()..].trim_start_matches('.'))) {
        Some((title, "")) => title.to_owned(),
        Some((title, rest)) => format!("{title} ({rest})"),
        None => path.to_owned(),
    }
}

pub(super) fn is_hash(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// A value for people: digests shortened, texts without quotes.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => match text.strip_prefix("sha256:").unwrap_or(text) {
            hash if is_hash(hash) => hash[..12].to_owned(),
            _ => text.clone(),
        },
        Value::Null => "nothing".to_owned(),
        Value::Array(list) => list.iter().map(plain).collect::<Vec<_>>().join(", "),
        Value::Object(map) => map.iter().fold(String::new(), |mut text, (name, value)| {
            let glue = if text.is_empty() { "" } else { ", " };
            let _ = write!(text, "{glue}{name} {}", plain(value));
            text
        }),
        other => other.to_string(),
    }
}
