//! `ipybox build`: a dependency list in, a tagged image out.

use std::time::Instant;

use super::{Asked, Caller, Failure, Planned, verify};
use crate::cli::{BuildArgs, Progress};
use crate::diagnostic::Diagnostic;
use crate::engine::{Build, Engine, EngineError};
use crate::image::context;
use crate::image::dockerfile::{self, CA_SECRET, Supply};
use crate::inputs::trust;
use crate::installer;
use crate::plan::{Foundation, Plan, StepId};
use crate::report::{self, Report};

pub(super) async fn run(args: BuildArgs, caller: &mut Caller) -> Result<(), Failure> {
    let begun = Instant::now();
    if args.progress == Progress::Quiet {
        caller.report.be_quiet();
    }
    let Caller { environment, report, .. } = &*caller;
    let certificates = trust::bundle(environment.ssl_cert_file.as_deref(), args.ca_cert.as_deref())?;
    let asked = Asked::read(args.image, caller).await?;
    let engine = asked.engine(caller).await?;
    let base = asked.base(&engine, args.pull, report).await?;
    let planned = asked.plan(base, caller).await?;
    let Planned { plan, base, local, .. } = &planned;
    let dockerfile = dockerfile::render(plan, base, &asked.inputs.templates, Supply::Engine)?;
    let context =
        context::of(plan, base, &asked.inputs.templates, dockerfile, local, None).map_err(|error| {
            Failure::refused(Diagnostic::new("cannot read a file of the build").why(error.to_string()))
        })?;
    supply(&engine, plan, &asked, report).await?;
    let build = Build {
        context,
        no_cache: args.no_cache,
        secrets: certificates.map(|bundle| (CA_SECRET.to_owned(), bundle)).into_iter().collect(),
        build_args: environment.proxies.clone(),
        titles: plan.build_steps().into_iter().map(StepId::title).collect(),
    };
    let built = engine.build(build, |event| report.event(&event)).await;
    let image = built.map_err(|error| asked.explain(&planned, error))?;
    if args.verify {
        verify::prove(&engine, &image, &asked.inputs.variant, report).await?;
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
async fn supply(engine: &Engine, plan: &Plan, asked: &Asked, report: &Report) -> Result<(), Failure> {
    let Foundation { base, installer: release, .. } = &plan.foundation;
    let installer = release.private_tag();
    let installer_name = installer.to_string();
    let private = base.private_tag();
    let (present, tagged) = tokio::join!(engine.image(&installer_name), engine.tag(&base.id, &private));
    match tagged {
        Err(error) if error.is_not_found() => {
            let why = format!("the engine has no image `{}`", base.id);
            return Err(EngineError::NotFound { reference: base.reference.clone(), why }.into());
        }
        tagged => tagged?,
    }
    if present?.is_none() {
        report.note(&format!("loading {release} into the engine, once"));
        let program = engine.unless_interrupted(asked.installer(plan)).await??;
        engine.import(installer::image(&program)?, &installer).await?;
    }
    Ok(())
}
