//! Proves that an image runs what its clients will ask of it.

mod http;
mod kernel;

use std::io;
use std::time::{Duration, Instant};

use hyper::Method;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::error::Elapsed;
use tokio::time::{sleep, timeout};

use crate::engine::{Container, Engine, EngineError, Exec, Image, Start};
use crate::plan::DEPENDENCIES_LABEL;
use crate::report;
use crate::secret;
use crate::variant::{Server as Program, Variant};
use http::Server;
use kernel::{Kernel, Until};

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

/// What came of a check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", content = "detail", rename_all = "kebab-case")]
pub enum Verdict {
    /// It is so.
    Passed,
    /// It is not, and why.
    Failed(String),
    /// It could not be tried, since something before it failed.
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

/// An MCP server that `MCP` is tried with.
const MCP_SERVER: &str = "\
from mcp.server.fastmcp import FastMCP

server = FastMCP(\"verify\")


@server.tool()
def add(a: int, b: int) -> str:
    \"\"\"Adds two numbers.\"\"\"
    return f\"sum {a + b}\"


server.run()
";

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
    session.check("no secret in environment and history", async { no_secret_in_configuration(image) }).await;
    let ports: Vec<_> = variant.servers.iter().map(|server| server.port).collect();
    let start = Start { ports: &ports, capabilities: &CAPABILITIES, ..Start::default() };
    engine.with_container(&image.id, &start, async |container| session.in_container(container).await).await?;
    if session.checks.iter().any(|check| check.name == ANSWERS && check.verdict != Verdict::Passed) {
        return Ok(session.checks);
    }
    engine
        .with_container(&image.id, &start, async |container| session.the_end_of_a_server(container).await)
        .await?;
    if let Some(gateway) = session.port_of("kernel_gateway") {
        let token = "verify-token";
        let env = [format!("KG_AUTH_TOKEN={token}")];
        let start = Start { ports: &ports, env: &env, ..Start::default() };
        engine
            .with_container(&image.id, &start, async |container| {
                session.check("a token is asked for", token_is_asked_for(container, gateway, token)).await
            })
            .await?;
    }
    Ok(session.checks)
}

const ANSWERS: &str = "servers answer";

/// The checks of one image so far.
struct Session<'a, F> {
    image: &'a Image,
    variant: &'a Variant,
    checks: Vec<Check>,
    each: F,
}

