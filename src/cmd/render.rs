//! `ipybox render`: the Dockerfile, or the whole context, for `docker build` by anybody.

use std::fs::File;
use std::io::{self, BufWriter};
use std::path::Path;

use super::{Asked, Caller, Failure, Planned};
use crate::cli::RenderArgs;
use crate::diagnostic::Diagnostic;
use crate::image::context;
use crate::image::dockerfile::{self, Supply};

pub(super) async fn run(args: RenderArgs, caller: &Caller) -> Result<(), Failure> {
    let asked = Asked::read(args.image, caller)?;
    if let Some(folder) = &args.out {
        check_empty(folder)?;
    }
    let Planned { plan, base, local, .. } = asked.resolve(caller).await?;
    let templates = &asked.inputs.templates;
    let dockerfile = dockerfile::render(&plan, &base, templates, Supply::Context)?;
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
        return context.write_into(folder).map_err(|error| unwritable(folder, &error));
    }
    let file = args.tar.as_deref().expect("one of the two was asked for");
    let written = if file.as_os_str() == "-" {
        caller.report.result(|out| context.write_to(out))
    } else {
        File::create(file).and_then(|file| context.write_to(BufWriter::new(file)))
    };
    written.map_err(|error| unwritable(file, &error))
}

fn check_empty(folder: &Path) -> Result<(), Failure> {
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
