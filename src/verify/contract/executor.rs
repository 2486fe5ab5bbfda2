//! What an executor server must do.

use std::time::{Duration, Instant};

use futures_util::future;
use hyper::Method;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::image;
use crate::variant::Interface;
use crate::verify::subject::TOKEN;
use crate::verify::trial::Trial;
use crate::verify::wire::executor::{Executor, Ran, WORKSPACE};
use crate::verify::wire::http::Server;
use crate::verify::{Tried, shortened};

fn expect(ran: &Ran, stdout: &str, exit_code: i32) -> Tried {
    if ran.stdout == stdout && ran.exit_code == exit_code {
        return Ok(());
    }
    let Ran { stdout: found, stderr, exit_code: code, .. } = ran;
    let found = shortened(&format!("{found:?} with exit code {code}, {stderr:?}"));
    Err(format!("expected {stdout:?} with exit code {exit_code}, found {found}").into())
}

pub(in crate::verify) async fn health_is_told(trial: &Trial<'_>) -> Tried {
    let (executor, name) = (trial.executor()?, trial.subject.executor_name());
    let health = executor.0.ask(Method::GET, "/health", "").await?.good()?;
    let health: Value = serde_json::from_slice(&health)?;
    let version = health["python_version"].as_str().unwrap_or_default();
    let right = health["status"] == "ok"
        && name.is_none_or(|name| health["executor"] == name)
        && version.starts_with("Python 3.")
        && health["package_count"].as_u64().is_some_and(|count| count > 0)
        && health["workspaces_dir"].is_string();
    if right { Ok(()) } else { Err(format!("found {health}").into()) }
}

pub(in crate::verify) async fn code_runs(trial: &Trial<'_>) -> Tried {
    let executor = trial.executor()?;
    let ran = executor.python("print('out')\n'value'").await?;
    // Servers differ in whether a line is left empty between the two.
    let lines: Vec<_> = ran.stdout.lines().filter(|line| !line.is_empty()).collect();
    expect(&Ran { stdout: lines.join("\n"), ..ran }, "out\n'value'", 0)
}

pub(in crate::verify) async fn state_is_kept(trial: &Trial<'_>) -> Tried {
    let executor = trial.executor()?;
    expect(&executor.python("kept = 41").await?, "", 0)?;
    expect(&executor.python("kept + 1").await?, "42", 0)
}

pub(in crate::verify) async fn commands_run(trial: &Trial<'_>) -> Tried {
    let executor = trial.executor()?;
    expect(&executor.bash("echo out; echo err >&2; exit 3").await?, "out\n", 3)?;
    expect(&executor.bash("pwd >here && basename \"$(cat here)\"").await?, &format!("{WORKSPACE}\n"), 0)
}

pub(in crate::verify) async fn errors_are_told(trial: &Trial<'_>) -> Tried {
    let executor = trial.executor()?;
    let ran = executor.python("1 / 0").await?;
    let told =
        ran.exit_code == 1 && ran.stderr.contains("ZeroDivisionError") && !ran.stderr.contains('\u{1b}');
    if told { expect(&executor.python("1 + 1").await?, "2", 0) } else { Err(format!("found {ran:?}").into()) }
}

pub(in crate::verify) async fn timeout_interrupts(trial: &Trial<'_>) -> Tried {
    let executor = trial.executor()?;
    expect(&executor.python("before = 7").await?, "", 0)?;
    let code = "import time\nprint('begun')\ntime.sleep(60)";
    let request = json!({ "workspace_id": WORKSPACE, "code": code, "timeout": 1 });
    let begun = Instant::now();
    let ran = executor.call("python", request).await?;
    let late = begun.elapsed() > Duration::from_secs(6);
    if late || !ran.timed_out || !ran.stdout.contains("begun") {
        return Err(format!("after {:.1} s: {ran:?}", begun.elapsed().as_secs_f64()).into());
    }
    expect(&ran, "begun", -1)?;
    expect(&executor.python("before").await?, "7", 0)
}

pub(in crate::verify) async fn timeout_kills(trial: &Trial<'_>) -> Tried {
    let executor = trial.executor()?;
    let command = "(sleep 3; touch survived) & sleep 60";
    let request = json!({ "workspace_id": WORKSPACE, "command": command, "timeout": 1 });
    let ran = executor.call("bash", request).await?;
    if !ran.timed_out || ran.exit_code != -1 {
        return Err(format!("found {ran:?}").into());
    }
    sleep(Duration::from_secs(3)).await;
    expect(&executor.bash("test ! -e survived").await?, "", 0).map_err(|_| "a child lives on".into())
}

