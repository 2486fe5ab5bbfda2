//! `ipybox verify`: proves that an image runs what its clients will ask of it.

use serde_json::json;

use super::{Caller, Failure};
use crate::cli::VerifyArgs;
use crate::diagnostic::Diagnostic;
use crate::engine::{Engine, Image};
use crate::plan::{EXECUTOR_LABEL, VARIANT_LABEL};
use crate::reference::ImageId;
use crate::report::Report;
use crate::variant::{Variant, VariantError};
use crate::verify::{self, Finding, Verdict};

pub(super) async fn run(args: VerifyArgs, caller: &Caller) -> Result<(), Failure> {
    let engine = super::engine(&args.engine.host, caller).await?;
    let Some(image) = engine.image(&args.image).await? else {
        let what = Diagnostic::new(format!("the engine has no image `{}`", args.image.escape_debug()));
        return Err(Failure::refused(what.advice("build or pull it first, or correct its name")));
    };
    let label = image.labels.get(VARIANT_LABEL).map(String::as_str);
    let name = args.variant.as_deref().or(label);
    if name.is_none() {
        caller.report.note(
            "no label says what the image should be, so that it is tried as `minimal`; `-V` names another",
        );
    }
    let name = name.unwrap_or("minimal");
    let variant = match Variant::read(name, args.own.variants.as_deref()) {
        // A variant of somebody's own, whose folder is not here: its executor is like any other.
        Err(VariantError::Unknown { .. }) if args.variant.is_none() && is_executor(&image) => {
            caller.report.note(&format!(
                "the checks of the variant `{name}` are not known; with `--variants DIR` they are tried, too"
            ));
            Variant::read("any-base", None)?
        }
        Err(VariantError::Unknown { .. }) if args.variant.is_none() => {
            let what = format!("the image is of the variant `{name}`, which is not known here");
            let why = "its label says so, and its folder is somebody's own";
            return Err(Failure::refused(Diagnostic::new(what).why(why).advice(
                "name the folder of its variants with `--variants DIR`, or another variant with `-V`",
            )));
        }
        read => read?,
    };
    if args.json {
        let checks = verify::verify(&engine, &image, &variant, |_| {}).await?;
        let passed = verify::none_failed(&checks);
        let report = json!({"image": image.id, "variant": variant.name, "passed": passed, "checks": checks});
        let report = caller.report.redacted(&format!("{report:#}"));
        let written = caller.report.result(|out| writeln!(out, "{report}"));
        written.map_err(|error| Failure::unwritable("stdout", &error))?;
        return outcome(&image, &variant, &checks);
    }
    let checks = verify::verify(&engine, &image, &variant, |check| {
        // A reader that went away does not end the checks.
        let line = caller.report.redacted(&line(check));
        let _ = caller.report.result(|out| writeln!(out, "{line}"));
    })
    .await?;
    outcome(&image, &variant, &checks)
}

fn is_executor(image: &Image) -> bool {
    image.labels.contains_key(EXECUTOR_LABEL)
}

/// Verifies an image that was just built.
pub(super) async fn prove(
    engine: &Engine,
    id: &ImageId,
    variant: &Variant,
    report: &Report,
) -> Result<(), Failure> {
    report.note("verifying the image");
    let image = engine.image(id.as_str()).await?;
    let image = image.ok_or_else(|| Failure::refused(Diagnostic::new("the new image is gone")))?;
    let checks = verify::verify(engine, &image, variant, |check| report.note(&line(check))).await?;
    outcome(&image, variant, &checks).map_err(|failure| {
        let what = failure.diagnostics.into_iter().map(|what| {
            what.advice(format!("it is kept without a name; `docker rmi {}` removes it", image.id.short()))
        });
        let told = checks.iter().filter(|check| check.has_failed()).map(line).collect();
        Failure { diagnostics: what.collect(), output: told, ..failure }
    })
}

/// A line of the table.
fn line(Finding { name, verdict, seconds }: &Finding) -> String {
    match verdict {
        Verdict::Passed => format!("ok      {name:<42} {seconds:>5.1} s"),
        Verdict::Failed(why) => {
            let why = why.replace('\n', "\n        ");
            format!("FAILED  {name:<42} {seconds:>5.1} s\n        {why}")
        }
        Verdict::NotRun => format!("not run {name}"),
    }
}

fn outcome(image: &Image, variant: &Variant, checks: &[Finding]) -> Result<(), Failure> {
    let failed = checks.iter().filter(|check| check.has_failed()).count();
    if failed == 0 {
        return Ok(());
    }
    let what = format!("image {} is not what the variant {} promises", image.id.short(), variant.name);
    let why = format!("{failed} of {} checks failed, as told above", checks.len());
    Err(Failure::refused(Diagnostic::new(what).why(why)))
}
