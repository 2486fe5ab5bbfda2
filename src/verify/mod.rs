//! Proves that an image runs what its clients will ask of it.

mod executor;
mod gateway;
mod http;
mod kernel;
mod resources;

use std::io;
use std::time::{Duration, Instant};

use hyper::Method;
use serde::Serialize;
use tokio::time::error::Elapsed;
use tokio::time::{sleep, timeout};

use crate::engine::{Container, Engine, EngineError, Exec, Image, Spec};
use crate::harmless::harmless;
use crate::plan::{DEPENDENCIES_LABEL, EXECUTOR_LABEL, SERVERS_PYTHON};
use crate::secret;
use crate::variant::{Interface, Placement, Server as Program, Variant, is_of_firewall};
use executor::Executor;
use http::Server;
use kernel::{Kernel, Outcome};

/// One thing that was tried.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Check {
    /// What should be.
    pub name: String,
    /// What came of it.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// How long it took.
    pub seconds: f64,
}

impl Check {
    /// Whether it came out that something is not what it should be.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        matches!(self.verdict, Verdict::Failed(_))
    }
}

/// What came of a check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", content = "detail", rename_all = "kebab-case")]
pub enum Verdict {
    /// It is so.
    Passed,
    /// It is not, and why.
    Failed(String),
    /// It could not be tried.
    NotRun,
}

/// Longest time servers may take until they answer: as long as the client of ipybox waits.
const START: Duration = Duration::from_secs(10);

/// Longest time a check may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// Longest time a container may take to stop.
const STOP: Duration = Duration::from_secs(2);

/// The capabilities the client of ipybox gives its containers, for the firewall.
const CAPABILITIES: [&str; 2] = ["NET_ADMIN", "NET_RAW"];

const IMPORTS: &str = include_str!("imports.py");
const INSTALL: &str = include_str!("install.py");
const FILES: &str = include_str!("files.py");

/// Either nothing to say, or what is wrong.
type Tried = Result<(), Fault>;

/// What is wrong, in a phrase.
type Fault = Box<dyn std::error::Error + Send + Sync>;

/// Tries an image as a variant, and tells `each` of every check as it ends.
///
/// # Errors
///
/// [`EngineError`] where the engine fails, rather than the image.
pub async fn verify(
    engine: &Engine,
    image: &Image,
    variant: &Variant,
    each: impl FnMut(&Check),
) -> Result<Vec<Check>, EngineError> {
    let mut session = Session { image, variant, checks: Vec::new(), each };
    let history = engine.history(&image.id).await?;
    session
        .check("no secret in environment and history", async { no_secret_in_configuration(image, &history) })
        .await;
    let ports = session.ports();
    let spec = Spec { label: LABEL, ports: &ports, ..Spec::default() };
    let of_client = Spec { capabilities: &CAPABILITIES, ..spec };
    let (executor, gateway) = (session.port_of(Interface::Executor), session.port_of(Interface::Gateway));
    let variable = if executor.is_some() { "EXECUTOR_TOKEN" } else { "KG_AUTH_TOKEN" };
    let env = [format!("{variable}={TOKEN}")];
    let with_token = Spec { env: &env, ..spec };
    let of_ours = session.is_of_ours();
    // Containers of their own do not wait for one another; what is tried is told in order all the same.
    let (mut ended, mut asked) = (session.aside(), session.aside());
    let main = in_container(engine, image, of_client, async |container| {
        Box::pin(session.in_container(container)).await;
    });
    let others = async {
        if of_ours {
            let end = async |container: &Container| ended.the_end_of_a_server(container).await;
            in_container(engine, image, of_client, end).await?;
            let token =
                async |container: &Container| asked.a_token_is_asked_for(container, gateway, executor).await;
            in_container(engine, image, with_token, token).await?;
        }
        Ok(())
    };
    let (main, others) = tokio::join!(main, others);
    main?;
    if session.checks.iter().any(|check| check.name == ANSWERS && check.verdict != Verdict::Passed) {
        return Ok(session.checks);
    }
    others?;
    for check in ended.checks.into_iter().chain(asked.checks) {
        session.note(check);
    }
    Ok(session.checks)
}

/// Starts a container, and lets `work` use it.
async fn in_container<T>(
    engine: &Engine,
    image: &Image,
    spec: Spec<'_>,
    work: impl AsyncFnOnce(&Container) -> T,
) -> Result<T, EngineError> {
    let worked = async |container: &mut Container| {
        container.start().await?;
        Ok(work(container).await)
    };
    Box::pin(engine.with_container(&image.id, spec, worked)).await?
}

/// The label of containers that are tried.
const LABEL: &str = "ipybox.verify";

