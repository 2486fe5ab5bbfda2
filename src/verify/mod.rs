//! Proves that an image runs what its clients will ask of it.

mod checks;
mod contract;
mod subject;
mod trial;
mod wire;

use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::Serialize;
use tokio::time::timeout;

use crate::engine::{Container, Engine, EngineError, Image, Spec};
use crate::harmless::harmless;
use crate::variant::Variant;
use checks::{Run, Stage};
use contract::exec;
use subject::{Claim, Subject};
use trial::Trial;

/// What came of one thing that was tried.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Finding {
    /// What should be.
    pub name: String,
    /// What came of it.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// How long it took.
    pub seconds: f64,
}

impl Finding {
    /// Whether it came out that something is not what it should be.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        matches!(self.verdict, Verdict::Failed(_))
    }

    /// The same with texts as `tell` makes them.
    #[must_use]
    pub fn told(&self, tell: impl Fn(&str) -> String) -> Self {
        let verdict = match &self.verdict {
            Verdict::Failed(why) => Verdict::Failed(tell(why)),
            other => other.clone(),
        };
        Self { name: tell(&self.name), verdict, seconds: self.seconds }
    }

    fn not_run(name: &str) -> Self {
        Self { name: name.to_owned(), verdict: Verdict::NotRun, seconds: 0.0 }
    }
}

/// What came of a check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(tag = "verdict", content = "detail", rename_all = "kebab-case")]
pub enum Verdict {
    /// It is so.
    Passed,
    /// It is not, and why.
    Failed(String),
    /// It could not be tried.
    NotRun,
}

/// Whether no check failed.
#[must_use]
pub fn none_failed(findings: &[Finding]) -> bool {
    !findings.iter().any(Finding::has_failed)
}

/// Either nothing to say, or what is wrong.
type Tried = Result<(), Fault>;

/// What is wrong, in a phrase.
type Fault = Box<dyn std::error::Error + Send + Sync>;

/// Longest time a check may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// The label of containers that are tried.
const LABEL: &str = "ipybox.verify";

/// The capabilities the client of ipybox gives its containers, for the firewall.
const CAPABILITIES: [&str; 2] = ["NET_ADMIN", "NET_RAW"];

/// Tries an image as a variant, and tells `each` of every finding, in the order of the table.
///
/// # Errors
///
/// [`EngineError`] where the engine fails, rather than the image.
pub async fn verify(
    engine: &Engine,
    image: &Image,
    variant: &Variant,
    mut each: impl FnMut(&Finding),
) -> Result<Vec<Finding>, EngineError> {
    let history: Vec<_> = engine.history(&image.id).await?.into_iter().map(|layer| layer.command).collect();
    let subject = Subject::of(image, variant, &history);
    let mut findings = Vec::new();
    let mut note = |finding: Finding| {
        each(&finding);
        findings.push(finding);
    };
    let spec = Spec { label: LABEL, ports: &subject.ports, capabilities: &CAPABILITIES, ..Spec::default() };
    in_container(engine, image, spec, async |container| {
        let trial = Trial::of(&subject, container);
        if !stage(Stage::Start, &trial, &mut note).await {
            note(Finding::not_run("everything else"));
            return Ok(());
        }
        // These wait for different servers and containers; what is tried is told in order all the same.
        let aside = async |stage_: Stage, trial: &Trial<'_>| {
            let mut findings = Vec::new();
            stage(stage_, trial, &mut |finding| findings.push(finding)).await;
            findings
        };
        let guarded = async {
            if !subject.claims(Claim::Ours) {
                return Ok(Vec::new());
            }
            let env = [subject.token_variable()];
            let spec = Spec { env: &env, ..spec };
            in_container(engine, image, spec, async |container| {
                Ok(aside(Stage::Guarded, &Trial::of(&subject, container)).await)
            })
            .await
        };
        let apart = async |stage: Stage, spec: Spec<'_>| {
            if !subject.claims(Claim::Exec) {
                return Ok(Vec::new());
            }
            in_container(engine, image, spec, async |container| {
                Ok(aside(stage, &Trial::of(&subject, container)).await)
            })
            .await
        };
        let entered = Spec { label: LABEL, command: Some(&exec::SLEEP), ..Spec::default() };
        let writable: Vec<_> = std::iter::once("/tmp").chain(subject.workspaces()).collect();
        let foreign =
            Spec { user: Some(exec::STRANGER), read_only_but: &writable, capabilities: &[], ..spec };
        let ((), beside, guarded, entered, foreign) = tokio::join!(
            async {
                stage(Stage::Code, &trial, &mut note).await;
            },
            aside(Stage::Beside, &trial),
            guarded,
            apart(Stage::Entered, entered),
            apart(Stage::Foreign, foreign),
        );
        let findings = [beside, guarded?, entered?, foreign?];
        findings.into_iter().flatten().for_each(&mut note);
        stage(Stage::End, &trial, &mut note).await;
        Ok(())
    })
    .await?;
    Ok(findings)
}

/// Starts a container, and lets `work` use it.
async fn in_container<T>(
    engine: &Engine,
    image: &Image,
    spec: Spec<'_>,
    work: impl AsyncFnOnce(&mut Container) -> Result<T, EngineError>,
) -> Result<T, EngineError> {
    let worked = async |container: &mut Container| {
        container.start().await?;
        work(container).await
    };
    Box::pin(engine.with_container(&image.id, spec, worked)).await?
}

/// Tries the checks of a stage that are for this image, one after the other. Where one fails that the others need, they
/// are not run, and this is false.
async fn stage(stage: Stage, trial: &Trial<'_>, note: &mut impl FnMut(Finding)) -> bool {
    let mut checks = checks::of(stage, trial.subject);
    for check in checks.by_ref() {
        match check.run {
            Run::OwnChecks => {
                for own in trial.subject.own_checks {
                    note(tried(&own.name, contract::own::passes(trial, own)).await);
                }
            }
            Run::One(run) => {
                let finding = tried(check.name, run(trial)).await;
                let is_over = finding.has_failed() && check.is_needed;
                note(finding);
                if is_over {
                    checks.for_each(|check| note(Finding::not_run(check.name)));
                    return false;
                }
            }
        }
    }
    true
}

/// Tries one thing.
async fn tried(name: &str, tried: impl Future<Output = Tried>) -> Finding {
    let begun = Instant::now();
    let verdict = match timeout(PATIENCE, tried).await {
        Ok(Ok(())) => Verdict::Passed,
        // What an image says may be made for a terminal.
        Ok(Err(why)) => Verdict::Failed(shortened(&harmless(&why.to_string()))),
        Err(_) => Verdict::Failed(format!("it does not end within {} s", PATIENCE.as_secs())),
    };
    Finding { name: name.to_owned(), verdict, seconds: begun.elapsed().as_secs_f64() }
}

/// The beginning of a text that is too long to be told.
fn shortened(text: &str) -> String {
    const MOST: usize = 300;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
