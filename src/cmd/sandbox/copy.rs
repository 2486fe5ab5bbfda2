//! `ipybox sandbox cp`: files in and out of a sandbox.

use std::fs::{self, File};
use std::io::{self, Seek};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::super::{Caller, Failure};
use super::not_running;
use crate::archive::{Archive, Owner as Ids, unpacked_into};
use crate::cli::CopyArgs;
use crate::diagnostic::Diagnostic;
use crate::engine::{KnownEngines, Run};
use crate::sandbox::Owner;

pub(super) async fn run(args: CopyArgs, caller: &Caller) -> Result<(), Failure> {
    let engine = super::super::engine(&args.engine, &KnownEngines::default(), caller).await?;
    let owner = Owner::from(args.owner);
    let name = owner.container();
    let missing = |what: &str| {
        let what = Diagnostic::new(format!("there is no `{}` in the sandbox", what.escape_debug()));
        Failure::refused(what.advice("correct the path; it begins at the container's root"))
    };
    match (inside(&args.from), inside(&args.to)) {
        (None, Some(to)) => {
            // Engines put files in as root's, whomever a container runs as.
            let own = Run { container: &name, command: vec!["id".into(), "-u".into()], ..Run::default() };
            let Some((_, uid)) = engine.unless_interrupted(engine.ran(own)).await?? else {
                return Err(not_running(&engine, &owner).await?);
            };
            let ids = Ids { uid: uid.trim().parse().unwrap_or_default(), gid: 0 };
            for (folder, own) in places(&to) {
                let files = packed(&args.from, own, ids).map_err(|error| {
                    let what = format!("`{}` cannot be copied", args.from.display());
                    Failure::refused(Diagnostic::new(what).why(error.to_string()))
                })?;
                if engine.unless_interrupted(engine.put(&name, folder, files)).await?? {
                    return Ok(());
                }
            }
            Err(missing(&to))
        }
        (Some(from), None) => {
            let failed = |error: &io::Error| Failure::unwritable(&format!("`{}`", args.to.display()), error);
            let mut tar: File = tempfile::tempfile().map_err(|error| failed(&error))?;
            if !engine.unless_interrupted(engine.get(&name, &from, &tar)).await?? {
                return match engine.lasting(&name).await? {
                    Some(_) => Err(missing(&from)),
                    None => Err(not_running(&engine, &owner).await?),
                };
            }
            tar.rewind().and_then(|()| unpacked_into(&args.to, tar)).map_err(|error| failed(&error))
        }
        _ => {
            let what = Diagnostic::new("one side is a path of the container, and begins with `:`");
            Err(Failure::usage(what.advice("for example `ipybox sandbox cp … data.csv :/workspace`")))
        }
    }
}

/// A path of the container, where it is one.
fn inside(path: &Path) -> Option<String> {
    path.to_str()?.strip_prefix(':').map(str::to_owned)
}

/// The folder that files are put into, and their new name: a folder of this path, else one of its parent's.
fn places(to: &str) -> Vec<(&str, Option<&str>)> {
    let mut places = vec![(if to.is_empty() { "/" } else { to }, None)];
    if let Some((parent, name)) = to.rsplit_once('/').filter(|(_, name)| !matches!(*name, "" | "." | "..")) {
        places.push((if parent.is_empty() { "/" } else { parent }, Some(name)));
    }
    places
}

/// Files of this host, under their own name or another, that belong to somebody.
fn packed(from: &Path, name: Option<&str>, ids: Ids) -> io::Result<Archive> {
    let real = fs::canonicalize(from)?;
    let own = real.file_name().and_then(|name| name.to_str()).ok_or(io::ErrorKind::InvalidInput)?;
    let mut files = Archive::default();
    add(&real, name.unwrap_or(own), &mut files)?;
    files.give_to(ids);
    Ok(files)
}

fn add(path: &Path, name: &str, files: &mut Archive) -> io::Result<()> {
    let metadata = fs::symlink_metadata(path)?;
    let mode = metadata.permissions().mode() & 0o7777;
    if metadata.is_symlink() {
        let target = fs::read_link(path)?;
        files.add_link(name, target.to_str().ok_or(io::ErrorKind::InvalidData)?);
    } else if metadata.is_dir() {
        files.add_directory(name, mode, Ids::default());
        for entry in path.read_dir()? {
            let entry = entry?;
            let part = entry.file_name().into_string().map_err(|_| io::ErrorKind::InvalidData)?;
            add(&entry.path(), &format!("{name}/{part}"), files)?;
        }
    } else {
        files.add_file(name, mode, path)?;
    }
    Ok(())
}
