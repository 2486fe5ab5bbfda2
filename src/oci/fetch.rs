//! Wheels from where their lock says they are.

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use reqwest::{Client, Response, StatusCode, redirect};

use super::measured::Measured;
use super::store::Store;
use crate::diagnostic::Diagnostic;
use crate::http::{self, SILENCE};

/// Fetches wheels by their addresses, with this host's certificates and proxies.
#[derive(Debug, Clone)]
pub struct Fetcher(Client);

/// Why a wheel cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Nobody answers, or not in this way.
    #[error("`{file}` cannot be fetched")]
    Unreachable {
        /// The name of its file.
        file: String,
        /// Why not; the address is no part of it.
        why: String,
    },
    /// What comes is something else.
    #[error("the file `{file}` is not the one that was promised")]
    Other {
        /// The name of its file.
        file: String,
        /// How that shows.
        why: String,
    },
    /// It cannot be kept.
    #[error("`{file}` cannot be kept")]
    Unkept {
        /// The name of its file.
        file: String,
        /// Why not.
        source: io::Error,
    },
}

impl FetchError {
    /// The refusal.
    #[must_use]
    pub fn diagnostic(&self) -> Diagnostic {
        let what = Diagnostic::new(self.to_string());
        match self {
            Self::Unreachable { why, .. } => {
                what.why(why.clone()).advice("check the network and proxy settings, and try again")
            }
            Self::Other { why, .. } => what
                .why(why.clone())
                .advice("nothing of it was kept; bring the lock up to date with `ipybox lock`, or ask the index's owner"),
            Self::Unkept { source, .. } => what.why(source.to_string()).advice("make room for the cache"),
        }
    }
}

/// What the store has of a wheel.
enum Found {
    Here(PathBuf),
    /// Nothing, and nobody else fetches it as long as this is there.
    Lacking {
        _alone: File,
    },
}

/// How often it is tried, and how long is waited in between at first.
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_millis(if cfg!(test) { 5 } else { 300 });

impl Fetcher {
    /// One that trusts this host's certificates and these, in PEM.
    ///
    /// # Errors
    ///
    /// Of settings that cannot be used.
    pub fn new(certificates: Option<&[u8]>) -> io::Result<Self> {
        let client = http::client(certificates)?.redirect(redirect::Policy::limited(5)).read_timeout(SILENCE);
        Ok(Self(client.build().map_err(io::Error::other)?))
    }

    /// A wheel in the store, fetched where it is not there, by one of those who want it at once. What was fetched is kept only
    /// where size and SHA-256 are right.
    ///
    /// # Errors
    ///
    /// [`FetchError`].
    pub async fn wheel(
        &self,
        store: &Store,
        file: &str,
        url: &str,
        sha256: &str,
        size: Option<u64>,
    ) -> Result<PathBuf, FetchError> {
        let (of_wheel, of_store) = (sha256.to_owned(), store.clone());
        let looking = move || match of_store.has_wheel(&of_wheel) {
            Some(place) => Ok(Found::Here(place)),
            None => {
                let alone = of_store.alone(&of_wheel)?;
                Ok(of_store.has_wheel(&of_wheel).map_or(Found::Lacking { _alone: alone }, Found::Here))
            }
        };
        let looked = tokio::task::spawn_blocking(looking).await;
        let found = looked.unwrap_or_else(|error| Err(io::Error::other(error)));
        let _alone = match found.map_err(|source| FetchError::Unkept { file: file.to_owned(), source })? {
            Found::Here(place) => return Ok(place),
            lacking @ Found::Lacking { .. } => lacking,
        };
        let mut tried = 1;
        loop {
            match self.fetched(store, file, url, sha256, size).await {
                Err(FetchError::Unreachable { .. }) if tried < TRIES => {
                    tokio::time::sleep(PAUSE * 2_u32.pow(tried) + PAUSE.mul_f64(rand::random())).await;
                    tried += 1;
                }
                done => return done,
            }
        }
    }

