//! `ipybox build`: a dependency list in, a tagged image out.

use std::time::Instant;

use super::{Caller, Failure, Request, verify};
use crate::cli::{BuildArgs, Progress};
use crate::context;
use crate::diagnostic::Diagnostic;
use crate::dockerfile::{self, Supply};
use crate::engine::{Build, Engine, EngineError};
use crate::inputs::trust;
use crate::installer;
use crate::plan::Plan;
use crate::report::{self, Report};

/// The id under which build steps find the certificates.
const CA_SECRET: &str = "ipybox-ca";

pub(super) async fn run(args: BuildArgs, caller: &mut Caller) -> Result<(), Failure> {
    let begun = Instant::now();
    if args.progress == Progress::Quiet {
        caller.report.be_quiet();
    }
    let Caller { environment, report, .. } = &*caller;
    let certificates = trust::bundle(environment.ssl_cert_file.as_deref(), args.ca_cert.as_deref())?;
    let request = Request::read(args.image, caller)?;
    let engine = request.engine(caller).await?;
    let base = request.base(&engine, args.pull, report).await?;
    let (plan, local) = request.plan(base, caller).await?;
    let dockerfile = dockerfile::render(&plan, &request.templates, Supply::Engine)?;
    let context = context::of(&plan, &request.templates, dockerfile, &local, None).map_err(|error| {
        Failure::refused(Diagnostic::new("cannot read a file of the build").why(error.to_string()))
    })?;
    supply(&engine, &plan, &request, report).await?;
    let build = Build {
        context,
        no_cache: args.no_cache,
        secrets: certificates.map(|bundle| (CA_SECRET.to_owned(), bundle)).into_iter().collect(),
        build_args: environment.proxies.clone(),
    };
    let built = engine.build(build, |event| report.event(&event)).await;
    let image = built.map_err(|error| request.explain(&plan, error))?;
    if args.verify {
        verify::prove(&engine, &image, &request.variant, report).await?;
    }
    for tag in &args.tag {
        engine.tag(&image, tag).await?;
    }
    let names: Vec<_> = args.tag.iter().map(ToString::to_string).collect();
    report.note(&format!("built {} in {}", names.join(", "), report::duration(begun.elapsed())));
    report.result(|out| writeln!(out, "{image}")).map_err(|error| Failure::unwritable("stdout", &error))
}

/// Makes sure that the engine has what the Dockerfile names: the base under its private tag, and
/// the installer.
async fn supply(engine: &Engine, plan: &Plan, request: &Request, report: &Report) -> Result<(), Failure> {
    let installer = plan.uv.private_tag();
    let base = plan.base.private_tag();
    let (present, tagged) = tokio::join!(engine.image_id(&installer), engine.tag(&plan.base.id, &base));
    match tagged {
        Err(error) if error.is_not_found() => {
            let why = format!("the engine has no image `{}`", plan.base.id);
            return Err(EngineError::NotFound { reference: plan.base.reference.clone(), why }.into());
        }
        tagged => tagged?,
    }
    if present?.is_none() {
        report.note(&format!("loading {} into the engine, once", plan.uv));
        let program = engine.unless_interrupted(request.installer(plan)).await??;
        engine.import(installer::image(&program)?, &installer).await?;
    }
    Ok(())
}
