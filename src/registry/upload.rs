//! One blob on its way into a repository.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::stream;
use http_body_util::StreamBody;
use hyper::body::Frame;
use reqwest::header::{CONTENT_RANGE, CONTENT_TYPE, HeaderValue, RANGE};
use reqwest::{Body, Method, StatusCode, Url};

use super::blobs::Sessions;
use super::error::{Fault, RegistryError};
use super::exchange::{Answer, Ask, Outgoing};
use super::limits::{PART, SMALLEST, much_smaller};
use super::range::taken;
use super::session::Session;
use super::source::Window;
use super::{Blob, Registry};
use crate::harmless::harmless;

/// How often a registry may turn down what it was sent, and nothing got on, until it is given up.
const REFUSALS: u32 = 3;

/// How often a registry may lose what it had, as some do of an upload that was cut.
const SETBACKS: u32 = 10;

/// One blob on its way into a repository: in one body, or in parts that are read as they go; in smaller parts, which are held
/// in memory, where a registry wants them or something on the way failed.
pub(super) struct Upload<'a> {
    registry: &'a Registry,
    repository: &'a str,
    blob: &'a Blob,
    what: &'a str,
    scopes: &'a [String],
    sessions: &'a Sessions,
    tell: &'a dyn Fn(u64),
    session: Option<Session>,
    window: Window,
    /// Whether it is tried in one body.
    whole: bool,
    /// The most that a part has, in bytes.
    part: u64,
    /// Whether the registry may have more or less than was thought, or even all.
    unsure: bool,
    refusals: u32,
    /// How often the registry had no time for a body, and nothing got on.
    delays: u32,
    setbacks: u32,
    /// How much the registry has, and the most that it ever had.
    reached: u64,
    farthest: u64,
    sent: u64,
}

impl<'a> Upload<'a> {
    pub(super) fn new(
        registry: &'a Registry,
        repository: &'a str,
        blob: &'a Blob,
        what: &'a str,
        scopes: &'a [String],
        sessions: &'a Sessions,
        tell: &'a dyn Fn(u64),
    ) -> Self {
        Self {
            registry,
            repository,
            blob,
            what,
            scopes,
            sessions,
            tell,
            session: None,
            window: Window::default(),
            whole: registry.limits.is_whole(blob.size),
            part: registry.limits.part(),
            unsure: false,
            refusals: 0,
            delays: 0,
            setbacks: 0,
            reached: 0,
            farthest: 0,
            sent: 0,
        }
    }

    /// Sends it, in the session that is there or in a new one. Returns how many bytes were sent.
    pub(super) async fn run(mut self, session: Option<Session>) -> Result<u64, RegistryError> {
        self.keep(session);
        let mut tries = self.registry.line.patience.begin();
        loop {
            if self.sessions.are_over() {
                return Ok(self.sent);
            }
            let before = self.reached;
            let step = self.step().await;
            if self.reached > before {
                tries.got_on();
            }
            match step {
                Ok(true) => break,
                Ok(false) => {}
                Err(fault) => {
                    self.unsure = true;
                    tries.after(fault).await?;
                }
            }
        }
        self.keep(None);
        (self.tell)(self.blob.size);
        Ok(self.sent)
    }

    /// One request; whether the blob is there now.
    async fn step(&mut self) -> Result<bool, Fault> {
        let Some(session) = self.session.clone() else {
            return self.open().await;
        };
        if self.unsure {
            return self.look(session).await;
        }
        (self.tell)(session.offset);
        if self.whole && session.offset == 0 {
            self.send_whole(session).await
        } else if session.offset < self.blob.size {
            self.send_part(session).await.map(|()| false)
        } else {
            self.close(session).await
        }
    }

    fn keep(&mut self, session: Option<Session>) {
        let open = session.as_ref().map(|session| (session.place.clone(), self.scopes.to_vec()));
        self.sessions.set(&self.blob.digest, open);
        self.session = session;
    }

    async fn open(&mut self) -> Result<bool, Fault> {
        // A lost answer may have been the last.
        if self.unsure && self.registry.has_blob(self.repository, self.blob, self.what, self.scopes).await? {
            return Ok(true);
        }
        let url = self.registry.url(self.repository, "blobs/uploads/").await?;
        let answer = self.ask(Method::POST, url, None).await?;
        if answer.status != StatusCode::ACCEPTED {
            return Err(answer.refused(&self.registry.line, self.what).into());
        }
        let session = self.registry.opened(&answer, self.what)?;
        self.unsure = false;
        self.reach(0)?;
        self.keep(Some(session));
        Ok(false)
    }

