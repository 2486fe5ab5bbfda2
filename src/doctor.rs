//! Whether this host is able to build, and what to mend.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde::Serialize;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::archive::Archive;
use crate::base::{Base, BaseError, Platform};
use crate::diagnostic::{Diagnostic, Fix};
use crate::engine::{
    Build, Builder, Choice, Container, Engine, EngineError, Image, Info, KnownEngines, Spec,
};
use crate::image::{context, dockerfile};
use crate::inputs::trust::TrustError;
use crate::installer;
use crate::installer::words::Cause;
use crate::plan::{Installer, PackageIndex};
use crate::reference::Reference;
use crate::supply::Supplies;

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// As it should be.
    Ok,
    /// Builds work, but not as well as they could.
    Warning,
    /// Builds do not work.
    Error,
    /// Nor here, and only the network is at fault.
    Unreachable,
    /// It needs what another check misses.
    NotTried,
}

/// What came of a check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub name: &'static str,
    /// How it is.
    pub state: State,
    /// What was found.
    pub message: String,
    /// What to do; empty where nothing is to be done.
    pub fix: String,
}

/// What is looked at.
pub struct Subject<'a> {
    /// Which engine is meant.
    pub choice: Choice,
    /// The image that builds begin with.
    pub base: Reference,
    /// The folder for what need not be asked or fetched twice.
    pub cache: &'a Path,
    /// What its steps get.
    pub supplies: Supplies,
    /// Why they do not get the certificates they should.
    pub distrust: Option<TrustError>,
    /// The package indexes that somebody names.
    pub indexes: Vec<PackageIndex>,
    /// Why it is not known which ones are asked, or what they want to know.
    pub unknown: Option<Diagnostic>,
    /// The network of its steps, where it is not the engine's default.
    pub network: Option<&'static str>,
    /// The installer that is used in place of the pinned one.
    pub program: Option<&'a Path>,
}

/// Room that builds of the larger variants need, in the engine and in the cache, in kilobytes.
const ROOM: u64 = 4 << 20;
const CACHE_ROOM: u64 = 256 << 10;

/// From here on clocks that differ spoil the validity of certificates, and what is newer than what.
const DRIFT: Duration = Duration::from_secs(60);

/// Longest wait for a container that tells the time.
const PATIENCE: Duration = Duration::from_secs(60);

/// Storage that copies whole files, or asks another process for each.
const SLOW: [&str; 3] = ["vfs", "fuse-overlayfs", "devicemapper"];

/// The names of the checks that need an engine, in their order.
const OF_ENGINE: [&str; 4] = ["version", "builder", "storage", "base"];
const OF_BASE: [&str; 4] = ["clock", "disk space", "installer", "package index"];

/// The title of the step that asks the index.
const QUESTION: &str = "ask the package index";

/// Looks at everything, and tells of each check as it ends.
///
/// # Errors
///
/// [`EngineError::Interrupted`].
pub async fn examine(
    subject: Subject<'_>,
    interrupt: CancellationToken,
    mut tell: impl FnMut(&Finding),
) -> Result<Vec<Finding>, EngineError> {
    let mut findings = Vec::new();
    let mut note = |finding: Finding| {
        tell(&finding);
        findings.push(finding);
    };
    note(cache_folder(subject.cache));
    note(certificates(&subject));
    note(credentials(&subject));
    let engine = match subject.choice.candidates() {
        Ok(candidates) => {
            Engine::connect(candidates, subject.choice.auth_files(), &KnownEngines::default(), interrupt)
                .await
                .map_err(|error| match error {
                    EngineError::Interrupted => Err(error),
                    error => Ok(Finding::of("engine", &error)),
                })
        }
        Err(error) => {
            let what = Diagnostic::new(error.what).why(error.why).advice(error.advice);
            Err(Ok(Finding::refused("engine", State::Error, what)))
        }
    };
    let engine = match engine {
        Ok(engine) => engine,
        Err(refused) => {
            note(refused?);
            for name in OF_ENGINE.into_iter().chain(OF_BASE) {
                note(Finding::not_tried(name, "no engine answers"));
            }
            return Ok(findings);
        }
    };
    match engine.info().await {
        Ok(info) => of_info(&info).into_iter().for_each(&mut note),
        Err(error) => note(Finding::of("engine", &error)),
    }
    let (finding, image) = base(&engine, &subject.base).await?;
    note(finding);
    let Some(image) = image else {
        for name in OF_BASE {
            note(Finding::not_tried(name, "the base is not there yet"));
        }
        return Ok(findings);
    };
    for finding in Box::pin(in_container(&engine, &image)).await? {
        note(finding);
    }
    let (finding, installer) = installer(&engine, &image, &subject).await?;
    note(finding);
    note(match installer {
        Some(installer) => Box::pin(index(&engine, &subject, &installer)).await?,
        None => Finding::not_tried("package index", "the installer is not there"),
    });
    Ok(findings)
}