impl<F: FnMut(&Check)> Session<'_, F> {
    /// Tries one thing, and tells whether it is so.
    async fn check(&mut self, name: &str, tried: impl Future<Output = Tried>) -> bool {
        let begun = Instant::now();
        let verdict = match timeout(PATIENCE, tried).await {
            Ok(Ok(())) => Verdict::Passed,
            // What an image says may be made for a terminal.
            Ok(Err(why)) => Verdict::Failed(shortened(&report::clean(&why.to_string()))),
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

    fn port_of(&self, module: &str) -> Option<u16> {
        let is = |server: &&Program| server.command.first().is_some_and(|name| name == module);
        self.variant.servers.iter().find(is).map(|server| server.port)
    }

    async fn in_container(&mut self, container: &Container) {
        let ports: Vec<_> = self.variant.servers.iter().map(|server| server.port).collect();
        if !self.check(ANSWERS, all_answer(container, &ports)).await {
            let rest = Check { name: "everything else".into(), verdict: Verdict::NotRun, seconds: 0.0 };
            return self.note(rest);
        }
        let server = |port| server(container, port);
        if let Some(Ok(gateway)) = self.port_of("kernel_gateway").map(server) {
            self.kernels(&gateway).await;
        }
        let pair =
            (self.port_of("kernel_gateway").map(server), self.port_of("ipybox.resource.server").map(server));
        if let (Some(Ok(gateway)), Some(Ok(resources))) = pair {
            self.check("files go in and out", files_go_in_and_out(&resources)).await;
            self.check("sources of modules are told", sources_are_told(&resources)).await;
            self.check("MCP tools become functions", tools_become_functions(&gateway, &resources)).await;
        }
        let found = timeout(PATIENCE, container.exec("0:0", &[PYTHON, "-I", "-c", FILES])).await;
        for (kind, name) in
            [("owner ", "files belong to whom they should"), ("secret ", "no secret or certificate in files")]
        {
            self.check(name, async { no_finding(&found, kind) }).await;
        }
        self.check("the health check passes", healthy(container, &self.image.health)).await;
        let gateway = self.port_of("kernel_gateway").map(server);
        if let Some(Ok(gateway)) =
            gateway.filter(|_| self.variant.apt.iter().any(|name| name.starts_with("iptables")))
        {
            self.check("the firewall holds", firewall_holds(container, &gateway, is_root(self.image))).await;
        }
        self.check("SIGTERM ends it within 2 s", stops(container)).await;
    }

    async fn kernels(&mut self, gateway: &Server) {
        let kernel = Kernel::start(gateway).await;
        let started = kernel.as_ref().map(|_| ()).map_err(|error| error.to_string().into());
        self.check("a kernel starts", async { started }).await;
        let Ok(kernel) = kernel else { return };
        self.check("code runs", prints(&kernel, "print('out'); 1 + 1", "out\n2")).await;
        self.check("state is kept", state_is_kept(&kernel)).await;
        self.check("a cell right after an error runs", cells_after_errors_run(&kernel)).await;
        self.check("300 short outputs are complete", short_outputs_are_complete(gateway)).await;
        self.check("an output of 5 MB is complete", long_output_is_complete(&kernel)).await;
        self.check("a timeout interrupts", timeout_interrupts(&kernel)).await;
        self.check("three kernels keep apart", kernels_keep_apart(gateway)).await;
        let names = self.image.labels.get(DEPENDENCIES_LABEL);
        let name = "every dependency can be imported";
        match names.map(|names| names.split_whitespace().collect::<Vec<_>>()) {
            Some(names) => {
                self.check(name, dependencies_import(&kernel, &names)).await;
            }
            None => self.note(Check { name: name.to_owned(), verdict: Verdict::NotRun, seconds: 0.0 }),
        }
        self.check("installed packages agree", prints(&kernel, PIP_CHECK, "0\n")).await;
        self.check("code can install packages", prints(&kernel, INSTALL, "42\n")).await;
        for own in &self.variant.checks {
            self.check(&own.name, passes(&kernel, own)).await;
        }
        self.check("a kernel ends", async { Ok(kernel.end().await?) }).await;
    }

    /// Kills one server after the other's answer.
    async fn the_end_of_a_server(&mut self, container: &Container) {
        let ports: Vec<_> = self.variant.servers.iter().map(|server| server.port).collect();
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
    Ok(Server { address, token: None })
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

fn no_secret_in_configuration(image: &Image) -> Tried {
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
    match image.history.iter().find_map(|step| secret_in(step)) {
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

/// Runs a cell that must write `expected` and nothing else.
async fn prints(kernel: &Kernel, code: &str, expected: &str) -> Tried {
    let outcome = kernel.run(code).await?;
    match outcome.error {
        Some(error) => Err(error.into()),
        None if outcome.text == expected => Ok(()),
        None => Err(format!("expected {expected:?}, found {:?}", shortened(&outcome.text)).into()),
    }
}

fn shortened(text: &str) -> String {
    const MOST: usize = 300;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

async fn state_is_kept(kernel: &Kernel) -> Tried {
    prints(kernel, "kept = 41", "").await?;
    prints(kernel, "kept + 1", "42").await
}

/// Sends cells behind one that fails: when its error is told, as smolagents does, and before.
async fn cells_after_errors_run(kernel: &Kernel) -> Tried {
    const TIMES: usize = 10;
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
async fn short_outputs_are_complete(gateway: &Server) -> Tried {
    const TIMES: usize = 100;
    let lost = async || {
        let kernel = Kernel::start(gateway).await?;
        let mut channels = kernel.connect().await?;
        let mut lost = 0;
        for time in 0..TIMES {
            let outcome = channels.run(&format!("print({time})"), Until::Reply).await?;
            lost += usize::from(outcome.text != format!("{time}\n"));
        }
        kernel.end().await?;
        Ok::<_, Fault>(lost)
    };
    let (one, two, three) = tokio::try_join!(lost(), lost(), lost())?;
    match one + two + three {
        0 => Ok(()),
        lost => Err(format!("{lost} of {} were lost", 3 * TIMES).into()),
    }
}

async fn long_output_is_complete(kernel: &Kernel) -> Tried {
    const BYTES: usize = 5_000_000;
    let mut channels = kernel.connect().await?;
    let outcome = channels.run(&format!("print('x' * {BYTES})"), Until::Reply).await?;
    let found = outcome.text.bytes().filter(|&byte| byte == b'x').count();
    if found == BYTES { Ok(()) } else { Err(format!("{found} of {BYTES} bytes arrived").into()) }
}

async fn timeout_interrupts(kernel: &Kernel) -> Tried {
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

async fn kernels_keep_apart(gateway: &Server) -> Tried {
    let one = async |number: usize| {
        let kernel = Kernel::start(gateway).await?;
        prints(&kernel, &format!("number = {number}"), "").await?;
        sleep(Duration::from_millis(100)).await;
        prints(&kernel, "number", &number.to_string()).await?;
        Ok::<_, Fault>(kernel.end().await?)
    };
    tokio::try_join!(one(1), one(2), one(3)).map(|_| ())
}

async fn dependencies_import(kernel: &Kernel, names: &[&str]) -> Tried {
    let names = serde_json::to_string(names).expect("texts are JSON");
    let outcome = kernel.run(&format!("NAMES = {names}\n{IMPORTS}")).await?;
    if let Some(error) = outcome.error {
        return Err(error.into());
    }
    let last = outcome.text.lines().last().unwrap_or_default();
    let problems: std::collections::BTreeMap<String, String> =
        serde_json::from_str(last).map_err(|_| format!("found {:?}", shortened(&outcome.text)))?;
    if problems.is_empty() {
        return Ok(());
    }
    let problems: Vec<_> = problems.iter().map(|(name, why)| format!("{name}: {why}")).collect();
    Err(problems.join("; ").into())
}

async fn passes(kernel: &Kernel, own: &crate::variant::Check) -> Tried {
    let outcome = kernel.run(own.code.as_deref().unwrap_or_default()).await?;
    match (outcome.error, &own.prints) {
        (Some(error), _) => Err(error.into()),
        (None, Some(expected)) if !outcome.text.contains(expected) => {
            Err(format!("expected {expected:?} in {:?}", shortened(&outcome.text)).into())
        }
        (None, _) => Ok(()),
    }
}

async fn files_go_in_and_out(resources: &Server) -> Tried {
    let content: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let ask = async |method, body: &[u8]| resources.ask(method, "/files/verify/one.bin", body.to_vec()).await;
    ask(Method::POST, &content).await.and_then(http::Answer::good)?;
    let back = ask(Method::GET, b"").await.and_then(http::Answer::good)?;
    if back != content {
        return Err("a file comes back with another content".to_owned().into());
    }
    let outside = resources.ask(Method::GET, "/files/..%2f..%2fetc%2fpasswd", "").await?;
    if (200..300).contains(&outside.status) {
        return Err("a file outside of the working directory can be read".to_owned().into());
    }
    ask(Method::DELETE, b"").await.and_then(http::Answer::good)?;
    let gone = ask(Method::GET, b"").await?;
    if gone.status == 404 { Ok(()) } else { Err(format!("a deleted file has status {}", gone.status).into()) }
}

async fn sources_are_told(resources: &Server) -> Tried {
    let ask = async |query| resources.ask(Method::GET, query, "").await;
    let answer = ask("/modules?q=ipybox.modinfo").await?.good()?;
    let sources: Value = serde_json::from_slice(&answer)?;
    let source = sources["ipybox.modinfo"].as_str().unwrap_or_default();
    if !source.contains("def print_module_sources") {
        return Err("the source of `ipybox.modinfo` is not what clients need".to_owned().into());
    }
    let unknown = ask("/modules?q=there_is_no_such_module").await?;
    if unknown.status == 404 {
        Ok(())
    } else {
        Err(format!("an unknown module has status {}", unknown.status).into())
    }
}

async fn tools_become_functions(gateway: &Server, resources: &Server) -> Tried {
    let good = async |method, path: &str, body: Vec<u8>| {
        resources.ask(method, path, body).await.and_then(http::Answer::good)
    };
    good(Method::POST, "/files/verify_server.py", MCP_SERVER.into()).await?;
    let parameters = json!({ "command": "python", "args": ["/app/verify_server.py"] });
    let tools = good(Method::PUT, "/mcp/verify_tools/demo", parameters.to_string().into()).await?;
    if serde_json::from_slice::<Vec<String>>(&tools).ok().as_deref() != Some(&["add".to_owned()]) {
        return Err(format!("expected the tool `add`, found {}", String::from_utf8_lossy(&tools)).into());
    }
    let kernel = Kernel::start(gateway).await?;
    let code = "import sys; sys.path.append('/app')\n\
                from verify_tools.demo.add import Params, add\n\
                print(add(Params(a=19, b=23)))";
    prints(&kernel, code, "sum 42\n").await?;
    Ok(kernel.end().await?)
}

/// The interpreter of the servers.
const PYTHON: &str = "/opt/ipybox/server/bin/python";

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

async fn firewall_holds(container: &Container, gateway: &Server, is_root: bool) -> Tried {
    const CONNECT: &str = "import socket, time
begun = time.monotonic()
try:
    socket.create_connection(('203.0.113.1', 80), 5)
except OSError as error:
    print(error.strerror if time.monotonic() - begun < 2 else 'it takes too long')";
    const SCRIPT: &str = "/usr/local/bin/init-firewall.sh";
    let command = [SCRIPT, "127.0.0.1", "--executor-port", "8888", "--resource-port", "8900"];
    let ended = container.exec("root", &command).await?;
    if is_root {
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
    let kernel = Kernel::start(gateway).await?;
    prints(&kernel, CONNECT, "Network is unreachable\n").await
}

async fn stops(container: &Container) -> Tried {
    let took = container.stop().await?;
    if took < STOP { Ok(()) } else { Err(format!("it takes {:.1} s", took.as_secs_f64()).into()) }
}

async fn token_is_asked_for(container: &Container, port: u16, token: &str) -> Tried {
    all_answer(container, &[port]).await?;
    let open = server(container, port)?;
    for wrong in [None, Some("wrong".to_owned())] {
        let stranger = Server { token: wrong, ..open.clone() };
        if Kernel::start(&stranger).await.is_ok() {
            return Err("a kernel starts without the token of KG_AUTH_TOKEN".to_owned().into());
        }
    }
    let kernel = Kernel::start(&Server { token: Some(token.to_owned()), ..open }).await?;
    prints(&kernel, "1 + 1", "2").await
}

/// Whether every check passed.
#[must_use]
pub fn all_passed(checks: &[Check]) -> bool {
    checks.iter().all(|check| check.verdict == Verdict::Passed)
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
