//! HTTP/1.1 to the servers of a container.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, header};
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use crate::engine::Door;

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Most that is read of an answer or a message, in bytes.
pub(in crate::verify) const MOST: usize = 64 << 20;

/// A server, and what it wants to be shown.
#[derive(Debug, Clone)]
pub(in crate::verify) struct Server {
    pub(in crate::verify) door: Door,
    /// Shown in the scheme that the server knows.
    pub(in crate::verify) token: Option<String>,
    /// That scheme: `token` of Jupyter's servers, or `Bearer`.
    pub(in crate::verify) scheme: &'static str,
}

/// A status and a body.
#[derive(Debug)]
pub(in crate::verify) struct Answer {
    pub(in crate::verify) status: u16,
    pub(in crate::verify) body: Bytes,
}

impl Server {
    /// Asks once.
    pub(in crate::verify) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: impl Into<Bytes>,
    ) -> io::Result<Answer> {
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, format!("{path} does not answer"));
        timeout(PATIENCE, self.exchange(method, path, body.into())).await.map_err(late)?
    }

    async fn exchange(&self, method: Method, path: &str, body: Bytes) -> io::Result<Answer> {
        let stream = self.door.open().await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        let connection = tokio::spawn(connection);
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, self.door.to_string())
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("{} {token}", self.scheme));
        }
        let request = request.body(Full::new(body)).map_err(io::Error::other)?;
        let response = sender.send_request(request).await.map_err(io::Error::other)?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), MOST);
        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        connection.abort();
        Ok(Answer { status, body })
    }
}

impl Answer {
    /// The body, where the status is one of success.
    pub(in crate::verify) fn good(self) -> io::Result<Bytes> {
        if (200..300).contains(&self.status) {
            Ok(self.body)
        } else {
            // The end tells more: that is where tracebacks have the error.
            const MOST: usize = 300;
            let end =
                String::from_utf8_lossy(&self.body[self.body.len().saturating_sub(MOST)..]).into_owned();
            Err(io::Error::other(format!("HTTP status {}: {}", self.status, end.trim())))
        }
    }
}
