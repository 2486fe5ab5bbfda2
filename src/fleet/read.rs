//! `ipybox.toml` to what it says of the fleet, and of each image by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::keys::{FLEET, IMAGE, Kind, MATRIX, MATRIX_KEY};
use super::reader::{Placed, Reader};
use super::tags::Template;
use crate::accounts::User;
use crate::base::Platform;
use crate::deps::Name;
use crate::deps::value::{Table, Value};
use crate::diagnostic::Diagnostic;
use crate::reference::{Reference, ReferenceError};
use crate::request::{FromSource, Libraries, PythonVersion, Request, Tools};
use crate::secret;
use crate::variant::{self, destination, executor_name, label_name, package, secret_id, variable_name};

/// What all images have in common.
#[derive(Debug, Default)]
pub(super) struct Common {
    pub(super) version: Option<String>,
    repository: Option<String>,
    tags: Vec<Template>,
    platforms: Vec<Platform>,
    labels: BTreeMap<String, String>,
    variants: Option<std::path::PathBuf>,
    templates: Option<std::path::PathBuf>,
}

/// An image as it is written.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) name: String,
    /// Where its name is.
    pub(super) at: Range<usize>,
    /// Without what comes from `from` and `matrix`.
    pub(super) request: Request,
    pub(super) from: Option<(String, Range<usize>)>,
    /// Where `base` is.
    pub(super) base_at: Option<Range<usize>>,
    pub(super) matrix: Matrix,
    /// Where `matrix` is.
    pub(super) matrix_at: Option<Range<usize>>,
    pub(super) platforms: Vec<Platform>,
    /// Where its own are.
    pub(super) platforms_at: Option<Range<usize>>,
    pub(super) secrets: BTreeSet<String>,
    pub(super) tags: Vec<Template>,
    pub(super) repository: Option<String>,
}

/// What makes several images of one.
#[derive(Debug, Default)]
pub(super) struct Matrix {
    pub(super) pythons: Vec<PythonVersion>,
    pub(super) bases: Vec<(String, Reference)>,
}

