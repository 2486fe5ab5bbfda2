//! Code to a kernel and back, over a kernel gateway's websocket, as the real clients do it.
//!
//! Source: Jupyter, "Messaging in Jupyter" and "WebSocket protocols" (the default one, JSON).

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use hyper::Method;
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use super::http::{MOST, Server};
use crate::engine::Stream;
use crate::verify::{Tried, shortened};

/// Longest wait for a cell that should end by itself.
const PATIENCE: Duration = Duration::from_secs(60);

/// A kernel behind a gateway; it ends with [`Kernel::end`], or with its container.
pub(in crate::verify) struct Kernel {
    gateway: Server,
    id: String,
}

/// A connection to a kernel's channels.
pub(in crate::verify) struct Channels {
    socket: WebSocketStream<Stream>,
}

/// What a cell did.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(in crate::verify) struct Outcome {
    /// What it wrote to stdout and stderr, and the text of its value.
    pub(in crate::verify) text: String,
    /// The name and message of the error that ended it.
    pub(in crate::verify) error: Option<String>,
}

/// When the client stops listening to a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::verify) enum Until {
    /// At the reply on the shell channel, as ipybox does: output that comes later is lost.
    Reply,
    /// When the kernel is idle again.
    Idle,
    /// As `Idle`, but at the first error as well, as smolagents does.
    IdleOrError,
}

impl Outcome {
    /// Checks that this wrote `expected` and nothing else.
    pub(in crate::verify) fn is(self, expected: &str) -> Tried {
        match self.error {
            Some(error) => Err(error.into()),
            None if self.text == expected => Ok(()),
            None => Err(format!("expected {expected:?}, found {:?}", shortened(&self.text)).into()),
        }
    }

    /// Checks that this ended well, and wrote what it should.
    pub(in crate::verify) fn has(self, expected: Option<&str>) -> Tried {
        match (self.error, expected) {
            (Some(error), _) => Err(error.into()),
            (None, Some(expected)) if !self.text.contains(expected) => {
                Err(format!("expected {expected:?} in {:?}", shortened(&self.text)).into())
            }
            (None, _) => Ok(()),
        }
    }

    /// Checks what `contract/imports.py` found.
    pub(in crate::verify) fn has_no_problem(self) -> Tried {
        if let Some(error) = self.error {
            return Err(error.into());
        }
        // Among what the modules write when they are imported.
        let told = self.text.lines().rev().find_map(|line| serde_json::from_str(line).ok());
        let problems: BTreeMap<String, String> =
            told.ok_or_else(|| format!("found {:?}", shortened(&self.text)))?;
        if problems.is_empty() {
            return Ok(());
        }
        let problems: Vec<_> = problems.iter().map(|(name, why)| format!("{name}: {why}")).collect();
        Err(problems.join("; ").into())
    }
}

impl Kernel {
    /// Starts a kernel of the default kind, as smolagents asks for it.
    pub(in crate::verify) async fn start(gateway: &Server) -> io::Result<Self> {
        let answer = gateway.ask(Method::POST, "/api/kernels", "").await?.good()?;
        let kernel: Value = serde_json::from_slice(&answer)?;
        let id = kernel["id"].as_str().ok_or_else(|| io::Error::other("the new kernel has no id"))?;
        Ok(Self { gateway: gateway.clone(), id: id.to_owned() })
    }

    pub(in crate::verify) async fn end(&self) -> io::Result<()> {
        self.gateway.ask(Method::DELETE, &format!("/api/kernels/{}", self.id), "").await?.good()?;
        Ok(())
    }

    pub(in crate::verify) async fn interrupt(&self) -> io::Result<()> {
        self.gateway.ask(Method::POST, &format!("/api/kernels/{}/interrupt", self.id), "").await?.good()?;
        Ok(())
    }

    pub(in crate::verify) async fn connect(&self) -> io::Result<Channels> {
        let door = &self.gateway.door;
        let token = self.gateway.token.as_ref().map(|token| format!("?token={token}")).unwrap_or_default();
        let url = format!("ws://{door}/api/kernels/{}/channels{token}", self.id);
        let config = WebSocketConfig::default().max_message_size(Some(MOST)).max_frame_size(Some(MOST));
        let stream = door.open().await?;
        let (socket, _) = tokio_tungstenite::client_async_with_config(url, stream, Some(config))
            .await
            .map_err(io::Error::other)?;
        Ok(Channels { socket })
    }

    /// Runs one cell over a connection of its own.
    pub(in crate::verify) async fn run(&self, code: &str) -> io::Result<Outcome> {
        self.connect().await?.run(code, Until::Idle).await
    }
}

impl Channels {
    pub(in crate::verify) async fn run(&mut self, code: &str, until: Until) -> io::Result<Outcome> {
        let request = self.send(code).await?;
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, "the cell does not end");
        timeout(PATIENCE, self.listen(&request, until)).await.map_err(late)?
    }

    /// Sends a cell, and returns the id of its request.
    pub(in crate::verify) async fn send(&mut self, code: &str) -> io::Result<String> {
        let id = format!("{:032x}", rand::random::<u128>());
        let message = json!({
            "header": {
                "msg_id": id, "msg_type": "execute_request", "username": "", "session": id,
                "date": "", "version": "5.3",
            },
            "parent_header": {}, "metadata": {}, "buffers": [], "channel": "shell",
            "content": {
                "code": code, "silent": false, "store_history": false, "user_expressions": {},
                "allow_stdin": false, "stop_on_error": true,
            },
        });
        self.socket.send(Message::text(message.to_string())).await.map_err(io::Error::other)?;
        Ok(id)
    }

    pub(in crate::verify) async fn listen(&mut self, request: &str, until: Until) -> io::Result<Outcome> {
        let mut outcome = Outcome::default();
        while let Some(message) = self.socket.next().await {
            let Message::Text(text) = message.map_err(io::Error::other)? else { continue };
            let message: Value = serde_json::from_str(&text)?;
            if message["parent_header"]["msg_id"] != *request {
                continue;
            }
            let content = &message["content"];
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            match message["msg_type"].as_str().or(message["header"]["msg_type"].as_str()) {
                Some("stream") => outcome.text += &text(&content["text"]),
                Some("execute_result" | "display_data") => {
                    outcome.text += &text(&content["data"]["text/plain"]);
                }
                Some("error") => {
                    outcome.error =
                        Some(format!("{}: {}", text(&content["ename"]), text(&content["evalue"])));
                    if until == Until::IdleOrError {
                        return Ok(outcome);
                    }
                }
                Some("execute_reply") if until == Until::Reply => return Ok(outcome),
                Some("status") if content["execution_state"] == "idle" && until != Until::Reply => {
                    return Ok(outcome);
                }
                _ => {}
            }
            if outcome.text.len() > MOST {
                return Err(io::Error::other("the cell writes without end"));
            }
        }
        Err(io::Error::other("the kernel's connection ended before the cell did"))
    }
}
