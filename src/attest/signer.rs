//! Programs of others that sign what is pushed, and check what is signed.

use std::ffi::OsString;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use super::layout::{self, LayoutError, read_layout, write_layout};
use crate::diagnostic::Diagnostic;
use crate::harmless::harmless;
use crate::registry::{Descriptor, Image};

/// How long a program may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// How much of what it says is told, in bytes: the end.
const MOST_SAID: usize = 4096;

/// A program that signs, and the arguments it gets behind what it is to do. It has the environment of this one, where its keys
/// and tokens are.
#[derive(Debug, Clone)]
pub struct Signer {
    /// Its path, or its name in `PATH`.
    pub program: OsString,
    /// In their order.
    pub args: Vec<OsString>,
    /// How long it may take.
    pub patience: Duration,
}

/// Why nothing is signed, or a signature does not count.
#[derive(Debug, thiserror::Error)]
pub enum SignerError {
    /// There is no such program, or it cannot be started.
    #[error("the signer `{program}` cannot be started")]
    NotStarted {
        /// It.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// It ended, and not well.
    #[error("the signer `{program}` failed: {ended}")]
    Failed {
        /// It.
        program: String,
        /// How, as a phrase.
        ended: String,
        /// The end of what it said.
        said: String,
    },
    /// It does not end.
    #[error("the signer `{program}` does not end within {} s", .patience.as_secs())]
    Silent {
        /// It.
        program: String,
        /// How long was waited.
        patience: Duration,
    },
    /// What it answers is no signature of what it was given.
    #[error("the signer `{program}` answers what is no signature of this: {why}")]
    Nonsense {
        /// It.
        program: String,
        /// What is wrong with it.
        why: LayoutError,
    },
    /// The user gave up.
    #[error("interrupted")]
    Interrupted,
}

impl SignerError {
    /// The refusal.
    #[must_use]
    pub fn diagnostic(&self) -> Diagnostic {
        let what = |program: &str, what: &str| Diagnostic::new(format!("the signer `{program}` {what}"));
        match self {
            Self::NotStarted { program, source } => what(program, "cannot be started")
                .why(source.to_string())
                .advice("give the path of a program, or its name in `PATH`, that you may run"),
            Self::Failed { program, ended, said } => {
                let why = if said.is_empty() { ended.clone() } else { format!("{ended}: {said}") };
                what(program, "failed").why(why).advice("see what it needs: its keys, tokens and network")
            }
            Self::Silent { program, patience } => {
                what(program, &format!("does not end within {} s", patience.as_secs()))
                    .why("it was stopped; it is asked nothing while it runs, as there is no terminal")
                    .advice(
                        "see what it waits for: a service, or a password that it has to get in another way",
                    )
            }
            Self::Nonsense { program, why } => {
                what(program, "answers what is no signature of this").why(why.to_string()).advice(
                    "see that it writes a layout of OCI as a tar archive to stdout, and all else to stderr",
                )
            }
            Self::Interrupted => Diagnostic::new("interrupted"),
        }
    }
}

impl Signer {
    /// One without further arguments.
    #[must_use]
    pub fn new(program: impl Into<OsString>) -> Self {
        Self { program: program.into(), args: Vec::new(), patience: PATIENCE }
    }

    /// Has a manifest signed: the artifact with the signature, which names the manifest as its subject.
    ///
    /// Rule: `rules_img`, "Writing your own signer plugin": `TOOL sign-oci-artifact` reads a descriptor and writes a layout.
    ///
    /// # Errors
    ///
    /// [`SignerError`].
    pub async fn sign(
        &self,
        subject: &Descriptor,
        interrupt: &CancellationToken,
    ) -> Result<Image, SignerError> {
        let Descriptor { digest, media_type, size } = subject;
        let descriptor = json!({ "mediaType": media_type, "digest": digest, "size": size }).to_string();
        let layout = self.run("sign-oci-artifact", descriptor.as_bytes(), interrupt).await?;
        read_layout(&layout, subject).map_err(|why| SignerError::Nonsense { program: self.name(), why })
    }

