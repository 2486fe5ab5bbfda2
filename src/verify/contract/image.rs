//! What every image must do, whatever its servers speak.

use std::io;
use std::time::{Duration, Instant};

use hyper::Method;
use tokio::time::{sleep, timeout};

use crate::engine::Exec;
use crate::secret;
use crate::verify::trial::Trial;
use crate::verify::wire::http::Server;
use crate::verify::{Fault, Tried};

/// Longest time servers may take until they answer: three times what the client of ipybox waits, since an engine that
/// is busy otherwise is no fault of the image.
const START: Duration = Duration::from_secs(30);

/// Longest time a container may take to stop.
const STOP: Duration = Duration::from_secs(2);

const IMPORTS: &str = include_str!("imports.py");
const INSTALL: &str = include_str!("install.py");

const PIP_CHECK: &str = "import subprocess, sys
found = subprocess.run([sys.executable, '-m', 'pip', '--disable-pip-version-check', 'check'], \
capture_output=True, text=True)
print(found.returncode or 0 if found.returncode == 0 else found.stdout.strip())";

/// Kills the first child of the first process.
const KILL_FIRST: &str =
    "set -- $(cat /proc/1/task/1/children); if [ $# = 0 ]; then echo alone; else kill -9 \"$1\"; fi";

pub(in crate::verify) fn no_secret_is_told(trial: &Trial<'_>) -> Tried {
    for variable in &trial.subject.image.env {
        let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
        if let Some(what) = secret_in(variable) {
            return Err(format!("environment: {what}").into());
        }
        if value.starts_with("/dev/ipybox") {
            return Err(format!("environment: `{name}` names what only build steps have").into());
        }
        if name.to_ascii_uppercase().ends_with("_PROXY") {
            return Err(format!("environment: `{name}` is a setting of the host it was built on").into());
        }
    }
    match trial.subject.history.iter().find_map(|step| secret_in(step)) {
        Some(what) => Err(format!("history: {what}").into()),
        None => Ok(()),
    }
}

/// What looks like a secret in a text, without telling it: a variable with a telling name, or an address with
/// a user.
fn secret_in(text: &str) -> Option<String> {
    let is_name = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    text.split_whitespace().find_map(|word| {
        if let Some((scheme, rest)) = word.split_once("://") {
            let authority = rest.split(['/', '?', '#']).next()?;
            let is_web = scheme.ends_with("http") || scheme.ends_with("https");
            return (is_web && authority.contains('@'))
                .then(|| "an address has a user or password".to_owned());
        }
        let (name, value) = word.trim_start_matches('-').split_once('=')?;
        let has_value = !value.trim_matches(['"', '\'']).is_empty();
        (is_name(name) && secret::is_telling(name) && has_value).then(|| format!("`{name}` has a value"))
    })
}

