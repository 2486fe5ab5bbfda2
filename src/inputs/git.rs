//! Commits of git repositories, fetched with this host's git and the credentials it knows.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use sha2::{Digest, Sha256};
use tokio::process::Command;

use crate::deps::is_reference;
use crate::diagnostic::Diagnostic;
use crate::inputs::local::hexadecimal;

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
        /// The last line it said.
        why: String,
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
            Self::Failed { why, .. } => what
                .why(why.clone())
                .advice("try `git ls-remote` with the address; git's own settings and credentials hold"),
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
        matches!(self, Self::Failed { why, .. }
            if ["resolve host", "connect to", "timed out", "Connection re"].iter().any(|cause| why.contains(cause)))
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
/// `cache`, where commits are kept.
///
/// # Errors
///
/// [`GitError`].
pub async fn fetch(url: &str, reference: Option<&str>, cache: &Path) -> Result<Commit, GitError> {
    let reference = reference.unwrap_or("HEAD");
    if !is_reference(reference) {
        return Err(GitError::Name(reference.to_owned()));
    }
    let key = hexadecimal(&Sha256::digest(url));
    let home = cache.join("git").join(&key[..24]);
    let repository = home.join("repository");
    let unkept = |source| GitError::Cache { path: home.clone(), source };
    fs::create_dir_all(&repository).map_err(unkept)?;
    // Two builds at once must not take each other's FETCH_HEAD.
    let lock = fs::File::create(home.join("lock")).map_err(unkept)?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)
        .map_err(|error| unkept(error.into()))?;
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
        Err(GitError::Failed { why, .. }) if why.contains("remote ref") => {
            return Err(GitError::NoReference { url: url.to_owned(), reference: reference.to_owned() });
        }
        Err(error) => return Err(error),
    };
    let missing = |_| GitError::NoReference { url: url.to_owned(), reference: reference.to_owned() };
    let output = git.run(&["rev-parse", "--verify", "--quiet", &name]).await.map_err(missing)?;
    let id = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let folder = home.join(&id);
    if !folder.is_dir() {
        let unfinished = tempfile::tempdir_in(&home).map_err(unkept)?;
        let work_tree = format!("--work-tree={}", unfinished.path().display());
        git.run(&[&work_tree, "checkout", "--quiet", "--force", &id, "--", "."]).await?;
        fs::rename(unfinished.keep(), &folder)
            .or_else(|error| if folder.is_dir() { Ok(()) } else { Err(error) })
            .map_err(unkept)?;
    }
    if folder.join(".gitmodules").is_file() {
        return Err(GitError::Submodules(url.to_owned()));
    }
    Ok(Commit { id, folder })
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
            .env("GIT_LFS_SKIP_SMUDGE", "1")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await;
        match output {
            Ok(output) if output.status.success() => Ok(output),
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr);
                let why = said
                    .lines()
                    .rfind(|line| !line.trim().is_empty())
                    .unwrap_or("it says nothing")
                    .to_owned();
                Err(GitError::Failed { url: self.url.to_owned(), why })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(GitError::NoGit(self.url.to_owned()))
            }
            Err(error) => Err(GitError::Failed { url: self.url.to_owned(), why: error.to_string() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            let commit = fetch(&url, reference, &cache).await.unwrap();
            assert_eq!(&commit.id, id, "for {reference:?}");
            assert_eq!(fs::read_to_string(commit.folder.join("a")).unwrap(), text);
        }
        assert!(matches!(fetch(&url, Some("nope"), &cache).await, Err(GitError::NoReference { .. })));
        assert!(matches!(fetch(&url, Some("--upload-pack=x"), &cache).await, Err(GitError::Name(_))));
        assert!(fetch("ext::sh -c true", None, &cache).await.is_err());
        assert!(fetch("--upload-pack=touch /tmp/x", None, &cache).await.is_err());
    }
}
