//! `ipybox plan`: everything that decides an image, as JSON.

use super::{Caller, Failure, Request};
use crate::cli::ImageArgs;

pub(super) async fn run(args: ImageArgs, caller: &Caller) -> Result<(), Failure> {
    let request = Request::read(args, caller)?;
    let plan = request.resolve(caller).await?;
    let mut json = serde_json::to_vec_pretty(&plan).expect("a plan is plain data");
    json.push(b'\n');
    caller.report.result(&json)?;
    Ok(())
}