impl Finding {
    fn new(name: &'static str, state: State, message: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { name, state, message: message.into(), fix: fix.into() }
    }

    /// The same with texts as `tell` makes them.
    #[must_use]
    pub fn told(&self, tell: impl Fn(&str) -> String) -> Self {
        Self::new(self.name, self.state, tell(&self.message), tell(&self.fix))
    }

    fn ok(name: &'static str, message: impl Into<String>) -> Self {
        Self::new(name, State::Ok, message, "")
    }

    fn not_tried(name: &'static str, why: &str) -> Self {
        Self::new(name, State::NotTried, why, "")
    }

    fn refused(name: &'static str, state: State, diagnostic: Diagnostic) -> Self {
        let Diagnostic { what, why, fix, .. } = diagnostic;
        let message = if why.is_empty() { what } else { format!("{what}: {why}") };
        let fix = match fix {
            Some(Fix::Advice(text) | Fix::Replace(text)) => text,
            None => String::new(),
        };
        Self::new(name, state, message, fix)
    }

    fn of(name: &'static str, error: &EngineError) -> Self {
        let state = if error.is_worth_a_retry() { State::Unreachable } else { State::Error };
        Self::refused(name, state, error.diagnostic())
    }
}

fn cache_folder(folder: &Path) -> Finding {
    const NAME: &str = "cache folder";
    let place = folder.display();
    let made = std::fs::create_dir_all(folder).and_then(|()| tempfile::tempfile_in(folder));
    if let Err(error) = made {
        let fix = format!("sudo chown -R \"$(id -u)\" '{place}', or give another with --cache-dir");
        return Finding::new(NAME, State::Error, format!("{place}: {error}"), fix);
    }
    let free = rustix::fs::statvfs(folder).map(|found| (found.f_bavail * found.f_frsize) >> 10);
    match free {
        Ok(free) if free < CACHE_ROOM => Finding::new(
            NAME,
            State::Warning,
            format!("{place}: {} are left", megabytes(free)),
            format!("make room there, or give another folder with --cache-dir (du -sh '{place}')"),
        ),
        _ => Finding::ok(NAME, place.to_string()),
    }
}

fn certificates(subject: &Subject<'_>) -> Finding {
    const NAME: &str = "certificates";
    match (&subject.distrust, &subject.supplies.certificates) {
        (Some(error), _) => Finding::refused(NAME, State::Error, error.diagnostic()),
        (None, Some(bundle)) => {
            let count = String::from_utf8_lossy(bundle).matches("BEGIN CERTIFICATE").count();
            Finding::ok(NAME, format!("{count} reach build steps, beside those of the base"))
        }
        (None, None) => Finding::ok(NAME, "those of the base"),
    }
}

fn credentials(subject: &Subject<'_>) -> Finding {
    const NAME: &str = "credentials";
    if let Some(why) = &subject.unknown {
        return Finding::refused(NAME, State::Error, why.clone());
    }
    let credentials = &subject.supplies.credentials;
    if let Some(path) = &credentials.readable {
        let message = format!("others can read the passwords in {}", path.display());
        return Finding::new(NAME, State::Warning, message, format!("chmod 600 '{}'", path.display()));
    }
    let hosts: Vec<_> = credentials.hosts().collect();
    let message = match (hosts.as_slice(), subject.indexes.len()) {
        ([], 0) => "none needed: no package index is named".to_owned(),
        ([], _) => "none for the package indexes that are named".to_owned(),
        (hosts, _) => format!("for {}", hosts.join(", ")),
    };
    Finding::ok(NAME, message)
}

