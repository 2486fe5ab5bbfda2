//! `ipybox deps`: what dependency lists mean, and what can be mended in them.

use std::cmp::Reverse;
use std::fs;
use std::io::{self, Write};
use std::path::Path;

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use super::{Caller, Failure, FailureKind};
use crate::cli::{DepsArgs, DepsFormat, variable_of_list};
use crate::deps::{Dependency, Form, Index, Priority, Source, Spec, percent_encoded};
use crate::diagnostic::{Diagnostic, Document, Documents, Fix};
use crate::inputs::lists;
use crate::plan::Requirement;

/// Rounds of corrections: each may show mistakes that the one before hid.
const MAX_ROUNDS: usize = 20;

pub(super) fn run(args: &DepsArgs, caller: &Caller) -> Result<(), Failure> {
    if args.fix {
        return fix(args, caller);
    }
    let documents = lists::documents(&args.files)?;
    let selection = args.selection.selection();
    let read = lists::read(documents.clone(), &selection, &variable_of_list).map_err(Failure::from);
    let (documents, spec) = match read {
        Ok(read) => read,
        Err(failure) if args.check => {
            let mendable = Mended::of(&documents, args).left.is_ok();
            let kind = if mendable { FailureKind::ToDo } else { failure.kind };
            return Err(Failure { kind, ..failure });
        }
        Err(failure) => return Err(failure),
    };
    if args.check {
        return Ok(());
    }
    if args.format != DepsFormat::Json {
        if args.format == DepsFormat::Pep508 && !spec.bounds.is_empty() {
            let names: Vec<_> = spec.bounds.iter().map(|bound| format!("`{}`", bound.name)).collect();
            caller.report.note(&format!(
                "constraints are left out, of {}; `--format json` has them",
                names.join(", ")
            ));
        }
        let asked = |index: &&Index| index.priority != Priority::Explicit;
        if args.format == DepsFormat::Requirements && spec.indexes.iter().filter(asked).count() > 1 {
            caller.report.note("pip takes the newest version of all indexes, where this list's first index with a package counts");
        }
        for dependency in spec.dependencies.iter().filter(|one| one.optional) {
            caller.report.note(&format!("`{}` is optional, and left out", dependency.name));
        }
    }
    let wanted = spec.dependencies.iter().filter(|one| !one.optional);
    let written = match args.format {
        DepsFormat::Pep508 => {
            let text = lines(wanted.map(|one| requirement(one, &documents, " || ")));
            caller.report.result(|out| out.write_all(text.as_bytes()))
        }
        DepsFormat::Json => caller.report.result(|mut out| {
            serde_json::to_writer_pretty(&mut out, &List { spec: &spec, documents: &documents })?;
            writeln!(out)
        }),
        DepsFormat::Requirements => {
            let text = requirements_file(&spec, &documents)?;
            caller.report.result(|out| out.write_all(text.as_bytes()))
        }
    };
    written.map_err(|error| Failure::unwritable("stdout", &error))
}

fn lines(lines: impl Iterator<Item = String>) -> String {
    lines.fold(String::new(), |text, line| text + &line + "\n")
}

/// A dependency's PEP 508 form, with a separator between alternatives; paths are absolute.
fn requirement(dependency: &Dependency, documents: &Documents, separator: &str) -> String {
    let mut lowered = Requirement::lower(dependency);
    if let Source::Path { path, subdirectory, .. } = &lowered.source {
        let path = lists::folder(documents, dependency).join(path);
        let path = fs::canonicalize(&path).or_else(|_| std::path::absolute(&path)).unwrap_or(path);
        let url = format!("file://{}", percent_encoded(&path));
        lowered.source = Source::Url { url, subdirectory: subdirectory.clone(), sha256: None };
    }
    let alternatives: Vec<_> =
        (0..lowered.alternatives.len()).map(|index| lowered.alternative(index)).collect();
    alternatives.join(separator)
}

