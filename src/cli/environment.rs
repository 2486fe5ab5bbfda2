//! What the environment says: the one place where it is read.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use crate::engine::Choice;
use crate::report::{Redaction, Settings};

/// An environment variable; an empty one counts as not set.
#[expect(clippy::disallowed_methods, reason = "this is where the environment is read")]
pub(super) fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// The names of the variables that carry proxy settings into build steps; Docker predefines build
/// arguments of these names, which stay out of history and cache. Docker 20.10 does not know
/// `ALL_PROXY`, and leaves it out of the steps.
///
/// Source: Docker docs, "Predefined ARGs".
pub(super) const PROXY_VARIABLES: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// A list of the environment: words with white space between them.
pub(super) fn words(name: &str) -> Vec<String> {
    let text = variable_of_list(name).unwrap_or_default();
    text.split_whitespace().map(str::to_owned).collect()
}

/// What a variable that a requirements file names holds.
#[must_use]
pub fn variable_of_list(name: &str) -> Option<String> {
    variable(name).and_then(|value| value.into_string().ok())
}

/// What the environment says beside the options that can come from it.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// The proxy settings, by variable.
    pub proxies: HashMap<String, String>,
    /// The certificates this host trusts: `SSL_CERT_FILE`.
    pub ssl_cert_file: Option<PathBuf>,
    /// Where programs keep what they can do without.
    ///
    /// Rule: XDG Base Directory Specification, `XDG_CACHE_HOME`; relative values do not count.
    pub cache_home: Option<PathBuf>,
    /// How it wants to be told things.
    ///
    /// Rule: no-color.org; GitHub Docs, "Variables", "Default environment variables"; others set `CI`; terminfo's `dumb`.
    pub report: Settings,
    /// The user and group id of this process.
    pub ids: (u32, u32),
    /// Which engine is meant, as far as nothing typed says so.
    pub engine: Choice,
    /// The kind of this process's terminal: `TERM`.
    pub terminal: Option<String>,
    /// The time that repeatable images have: `SOURCE_DATE_EPOCH`, in seconds since 1970.
    ///
    /// Rule: reproducible-builds.org, "`SOURCE_DATE_EPOCH`".
    pub source_date_epoch: Option<String>,
    /// The files that a workflow of GitHub reads: what steps after this one are told, and what people are.
    ///
    /// Rule: GitHub Docs, "Workflow commands", `GITHUB_OUTPUT` and `GITHUB_STEP_SUMMARY`.
    pub workflow_files: (Option<PathBuf>, Option<PathBuf>),
    /// All of it that installers on this host may know: what sets them up is told to them in other ways.
    pub of_installers: Vec<(OsString, OsString)>,
}

/// Whether a variable says how packages are resolved, and where they are installed.
fn sets_up_installers(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    ["UV_", "PIP_"].iter().any(|prefix| name.starts_with(prefix))
        || ["VIRTUAL_ENV", "CONDA_PREFIX", "NETRC", "PYTHONPATH", "PYTHONHOME"].contains(&name.as_ref())
}

impl Environment {
    /// What of it nobody may see.
    #[must_use]
    pub fn redaction(&self) -> Redaction {
        Redaction::of_addresses(self.proxies.values().map(String::as_str))
    }

    /// Whether the superuser asks.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.ids.0 == 0
    }

    /// Reads the environment of this process.
    #[must_use]
    pub fn read() -> Self {
        let path = |name: &str| variable(name).map(PathBuf::from);
        let xdg = path("XDG_CACHE_HOME").filter(|path| path.is_absolute());
        let home = path("HOME");
        let ids = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        let engine = Choice {
            docker_host: variable_of_list("DOCKER_HOST"),
            docker_context: variable_of_list("DOCKER_CONTEXT"),
            config: path("DOCKER_CONFIG").or_else(|| Some(home.as_ref()?.join(".docker"))),
            certificates: path("DOCKER_CERT_PATH"),
            tls: variable("DOCKER_TLS_VERIFY").is_some(),
            home: home.clone(),
            auth_file: path("REGISTRY_AUTH_FILE"),
            runtime: path("XDG_RUNTIME_DIR")
                .filter(|path| path.is_absolute())
                .or_else(|| Some(format!("/run/user/{}", ids.0).into())),
            ..Choice::default()
        };
        Self {
            proxies: PROXY_VARIABLES
                .into_iter()
                .filter_map(|name| Some((name.to_owned(), variable(name)?.into_string().ok()?)))
                .collect(),
            ssl_cert_file: path("SSL_CERT_FILE"),
            cache_home: xdg.or_else(|| Some(home?.join(".cache"))),
            report: Settings {
                no_color: variable("NO_COLOR").is_some(),
                is_workflow: variable("GITHUB_ACTIONS").is_some_and(|value| value == "true"),
                is_pipeline: variable("CI").is_some_and(|value| value != "false"),
                is_dumb: variable("TERM").is_none_or(|value| value == "dumb"),
                ..Settings::default()
            },
            ids,
            engine,
            terminal: variable_of_list("TERM"),
            source_date_epoch: variable_of_list("SOURCE_DATE_EPOCH"),
            workflow_files: (path("GITHUB_OUTPUT"), path("GITHUB_STEP_SUMMARY")),
            of_installers: std::env::vars_os().filter(|(name, _)| !sets_up_installers(name)).collect(),
        }
    }
}
