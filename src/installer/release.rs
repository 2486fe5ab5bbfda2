//! The installer: one pinned uv, got by name and hash through the uv or pip of this host.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use sha2::{Digest, Sha256};
use tokio::process::Command;

use super::words::Cause;
use crate::archive::{Archive, hexadecimal};
use crate::base::Platform;
use crate::diagnostic::Diagnostic;
use crate::plan::Installer;
use crate::reference::Reference;

const VERSION: &str = "0.13.8";

/// Of each wheel: the architecture in OCI images and in wheel names, and its SHA-256.
const WHEELS: [(&str, &str, &str); 2] = [
    ("amd64", "x86_64", "29451c60f5e8b07403e0a175d5229efc36b0289b34143ff4aaa499a5dd52553a"),
    ("arm64", "aarch64", "0b3e8b1a4f5e405e31e2ff33de8af4744831e9f7338539671efbd8c3c94e791d"),
];

/// Why there is no installer.
#[derive(Debug, thiserror::Error)]
pub enum UvError {
    /// This host has neither uv nor pip.
    #[error("cannot get the installer uv {VERSION}: this host has neither uv nor pip")]
    NoSource,
    /// The host's uv or pip could not get it.
    #[error("cannot get the installer uv {VERSION} with `{program}`")]
    Failed {
        /// What was asked.
        program: String,
        /// The end of what it printed.
        output: String,
        /// What that means, where it is known.
        cause: Option<Cause>,
    },
    /// The file system refuses.
    #[error("cannot read or keep the installer in `{}`", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl UvError {
    /// Whether the same call may work in a while.
    #[must_use]
    pub fn is_worth_a_retry(&self) -> bool {
        matches!(self, Self::Failed { cause: Some(Cause::Unreachable { .. }), .. })
    }

    /// The refusal.
    #[must_use]
    pub fn diagnostic(&self) -> Diagnostic {
        let what = Diagnostic::new(self.to_string());
        match self {
            Self::NoSource => {
                what.advice("install pip (on Debian: `apt-get install python3-pip`), or give `--uv PATH`")
            }
            Self::Failed { output, .. } => what
                .why(output.clone())
                .advice("check its index, proxy and certificate settings, or give `--uv PATH`"),
            Self::Io { source, .. } => {
                what.why(source.to_string()).advice("give another `--cache-dir` or `--uv`")
            }
        }
    }
}

/// What is done with a build of uv, which is statically linked, so that it runs on any Linux of its architecture.
impl Installer {
    /// The pinned build for a platform; `None` where there is none.
    #[must_use]
    pub fn of(platform: &Platform) -> Option<Self> {
        let (architecture, _, sha256) = wheel(&platform.architecture)?;
        (platform.os == "linux").then(|| Self {
            version: VERSION.to_owned(),
            architecture: architecture.to_owned(),
            sha256: sha256.to_owned(),
        })
    }

    /// A program of the caller's in place of the pinned one.
    ///
    /// # Errors
    ///
    /// [`UvError::Io`] where it cannot be read.
    pub fn with_program(self, program: &Path) -> Result<Self, UvError> {
        let mut hash = Sha256::new();
        std::fs::File::open(program)
            .and_then(|mut file| io::copy(&mut file, &mut HashWriter(&mut hash)))
            .map_err(|source| UvError::Io { path: program.to_owned(), source })?;
        Ok(Self { version: "custom".to_owned(), sha256: hexadecimal(&hash.finalize()), ..self })
    }

    /// The tag of the engine's image that holds this release.
    #[must_use]
    pub fn private_tag(&self) -> Reference {
        format!("ipybox-uv:{}-{}-{}", self.version, self.architecture, &self.sha256[..12])
            .parse()
            .expect("versions and hashes make a tag")
    }

