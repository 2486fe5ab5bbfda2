//! One request to a registry, and its answer.

use std::error::Error;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use reqwest::header::{
    AUTHORIZATION, CONTENT_LENGTH, HeaderMap, HeaderName, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE,
};
use reqwest::{Body, Method, RequestBuilder, Response, StatusCode, Url};
use serde::Deserialize;

use super::Registry;
use super::address::may_lead;
use super::challenge;
use super::error::{Fault, RegistryError};
use super::patience::{Patience, retry_after};
use crate::harmless::harmless;
use crate::http;

/// How often it is looked whether a request gets on.
const TICK: Duration = Duration::from_millis(100);

/// Largest text of an error that is read, in bytes, and shown, in characters.
const MAX_COMPLAINT: usize = 64 << 10;
const SHOWN: usize = 300;

/// How often a registry may lead elsewhere until it answers.
const REDIRECTS: u32 = 5;

/// What all requests to a registry share, whoever asks.
pub(super) struct Line {
    pub(super) http: reqwest::Client,
    /// The registry's name, for people.
    pub(super) registry: String,
    pub(super) patience: Patience,
}

/// What a registry is asked.
pub(super) struct Ask<'a> {
    /// It in words, for people.
    pub(super) what: &'a str,
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) scopes: &'a [String],
    pub(super) body: Option<Outgoing<'a>>,
    /// How long nothing may come and go.
    pub(super) silence: Duration,
}

/// A body that can be made again.
pub(super) struct Outgoing<'a> {
    /// In bytes.
    pub(super) size: u64,
    pub(super) make: &'a dyn Fn() -> Body,
    /// Bytes of it that have gone.
    pub(super) gone: &'a AtomicU64,
    /// Hears of them.
    pub(super) tell: &'a dyn Fn(u64),
}

/// What a registry answers.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// Where it came from in the end.
    pub(super) url: Url,
    response: Option<Response>,
    /// What is wrong, where something is.
    complaint: String,
    /// The registry's words for it.
    codes: Vec<String>,
}

/// Rule: OCI distribution specification 1.1, "Error Codes".
#[derive(Deserialize, Default)]
struct Complaints {
    #[serde(default)]
    errors: Vec<Complaint>,
}

#[derive(Deserialize)]
struct Complaint {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

impl Complaint {
    /// Whether more was asked than the registry answers for now. GHCR says so of its secondary limit as something denied.
    fn is_of_too_many(&self) -> bool {
        self.code == "TOOMANYREQUESTS" || self.message.to_ascii_lowercase().contains("secondary rate limit")
    }
}

impl<'a> Ask<'a> {
    /// A request without a body.
    pub(super) fn new(
        registry: &Registry,
        what: &'a str,
        method: Method,
        url: Url,
        scopes: &'a [String],
    ) -> Self {
        let silence = registry.line.patience.silence;
        Self { what, method, url, headers: HeaderMap::new(), scopes, body: None, silence }
    }
}

impl Registry {
    /// Asks once: says who asks where the registry wants to know, and goes where it leads.
    ///
    /// # Errors
    ///
    /// [`Fault::Passing`] for what the specification of HTTP and registries' habits let pass, and a denial. All else is an
    /// answer.
    pub(super) async fn ask(&self, ask: &Ask<'_>) -> Result<Answer, Fault> {
        let base = self.base().await?;
        let mut url = ask.url.clone();
        let (mut was_asked, mut led) = (false, 0);
        loop {
            // Elsewhere nobody is told who asks.
            let is_ours = url.origin() == base.origin();
            let authorization =
                if is_ours { self.auth.header(&self.line, base, ask.scopes).await? } else { None };
            let mut request = self.line.http.request(ask.method.clone(), url.clone());
            request = request.headers(ask.headers.clone());
            if let Some(authorization) = &authorization {
                request = request.header(AUTHORIZATION, authorization);
            }
            if let Some(body) = &ask.body {
                body.gone.store(0, Ordering::Relaxed);
                request = request.header(CONTENT_LENGTH, body.size).body((body.make)());
            } else if ask.method != Method::GET && ask.method != Method::HEAD {
                request = request.header(CONTENT_LENGTH, 0);
            }
            let response = self.line.send(request, ask.silence, ask.body.as_ref()).await?;
            let status = response.status();
            if status == StatusCode::UNAUTHORIZED && is_ours && !was_asked {
                was_asked = true;
                let headers = response.headers().get_all(WWW_AUTHENTICATE);
                let challenge = challenge::best(headers.iter().filter_map(|header| header.to_str().ok()));
                if self.auth.answer(ask.scopes, challenge, authorization.as_ref()).await {
                    continue;
                }
            }
            if matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
                led += 1;
                url = self.line.lead(ask, &url, &response, led)?;
                continue;
            }
            return self.line.judged(ask.what, self.auth.is_known(), response).await;
        }
    }
}

