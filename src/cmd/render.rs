//! `ipybox render`: the Dockerfile, or the whole context, for `docker build` by anybody.

use std::fs::File;
use std::io::{self, BufWriter};
use std::path::Path;

use super::{Caller, Failure, Request};
use crate::cli::RenderArgs;
use crate::context;
use crate::diagnostic::Diagnostic;
use crate::dockerfile::{self, Supply};

pub(super) async fn run(args: RenderArgs, caller: &Caller) -> Result<(), Failure> {
    let request = Request::read(args.image, caller)?;
    if let Some(folder) = &args.out {
        check_empty(folder)?;
    }
    let plan = request.resolve(caller).await?;
    let dockerfile = dockerfile::render(&plan, &request.templates, Supply::Context)?;
    if args.out.is_none() && args.tar.is_none() {
        caller.report.result(dockerfile.as_bytes())?;
        return Ok(());
    }
    let Some(installer) = caller.interrupt.run_until_cancelled(request.installer(&plan)).await else {
        return Err(Failure::interrupted());
    };
    let context = context::of(&plan, &request.templates, dockerfile, Some(&installer?))?;
    match (&args.out, &args.tar) {
        (Some(folder), _) => context.write_into(folder).map_err(|error| cannot_write(folder, &error)),
        (_, Some(file)) if file.as_os_str() == "-" => Ok(context.write_to(io::stdout().lock())?),
        (_, Some(file)) => File::create(file)
            .and_then(|file| context.write_to(BufWriter::new(file)))
            .map_err(|error| cannot_write(file, &error)),
        (None, None) => unreachable!("answered above"),
    }
}

fn check_empty(folder: &Path) -> Result<(), Failure> {
    let empty = match folder.read_dir() {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => true,
        Err(error) => return Err(cannot_write(folder, &error)),
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

fn cannot_write(path: &Path, error: &io::Error) -> Failure {
    Failure::refused(Diagnostic::new(format!("cannot write to `{}`", path.display())).why(error.to_string()))
}
