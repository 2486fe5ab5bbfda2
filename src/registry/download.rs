//! One blob on its way out of a repository.

use std::io::{self, Write};
use std::sync::Arc;

use bytes::Bytes;
use reqwest::header::{CONTENT_RANGE, HeaderValue, RANGE};
use reqwest::{Method, StatusCode};
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;

use super::auth::pull;
use super::error::{Fault, RegistryError};
use super::exchange::{Answer, Ask};
use super::manifests::Descriptor;
use super::patience::Tries;
use super::{Blob, Registry};
use crate::archive::hexadecimal;

/// A blob on its way out of a repository, in pieces. What was cut is gone on with where it was cut.
pub struct Download<'a> {
    registry: &'a Registry,
    repository: String,
    blob: Descriptor,
    what: String,
    answer: Option<Answer>,
    tries: Tries<'a>,
    had: u64,
    /// Bytes of the present answer that were had before.
    again: u64,
    hash: Sha256,
    over: bool,
}

impl<'a> Download<'a> {
    pub(super) fn new(
        registry: &'a Registry,
        repository: &str,
        blob: &Descriptor,
    ) -> Result<Self, RegistryError> {
        super::digest(&blob.digest)?;
        Ok(Self {
            what: format!("give the blob `{}` of `{repository}`", blob.digest),
            registry,
            repository: repository.to_owned(),
            blob: blob.clone(),
            answer: None,
            tries: registry.line.patience.begin(),
            had: 0,
            again: 0,
            hash: Sha256::new(),
            over: false,
        })
    }
}

impl Registry {
    /// A blob of one of its repositories, to be pushed elsewhere. It is read from here only where whoever is pushed to neither
    /// has it nor can mount it.
    ///
    /// # Errors
    ///
    /// [`RegistryError::Name`].
    pub fn blob(self: &Arc<Self>, repository: &str, blob: &Descriptor) -> Result<Blob, RegistryError> {
        super::digest(&blob.digest)?;
        let (registry, from, wanted) = (self.clone(), self.in_full(repository)?, blob.clone());
        let content = move |to: &mut dyn Write| {
            // Blobs are read by threads beside the runtime that sends them.
            let runtime = Handle::try_current().map_err(io::Error::other)?;
            let mut download = Download::new(&registry, &from, &wanted).map_err(io::Error::other)?;
            while let Some(bytes) = runtime.block_on(download.next()).map_err(io::Error::other)? {
                to.write_all(&bytes)?;
            }
            Ok(())
        };
        Ok(Blob { content: Arc::new(content), ..Blob::known(blob) })
    }
}

impl Download<'_> {
    /// The next bytes; `None` behind the last, which are given out only where all were what the digest says.
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    pub async fn next(&mut self) -> Result<Option<Bytes>, RegistryError> {
        if self.over {
            return Ok(None);
        }
        loop {
            match self.read().await {
                Ok(bytes) => {
                    self.tries.got_on();
                    return Ok(bytes);
                }
                Err(fault) => {
                    self.answer = None;
                    self.tries.after(fault).await?;
                }
            }
        }
    }

    async fn read(&mut self) -> Result<Option<Bytes>, Fault> {
        let line = &self.registry.line;
        if self.answer.is_none() {
            self.ask().await?;
        }
        let answer = self.answer.as_mut().expect("it was asked above");
        loop {
            let Some(mut bytes) = answer.next(line).await? else {
                if self.had == self.blob.size {
                    self.over = true;
                    self.check()?;
                    return Ok(None);
                }
                let why = format!("it was cut: {} bytes of {} have come", self.had, self.blob.size);
                return Err(Fault::passing(RegistryError::Unreachable {
                    registry: line.registry.clone(),
                    why,
                }));
            };
            let again = usize::try_from(self.again).map_or(bytes.len(), |again| again.min(bytes.len()));
            let _ = bytes.split_to(again);
            self.again -= again as u64;
            if bytes.is_empty() {
                continue;
            }
            if self.had + bytes.len() as u64 > self.blob.size {
                let why = format!("it is larger than {} bytes", self.blob.size);
                return Err(line.nonsense(&self.what, why).into());
            }
            self.had += bytes.len() as u64;
            self.hash.update(&bytes);
            if self.had == self.blob.size {
                self.check()?;
                self.over = true;
            }
            return Ok(Some(bytes));
        }
    }

    fn check(&self) -> Result<(), RegistryError> {
        let found = format!("sha256:{}", hexadecimal(&self.hash.clone().finalize()));
        if found == self.blob.digest {
            Ok(())
        } else {
            Err(self.registry.line.differs(&self.blob.digest, &found))
        }
    }

    async fn ask(&mut self) -> Result<(), Fault> {
        let url = self.registry.url(&self.repository, &format!("blobs/{}", self.blob.digest)).await?;
        let scopes = [pull(&self.repository)];
        let mut ask = Ask::new(self.registry, &self.what, Method::GET, url, &scopes);
        if self.had > 0 {
            let range = HeaderValue::from_str(&format!("bytes={}-", self.had)).expect("digits are a header");
            ask.headers.insert(RANGE, range);
        }
        let answer = self.registry.ask(&ask).await?;
        let from = format!("bytes {}-", self.had);
        self.again = match answer.status {
            StatusCode::OK => self.had,
            StatusCode::PARTIAL_CONTENT
                if answer.text(&CONTENT_RANGE).is_some_and(|range| range.starts_with(&from)) =>
            {
                0
            }
            _ => return Err(answer.refused(&self.registry.line, &self.what).into()),
        };
        self.answer = Some(answer);
        Ok(())
    }
}