    /// Has a signature checked, which names the manifest that is signed as its subject: `TOOL verify-oci-artifact` reads the
    /// layout that `TOOL sign-oci-artifact` has written, and ends well where the signature is good and by somebody who may
    /// sign this.
    ///
    /// # Errors
    ///
    /// [`SignerError::Failed`] where it is not; others where that was not found out.
    pub async fn verify(&self, signature: &Image, interrupt: &CancellationToken) -> Result<(), SignerError> {
        let layout = write_layout(signature)
            .map_err(|source| SignerError::NotStarted { program: self.name(), source })?;
        self.run("verify-oci-artifact", &layout, interrupt).await.map(drop)
    }

    fn name(&self) -> String {
        harmless(&self.program.to_string_lossy())
    }

    /// Runs it on an input, and returns what it writes.
    async fn run(
        &self,
        what: &str,
        input: &[u8],
        interrupt: &CancellationToken,
    ) -> Result<Vec<u8>, SignerError> {
        let not_started = |source| SignerError::NotStarted { program: self.name(), source };
        let mut command = Command::new(&self.program);
        command.arg(what).args(&self.args).kill_on_drop(true).process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut program = command.spawn().map_err(not_started)?;
        let (Some(mut stdin), Some(stdout), Some(stderr)) =
            (program.stdin.take(), program.stdout.take(), program.stderr.take())
        else {
            return Err(not_started(io::ErrorKind::BrokenPipe.into()));
        };
        let group = program.id();
        let work = async {
            let feed = async {
                // One that does not read it may still end well.
                let _ = stdin.write_all(input).await;
                drop(stdin);
                Ok(())
            };
            let (ended, answer, said, ()) =
                tokio::try_join!(program.wait(), bounded(stdout), end_of(stderr), feed)?;
            Ok::<_, io::Error>((ended, answer, said))
        };
        let worked = interrupt.run_until_cancelled(tokio::time::timeout(self.patience, work)).await;
        if !matches!(worked, Some(Ok(Ok(_)))) {
            end(group);
        }
        let (ended, answer, said) = match worked {
            None => return Err(SignerError::Interrupted),
            Some(Err(_)) => {
                return Err(SignerError::Silent { program: self.name(), patience: self.patience });
            }
            Some(Ok(worked)) => worked.map_err(not_started)?,
        };
        if !ended.success() {
            let said = harmless(String::from_utf8_lossy(&said).trim());
            return Err(SignerError::Failed { program: self.name(), ended: how(ended), said });
        }
        answer.ok_or(SignerError::Nonsense { program: self.name(), why: LayoutError::Limit("16 MiB") })
    }
}

/// Ends a program with all that it has started.
fn end(group: Option<u32>) {
    let group = group.and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
    if let Some(group) = group {
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
}

/// What is written, unless it is more than is read.
async fn bounded(mut from: impl AsyncRead + Unpin) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    (&mut from).take(layout::MOST + 1).read_to_end(&mut bytes).await?;
    if bytes.len() as u64 <= layout::MOST {
        return Ok(Some(bytes));
    }
    tokio::io::copy(&mut from, &mut tokio::io::sink()).await?;
    Ok(None)
}

/// The end of what is written.
async fn end_of(mut from: impl AsyncRead + Unpin) -> io::Result<Vec<u8>> {
    let mut said = Vec::new();
    while from.read_buf(&mut said).await? > 0 {
        let excess = said.len().saturating_sub(MOST_SAID);
        said.drain(..excess);
    }
    Ok(said)
}

fn how(ended: ExitStatus) -> String {
    match ended.code() {
        Some(code) => format!("it exited with {code}"),
        None => "it was killed".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::Instant;

    use super::super::tests::subject;
    use super::*;
    use crate::registry::Blob;

    /// A signer of these lines of shell, with a folder of its own.
    fn signer(script: &str) -> (tempfile::TempDir, Signer) {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("signer");
        std::fs::write(&program, format!("#!/bin/sh\ncd \"${{0%/*}}\"\n{script}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        (folder, Signer::new(program))
    }

    fn signature() -> Image {
        Image::artifact(
            &subject(),
            "application/x",
            vec![Blob::of("text/plain", "signed")],
            &std::collections::BTreeMap::new(),
        )
    }

    async fn told(script: &str) -> String {
        let (_folder, signer) = signer(script);
        let error = signer.sign(&subject(), &CancellationToken::new()).await.err().unwrap();
        let told = error.diagnostic();
        assert!(!told.why.is_empty() && told.fix.is_some(), "{told:?}");
        format!("{error}: {}", told.why)
    }

    #[tokio::test]
    async fn a_signer_gets_a_descriptor_and_what_it_writes_is_checked() {
        let script = "[ \"$1 $2\" = 'sign-oci-artifact --key' ] && cat >said && cat layout";
        let (folder, mut signer) = signer(script);
        signer.args.push("--key".into());
        std::fs::write(folder.path().join("layout"), write_layout(&signature()).unwrap()).unwrap();
        let signed = signer.sign(&subject(), &CancellationToken::new()).await.unwrap();
        assert_eq!(signed.manifest, signature().manifest);
        let said: serde_json::Value =
            serde_json::from_slice(&std::fs::read(folder.path().join("said")).unwrap()).unwrap();
        let Descriptor { digest, media_type, size } = subject();
        assert_eq!(said, json!({ "mediaType": media_type, "digest": digest, "size": size }));
        let (folder, signer) = self::signer("[ $1 = verify-oci-artifact ] && cat >said; exit $(cat code)");
        for (code, is_good) in [("0", true), ("1", false)] {
            std::fs::write(folder.path().join("code"), code).unwrap();
            let checked = signer.verify(&signature(), &CancellationToken::new()).await;
            assert_eq!(checked.is_ok(), is_good);
            assert_eq!(
                std::fs::read(folder.path().join("said")).unwrap(),
                write_layout(&signature()).unwrap()
            );
        }
    }

    #[tokio::test]
    async fn what_a_signer_does_wrong_is_told() {
        assert!(
            told("echo no key at https://me:secret@host.invalid >&2; exit 3").await.contains("exited with 3")
        );
        let said = told("printf '\\033[1mno key at https://me:secret@host.invalid' >&2; exit 3").await;
        assert!(said.contains("no key") && !said.contains("secret") && !said.contains('\u{1b}'), "{said}");
        assert!(told("seq 1 100000 >&2; exit 1").await.len() < 5000);
        assert!(told("kill -9 $$").await.contains("it was killed"));
        assert!(told("echo signed").await.contains("no tar archive"));
        assert!(told("true").await.contains("it lacks `oci-layout`"));
        assert!(told("head -c 17000000 /dev/zero").await.contains("16 MiB"));
        let missing = Signer::new("/nowhere/signer").sign(&subject(), &CancellationToken::new()).await;
        assert!(matches!(missing, Err(SignerError::NotStarted { .. })));
    }

    #[tokio::test]
    async fn a_signer_that_does_not_end_is_ended_with_what_it_started() {
        let (folder, mut signer) = signer("sleep 60 & echo $! >child; wait");
        signer.patience = Duration::from_millis(500);
        let begun = Instant::now();
        let silent = signer.sign(&subject(), &CancellationToken::new()).await;
        assert!(matches!(silent, Err(SignerError::Silent { .. })), "{:?}", silent.err());
        let interrupt = CancellationToken::new();
        signer.patience = PATIENCE;
        let cancel = async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            interrupt.cancel();
        };
        let subject = subject();
        let (interrupted, ()) = tokio::join!(signer.sign(&subject, &interrupt), cancel);
        assert!(matches!(interrupted, Err(SignerError::Interrupted)));
        assert!(begun.elapsed() < Duration::from_secs(30));
        let child = std::fs::read_to_string(folder.path().join("child")).unwrap();
        let state = || std::fs::read_to_string(format!("/proc/{}/stat", child.trim()));
        let is_over = || state().map_or(true, |stat| stat.contains(") Z "));
        while !is_over() && begun.elapsed() < Duration::from_secs(30) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(is_over());
    }
}
