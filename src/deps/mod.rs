//! Dependency lists to a [`Spec`]: knows the languages that lists are written in and byte positions,
//! nothing of images.
//!
//! Five forms are read, recognised by their content: Poetry's lines (`numpy = "^2.2"`), the quoted,
//! comma-separated PEP 508 requirements of ipybox 0.5 (`"numpy>=2.2,<3",`), pip's requirements
//! files, `pyproject.toml`, and scripts with inline metadata (PEP 723).

mod constraint;
mod lists;
mod marker;
mod name;
pub mod pep508;
mod range;
mod source;
pub(crate) mod toml;
pub(crate) mod value;

use std::collections::{HashMap, HashSet};
use std::io;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};

pub use constraint::{Constraint, ConstraintError};
pub use lists::Form;
pub use marker::{Marker, MarkerError, Operand, VARIABLES};
pub use name::Name;
pub use source::{
    Index, IndexError, Priority, Source, Url, is_distribution, is_reference, percent_decoded, percent_encoded,
};

use self::value::Table;
use crate::diagnostic::{Diagnostic, Document, Documents};

/// The largest dependency list that is read, in bytes. 10,000 Poetry lines are about 200 kB.
pub const MAX_BYTES: u64 = 1_000_000;

/// Mistakes after which a text is given up: it is not what it was taken for.
const MAX_MISTAKES: usize = 1000;

/// Files that lists may include, all together.
const MAX_FILES: usize = 100;

/// What dependency lists ask for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Spec {
    /// The interpreters the lists admit, each with its place; all must hold. Poetry's
    /// `python = "…"`, or `requires-python`.
    pub python: Vec<(Constraint, Range<usize>)>,
    /// In the order written. Alternatives of one distribution share its name.
    pub dependencies: Vec<Dependency>,
    /// Versions that must not be left if a distribution is installed: pip's constraints files.
    pub bounds: Vec<Dependency>,
    /// The package indexes the lists name, in the order written.
    pub indexes: Vec<Index>,
}

/// One entry of a dependency list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dependency {
    /// The distribution.
    pub name: Name,
    /// Its optional features that are asked for, in the order written.
    pub extras: Vec<Name>,
    /// The versions that will do.
    pub constraint: Constraint,
    /// Where it is needed; everywhere if `None`.
    pub marker: Option<Marker>,
    /// Where it comes from.
    pub source: Source,
    /// Poetry's `optional`: not installed unless something asks for it.
    pub optional: bool,
    /// Poetry's `allow-prereleases`, pip's `--pre`.
    pub allow_prereleases: bool,
    /// The files that will do, as pip writes hashes: `sha256:` and 64 digits. Any if empty.
    pub hashes: Vec<String>,
    /// Bytes of the list that hold the entry's name.
    pub at: Range<usize>,
}

impl Dependency {
    /// Any version of a distribution, from the package index.
    fn any(name: Name, at: Range<usize>) -> Self {
        Self {
            name,
            extras: Vec::new(),
            constraint: Constraint::any(),
            marker: None,
            source: Source::default(),
            optional: false,
            allow_prereleases: false,
            hashes: Vec::new(),
            at,
        }
    }
}

/// What is asked for beside the dependencies that every list has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selection {
    /// Dependency groups of a `pyproject.toml`.
    pub groups: Vec<String>,
    /// Optional dependencies of a `pyproject.toml`.
    pub extras: Vec<String>,
}

/// What lists may name beside themselves.
#[derive(Clone, Copy)]
pub struct Surroundings<'a> {
    /// Reads a file that a list includes.
    pub read: &'a dyn Fn(&Path) -> io::Result<Document>,
    /// What an environment variable holds.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
}

impl Surroundings<'_> {
    /// No files and no variables.
    #[must_use]
    pub fn none() -> Self {
        Self { read: &|_| Err(io::ErrorKind::NotFound.into()), variable: &|_| None }
    }
}

