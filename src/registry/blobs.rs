//! Blobs of a repository: asked for, mounted from another one, given up.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use reqwest::{Method, StatusCode, Url};

use super::auth::{pull, push};
use super::error::{Fault, RegistryError};
use super::exchange::Ask;
use super::session::Session;
use super::upload::Upload;
use super::{Blob, Registry};

/// How a blob came to be in a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// It was there.
    There,
    /// The registry has it from another repository.
    Mounted,
    /// It was sent.
    Sent,
}

/// What bringing a blob took.
pub(super) struct Brought {
    pub(super) arrival: Arrival,
    /// Bytes that were sent.
    pub(super) sent: u64,
    /// Whether another repository was to give it and did not.
    pub(super) refused: bool,
}

/// How often it is tried to mount a blob, which can be sent as well.
const MOUNTS: u32 = 3;

/// How long is waited for requests beside one that failed, and for the end of a session that is given up.
pub(super) const FAREWELL: Duration = Duration::from_secs(5);

/// The sessions of uploads that are not over, by the blobs' digests.
#[derive(Default)]
pub(super) struct Sessions {
    open: Mutex<BTreeMap<String, (Url, Vec<String>)>>,
    over: AtomicBool,
}

impl Sessions {
    pub(super) fn set(&self, digest: &str, session: Option<(Url, Vec<String>)>) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        match session {
            Some(session) => open.insert(digest.to_owned(), session),
            None => open.remove(digest),
        };
    }

    /// Asks all uploads to stop behind the request that they are at, so that it is known where their sessions are.
    pub(super) fn stop(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// Whether another upload failed. What becomes of the others no longer counts.
    pub(super) fn are_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn take(&self) -> Vec<(Url, Vec<String>)> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *open).into_values().collect()
    }
}

impl Registry {
    /// Brings a blob into a repository: asks for it, mounts it, sends it. Who wants it elsewhere meanwhile waits and mounts it.
    pub(super) async fn bring(
        &self,
        repository: &str,
        blob: &Blob,
        sessions: &Sessions,
        tell: &dyn Fn(u64),
    ) -> Result<Brought, RegistryError> {
        let there = Brought { arrival: Arrival::There, sent: 0, refused: false };
        if sessions.are_over() {
            return Ok(there);
        }
        let what = format!("take the blob `{}` into `{repository}`", blob.digest);
        let scopes = [push(repository)];
        let home = self.homes.of(&blob.digest);
        let is_home = || home.repository() == Some(repository);
        let was_home = is_home();
        if self.line.patience.insist(async || self.has_blob(repository, blob, &what, &scopes).await).await? {
            home.is_in(repository);
            return Ok(there);
        }
        let _turn = home.turn.lock().await;
        // Another push to the same repository may have brought it in the meantime.
        if sessions.are_over() || (is_home() && !was_home) {
            return Ok(there);
        }
        let mut others: Vec<&str> = home.repository().into_iter().chain(blob.mount_from.as_deref()).collect();
        others.retain(|other| *other != repository);
        others.dedup();
        let (mut session, refused) = (None, !others.is_empty());
        for from in others {
            match self.mounting(repository, from, blob, &what).await {
                Ok(Mounting::Done) => {
                    home.is_in(repository);
                    return Ok(Brought { arrival: Arrival::Mounted, ..there });
                }
                Ok(Mounting::Open(open @ Some(_))) => {
                    session = open;
                    break;
                }
                Err(error) if error.is_of_trust() => return Err(error),
                // Who may not read there, or finds a registry that fails at it, may still write here.
                Ok(Mounting::Open(None)) | Err(_) => {}
            }
        }
        let _one_of_few = self.uploads.acquire().await;
        let sent = Upload::new(self, repository, blob, &what, &scopes, sessions, tell).run(session).await?;
        if !sessions.are_over() {
            home.is_in(repository);
        }
        Ok(Brought { arrival: Arrival::Sent, sent, refused })
    }

    /// Whether a repository has a blob.
    pub(super) async fn has_blob(
        &self,
        repository: &str,
        blob: &Blob,
        what: &str,
        scopes: &[String],
    ) -> Result<bool, Fault> {
        let url = self.url(repository, &format!("blobs/{}", blob.digest)).await?;
        let answer = self.ask(&Ask::new(self, what, Method::HEAD, url, scopes)).await?;
        match answer.status {
            // A page for all addresses is no blob.
            StatusCode::OK => {
                self.line.agrees(&answer, &blob.digest)?;
                Ok(answer.size().is_none_or(|size| size == blob.size))
            }
            _ => Ok(false),
        }
    }

    /// Tries a few times to mount a blob.
    async fn mounting(
        &self,
        repository: &str,
        from: &str,
        blob: &Blob,
        what: &str,
    ) -> Result<Mounting, RegistryError> {
        let mut tries = self.line.patience.begin();
        for _ in 1..MOUNTS {
            match self.mount(repository, from, blob, what).await {
                Ok(mounting) => return Ok(mounting),
                Err(fault) => tries.after(fault).await?,
            }
        }
        Ok(self.mount(repository, from, blob, what).await?)
    }

    /// Rule: OCI distribution specification 1.1, "Mounting a blob from another repository".
    async fn mount(&self, repository: &str, from: &str, blob: &Blob, what: &str) -> Result<Mounting, Fault> {
        let scopes = [push(repository), pull(from)];
        let mut url = self.url(repository, "blobs/uploads/").await?;
        url.query_pairs_mut().append_pair("mount", &blob.digest).append_pair("from", from);
        let answer = self.ask(&Ask::new(self, what, Method::POST, url, &scopes)).await?;
        match answer.status {
            StatusCode::CREATED => {
                self.line.agrees(&answer, &blob.digest)?;
                Ok(Mounting::Done)
            }
            StatusCode::ACCEPTED => Ok(Mounting::Open(Some(self.opened(&answer, what)?))),
            _ => Ok(Mounting::Open(None)),
        }
    }

    /// Gives up what was not brought to its end, as far as the registry listens.
    pub(super) async fn give_up(&self, sessions: &Sessions) {
        for (place, scopes) in sessions.take() {
            self.end(place, &scopes).await;
        }
    }

    /// Ends a session. A registry that does not hear it ends it by itself some day.
    pub(super) async fn end(&self, place: Url, scopes: &[String]) {
        let ask = Ask::new(self, "end an upload", Method::DELETE, place, scopes);
        let _ = tokio::time::timeout(FAREWELL, self.ask(&ask)).await;
    }
}

/// What has become of the wish to mount a blob.
enum Mounting {
    Done,
    /// The registry wants the bytes, and may have opened a session for them.
    Open(Option<Session>),
}
