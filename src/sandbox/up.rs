//! How there comes to be the one container of an owner.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use super::firewall::{SHORT, restrict};
use super::{Brought, Outcome, Owner, SETTINGS_LABEL, SandboxError, Settings, Up, differences, filter};
use crate::engine::{Engine, EngineError, Image, Inspected, Lasting, LastingContainer as Container, Spec};

/// How long one caller tries before it leaves the container to the others: an engine that is busy keeps a name for long
/// before it knows the container.
const LONGEST: Duration = Duration::from_secs(60);

/// How often it is looked whether a container is ready.
const MOMENT: Duration = Duration::from_millis(20);

/// What ends by itself has mostly done so after this.
const SETTLED: Duration = Duration::from_millis(40);

/// A container that is to replace another is left over once it is so old.
const LEFT: Duration = Duration::from_secs(300);

/// How long a container that is removed may be taken for one that has ended.
const GOING: Duration = Duration::from_millis(500);

/// How a container ends that is removed: 128 and the number of SIGKILL.
const KILLED: i64 = 137;

/// Lines of a container that are told where it fails.
const LINES: usize = 20;

/// The state of containers that were never started.
const CREATED: &str = "created";

/// States of containers that can be used, or started.
const USABLE: [&str; 4] = ["running", "paused", CREATED, "exited"];

/// Gives folders to somebody that are another's, with all that is in them: themselves last, so that what was interrupted is
/// done again.
const GIVE: &str = "owner=$1; uid=$(id -u \"${1%%:*}\" 2>/dev/null) || uid=${1%%:*}; shift; \
    for place; do [ \"$(stat -c %u \"$place\")\" = \"$uid\" ] || { \
    for entry in \"$place\"/* \"$place\"/.[!.]* \"$place\"/..?*; do \
        [ ! -e \"$entry\" ] && [ ! -L \"$entry\" ] || chown -hR \"$owner\" \"$entry\"; done; \
    chown \"$owner\" \"$place\"; }; done";

/// The label of containers that do so.
pub const GIVE_LABEL: &str = "ipybox.give";

/// Has the one container of an owner with these settings: the one that is there where it will do, else a new one.
///
/// Two callers at once get the same container, since an engine gives a name once. What a killed caller left is used or
/// replaced. A container is replaced only once the new one is ready, which has another name until then.
///
/// # Errors
///
/// [`SandboxError`]; a container that was there is there still.
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
    let told = settings.told(image.id.as_str());
    let warnings = RefCell::default();
    let wanted = Wanted { engine, owner, image, settings, brought, told, patience, warnings };
    let (inspected, outcome, why) = Box::pin(wanted.had(&lasting)).await?;
    wanted.tidy().await?;
    let mut warnings = wanted.warnings.into_inner();
    warnings.dedup();
    Ok(Up { inspected, outcome, why, warnings })
}

/// What a container was before it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// It was made by this caller.
    New,
    /// It was never started.
    Unused,
    /// It is somebody's, with all that is in it.
    Used,
}

/// The container that an owner is to have.
struct Wanted<'a> {
    engine: &'a Engine,
    owner: &'a Owner,
    image: &'a Image,
    settings: &'a Settings,
    brought: Brought,
    told: Value,
    patience: Duration,
    /// What of the settings cannot be heeded today.
    warnings: RefCell<Vec<String>>,
}

