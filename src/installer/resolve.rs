//! Resolving on this host, by the installer that build steps use.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use tokio::process::Command;
use toml_edit::{DocumentMut, Item, Table};

use super::request::{BASE_CONSTRAINTS, CONSTRAINTS, Reader, SETTINGS, request};
use super::words;
use crate::deps::{Name, percent_encoded};
use crate::diagnostic::Diagnostic;
use crate::plan::Plan;
use crate::variant::Placement;

/// What is resolved on this host, and how.
#[derive(Debug, Clone, Copy)]
pub struct Resolve<'a> {
    /// What it is resolved for.
    pub plan: &'a Plan,
    /// The platform of the base, by uv's name for it.
    pub platform: &'a str,
    /// The program.
    pub uv: &'a Path,
    /// Its environment, without what sets it up.
    pub environment: &'a [(OsString, OsString)],
    /// The folder of its cache.
    pub cache: &'a Path,
    /// The certificates it trusts, in PEM; this host's if there are none.
    pub certificates: Option<&'a [u8]>,
    /// Logins for package indexes.
    pub netrc: Option<&'a [u8]>,
    /// A lock whose versions are kept as long as they will do.
    pub preferences: Option<&'a str>,
    /// What of it is not kept.
    pub upgrade: &'a Upgrade,
    /// Nothing newer than this is taken.
    pub exclude_newer: Option<&'a str>,
    /// Wheels that were built, by their absolute paths.
    pub wheels: &'a [(Name, PathBuf)],
}

/// What is not kept as it was locked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Upgrade {
    /// What will not do any more.
    #[default]
    Needed,
    /// These packages.
    Packages(Vec<String>),
    /// Everything.
    All,
}

/// Why nothing was resolved.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// The program ended with an error.
    #[error("the dependencies cannot be resolved")]
    Failed {
        /// What it printed.
        output: Vec<String>,
        /// How it ended.
        exit_code: Option<i32>,
    },
    /// The program, or the folder it works in, cannot be used.
    #[error("cannot run the installer `{}`", program.display())]
    Io {
        /// The program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl ResolveError {
    /// The refusal.
    #[must_use]
    pub fn diagnostic(&self) -> Diagnostic {
        let what = Diagnostic::new(self.to_string());
        match self {
            Self::Failed { output, .. }
                if output.iter().any(|line| line.contains("No interpreter found")) =>
            {
                what.why("uv wants some Python 3 on this host, of whatever version, and there is none")
                    .advice("install one (on Debian: `apt-get install python3`)")
            }
            Self::Failed { output, .. } => what.why(output.join("\n")),
            Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                what.why("there is no such program").advice("install uv, or name it with `--uv PATH`")
            }
            Self::Io { source, .. } => what.why(source.to_string()),
        }
    }
}

/// The name of locks that uv reads and writes.
const PYLOCK: &str = "pylock.toml";

/// The name of the list of wheels that were built.
const WHEELS: &str = "wheels.txt";

/// The name of the versions that were resolved.
const VERSIONS: &str = "versions.txt";

/// What the program says it has resolved: as a lock, and as a requirements file with comments.
///
/// Of several requests, which differ in the alternatives they take, the first that resolves counts. The next is tried
/// only where there is no solution.
///
/// # Errors
///
/// [`ResolveError`], of the last request that was tried.
pub async fn resolve(what: Resolve<'_>) -> Result<(String, String), ResolveError> {
    let io = |source| ResolveError::Io { program: what.uv.to_owned(), source };
    fs::create_dir_all(what.cache).map_err(io)?;
    let folder = tempfile::tempdir().map_err(io)?;
    let folder = folder.path();
    let mut choices = Vec::new();
    for (name, content) in request(what.plan, Reader::Host(folder)).map_err(io)? {
        let path = folder.join(&name);
        fs::create_dir_all(path.parent().unwrap_or(folder)).map_err(io)?;
        fs::write(&path, content).map_err(io)?;
        choices.extend(name.ends_with("/pyproject.toml").then_some(name));
    }
    fs::create_dir_all(folder.join("base")).map_err(io)?;
    // By their names, so that it is told by these what needs them.
    let wheels = what.wheels.iter().fold(String::new(), |list, (name, path)| {
        list + &format!("{name} @ file://{}\n", percent_encoded(path))
    });
    fs::write(folder.join(WHEELS), wheels).map_err(io)?;
    secret_file(&folder.join("netrc"), what.netrc.unwrap_or_default()).map_err(io)?;
    if let Some(certificates) = what.certificates {
        fs::write(folder.join("ca.pem"), certificates).map_err(io)?;
    }
    let mut failure = None;
    for choice in choices {
        let pylock = folder.join(PYLOCK);
        match what.preferences {
            Some(preferences) => fs::write(&pylock, preferences).map_err(io)?,
            None => drop(fs::remove_file(&pylock)),
        }
        let mut command = what.command(folder, &choice);
        command.args(["--format", PYLOCK, "-o", PYLOCK]);
        what.upgrade.tell(&mut command);
        let resolved = command.output().await.map_err(io)?;
        let said = String::from_utf8_lossy(&resolved.stderr).into_owned();
        // An older version in place of a file that is no package is nobody's wish.
        if said.contains(words::SPOILT) {
            return Err(failed(&resolved));
        }
        if resolved.status.success() {
            let annotated = what.annotated(folder, &choice).await.map_err(io)?;
            if !annotated.status.success() {
                return Err(failed(&annotated));
            }
            let text = String::from_utf8_lossy(&annotated.stdout).into_owned();
            return Ok((fs::read_to_string(&pylock).map_err(io)?, text));
        }
        failure = Some(failed(&resolved));
        let has = |what: &str| said.contains(what);
        if !has(words::NO_SOLUTION) || has(words::REFUSING_INDEX) {
            break;
        }
    }
    Err(failure.expect("a plan has a request"))
}