/// Waits until every port answers HTTP.
pub(in crate::verify) async fn servers_answer(trial: &Trial<'_>) -> Tried {
    let begun = Instant::now();
    for &port in &trial.subject.ports {
        loop {
            let answer = match trial.at(port) {
                Ok(server) => answers(&server, START.saturating_sub(begun.elapsed())).await,
                Err(why) => Err(io::Error::other(why)),
            };
            let Err(error) = answer else { break };
            let words = async || {
                let words = trial.container.last_words().await.unwrap_or_default();
                if words.is_empty() {
                    "it wrote nothing".to_owned()
                } else {
                    format!("its last words: {words}")
                }
            };
            if let Some(code) = trial.container.ended().await? {
                return Err(format!("the container ended with exit code {code}; {}", words().await).into());
            }
            if begun.elapsed() > START {
                let (seconds, words) = (START.as_secs(), words().await);
                return Err(
                    format!("port {port} does not answer within {seconds} s ({error}); {words}").into()
                );
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
    Ok(())
}

/// Asks for anything at all.
async fn answers(server: &Server, limit: Duration) -> io::Result<()> {
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "it listens, but does not answer");
    let answer = timeout(limit, server.ask(Method::GET, "/", "")).await.map_err(late)??;
    if answer.status < 500 { Ok(()) } else { Err(io::Error::other(format!("HTTP status {}", answer.status))) }
}

pub(in crate::verify) async fn dependencies_import(trial: &Trial<'_>) -> Tried {
    let names = trial.subject.dependencies().unwrap_or_default();
    let names = serde_json::to_string(&names)?;
    trial.python(&format!("NAMES = {names}\n{IMPORTS}")).await?.has_no_problem()
}

pub(in crate::verify) async fn packages_agree(trial: &Trial<'_>) -> Tried {
    trial.python(PIP_CHECK).await?.is("0")
}

pub(in crate::verify) async fn code_installs(trial: &Trial<'_>) -> Tried {
    trial.python(INSTALL).await?.is("42")
}

pub(in crate::verify) async fn no_secret_in_files(trial: &Trial<'_>) -> Tried {
    no_finding(trial.files().await?, "secret ")
}

pub(in crate::verify) async fn files_have_owners(trial: &Trial<'_>) -> Tried {
    no_finding(trial.files().await?, "owner ")
}

fn no_finding(found: &Exec, kind: &str) -> Tried {
    if found.code != 0 {
        let last = found.output.trim().lines().last().unwrap_or_default();
        return Err(format!("they cannot be looked through: {last}").into());
    }
    let findings: Vec<_> = found.output.lines().filter_map(|line| line.strip_prefix(kind)).collect();
    if findings.is_empty() { Ok(()) } else { Err(findings.join("; ").into()) }
}

pub(in crate::verify) async fn health_check_passes(trial: &Trial<'_>) -> Tried {
    let command: Vec<_> = match trial.subject.image.health.as_slice() {
        [kind, command @ ..] if kind == "CMD" => command.iter().map(String::as_str).collect(),
        [kind, line] if kind == "CMD-SHELL" => vec!["/bin/sh", "-c", line],
        _ => return Err("the image has none".into()),
    };
    let ended = trial.container.exec("", &command).await?;
    if ended.code == 0 { Ok(()) } else { Err(ended.output.trim().into()) }
}

/// Kills one server after the other's answer.
pub(in crate::verify) async fn end_of_a_server_is_the_end(trial: &Trial<'_>) -> Tried {
    servers_answer(trial).await?;
    let ended = trial.container.exec("0:0", &["/bin/sh", "-c", KILL_FIRST]).await?;
    if ended.output.trim() == "alone" && trial.subject.ports.len() == 1 {
        return Ok(());
    }
    if ended.code != 0 {
        return Err(format!("its first server cannot be found: {}", ended.output.trim()).into());
    }
    let begun = Instant::now();
    loop {
        // An engine elsewhere may take its time to answer.
        let is_late = begun.elapsed() > STOP;
        if trial.container.ended().await?.is_some() {
            return Ok(());
        }
        if is_late {
            return Err(Fault::from("the container lives on, and half of it is dead"));
        }
        sleep(Duration::from_millis(50)).await;
    }
}

pub(in crate::verify) async fn sigterm_ends_it(trial: &Trial<'_>) -> Tried {
    let took = trial.container.stop().await?;
    if took < STOP { Ok(()) } else { Err(format!("it takes {:.1} s", took.as_secs_f64()).into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_told_by_names_and_addresses() {
        for text in
            ["API_KEY=x", "ENV MY_TOKEN=abc", "x https://user:pass@host.invalid/simple y", "--password=1"]
        {
            assert!(secret_in(text).is_some(), "for {text}");
        }
        for text in [
            "PATH=/a:/b",
            "GPG_KEY=A035",
            "TOKEN=",
            "https://host.invalid/a@b:c",
            "git@host.invalid:a/b",
            "TOKENIZERS_PARALLELISM=false",
            "MAX_TOKENS=4096",
            "password:hunter2==",
        ] {
            assert_eq!(secret_in(text), None);
        }
    }
}