    async fn fetched(
        &self,
        store: &Store,
        file: &str,
        url: &str,
        sha256: &str,
        size: Option<u64>,
    ) -> Result<PathBuf, FetchError> {
        let file = || file.to_owned();
        let unreachable =
            |error: reqwest::Error| FetchError::Unreachable { file: file(), why: http::cause(error) };
        let unkept = |source| FetchError::Unkept { file: file(), source };
        let other = |why: String| FetchError::Other { file: file(), why };
        let mut answer: Response = self.0.get(url).send().await.map_err(unreachable)?;
        match answer.status() {
            StatusCode::OK => {}
            status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                return Err(FetchError::Unreachable {
                    file: file(),
                    why: format!("the server says {status}"),
                });
            }
            status => return Err(other(format!("the server says {status}"))),
        }
        let mut measured = Measured::new(store.unfinished().map_err(unkept)?);
        while let Some(chunk) = answer.chunk().await.map_err(unreachable)? {
            measured.write_all(&chunk).map_err(unkept)?;
            if size.is_some_and(|size| measured.size > size) {
                return Err(other(format!(
                    "it is larger than {} bytes, as the lock has it",
                    size.unwrap_or_default()
                )));
            }
        }
        if let Some(size) = size.filter(|size| measured.size != *size) {
            let why = format!("it was cut: {} bytes of {size} have come", measured.size);
            return Err(FetchError::Unreachable { file: file(), why });
        }
        let (unfinished, found) = measured.done();
        if found != sha256 {
            return Err(other(format!("its SHA-256 is {found}, and that of the lock {sha256}")));
        }
        store.keep_wheel(sha256, unfinished).map_err(unkept)
    }
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::archive::hexadecimal;

    /// A server that gives these answers, one for each request, and then none.
    async fn served(answers: &'static [&'static str]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        format!("http://{address}/a-1.0-py3-none-any.whl")
    }

    #[tokio::test]
    async fn only_what_the_lock_has_is_kept() {
        const GOOD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwheel";
        let sha256 = hexadecimal(&Sha256::digest("wheel"));
        let fetcher = Fetcher::new(None).unwrap();
        let rows: [(&'static [&'static str], Option<&str>); 8] = [
            (&[GOOD], None),
            (&["HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", "nonsense", "", GOOD], None),
            (&["HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwhe", GOOD], None),
            (&["HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n"], Some("the server says 404")),
            (&["HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nother"], Some("its SHA-256 is")),
            (&["HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nwheels"], Some("it is larger than 5 bytes")),
            (&["HTTP/1.1 302 Found\r\nLocation: ftp://x/\r\nContent-Length: 0\r\n\r\n"; 4], Some("")),
            (&[], Some("")),
        ];
        for (answers, refused) in rows {
            let cache = tempfile::tempdir().unwrap();
            let store = Store::in_cache(cache.path());
            let url = served(answers).await;
            let fetched = fetcher.wheel(&store, "a-1.0-py3-none-any.whl", &url, &sha256, Some(5)).await;
            match (fetched, refused) {
                (Ok(place), None) => assert_eq!(std::fs::read(place).unwrap(), b"wheel"),
                (Err(error), Some(why)) => {
                    let told = error.diagnostic();
                    assert!(told.why.contains(why), "{answers:?}: {error}");
                    assert!(!store.wheel(&sha256).exists());
                }
                (fetched, refused) => panic!("{answers:?}: {fetched:?} {refused:?}"),
            }
            let left = std::fs::read_dir(cache.path().join("layers/unfinished")).unwrap();
            let mut left = left.map(|entry| entry.unwrap().path());
            assert!(left.all(|path| path.extension().is_some_and(|end| end == "lock")));
        }
    }

    #[tokio::test]
    async fn a_wheel_that_several_want_at_once_is_fetched_once() {
        let sha256 = hexadecimal(&Sha256::digest("wheel"));
        let cache = tempfile::tempdir().unwrap();
        let (store, fetcher) = (Store::in_cache(cache.path()), Fetcher::new(None).unwrap());
        // There is no second answer.
        let url = served(&["HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwheel"]).await;
        let fetch = || fetcher.wheel(&store, "a-1.0-py3-none-any.whl", &url, &sha256, None);
        let (one, other, another) = tokio::join!(fetch(), fetch(), fetch());
        assert!([one, other, another].into_iter().all(|fetched| fetched.unwrap() == store.wheel(&sha256)));
    }
}
