//! Long-lived containers for agents, one for each user of a project. What is agreed on is in the engine: names, which it
//! gives once, and labels.

mod end;
mod owner;
mod settings;

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use crate::diagnostic::Diagnostic;
use crate::engine::{Engine, EngineError, Image, Inspected, Lasting, LastingContainer, Spec};
pub use end::{Command, Idle, end, idle};
pub use owner::{Owner, PROJECT_LABEL, USER_LABEL, filter, image_of, name_in};
pub use settings::{Brought, IMAGE_LABEL, SETTINGS_LABEL, Settings, differences};

/// A sandbox that is ready.
#[derive(Debug, Clone)]
pub struct Up {
    /// The container.
    pub inspected: Inspected,
    /// What was done to have it.
    pub outcome: Outcome,
    /// Why another container was replaced.
    pub why: Vec<String>,
}

/// What was done to have a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing: it ran.
    Running,
    /// It was there, and was started.
    Started,
    /// It was made.
    Created,
    /// It was made in place of another.
    Replaced,
}

impl Outcome {
    /// In a word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Started => "started",
            Self::Created => "created",
            Self::Replaced => "replaced",
        }
    }
}

/// Why there is no sandbox.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The engine refuses something.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A container of somebody else has the name.
    #[error("the container `{0}` is none of this program")]
    Taken(String),
    /// Its command has ended.
    #[error("the container ended by itself{}", code.map(|code| format!(", with exit code {code}")).unwrap_or_default())]
    Ended {
        /// How.
        code: Option<i64>,
        /// What its image is for, such as `linux/amd64`.
        platform: String,
        /// The last lines it wrote.
        lines: Vec<String>,
    },
    /// It is not ready in time, or says that it never will be.
    #[error("the container is not ready after {} s", after.as_secs())]
    NotReady {
        /// How long that was waited for.
        after: Duration,
        /// What it is waited for.
        what: String,
        /// The last lines it wrote.
        lines: Vec<String>,
    },
    /// What it may reach cannot be restricted.
    #[error("what the container may reach cannot be restricted")]
    Firewall(String),
    /// Others replace it all the time.
    #[error("other callers replace the container as often as it is made")]
    Contended,
}

impl SandboxError {
    /// The refusal.
    #[must_use]
    pub fn diagnostic(&self) -> Diagnostic {
        let what = Diagnostic::new(self.to_string());
        match self {
            Self::Engine(error) => error.diagnostic(),
            Self::Taken(_) => what.advice("remove or rename it, if it is of no use"),
            Self::Ended { lines, platform, .. }
                if lines.iter().any(|line| line.contains(OTHER_PROCESSOR)) =>
            {
                let why =
                    format!("its program is for another processor; the image says that it is for {platform}");
                what.why(why).advice("take an image for the engine's processor, or give the engine emulation")
            }
            Self::Ended { lines, .. } => what
                .why(last_words(lines))
                .advice("give it a command that stays, such as `-- sleep infinity`"),
            Self::NotReady { what: awaited, lines, .. } => what
                .why(format!("{awaited}; {}", last_words(lines)))
                .advice("wait longer with `--wait SECONDS`, or mend the image"),
            Self::Firewall(why) => what
                .why(why.clone())
                .advice("take an image of this program with an unprivileged user, or `--network none`"),
            Self::Contended => what.advice("let all of them ask for the same image and settings"),
        }
    }
}

/// What a container wrote last, as a reason.
#[must_use]
pub fn last_words(lines: &[String]) -> String {
    if lines.is_empty() {
        "it wrote nothing".to_owned()
    } else {
        format!("its last lines:\n{}", lines.join("\n"))
    }
}

/// What is said where a program is for another processor.
const OTHER_PROCESSOR: &str = "exec format error";

/// How long one caller tries before it leaves the container to the others: an engine that is busy keeps a name for long
/// before it knows the container.
const LONGEST: Duration = Duration::from_secs(60);

/// How often it is looked whether a container is ready.
const MOMENT: Duration = Duration::from_millis(20);

/// What ends by itself has mostly done so after this.
const SETTLED: Duration = Duration::from_millis(40);

/// Lines of a container that are told where it fails.
const LINES: usize = 20;