    /// The program on this host: from the cache, else got through uv or pip, which know the user's
    /// index, mirror and proxy and check the hash.
    ///
    /// # Errors
    ///
    /// [`UvError`].
    pub async fn obtain(&self, cache: &Path) -> Result<PathBuf, UvError> {
        let absolute = std::path::absolute(cache);
        let folder = absolute.map_err(|source| UvError::Io { path: cache.to_owned(), source })?.join("uv");
        let program = folder.join(format!("{}-{}-{}", self.version, self.architecture, &self.sha256[..12]));
        if program.is_file() {
            return Ok(program);
        }
        let io = |source| UvError::Io { path: folder.clone(), source };
        std::fs::create_dir_all(&folder).map_err(io)?;
        let scratch = tempfile::tempdir_in(&folder).map_err(io)?;
        self.install(scratch.path()).await?;
        std::fs::rename(scratch.path().join("target/bin/uv"), &program).map_err(io)?;
        Ok(program)
    }

    /// Installs uv's wheel below `scratch/target`.
    async fn install(&self, scratch: &Path) -> Result<(), UvError> {
        let io = |source| UvError::Io { path: scratch.to_owned(), source };
        let (_, machine, _) = wheel(&self.architecture).expect("a release is made from a wheel");
        let requirement = scratch.join("requirements.txt");
        std::fs::write(&requirement, format!("uv=={} --hash=sha256:{}\n", self.version, self.sha256))
            .map_err(io)?;
        let target = scratch.join("target");
        let common: [&OsStr; 8] = [
            "--quiet".as_ref(),
            "--no-deps".as_ref(),
            "--only-binary=:all:".as_ref(),
            "--require-hashes".as_ref(),
            "--target".as_ref(),
            target.as_ref(),
            "-r".as_ref(),
            requirement.as_ref(),
        ];
        let uv_platform = format!("{machine}-unknown-linux-musl");
        let pip_platform = format!("musllinux_1_1_{machine}");
        let pip = ["install", "--no-input", "--disable-pip-version-check", "--platform", &pip_platform];
        let sources: [(&str, Vec<&str>); 4] = [
            ("uv", vec!["pip", "install", "--python-platform", &uv_platform]),
            ("pip3", pip.to_vec()),
            ("pip", pip.to_vec()),
            ("python3", [&["-m", "pip"], &pip[..]].concat()),
        ];
        let mut failure = UvError::NoSource;
        for (program, arguments) in sources {
            let mut command = Command::new(program);
            // Away from the caller's folder, whose settings and modules are not ours.
            command.current_dir(scratch).args(&arguments).args(common);
            command.stdin(Stdio::null()).kill_on_drop(true);
            // What interrupts this program at a terminal does not reach it, so that the next is not tried in its place.
            command.process_group(0);
            let Ok(output) = command.output().await else {
                continue;
            };
            if output.status.success() && target.join("bin/uv").is_file() {
                return Ok(());
            }
            let printed = String::from_utf8_lossy(&output.stderr);
            // A python3 without pip is no source that failed.
            if !printed.contains("No module named pip") {
                let cause = Cause::of(&printed.lines().map(str::to_owned).collect::<Vec<_>>());
                let output = last_lines(&printed, 3);
                failure = UvError::Failed { program: program.to_owned(), output, cause };
            }
        }
        Err(failure)
    }
}

/// The image with the installer in it, as the engine imports it.
///
/// # Errors
///
/// Where the program cannot be read.
pub fn image(program: &Path) -> Result<Archive, UvError> {
    let mut files = Archive::default();
    match files.add_file("uv", 0o755, program) {
        Ok(()) => Ok(files),
        Err(source) => Err(UvError::Io { path: program.to_owned(), source }),
    }
}

struct HashWriter<'a>(&'a mut Sha256);

impl io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn wheel(architecture: &str) -> Option<(&'static str, &'static str, &'static str)> {
    WHEELS.into_iter().find(|(name, ..)| *name == architecture)
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

impl fmt::Display for Installer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "uv {} for {}", self.version, self.architecture)
    }
}
