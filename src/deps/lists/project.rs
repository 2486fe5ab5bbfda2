//! `pyproject.toml`: `[project]`, `[dependency-groups]`, `[tool.poetry]`.

use std::collections::HashSet;
use std::ops::Range;

use toml_edit::{Document, Item};

use super::source::Priority;
use super::toml::{Named, Owner};
use super::value::{Table, Value};
use super::{
    Dependency, Name, Parsed, Selection, Source, in_backticks, index, nearest, poetry, quoted, toml, uv,
};
use crate::diagnostic::Diagnostic;

/// What to do about a syntax error.
const SYNTAX: &str = "close what is open, put commas between the elements of a list, and texts into quotes";

/// The tables a project may have.
const TABLES: [&str; 4] = ["project", "build-system", "dependency-groups", "tool"];

/// Groups that include one another, at most.
const MAX_DEPTH: usize = 64;

/// Reads a project: its dependencies, and the groups and extras that are asked for.
pub(in crate::deps) fn parse(text: &str, selection: &Selection, parsed: &mut Parsed) {
    let Some(document) = toml::parse(text, &mut parsed.mistakes, SYNTAX, |_, _| None) else { return };
    let names = |names: &[String]| names.iter().filter_map(|name| Name::parse(name)).collect::<Vec<_>>();
    let mut project = Project {
        text,
        document: &document,
        extras: names(&selection.extras).into_iter().collect(),
        known_extras: HashSet::new(),
        included: HashSet::new(),
        parsed,
    };
    project.stray_keys();
    project.refuse_other_tools();
    project.standard();
    project.poetry();
    for group in names(&selection.groups) {
        project.group(&group, None, &mut Vec::new());
    }
    project.sources();
}

/// Reads the metadata of a script: the inside of a `[project]` table.
pub(in crate::deps) fn parse_script(text: &str, parsed: &mut Parsed) {
    let Some(document) = toml::parse(text, &mut parsed.mistakes, SYNTAX, |_, _| None) else { return };
    if let Some(item) = document.get("requires-python") {
        interpreter(item, Named("", "requires-python"), text, parsed);
    }
    if let Some(item) = document.get("dependencies") {
        let dependencies = requirements_of(item, Named("", "dependencies"), text, parsed);
        for dependency in dependencies {
            parsed.take(dependency);
        }
    }
    for (key, _) in document.entries() {
        let known = ["dependencies", "requires-python", "tool"];
        if !known.contains(&key.name.as_ref()) {
            let what = format!("the script's metadata has an unknown key `{}`", key.name.escape_debug());
            let mistake = Diagnostic::new(what).at(key.at.clone());
            parsed.mistakes.push(match nearest(&key.name, known) {
                Some(meant) => mistake.why(format!("did you mean `{meant}`?")).replace(meant),
                None => {
                    mistake.why("expected `dependencies`, `requires-python` or `tool`").advice("remove it")
                }
            });
        }
    }
    if let Some(tool) = document.get("tool").and_then(|tool| tool.as_table()?.get("uv")) {
        uv::settings(tool, text, parsed);
    }
}

/// The name that a project gives itself.
pub(in crate::deps) fn name(text: &str) -> Option<Name> {
    let document = Document::parse(text).ok()?;
    let of = |table: Option<&Item>| Name::parse(table?.get("name")?.as_str()?);
    of(document.get("project")).or_else(|| of(document.get("tool").and_then(|tool| tool.get("poetry"))))
}

struct Project<'a> {
    text: &'a str,
    document: &'a Table<'a>,
    /// Asked for.
    extras: HashSet<Name>,
    known_extras: HashSet<Name>,
    /// Groups that have been read.
    included: HashSet<Name>,
    parsed: &'a mut Parsed,
}

impl<'a> Project<'a> {
    fn table(&self, path: &[&str]) -> Option<&'a Table<'a>> {
        let mut table = self.document;
        for key in path {
            table = table.get(key)?.as_table()?;
        }
        Some(table)
    }