pub(in crate::verify) async fn dead_kernels_are_replaced(trial: &Trial<'_>) -> Tried {
    let executor = trial.executor()?;
    let begun = Instant::now();
    let request = json!({ "workspace_id": "verify-dead", "code": "import os; os._exit(1)", "timeout": 60 });
    let ran = executor.call("python", request).await?;
    if ran.exit_code == 0 || begun.elapsed() > Duration::from_secs(15) {
        return Err(format!("after {:.1} s: {ran:?}", begun.elapsed().as_secs_f64()).into());
    }
    let request = json!({ "workspace_id": "verify-dead", "code": "1 + 1" });
    expect(&executor.call("python", request).await?, "2", 0)
}

pub(in crate::verify) async fn variables_are_restored(trial: &Trial<'_>) -> Tried {
    let executor = trial.executor()?;
    let code = "import os; print(os.environ.get('VERIFY_VARIABLE'))";
    let request = json!({ "workspace_id": WORKSPACE, "code": code, "env": { "VERIFY_VARIABLE": "there" } });
    expect(&executor.call("python", request).await?, "there", 0)?;
    expect(&executor.python(code).await?, "None", 0)
}

pub(in crate::verify) async fn workspaces_keep_apart(trial: &Trial<'_>) -> Tried {
    let executor = trial.executor()?;
    for outside in ["../verify", "/tmp/verify", "", "..", "a/b"] {
        let request = json!({ "workspace_id": outside, "command": "pwd" });
        let status = executor.post("bash", &request).await?.status;
        if status != 422 {
            return Err(format!("the workspace {outside:?} has HTTP status {status}").into());
        }
    }
    let in_workspace = |workspace: &str, code: &str| json!({ "workspace_id": workspace, "code": code });
    executor.call("python", in_workspace("verify-one", "mine = 1")).await?;
    let ran = executor.call("python", in_workspace("verify-two", "'mine' in globals()")).await?;
    expect(&ran, "False", 0)
}

/// Asks for 50 things in three workspaces, half of them code and half commands.
pub(in crate::verify) async fn calls_at_once(trial: &Trial<'_>) -> Tried {
    let executor = trial.executor()?;
    let call = async |number: usize| {
        let workspace = format!("verify-{}", number % 3);
        if number.is_multiple_of(2) {
            let request = json!({ "workspace_id": workspace, "code": format!("{number}") });
            expect(&executor.call("python", request).await?, &number.to_string(), 0)
        } else {
            let request = json!({ "workspace_id": workspace, "command": format!("echo {number}") });
            expect(&executor.call("bash", request).await?, &format!("{number}\n"), 0)
        }
    };
    future::try_join_all((0..50).map(call)).await.map(|_| ())
}

pub(in crate::verify) async fn kernels_end(trial: &Trial<'_>) -> Tried {
    let executor = trial.executor()?;
    for (workspace, expected) in [(WORKSPACE, "shutdown"), ("verify-nobody", "not_found")] {
        let path = format!("/kernel/shutdown?workspace_id={workspace}");
        let answer = executor.0.ask(Method::POST, &path, "").await?.good()?;
        let answer: Value = serde_json::from_slice(&answer)?;
        if answer["status"] != expected {
            return Err(format!("expected the status `{expected}`, found {answer}").into());
        }
    }
    Ok(())
}

pub(in crate::verify) async fn token_is_asked_for(trial: &Trial<'_>) -> Tried {
    image::servers_answer(trial).await?;
    let open = trial.server(Interface::Executor)?;
    let request = json!({ "workspace_id": WORKSPACE, "command": "true" });
    for (token, expected) in [(None, 401), (Some("wrong"), 401), (Some(TOKEN), 200)] {
        let executor = Executor(Server { token: token.map(str::to_owned), scheme: "Bearer", ..open.clone() });
        let status = executor.post("bash", &request).await?.status;
        if status != expected {
            return Err(format!("expected HTTP status {expected}, found {status}").into());
        }
    }
    let executor = Executor(Server { token: Some(TOKEN.to_owned()), scheme: "Bearer", ..open });
    let command = "cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n' | grep -c ^EXECUTOR_TOKEN=";
    expect(&executor.bash(command).await?, "0\n", 1).map_err(|_| "commands can read EXECUTOR_TOKEN".into())
}
