//! What a sandbox may reach, where that is restricted, by the firewall of images of this program.
//!
//! Rules belong to the network of one start of a container: whoever starts it again, however, has none. So they leave a sign
//! in that network, which nobody in the container can set; what runs there waits for it, and nothing is run without it.

use std::time::Duration;

use tokio::time::timeout;

use super::end::PATIENCE;
use super::settings::{Brought, SETTINGS_LABEL, Settings};
use super::{SandboxError, words};
use crate::engine::{Engine, EngineError, Image, LastingContainer, Run, Spec};

/// What a container takes at most that does one thing for another.
pub(super) const SHORT: Duration = Duration::from_secs(600);

/// The label of containers that set the rules of another.
const LABEL: &str = "ipybox.firewall";

/// Sets the rules, and then the sign: an address of the loopback, the last four arguments of `pack`.
const SET: &str = "\
    /usr/local/bin/init-firewall.sh \"$@\" && exec /opt/ipybox/server/bin/python -I -c '\
import fcntl, socket, struct
address = struct.pack(\"16sHH4B8x\", b\"lo:ipybox\", socket.AF_INET, 0, 127, 105, 112, 121)
SIOCSIFADDR = 0x8916
fcntl.ioctl(socket.socket(socket.AF_INET, socket.SOCK_DGRAM), SIOCSIFADDR, address)'";

/// A function of the shell that tells whether the sign is there. It needs no other program.
macro_rules! is_set {
    () => {
        "is_set() { while IFS= read -r line; do case $line in *' 127.105.112.121') return 0 ;; esac; \
         done </proc/net/fib_trie; return 1; }; "
    };
}

/// Waits for the rules, and becomes the command.
const AWAIT: &str = concat!(
    is_set!(),
    "trap 'exit 143' TERM INT; until is_set; do /bin/sleep 0.05; done; trap - TERM INT; exec \"$@\""
);

/// Ends a command before it begins, where there are no rules.
pub(super) const GUARD: &str = concat!(
    is_set!(),
    "is_set || { echo 'ipybox: what the sandbox may reach is not restricted yet, since others than \
     `ipybox sandbox up` started it; call that' >&2; exit 125; }; "
);

/// A command that begins once the rules are in force.
pub(super) fn awaiting(command: Vec<String>) -> Vec<String> {
    [words(&["/bin/sh", "-c", AWAIT, "sh"]), command].concat()
}

/// Whether what a sandbox may reach is restricted.
#[must_use]
pub(super) fn is_restricted(container: &LastingContainer) -> bool {
    let settings = container.labels.get(SETTINGS_LABEL).map(|settings| serde_json::from_str(settings));
    let allowed =
        settings.and_then(Result::ok).map(|settings: serde_json::Value| settings["allowed"].clone());
    allowed.is_some_and(|allowed| allowed.as_array().is_none_or(|allowed| !allowed.is_empty()))
}

/// Whether the rules of a container are in force, where it has any.
///
/// # Errors
///
/// [`EngineError`].
pub async fn is_in_force(engine: &Engine, container: &LastingContainer) -> Result<bool, EngineError> {
    if !is_restricted(container) {
        return Ok(true);
    }
    let command = words(&["/bin/sh", "-c", GUARD]);
    let asked = engine.ran(Run { container: &container.id, command, ..Run::default() });
    let asked = timeout(PATIENCE, asked).await;
    Ok(matches!(asked.unwrap_or(Ok(None))?, Some((0, _))))
}

/// Sets the rules of a running container, where it has any: anew each time, since domains move. It takes a container of its
/// own beside that one, which has no capabilities. Where it fails, the rules are what they were. Returns what could not be
/// heeded of them.
///
/// # Errors
///
/// [`SandboxError::Firewall`].
pub(super) async fn restrict(
    engine: &Engine,
    id: &str,
    image: &Image,
    settings: &Settings,
    brought: &Brought,
) -> Result<Vec<String>, SandboxError> {
    if settings.allowed.is_empty() {
        return Ok(Vec::new());
    }
    let ports: Vec<String> = brought.ports.iter().map(u16::to_string).collect();
    let options = ["--executor-port", "--resource-port"].into_iter().zip(&ports);
    let options = options.flat_map(|(option, port)| [option, port.as_str()]);
    let allowed = settings.allowed.iter().map(String::as_str);
    let command: Vec<&str> = ["/bin/sh", "-c", SET, "sh"].into_iter().chain(allowed).chain(options).collect();
    let spec = Spec {
        label: LABEL,
        command: Some(&command),
        user: Some("0:0"),
        capabilities: &["NET_ADMIN", "NET_RAW"],
        beside: Some(id),
        longest: Some(SHORT),
        ..Spec::default()
    };
    let restricted = engine.with_container(&image.id, spec, async |container| {
        let output = container.output().await;
        let words = container.last_words().await.unwrap_or_default();
        output.map(|output| (output.code, words))
    });
    match Box::pin(restricted).await? {
        Ok((0, words)) => {
            Ok(words.lines().filter_map(|line| Some(line.split_once("warning: ")?.1.to_owned())).collect())
        }
        Ok((127, _)) => Err(SandboxError::Firewall("the image has no firewall".to_owned())),
        Ok((_, words)) => Err(SandboxError::Firewall(words)),
        Err(error) if error.to_string().contains("start a container") => {
            Err(SandboxError::Firewall("the image has no firewall".to_owned()))
        }
        Err(error) => Err(error.into()),
    }
}
