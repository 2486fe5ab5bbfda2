//! `ipybox plan`: everything that decides an image, as JSON, and what differs from another.

use std::path::Path;

use super::{Asked, Caller, Failure, Planned, fresh};
use crate::cli::PlanArgs;
use crate::diagnostic::{Diagnostic, Document};
use crate::freshness::Stamp;
use crate::plan::Plan;

/// The largest plan that is read, in bytes.
const MAX_BYTES: u64 = 64_000_000;

pub(super) async fn run(args: PlanArgs, caller: &Caller) -> Result<(), Failure> {
    let asked = Asked::read(args.image, caller).await?;
    let planned = asked.resolve(caller).await?;
    if let Some(other) = &args.diff {
        let earlier = stamp_of(other, &asked, caller).await?;
        return tell_changes(&earlier, args.json, &asked, &planned, caller);
    }
    let Planned { plan, base, .. } = planned;
    let json =
        if args.facts { serde_json::to_string_pretty(&base) } else { serde_json::to_string_pretty(&plan) };
    let json = json.expect("both are plain data");
    let written = caller.report.result(|out| writeln!(out, "{json}"));
    written.map_err(|error| Failure::unwritable("stdout", &error))
}

/// That of a plan in a file, or of an image.
async fn stamp_of(name: &str, asked: &Asked, caller: &Caller) -> Result<Stamp, Failure> {
    let path = Path::new(name);
    if path.is_file() {
        let refused = |why: String| {
            Failure::refused(
                Diagnostic::new(format!("cannot read a plan from `{}`", path.display())).why(why),
            )
        };
        let text = Document::read(path, MAX_BYTES).map_err(|error| refused(error.to_string()))?.text;
        let plan: Plan = serde_json::from_str(&text).map_err(|error| refused(error.to_string()))?;
        return Ok(Stamp::of(&plan));
    }
    let refused = |what: &str, advice: &str| {
        Failure::refused(Diagnostic::new(what.replace("{}", &name.escape_debug().to_string())).advice(advice))
    };
    let engine = asked.engine(caller).await?;
    let Some(image) = engine.image(name).await? else {
        let advice = "name what `ipybox plan` printed into a file, or an image that `ipybox` built";
        return Err(refused("there is no file and no image `{}`", advice));
    };
    fresh::stamp_of(&engine, &image, asked.cache()).await?.ok_or_else(|| {
        let advice = "it was not built by this program, or was changed since; build it anew";
        refused("the image `{}` does not say what it was built from", advice)
    })
}

fn tell_changes(
    earlier: &Stamp,
    as_json: bool,
    asked: &Asked,
    planned: &Planned<'_>,
    caller: &Caller,
) -> Result<(), Failure> {
    let changes = earlier.changes(&Stamp::of(&planned.plan));
    let placed = fresh::placed(&changes, asked, planned);
    let text = if as_json {
        format!("{:#}", serde_json::json!({ "version": 1, "changes": placed }))
    } else if changes.is_empty() {
        "nothing differs".to_owned()
    } else {
        fresh::lines(&placed).join("\n")
    };
    let text = caller.report.redacted(&text);
    let written = caller.report.result(|out| writeln!(out, "{text}"));
    written.map_err(|error| Failure::unwritable("stdout", &error))
}
