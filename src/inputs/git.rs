//! Commits of git repositories, fetched with this host's git and the credentials it knows.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};
use tokio::process::Command;

use crate::archive::hexadecimal;
use crate::deps::is_reference;
use crate::diagnostic::Diagnostic;

/// The ways in which a repository may be reached. Others run programs that an address names.
const PROTOCOLS: &str = "file:git:http:https:ssh";

/// Why a commit cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// There is no git on this host.
    #[error("git is needed to fetch `{0}`, and this host has none")]
    NoGit(String),
    /// git refuses.
    #[error("git cannot fetch `{url}`")]
    Failed {
        /// The repository.
        url: String,
        /// The line that says why.
        why: String,
        /// What that means.
        cause: GitCause,
    },
    /// The repository has no such branch, tag or commit.
    #[error("`{url}` has no branch, tag or commit `{reference}`")]
    NoReference {
        /// The repository.
        url: String,
        /// The name asked for.
        reference: String,
    },
    /// A name that git would take for an option, or that no branch can have.
    #[error("`{}` is no name of a branch, tag or commit", .0.escape_debug())]
    Name(String),
    /// The project needs other repositories.
    #[error("`{0}` has submodules, which are not fetched")]
    Submodules(String),
    /// The cache cannot be written.
    #[error("cannot keep a repository in `{}`", path.display())]
    Cache {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl GitError {
    /// The refusal.
    #[must_use]
    pub fn diagnostic(&self) -> Diagnostic {
        let what = Diagnostic::new(self.to_string());
        match self {
            Self::NoGit(_) => what.advice("install git, or name a path or an archive instead"),
            Self::Failed { why, cause, .. } => what.why(why.clone()).advice(match cause {
                GitCause::Unreachable => "check network and proxy, then try again",
                GitCause::Denied => {
                    "give this host's git the credentials: they are its own, and stay on this host"
                }
                GitCause::Certificate => {
                    "let git trust the certificate, with `http.sslCAInfo` in its settings"
                }
                GitCause::Absent | GitCause::NoReference | GitCause::Unknown => {
                    "try `git ls-remote` with the address; git's own settings and credentials hold"
                }
            }),
            Self::NoReference { .. } | Self::Name(_) => what.advice("correct `branch`, `tag` or `rev`"),
            Self::Submodules(_) => {
                what.advice("clone it with its submodules, and name the folder with `path`")
            }
            Self::Cache { source, .. } => {
                what.why(source.to_string()).advice("give another folder with `--cache-dir`")
            }
        }
    }

    /// Whether trying again may help.
    #[must_use]
    pub fn is_worth_a_retry(&self) -> bool {
        matches!(self, Self::Failed { cause: GitCause::Unreachable, .. })
    }
}

/// Why git fails, as far as it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GitCause {
    /// The other side does not answer, or stops in the middle.
    Unreachable,
    /// The other side wants to know who asks.
    Denied,
    /// There is no such repository.
    Absent,
    /// There is no such branch, tag or commit.
    NoReference,
    /// The other side's certificate is not trusted.
    Certificate,
    /// Something else.
    Unknown,
}

impl GitCause {
    /// The line that says why, of what git and ssh print in English, and what it means.
    fn of(said: &str) -> (String, Self) {
        const SIGNS: [(GitCause, &[&str]); 5] = [
            (GitCause::NoReference, &["couldn't find remote ref", "not our ref"]),
            (
                GitCause::Certificate,
                &[
                    "SSL certificate problem",
                    "server certificate verification failed",
                    "Host key verification failed",
                ],
            ),
            (
                GitCause::Denied,
                &[
                    "Permission denied",
                    "could not read Username",
                    "could not read Password",
                    "Authentication failed",
                    "error: 403",
                    "error: 401",
                ],
            ),
            (
                GitCause::Unreachable,
                &[
                    "Could not resolve host",
                    "Couldn't connect",
                    "Failed to connect",
                    "Connection refused",
                    "Connection timed out",
                    "Connection reset",
                    "Network is unreachable",
                    "Operation timed out",
                    "Temporary failure",
                    "early EOF",
                    "unexpected disconnect",
                    "Empty reply",
                    "error: 429",
                    "error: 500",
                    "error: 502",
                    "error: 503",
                    "error: 504",
                    "Could not resolve hostname",
                    "Connection closed",
                ],
            ),
            (GitCause::Absent, &["not found", "does not exist", "does not appear to be a git repository"]),
        ];
        let told = |line: &&str| {
            let line = line.trim_start().to_ascii_lowercase();
            !line.is_empty() && !line.starts_with("warning:") && !line.starts_with("hint:")
        };
        let says = |line: &str, signs: &[&str]| signs.iter().any(|sign| line.contains(sign));
        for (cause, signs) in SIGNS {
            if let Some(line) = said.lines().find(|line| says(line, signs)) {
                return (line.trim().to_owned(), cause);
            }
        }
        (said.lines().find(told).unwrap_or("it says nothing").trim().to_owned(), Self::Unknown)
    }
}

