//! `ipybox plan`: everything that decides an image, as JSON.

use tokio_util::sync::CancellationToken;

use super::{Failure, Request};
use crate::cli::ImageArgs;
use crate::report::Report;

pub(super) async fn run(args: ImageArgs, report: &Report, interrupt: CancellationToken) -> Result<(), Failure> {
    let request = Request::read(args, report)?;
    let plan = request.resolve(interrupt, report).await?;
    let mut json = serde_json::to_vec_pretty(&plan).expect("a plan is plain data");
    json.push(b'\n');
    report.result(&json)?;
    Ok(())
}