/// The label of containers that restrict what another may reach.
const FIREWALL_LABEL: &str = "ipybox.firewall";

/// Where images of this program have their firewall.
const FIREWALL: &str = "/usr/local/bin/init-firewall.sh";

/// Gives folders that are root's and empty to somebody.
const GIVE: &str = "owner=$1; shift; for place; do \
    [ \"$(stat -c %u \"$place\")\" != 0 ] || [ -n \"$(ls -A \"$place\")\" ] || chown \"$owner\" \"$place\"; done";

/// The label of containers that do so.
pub const GIVE_LABEL: &str = "ipybox.give";

/// Has the one container of an owner with these settings: the one that is there where it will do, else a new one.
///
/// Two callers at once get the same container, since an engine gives a name once. What a killed caller left is used or
/// replaced.
///
/// # Errors
///
/// [`SandboxError`].
pub async fn up(
    engine: &Engine,
    owner: &Owner,
    settings: &Settings,
    image: &Image,
    token: &str,
    patience: Duration,
) -> Result<Up, SandboxError> {
    let brought = Brought::of(image, settings);
    let lasting = settings.container(owner, image, &brought, Some(token));
    let wanted = settings.told(image.id.as_str());
    let mut why = Vec::new();
    let begun = Instant::now();
    while begun.elapsed() < LONGEST {
        let (id, is_paused, outcome) = match engine.lasting(&lasting.name).await? {
            None => {
                engine.make_volumes(&lasting).await?;
                give(engine, image, &lasting).await?;
                match engine.make_lasting(&lasting).await? {
                    Some(id) => {
                        (id, false, if why.is_empty() { Outcome::Created } else { Outcome::Replaced })
                    }
                    None => {
                        sleep(MOMENT).await;
                        continue;
                    }
                }
            }
            Some(found) => {
                let is_running = found.is_running();
                let LastingContainer { id, state, labels, .. } = found.container;
                let Some(made_with) = labels.get(SETTINGS_LABEL) else {
                    return Err(SandboxError::Taken(lasting.name));
                };
                let differ = differences(&serde_json::from_str(made_with).unwrap_or_default(), &wanted);
                if !differ.is_empty() || !USABLE.contains(&state.as_str()) {
                    why.extend(differ);
                    engine.discard(&id).await?;
                    continue;
                }
                (id, state == "paused", if is_running { Outcome::Running } else { Outcome::Started })
            }
        };
        if outcome != Outcome::Running {
            match engine.start(&id, is_paused).await {
                Ok(true) => {}
                Ok(false) => continue,
                Err(error) => {
                    // It would not start the next time either.
                    engine.discard(&id).await?;
                    return Err(error.into());
                }
            }
        }
        let ready = ready(engine, (&id, image), outcome, (settings, &brought), patience);
        let Ok(inspected) = engine.unless_interrupted(ready).await else {
            // Whoever gives up has not asked for it; one that was there goes on.
            if matches!(outcome, Outcome::Created | Outcome::Replaced) {
                engine.discard(&id).await?;
            }
            return Err(EngineError::Interrupted.into());
        };
        return Ok(Up { inspected: inspected?, outcome, why });
    }
    Err(SandboxError::Contended)
}

/// States of containers that can be used, or started.
const USABLE: [&str; 4] = ["running", "paused", "created", "exited"];

