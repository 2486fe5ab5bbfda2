//! `ipybox sandbox cp`: files in and out of a sandbox.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::timeout;

use super::super::{Caller, Failure};
use super::{found, not_running};
use crate::archive::{Archive, Owner as Ids};
use crate::cli::CopyArgs;
use crate::diagnostic::{Diagnostic, Documents};
use crate::engine::{Engine, KnownEngines, PATH, Run};
use crate::received::{ReceiveError, Received};
use crate::sandbox::{Owner, is_in_force};

/// How many links may lead to each other.
const MOST_LINKS: usize = 40;

pub(super) async fn run(args: CopyArgs, caller: &Caller) -> Result<(), Failure> {
    let engine = super::super::engine(&args.engine, &KnownEngines::default(), caller).await?;
    let owner = Owner::from(args.owner);
    let container = found(&engine, &owner).await?.container;
    // Programs in it may be run for this.
    if container.state == "running" && !engine.unless_interrupted(is_in_force(&engine, &container)).await?? {
        let what = Diagnostic::new("what the sandbox may reach is not restricted yet");
        let why = "it was started by others than `ipybox sandbox up`";
        return Err(Failure::refused(what.why(why).advice("call that, and copy then")));
    }
    match (inside(&args.from), inside(&args.to)) {
        (None, Some(to)) => put(&engine, &owner, &args.from, &to).await,
        (Some(from), None) => get(&engine, &owner, &from, &args.to).await,
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

/// Whether what is in a folder is meant, rather than the folder.
///
/// Rule: Docker docs, `docker container cp`, "`SRC_PATH` does end with `/.`".
fn is_of_content(path: &Path) -> bool {
    path == Path::new(".") || path.as_os_str().as_bytes().ends_with(b"/.")
}

fn missing(path: &str) -> Failure {
    let what = Diagnostic::new(format!("there is no `{}` in the sandbox", path.escape_debug()));
    Failure::refused(what.advice("correct the path; it begins at the container's root"))
}

async fn put(engine: &Engine, owner: &Owner, from: &Path, to: &str) -> Result<(), Failure> {
    let container = found(engine, owner).await?.container.id;
    // Engines put files in as root's, whomever a container runs as.
    let ids = ids(engine, owner, &container).await?;
    for (folder, name) in places(to) {
        let files = packed(from, name, ids).map_err(|error| {
            let what = format!("`{}` cannot be copied", from.display());
            Failure::refused(Diagnostic::new(what).why(error.to_string()))
        })?;
        if engine.unless_interrupted(engine.put(&container, folder, files)).await?? {
            return Ok(());
        }
    }
    Err(missing(to))
}

/// How long a container may take to tell whom it runs as.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whom a container runs as: by its own word, else by its settings.
async fn ids(engine: &Engine, owner: &Owner, container: &str) -> Result<Ids, Failure> {
    let command = ["/bin/sh", "-c", "id -u; id -g"].map(str::to_owned).into();
    let asked = Run { container, command, env: vec![PATH.to_owned()], ..Run::default() };
    let asked = timeout(PATIENCE, engine.ran(asked));
    match engine.unless_interrupted(asked).await? {
        Ok(Ok(None)) => return Err(not_running(engine, owner).await?),
        Ok(Ok(Some((0, told)))) => {
            if let Some(ids) = told.split_once('\n').and_then(|(uid, gid)| numbers(uid, gid.trim_end())) {
                return Ok(ids);
            }
        }
        Ok(Ok(Some(_)) | Err(_)) | Err(_) => {}
    }
    let user = found(engine, owner).await?.user;
    let (uid, gid) = user.split_once(':').unwrap_or((&user, ""));
    numbers(uid, gid).ok_or_else(|| {
        let what = Diagnostic::new("whom files in the sandbox should belong to is unknown");
        let why = format!("it runs as `{}`, and it has no `id` that tells the numbers", user.escape_debug());
        Failure::refused(what.why(why).advice("give the numbers: `ipybox sandbox up --as UID:GID`"))
    })
}

/// Two numbers, as engines take them: none and root are 0.
fn numbers(uid: &str, gid: &str) -> Option<Ids> {
    let number = |text: &str| if matches!(text, "" | "root") { Some(0) } else { text.parse().ok() };
    Some(Ids { uid: number(uid)?, gid: number(gid)? })
}

/// The folder that files are put into, and their new name: a folder of this path, else one of its parent's.
fn places(to: &str) -> Vec<(&str, Option<&str>)> {
    let mut places = vec![(if to.is_empty() { "/" } else { to }, None)];
    if let Some((parent, name)) = to.rsplit_once('/').filter(|(_, name)| !matches!(*name, "" | "." | "..")) {
        places.push((if parent.is_empty() { "/" } else { parent }, Some(name)));
    }
    places
}

/// Files of this host, under their own name or another, that belong to somebody. A link is what it leads to.
fn packed(from: &Path, name: Option<&str>, ids: Ids) -> io::Result<Archive> {
    let real = fs::canonicalize(from)?;
    let own = if is_of_content(from) && real.is_dir() {
        Some(OsStr::new(""))
    } else {
        from.file_name().or(real.file_name())
    };
    let name = name.or(own.and_then(OsStr::to_str)).ok_or(io::ErrorKind::InvalidFilename)?;
    let mut files = Archive::default();
    add(&real, name, &mut files)?;
    files.give_to(ids);
    Ok(files)
}

fn add(path: &Path, name: &str, files: &mut Archive) -> io::Result<()> {
    let of_it = |error: io::Error| io::Error::new(error.kind(), format!("`{}`: {error}", path.display()));
    let unsayable = || of_it(io::Error::new(io::ErrorKind::InvalidData, "its name is not UTF-8"));
    let metadata = fs::symlink_metadata(path).map_err(of_it)?;
    let mode = metadata.permissions().mode() & 0o7777;
    if metadata.is_symlink() {
        let target = fs::read_link(path).map_err(of_it)?;
        files.add_link(name, target.to_str().ok_or_else(unsayable)?);
    } else if metadata.is_dir() {
        if !name.is_empty() {
            files.add_directory(name, mode, Ids::default());
        }
        for entry in path.read_dir().map_err(of_it)? {
            let entry = entry.map_err(of_it)?;
            let part = entry.file_name().into_string().map_err(|_| unsayable())?;
            let name = if name.is_empty() { part } else { format!("{name}/{part}") };
            add(&entry.path(), &name, files)?;
        }
    } else {
        files.add_file(name, mode, path).map_err(of_it)?;
    }
    files.date(name, metadata.mtime().try_into().unwrap_or_default());
    Ok(())
}

async fn get(engine: &Engine, owner: &Owner, from: &str, to: &Path) -> Result<(), Failure> {
    let path: PathBuf = Path::new("/").join(from).components().collect();
    let Some(name) = path.file_name() else {
        let what =
            Diagnostic::new(format!("`{}` has no name by which it could be copied", from.escape_debug()));
        return Err(Failure::usage(what.advice("name a file or folder below it")));
    };
    let (folder, name): (&Path, &OsStr) = match (to.parent(), to.file_name()) {
        _ if to.is_dir() && is_of_content(Path::new(from)) => (to, OsStr::new("")),
        (Some(parent), Some(name)) if !to.is_dir() => {
            (if parent == Path::new("") { Path::new(".") } else { parent }, name)
        }
        _ => (to, name),
    };
    if !folder.is_dir() {
        let what = Diagnostic::new(format!("there is no folder `{}`", folder.display()));
        return Err(Failure::refused(what.advice("make it, or correct the path")));
    }
    let received = received(engine, owner, &path).await?;
    received.write_into(folder, name).map_err(|error| unwritten(&path, folder, error))
}

/// A file or folder of a container. A link is what it leads to.
async fn received(engine: &Engine, owner: &Owner, from: &Path) -> Result<Received, Failure> {
    let container = found(engine, owner).await?.container.id;
    let mut path = from.to_owned();
    for _ in 0..MOST_LINKS {
        let text = path.to_string_lossy();
        let tar = tempfile::tempfile().map_err(|error| Failure::unwritable("a temporary file", &error))?;
        if !engine.unless_interrupted(engine.get_from_within(&container, &text, &tar)).await?? {
            return Err(missing(&text));
        }
        let received = Received::read(tar).map_err(|error| unwritten(from, Path::new(""), error))?;
        match received.link() {
            None => return Ok(received),
            Some(target) => path = path.parent().unwrap_or(Path::new("/")).join(target),
        }
    }
    let what = Diagnostic::new(format!("`{}` is a link that leads to no end of links", from.display()));
    Err(Failure::refused(what.advice("correct the link, or copy something else")))
}

/// Why what is at a path of the container is not written into a folder of this host.
fn unwritten(from: &Path, folder: &Path, error: ReceiveError) -> Failure {
    let shown = |path: &Path| path.components().as_path().to_string_lossy().escape_debug().to_string();
    match error {
        ReceiveError::File(error) => {
            let what = Diagnostic::new(format!("`{}` cannot be copied", shown(from)));
            Failure::refused(what.why(error.to_string()))
        }
        ReceiveError::Occupied { place, is_folder } => {
            let (there, here) = if is_folder { ("a folder", "none") } else { ("no folder", "one") };
            let what = Diagnostic::new(format!("`{}` is not replaced", shown(&folder.join(place))));
            let why = format!("it is {there} here, and {here} in the sandbox");
            Failure::refused(what.why(why).advice("move it away, or copy to another folder"))
        }
        ReceiveError::Refused(refused) => {
            let diagnostics = refused.into_iter().map(|refused| {
                let what = Diagnostic::new(format!("`{}` is not copied", shown(&from.join(refused.path))));
                what.why(refused.why).advice("remove it in the sandbox, or copy what is beside it by itself")
            });
            Failure::in_documents(Documents::default(), diagnostics.collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_copied_in_has_its_own_times_and_the_name_that_was_given() {
        let folder = tempfile::tempdir().unwrap();
        let real = folder.path().join("real");
        fs::create_dir(&real).unwrap();
        fs::write(real.join("x"), "text").unwrap();
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
        fs::File::open(real.join("x")).unwrap().set_modified(time).unwrap();
        std::os::unix::fs::symlink("x", real.join("y")).unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("real", &link).unwrap();
        let ids = Ids { uid: 7, gid: 8 };
        let names = |from: &Path, name| {
            let tar = packed(from, name, ids).unwrap().to_tar().unwrap();
            let mut archive = tar::Archive::new(tar.as_slice());
            let entries = archive.entries().unwrap().map(|entry| {
                let entry = entry.unwrap();
                let header = entry.header();
                assert_eq!((header.uid().unwrap(), header.gid().unwrap()), (7, 8));
                let path = entry.path().unwrap().display().to_string();
                assert!(!path.ends_with('x') || header.mtime().unwrap() == 1_000_000_000, "{header:?}");
                path
            });
            entries.collect::<Vec<_>>()
        };
        assert_eq!(names(&real, None), ["real/", "real/x", "real/y"]);
        assert_eq!(names(&link, None), ["link/", "link/x", "link/y"]);
        assert_eq!(names(&link, Some("other")), ["other/", "other/x", "other/y"]);
        assert_eq!(names(&link.join("y"), None), ["y"]);
        assert_eq!(names(&real.join("."), None), ["x", "y"]);
        assert_eq!(names(&real.join("."), Some("other")), ["other/", "other/x", "other/y"]);
        rustix::fs::mkfifoat(rustix::fs::CWD, real.join("fifo"), rustix::fs::Mode::RUSR).unwrap();
        let error = packed(&real, None, ids).unwrap_err().to_string();
        assert!(error.contains("/real/fifo`: not a regular file"), "{error}");
    }

    #[test]
    fn users_are_numbers_where_nobody_can_be_asked() {
        for (uid, gid, ids) in [
            ("", "", Some((0, 0))),
            ("root", "", Some((0, 0))),
            ("1234", "", Some((1234, 0))),
            ("1234", "5678", Some((1234, 5678))),
            ("app", "", None),
            ("1234", "app", None),
            ("-1", "", None),
        ] {
            assert_eq!(numbers(uid, gid), ids.map(|(uid, gid)| Ids { uid, gid }), "{uid}:{gid}");
        }
    }
}
