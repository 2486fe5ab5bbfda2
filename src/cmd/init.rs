//! `ipybox init`: a first `ipybox.toml`.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use super::{Failure, lock};
use crate::accounts::User;
use crate::cli::InitArgs;
use crate::deps::{self, Spec};
use crate::diagnostic::{Diagnostic, Document};
use crate::fleet::{FILE, Fleet, Found, first};
use crate::report::Report;
use crate::request::Request;

pub(super) fn run(args: &InitArgs, report: &Report) -> Result<(), Failure> {
    if args.schema {
        let written = report.result(|out| writeln!(out, "{:#}", Fleet::schema()));
        return written.map_err(|error| Failure::unwritable("stdout", &error));
    }
    let failed = |error: io::Error| Failure::unwritable(&format!("`{FILE}`"), &error);
    let here = std::env::current_dir().map_err(failed)?;
    let found = found(Path::new(".")).map_err(failed)?;
    let folder = here.file_name().map_or(String::new(), |name| name.to_string_lossy().into_owned());
    let text = first(&folder, &found);
    if args.force {
        fs::write(FILE, text).map_err(failed)?;
    } else {
        let mut file = match File::create_new(FILE) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let what = Diagnostic::new(format!("there is an `{FILE}` already"));
                return Err(Failure::refused(what.advice("`--force` replaces it")));
            }
            file => file.map_err(failed)?,
        };
        file.write_all(text.as_bytes()).map_err(failed)?;
    }
    let lists: Vec<_> = found.iter().map(|found| format!("`{}`", found.file)).collect();
    let of = match lists.as_slice() {
        [] => "an image of the variant minimal, as there is no dependency list".to_owned(),
        lists => format!("an image for {}", lists.join(", ")),
    };
    report.note(&format!("wrote {FILE} with {of}; `ipybox build` builds it"));
    Ok(())
}

/// The dependency lists of a folder, by their names.
fn found(folder: &Path) -> io::Result<Vec<Found>> {
    let mut found = Vec::new();
    for entry in folder.read_dir()? {
        let Ok(file) = entry?.file_name().into_string() else { continue };
        let is_named_so = Path::new(&file).extension().is_some_and(|extension| extension == "txt");
        if !(is_named_so || file == "pyproject.toml") {
            continue;
        }
        let path = folder.join(&file);
        if path.is_file()
            && Document::read(&path, deps::MAX_BYTES).is_ok_and(|document| is_list(&file, &document.text))
        {
            let mut request = Request::new("minimal", User::Root);
            request.dependencies = vec![file.clone().into()];
            let lock = lock::place(&request).filter(|lock| lock.is_file());
            found.push(Found { file, lock: lock.map(|lock| lock.display().to_string()) });
        }
    }
    // What is most likely the folder's own comes first.
    let rank = |found: &Found| {
        let known = ["dependencies.txt", "pyproject.toml", "requirements.txt"];
        (known.iter().position(|known| *known == found.file).unwrap_or(known.len()), found.file.clone())
    };
    found.sort_by_key(rank);
    Ok(found)
}

/// Whether a text is a list that somebody wrote as one, and not any other text. Lists of the usual names are, also where they
/// have mistakes.
fn is_list(file: &str, text: &str) -> bool {
    let is_named_so = ["dependencies", "requirements"].iter().any(|name| file.contains(name));
    is_named_so || Spec::parse(text).is_ok_and(|spec| !spec.dependencies.is_empty())
}