/// Waits until a container that was started serves, and gives it what only a running one can get.
async fn ready(
    engine: &Engine,
    (id, image): (&str, &Image),
    outcome: Outcome,
    (settings, brought): (&Settings, &Brought),
    patience: Duration,
) -> Result<Inspected, SandboxError> {
    let begun = Instant::now();
    let mut is_restricted = false;
    loop {
        let inspected = engine.lasting(id).await?.ok_or(SandboxError::Contended)?;
        if !inspected.is_running() {
            let lines = engine.last_lines(id, LINES).await.unwrap_or_default();
            engine.discard(id).await?;
            let platform = format!("{}/{}", image.os, image.architecture);
            return Err(SandboxError::Ended { code: inspected.exit_code, platform, lines });
        }
        if !is_restricted {
            restrict(engine, id, image, (settings, brought)).await?;
            is_restricted = true;
        }
        let is_server = |port: &u16| brought.is_ours && brought.ports.contains(port);
        let published = inspected.container.ports.iter().filter(|(port, _)| is_server(port));
        let served: Vec<SocketAddr> = published.map(|(_, address)| *address).collect();
        let awaited = if !served.is_empty() && engine.is_local() {
            first_silent(&served).await.map(|address| format!("no server answers at {address}"))
        } else if let (true, Some(health)) = (brought.has_health, &inspected.health) {
            (health != "healthy").then(|| format!("its health check says that it is {health}"))
        } else if outcome == Outcome::Running || begun.elapsed() >= SETTLED {
            None
        } else {
            Some("it has only just begun".to_owned())
        };
        let Some(what) = awaited else { return Ok(inspected) };
        if begun.elapsed() > patience {
            let lines = engine.last_lines(id, LINES).await.unwrap_or_default();
            return Err(SandboxError::NotReady { after: patience, what, lines });
        }
        sleep(MOMENT).await;
    }
}

/// Restricts what may be reached, where that is asked for: anew each time, since domains move and a container that was
/// started again has no rules. It takes a container of its own beside that one, which has no capabilities.
async fn restrict(
    engine: &Engine,
    id: &str,
    image: &Image,
    (settings, brought): (&Settings, &Brought),
) -> Result<(), SandboxError> {
    if settings.allowed.is_empty() {
        return Ok(());
    }
    let ports: Vec<String> = brought.ports.iter().map(u16::to_string).collect();
    let options = ["--executor-port", "--resource-port"].into_iter().zip(&ports);
    let options = options.flat_map(|(option, port)| [option, port.as_str()]);
    let allowed = settings.allowed.iter().map(String::as_str);
    let command: Vec<&str> = [FIREWALL].into_iter().chain(allowed).chain(options).collect();
    let spec = Spec {
        label: FIREWALL_LABEL,
        command: Some(&command),
        user: Some("0:0"),
        capabilities: &["NET_ADMIN", "NET_RAW"],
        beside: Some(id),
        ..Spec::default()
    };
    let restricted = engine.with_container(&image.id, spec, async |container| {
        let output = container.output().await;
        let words = container.last_words().await.unwrap_or_default();
        output.map(|output| (output.code, words))
    });
    let why = match Box::pin(restricted).await? {
        Ok((0, _)) => return Ok(()),
        Ok((_, words)) => words,
        Err(error) if error.to_string().contains("start a container") => {
            "the image has no firewall".to_owned()
        }
        Err(error) => return Err(error.into()),
    };
    // Nobody uses it with more than it was asked for.
    engine.discard(id).await?;
    Err(SandboxError::Firewall(why))
}

/// Gives volumes that are new and empty to whom the container runs as: engines make them root's where the image has no
/// such folder. It takes a container of its own, since that one may not.
async fn give(engine: &Engine, image: &Image, lasting: &Lasting) -> Result<(), SandboxError> {
    let user = lasting.user.as_deref().unwrap_or(&image.user);
    if lasting.volumes.is_empty()
        || user.split(':').next().is_none_or(|user| ["", "0", "root"].contains(&user))
    {
        return Ok(());
    }
    let places = lasting.volumes.iter().map(|(_, place)| place.as_str());
    let command: Vec<&str> = ["/bin/sh", "-c", GIVE, "sh", user].into_iter().chain(places).collect();
    let spec = Spec {
        label: GIVE_LABEL,
        command: Some(&command),
        user: Some("0:0"),
        volumes: &lasting.volumes,
        ..Spec::default()
    };
    let given = engine.with_container(&image.id, spec, async |container| container.output().await);
    Box::pin(given).await??;
    Ok(())
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

/// The first of these at which no server answers HTTP.
async fn first_silent(addresses: &[SocketAddr]) -> Option<SocketAddr> {
    for address in addresses {
        if !matches!(timeout(Duration::from_secs(5), answers(*address)).await, Ok(Ok(true))) {
            return Some(*address);
        }
    }
    None
}

async fn answers(address: SocketAddr) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n").await?;
    let mut begin = [0; 5];
    stream.read_exact(&mut begin).await?;
    Ok(&begin == b"HTTP/")
}