    /// Looks for what is meant as dependencies and would not be read.
    fn stray_keys(&mut self) {
        for (key, value) in self.document.entries() {
            let at = key.at.clone();
            let name = key.name.escape_debug();
            if value.is_behind_key() {
                self.parsed.mistakes.push(
                    Diagnostic::new(format!("`{name}` stands above the first table"))
                        .at(at)
                        .why("there it belongs to no list of dependencies")
                        .advice("move it below `[tool.poetry.dependencies]`"),
                );
            } else if let Some(meant) =
                nearest(&key.name, TABLES).filter(|_| !TABLES.contains(&key.name.as_ref()))
            {
                self.parsed.mistakes.push(
                    Diagnostic::new(format!("`{name}` is no table of a project"))
                        .at(at)
                        .why(format!("did you mean `{meant}`?"))
                        .replace(meant),
                );
            }
        }
        for (path, meant) in [
            (["project"].as_slice(), ["dependencies", "optional-dependencies", "requires-python"].as_slice()),
            (&["tool", "poetry"], &["dependencies", "dev-dependencies", "group", "extras", "source"]),
        ] {
            let Some(table) = self.table(path) else { continue };
            for (key, _) in table.entries() {
                let known = meant.contains(&key.name.as_ref())
                    || ["scripts", "version", "urls", "license", "build", "exclude", "include"]
                        .contains(&key.name.as_ref());
                if let Some(near) = nearest(&key.name, meant.iter().copied()).filter(|_| !known) {
                    self.parsed.mistakes.push(
                        Diagnostic::new(format!("`{}` is not read", key.name.escape_debug()))
                            .at(key.at.clone())
                            .why(format!("did you mean `{near}`?"))
                            .replace(near),
                    );
                }
            }
        }
    }

    /// Says so where nothing of the file is a list: tools of old have lists of their own, and settings of tools alone
    /// ask for nothing.
    fn refuse_other_tools(&mut self) {
        let lists = [
            ["project"].as_slice(),
            &["dependency-groups"],
            &["tool", "poetry"],
            &["tool", "uv", "dev-dependencies"],
        ];
        let is_empty = self.document.entries().len() == 0;
        if is_empty || lists.iter().any(|path| self.has(path)) || !self.parsed.mistakes.is_empty() {
            return;
        }
        let (key, _) = self.document.entries().next().expect("it is not empty");
        let of_flit = self.table(&["tool", "flit", "metadata"]).is_some();
        let why = if of_flit {
            "`[tool.flit.metadata]` is of old, and not read"
        } else {
            "expected `[project]`, `[dependency-groups]` or `[tool.poetry]`"
        };
        self.parsed.mistakes.push(
            Diagnostic::new("the project has no list of dependencies")
                .at(key.at.clone())
                .why(why)
                .advice("write `dependencies = […]` under `[project]`, or give another file"),
        );
    }

    fn has(&self, path: &[&str]) -> bool {
        let (last, tables) = path.split_last().expect("a path has a name");
        self.table(tables).is_some_and(|table| table.contains(last))
    }

