//! What an image must do for agents that enter it by `exec`, whatever runs in it.

use super::gateway::prints;
use super::image;
use crate::engine::Exec;
use crate::plan::{VENV, WORKDIR, WORKSPACE};
use crate::variant::Interface;
use crate::verify::Tried;
use crate::verify::trial::Trial;

/// What a container runs that is only entered.
pub(in crate::verify) const SLEEP: [&str; 3] = ["/bin/sh", "-c", "while :; do sleep 60; done"];

/// A user that no image knows, in the group that clusters give such.
pub(in crate::verify) const STRANGER: &str = "12345:0";

/// The ways in, but for `su`; a base need not have bash.
const WAYS: [&[&str]; 4] = [&["/bin/sh", "-c"], &["/bin/sh", "-lc"], &["bash", "-lc"], &["bash", "-lic"]];

/// Tells where `python` and `pip` are from.
const WHOSE: &str = "python -c 'import sys; print(sys.prefix)' && command -v pip";

pub(in crate::verify) async fn packages_are_found(trial: &Trial<'_>) -> Tried {
    let has_bash = runs(trial, "", "command -v bash").await?.code == 0;
    for way in WAYS.into_iter().filter(|way| has_bash || way[0] != "bash") {
        let command = [way, &[WHOSE]].concat();
        is_ours(&command.join(" "), &trial.container.exec("", &command).await?)?;
    }
    let name = runs(trial, "", "id -un").await?;
    let has_su = runs(trial, "", "command -v su").await?.code == 0;
    if name.code == 0 && has_su {
        let su = ["su", "-", name.output.trim(), "-c", WHOSE];
        is_ours(&su.join(" "), &trial.container.exec("0:0", &su).await?)?;
    }
    Ok(())
}

/// Whether [`WHOSE`] told of the image's own; shells without a terminal complain, before or behind it.
fn is_ours(way: &str, told: &Exec) -> Tried {
    let said = told.output.lines().filter(|line| !line.starts_with("bash: "));
    let last: Vec<&str> = said.rev().take(2).collect();
    let pip = format!("{VENV}/bin/pip");
    if told.code == 0 && last == [pip.as_str(), VENV] {
        return Ok(());
    }
    Err(format!("`{way}` finds others: {}", told.output.trim()).into())
}

pub(in crate::verify) async fn group_0_may_write(trial: &Trial<'_>) -> Tried {
    let script = format!(
        "for folder in {WORKDIR} {WORKSPACE} \"$HOME\" /tmp; do touch \"$folder/.ipybox-verify\" && rm \"$folder/.ipybox-verify\" || exit; done
         python -c 'import getpass; getpass.getuser()' 2>&1 | tail -n 1 | grep . && exit 1
         python -c 'import sysconfig; print(sysconfig.get_path(\"purelib\"))' | {{ read -r folder && test -w \"$folder\" || {{ echo \"$folder cannot be written\"; exit 1; }}; }}"
    );
    good(&runs(trial, STRANGER, &script).await?)
}

pub(in crate::verify) async fn environments_inside_see_ours(trial: &Trial<'_>) -> Tried {
    let script = "folder=$(mktemp -d) && python -m venv --without-pip --system-site-packages \"$folder/inside\" && \
                  \"$folder/inside/bin/python\" -c 'import ipykernel'";
    good(&runs(trial, "", script).await?)
}

/// Of a container that runs something else than its servers.
pub(in crate::verify) async fn others_are_healthy(trial: &Trial<'_>) -> Tried {
    image::health_check_passes(trial).await
}

/// Servers and kernels of a container whose root cannot be written, and whose user is a stranger.
pub(in crate::verify) async fn strangers_run_code(trial: &Trial<'_>) -> Tried {
    image::servers_answer(trial).await?;
    if trial.executor().is_ok() {
        return trial.python("print(1 + 1)").await?.is("2");
    }
    if trial.server(Interface::Gateway).is_err() {
        return Ok(());
    }
    prints(trial.kernel().await?, "1 + 1", "2").await
}

async fn runs(trial: &Trial<'_>, user: &str, script: &str) -> Result<Exec, crate::engine::EngineError> {
    trial.container.exec(user, &["/bin/sh", "-c", script]).await
}

fn good(ended: &Exec) -> Tried {
    if ended.code == 0 { Ok(()) } else { Err(ended.output.trim().to_owned().into()) }
}
