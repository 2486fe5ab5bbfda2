//! `ipybox plan`: everything that decides an image, as JSON.

use super::{Caller, Failure, Request};
use crate::cli::ImageArgs;

pub(super) async fn run(args: ImageArgs, caller: &Caller) -> Result<(), Failure> {
    let request = Request::read(args, caller)?;
    let (plan, _) = request.resolve(caller).await?;
    let json = serde_json::to_string_pretty(&plan).expect("a plan is plain data");
    let written = caller.report.result(|out| writeln!(out, "{json}"));
    written.map_err(|error| Failure::unwritable("stdout", &error))
}