    /// The standard's `[project]`.
    ///
    /// Rule: Python packaging specifications, "pyproject.toml", `dependencies` and `optional-dependencies`.
    fn standard(&mut self) {
        let Some(project) = self.table(&["project"]) else { return };
        if let Some(item) = project.get("requires-python") {
            interpreter(item, Named("", "requires-python"), self.text, self.parsed);
        }
        if let Some(item) = project.get("dependencies") {
            let dependencies =
                requirements_of(item, Named("", "project.dependencies"), self.text, self.parsed);
            self.parsed.spec.dependencies.extend(dependencies);
        }
        let dynamic = project.get("dynamic").and_then(Value::as_array);
        let is_dynamic =
            dynamic.is_some_and(|names| names.iter().any(|name| name.as_str() == Some("dependencies")));
        if is_dynamic && project.contains("dependencies") {
            self.parsed.mistakes.push(
                Diagnostic::new("the project's dependencies are both computed and listed")
                    .at(project.get("dynamic").map(|dynamic| dynamic.at.clone()).unwrap_or_default())
                    .why("what `dynamic` names must not be there itself")
                    .advice("remove `dependencies` from one of the two"),
            );
        } else if is_dynamic && self.table(&["tool", "poetry", "dependencies"]).is_none() {
            self.parsed.mistakes.push(
                Diagnostic::new("the project's dependencies are computed when it is built")
                    .at(project.get("dynamic").map(|dynamic| dynamic.at.clone()).unwrap_or_default())
                    .why("`dynamic` names them, so that they are not in this file")
                    .advice("give the list they come from, such as its `requirements.txt`"),
            );
        }
        let own_name = project.get("name").and_then(Value::as_str).and_then(Name::parse);
        let Some(optional) = self.table(&["project", "optional-dependencies"]) else { return };
        let read: Vec<(Name, Vec<Dependency>)> = optional
            .entries()
            .filter_map(|(key, item)| {
                let what = Named("extra", &key.name);
                let dependencies = requirements_of(item, what, self.text, self.parsed);
                Some((Name::parse(&key.name)?, dependencies))
            })
            .collect();
        self.parsed.extras.extend(read.iter().map(|(name, _)| name.to_string()));
        // An extra may ask for others of its own project.
        let mut wanted: Vec<Name> = self.extras.iter().cloned().collect();
        let mut seen: HashSet<Name> = HashSet::new();
        while let Some(extra) = wanted.pop() {
            if !seen.insert(extra.clone()) {
                continue;
            }
            for (_, dependencies) in read.iter().filter(|(name, _)| *name == extra) {
                for dependency in dependencies {
                    if Some(&dependency.name) == own_name.as_ref() {
                        wanted.extend(dependency.extras.iter().cloned());
                    } else {
                        self.parsed.spec.dependencies.push(dependency.clone());
                    }
                }
            }
        }
        self.parsed.spec.dependencies.sort_by_key(|dependency| dependency.at.start);
        self.known_extras.extend(read.into_iter().map(|(name, _)| name));
    }

    /// `[tool.poetry.dependencies]`, which only adds to what `[project]` has where that has any.
    ///
    /// Rule: Poetry, "The pyproject.toml file", `dependencies`; poetry-core takes `[project]` for the
    /// main group and from Poetry's table sources, pre-releases and the like.
    fn poetry(&mut self) {
        let Some(table) = self.table(&["tool", "poetry", "dependencies"]) else {
            self.poetry_extras();
            return;
        };
        let in_project = self.parsed.spec.dependencies.len();
        let is_standard = self.table(&["project"]).is_some_and(|project| {
            let dynamic = project.get("dynamic").and_then(Value::as_array);
            let is_dynamic =
                dynamic.is_some_and(|names| names.iter().any(|name| name.as_str() == Some("dependencies")));
            (project.contains("dependencies") || project.contains("optional-dependencies")) && !is_dynamic
        });
        poetry::dependencies(table, self.text, self.parsed);
        if is_standard {
            let enriching = self.parsed.spec.dependencies.split_off(in_project);
            for poetry in enriching {
                for standard in self.parsed.spec.dependencies.iter_mut().filter(|one| one.name == poetry.name)
                {
                    standard.allow_prereleases |= poetry.allow_prereleases;
                    if standard.source == Source::default() {
                        standard.source = poetry.source.clone();
                    }
                }
            }
        }
        self.poetry_extras();
    }