    /// Asks how much the registry has.
    async fn look(&mut self, session: Session) -> Result<bool, Fault> {
        if self.registry.has_blob(self.repository, self.blob, self.what, self.scopes).await? {
            return Ok(true);
        }
        let answer = self.ask(Method::GET, session.place.clone(), None).await?;
        let offset = answer.text(&RANGE).and_then(|range| taken(range, 0));
        self.unsure = false;
        match offset.filter(|offset| answer.status.is_success() && *offset <= self.blob.size) {
            Some(offset) => self.go_on(&session, &answer, offset)?,
            None if answer.status == StatusCode::NOT_FOUND => self.keep(None),
            None => self.begin_again().await,
        }
        Ok(false)
    }

    /// Believes what the registry says that it has.
    fn go_on(&mut self, session: &Session, answer: &Answer, offset: u64) -> Result<(), Fault> {
        let session = self.registry.moved(session, answer, offset)?;
        self.reach(offset)?;
        self.keep(Some(session));
        Ok(())
    }

    /// Notes how much the registry has.
    fn reach(&mut self, offset: u64) -> Result<(), RegistryError> {
        if offset < self.reached {
            self.setbacks += 1;
        }
        self.reached = offset;
        if offset > self.farthest {
            (self.farthest, self.refusals, self.delays) = (offset, 0, 0);
        }
        if self.setbacks > SETBACKS {
            let why = format!("it lost what it was sent of a blob {SETBACKS} times");
            return Err(RegistryError::Unreachable { registry: self.registry.line.registry.clone(), why });
        }
        Ok(())
    }

    async fn begin_again(&mut self) {
        if let Some(session) = self.session.take() {
            self.registry.end(session.place, self.scopes).await;
        }
        self.keep(None);
    }

    /// Rule: OCI distribution specification 1.1, "POST then PUT".
    async fn send_whole(&mut self, session: Session) -> Result<bool, Fault> {
        let size = self.blob.size;
        match self.send(Method::PUT, self.ended(&session), 0, size).await {
            Err(fault) => {
                self.failed(&fault, size, PART);
                Err(fault)
            }
            Ok(answer) if answer.status == StatusCode::PAYLOAD_TOO_LARGE => {
                (self.whole, self.unsure) = (false, true);
                self.part = self.registry.limits.whole_is_too_large(size);
                Ok(false)
            }
            Ok(answer) if answer.status.is_success() => {
                self.registry.line.agrees(&answer, &self.blob.digest)?;
                Ok(true)
            }
            Ok(answer) => {
                (self.whole, self.part) = (false, self.part.min(PART));
                self.turned_down(answer.refused(&self.registry.line, self.what), true).await
            }
        }
    }

    /// A body of so many bytes did not arrive. What was cut may have been too large for something on the way, and so may what
    /// was answered twice in the name of a registry that had no time: the next is smaller.
    fn failed(&mut self, fault: &Fault, size: u64, next: u64) {
        let next = if fault.is_of_busy() {
            self.delays += 1;
            if self.delays < 2 || size <= PART {
                return;
            }
            PART
        } else {
            next
        };
        (self.whole, self.part) = (false, self.part.min(next));
    }