impl Wanted<'_> {
    /// The container, what was done to have it, and why another was replaced.
    async fn had(&self, lasting: &Lasting) -> Result<(Inspected, Outcome, Vec<String>), SandboxError> {
        let engine = self.engine;
        let next = Lasting { name: self.owner.next_container(&self.told), ..lasting.clone() };
        let mut why = Vec::new();
        let begun = Instant::now();
        while begun.elapsed() < LONGEST {
            let Some(found) = self.found(&lasting.name).await? else {
                // Somebody may have been about to give it its name, or killed there.
                if let Some(left) = self.found(&next.name).await? {
                    let Container { id, state, .. } = &left.container;
                    if self.is_made_otherwise(&left).is_some() {
                        engine.discard(id).await?;
                    } else if let Some(ready) = self.ready(id, state, Origin::Unused).await?
                        && let Some(inspected) = self.promoted(ready, &lasting.name).await?
                    {
                        return Ok((inspected, Outcome::Created, why));
                    }
                } else if let Some(made) = self.made(lasting).await?
                    && let Some(inspected) = self.ready(&made, CREATED, Origin::New).await?
                {
                    return Ok((inspected, Outcome::Created, why));
                }
                continue;
            };
            let Container { id, state, .. } = &found.container;
            let Some(differ) = self.is_made_otherwise(&found) else {
                let origin = if found.started.is_none() { Origin::Unused } else { Origin::Used };
                if let Some(inspected) = self.ready(id, state, origin).await? {
                    let outcome = if found.is_running() { Outcome::Running } else { Outcome::Started };
                    return Ok((inspected, outcome, why));
                }
                continue;
            };
            why = differ;
            let Some(successor) = Box::pin(self.successor(&next)).await? else { continue };
            engine.discard(id).await?;
            if let Some(inspected) = self.promoted(successor, &lasting.name).await? {
                return Ok((inspected, Outcome::Replaced, why));
            }
        }
        Err(SandboxError::Contended)
    }

    /// Removes what killed callers were about to put in its place, with other settings.
    async fn tidy(&self) -> Result<(), SandboxError> {
        let Owner { project, user } = self.owner;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        for container in self.engine.all_lasting(&filter(Some(project), Some(user))).await? {
            let made = Duration::from_secs(u64::try_from(container.created).unwrap_or_default());
            let is_successor = container.name != self.owner.container();
            let is_owned = Owner::of(&container).as_ref() == Some(self.owner);
            if is_successor && is_owned && now.saturating_sub(made) > LEFT.max(self.patience * 2) {
                self.engine.discard(&container.id).await?;
            }
        }
        Ok(())
    }

    /// The one of a name that engines give once.
    async fn found(&self, name: &str) -> Result<Option<Inspected>, SandboxError> {
        let found = self.engine.lasting(name).await?;
        match &found {
            Some(other) if Owner::of(&other.container).as_ref() != Some(self.owner) => {
                Err(SandboxError::Taken(name.to_owned()))
            }
            _ => Ok(found),
        }
    }

    /// What one that is there was made with otherwise; `None` where it will do.
    fn is_made_otherwise(&self, found: &Inspected) -> Option<Vec<String>> {
        let Container { state, labels, .. } = &found.container;
        let made_with = serde_json::from_str(&labels[SETTINGS_LABEL]).unwrap_or_default();
        let differ = differences(&made_with, &self.told);
        let will_do = differ.is_empty() && USABLE.contains(&state.as_str());
        (!will_do).then_some(differ)
    }

    /// A new one that was not started; `None` where others have the name.
    async fn made(&self, lasting: &Lasting) -> Result<Option<String>, SandboxError> {
        let are_new = self.engine.make_volumes(lasting).await?;
        self.give(lasting, are_new).await?;
        let made = self.engine.make_lasting(lasting).await?;
        if made.is_none() {
            sleep(MOMENT).await;
        }
        Ok(made)
    }

    /// One that is ready to take another's place: what a killed caller left or others are making at this time, else a new one.
    async fn successor(&self, next: &Lasting) -> Result<Option<Inspected>, SandboxError> {
        let (id, state, origin) = match self.found(&next.name).await? {
            Some(found) if self.is_made_otherwise(&found).is_some() => {
                self.engine.discard(&found.container.id).await?;
                return Ok(None);
            }
            Some(found) => (found.container.id, found.container.state, Origin::Unused),
            None => match self.made(next).await? {
                Some(id) => (id, CREATED.to_owned(), Origin::New),
                None => return Ok(None),
            },
        };
        let ready = Box::pin(self.ready(&id, &state, origin)).await;
        if let Err(SandboxError::NotReady { .. }) = ready {
            // By its name: others may have found it ready, and given it its own.
            self.engine.discard(&next.name).await?;
        }
        ready
    }

    /// Gives one its name; `None` where others have that.
    async fn promoted(&self, mut ready: Inspected, name: &str) -> Result<Option<Inspected>, SandboxError> {
        if !self.engine.rename(&ready.container.id, name).await? {
            let is_named = |one: Inspected| one.container.name == name;
            if !self.engine.lasting(&ready.container.id).await?.is_some_and(is_named) {
                self.engine.discard(&self.owner.next_container(&self.told)).await?;
                return Ok(None);
            }
        }
        name.clone_into(&mut ready.container.name);
        Ok(Some(ready))
    }

    /// Starts one where it does not run, and waits until it serves; `None` where it is gone.
    async fn ready(&self, id: &str, state: &str, origin: Origin) -> Result<Option<Inspected>, SandboxError> {
        let ready = async {
            if state != "running" && !self.engine.start(id, state == "paused").await? {
                return Ok(None);
            }
            self.waited_for(id).await
        };
        let ready = match self.engine.unless_interrupted(ready).await {
            Ok(ready) => ready,
            // Whoever gives up has not asked for it; but others may just have been told that it is ready.
            Err(_) if origin == Origin::New && !self.is_ready(id).await => {
                Err(EngineError::Interrupted.into())
            }
            Err(interrupted) => return Err(interrupted.into()),
        };
        let is_hopeless = |error: &SandboxError| !matches!(error, SandboxError::NotReady { .. });
        if origin != Origin::Used && ready.as_ref().is_err_and(is_hopeless) {
            self.engine.discard(id).await?;
        }
        ready
    }

    async fn is_ready(&self, id: &str) -> bool {
        match self.engine.lasting(id).await {
            Ok(Some(inspected)) => inspected.is_running() && self.awaited(&inspected).await.is_none(),
            _ => false,
        }
    }

    /// Waits until one that was started serves, and gives it what only a running one can get.
    async fn waited_for(&self, id: &str) -> Result<Option<Inspected>, SandboxError> {
        let begun = Instant::now();
        let mut is_restricted = false;
        let mut ended: Option<Instant> = None;
        loop {
            let Some(inspected) = self.engine.lasting(id).await? else { return Ok(None) };
            if !inspected.is_running() {
                // Other callers may be about to remove it, and to make another.
                let since = ended.get_or_insert_with(Instant::now);
                if inspected.exit_code == Some(KILLED) && since.elapsed() < GOING {
                    sleep(MOMENT).await;
                    continue;
                }
                let lines = self.engine.last_lines(id, LINES).await.unwrap_or_default();
                let platform = format!("{}/{}", self.image.os, self.image.architecture);
                return Err(SandboxError::Ended { code: inspected.exit_code, platform, lines });
            }
            if !is_restricted {
                let warnings = restrict(self.engine, id, self.image, self.settings, &self.brought).await?;
                self.warnings.borrow_mut().extend(warnings);
                is_restricted = true;
            }
            let Some(what) = self.awaited(&inspected).await else { return Ok(Some(inspected)) };
            let after = begun.elapsed();
            if after > self.patience || inspected.health.as_deref() == Some("unhealthy") {
                let lines = self.engine.last_lines(id, LINES).await.unwrap_or_default();
                return Err(SandboxError::NotReady { after, what, lines });
            }
            sleep(MOMENT).await;
        }
    }

    /// What a running one is waited for.
    async fn awaited(&self, inspected: &Inspected) -> Option<String> {
        let is_server = |port: &u16| self.brought.is_ours && self.brought.ports.contains(port);
        let published = inspected.container.ports.iter().filter(|(port, _)| is_server(port));
        let served: Vec<SocketAddr> = published.map(|(_, address)| *address).collect();
        if !served.is_empty() && self.engine.is_local() {
            return first_silent(&served).await.map(|address| format!("no server answers at {address}"));
        }
        if let (true, Some(health)) = (self.brought.has_health, &inspected.health) {
            return (health != "healthy").then(|| format!("its health check says that it is {health}"));
        }
        // A clock that goes before ours keeps nobody waiting.
        let age =
            inspected.started.map(|started| SystemTime::now().duration_since(started).unwrap_or(SETTLED));
        (age.unwrap_or_default() < SETTLED).then(|| "it has only just begun".to_owned())
    }

    /// Gives volumes to whom the container runs as: engines make them root's, and fill them with what the image has in their
    /// place. It takes a container of its own, since that one may not.
    async fn give(&self, lasting: &Lasting, are_new: bool) -> Result<(), SandboxError> {
        let user = lasting.user.as_deref().unwrap_or(&self.image.user);
        let is_root = user.split(':').next().is_none_or(|user| ["", "0", "root"].contains(&user));
        if lasting.volumes.is_empty() || is_root && are_new {
            return Ok(());
        }
        let places = lasting.volumes.iter().map(|(_, place)| place.as_str());
        let owner = if user.is_empty() { "0" } else { user };
        let command: Vec<&str> = ["/bin/sh", "-c", GIVE, "sh", owner].into_iter().chain(places).collect();
        let spec = Spec {
            label: GIVE_LABEL,
            command: Some(&command),
            user: Some("0:0"),
            volumes: &lasting.volumes,
            longest: Some(SHORT),
            ..Spec::default()
        };
        let given = self.engine.with_container(&self.image.id, spec, async |container| {
            let output = container.output().await;
            let words = container.last_words().await.unwrap_or_default();
            output.map(|output| (output.code, words))
        });
        match Box::pin(given).await? {
            Ok((0, _)) => Ok(()),
            Ok((_, words)) => Err(SandboxError::Volumes(words)),
            Err(error) if error.to_string().contains("start a container") => {
                Err(SandboxError::Volumes("the image has no shell that could do so".to_owned()))
            }
            Err(error) => Err(error.into()),
        }
    }
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