fn of_info(info: &Info) -> [Finding; 4] {
    let podman = info.builder == Builder::Classic;
    let numbers: Vec<u32> = info.version.split('.').map_while(|part| part.parse().ok()).collect();
    let oldest: [u32; 2] = if podman { [4, 3] } else { [20, 10] };
    let engine = if podman { "podman" } else { "Docker" };
    let version = format!("{engine} {}", info.version);
    [
        Finding::ok("engine", format!("{engine} answers at {}", info.host)),
        if numbers.as_slice() < oldest.as_slice() {
            let [major, minor] = oldest;
            Finding::new(
                "version",
                State::Error,
                version,
                format!("install {engine} {major}.{minor} or newer"),
            )
        } else {
            Finding::ok("version", version)
        },
        match info.builder {
            Builder::BuildKit => Finding::ok("builder", "BuildKit"),
            Builder::Classic => Finding::new(
                "builder",
                State::Warning,
                "podman's own, which has no secrets: credentials of indexes cannot reach builds",
                "use an engine of Docker where builds need a password (--host, --context)",
            ),
        },
        if SLOW.contains(&info.storage.as_str()) {
            Finding::new(
                "storage",
                State::Warning,
                format!("{}, on which builds take several times as long as on overlay2", info.storage),
                "let the engine store images with overlay2 (\"storage-driver\" in /etc/docker/daemon.json), on ext4 or xfs",
            )
        } else {
            Finding::ok("storage", info.storage.clone())
        },
    ]
}

async fn base(engine: &Engine, base: &Reference) -> Result<(Finding, Option<Image>), EngineError> {
    const NAME: &str = "base";
    match engine.image(&base.to_string()).await {
        Ok(Some(image)) => return Ok((Finding::ok(NAME, format!("{base} is there")), Some(image))),
        Ok(None) => {}
        Err(error) => return Ok((Finding::of(NAME, &error), None)),
    }
    if engine.builder() == Builder::Classic {
        let message = format!("{base} is not there, and podman cannot be asked for it without a pull");
        return Ok((Finding::new(NAME, State::NotTried, message, format!("podman pull {base}")), None));
    }
    Ok(match engine.can_pull(base).await {
        Ok(()) => {
            let message = format!("{base} is not there yet, and its registry has it");
            (Finding::new(NAME, State::Ok, message, format!("docker pull {base}")), None)
        }
        Err(EngineError::Interrupted) => return Err(EngineError::Interrupted),
        Err(error) => (Finding::of(NAME, &error), None),
    })
}

/// The clock and the disk of the engine, as a container has them.
async fn in_container(engine: &Engine, image: &Image) -> Result<[Finding; 2], EngineError> {
    let command = ["/bin/sh", "-c", "date +%s; df -Pk / | tail -n 1"];
    let spec = Spec {
        label: "ipybox.doctor",
        command: Some(&command),
        user: Some("0:0"),
        is_locked: true,
        ..Spec::default()
    };
    let before = now();
    let work = async |container: &mut Container| timeout(PATIENCE, container.output()).await;
    let ran = Box::pin(engine.with_container(&image.id, spec, work)).await;
    let after = now();
    let output = match ran {
        Ok(Ok(Ok(ran))) => ran.output,
        Ok(Ok(Err(error))) => return Ok(["clock", "disk space"].map(|name| Finding::of(name, &error))),
        Ok(Err(_)) => {
            let why = "a container of the base does not end";
            return Ok(["clock", "disk space"].map(|name| Finding::not_tried(name, why)));
        }
        Err(EngineError::Interrupted) => return Err(EngineError::Interrupted),
        Err(error) => return Ok(["clock", "disk space"].map(|name| Finding::of(name, &error))),
    };
    let mut lines = output.lines();
    let clock = lines.next().and_then(|line| line.trim().parse().ok()).map(Duration::from_secs);
    let free = lines.next().and_then(|line| line.split_whitespace().nth(3)?.parse().ok());
    Ok([
        clock.map_or_else(
            || Finding::not_tried("clock", "the base has no `date`"),
            |told| drift(told, before, after),
        ),
        free.map_or_else(|| Finding::not_tried("disk space", "the base has no `df`"), room),
    ])
}

/// Since 1970.
fn now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

fn drift(told: Duration, before: Duration, after: Duration) -> Finding {
    let drift =
        before.saturating_sub(told.saturating_add(Duration::from_secs(1))).max(told.saturating_sub(after));
    if drift > DRIFT {
        return Finding::new(
            "clock",
            State::Warning,
            format!("those of the engine and of this host are {} s apart", drift.as_secs()),
            "let both ask a time server (timedatectl set-ntp true); restart the machine of a desktop engine",
        );
    }
    Finding::ok("clock", "as this host's")
}

fn room(free: u64) -> Finding {
    if free < ROOM {
        let state = if free < ROOM / 8 { State::Error } else { State::Warning };
        let message = format!("{} are left where the engine keeps images", megabytes(free));
        return Finding::new(
            "disk space",
            state,
            message,
            "docker system df, and remove what is no longer used: docker builder prune",
        );
    }
    Finding::ok("disk space", format!("{} are left", megabytes(free)))
}