impl Resolve<'_> {
    /// The program, as build steps call it: with this plan's settings, and none of this host's.
    fn command(&self, folder: &Path, choice: &str) -> Command {
        let Self { plan, .. } = self;
        let mut command = self.installing().command(folder);
        // What it says then names an index that gives nothing.
        command.env("RUST_LOG", "uv_resolver=warn");
        command.args(["pip", "compile", "--quiet", "--no-build", "--python-version"]);
        command.arg(&plan.foundation.interpreter.version).args(["--python-platform", self.platform]);
        if plan.foundation.placement != Placement::Isolated {
            command.args(["-c", BASE_CONSTRAINTS]);
        }
        if !plan.packages.bounds.is_empty() {
            command.args(["-c", CONSTRAINTS]);
        }
        if let Some(date) = self.exclude_newer {
            command.args(["--exclude-newer", date]);
        }
        command.arg(choice);
        if !self.wheels.is_empty() {
            command.arg(WHEELS);
        }
        command
    }

    fn installing(&self) -> Installing<'_> {
        let &Self { uv, environment, cache, certificates, .. } = self;
        Installing { uv, environment, cache, certificates }
    }

    /// The same resolution once more, in words. All it asks is in the cache by now, unless that keeps nothing.
    async fn annotated(&self, folder: &Path, choice: &str) -> io::Result<Output> {
        let command = || {
            let mut command = self.command(folder, choice);
            command.args(["--no-header", "--annotation-style", "split", "--emit-index-annotation"]);
            command.args(["-c", VERSIONS]);
            command
        };
        let resolved = fs::read_to_string(folder.join(PYLOCK))?;
        fs::write(folder.join(VERSIONS), versions(&resolved).map_err(io::Error::other)?)?;
        let offline = command().arg("--offline").output().await?;
        if offline.status.success() { Ok(offline) } else { command().output().await }
    }
}

/// The installer on this host.
#[derive(Debug, Clone, Copy)]
pub struct Installing<'a> {
    /// The program.
    pub uv: &'a Path,
    /// Its environment, without what sets it up.
    pub environment: &'a [(OsString, OsString)],
    /// The folder of its cache.
    pub cache: &'a Path,
    /// The certificates it trusts, in PEM; this host's if there are none.
    pub certificates: Option<&'a [u8]>,
}

impl Installing<'_> {
    /// The program in a folder that has its settings, a netrc and the certificates.
    fn command(&self, folder: &Path) -> Command {
        let mut command = Command::new(self.uv);
        command.current_dir(folder).stdin(Stdio::null()).kill_on_drop(true).process_group(0);
        command.env_clear().envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.env("UV_CONFIG_FILE", folder.join(SETTINGS)).env("UV_CACHE_DIR", self.cache);
        command.env("UV_PYTHON_DOWNLOADS", "never").env("UV_NO_PROGRESS", "1");
        command.env("NETRC", folder.join("netrc"));
        if self.certificates.is_some() {
            command.env("SSL_CERT_FILE", folder.join("ca.pem"));
        }
        command
    }

    /// Where the files of requirements are that name their versions and hashes, as a lock; `settings` are uv's.
    ///
    /// # Errors
    ///
    /// [`ResolveError`].
    pub async fn find(
        &self,
        requirements: &str,
        settings: &str,
        python: &str,
        platform: &str,
    ) -> Result<String, ResolveError> {
        const REQUIREMENTS: &str = "requirements.txt";
        let io = |source| ResolveError::Io { program: self.uv.to_owned(), source };
        fs::create_dir_all(self.cache).map_err(io)?;
        let folder = tempfile::tempdir().map_err(io)?;
        let folder = folder.path();
        fs::write(folder.join(REQUIREMENTS), requirements).map_err(io)?;
        fs::write(folder.join(SETTINGS), settings).map_err(io)?;
        secret_file(&folder.join("netrc"), &[]).map_err(io)?;
        if let Some(certificates) = self.certificates {
            fs::write(folder.join("ca.pem"), certificates).map_err(io)?;
        }
        let mut command = self.command(folder);
        command.args(["pip", "compile", "--quiet", "--no-build", "--no-deps", "--python-version", python]);
        command.args(["--python-platform", platform, "--format", PYLOCK, "-o", PYLOCK, REQUIREMENTS]);
        let found = command.output().await.map_err(io)?;
        if !found.status.success() {
            return Err(failed(&found));
        }
        fs::read_to_string(folder.join(PYLOCK)).map_err(io)
    }
}

/// The versions of a lock, as constraints.
fn versions(pylock: &str) -> Result<String, toml_edit::TomlError> {
    let document: DocumentMut = pylock.parse()?;
    let packages = document.get("packages").and_then(Item::as_array_of_tables);
    let pin = |package: &Table| {
        Some(format!("{}=={}\n", package.get("name")?.as_str()?, package.get("version")?.as_str()?))
    };
    Ok(packages.into_iter().flatten().filter_map(pin).collect())
}

impl Upgrade {
    fn tell(&self, command: &mut Command) {
        match self {
            Self::Needed => {}
            Self::All => drop(command.arg("--upgrade")),
            Self::Packages(names) => {
                for name in names {
                    command.args(["--upgrade-package", name]);
                }
            }
        }
    }
}

fn failed(output: &Output) -> ResolveError {
    let said = String::from_utf8_lossy(&output.stderr);
    ResolveError::Failed {
        output: said.lines().map(str::to_owned).collect(),
        exit_code: output.status.code(),
    }
}

/// A file that nobody else reads.
fn secret_file(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    io::Write::write_all(&mut file, content)
}
