//! `ipybox doctor`: is this host able to build, and what to mend.

use serde_json::json;

use super::{Caller, Failure, FailureKind};
use crate::cli::{DoctorArgs, IndexArgs, Network, variable_of_list};
use crate::deps::Priority;
use crate::diagnostic::{Diagnostic, Documents};
use crate::doctor::{self, Finding, State, Subject};
use crate::inputs::credentials::Credentials;
use crate::inputs::indexes::AskedIndexes;
use crate::inputs::trust;
use crate::plan::{PackageIndex, default_base};
use crate::supply::Supplies;

pub(super) async fn run(args: DoctorArgs, caller: &mut Caller) -> Result<(), Failure> {
    let base = match args.base {
        Some(base) => base,
        None => default_base(&[], None).map_err(|error| Failure::of_plan(&Documents::default(), &[error]))?,
    };
    let cache = caller.cache(args.means.cache_dir)?;
    let environment = &caller.environment;
    let bundle = trust::bundle(environment.ssl_cert_file.as_deref(), args.steps.ca_cert.as_deref());
    let (certificates, distrust) = match bundle {
        Ok(certificates) => (certificates, None),
        Err(error) => (None, Some(error)),
    };
    let (asked, credentials, unknown) = match indexes(&args.means.indexes) {
        Ok((asked, credentials)) => (asked, credentials, None),
        Err(unknown) => (Vec::new(), Credentials::default(), Some(unknown)),
    };
    let proxies = environment.proxies.clone();
    let supplies = Supplies { certificates, proxies, credentials, ..Supplies::default() };
    caller.conceal(&supplies);
    let Caller { report, interrupt, .. } = &*caller;
    let subject = Subject {
        choice: super::choice(&args.means.engine, caller),
        base,
        cache: &cache,
        supplies,
        indexes: asked,
        unknown,
        distrust,
        network: args.steps.network.map(Network::name),
        program: args.means.uv.as_deref(),
    };
    let show = |finding: &Finding| {
        if !args.json {
            // A reader that went away does not end the checks.
            let text = report.redacted(&line(finding));
            let _ = report.result(|out| writeln!(out, "{text}"));
        }
    };
    let checks = Box::pin(doctor::examine(subject, interrupt.clone(), show)).await?;
    if args.json {
        let told: Vec<_> = checks.iter().map(|check| check.told(|text| report.redacted(text))).collect();
        let text = format!("{:#}", json!({ "version": 1, "checks": told }));
        let written = report.result(|out| writeln!(out, "{text}"));
        written.map_err(|error| Failure::unwritable("stdout", &error))?;
    }
    outcome(&checks)
}

/// The package indexes that somebody names, and what they want to know.
fn indexes(args: &IndexArgs) -> Result<(Vec<PackageIndex>, Credentials), Diagnostic> {
    let given = args.indexes().map_err(Diagnostic::new)?;
    let AskedIndexes { indexes, logins } =
        AskedIndexes::read(&given, Vec::new(), &variable_of_list).map_err(|error| error.diagnostic())?;
    let asked: Vec<_> = indexes.iter().filter(|index| index.priority != Priority::Explicit).collect();
    let hosts = asked.iter().map(|index| index.host()).collect();
    let credentials = Credentials::read(&hosts, &indexes, &logins, &variable_of_list)
        .map_err(|error| error.diagnostic())?;
    Ok((asked.into_iter().map(PackageIndex::of).collect(), credentials))
}

fn line(Finding { name, state, message, fix }: &Finding) -> String {
    let state = match state {
        State::Ok => "ok",
        State::Warning => "warning",
        State::Error | State::Unreachable => "ERROR",
        State::NotTried => "-",
    };
    let fix = if fix.is_empty() { String::new() } else { format!("\n{:25}fix: {fix}", "") };
    format!("{state:<9}{name:<16}{message}{fix}")
}

fn outcome(checks: &[Finding]) -> Result<(), Failure> {
    let count = |state| checks.iter().filter(|check| check.state == state).count();
    let (errors, unreachable) = (count(State::Error), count(State::Unreachable));
    let kind = match (errors, unreachable) {
        (0, 0) => return Ok(()),
        (0, _) => FailureKind::Unreachable,
        _ => FailureKind::Refused,
    };
    let what = match errors + unreachable {
        1 => "builds will fail on this host: one check found why".to_owned(),
        several => format!("builds will fail on this host: {several} checks found why"),
    };
    Err(Failure { kind, ..Failure::refused(Diagnostic::new(what)) })
}
