//! What git says of a folder's own checkout.

use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;

/// Digits of a commit that is shortened; enough for any repository.
const SHORT: usize = 12;

/// The commit that is checked out, shortened; nothing where there is none, or no git.
pub async fn commit(folder: &Path) -> Option<String> {
    let commit = told(folder, &["rev-parse", "--verify", "HEAD"]).await?;
    commit.get(..SHORT).map(str::to_owned)
}

/// The version that a tag gives the commit: the tag, without the `v` in front of digits.
pub async fn version(folder: &Path) -> Option<String> {
    let tag = told(folder, &["describe", "--tags", "--exact-match", "HEAD"]).await?;
    let number = tag.strip_prefix('v').filter(|rest| rest.starts_with(|first: char| first.is_ascii_digit()));
    Some(number.unwrap_or(&tag).to_owned())
}

async fn told(folder: &Path, arguments: &[&str]) -> Option<String> {
    let folder = if folder == Path::new("") { Path::new(".") } else { folder };
    let asked = Command::new("git")
        .arg("-C")
        .arg(folder)
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await;
    let output = asked.ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}
