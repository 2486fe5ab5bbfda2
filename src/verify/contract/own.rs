//! What a variant asks for by itself.

use crate::variant::OwnCheck;
use crate::verify::Tried;
use crate::verify::trial::Trial;
use crate::verify::wire::kernel::Outcome;

/// Runs its code as a client does, or its command as the image's user in its working directory.
pub(in crate::verify) async fn passes(trial: &Trial<'_>, check: &OwnCheck) -> Tried {
    let expected = check.prints.as_deref();
    match (&check.code, &check.command) {
        (Some(code), _) => trial.python(code).await?.has(expected),
        (_, Some(command)) => {
            let ended = trial.container.exec("", &["/bin/sh", "-c", command]).await?;
            let error =
                (ended.code != 0).then(|| format!("exit code {}: {}", ended.code, ended.output.trim()));
            Outcome { text: ended.output, error }.has(expected)
        }
        _ => Ok(()),
    }
}