    /// `[tool.poetry.extras]`: names of optional dependencies.
    fn poetry_extras(&mut self) {
        let Some(extras) = self.table(&["tool", "poetry", "extras"]) else { return };
        for (key, item) in extras.entries() {
            let Some(extra) = Name::parse(&key.name) else { continue };
            let what = Named("extra", &key.name);
            let mut owner = Owner { text: self.text, what, parsed: self.parsed };
            let written = owner.strings(item, "a list of names");
            if let Some((value, name)) = written.iter().find(|(_, name)| Name::parse(name).is_none()) {
                owner.parsed.mistakes.push(
                    Diagnostic::new(format!(
                        "extra `{extra}` lists `{}`, which is no name",
                        name.escape_debug()
                    ))
                    .at(value.at.clone())
                    .why("versions stand with the dependency itself")
                    .advice("write the name alone, and the dependency as an optional one"),
                );
            }
            let listed: Vec<_> = written.into_iter().filter_map(|(_, name)| Name::parse(name)).collect();
            if self.extras.contains(&extra) {
                let dependencies = self.parsed.spec.dependencies.iter_mut();
                dependencies.filter(|one| listed.contains(&one.name)).for_each(|one| one.optional = false);
            }
            let absent =
                listed.iter().find(|name| self.parsed.spec.dependencies.iter().all(|one| one.name != **name));
            if let Some(absent) = absent.filter(|_| self.extras.contains(&extra)) {
                self.parsed.mistakes.push(
                    Diagnostic::new(format!("the extra `{extra}` names `{absent}`, which is no dependency"))
                        .at(key.at.clone())
                        .why("an extra only chooses among the dependencies")
                        .advice(format!("add `{absent} = {{ version = \"*\", optional = true }}` to `[tool.poetry.dependencies]`")),
                );
            }
            self.parsed.extras.push(key.name.clone().into_owned());
        }
    }

    /// A group and those it includes, of either table.
    ///
    /// Rule: PEP 735, "Dependency Group Include"; Poetry, "Dependency groups".
    fn group(&mut self, group: &Name, at: Option<Range<usize>>, within: &mut Vec<Name>) {
        let standard = self.table(&["dependency-groups"]);
        let poetry = self.table(&["tool", "poetry", "group"]);
        if within.is_empty() {
            let tables = [standard, poetry].into_iter().flatten();
            let mut known: Vec<_> =
                tables.flat_map(Table::entries).map(|(key, _)| key.name.clone().into_owned()).collect();
            let uv = self.table(&["tool", "uv"]).filter(|uv| uv.contains("dev-dependencies"));
            let further = self.table(&["tool", "poetry", "dev-dependencies"]).or(uv);
            known.extend(further.map(|_| "dev".to_owned()));
            self.parsed.groups = known;
        }
        if within.contains(group) {
            let circle: Vec<_> = within.iter().map(Name::as_str).chain([group.as_str()]).collect();
            let mistake = Diagnostic::new(format!("dependency group `{group}` includes itself"))
                .why(circle.join(" → "))
                .advice("remove one of the includes");
            self.parsed.mistakes.push(Diagnostic { at, ..mistake });
            return;
        }
        if !self.included.insert(group.clone()) {
            return;
        }
        if within.len() == MAX_DEPTH {
            let mistake = Diagnostic::new(format!("dependency group `{group}` is included too deeply"))
                .why(format!("more than {MAX_DEPTH} groups include one another"))
                .advice("include it directly");
            self.parsed.mistakes.push(Diagnostic { at, ..mistake });
            return;
        }
        within.push(group.clone());
        let named = |table: &'a Table<'a>| {
            table
                .entries()
                .find(|(key, _)| Name::parse(&key.name).as_ref() == Some(group))
                .map(|(_, item)| item)
        };
        let mut found = false;
        let spellings = standard.into_iter().flat_map(Table::entries);
        let mut spellings = spellings.filter(|(key, _)| Name::parse(&key.name).as_ref() == Some(group));
        if let (Some(_), Some((second, _))) = (spellings.next(), spellings.next()) {
            self.parsed.mistakes.push(
                Diagnostic::new(format!("there are two dependency groups `{group}`"))
                    .at(second.at.clone())
                    .why("names that differ in case, `-`, `_` and `.` are one")
                    .advice("join the two, or rename one"),
            );
        }
        if let Some(item) = standard.and_then(named) {
            found = true;
            self.standard_group(group, item, within);
        }
        if let Some(item) = poetry.and_then(named) {
            found = true;
            let table = item.as_table();
            if let Some(table) = table.and_then(|table| table.get("dependencies")?.as_table()) {
                poetry::dependencies(table, self.text, self.parsed);
            }
            let included = table.and_then(|table| table.get("include-groups")?.as_array());
            for value in included.into_iter().flatten() {
                if let Some(name) = value.as_str().and_then(Name::parse) {
                    self.group(&name, Some(value.at.clone()), within);
                }
            }
        }
        if group.as_str() == "dev"
            && let Some(table) = self.table(&["tool", "poetry", "dev-dependencies"])
        {
            found = true;
            poetry::dependencies(table, self.text, self.parsed);
        }
        if group.as_str() == "dev"
            && let Some(item) = self.table(&["tool", "uv"]).and_then(|uv| uv.get("dev-dependencies"))
        {
            found = true;
            self.standard_group(group, item, within);
        }
        within.pop();
        if let (false, Some(at)) = (found, at) {
            let mistake = Diagnostic::new(format!("there is no dependency group `{group}`")).at(at);
            let known = self.parsed.groups.iter().map(String::as_str);
            self.parsed.mistakes.push(match nearest(group.as_str(), known.clone()) {
                Some(meant) => {
                    mistake.why(format!("did you mean `{meant}`?")).replace(format!("\"{meant}\""))
                }
                None => mistake
                    .why("it is included here")
                    .advice(format!("include one of {}", in_backticks(known))),
            });
        }
    }