    /// Rule: OCI distribution specification 1.1, "Pushing a blob in chunks".
    async fn send_part(&mut self, session: Session) -> Result<(), Fault> {
        if session.least > 0 {
            self.part = self.part.min(PART);
        }
        let start = session.offset;
        let end = self.blob.size.min(start.saturating_add(self.part.max(session.least)));
        let smallest = session.least.max(SMALLEST);
        match self.send(Method::PATCH, session.place.clone(), start, end).await {
            Err(fault) => {
                self.failed(&fault, end - start, (self.part / 2).max(SMALLEST));
                Err(fault)
            }
            Ok(answer) if answer.status == StatusCode::PAYLOAD_TOO_LARGE => {
                if end - start <= smallest {
                    return Err(answer.refused(&self.registry.line, self.what).into());
                }
                self.part = self.registry.limits.part_is_too_large(end - start);
                self.unsure = true;
                Ok(())
            }
            Ok(answer) if answer.status.is_success() => {
                let range = answer.text(&RANGE);
                let offset = range.map_or(Some(end), |range| taken(range, end));
                let why = format!("it has `{}` of {end} bytes", harmless(range.unwrap_or_default()));
                let strange = self.registry.line.nonsense(self.what, why);
                match offset {
                    Some(offset) if offset > start && offset <= end => self.go_on(&session, &answer, offset),
                    // No more than before is believed, more than was ever sent is not.
                    Some(offset) if offset <= start => {
                        self.go_on(&session, &answer, offset)?;
                        Err(Fault::passing(strange))
                    }
                    _ => self.turned_down(strange, true).await.map(|_| ()),
                }
            }
            Ok(answer) => {
                let over = answer.status != StatusCode::RANGE_NOT_SATISFIABLE;
                if over {
                    // Not everything on the way that finds a body too large says so.
                    self.part = much_smaller(self.part);
                }
                let error = answer.refused(&self.registry.line, self.what);
                self.turned_down(error, over).await.map(|_| ())
            }
        }
    }

    async fn close(&mut self, session: Session) -> Result<bool, Fault> {
        let answer = self.ask(Method::PUT, self.ended(&session), None).await?;
        if !answer.status.is_success() {
            return self.turned_down(answer.refused(&self.registry.line, self.what), true).await;
        }
        self.registry.line.agrees(&answer, &self.blob.digest)?;
        Ok(true)
    }

    /// Where a session is closed.
    fn ended(&self, session: &Session) -> Url {
        let mut place = session.place.clone();
        place.query_pairs_mut().append_pair("digest", &self.blob.digest);
        place
    }

    /// A session that does not take what it is sent is given up where it is `over`, and a few further ones are tried.
    async fn turned_down(&mut self, error: RegistryError, over: bool) -> Result<bool, Fault> {
        self.refusals += 1;
        if self.refusals > REFUSALS {
            return Err(error.into());
        }
        if over || self.refusals > 1 {
            self.begin_again().await;
        }
        Err(Fault::passing(error))
    }

    /// Sends bytes of the blob in one body.
    async fn send(&mut self, method: Method, place: Url, start: u64, end: u64) -> Result<Answer, Fault> {
        let range = format!("{start}-{}", end.saturating_sub(1));
        let range = HeaderValue::from_str(&range).expect("digits are a header");
        let is_part = method == Method::PATCH;
        let range = is_part.then_some(range);
        let tell = |gone| (self.tell)(start + gone);
        if is_part && end - start <= PART {
            let part = self.window.part(self.blob, start, end).await?;
            let gone = Arc::new(AtomicU64::new(0));
            let make = || Body::wrap(StreamBody::new(stream::iter(counted(part.clone(), gone.clone()))));
            let body = Outgoing { size: end - start, make: &make, gone: &gone, tell: &tell };
            let answer = self.ask(method, place, Some((body, range))).await;
            self.sent += gone.load(Ordering::Relaxed);
            return answer;
        }
        let flow = self.window.flow(self.blob, start, end).await?;
        let make = || flow.body();
        let body = Outgoing { size: end - start, make: &make, gone: &flow.gone, tell: &tell };
        let answer = self.ask(method, place, Some((body, range))).await;
        self.sent += flow.gone.load(Ordering::Relaxed);
        self.window.take_back(flow)?;
        answer
    }

    async fn ask(
        &self,
        method: Method,
        place: Url,
        body: Option<(Outgoing<'_>, Option<HeaderValue>)>,
    ) -> Result<Answer, Fault> {
        let closes = method == Method::PUT;
        let mut ask = Ask::new(self.registry, self.what, method, place, self.scopes);
        if closes {
            ask.silence = self.registry.line.patience.closing;
        }
        if let Some((body, range)) = body {
            ask.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
            if let Some(range) = range {
                ask.headers.insert(CONTENT_RANGE, range);
            }
            ask.body = Some(body);
        }
        self.registry.ask(&ask).await
    }
}

/// Pieces as frames of a body, counted as they go.
fn counted(
    part: Vec<Bytes>,
    gone: Arc<AtomicU64>,
) -> impl Iterator<Item = Result<Frame<Bytes>, std::io::Error>> + Send + Sync + 'static {
    part.into_iter().map(move |piece| {
        gone.fetch_add(piece.len() as u64, Ordering::Relaxed);
        Ok(Frame::data(piece))
    })
}