/// What pip reads. It has no alternatives, so that lists with any are refused.
fn requirements_file(spec: &Spec, documents: &Documents) -> Result<String, Failure> {
    let mut text = String::new();
    for index in &spec.indexes {
        let option = match index.priority {
            Priority::Default => "--index-url",
            Priority::Extra | Priority::Supplemental => "--extra-index-url",
            Priority::Explicit => continue,
        };
        text += &format!("{option} {}\n", index.url);
    }
    let bound = |bound: &Dependency| {
        Diagnostic::new(format!("pip has no way to say what bounds `{}`", bound.name))
            .at(bound.at.clone())
            .why("it reads constraints from a file of their own")
            .advice("use `--format json`, or give pip that file with `-c`")
    };
    let mut mistakes: Vec<_> = spec.bounds.iter().map(bound).collect();
    for dependency in spec.dependencies.iter().filter(|one| !one.optional) {
        let mistake = |why: &str, advice: &str| {
            Diagnostic::new(format!("pip has no way to say what `{}` asks for", dependency.name))
                .at(dependency.at.clone())
                .why(why)
                .advice(advice)
        };
        if Requirement::lower(dependency).alternatives.len() > 1 {
            mistakes.push(mistake(
                "its constraint is a union that PEP 440 cannot spell",
                "use `--format json`, or keep one of the alternatives",
            ));
        } else if let Source::Registry { index: Some(_) } = dependency.source {
            mistakes.push(mistake(
                "it comes from an index of its own",
                "use `--format json`, or leave out `source`",
            ));
        }
        text += &requirement(dependency, documents, " || ");
        text += &dependency.hashes.iter().fold(String::new(), |text, hash| text + " --hash=" + hash);
        text.push('\n');
    }
    if mistakes.is_empty() { Ok(text) } else { Err(Failure::in_documents(documents.clone(), mistakes)) }
}

/// The documented object of `--format json`, written entry by entry.
struct List<'a> {
    spec: &'a Spec,
    documents: &'a Documents,
}

impl Serialize for List<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Spec { python, dependencies, bounds, indexes } = self.spec;
        let python: Vec<_> = python.iter().map(|(constraint, _)| constraint.to_string()).collect();
        let mut object = serializer.serialize_struct("List", 4)?;
        object.serialize_field("python", &(!python.is_empty()).then(|| python.join(", ")))?;
        object.serialize_field("dependencies", &Entries { list: dependencies, documents: self.documents })?;
        object.serialize_field("constraints", &Entries { list: bounds, documents: self.documents })?;
        let index = |index: &Index| {
            let Index { name, url, priority, .. } = index.clone();
            IndexEntry { name, url, priority }
        };
        object.serialize_field("indexes", &indexes.iter().map(index).collect::<Vec<_>>())?;
        object.end()
    }
}

struct Entries<'a> {
    list: &'a [Dependency],
    documents: &'a Documents,
}

impl Serialize for Entries<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.list.iter().map(|one| Entry::of(one, self.documents)))
    }
}