fn megabytes(kilobytes: u64) -> String {
    format!("{} MB", kilobytes >> 10)
}

async fn installer(
    engine: &Engine,
    image: &Image,
    subject: &Subject<'_>,
) -> Result<(Finding, Option<Installer>), EngineError> {
    const NAME: &str = "installer";
    let platform = Platform { os: image.os.clone(), architecture: image.architecture.clone() };
    let Some(installer) = Installer::of(&platform) else {
        let message = format!("uv is not known for {}/{}", image.os, image.architecture);
        let fix = "give one with --uv PROGRAM";
        return Ok((Finding::new(NAME, State::Error, message, fix), None));
    };
    let is_there = match engine.image(&installer.private_tag().to_string()).await {
        Ok(found) => found.is_some(),
        Err(error) => return Ok((Finding::of(NAME, &error), None)),
    };
    if subject.program.is_none() && is_there {
        return Ok((Finding::ok(NAME, installer.to_string()), Some(installer)));
    }
    let had = match subject.program {
        Some(program) => {
            installer.clone().with_program(program).map(|installer| (installer, program.to_owned()))
        }
        None => engine
            .unless_interrupted(installer.obtain(subject.cache))
            .await?
            .map(|program| (installer.clone(), program)),
    };
    let (installer, program) = match had {
        Ok(had) => had,
        Err(error) => {
            let state = if error.is_worth_a_retry() { State::Unreachable } else { State::Error };
            return Ok((Finding::refused(NAME, state, error.diagnostic()), None));
        }
    };
    let tag = installer.private_tag();
    let loaded = async {
        if engine.image(&tag.to_string()).await?.is_none() {
            let files = installer::image(&program)
                .map_err(|error| EngineError::Context(std::io::Error::other(error.to_string())))?;
            engine.import(files, &tag).await?;
        }
        Ok(())
    };
    Ok(match loaded.await {
        Ok(()) => (Finding::ok(NAME, installer.to_string()), Some(installer)),
        Err(EngineError::Interrupted) => return Err(EngineError::Interrupted),
        Err(error) => (Finding::of(NAME, &error), None),
    })
}

/// Asks the index as builds do: from a step, with its certificates and proxies.
async fn index(
    engine: &Engine,
    subject: &Subject<'_>,
    installer: &Installer,
) -> Result<Finding, EngineError> {
    const NAME: &str = "package index";
    let python = match Base::of(engine, &subject.base, subject.cache).await {
        Ok(Some(base)) => base.pythons.into_iter().next().map(|python| python.interpreter.path),
        Ok(None) => None,
        Err(BaseError::Engine(error)) => return Ok(Finding::of(NAME, &error)),
        Err(error) => return Ok(Finding::refused(NAME, State::Error, error.diagnostic())),
    };
    let Some(python) = python else {
        return Ok(Finding::not_tried(NAME, "the base has no Python to ask it for"));
    };
    if let Some(refusal) = subject.supplies.refusal(engine.builder()) {
        return Ok(Finding::refused(NAME, State::Error, refusal));
    }
    let (base, nonce) = (subject.base.to_string(), rand::random());
    let kind = subject.supplies.kind(engine.builder());
    let dockerfile = match dockerfile::question(
        &base,
        &python,
        installer,
        QUESTION,
        nonce,
        installer::replaces_own(&subject.indexes),
        kind,
    ) {
        Ok(dockerfile) => dockerfile,
        Err(error) => return Ok(Finding::refused(NAME, State::Error, error.diagnostic())),
    };
    let mut files = Archive::default();
    files.add("Dockerfile", dockerfile);
    files.add(context::INDEX, installer::index_settings(&subject.indexes));
    let network = subject.network;
    let mut build = Build { network, titles: vec![QUESTION.to_owned()], ..Build::of(files) };
    subject.supplies.bring(engine.builder(), &mut build);
    match Box::pin(engine.build(build, |_| {})).await {
        Ok(image) => {
            engine.remove_image(&image).await?;
            Ok(Finding::ok(NAME, "it answers a container"))
        }
        Err(EngineError::Interrupted) => Err(EngineError::Interrupted),
        Err(EngineError::Step { output, .. }) => Ok(explained(&output, !subject.supplies.proxies.is_empty())),
        Err(error) => Ok(Finding::of(NAME, &error)),
    }
}

