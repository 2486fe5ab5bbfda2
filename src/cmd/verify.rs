//! `ipybox verify`: proves that an image runs what its clients will ask of it.

use std::path::Path;
use std::time::Instant;

use serde_json::json;

use super::{Caller, Failure};
use crate::cli::VerifyArgs;
use crate::diagnostic::Diagnostic;
use crate::engine::{Engine, Image, KnownEngines};
use crate::plan::{EXECUTOR_LABEL, VARIANT_LABEL};
use crate::reference::ImageId;
use crate::report::{Report, Work, finding};
use crate::variant::{Placement, Variant, VariantError};
use crate::verify::{self, Finding};

pub(super) async fn run(args: VerifyArgs, caller: &Caller) -> Result<(), Failure> {
    let engine = super::engine(&args.engine, &KnownEngines::default(), caller).await?;
    let Some(image) = engine.image(&args.image).await? else {
        let what = Diagnostic::new(format!("the engine has no image `{}`", args.image.escape_debug()));
        return Err(Failure::refused(what.advice("build or pull it first, or correct its name")));
    };
    let variant = variant_of(&image, args.variant.as_deref(), args.own.variants.as_deref(), &caller.report)?;
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
        let line = caller.report.redacted(&finding(check));
        let _ = caller.report.result(|out| writeln!(out, "{line}"));
    })
    .await?;
    outcome(&image, &variant, &checks)
}

/// The variant that an image is tried as: the one asked for, else what its label says.
pub(super) fn variant_of(
    image: &Image,
    asked: Option<&str>,
    folder: Option<&Path>,
    report: &Report,
) -> Result<Variant, Failure> {
    let label = image.labels.get(VARIANT_LABEL).map(String::as_str);
    let name = asked.or(label);
    if name.is_none() {
        report.note(
            "no label says what the image should be, so that it is tried as `minimal`; `-V` names another",
        );
    }
    let name = name.unwrap_or("minimal");
    Ok(match Variant::read(name, folder) {
        // A variant of somebody's own, whose folder is not here: its executor is like any other.
        Err(VariantError::Unknown { .. }) if asked.is_none() && is_executor(image) => {
            report.note(&format!(
                "the checks of the variant `{name}` are not known; with `--variants DIR` they are tried, too"
            ));
            Variant::read("any-base", None)?
        }
        Err(VariantError::Unknown { .. }) if asked.is_none() => {
            let what = format!("the image is of the variant `{name}`, which is not known here");
            let why = "its label says so, and its folder is somebody's own";
            return Err(Failure::refused(Diagnostic::new(what).why(why).advice(
                "name the folder of its variants with `--variants DIR`, or another variant with `-V`",
            )));
        }
        read => read?,
    })
}

fn is_executor(image: &Image) -> bool {
    image.labels.contains_key(EXECUTOR_LABEL)
}

/// Verifies an image that was just built: as this variant, or as what its labels say. Returns how many checks it passed.
pub(super) async fn prove(
    engine: &Engine,
    id: &ImageId,
    variant: Option<&Variant>,
    folder: Option<&Path>,
    report: &Report,
) -> Result<usize, Failure> {
    let (began, work) = (Instant::now(), Work::Verify);
    report.began(&work);
    let image = engine.image(id.as_str()).await?;
    let image = image.ok_or_else(|| Failure::refused(Diagnostic::new("the new image is gone")))?;
    // Who names no variant asks for an image that has its names already.
    let is_named = variant.is_none();
    // What was extended is still what it was.
    let of_labels = match variant.map(|variant| variant.packages) {
        Some(Placement::Isolated | Placement::Layered) => None,
        Some(Placement::Inherited) | None => Some(variant_of(&image, None, folder, report)?),
    };
    let variant = of_labels.as_ref().or(variant).expect("there is one of both");
    let checks = verify::verify(engine, &image, variant, |check| report.checked(check)).await?;
    report.ended(&work, began.elapsed());
    let proved = outcome(&image, variant, &checks).map(|()| checks.len());
    let advice = if is_named {
        "nothing of it was pushed; `ipybox build --verify` tries it again".to_owned()
    } else {
        format!("it is kept without a name; `docker rmi {}` removes it", image.id.short())
    };
    proved.map_err(|failure| {
        let what = failure.diagnostics.into_iter().map(|what| what.advice(advice.clone()));
        let told = checks.iter().filter(|check| check.has_failed()).map(finding).collect();
        Failure { diagnostics: what.collect(), output: told, ..failure }
    })
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
