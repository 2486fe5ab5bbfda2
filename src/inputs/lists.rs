//! Dependency lists, with everything they include.

use std::io;
use std::path::{Path, PathBuf};

use super::InputsError;
use crate::deps::{Dependency, MAX_BYTES, Selection, Spec, Surroundings};
use crate::diagnostic::{Document, Documents, STDIN};

/// Reads the files; `-` is standard input.
///
/// # Errors
///
/// [`InputsError::List`] for the first that cannot be read.
pub fn documents(paths: &[PathBuf]) -> Result<Documents, InputsError> {
    let mut documents = Documents::default();
    for path in paths {
        let unreadable = |source| InputsError::List { path: path.clone(), source };
        documents.add(if path.as_os_str() == "-" {
            Document::read_from(io::stdin().lock(), STDIN, MAX_BYTES).map_err(unreadable)?
        } else {
            read_file(path).map_err(unreadable)?
        });
    }
    Ok(documents)
}

/// What lists mean, with the files they include among the documents; `variable` is what they may ask of the
/// environment.
///
/// # Errors
///
/// [`InputsError::Mistakes`], all of them.
pub fn read(
    mut documents: Documents,
    selection: &Selection,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<(Documents, Spec), InputsError> {
    match Spec::read(&mut documents, selection, Surroundings { read: &read_file, variable }) {
        Ok(spec) => Ok((documents, spec)),
        Err(mistakes) => Err(InputsError::Mistakes { documents, mistakes }),
    }
}

/// The folder that a dependency's paths begin at: that of its list.
#[must_use]
pub fn folder<'a>(documents: &'a Documents, dependency: &Dependency) -> &'a Path {
    let list = documents.find(&dependency.at).expect("a dependency stands in a list").document;
    list.folder()
}

fn read_file(path: &Path) -> io::Result<Document> {
    Document::read(path, MAX_BYTES)
}