impl Reader<'_> {
    /// Reads the whole file.
    pub(super) fn file(&mut self, file: &Table<'_>) -> (Common, Vec<Draft>) {
        self.known(file, "the file", &[("fleet", Kind::Settings, ""), ("image", Kind::Settings, "")]);
        let common = match file.get("fleet") {
            Some(value) => self.table(value, "fleet").map(|table| self.common(table)).unwrap_or_default(),
            None => Common::default(),
        };
        let mut drafts = Vec::new();
        if let Some(images) = file.get("image").and_then(|value| self.table(value, "image")) {
            for (key, value) in images.entries() {
                let placed = (&*key.name, key.at.clone());
                self.checked("[image]", &placed, image_name);
                if let Some(table) = self.table(value, &key.name) {
                    drafts.push(self.image(placed, table, &common));
                }
            }
        }
        if drafts.is_empty() && self.mistakes.is_empty() {
            let what = Diagnostic::new("the fleet has no image").at(0..0).why("there is no `[image.NAME]`");
            self.refuse(what.advice("write such as `[image.minimal]`; `ipybox init` writes a first file"));
        }
        (common, drafts)
    }

    fn table<'v, 't>(&mut self, value: &'v Value<'t>, key: &str) -> Option<&'v Table<'t>> {
        let table = value.as_table();
        if table.is_none() {
            let key = key.escape_debug();
            let what = Diagnostic::new(format!("`{key}` has a value of the wrong kind")).at(value.at.clone());
            let why = format!("expected a table, found {}", value.kind());
            let header =
                if key.to_string() == "fleet" { "[fleet]".to_owned() } else { "[image.NAME]".to_owned() };
            self.refuse(what.why(why).advice(format!("write `{header}`, and its keys below it")));
        }
        table
    }

    fn common(&mut self, table: &Table<'_>) -> Common {
        self.known(table, "`[fleet]`", &FLEET);
        let variants = self.text(table, "variants").and_then(|placed| self.path("variants", &placed));
        let templates = self.text(table, "templates").and_then(|placed| self.path("templates", &placed));
        Common {
            version: self.text(table, "version").map(|(text, _)| text.to_owned()),
            repository: self.repository(table),
            tags: self.tags(table).unwrap_or_default(),
            platforms: self.all(table, "platforms", platform),
            labels: self.labels(table),
            variants,
            templates,
        }
    }

    fn image(&mut self, (name, at): Placed<'_>, table: &Table<'_>, common: &Common) -> Draft {
        let keys: Vec<_> = IMAGE.into_iter().chain([MATRIX_KEY]).collect();
        self.known(table, &format!("`{}`", name.escape_debug()), &keys);
        let from = self.text(table, "from").map(|(text, at)| (text.to_owned(), at));
        let request = self.request(table, common, from.is_some());
        let place = |key: &str| table.get(key).map(|value| value.at.clone());
        let secrets = self.all(table, "secrets", |id| secret_id(id).map(|()| id.to_owned()));
        let platforms = self.all(table, "platforms", platform);
        let draft = Draft {
            name: name.to_owned(),
            at,
            request,
            base_at: place("base"),
            matrix: self.matrix(table),
            matrix_at: place("matrix"),
            platforms: if table.contains("platforms") { platforms } else { common.platforms.clone() },
            platforms_at: place("platforms"),
            secrets: secrets.into_iter().collect(),
            tags: self.tags(table).unwrap_or_else(|| common.tags.clone()),
            repository: self
                .repository(table)
                .or_else(|| common.repository.as_ref().map(|repository| format!("{repository}/{name}"))),
            from,
        };
        self.beside(table, &draft);
        draft
    }

    /// Refuses what cannot stand beside something else.
    fn beside(&mut self, table: &Table<'_>, draft: &Draft) {
        let pairs = [
            ("base", "from", "its base is the image of `from`"),
            ("matrix", "from", "it is built for each image of `from` as it is"),
            ("lock", "matrix", "its images have locks of their own: `pylock.NAME-py3-12.toml` and the like"),
            ("python-archive", "base-python", "it has one interpreter"),
            ("uid", "root", "root has the ids 0:0"),
            ("gid", "root", "root has the ids 0:0"),
        ];
        for (key, other, why) in pairs {
            let other_counts = other != "root" || draft.request.user == User::Root;
            if let (Some(value), true, true) = (table.get(key), table.contains(other), other_counts) {
                let what = format!("`{}` has both `{key}` and `{other}`", draft.name.escape_debug());
                let what = Diagnostic::new(what).at(value.at.clone()).why(why);
                self.refuse(what.advice(format!("leave out `{key}` or `{other}`")));
            }
        }
        let both = [("python", !draft.matrix.pythons.is_empty()), ("base", !draft.matrix.bases.is_empty())];
        for (key, _) in both.into_iter().filter(|(_, is_in_matrix)| *is_in_matrix) {
            if let Some(value) = table.get(key) {
                let what = format!("`{}` has `{key}` twice", draft.name.escape_debug());
                let what =
                    Diagnostic::new(what).at(value.at.clone()).why(format!("`matrix.{key}` says it, too"));
                self.refuse(what.advice("keep one of them"));
            }
        }
    }

    fn request(&mut self, table: &Table<'_>, common: &Common, is_extended: bool) -> Request {
        let default = if is_extended { "extend-base" } else { "minimal" };
        let variant = self.text(table, "variant").map_or(default, |(text, _)| text);
        let path = |reader: &mut Self, key: &str| {
            reader.text(table, key).and_then(|placed| reader.path(key, &placed))
        };
        let lists = self.one_or_more(table, "dependencies").unwrap_or_default();
        let apt = self.all(table, "apt", package);
        let owned = |text: &str| Ok::<_, &str>(text.to_owned());
        let mut request = Request::new(variant, self.user(table));
        request.user_is_chosen = ["uid", "gid", "root"].iter().any(|key| table.contains(key));
        request.variants.clone_from(&common.variants);
        request.templates.clone_from(&common.templates);
        request.dependencies = self.paths("dependencies", &lists);
        request.selection.groups = self.all(table, "groups", owned);
        request.selection.extras = self.all(table, "extras", owned);
        request.lock.file = self.text(table, "lock").and_then(|placed| {
            self.checked("lock", &placed, crate::lock::file_name)?;
            self.path("lock", &placed)
        });
        request.base = self.text(table, "base").and_then(|placed| self.checked("base", &placed, base));
        request.python =
            self.text(table, "python").and_then(|placed| self.checked("python", &placed, str::parse));
        request.base_python = self.text(table, "base-python").map(|(text, _)| text.to_owned());
        request.python_archive = path(self, "python-archive");
        request.name =
            self.text(table, "name").and_then(|placed| self.checked("name", &placed, executor_name));
        request.libraries =
            if apt.iter().any(|name| name == "auto") { Libraries::Added } else { Libraries::Told };
        request.apt = apt.into_iter().filter(|name| name != "auto").collect();
        request.build_apt = self.all(table, "build-apt", package);
        request.from_source = self.source_builds(table);
        request.tools = self.text(table, "tools").and_then(|placed| {
            self.checked("tools", &placed, |text| match text {
                "agent" => Ok(Tools::Agent),
                _ => Err("there are only those of an `agent`"),
            })
        });
        request.env = self.variables(table, "env");
        request.args = self.variables(table, "args");
        request.labels = common.labels.clone();
        request.labels.extend(self.labels(table));
        request.copies = self.copies(table);
        request.bytecode = self.flag(table, "bytecode").unwrap_or(true);
        request
    }

    /// Fleets are built by whoever happens to: the image's user has no ids of theirs.
    fn user(&mut self, table: &Table<'_>) -> User {
        let (uid, gid) = (self.id(table, "uid", 1), self.id(table, "gid", 0));
        match self.flag(table, "root") {
            Some(true) => User::Root,
            _ => User::Unprivileged { uid: uid.unwrap_or(1000), gid: gid.unwrap_or(1000) },
        }
    }

    fn source_builds(&mut self, table: &Table<'_>) -> FromSource {
        let words = self.one_or_more(table, "from-source").unwrap_or_default();
        match words.as_slice() {
            [] | [("auto", _)] => FromSource::Auto,
            [("never", _)] => FromSource::Never,
            names => {
                let name = |text: &str| {
                    let is_word = ["auto", "never"].contains(&text);
                    let name = Name::parse(text).filter(|_| !is_word);
                    name.ok_or("expected `auto` or `never` alone, or names of packages")
                };
                let names = names.iter().filter_map(|placed| self.checked("from-source", placed, name));
                FromSource::Only(names.collect())
            }
        }
    }

    /// Variables that stay in an image, or in the history of one.
    fn variables(&mut self, table: &Table<'_>, key: &str) -> BTreeMap<String, String> {
        let mut variables = BTreeMap::new();
        for (name, value) in self.settings(table, key) {
            let taken = self.checked(key, &name, variable_name).is_some()
                & self.checked(key, &value, variant::value).is_some();
            if secret::is_telling(name.0) {
                let what =
                    Diagnostic::new(format!("the variable `{}` looks like a secret", name.0.escape_debug()));
                let what = what.at(name.1).why("whoever has the image, or this file, could read it");
                self.refuse(what.advice("give it to containers when they start, or to steps with `secrets`"));
            } else if taken {
                variables.insert(name.0.to_owned(), value.0.to_owned());
            }
        }
        variables
    }

    fn labels(&mut self, table: &Table<'_>) -> BTreeMap<String, String> {
        let mut labels = BTreeMap::new();
        for (name, value) in self.settings(table, "labels") {
            let taken = self.checked("labels", &name, label_name).is_some()
                & self.checked("labels", &value, variant::value).is_some();
            if taken {
                labels.insert(name.0.to_owned(), value.0.to_owned());
            }
        }
        labels
    }

    fn copies(&mut self, table: &Table<'_>) -> Vec<(std::path::PathBuf, String)> {
        let Some(value) = table.get("copy") else { return Vec::new() };
        let entries = value.as_array().or_else(|| value.as_tables());
        let tables: Option<Vec<_>> = entries.map(|all| all.iter().filter_map(Value::as_table).collect());
        let (Some(entries), Some(tables)) = (entries, tables) else {
            self.not_copies(value);
            return Vec::new();
        };
        if tables.len() < entries.len() {
            self.not_copies(value);
        }
        let mut copies = Vec::new();
        for (entry, table) in entries.iter().filter_map(|entry| Some((entry, entry.as_table()?))) {
            self.known(table, "`copy`", &[("from", Kind::Text, ""), ("to", Kind::Text, "")]);
            for key in ["from", "to"].into_iter().filter(|key| !table.contains(key)) {
                let what = Diagnostic::new(format!("`copy` has no `{key}`")).at(entry.at.clone());
                let why = "files are copied from somewhere to somewhere";
                self.refuse(what.why(why).advice("write `{ from = \"data\", to = \"/data/\" }`"));
            }
            let from = self.text(table, "from").and_then(|placed| self.path("from", &placed));
            let to = self.text(table, "to").and_then(|placed| {
                self.checked("to", &placed, |text| destination(text).map(|()| text.to_owned()))
            });
            copies.extend(from.zip(to));
        }
        copies
    }

    fn not_copies(&mut self, value: &Value<'_>) {
        let what = Diagnostic::new("`copy` has a value of the wrong kind").at(value.at.clone());
        let why = "expected a list of tables with `from` and `to`";
        self.refuse(what.why(why).advice("write `copy = [{ from = \"data\", to = \"/data/\" }]`"));
    }

    fn tags(&mut self, table: &Table<'_>) -> Option<Vec<Template>> {
        let mut tags = Vec::new();
        let texts = self.texts(table, "tags")?;
        if let Some(value) = table.get("tags").filter(|value| value.as_array().is_some_and(<[_]>::is_empty)) {
            let what =
                Diagnostic::new("`tags` has no tag").at(value.at.clone()).why("an image is known by them");
            self.refuse(what.advice("write such as `tags = [\"latest\"]`, or leave it out"));
        }
        for (text, at) in texts {
            match Template::parse(text, at) {
                Ok(template) => tags.push(template),
                Err(mistake) => self.refuse(mistake),
            }
        }
        Some(tags)
    }

    /// A repository without a tag.
    fn repository(&mut self, table: &Table<'_>) -> Option<String> {
        let placed = self.text(table, "repository")?;
        self.checked("repository", &placed, repository)
    }

    fn matrix(&mut self, table: &Table<'_>) -> Matrix {
        let Some(value) = table.get("matrix") else { return Matrix::default() };
        let Some(table) = value.as_table() else {
            let what = Diagnostic::new("`matrix` has a value of the wrong kind").at(value.at.clone());
            let what = what.why(format!("expected a table, found {}", value.kind()));
            self.refuse(what.advice("write `matrix = { python = [\"3.12\", \"3.13\"] }`"));
            return Matrix::default();
        };
        let before = self.mistakes.len();
        self.known(table, "`matrix`", &MATRIX);
        let mut pythons: Vec<PythonVersion> = Vec::new();
        for placed in self.texts(table, "python").unwrap_or_default() {
            let version = self.checked("python", &placed, str::parse);
            pythons.extend(version.filter(|version| !pythons.contains(version)));
        }
        let mut bases = Vec::new();
        for (name, value) in self.settings(table, "base") {
            let name = self.checked("base", &name, |text| match Template::parse(text, 0..0) {
                Ok(plain) if plain.placeholders().next().is_none() => Ok(text.to_owned()),
                _ => Err("it becomes part of tags: letters, digits, `_`, `.` and `-`"),
            });
            bases.extend(name.zip(self.checked("base", &value, base)));
        }
        if pythons.is_empty() && bases.is_empty() && self.mistakes.len() == before {
            let what = Diagnostic::new("`matrix` makes no image").at(value.at.clone());
            let what = what.why("it has neither a Python nor a base");
            self.refuse(what.advice("write `matrix = { python = [\"3.12\", \"3.13\"] }`, or leave it out"));
        }
        Matrix { pythons, bases }
    }
}

/// An image's name is its repository in an engine.
fn image_name(text: &str) -> Result<(), String> {
    let reference: Reference = text.parse().map_err(|error: ReferenceError| error.to_string())?;
    if reference.repository() != text {
        Err("tags are in `tags`, and a name has none".to_owned())
    } else if reference.registry().is_some() {
        Err("the registry is in `repository`, and a name has none".to_owned())
    } else if reference.looks_like_an_id() {
        Err("engines would take it for the id of an image".to_owned())
    } else {
        Ok(())
    }
}

fn repository(text: &str) -> Result<String, String> {
    let reference: Reference = text.parse().map_err(|error: ReferenceError| error.to_string())?;
    if reference.repository() != text {
        return Err("tags are in `tags`, and a repository has none".to_owned());
    }
    Ok(text.to_owned())
}

fn base(text: &str) -> Result<Reference, String> {
    if ["oci:", "oci-archive:", "docker-archive:"].iter().any(|kind| text.starts_with(kind)) {
        return Err("a fleet is built on images that an engine has, or pulls".to_owned());
    }
    text.parse().map_err(|error: ReferenceError| error.to_string())
}

fn platform(text: &str) -> Result<Platform, &'static str> {
    text.parse()
}