/// What one text says, with places in that text, and what is wrong with it.
#[derive(Default)]
struct Parsed {
    spec: Spec,
    includes: Vec<Include>,
    /// Groups and extras that the text knows.
    groups: Vec<String>,
    extras: Vec<String>,
    /// Whether pre-releases will do for every dependency of every list: pip's `--pre`.
    all_prereleases: bool,
    mistakes: Vec<Diagnostic>,
    /// What has been read, by its text: lists say the same again and again.
    constraints: HashMap<String, Constraint>,
}

/// A requirements file that another one names.
struct Include {
    /// As written.
    path: String,
    /// Whether it only bounds versions.
    bounds: bool,
    at: Range<usize>,
}

impl Spec {
    /// Reads a dependency list that names nothing outside itself. An empty one is fine.
    ///
    /// # Errors
    ///
    /// Every mistake of the text, in the order of their places; of very many, the first.
    ///
    /// ```
    /// use ipybox::deps::Spec;
    ///
    /// let spec = Spec::parse("numpy = \"^2.2\"").unwrap();
    /// assert_eq!(spec.dependencies[0].constraint.to_string(), ">=2.2,<3.0");
    /// ```
    pub fn parse(text: &str) -> Result<Self, Vec<Diagnostic>> {
        Self::read(&mut Document::new("", text).into(), &Selection::default(), Surroundings::none())
    }

    /// Reads dependency lists and what they include, which is added to `documents`. Places are in
    /// bytes of all `documents` end to end.
    ///
    /// # Errors
    ///
    /// Every mistake of every text, in the order of their places; of very many, the first.
    pub fn read(
        documents: &mut Documents,
        selection: &Selection,
        surroundings: Surroundings<'_>,
    ) -> Result<Self, Vec<Diagnostic>> {
        Self::read_as(None, documents, selection, surroundings)
    }

    fn read_as(
        form: Option<Form>,
        documents: &mut Documents,
        selection: &Selection,
        surroundings: Surroundings<'_>,
    ) -> Result<Self, Vec<Diagnostic>> {
        let mut reader = Reader {
            form,
            spec: Self::default(),
            mistakes: Vec::new(),
            groups: Vec::new(),
            extras: Vec::new(),
            all_prereleases: false,
            read: HashSet::new(),
        };
        let lists: Vec<_> = documents.starts().collect();
        for start in lists {
            reader.read(documents, start, &mut Vec::new(), selection, surroundings);
        }
        reader.check(selection);
        if reader.all_prereleases {
            reader.spec.dependencies.iter_mut().for_each(|dependency| dependency.allow_prereleases = true);
        }
        if reader.mistakes.is_empty() {
            return Ok(reader.spec);
        }
        reader.mistakes.sort_by_key(|mistake| mistake.at.as_ref().map(|at| at.start));
        Err(reader.mistakes)
    }
}

/// What has been read of several lists.
struct Reader {
    /// Of the user's lists, where it is not told by their content.
    form: Option<Form>,
    spec: Spec,
    mistakes: Vec<Diagnostic>,
    groups: Vec<String>,
    extras: Vec<String>,
    all_prereleases: bool,
    /// Included files, and whether as bounds.
    read: HashSet<(PathBuf, bool)>,
}

