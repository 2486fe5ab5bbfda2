//! Services into a Compose file that somebody wrote: lines are put between theirs, and nothing else of it changes.
//!
//! That is not trusted, but proved: both texts are read, and the new one must be the old one with exactly what was meant.

use std::ops::Range;

use super::file::Composition;
use super::lines::Lines;
use super::read::{Kind, Tree, read};
use super::yaml::{Node, entry, scalar};
use super::{CompositionError, yaml};

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merged {
    /// The file's new text.
    pub text: String,
    /// Whether the API service got, or has, the addresses; else it is not in the file.
    pub has_api: bool,
}

/// The networks that a service of a file names, and the file has; none where that cannot be told.
#[must_use]
pub fn networks_of(text: &str, service: &str) -> Vec<String> {
    let Ok(Some(root)) = read(text) else { return Vec::new() };
    let known = |name: &str| root.get("networks").is_some_and(|networks| networks.get(name).is_some());
    let named = root.get("services").and_then(|services| services.get(service)?.get("networks"));
    let names = named.iter().flat_map(|named| {
        named.items().iter().chain(named.entries().iter().map(|(key, _)| key)).filter_map(Tree::text)
    });
    names.filter(|name| known(name)).map(str::to_owned).collect()
}

impl Composition {
    /// Puts it into a file's text. `api` is the service that is told where executors are; `replace` lets services of the same
    /// names be written anew.
    ///
    /// # Errors
    ///
    /// [`CompositionError`], with the place in the text.
    pub fn merge(&self, text: &str, api: &str, replace: bool) -> Result<Merged, CompositionError> {
        let lines = Lines::of(text)?;
        let root = read(text)?;
        let is_empty = root.as_ref().is_none_or(|root| root.is_null() && root.text() == Some(""));
        let Some(root) = root.filter(|_| !is_empty) else {
            let gap = if text.is_empty() || text.ends_with('\n') { "" } else { lines.ending };
            let written = self.document().replace('\n', lines.ending);
            let text = format!("{text}{gap}{written}");
            return prove(&text, &one(&self.document())?).map(|()| Merged { text, has_api: false });
        };
        plain(&root, "")?;
        let mut edit = Edit { lines: &lines, edits: Vec::new(), expected: root.clone() };
        let has_api = edit.tell(&root, api, &self.urls, replace)?;
        edit.services(&root, &self.services, replace)?;
        for (key, names) in [("volumes", &self.volumes), ("networks", &self.networks)] {
            let named: Vec<_> = names.iter().map(|name| (name.clone(), Node::Null)).collect();
            edit.add(&root, key, &named)?;
        }
        let Edit { mut edits, expected, .. } = edit;
        // Several may begin at one place; they keep their order.
        edits.sort_by_key(|(at, _)| at.start);
        let mut written = String::with_capacity(text.len() + 1024);
        let mut done = 0;
        for (at, new) in edits {
            if at.start < done {
                return Err(CompositionError::Unproven);
            }
            written += &text[done..at.start];
            written += &new;
            done = at.end;
        }
        written += &text[done..];
        prove(&written, &expected)?;
        Ok(Merged { text: written, has_api })
    }
}

/// What a text of this program reads as.
fn one(text: &str) -> Result<Tree, CompositionError> {
    read(text).ok().flatten().ok_or(CompositionError::Unproven)
}

/// Holds what was written against what was meant.
fn prove(text: &str, expected: &Tree) -> Result<(), CompositionError> {
    if one(text)?.is_same(expected) { Ok(()) } else { Err(CompositionError::Unproven) }
}

/// Refuses what cannot be added to without a guess.
fn plain(tree: &Tree, path: &str) -> Result<(), CompositionError> {
    let path = || if path.is_empty() { "the document".to_owned() } else { path.to_owned() };
    let at = tree.at.start..tree.at.start;
    match &tree.kind {
        _ if tree.is_marked() => Err(CompositionError::Shared { at, path: path() }),
        Kind::Map(_, true) | Kind::List(_, true) => Err(CompositionError::Flow { at, path: path() }),
        Kind::Map(..) => Ok(()),
        Kind::List(..) | Kind::Scalar(..) | Kind::Alias(_) => {
            Err(CompositionError::Kind { at, path: path() })
        }
    }
}

/// What is about to change in a text.
struct Edit<'a> {
    lines: &'a Lines<'a>,
    /// Bytes that are replaced, and by what.
    edits: Vec<(Range<usize>, String)>,
    /// What the new text must read as.
    expected: Tree,
}

