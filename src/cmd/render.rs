//! `ipybox render`: the Dockerfile, or the whole context, for `docker build` by anybody.

use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::{Asked, Caller, Failure, Planned};
use crate::archive::Archive;
use crate::cli::RenderArgs;
use crate::diagnostic::Diagnostic;
use crate::image::context;
use crate::image::dockerfile::{self, Goal, Supply};

pub(super) async fn run(args: RenderArgs, caller: &Caller) -> Result<(), Failure> {
    let asked = Asked::read(args.image, caller).await?;
    if let Some(folder) = &args.out {
        check_empty(folder)?;
    }
    let Planned { plan, base, local, .. } = asked.resolve(caller).await?;
    let templates = &asked.inputs.templates;
    let dockerfile = dockerfile::render(&plan, &base, templates, Supply::Context, Goal::Image)?;
    if args.out.is_none() && args.tar.is_none() {
        let written = caller.report.result(|out| out.write_all(dockerfile.as_bytes()));
        return written.map_err(|error| Failure::unwritable("stdout", &error));
    }
    let Some(installer) = caller.interrupt.run_until_cancelled(asked.installer(&plan)).await else {
        return Err(Failure::interrupted());
    };
    let installer = installer?;
    let context =
        context::of(&plan, &base, templates, dockerfile, &local, Some(&installer)).map_err(|error| {
            let what = "cannot read a file of the build";
            Failure::refused(Diagnostic::new(what).why(error.to_string()))
        })?;
    if let Some(folder) = &args.out {
        return write_folder(&context, folder).map_err(|error| unwritable(folder, &error));
    }
    let file = args.tar.as_deref().expect("one of the two was asked for");
    let written = if file.as_os_str() == "-" {
        caller.report.result(|out| context.write_to(out))
    } else {
        write_file(&context, file)
    };
    written.map_err(|error| unwritable(file, &error))
}

/// Writes the context beside `folder`, and gives it its name when it is whole.
pub(super) fn write_folder(context: &Archive, folder: &Path) -> io::Result<()> {
    let folder = std::path::absolute(folder)?;
    let parent = folder.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(parent)?;
    let unfinished = tempfile::Builder::new().prefix(".ipybox-").tempdir_in(parent)?;
    context.write_into(unfinished.path())?;
    fs::set_permissions(unfinished.path(), fs::Permissions::from_mode(0o755))?;
    // An empty folder of that name gives way.
    fs::rename(unfinished.path(), &folder)?;
    let _ = unfinished.keep();
    Ok(())
}

/// The same of a file; what is no regular file is written to as it stands.
fn write_file(context: &Archive, file: &Path) -> io::Result<()> {
    if fs::metadata(file).is_ok_and(|metadata| !metadata.is_file()) {
        return context.write_to(BufWriter::new(File::create(file)?));
    }
    let file = std::path::absolute(file)?;
    let mut unfinished = tempfile::NamedTempFile::new_in(file.parent().unwrap_or(Path::new("/")))?;
    context.write_to(BufWriter::new(&mut unfinished))?;
    unfinished.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
    unfinished.persist(file)?;
    Ok(())
}

pub(super) fn check_empty(folder: &Path) -> Result<(), Failure> {
    let empty = match folder.read_dir() {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => true,
        Err(error) => return Err(unwritable(folder, &error)),
    };
    if empty {
        return Ok(());
    }
    Err(Failure::refused(
        Diagnostic::new(format!("the folder `{}` is not empty", folder.display()))
            .why("what lies there would become part of the build")
            .advice("give a new folder"),
    ))
}

fn unwritable(path: &Path, error: &io::Error) -> Failure {
    Failure::unwritable(&format!("`{}`", path.display()), error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_written_whole_leaves_nothing() {
        let home = tempfile::tempdir().unwrap();
        let source = home.path().join("source");
        fs::write(&source, "planned").unwrap();
        let mut context = Archive::default();
        context.add("Dockerfile", "FROM scratch\n");
        context.add_file("x", 0o644, &source).unwrap();
        let (folder, file) = (home.path().join("out"), home.path().join("out.tar"));
        fs::create_dir(&folder).unwrap();
        write_folder(&context, &folder).unwrap();
        write_file(&context, &file).unwrap();
        assert!(folder.join("Dockerfile").is_file() && file.is_file());
        fs::write(&source, "another size").unwrap();
        let (folder, file) = (home.path().join("second"), home.path().join("second.tar"));
        assert!(write_folder(&context, &folder).is_err() && write_file(&context, &file).is_err());
        assert_eq!(home.path().read_dir().unwrap().count(), 3);
    }
}