impl Line {
    /// Sends a request, and waits as long as something of it goes or the answer may still come.
    pub(super) async fn send(
        &self,
        request: RequestBuilder,
        silence: Duration,
        body: Option<&Outgoing<'_>>,
    ) -> Result<Response, Fault> {
        let mut answer = pin!(request.send());
        let (mut seen, mut since) = (0, Instant::now());
        loop {
            tokio::select! {
                answer = &mut answer => return answer.map_err(|error| self.fault(error)),
                () = tokio::time::sleep(TICK.min(silence)) => {
                    let gone = body.map_or(0, |body| body.gone.load(Ordering::Relaxed));
                    // The end of a body may take longer than any part of it.
                    let is_over = body.is_none_or(|body| gone >= body.size);
                    let most = if is_over { silence } else { silence.min(self.patience.silence) };
                    if gone == seen && since.elapsed() > most {
                        return Err(self.silent(most));
                    }
                    if gone != seen {
                        (seen, since) = (gone, Instant::now());
                        body.inspect(|body| (body.tell)(gone));
                    }
                }
            }
        }
    }

    /// Where an answer leads.
    fn lead(&self, ask: &Ask<'_>, from: &Url, response: &Response, led: u32) -> Result<Url, RegistryError> {
        let nonsense = |why: &str| self.nonsense(ask.what, why);
        let to = location(from, response.headers()).ok_or_else(|| nonsense("it leads nowhere"))?;
        if led > REDIRECTS {
            return Err(nonsense("it leads in circles"));
        }
        let elsewhere = |why| self.elsewhere(&to, why);
        may_lead(from, &to).map_err(elsewhere)?;
        if ask.method != Method::GET && ask.method != Method::HEAD && from.origin() != to.origin() {
            return Err(elsewhere("what is written there is not written to the registry"));
        }
        Ok(to)
    }