    fn standard_group(&mut self, group: &Name, item: &'a Value<'a>, within: &mut Vec<Name>) {
        let what = Named("dependency group", group.as_str());
        let Some(array) = item.as_array() else {
            let mut owner = Owner { text: self.text, what, parsed: self.parsed };
            owner.strings(item, "a list of requirements");
            return;
        };
        for value in array {
            if let Some(table) = value.as_table() {
                let include = table.get("include-group").filter(|_| table.entries().len() == 1);
                match include.and_then(|name| Some((Name::parse(name.as_str()?)?, &name.at))) {
                    Some((name, at)) => self.group(&name, Some(at.clone()), within),
                    None => self.parsed.mistakes.push(
                        Diagnostic::new(format!("{what} has an unknown kind of entry"))
                            .at(value.at.clone())
                            .why("expected a requirement, or `{ include-group = \"name\" }` alone")
                            .advice("write one of the two"),
                    ),
                }
            } else if let Some(dependency) = requirement_of(value, what, self.text, self.parsed) {
                self.parsed.spec.dependencies.push(dependency);
            }
        }
    }

    /// The package indexes of `[[tool.poetry.source]]`.
    ///
    /// Rule: Poetry, "Package sources": `default` of old is in place of the usual index, `secondary`
    /// is as `supplemental`.
    fn sources(&mut self) {
        if let Some(tool) = self.table(&["tool"]).and_then(|tool| tool.get("uv")) {
            uv::settings(tool, self.text, self.parsed);
        }
        let poetry = self.table(&["tool", "poetry"]);
        let Some(sources) = poetry.and_then(|poetry| poetry.get("source")).and_then(Value::as_tables) else {
            return;
        };
        for source in sources {
            let Value { at, .. } = source;
            let Some(source) = source.as_table() else { continue };
            let text = |key: &str| source.get(key).and_then(Value::as_str);
            let Some(name) = text("name") else {
                self.parsed.mistakes.push(
                    Diagnostic::new("a package source has no name")
                        .at(at.clone())
                        .why("expected `name = \"…\"`")
                        .advice("give it the name that dependencies call it by"),
                );
                continue;
            };
            let Some(url) = text("url") else {
                self.usual_index(name, at);
                continue;
            };
            let url_at = source.get("url").map_or(at, |url| &url.at).clone();
            let is_default = source.get("default").and_then(Value::as_bool).unwrap_or_default();
            let priority = match text("priority").map(str::to_ascii_lowercase).as_deref() {
                Some("explicit") => Priority::Explicit,
                Some("supplemental" | "secondary") => Priority::Supplemental,
                Some("default" | "primary") => Priority::Default,
                Some(other) => {
                    let priority_at = source.get("priority").map_or(at, |priority| &priority.at).clone();
                    let mistake = Diagnostic::new(format!(
                        "package source `{}` has an unknown priority",
                        name.escape_debug()
                    ))
                    .at(priority_at);
                    let known = ["primary", "supplemental", "explicit"];
                    self.parsed.mistakes.push(match nearest(other, known) {
                        Some(meant) => {
                            mistake.why(format!("did you mean `{meant}`?")).replace(format!("\"{meant}\""))
                        }
                        None => mistake
                            .why("expected `primary`, `supplemental` or `explicit`")
                            .advice("write one of these"),
                    });
                    continue;
                }
                None if source.get("secondary").and_then(Value::as_bool) == Some(true) && !is_default => {
                    Priority::Supplemental
                }
                None => Priority::Default,
            };
            let index = index::read(Some(name), url, priority, url_at, self.parsed);
            self.parsed.spec.indexes.extend(index);
        }
    }
}