impl Reader {
    /// Reads the document that begins at `start`, and what it includes. `within` are the files that
    /// include it, each with whether it only bounds versions; there are none for a list of the user.
    fn read(
        &mut self,
        documents: &mut Documents,
        start: usize,
        within: &mut Vec<(PathBuf, bool)>,
        selection: &Selection,
        surroundings: Surroundings<'_>,
    ) {
        let document = documents.find(&(start..start)).expect("the document was added before").document;
        let folder = document.folder().to_owned();
        let included = within.last().map(|(_, bounds)| *bounds);
        let own = clean(&document.path);
        if included.is_none()
            && self.form.is_none()
            && let Some(mut mistake) = lists::foreign::refusal(&document.text)
        {
            mistake.shift(start);
            self.mistakes.push(mistake);
            return;
        }
        let form = included.map_or(self.form, |_| Some(Form::Requirements));
        let plain = match form {
            // No list of another form is made of such lines.
            None | Some(Form::Poetry) => Table::plain(&document.text),
            Some(_) => None,
        };
        let mut parsed = Parsed::default();
        if let Some(table) = plain {
            lists::poetry::dependencies(&table, &document.text, &mut parsed);
        } else {
            let form = form.unwrap_or_else(|| Form::of(&document.text));
            form.parse(&document.text, &folder, selection, surroundings, &mut parsed);
        }
        parsed.shift(start);
        if included == Some(true) {
            parsed.take_as_bounds();
        }
        let Parsed { spec, includes, groups, extras, all_prereleases, mistakes, .. } = parsed;
        self.all_prereleases |= all_prereleases;
        self.spec.python.extend(spec.python);
        append(&mut self.spec.dependencies, spec.dependencies);
        self.spec.bounds.extend(spec.bounds);
        self.spec.indexes.extend(spec.indexes);
        self.groups.extend(groups);
        self.extras.extend(extras);
        self.mistakes.extend(mistakes);
        for include in includes {
            let path = clean(&folder.join(&include.path));
            let bounds = include.bounds || included == Some(true);
            let refused = |why: String| {
                Diagnostic::new(format!("cannot read the included file `{}`", path.display()))
                    .at(include.at.clone())
                    .why(why)
                    .advice("correct the path; it is relative to the file that includes it")
            };
            if path == own || within.iter().any(|(file, _)| *file == path) {
                let from = within.iter().map(|(file, _)| file).skip_while(|file| **file != path);
                let circle: Vec<_> = from.chain([&path]).map(|file| file.display().to_string()).collect();
                self.mistakes.push(
                    Diagnostic::new(format!("`{}` includes itself", path.display()))
                        .at(include.at.clone())
                        .why(if circle.len() > 1 {
                            circle.join(" → ")
                        } else {
                            format!("{} → {}", own.display(), path.display())
                        })
                        .advice("remove one of the includes"),
                );
                continue;
            }
            if !self.read.insert((path.clone(), bounds)) {
                continue;
            }
            if self.read.len() > MAX_FILES {
                self.mistakes.push(refused(format!("more than {MAX_FILES} files are included")));
                return;
            }
            match (surroundings.read)(&path) {
                Ok(document) => {
                    let start = documents.add(document);
                    within.push((path, bounds));
                    self.read(documents, start, within, selection, surroundings);
                    within.pop();
                }
                Err(error) => {
                    let missing = error.kind() == io::ErrorKind::NotFound;
                    let why = if missing { "there is no such file".to_owned() } else { error.to_string() };
                    self.mistakes.push(refused(why));
                }
            }
        }
    }

    /// Looks for what was asked for in vain.
    fn check(&mut self, selection: &Selection) {
        for (kind, asked, known) in
            [("group", &selection.groups, &self.groups), ("extra", &selection.extras, &self.extras)]
        {
            for name in asked {
                let same =
                    |known: &String| Name::parse(known).is_some_and(|known| Name::parse(name) == Some(known));
                if known.iter().any(same) {
                    continue;
                }
                let what = Diagnostic::new(format!("no list has the {kind} `{}`", name.escape_debug()));
                self.mistakes.push(match nearest(name, known.iter().map(String::as_str)) {
                    Some(meant) => what
                        .why(format!("there is {}", in_backticks(known.iter().map(String::as_str))))
                        .advice(format!("ask for `--{kind} {meant}`")),
                    None if known.is_empty() => what
                        .why(format!("only a `pyproject.toml` has {kind}s, and none was given that does"))
                        .advice(format!("leave out `--{kind}`")),
                    None => what
                        .advice(format!("choose one of {}", in_backticks(known.iter().map(String::as_str)))),
                });
            }
        }
    }
}

impl Parsed {
    /// Moves all places to where the text begins among all documents.
    fn shift(&mut self, start: usize) {
        if start == 0 {
            return;
        }
        let spec = &mut self.spec;
        let dependencies = spec.dependencies.iter_mut().chain(&mut spec.bounds).map(|one| &mut one.at);
        let python = spec.python.iter_mut().map(|(_, at)| at);
        let indexes = spec.indexes.iter_mut().map(|index| &mut index.at);
        let includes = self.includes.iter_mut().map(|include| &mut include.at);
        for at in dependencies.chain(python).chain(indexes).chain(includes) {
            *at = at.start + start..at.end + start;
        }
        self.mistakes.iter_mut().for_each(|mistake| mistake.shift(start));
    }