#[derive(Serialize)]
struct Entry {
    name: String,
    extras: Vec<String>,
    /// One PEP 440 specifier set per alternative of a union; empty for any version.
    specifiers: Vec<String>,
    marker: Option<String>,
    source: SourceEntry,
    optional: bool,
    allow_prereleases: bool,
    hashes: Vec<String>,
    file: String,
    line: usize,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum SourceEntry {
    Registry {
        #[serde(skip_serializing_if = "Option::is_none")]
        index: Option<String>,
    },
    Git {
        url: String,
        #[serde(rename = "ref")]
        reference: Option<String>,
        subdirectory: Option<String>,
    },
    Url {
        url: String,
        subdirectory: Option<String>,
    },
    Path {
        path: String,
        subdirectory: Option<String>,
    },
}

#[derive(Serialize)]
struct IndexEntry {
    name: Option<String>,
    url: String,
    priority: crate::deps::Priority,
}

impl Entry {
    fn of(dependency: &Dependency, documents: &Documents) -> Self {
        let place = documents.find(&dependency.at).expect("a dependency stands in a list");
        let texts = |names: &[crate::deps::Name]| names.iter().map(ToString::to_string).collect();
        let alternatives = dependency.constraint.alternatives();
        let any = dependency.constraint.is_any();
        Self {
            name: dependency.name.to_string(),
            extras: texts(&dependency.extras),
            specifiers: alternatives
                .iter()
                .filter(|_| !any)
                .map(|set| set.iter().map(ToString::to_string).collect::<Vec<_>>().join(","))
                .collect(),
            marker: dependency.marker.as_ref().map(ToString::to_string),
            source: match dependency.source.clone() {
                Source::Registry { index } => SourceEntry::Registry { index },
                Source::Git { url, reference, subdirectory, .. } => {
                    SourceEntry::Git { url, reference, subdirectory }
                }
                Source::Url { url, subdirectory, .. } => SourceEntry::Url { url, subdirectory },
                Source::Path { path, subdirectory, .. } => SourceEntry::Path { path, subdirectory },
            },
            optional: dependency.optional,
            allow_prereleases: dependency.allow_prereleases,
            hashes: dependency.hashes.clone(),
            file: place.document.name().into_owned(),
            line: place.line(),
        }
    }
}

/// Writes every correction with one surely right answer into the files that were given.
fn fix(args: &DepsArgs, caller: &Caller) -> Result<(), Failure> {
    if args.files.iter().any(|file| file.as_os_str() == "-") {
        let what = Diagnostic::new("standard input cannot be mended in place");
        return Err(Failure::usage(what.advice("give a file, or leave out `--fix`")));
    }
    let documents = lists::documents(&args.files)?;
    let mended = Mended::of(&documents, args);
    for (old, new) in documents.iter().zip(&mended.lists).filter(|(old, new)| old != new) {
        write(&old.path, &new.text)
            .map_err(|error| Failure::unwritable(&format!("`{}`", old.name()), &error))?;
    }
    caller.report.note(&match mended.corrections {
        0 => "nothing to mend".to_owned(),
        1 => "mended 1 mistake".to_owned(),
        many => format!("mended {many} mistakes"),
    });
    mended.left
}

/// Lists with every correction made that has one surely right answer.
struct Mended {
    lists: Vec<Document>,
    corrections: usize,
    /// What is wrong all the same.
    left: Result<(), Failure>,
}

impl Mended {
    fn of(documents: &Documents, args: &DepsArgs) -> Self {
        let read = |lists: &[Document]| {
            let mut documents = Documents::default();
            for list in lists {
                documents.add(list.clone());
            }
            let read = lists::read(documents, &args.selection.selection(), &variable_of_list);
            read.map(drop).map_err(Failure::from)
        };
        let before: Vec<Document> = documents.iter().cloned().collect();
        let mut lists = before.clone();
        let mut corrections = 0;
        let mut left = read(&lists);
        let mistakes = left.as_ref().err().map_or(0, |failure| failure.diagnostics.len());
        for _ in 0..MAX_ROUNDS {
            let Err(failure) = &left else { break };
            let made = correct(&mut lists, failure);
            if made == 0 {
                break;
            }
            corrections += made;
            left = read(&lists);
        }
        // Corrections that lead astray are none.
        let worse = left.as_ref().is_err_and(|failure| failure.diagnostics.len() > mistakes);
        if worse {
            Self { left: read(&before), lists: before, corrections: 0 }
        } else {
            Self { lists, corrections, left }
        }
    }
}

/// Makes the corrections of one round, and returns how many there were. A list whose form would change
/// stays as it is: its mistakes were not what they seemed.
fn correct(lists: &mut [Document], failure: &Failure) -> usize {
    let replacements = failure.diagnostics.iter().filter_map(|mistake| match &mistake.fix {
        Some(Fix::Replace(text)) => Some((failure.documents.find(mistake.at.as_ref()?)?, text)),
        _ => None,
    });
    let mut replacements: Vec<_> = replacements.collect();
    // From the end of each file, so that the places before stay right.
    replacements.sort_by_key(|(place, _)| Reverse(place.at.start));
    let mut made = 0;
    for list in lists {
        let mut text = list.text.clone();
        let mut untouched_before = usize::MAX;
        let mut here = 0;
        for (place, replacement) in replacements.iter().filter(|(place, _)| place.document.path == list.path)
        {
            if place.at.end <= untouched_before {
                text.replace_range(place.at.clone(), replacement);
                untouched_before = place.at.start;
                here += 1;
            }
        }
        if text != list.text && Form::of(&text) == Form::of(&list.text) {
            list.text = text;
            made += here;
        }
    }
    made
}

/// Replaces a file's text at once, or not at all.
pub(super) fn write(path: &Path, text: &str) -> io::Result<()> {
    let path = fs::canonicalize(path)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut unfinished = tempfile::NamedTempFile::new_in(folder)?;
    unfinished.write_all(text.as_bytes())?;
    fs::set_permissions(unfinished.path(), fs::metadata(&path)?.permissions())?;
    unfinished.persist(&path)?;
    Ok(())
}