/// What servers are told to ask for.
const TOKEN: &str = "verify-token";

const ANSWERS: &str = "servers answer";

/// What runs Python the way a client of the image does.
#[derive(Clone, Copy)]
enum Runner<'a> {
    Kernel(&'a Kernel),
    Executor(&'a Executor),
}

impl Runner<'_> {
    /// Runs code; what it writes comes without white space at its end.
    async fn run(self, code: &str) -> io::Result<Outcome> {
        let outcome = match self {
            Self::Kernel(kernel) => kernel.run(code).await?,
            Self::Executor(executor) => executor.python(code).await?.into(),
        };
        Ok(Outcome { text: outcome.text.trim_end().to_owned(), ..outcome })
    }
}

/// Runs a command of the user's as the image's user, in its working directory.
async fn command_passes(container: &Container, command: &str, expected: Option<&str>) -> Tried {
    let ended = container.exec("", &["/bin/sh", "-c", command]).await?;
    let error = (ended.code != 0).then(|| format!("exit code {}: {}", ended.code, ended.output.trim()));
    Outcome { text: ended.output, error }.has(expected)
}

/// The checks of one image so far.
struct Session<'a, F> {
    image: &'a Image,
    variant: &'a Variant,
    checks: Vec<Check>,
    each: F,
}

impl<'a, F: FnMut(&Check)> Session<'a, F> {
    /// Tries one thing, and tells whether it is so.
    async fn check(&mut self, name: &str, tried: impl Future<Output = Tried>) -> bool {
        let begun = Instant::now();
        let verdict = match timeout(PATIENCE, tried).await {
            Ok(Ok(())) => Verdict::Passed,
            // What an image says may be made for a terminal.
            Ok(Err(why)) => Verdict::Failed(shortened(&harmless(&why.to_string()))),
            Err(_) => Verdict::Failed(format!("it does not end within {} s", PATIENCE.as_secs())),
        };
        let passed = verdict == Verdict::Passed;
        self.note(Check { name: name.to_owned(), verdict, seconds: begun.elapsed().as_secs_f64() });
        passed
    }

    fn note(&mut self, check: Check) {
        (self.each)(&check);
        self.checks.push(check);
    }

    /// The ports that servers of the image listen on.
    fn ports(&self) -> Vec<u16> {
        self.variant.servers.iter().map(|server| self.port(server)).collect()
    }