    /// Makes all dependencies mere bounds.
    ///
    /// Rule: pip, "Constraints Files": they name versions, and nothing else.
    fn take_as_bounds(&mut self) {
        for dependency in self.spec.dependencies.drain(..) {
            let plain = dependency.extras.is_empty() && dependency.source == Source::default();
            if plain {
                self.spec.bounds.push(dependency);
            } else {
                self.mistakes.push(
                    Diagnostic::new(format!(
                        "constraint `{}` says more than which versions will do",
                        dependency.name
                    ))
                    .at(dependency.at)
                    .why("a constraints file names no extras, addresses or paths")
                    .advice("move the line to the requirements"),
                );
            }
        }
    }

    /// Whether so much is wrong that the text is not what it was taken for.
    fn is_hopeless(&self) -> bool {
        self.mistakes.len() >= MAX_MISTAKES
    }

    /// Takes a requirement, which cannot be the interpreter.
    fn take(&mut self, dependency: Dependency) {
        if dependency.name.as_str() == "python" {
            self.mistakes.push(
                Diagnostic::new("the interpreter is no distribution")
                    .at(dependency.at)
                    .why("no package index has `python`")
                    .advice("choose the version with `--python`, or write the list as Poetry's lines"),
            );
        } else {
            self.spec.dependencies.push(dependency);
        }
    }

    /// Reads Poetry's constraint language.
    fn constraint(&mut self, text: &str) -> Result<Constraint, ConstraintError> {
        if let Some(known) = self.constraints.get(text) {
            return Ok(known.clone());
        }
        let constraint = Constraint::parse(text)?;
        self.constraints.insert(text.to_owned(), constraint.clone());
        Ok(constraint)
    }

    fn refuse<T>(&mut self, mistake: Diagnostic) -> Option<T> {
        self.mistakes.push(mistake);
        None
    }
}

/// Appends a list, without a copy where it is the first.
fn append<T>(list: &mut Vec<T>, more: Vec<T>) {
    if list.is_empty() {
        *list = more;
    } else {
        list.extend(more);
    }
}

/// A path without `.` and, where a name stands before it, `..`.
fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir if matches!(clean.components().next_back(), Some(Component::Normal(_))) => {
                clean.pop();
            }
            component => clean.push(component),
        }
    }
    clean
}

fn report_duplicates(names: &[(Name, Range<usize>)], text: &str, mistakes: &mut Vec<Diagnostic>) {
    let mut first = HashMap::with_capacity(names.len());
    let mut line_ends = None;
    for (name, at) in names {
        if mistakes.len() >= MAX_MISTAKES {
            return;
        }
        let earlier = first.entry(name).or_insert(at);
        if *earlier != at {
            let line_ends: &Vec<_> =
                line_ends.get_or_insert_with(|| text.match_indices('\n').map(|(end, _)| end).collect());
            let line = line_ends.partition_point(|&end| end < earlier.start) + 1;
            mistakes.push(
                Diagnostic::new(format!("dependency `{name}` is listed twice"))
                    .at(at.clone())
                    .why(format!("line {line} names the same distribution"))
                    .advice("keep one entry"),
            );
        }
    }
}

/// The candidate that a slip of the finger may have turned into `word`.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // The distance of long words costs the product of their lengths, and a slip is shorter.
    const LONGEST: usize = 100;
    candidates
        .into_iter()
        .filter(|candidate| word.len().max(candidate.len()) <= LONGEST)
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|&(distance, candidate)| distance * 3 <= candidate.len().max(3))
        .min()
        .map(|(_, candidate)| candidate)
}

/// Words in backticks, with commas between them.
pub(crate) fn in_backticks<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let words: Vec<_> = words.into_iter().map(|word| format!("`{word}`")).collect();
    words.join(", ")
}
