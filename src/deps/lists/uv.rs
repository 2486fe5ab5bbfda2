//! What uv's own settings in a project or a script say of what is installed.

use super::value::{Table, Value};
use super::{Name, Parsed, Priority, Source, index, quoted};
use crate::diagnostic::Diagnostic;

/// Settings that cannot change what is installed: they are for other commands of uv, for its cache, its network and its
/// output, or for builds of the project itself.
///
/// Source: uv's reference of settings.
const WITHOUT_EFFECT: [&str; 40] = [
    "add-bounds",
    "allow-insecure-host",
    "audit",
    "auth",
    "build-backend",
    "build-constraint-dependencies",
    "cache-dir",
    "cache-keys",
    "check-url",
    "compile-bytecode",
    "concurrent-builds",
    "concurrent-downloads",
    "concurrent-installs",
    "config-settings",
    "config-settings-package",
    "conflicts",
    "default-groups",
    "dependency-groups",
    "dev-dependencies",
    "environments",
    "extra-build-dependencies",
    "extra-build-variables",
    "http-proxy",
    "https-proxy",
    "keyring-provider",
    "link-mode",
    "managed",
    "native-tls",
    "no-cache",
    "no-proxy",
    "offline",
    "package",
    "preview",
    "preview-features",
    "publish-url",
    "python-downloads",
    "python-install-mirror",
    "python-preference",
    "required-version",
    "system-certs",
];

/// Reads the table `tool.uv`, after the dependencies it speaks of.
pub(in crate::deps) fn settings(tool: &Value<'_>, text: &str, parsed: &mut Parsed) {
    let Some(tool) = tool.as_table() else { return };
    let pip = tool.get("pip").and_then(Value::as_table);
    for (inside, table) in [("tool.uv", Some(tool)), ("tool.uv.pip", pip)] {
        for (key, value) in table.into_iter().flat_map(Table::entries) {
            match key.name.as_ref() {
                "pip" if inside == "tool.uv" => {}
                "index" => indexes(value, parsed),
                "index-url" => address(value, Priority::Default, parsed),
                "extra-index-url" => match value.as_array() {
                    Some(values) => values.iter().for_each(|value| address(value, Priority::Extra, parsed)),
                    None => address(value, Priority::Extra, parsed),
                },
                "constraint-dependencies" => bounds(value, text, parsed),
                "sources" => sources(value, parsed),
                "index-strategy" if value.as_str() == Some("first-index") => {}
                name if WITHOUT_EFFECT.contains(&name) => {}
                name => parsed.mistakes.push(
                    Diagnostic::new(format!("`{inside}.{}` is not read", name.escape_debug()))
                        .at(key.at.clone())
                        .why("without it other packages or versions could be installed than uv would take")
                        .advice("say it in the dependencies themselves, with `index` or `constraint-dependencies`, or remove it"),
                ),
            }
        }
    }
}

fn refused(parsed: &mut Parsed, what: &str, value: &Value<'_>, why: &str, advice: &str) {
    parsed.mistakes.push(Diagnostic::new(what).at(value.at.clone()).why(why).advice(advice));
}

/// The indexes of `[[tool.uv.index]]`: asked in their order, before the default one.
fn indexes(value: &Value<'_>, parsed: &mut Parsed) {
    let Some(tables) = value.as_tables() else {
        refused(
            parsed,
            "`index` is no list of tables",
            value,
            "expected `[[tool.uv.index]]`",
            "write a table for each index",
        );
        return;
    };
    for entry in tables {
        let Some(table) = entry.as_table() else { continue };
        let Some(url) = table.get("url").and_then(|url| Some((url.as_str()?, url))) else {
            refused(
                parsed,
                "a package index has no address",
                entry,
                "expected `url = \"…\"`",
                "give it its address",
            );
            continue;
        };
        if let Some(format) = table.get("format").filter(|format| format.as_str() != Some("simple")) {
            refused(
                parsed,
                "a package index has another format",
                format,
                "only `simple` is read",
                "name an index that has it",
            );
            continue;
        }
        let is = |key: &str| table.get(key).and_then(Value::as_bool) == Some(true);
        let priority = match (is("explicit"), is("default")) {
            (true, _) => Priority::Explicit,
            (_, true) => Priority::Default,
            _ => Priority::Extra,
        };
        let name = table.get("name").and_then(Value::as_str).map(str::to_owned);
        let index = index::read(name.as_deref(), url.0, priority, url.1.at.clone(), parsed);
        parsed.spec.indexes.extend(index);
    }
}

/// An index without a name.
fn address(value: &Value<'_>, priority: Priority, parsed: &mut Parsed) {
    match value.as_str() {
        Some(url) => {
            let index = index::read(None, url, priority, value.at.clone(), parsed);
            parsed.spec.indexes.extend(index);
        }
        None => refused(
            parsed,
            "an address is no text",
            value,
            "expected the address of an index in quotes",
            "write it as a text",
        ),
    }
}

/// Versions that must not be left where a distribution is installed.
fn bounds(value: &Value<'_>, text: &str, parsed: &mut Parsed) {
    let Some(values) = value.as_array() else {
        let why = "expected requirements in quotes, in brackets";
        refused(parsed, "`constraint-dependencies` is no list", value, why, "write a list of requirements");
        return;
    };
    for value in values {
        match value.as_str().map(|_| quoted::requirement(text, value.at.clone())) {
            Some(Ok(bound)) => parsed.spec.bounds.push(bound),
            Some(Err(mistake)) => parsed.mistakes.push(mistake),
            None => refused(
                parsed,
                "a constraint is no text",
                value,
                "expected a requirement in quotes",
                "write it as a text",
            ),
        }
    }
}

/// Where uv takes distributions from. An index is one for us as well; other kinds have their own spelling.
fn sources(value: &Value<'_>, parsed: &mut Parsed) {
    for (key, value) in value.as_table().into_iter().flat_map(Table::entries) {
        let Some(name) = Name::parse(&key.name) else { continue };
        if !parsed.spec.dependencies.iter().any(|dependency| dependency.name == name) {
            continue;
        }
        let index =
            value.as_table().filter(|table| table.entries().len() == 1).and_then(|table| table.get("index"));
        if let Some(index) = index.and_then(Value::as_str) {
            let of_name = parsed.spec.dependencies.iter_mut().filter(|dependency| dependency.name == name);
            for dependency in of_name.filter(|one| matches!(one.source, Source::Registry { .. })) {
                dependency.source = Source::Registry { index: Some(index.to_owned()) };
            }
            continue;
        }
        parsed.mistakes.push(
            Diagnostic::new(format!("the source of `{name}` is written for uv"))
                .at(key.at.clone())
                .why("of `tool.uv.sources` only `{ index = \"…\" }` is read, and without it another package could be installed")
                .advice(format!("write the dependency as `{name} @ …`, or under `[tool.poetry.dependencies]`")),
        );
    }
}