/// What the installer said, as something to mend.
fn explained(output: &[String], has_proxies: bool) -> Finding {
    const NAME: &str = "package index";
    let refused = |state, what: &str, fix: &str| Finding::new(NAME, state, what, fix);
    match Cause::of(output) {
        Some(Cause::Certificate) => refused(
            State::Error,
            "a container does not trust its certificate, as behind a proxy of a company",
            "export SSL_CERT_FILE=/path/of/the/certificates.pem, or give them with --ca-cert",
        ),
        Some(Cause::Denied { .. }) => refused(
            State::Error,
            "it asks who wants to know",
            "machine HOST login USER password PASSWORD in ~/.netrc, or correct what is there",
        ),
        Some(Cause::DiskFull) => {
            refused(State::Error, "the engine has no space left", "docker builder prune")
        }
        Some(Cause::Unreachable { address }) => {
            let mut message = "it does not answer a container".to_owned();
            if let Some(address) = address {
                let _ = write!(message, " at {address}");
            }
            let fix = if has_proxies {
                "compare HTTPS_PROXY and NO_PROXY; localhost in them is the container itself, unless builds have --network host"
            } else {
                "where a proxy is needed: export HTTPS_PROXY=http://proxy.example:3128; else look at the engine's network and DNS"
            };
            refused(State::Unreachable, &message, fix)
        }
        _ => {
            let last = output.iter().rev().find(|line| !line.trim().is_empty());
            refused(State::Error, last.map_or("it cannot be asked", |line| line.trim()), "")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use State::{Error, Ok, Warning};

    fn info(version: &str, builder: Builder, storage: &str) -> Vec<(&'static str, State)> {
        let (host, folder) = ("unix:///x".to_owned(), "/var/lib/docker".to_owned());
        let (version, storage) = (version.to_owned(), storage.to_owned());
        let info = Info { host, folder, version, builder, storage, processors: 2 };
        of_info(&info).into_iter().map(|finding| (finding.name, finding.state)).collect()
    }

    #[test]
    fn engines_are_told_by_what_they_say() {
        let states = |version, builder, storage| {
            info(version, builder, storage).into_iter().map(|(_, state)| state).collect::<Vec<_>>()
        };
        assert_eq!(states("20.10.24+dfsg1", Builder::BuildKit, "overlay2"), [Ok, Ok, Ok, Ok]);
        assert_eq!(states("28.5.2", Builder::BuildKit, "vfs"), [Ok, Ok, Ok, Warning]);
        assert_eq!(states("19.3.1", Builder::BuildKit, "fuse-overlayfs"), [Ok, Error, Ok, Warning]);
        assert_eq!(states("4.3.1", Builder::Classic, "overlay"), [Ok, Ok, Warning, Ok]);
        assert_eq!(states("3.4.4", Builder::Classic, "overlay"), [Ok, Error, Warning, Ok]);
        let names = info("28.5.2", Builder::BuildKit, "overlay2").into_iter().map(|(name, _)| name);
        assert_eq!(names.skip(1).collect::<Vec<_>>(), OF_ENGINE[..3]);
    }

    #[test]
    fn clocks_and_disks_are_measured() {
        let at = Duration::from_secs;
        assert_eq!(drift(at(1000), at(1000), at(1002)).state, State::Ok);
        assert_eq!(drift(at(1030), at(1000), at(1002)).state, State::Ok);
        let ahead = drift(at(5002), at(1000), at(1002));
        assert!(ahead.state == State::Warning && ahead.message.contains("4000 s apart"), "{}", ahead.message);
        assert_eq!(drift(at(0), at(1000), at(1002)).state, State::Warning);
        let states = [ROOM * 2, ROOM - 1, ROOM / 8 - 1, 0].map(|free| room(free).state);
        assert_eq!(states, [State::Ok, State::Warning, State::Error, State::Error]);
    }

    #[test]
    fn what_the_installer_says_is_told_as_something_to_mend() {
        let told = |line: &str, has_proxies| {
            let finding = explained(&[line.to_owned()], has_proxies);
            (finding.state, finding.fix)
        };
        let (state, fix) = told("error: invalid peer certificate: UnknownIssuer", false);
        assert!(state == State::Error && fix.contains("SSL_CERT_FILE"), "{fix}");
        let (state, fix) = told("error sending request for url (https://host.invalid/simple/)", false);
        assert!(state == State::Unreachable && fix.contains("export HTTPS_PROXY"), "{fix}");
        let (state, fix) = told("error sending request for url (https://host.invalid/simple/)", true);
        assert!(state == State::Unreachable && fix.contains("NO_PROXY"), "{fix}");
        let (state, _) =
            told("HTTP status client error (401 Unauthorized) for url (https://host.invalid/)", false);
        assert_eq!(state, State::Error);
        assert_eq!(told("No space left on device", false).1, "docker builder prune");
    }
}