    /// An answer; where it says that something is wrong, with what.
    pub(super) async fn judged(&self, what: &str, known: bool, response: Response) -> Result<Answer, Fault> {
        let (status, url) = (response.status(), response.url().clone());
        let headers = response.headers().clone();
        let mut answer = Answer {
            status,
            headers,
            url,
            response: Some(response),
            complaint: String::new(),
            codes: Vec::new(),
        };
        if !status.is_client_error() && !status.is_server_error() {
            return Ok(answer);
        }
        // What cannot be read says no more than the status.
        let body = answer.bytes(self, MAX_COMPLAINT).await.ok().flatten().unwrap_or_default();
        let complaints: Complaints = serde_json::from_slice(&body).unwrap_or_default();
        let mut why = status.to_string();
        if let Some(Complaint { code, message }) = complaints.errors.first() {
            let said = [message.as_str(), code].into_iter().find(|text| !text.is_empty());
            why.extend(said.map(|said| format!(": {}", shortened(&harmless(said)))));
        }
        let registry = || self.registry.clone();
        if complaints.errors.iter().any(Complaint::is_of_too_many)
            || matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504)
        {
            let header = answer.headers.get(RETRY_AFTER).and_then(|header| header.to_str().ok());
            let wait = header.and_then(|text| retry_after(text, SystemTime::now()));
            return Err(Fault::Passing { error: RegistryError::Busy { registry: registry(), why }, wait });
        }
        if matches!(status.as_u16(), 401 | 403) {
            let what = what.to_owned();
            return Err(RegistryError::Denied { registry: registry(), what, why, known }.into());
        }
        answer.complaint = why;
        answer.codes = complaints.errors.into_iter().map(|complaint| complaint.code).collect();
        Ok(answer)
    }

    /// What a failed connection means.
    pub(super) fn fault(&self, error: reqwest::Error) -> Fault {
        let registry = self.registry.clone();
        let (is_connect, is_builder) = (error.is_connect(), error.is_builder());
        let certificate = causes(&error)
            .filter_map(|cause| cause.downcast_ref())
            .any(|tls| matches!(tls, rustls::Error::InvalidCertificate(_)));
        let why = http::cause(error);
        if certificate {
            return RegistryError::Untrusted { registry, why }.into();
        }
        let error = RegistryError::Unreachable { registry, why };
        match (is_connect, is_builder) {
            (true, _) => Fault::Unreached(error),
            (_, true) => Fault::Lasting(error),
            _ => Fault::passing(error),
        }
    }

    pub(super) fn silent(&self, silence: Duration) -> Fault {
        let why = format!("nothing came for {} s", silence.as_secs_f32());
        Fault::passing(RegistryError::Unreachable { registry: self.registry.clone(), why })
    }

    pub(super) fn nonsense(&self, what: &str, why: impl Into<String>) -> RegistryError {
        RegistryError::Nonsense { registry: self.registry.clone(), what: what.to_owned(), why: why.into() }
    }

    pub(super) fn elsewhere(&self, place: &Url, why: &'static str) -> RegistryError {
        let place = place.origin().ascii_serialization();
        RegistryError::Elsewhere { registry: self.registry.clone(), place, why }
    }

    /// Checks the digest that an answer names, where it names one.
    pub(super) fn agrees(&self, answer: &Answer, expected: &str) -> Result<(), RegistryError> {
        match answer.text(&DIGEST).filter(|found| *found != expected) {
            // Another algorithm says nothing of this one.
            Some(found) if found.starts_with("sha256:") => Err(self.differs(expected, found)),
            _ => Ok(()),
        }
    }

    pub(super) fn differs(&self, expected: &str, found: &str) -> RegistryError {
        let [expected, found] = [expected, &shortened(&harmless(found))].map(str::to_owned);
        RegistryError::Digest { registry: self.registry.clone(), expected, found }
    }
}

/// The digest of what an answer is about.
pub(super) const DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

impl Answer {
    pub(super) fn text(&self, name: &HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The size it says that its body has, in bytes, also where it has none.
    pub(super) fn size(&self) -> Option<u64> {
        self.text(&CONTENT_LENGTH)?.parse().ok()
    }

    /// Where it leads.
    pub(super) fn location(&self) -> Option<Url> {
        location(&self.url, &self.headers)
    }

    /// Whether it says one of these to be wrong.
    pub(super) fn complains_of(&self, codes: &[&str]) -> bool {
        self.codes.iter().any(|code| codes.contains(&code.as_str()))
    }

    /// The refusal that it is.
    pub(super) fn refused(&self, line: &Line, what: &str) -> RegistryError {
        if self.complaint.is_empty() {
            return line.nonsense(what, format!("it says {}", self.status));
        }
        let why = self.complaint.clone();
        let status = self.status.as_u16();
        RegistryError::Refused { registry: line.registry.clone(), what: what.to_owned(), why, status }
    }

    /// The next bytes of its body; `None` behind the last.
    pub(super) async fn next(&mut self, line: &Line) -> Result<Option<Bytes>, Fault> {
        let Some(response) = &mut self.response else { return Ok(None) };
        let silence = line.patience.silence;
        match tokio::time::timeout(silence, response.chunk()).await {
            Ok(next) => next.map_err(|error| line.fault(error)),
            Err(_) => Err(line.silent(silence)),
        }
    }

    /// Its body; `None` where it has more than `most` bytes.
    pub(super) async fn bytes(&mut self, line: &Line, most: usize) -> Result<Option<Vec<u8>>, Fault> {
        let mut bytes = Vec::new();
        while let Some(next) = self.next(line).await? {
            if bytes.len() + next.len() > most {
                return Ok(None);
            }
            bytes.extend_from_slice(&next);
        }
        Ok(Some(bytes))
    }
}

fn location(from: &Url, headers: &HeaderMap) -> Option<Url> {
    from.join(headers.get(LOCATION)?.to_str().ok()?).ok()
}

fn shortened(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// An error and all its causes. What an error of input or output wraps is one of them.
pub(super) fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    let first: &(dyn Error + 'static) = error;
    std::iter::successors(Some(first), |error| {
        let error = *error;
        match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        }
    })
}