/// A commit whose files are on this host.
#[derive(Debug)]
pub struct Commit {
    /// Its hexadecimal name.
    pub id: String,
    /// Its files.
    pub folder: PathBuf,
}

/// Fetches what `reference` of the repository at `url` is now, the default branch without one, into
/// `cache`, where commits are kept. `tell` hears what takes its time.
///
/// # Errors
///
/// [`GitError`].
pub async fn fetch(
    url: &str,
    reference: Option<&str>,
    cache: &Path,
    tell: &mut impl FnMut(&str),
) -> Result<Commit, GitError> {
    let reference = reference.unwrap_or("HEAD");
    if !is_reference(reference) {
        return Err(GitError::Name(reference.to_owned()));
    }
    let key = hexadecimal(&Sha256::digest(url));
    let home = cache.join("git").join(&key[..24]);
    let repository = home.join("repository");
    let unkept = |source| GitError::Cache { path: home.clone(), source };
    // A commit does not change, so that one that is here is asked of nobody.
    let kept = home.join(reference);
    if is_whole_commit(reference) && kept.is_dir() && !kept.join(".gitmodules").is_file() {
        used_now(&kept);
        return Ok(Commit { id: reference.to_owned(), folder: kept });
    }
    fs::create_dir_all(&repository).map_err(unkept)?;
    tell(&format!("fetching {url}"));
    // Two builds at once must not take each other's FETCH_HEAD.
    let lock = fs::File::create(home.join("lock")).map_err(unkept)?;
    let mut waits = false;
    while let Err(error) = rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        if error != rustix::io::Errno::WOULDBLOCK {
            return Err(unkept(error.into()));
        }
        if !std::mem::replace(&mut waits, true) {
            tell(&format!("another build fetches {url}; waiting for it"));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    remove_left_over(&home);
    let git = Git { repository: &repository, url };
    git.run(&["init", "--quiet", "--bare"]).await?;
    let fetch = async |words: &[&str]| {
        let options = ["fetch", "--quiet", "--no-tags", "--force"];
        git.run(&[&options, words].concat()).await
    };
    let name = match fetch(&["--depth=1", "--", url, reference]).await {
        Ok(_) => "FETCH_HEAD^{commit}".to_owned(),
        // Some servers give no single commit, only branches and tags.
        Err(_) if is_commit(reference) => {
            let all = ["--", url, "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"];
            // What was fetched before may be shallow, without the commits behind it.
            match fetch(&[&["--unshallow"], all.as_slice()].concat()).await {
                Ok(_) => {}
                Err(_) => drop(fetch(&all).await?),
            }
            format!("{reference}^{{commit}}")
        }
        Err(GitError::Failed { cause: GitCause::NoReference, .. }) => {
            return Err(GitError::NoReference { url: url.to_owned(), reference: reference.to_owned() });
        }
        Err(error) => return Err(error),
    };
    let missing = |_| GitError::NoReference { url: url.to_owned(), reference: reference.to_owned() };
    let output = git.run(&["rev-parse", "--verify", "--quiet", &name]).await.map_err(missing)?;
    let id = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let folder = home.join(&id);
    if !folder.is_dir() {
        let unfinished = tempfile::Builder::new().prefix(UNFINISHED).tempdir_in(&home).map_err(unkept)?;
        let work_tree = format!("--work-tree={}", unfinished.path().display());
        git.run(&[&work_tree, "checkout", "--quiet", "--force", &id, "--", "."]).await?;
        fs::rename(unfinished.keep(), &folder)
            .or_else(|error| if folder.is_dir() { Ok(()) } else { Err(error) })
            .map_err(unkept)?;
    }
    if folder.join(".gitmodules").is_file() {
        return Err(GitError::Submodules(url.to_owned()));
    }
    used_now(&folder);
    Ok(Commit { id, folder })
}

/// What the names of folders begin with that are being filled.
const UNFINISHED: &str = "unfinished-";

/// Commits that no build used for this long are removed when the repository is asked again.
const KEPT: Duration = Duration::from_secs(30 * 24 * 3600);

/// Removes what killed processes left and what nobody uses any more, under the lock.
fn remove_left_over(home: &Path) {
    for entry in home.read_dir().into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let age = || entry.metadata().ok()?.modified().ok()?.elapsed().ok();
        if name.starts_with(UNFINISHED) || is_whole_commit(&name) && age().is_some_and(|age| age > KEPT) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Says so in the folder's time of change.
fn used_now(folder: &Path) {
    if let Ok(folder) = fs::File::open(folder) {
        let _ = folder.set_modified(SystemTime::now());
    }
}

/// Whether it is the whole name of a commit: SHA-1 or SHA-256 in hexadecimal digits.
fn is_whole_commit(reference: &str) -> bool {
    [40, 64].contains(&reference.len())
        && reference.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

fn is_commit(reference: &str) -> bool {
    reference.len() >= 7 && reference.bytes().all(|byte| byte.is_ascii_hexdigit())
}

struct Git<'a> {
    repository: &'a Path,
    url: &'a str,
}

impl Git<'_> {
    async fn run(&self, arguments: &[&str]) -> Result<Output, GitError> {
        let output = Command::new("git")
            .arg("--git-dir")
            .arg(self.repository)
            .args(arguments)
            .env_remove("GIT_INDEX_FILE")
            .env_remove("GIT_WORK_TREE")
            .env_remove("GIT_OBJECT_DIRECTORY")
            .env_remove("GIT_ALTERNATE_OBJECT_DIRECTORIES")
            .env_remove("GIT_NAMESPACE")
            .env_remove("GIT_COMMON_DIR")
            .env("GIT_ALLOW_PROTOCOL", PROTOCOLS)
            .env("GIT_TERMINAL_PROMPT", "0")
            // Its words are read.
            .env("LC_ALL", "C")
            .env("LANGUAGE", "C")
            // What interrupts this program at a terminal does not reach it; it ends with us.
            .process_group(0)
            .env("GIT_LFS_SKIP_SMUDGE", "1")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await;
        match output {
            Ok(output) if output.status.success() => Ok(output),
            Ok(output) => {
                let (why, cause) = GitCause::of(&String::from_utf8_lossy(&output.stderr));
                Err(GitError::Failed { url: self.url.to_owned(), why, cause })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(GitError::NoGit(self.url.to_owned()))
            }
            Err(error) => {
                let (why, cause) = (error.to_string(), GitCause::Unknown);
                Err(GitError::Failed { url: self.url.to_owned(), why, cause })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_that_says_why_is_told_and_understood() {
        let rights = "fatal: Could not read from remote repository.\n\nPlease make sure you have the correct access rights\nand the repository exists.\n";
        for (said, line, cause) in [
            // git 2.39 and 2.47, OpenSSH 9.
            (
                &format!("ssh: connect to host host.invalid port 22: Connection refused\n{rights}"),
                "ssh: connect to host host.invalid port 22: Connection refused",
                GitCause::Unreachable,
            ),
            (
                &format!("Warning: Permanently added 'host.invalid' to the list of known hosts.\ngit@host.invalid: Permission denied (publickey).\n{rights}"),
                "git@host.invalid: Permission denied (publickey).",
                GitCause::Denied,
            ),
            (&format!("Host key verification failed.\n{rights}"), "Host key verification failed.", GitCause::Certificate),
            (
                &"fatal: unable to access 'https://host.invalid/a/': Could not resolve host: host.invalid\n".to_owned(),
                "fatal: unable to access 'https://host.invalid/a/': Could not resolve host: host.invalid",
                GitCause::Unreachable,
            ),
            (
                &"fatal: unable to access 'https://host.invalid/a/': The requested URL returned error: 503\n".to_owned(),
                "fatal: unable to access 'https://host.invalid/a/': The requested URL returned error: 503",
                GitCause::Unreachable,
            ),
            (
                &"fatal: could not read Username for 'https://host.invalid': terminal prompts disabled\n".to_owned(),
                "fatal: could not read Username for 'https://host.invalid': terminal prompts disabled",
                GitCause::Denied,
            ),
            (
                &"fatal: unable to access 'https://host.invalid/a/': SSL certificate problem: unable to get local issuer certificate\n".to_owned(),
                "fatal: unable to access 'https://host.invalid/a/': SSL certificate problem: unable to get local issuer certificate",
                GitCause::Certificate,
            ),
            (&"fatal: couldn't find remote ref nope\n".to_owned(), "fatal: couldn't find remote ref nope", GitCause::NoReference),
            (
                &format!("fatal: '/nowhere' does not appear to be a git repository\n{rights}"),
                "fatal: '/nowhere' does not appear to be a git repository",
                GitCause::Absent,
            ),
            (
                &"remote: Repository not found.\nfatal: repository 'https://host.invalid/a/' not found\n".to_owned(),
                "remote: Repository not found.",
                GitCause::Absent,
            ),
            (&"hint: something\nfatal: odd\n".to_owned(), "fatal: odd", GitCause::Unknown),
        ] {
            assert_eq!(GitCause::of(said), (line.to_owned(), cause), "{said}");
        }
    }

    #[tokio::test]
    async fn commits_are_fetched_by_branch_tag_and_id() {
        let home = tempfile::tempdir().unwrap();
        let work = home.path().join("work");
        let git = |arguments: &[&str]| {
            let status = std::process::Command::new("git")
                .args([
                    "-c",
                    "user.name=a",
                    "-c",
                    "user.email=a@host.invalid",
                    "-c",
                    "init.defaultBranch=main",
                ])
                .arg("-C")
                .arg(home.path())
                .args(arguments)
                .output()
                .unwrap();
            assert!(status.status.success(), "{status:?}");
            String::from_utf8(status.stdout).unwrap().trim().to_owned()
        };
        git(&["init", "-q", "work"]);
        fs::write(work.join("a"), "1").unwrap();
        git(&["-C", "work", "add", "a"]);
        git(&["-C", "work", "commit", "-qm", "one"]);
        git(&["-C", "work", "tag", "v1"]);
        let first = git(&["-C", "work", "rev-parse", "HEAD"]);
        fs::write(work.join("a"), "2").unwrap();
        git(&["-C", "work", "commit", "-qam", "two"]);
        let second = git(&["-C", "work", "rev-parse", "HEAD"]);
        let url = format!("file://{}", work.display());
        let cache = home.path().join("cache");
        for (reference, id, text) in [
            (None, &second, "2"),
            (Some("main"), &second, "2"),
            (Some("v1"), &first, "1"),
            (Some(first.as_str()), &first, "1"),
        ] {
            let commit = fetch(&url, reference, &cache, &mut |_| {}).await.unwrap();
            assert_eq!(&commit.id, id, "for {reference:?}");
            assert_eq!(fs::read_to_string(commit.folder.join("a")).unwrap(), text);
        }
        fs::remove_dir_all(&work).unwrap();
        let gone =
            fetch(&url, Some(second.as_str()), &cache, &mut |_| panic!("nobody is asked")).await.unwrap();
        assert_eq!(gone.id, second);
        git(&["init", "-q", "work"]);
        fs::write(work.join("a"), "3").unwrap();
        git(&["-C", "work", "add", "a"]);
        git(&["-C", "work", "commit", "-qm", "three"]);
        // What nobody used for long is gone at the next question, and what was used is not.
        let old = SystemTime::now() - 2 * KEPT;
        let folders = [&first, &second].map(|id| gone.folder.with_file_name(id));
        for folder in &folders {
            fs::File::open(folder).unwrap().set_modified(old).unwrap();
        }
        fetch(&url, Some(second.as_str()), &cache, &mut |_| {}).await.unwrap();
        fetch(&url, None, &cache, &mut |_| {}).await.unwrap();
        assert_eq!(folders.map(|folder| folder.is_dir()), [false, true]);
        assert!(matches!(
            fetch(&url, Some("nope"), &cache, &mut |_| {}).await,
            Err(GitError::NoReference { .. })
        ));
        assert!(matches!(
            fetch(&url, Some("--upload-pack=x"), &cache, &mut |_| {}).await,
            Err(GitError::Name(_))
        ));
        assert!(fetch("ext::sh -c true", None, &cache, &mut |_| {}).await.is_err());
        assert!(fetch("--upload-pack=touch /tmp/x", None, &cache, &mut |_| {}).await.is_err());
    }
}