impl Project<'_> {
    /// An index without an address: Poetry knows that of the usual one by its name, and the installer has its own.
    fn usual_index(&mut self, name: &str, at: &Range<usize>) {
        if name.eq_ignore_ascii_case("pypi") {
            for dependency in &mut self.parsed.spec.dependencies {
                if matches!(&dependency.source, Source::Registry { index: Some(index) } if index == name) {
                    dependency.source = Source::default();
                }
            }
            return;
        }
        self.parsed.mistakes.push(
            Diagnostic::new(format!("package source `{}` has no address", name.escape_debug()))
                .at(at.clone())
                .why("only that of `PyPI` is known by its name")
                .advice("add `url = \"…\"`"),
        );
    }
}

fn interpreter(value: &Value<'_>, what: Named<'_>, text: &str, parsed: &mut Parsed) {
    if let Some(version) = value.as_str().filter(|text| text.parse::<pep440_rs::Version>().is_ok()) {
        parsed.mistakes.push(
            Diagnostic::new("`requires-python` has no operator")
                .at(value.at.clone())
                .why("PEP 440 has no versions alone")
                .advice(format!("write `=={version}.*` for any {version}, or `>={version}`")),
        );
        return;
    }
    let mut owner = Owner { text, what, parsed };
    if let Some(constraint) = owner.python(value) {
        parsed.spec.python.push((constraint, value.at.clone()));
    }
}

/// The requirements of a list.
fn requirements_of(item: &Value<'_>, what: Named<'_>, text: &str, parsed: &mut Parsed) -> Vec<Dependency> {
    let Some(array) = item.as_array() else {
        let mut owner = Owner { text, what, parsed };
        owner.strings(item, "a list of requirements");
        return Vec::new();
    };
    array.iter().filter_map(|value| requirement_of(value, what, text, parsed)).collect()
}

fn requirement_of(value: &Value<'_>, what: Named<'_>, text: &str, parsed: &mut Parsed) -> Option<Dependency> {
    let at = value.at.clone();
    if value.as_str().is_none() {
        let mistake = Diagnostic::new(format!("{what} has a value of the wrong type"))
            .at(at)
            .why(format!("expected a requirement in quotes, found {}", value.kind()))
            .advice("write a requirement such as `\"numpy>=2.2,<3\"`");
        return parsed.refuse(mistake);
    }
    match quoted::requirement(text, at) {
        Ok(dependency) => Some(dependency),
        Err(mistake) => parsed.refuse(mistake),
    }
}
