//! `ipybox plan`: everything that decides an image, as JSON.

use super::{Asked, Caller, Failure, Planned};
use crate::cli::PlanArgs;

pub(super) async fn run(args: PlanArgs, caller: &Caller) -> Result<(), Failure> {
    let asked = Asked::read(args.image, caller).await?;
    let Planned { plan, base, .. } = asked.resolve(caller).await?;
    let json =
        if args.facts { serde_json::to_string_pretty(&base) } else { serde_json::to_string_pretty(&plan) };
    let json = json.expect("both are plain data");
    let written = caller.report.result(|out| writeln!(out, "{json}"));
    written.map_err(|error| Failure::unwritable("stdout", &error))
}
