//! What a kernel gateway must do.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::image;
use crate::variant::Interface;
use crate::verify::subject::TOKEN;
use crate::verify::trial::Trial;
use crate::verify::wire::http::Server;
use crate::verify::wire::kernel::{Kernel, Until};
use crate::verify::{Fault, Tried, shortened};

/// Runs a cell that must write `expected` and nothing else.
pub(super) async fn prints(kernel: &Kernel, code: &str, expected: &str) -> Tried {
    kernel.run(code).await?.is(expected)
}

pub(in crate::verify) async fn kernel_starts(trial: &Trial<'_>) -> Tried {
    trial.kernel().await.map(|_| ())
}

pub(in crate::verify) async fn code_runs(trial: &Trial<'_>) -> Tried {
    prints(trial.kernel().await?, "print('out'); 1 + 1", "out\n2").await
}

pub(in crate::verify) async fn state_is_kept(trial: &Trial<'_>) -> Tried {
    let kernel = trial.kernel().await?;
    prints(kernel, "kept = 41", "").await?;
    prints(kernel, "kept + 1", "42").await
}

/// Sends cells behind one that fails: when its error is told, as smolagents does, and before.
pub(in crate::verify) async fn cells_after_errors_run(trial: &Trial<'_>) -> Tried {
    const TIMES: usize = 10;
    let kernel = trial.kernel().await?;
    for time in 1..=TIMES {
        let failed = kernel.connect().await?.run("1 / 0", Until::IdleOrError).await?;
        match failed.error.as_deref() {
            Some(error) if error.starts_with("ZeroDivisionError") => {}
            other => return Err(format!("expected a ZeroDivisionError, found {other:?}").into()),
        }
        let next = kernel.connect().await?.run("print('next')", Until::Idle).await?;
        let mut channels = kernel.connect().await?;
        channels.send("1 / 0").await?;
        let after_next = channels.run("print('next')", Until::Idle).await?;
        if [next, after_next].iter().any(|outcome| outcome.text != "next\n") {
            return Err(format!("the cell after error {time} of {TIMES} did not run").into());
        }
    }
    Ok(())
}

/// Lets three kernels print a hundred times each.
pub(in crate::verify) async fn short_outputs_are_complete(trial: &Trial<'_>) -> Tried {
    const TIMES: usize = 100;
    let lost = async |kernel: &Kernel| {
        let mut channels = kernel.connect().await?;
        let mut lost = 0;
        for time in 0..TIMES {
            let outcome = channels.run(&format!("print({time})"), Until::Reply).await?;
            lost += usize::from(outcome.text != format!("{time}\n"));
        }
        Ok::<_, Fault>(lost)
    };
    let [one, two, three] = trial.three_kernels().await?;
    let (one, two, three) = tokio::try_join!(lost(one), lost(two), lost(three))?;
    match one + two + three {
        0 => Ok(()),
        lost => Err(format!("{lost} of {} were lost", 3 * TIMES).into()),
    }
}

pub(in crate::verify) async fn long_output_is_complete(trial: &Trial<'_>) -> Tried {
    const BYTES: usize = 5_000_000;
    let kernel = trial.kernel().await?;
    let mut channels = kernel.connect().await?;
    let outcome = channels.run(&format!("print('x' * {BYTES})"), Until::Reply).await?;
    let found = outcome.text.bytes().filter(|&byte| byte == b'x').count();
    if found == BYTES { Ok(()) } else { Err(format!("{found} of {BYTES} bytes arrived").into()) }
}

pub(in crate::verify) async fn timeout_interrupts(trial: &Trial<'_>) -> Tried {
    let [_, kernel, _] = trial.three_kernels().await?;
    prints(kernel, "before = 7", "").await?;
    let mut channels = kernel.connect().await?;
    let request = channels.send("import time\nprint('begun')\ntime.sleep(60)").await?;
    if timeout(Duration::from_secs(1), channels.listen(&request, Until::Idle)).await.is_ok() {
        return Err("a cell that sleeps for a minute ended at once".to_owned().into());
    }
    kernel.interrupt().await?;
    let ended = timeout(Duration::from_secs(5), channels.listen(&request, Until::Idle)).await;
    let outcome = ended.map_err(|_| "the cell runs on")??;
    if !outcome.error.as_deref().is_some_and(|error| error.starts_with("KeyboardInterrupt")) {
        return Err(format!("expected a KeyboardInterrupt, found {:?}", outcome.error).into());
    }
    prints(kernel, "before", "7").await
}

pub(in crate::verify) async fn kernels_keep_apart(trial: &Trial<'_>) -> Tried {
    let keeps = async |kernel: &Kernel, number: usize| {
        prints(kernel, &format!("number = {number}"), "").await?;
        sleep(Duration::from_millis(100)).await;
        prints(kernel, "number", &number.to_string()).await
    };
    let [one, two, three] = trial.three_kernels().await?;
    tokio::try_join!(keeps(one, 1), keeps(two, 2), keeps(three, 3)).map(|_| ())
}

pub(in crate::verify) async fn kernels_end(trial: &Trial<'_>) -> Tried {
    for kernel in trial.kernels() {
        kernel.end().await?;
    }
    Ok(())
}

pub(in crate::verify) async fn token_is_asked_for(trial: &Trial<'_>) -> Tried {
    image::servers_answer(trial).await?;
    let open = trial.server(Interface::Gateway)?;
    for wrong in [None, Some("wrong".to_owned())] {
        let stranger = Server { token: wrong, ..open.clone() };
        if Kernel::start(&stranger).await.is_ok() {
            return Err("a kernel starts without the token of KG_AUTH_TOKEN".to_owned().into());
        }
    }
    let kernel = Kernel::start(&Server { token: Some(TOKEN.to_owned()), ..open }).await?;
    prints(&kernel, "1 + 1", "2").await
}

/// Lets nothing out, with the ports of the servers open.
pub(in crate::verify) async fn firewall_holds(trial: &Trial<'_>) -> Tried {
    const CONNECT: &str = "import socket, time
begun = time.monotonic()
try:
    socket.create_connection(('203.0.113.1', 80), 5)
except OSError as error:
    print(error.strerror if time.monotonic() - begun < 2 else 'it takes too long')";
    const SCRIPT: &str = "/usr/local/bin/init-firewall.sh";
    // The script knows two; where there is one server, both are its own.
    let ports = &trial.subject.ports;
    let port = |port: Option<&u16>| port.copied().unwrap_or_default().to_string();
    let (first, last) = (port(ports.first()), port(ports.last()));
    let command = [SCRIPT, "127.0.0.1", "--executor-port", &first, "--resource-port", &last];
    let ended = trial.container.exec("root", &command).await?;
    if trial.subject.is_root() {
        let refused = ended.code != 0 && ended.output.contains("container runs as root");
        return if refused {
            Ok(())
        } else {
            Err("it does not say that the container runs as root".to_owned().into())
        };
    }
    if ended.code != 0 {
        return Err(shortened(ended.output.trim()).into());
    }
    prints(trial.kernel().await?, CONNECT, "Network is unreachable\n").await
}