impl Edit<'_> {
    /// Puts whole lines behind a line.
    fn insert(&mut self, after: usize, new: &[String]) {
        let (end, ending) = (self.lines.end(after), self.lines.ending_of(after));
        let new = new.iter().flat_map(|line| [ending, line]).collect();
        self.edits.push((end..end, new));
    }

    /// The line in which a map's entry is followed by something that does not belong to it.
    fn next(&self, map: &Tree, position: usize, after_map: usize) -> usize {
        let next = map.entries().get(position + 1);
        next.map_or(after_map, |(key, _)| self.lines.number(key.at.start))
    }

    /// The part of what is expected that some keys lead to.
    fn expected(&mut self, path: &[&str]) -> Result<&mut Tree, CompositionError> {
        let mut tree = &mut self.expected;
        for key in path {
            let position = tree.position(key).ok_or(CompositionError::Unproven)?;
            let Kind::Map(entries, _) = &mut tree.kind else { return Err(CompositionError::Unproven) };
            tree = &mut entries[position].1;
        }
        Ok(tree)
    }

    /// Adds an entry to what is expected of a map, or has it replaced there.
    fn expect(&mut self, path: &[&str], key: &str, value: &Node) -> Result<(), CompositionError> {
        let read = one(&Node::Map(vec![(key.to_owned(), value.clone())]).document())?;
        let Kind::Map(mut ours, _) = read.kind else { return Err(CompositionError::Unproven) };
        let ours = ours.pop().ok_or(CompositionError::Unproven)?;
        let tree = self.expected(path)?;
        if tree.is_null() {
            tree.kind = Kind::Map(Vec::new(), false);
        }
        let position = tree.position(key);
        let Kind::Map(entries, _) = &mut tree.kind else { return Err(CompositionError::Unproven) };
        match position {
            // The key stays as it is written.
            Some(position) => entries[position].1 = ours.1,
            None => entries.push(ours),
        }
        Ok(())
    }

    /// Adds entries to the map at a key of the document, which is made where it is missing; those that are there stay.
    fn add(&mut self, root: &Tree, key: &str, new: &[(String, Node)]) -> Result<(), CompositionError> {
        let map = root.get(key);
        let has = |name: &str| map.is_some_and(|map| map.get(name).is_some());
        let new: Vec<_> = new.iter().filter(|(name, _)| !has(name)).collect();
        if new.is_empty() {
            return Ok(());
        }
        if let Some(map) = map.filter(|map| !map.is_null() || map.is_marked()) {
            plain(map, key)?;
        } else if map.is_none() {
            self.expect(&[], key, &Node::Null)?;
        }
        for (name, value) in &new {
            self.expect(&[key], name, value)?;
        }
        let lines = self.lines;
        let count = lines.starts.len();
        let root_column = lines.column(root)?;
        let Some(position) = root.position(key) else {
            let siblings = root.get("services").map(|services| lines.column(services)).transpose()?;
            let step = siblings.and_then(|column| column.checked_sub(root_column)).filter(|step| *step > 0);
            let step = step.unwrap_or(2);
            let last_key = root.entries().last().map_or(0, |(key, _)| lines.number(key.at.start));
            let mut text = vec![String::new(), format!("{}{key}:", " ".repeat(root_column))];
            text.extend(new.iter().flat_map(|(name, value)| entry(name, value, root_column + step, step)));
            self.insert(lines.last(last_key, count, 0), &text);
            return Ok(());
        };
        let (name, map) = &root.entries()[position];
        let key_line = lines.number(name.at.start);
        let next = self.next(root, position, count);
        let (step, last, apart) = if map.is_null() {
            (2, key_line, false)
        } else {
            let column = lines.column(map)?;
            if column <= root_column {
                return Err(CompositionError::Layout { at: map.at.start..map.at.start });
            }
            let last_key = map.entries().last().map_or(key_line, |(key, _)| lines.number(key.at.start));
            let apart = match map.entries() {
                [_] | [] => key == "services",
                _ => lines.is_apart(last_key),
            };
            (column - root_column, lines.last(last_key, next, column), apart)
        };
        let mut text = Vec::new();
        for (number, (name, value)) in new.iter().enumerate() {
            if apart || (key == "services" && number > 0) {
                text.push(String::new());
            }
            text.extend(entry(name, value, root_column + step, step));
        }
        self.insert(last, &text);
        Ok(())
    }

    /// Adds services, and replaces those that differ where that is wanted.
    fn services(
        &mut self,
        root: &Tree,
        services: &[(String, Node)],
        replace: bool,
    ) -> Result<(), CompositionError> {
        let lines = self.lines;
        if let Some(map) = root.get("services") {
            for (key, ours) in services {
                let container = container(&one(&ours.document())?).map(str::to_owned);
                let taken = map.entries().iter().find(|(name, theirs)| {
                    name.text() != Some(key)
                        && self::container(theirs).is_some_and(|name| Some(name) == container.as_deref())
                });
                if let (Some((name, _)), Some(container)) = (taken, container) {
                    return Err(CompositionError::Taken { at: name.at.start..name.at.start, container });
                }
                let Some(position) = map.position(key) else { continue };
                let (name, theirs) = &map.entries()[position];
                let mut differences = Vec::new();
                differ(theirs, &one(&ours.document())?, "", &mut differences);
                if differences.is_empty() {
                    continue;
                }
                if !replace {
                    let (at, what) = (name.at.start..name.at.start, format!("service `{key}`"));
                    return Err(CompositionError::Differs { at, what, differences });
                }
                plain(map, "services")?;
                if name.is_marked() || theirs.shares() {
                    let at = theirs.at.start..theirs.at.start;
                    return Err(CompositionError::Shared { at, path: format!("services.{key}") });
                }
                let column = lines.column(map)?;
                let position_of_map = root.position("services").unwrap_or_default();
                let after = self.next(root, position_of_map, lines.starts.len());
                let first = lines.number(name.at.start);
                let last = lines.last(first, self.next(map, position, after), column + 1);
                let step = column.max(1);
                let new = entry(key, ours, column, step).join(lines.ending_of(first));
                self.edits.push((lines.starts[first]..lines.end(last), new));
                self.expect(&["services"], key, ours)?;
            }
        }
        self.add(root, "services", services)
    }

    /// Tells the API service where executors are; `false` where it is not there.
    fn tell(
        &mut self,
        root: &Tree,
        api: &str,
        urls: &[(String, String)],
        replace: bool,
    ) -> Result<bool, CompositionError> {
        let Some(services) = root.get("services") else { return Ok(false) };
        let Some(position) = services.position(api) else { return Ok(false) };
        let (_, service) = &services.entries()[position];
        let path = format!("services.{api}.environment");
        let environment = service.get("environment");
        let mut missing = Vec::new();
        for (name, url) in urls {
            let Some((found, theirs)) = environment.and_then(|environment| setting(environment, name)) else {
                missing.push((name.as_str(), url.as_str()));
                continue;
            };
            if theirs == Some(url.as_str()) {
                continue;
            }
            let differences = vec![format!("it is `{}`, and would be `{url}`", theirs.unwrap_or_default())];
            if !replace {
                let (at, what) = (found.at.start..found.at.start, format!("`{path}.{name}`"));
                return Err(CompositionError::Differs { at, what, differences });
            }
            let is_list = matches!(environment.map(|tree| &tree.kind), Some(Kind::List(..)));
            let new = if is_list { format!("{name}={url}") } else { url.clone() };
            self.rewrite(api, found, &new)?;
        }
        if missing.is_empty() {
            return Ok(true);
        }
        plain(services, "services")?;
        plain(service, &format!("services.{api}"))?;
        let lines = self.lines;
        lines.column(root)?;
        let outer = lines.column(services)?;
        let column = lines.column(service)?;
        let step = column.saturating_sub(outer).max(1);
        let after_services =
            self.next(root, root.position("services").unwrap_or_default(), lines.starts.len());
        let after_service = self.next(services, position, after_services);
        let Some(place) = service.position("environment") else {
            // What is merged in may bring one, which this would hide.
            if let Some((key, _)) = service.entries().iter().find(|(key, _)| key.text() == Some("<<")) {
                return Err(CompositionError::Shared { at: key.at.start..key.at.start, path });
            }
            let map = missing.iter().map(|(name, url)| ((*name).to_owned(), Node::text(*url))).collect();
            let map = Node::Map(map);
            let last_key = service.entries().last().map_or(0, |(key, _)| lines.number(key.at.start));
            let last = lines.last(last_key, after_service, column);
            self.insert(last, &entry("environment", &map, column, step));
            return self.expect(&["services", api], "environment", &map).map(|()| true);
        };
        let (key, environment) = &service.entries()[place];
        let key_line = lines.number(key.at.start);
        let next = self.next(service, place, after_service);
        if let Kind::List(items, false) = &environment.kind
            && !environment.is_marked()
            && let Some(last_item) = items.last()
        {
            let line = lines.number(last_item.at.start);
            let indent = lines.indent(line);
            let dash = &lines.text[lines.starts[line] + indent..last_item.at.start];
            if !(dash.starts_with('-') && dash[1..].trim().is_empty()) {
                return Err(CompositionError::Layout { at: last_item.at.start..last_item.at.start });
            }
            // Where the dash is below the key, comments are of what follows.
            let last = lines.last(line, next, indent.max(column + 1));
            let settings: Vec<_> = missing.iter().map(|(name, url)| format!("{name}={url}")).collect();
            let new: Vec<_> = settings
                .iter()
                .map(|setting| format!("{}- {}", " ".repeat(indent), scalar(setting)))
                .collect();
            self.insert(last, &new);
            let ours = one(&Node::texts(settings).document())?;
            let expected = self.expected(&["services", api, "environment"])?;
            let Kind::List(items, _) = &mut expected.kind else { return Err(CompositionError::Unproven) };
            items.extend(ours.items().iter().cloned());
            return Ok(true);
        }
        let (indent, last) = if environment.is_null() && !environment.is_marked() {
            (column + step, key_line)
        } else {
            plain(environment, &path)?;
            let indent = lines.column(environment)?;
            let last_key =
                environment.entries().last().map_or(key_line, |(key, _)| lines.number(key.at.start));
            (indent, lines.last(last_key, next, indent))
        };
        let mut new = Vec::new();
        for (name, url) in missing {
            new.extend(entry(name, &Node::text(url), indent, step));
            self.expect(&["services", api, "environment"], name, &Node::text(url))?;
        }
        self.insert(last, &new);
        Ok(true)
    }

    /// Writes another scalar in place of one of the API service's environment.
    fn rewrite(&mut self, api: &str, found: &Tree, text: &str) -> Result<(), CompositionError> {
        let is_on_a_line = self.lines.number(found.at.start) == self.lines.number(found.at.end);
        if found.is_marked() || found.text().is_none_or(str::is_empty) || !is_on_a_line {
            return Err(CompositionError::Layout { at: found.at.start..found.at.start });
        }
        self.edits.push((found.at.clone(), scalar(text)));
        let ours = one(&yaml::Node::text(text).document())?;
        let environment = self.expected(&["services", api, "environment"])?;
        match &mut environment.kind {
            Kind::List(items, _) => {
                let item = items.iter_mut().find(|item| item.at == found.at);
                item.ok_or(CompositionError::Unproven)?.kind = ours.kind;
            }
            Kind::Map(entries, _) => {
                let value = entries.iter_mut().find(|(_, value)| value.at == found.at);
                value.ok_or(CompositionError::Unproven)?.1.kind = ours.kind;
            }
            _ => return Err(CompositionError::Unproven),
        }
        Ok(())
    }
}

