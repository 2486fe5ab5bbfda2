//! `ipybox build`: a dependency list in, a tagged image out.

use std::time::Instant;

use tokio_util::sync::CancellationToken;

use super::{Failure, Request};
use crate::cli::{self, BuildArgs, Progress};
use crate::context;
use crate::dockerfile::{self, Supply};
use crate::engine::{Build, Engine};
use crate::plan::Plan;
use crate::report::{self, Report};
use crate::trust;
use crate::uv;

/// The id under which build steps find the certificates.
const CA_SECRET: &str = "ipybox-ca";

pub(super) async fn run(args: BuildArgs, report: &mut Report, interrupt: CancellationToken) -> Result<(), Failure> {
    let begun = Instant::now();
    if args.progress == Progress::Quiet {
        report.be_quiet();
    }
    let tags = args.tags();
    let certificates = trust::bundle(args.network.ssl_cert_file.as_deref(), args.network.ca_cert.as_deref())?;
    let request = Request::read(args.image, report)?;
    let engine = request.engine(interrupt).await?;
    let base = request.base(&engine, args.pull, report).await?;
    let plan = request.plan(base, report)?;
    let dockerfile = dockerfile::render(&plan, &request.templates, Supply::Engine)?;
    let context = context::of(&plan, &request.templates, dockerfile, None)
        .expect("a context without the installer reads no file");
    supply(&engine, &plan, &request, report).await?;
    let build = Build {
        context,
        no_cache: args.no_cache,
        secrets: certificates.map(|bundle| (CA_SECRET.to_owned(), bundle)).into_iter().collect(),
        build_args: cli::proxies(),
    };
    let image = engine.build(build, |event| report.event(&event)).await?;
    for tag in &tags {
        engine.tag(&image, tag).await?;
    }
    let names: Vec<_> = tags.iter().map(ToString::to_string).collect();
    report.note(&format!("built {} in {}", names.join(", "), report::duration(begun.elapsed())));
    report.result(format!("{image}\n").as_bytes())?;
    Ok(())
}

/// Makes sure that the engine has what the Dockerfile names: the base under its private tag, and
/// the installer.
async fn supply(engine: &Engine, plan: &Plan, request: &Request, report: &Report) -> Result<(), Failure> {
    let installer = plan.uv.private_tag();
    let base = plan.base.private_tag();
    let (present, tagged) = tokio::join!(engine.image_id(&installer), engine.tag(&plan.base.id, &base));
    tagged?;
    if present?.is_none() {
        report.note(&format!("loading {} into the engine, once", plan.uv));
        let program = engine.unless_interrupted(request.installer(plan)).await??;
        engine.import(uv::image(&program)?, &installer).await?;
    }
    Ok(())
}
