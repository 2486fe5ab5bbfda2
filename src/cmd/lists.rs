//! The dependency lists a command is given, with everything they include.

use std::io;
use std::path::{Path, PathBuf};

use super::Failure;
use crate::cli::{SelectionArgs, variable_of_list};
use crate::deps::{Dependency, MAX_BYTES, Selection, Spec, Surroundings};
use crate::diagnostic::{Diagnostic, Document, Documents, STDIN};

/// Reads the files; `-` is standard input.
pub(super) fn documents(paths: &[PathBuf]) -> Result<Documents, Failure> {
    let mut documents = Documents::default();
    for path in paths {
        documents.add(if path.as_os_str() == "-" {
            Document::read_from(io::stdin().lock(), STDIN.to_owned(), MAX_BYTES)
                .map_err(|error| unreadable(STDIN, &error))?
        } else {
            read_file(path).map_err(|error| unreadable(&path.display().to_string(), &error))?
        });
    }
    Ok(documents)
}

/// What lists mean, with the files they include among the documents.
pub(super) fn read(
    mut documents: Documents,
    selection: &SelectionArgs,
) -> Result<(Documents, Spec), Failure> {
    let selection = Selection { groups: selection.group.clone(), extras: selection.extra.clone() };
    let surroundings = Surroundings { read: &read_file, variable: &variable_of_list };
    match Spec::read(&mut documents, &selection, surroundings) {
        Ok(spec) => Ok((documents, spec)),
        Err(mistakes) => Err(Failure::in_documents(documents, mistakes)),
    }
}

/// The folder that a dependency's paths begin at: that of its list.
pub(super) fn folder<'a>(documents: &'a Documents, dependency: &Dependency) -> &'a Path {
    let list = documents.find(&dependency.at).expect("a dependency stands in a list").document;
    Path::new(&list.name).parent().unwrap_or(Path::new(""))
}

fn read_file(path: &Path) -> io::Result<Document> {
    Document::read(path, MAX_BYTES)
}

fn unreadable(name: &str, error: &io::Error) -> Failure {
    Failure::refused(if error.kind() == io::ErrorKind::NotFound {
        Diagnostic::new(format!("there is no dependency list `{name}`"))
            .advice("check the path, or leave out `-d` for the variant's own list")
    } else {
        Diagnostic::new(format!("cannot read the dependency list `{name}`")).why(error.to_string())
    })
}