/// The name that a service gives its container.
fn container(service: &Tree) -> Option<&str> {
    service.get("container_name").and_then(Tree::text)
}

/// A variable of an environment: what says it, and its value where it has one that is a text.
fn setting<'a>(environment: &'a Tree, name: &str) -> Option<(&'a Tree, Option<&'a str>)> {
    if let Some(value) = environment.get(name) {
        return Some((value, value.text()));
    }
    environment.items().iter().find_map(|item| {
        let (key, value) =
            item.text()?.split_once('=').map_or((item.text()?, None), |(key, value)| (key, Some(value)));
        (key == name).then_some((item, value))
    })
}

/// What a part of a file lacks of what is ours, or says otherwise; what it has beside that does not matter.
fn differ(theirs: &Tree, ours: &Tree, path: &str, found: &mut Vec<String>) {
    match (&theirs.kind, &ours.kind) {
        (Kind::Scalar(theirs, _), Kind::Scalar(ours, _)) if theirs == ours => {}
        (Kind::Scalar(theirs, _), Kind::Scalar(ours, _)) => {
            found.push(format!("`{path}` is `{}`, and would be `{ours}`", theirs.escape_debug()));
        }
        (Kind::List(theirs, _), Kind::List(ours, _)) if theirs.len() == ours.len() => {
            let pairs = theirs.iter().zip(ours).enumerate();
            pairs.for_each(|(number, (theirs, ours))| {
                differ(theirs, ours, &format!("{path}.{number}"), found);
            });
        }
        (_, Kind::Map(entries, _)) if matches!(theirs.kind, Kind::Map(..)) || path == "environment" => {
            for (key, ours) in entries {
                let name = key.text().unwrap_or_default();
                let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
                match (theirs.get(name), setting(theirs, name)) {
                    (Some(theirs), _) => differ(theirs, ours, &path, found),
                    (None, Some((_, value))) if value == ours.text() => {}
                    (None, Some((_, value))) => found.push(format!(
                        "`{path}` is `{}`, and would be `{}`",
                        value.unwrap_or_default().escape_debug(),
                        ours.text().unwrap_or_default()
                    )),
                    (None, None) => found.push(format!("`{path}` is missing")),
                }
            }
        }
        _ => found.push(format!("`{path}` is otherwise")),
    }
}