    /// The port of a server in this image, whose environment may name another.
    fn port(&self, server: &Program) -> u16 {
        let pair = |variable: &String| {
            variable.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()))
        };
        server.port_in(&self.image.env.iter().filter_map(pair).collect())
    }

    fn port_of(&self, interface: Interface) -> Option<u16> {
        Some(self.port(self.variant.server(interface)?))
    }

    /// Whether the servers are this program's, and not of an image that somebody built by hand.
    fn is_of_ours(&self) -> bool {
        self.variant.packages != Placement::Inherited || self.image.labels.contains_key(EXECUTOR_LABEL)
    }

    async fn in_container(&mut self, container: &Container) {
        let ports = self.ports();
        if !self.check(ANSWERS, all_answer(container, &ports)).await {
            let rest = Check { name: "everything else".into(), verdict: Verdict::NotRun, seconds: 0.0 };
            return self.note(rest);
        }
        let server_of = |port: Option<u16>| port.and_then(|port| server(container, port).ok());
        let gateway = server_of(self.port_of(Interface::Gateway));
        if let Some(executor) = server_of(self.port_of(Interface::Executor)) {
            self.executor(&Executor(executor), container).await;
        }
        if let Some(gateway) = &gateway {
            let resources = server_of(self.port_of(Interface::Resources));
            // The two wait for different servers; what is tried is told in order all the same.
            let mut aside = self.aside();
            let files_and_tools = async {
                if let Some(resources) = &resources {
                    aside.resources(gateway, resources).await;
                }
            };
            tokio::join!(self.kernels(gateway, container), files_and_tools);
            for check in aside.checks {
                self.note(check);
            }
        }
        let python = if self.is_of_ours() { SERVERS_PYTHON } else { "python3" };
        let found = timeout(PATIENCE, container.exec("0:0", &[python, "-I", "-c", FILES])).await;
        self.check("no secret or certificate in files", async { no_finding(&found, "secret ") }).await;
        if self.is_of_ours() {
            self.check("files belong to whom they should", async { no_finding(&found, "owner ") }).await;
            self.check("the health check passes", healthy(container, &self.image.health)).await;
        }
        if let Some(gateway) = gateway.filter(|_| self.variant.apt.iter().any(|name| is_of_firewall(name))) {
            let root = is_root(self.image);
            self.check("the firewall holds", gateway::firewall_holds(container, &gateway, &ports, root))
                .await;
        }
        if self.is_of_ours() {
            self.check("SIGTERM ends it within 2 s", stops(container)).await;
        }
    }

    /// A session whose checks are told later.
    fn aside(&self) -> Session<'a, fn(&Check)> {
        Session { image: self.image, variant: self.variant, checks: Vec::new(), each: |_| {} }
    }

    async fn resources(&mut self, gateway: &Server, resources: &Server) {
        self.check("files go in and out", resources::files_go_in_and_out(resources)).await;
        self.check("sources of modules are told", resources::sources_are_told(resources)).await;
        self.check("MCP tools become functions", resources::tools_become_functions(gateway, resources)).await;
    }

    async fn executor(&mut self, executor: &Executor, container: &Container) {
        let name = self.image.env.iter().find_map(|variable| variable.strip_prefix("EXECUTOR_NAME="));
        self.check("its health is told", executor::health_is_told(executor, name)).await;
        self.check("code runs", executor::code_runs(executor)).await;
        self.check("state is kept", executor::state_is_kept(executor)).await;
        self.check("commands run", executor::commands_run(executor)).await;
        self.check("an error is told", executor::errors_are_told(executor)).await;
        if self.is_of_ours() {
            self.check("a timeout interrupts", executor::timeout_interrupts(executor)).await;
            self.check("a timeout ends commands with their children", executor::timeout_kills(executor))
                .await;
            self.check("a dead kernel is replaced", executor::dead_kernels_are_replaced(executor)).await;
            self.check("variables last for one call", executor::variables_are_restored(executor)).await;
            self.check("workspaces keep apart", executor::workspaces_keep_apart(executor)).await;
            self.check("50 calls at once are answered", executor::calls_at_once(executor)).await;
        }
        self.environment(Runner::Executor(executor), container).await;
        if self.is_of_ours() {
            self.check("a kernel ends", executor::kernels_end(executor)).await;
        }
    }

    /// What is installed, and the variant's own checks.
    async fn environment(&mut self, runner: Runner<'_>, container: &Container) {
        let names = self.image.labels.get(DEPENDENCIES_LABEL);
        let name = "every dependency can be imported";
        match names.map(|names| names.split_whitespace().collect::<Vec<_>>()) {
            Some(names) => {
                let names = serde_json::to_string(&names).expect("texts are JSON");
                let code = format!("NAMES = {names}\n{IMPORTS}");
                self.check(name, async { runner.run(&code).await?.has_no_problem() }).await;
            }
            None => self.note(Check { name: name.to_owned(), verdict: Verdict::NotRun, seconds: 0.0 }),
        }
        self.check("installed packages agree", async { runner.run(PIP_CHECK).await?.is("0") }).await;
        if self.is_of_ours() {
            self.check("code can install packages", async { runner.run(INSTALL).await?.is("42") }).await;
        }
        for own in &self.variant.checks {
            let expected = own.prints.as_deref();
            let tried = async {
                match (&own.code, &own.command) {
                    (Some(code), _) => runner.run(code).await?.has(expected),
                    (_, Some(command)) => command_passes(container, command, expected).await,
                    _ => Ok(()),
                }
            };
            self.check(&own.name, tried).await;
        }
    }

    async fn kernels(&mut self, gateway: &Server, container: &Container) {
        let kernel = Kernel::start(gateway).await;
        let started = kernel.as_ref().map(|_| ()).map_err(|error| error.to_string().into());
        self.check("a kernel starts", async { started }).await;
        let Ok(kernel) = kernel else { return };
        self.check("code runs", gateway::prints(&kernel, "print('out'); 1 + 1", "out\n2")).await;
        self.check("state is kept", gateway::state_is_kept(&kernel)).await;
        self.check("a cell right after an error runs", gateway::cells_after_errors_run(&kernel)).await;
        self.check("300 short outputs are complete", gateway::short_outputs_are_complete(gateway)).await;
        self.check("an output of 5 MB is complete", gateway::long_output_is_complete(&kernel)).await;
        self.check("a timeout interrupts", gateway::timeout_interrupts(&kernel)).await;
        self.check("three kernels keep apart", gateway::kernels_keep_apart(gateway)).await;
        self.environment(Runner::Kernel(&kernel), container).await;
        self.check("a kernel ends", async { Ok(kernel.end().await?) }).await;
    }

    async fn a_token_is_asked_for(
        &mut self,
        container: &Container,
        gateway: Option<u16>,
        executor: Option<u16>,
    ) {
        let name = "a token is asked for";
        if let Some(port) = gateway {
            self.check(name, gateway::token_is_asked_for(container, port, TOKEN)).await;
        } else if let Some(port) = executor {
            self.check(name, executor::token_is_asked_for(container, port, TOKEN)).await;
        }
    }

    /// Kills one server after the other's answer.
    async fn the_end_of_a_server(&mut self, container: &Container) {
        let ports = self.ports();
        let tried = async {
            all_answer(container, &ports).await?;
            let ended = container.exec("0:0", &["/bin/sh", "-c", KILL_FIRST]).await?;
            if ended.output.trim() == "alone" && ports.len() == 1 {
                return Ok(());
            }
            if ended.code != 0 {
                return Err(format!("its first server cannot be found: {}", ended.output.trim()).into());
            }
            let begun = Instant::now();
            while begun.elapsed() < STOP {
                if container.ended().await?.is_some() {
                    return Ok(());
                }
                sleep(Duration::from_millis(50)).await;
            }
            Err("the container lives on, and half of it is dead".to_owned().into())
        };
        self.check("the end of a server ends the container", tried).await;
    }
}

/// Kills the first child of the first process.
const KILL_FIRST: &str =
    "set -- $(cat /proc/1/task/1/children); if [ $# = 0 ]; then echo alone; else kill -9 \"$1\"; fi";

const PIP_CHECK: &str = "import subprocess, sys
found = subprocess.run([sys.executable, '-m', 'pip', '--disable-pip-version-check', 'check'], \
capture_output=True, text=True)
print(found.returncode or 0 if found.returncode == 0 else found.stdout.strip())";

fn is_root(image: &Image) -> bool {
    matches!(image.user.split(':').next(), Some("" | "0" | "root"))
}

fn server(container: &Container, port: u16) -> Result<Server, Fault> {
    let address = container.address(port).ok_or("the container has ended")?;
    Ok(Server { address, token: None, scheme: "token" })
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

fn no_secret_in_configuration(image: &Image, history: &[String]) -> Tried {
    for variable in &image.env {
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
    match history.iter().find_map(|step| secret_in(step)) {
        Some(what) => Err(format!("history: {what}").into()),
        None => Ok(()),
    }
}

/// Waits until every port answers HTTP.
async fn all_answer(container: &Container, ports: &[u16]) -> Tried {
    let begun = Instant::now();
    for &port in ports {
        loop {
            let address = match server(container, port) {
                Ok(server) => answers(&server, START.saturating_sub(begun.elapsed())).await,
                Err(why) => Err(io::Error::other(why)),
            };
            let Err(error) = address else { break };
            let ended = container.ended().await?;
            let words = async || {
                let words = container.last_words().await.unwrap_or_default();
                if words.is_empty() {
                    "it wrote nothing".to_owned()
                } else {
                    format!("its last words: {words}")
                }
            };
            if let Some(code) = ended {
                return Err(format!("the container ended with exit code {code}; {}", words().await).into());
            }
            if begun.elapsed() > START {
                let seconds = START.as_secs();
                return Err(format!(
                    "port {port} does not answer within {seconds} s ({error}); {}",
                    words().await
                )
                .into());
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

fn shortened(text: &str) -> String {
    const MOST: usize = 300;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn no_finding(found: &Result<Result<Exec, EngineError>, Elapsed>, kind: &str) -> Tried {
    let found = found.as_ref().map_err(ToString::to_string)?.as_ref().map_err(ToString::to_string)?;
    if found.code != 0 {
        let last = found.output.trim().lines().last().unwrap_or_default();
        return Err(format!("they cannot be looked through: {last}").into());
    }
    let findings: Vec<_> = found.output.lines().filter_map(|line| line.strip_prefix(kind)).collect();
    if findings.is_empty() { Ok(()) } else { Err(findings.join("; ").into()) }
}

async fn healthy(container: &Container, test: &[String]) -> Tried {
    let command: Vec<_> = match test {
        [kind, command @ ..] if kind == "CMD" => command.iter().map(String::as_str).collect(),
        [kind, line] if kind == "CMD-SHELL" => vec!["/bin/sh", "-c", line],
        _ => return Err("the image has none".into()),
    };
    let ended = container.exec("", &command).await?;
    if ended.code == 0 { Ok(()) } else { Err(ended.output.trim().into()) }
}

async fn stops(container: &Container) -> Tried {
    let took = container.stop().await?;
    if took < STOP { Ok(()) } else { Err(format!("it takes {:.1} s", took.as_secs_f64()).into()) }
}

/// Whether no check failed.
#[must_use]
pub fn none_failed(checks: &[Check]) -> bool {
    !checks.iter().any(Check::has_failed)
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
