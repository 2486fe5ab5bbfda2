//! An engine of another host, through its own client there, as Docker's does it.

use std::io;
use std::pin::Pin;
use std::process::Stdio;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;

use crate::engine::host::Destination;

/// Most that is read of what ssh says, in bytes; banners can be long, and come first.
const MOST: u64 = 1 << 20;

/// What tells the reason, before what ssh says of the connection that is lost by it.
const REASONS: [&str; 5] = [
    "ermission denied",
    "Too many authentication failures",
    "verification failed",
    "not found",
    "Could not resolve",
];

/// A connection through a process; it ends when dropped.
pub(super) struct Process {
    input: ChildStdin,
    output: ChildStdout,
    /// What ssh says, until it said something else: why there is no connection.
    said: Option<JoinHandle<String>>,
    _child: Child,
}

/// Starts ssh. It asks nobody for a password: there may be nobody.
pub(super) fn connect(destination: &Destination) -> io::Result<Process> {
    let Destination { user, name, port, socket } = destination;
    let mut command = Command::new("ssh");
    command.args(["-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10"]);
    if let Some(user) = user {
        command.args(["-l", user]);
    }
    if let Some(port) = port {
        command.args(["-p", &port.to_string()]);
    }
    command.args(["--", name, "docker"]);
    if let Some(socket) = socket {
        command.arg(format!("--host=unix://{socket}"));
    }
    command.args(["system", "dial-stdio"]);
    // Signals of the terminal are for us; the process ends with its connection.
    command.process_group(0).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = command.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => io::Error::other("there is no program `ssh` on this host"),
        _ => error,
    })?;
    let missing = || io::Error::other("a pipe to ssh is missing");
    let errors = process.stderr.take().ok_or_else(missing)?;
    let said = tokio::spawn(async move {
        let mut text = Vec::new();
        // Half a text tells more than none.
        let _ = errors.take(MOST).read_to_end(&mut text).await;
        String::from_utf8_lossy(&text).into_owned()
    });
    Ok(Process {
        input: process.stdin.take().ok_or_else(missing)?,
        output: process.stdout.take().ok_or_else(missing)?,
        said: Some(said),
        _child: process,
    })
}

impl AsyncRead for Process {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = bytes.filled().len();
        ready!(Pin::new(&mut self.output).poll_read(context, bytes))?;
        if bytes.filled().len() > before {
            self.said = None;
            return Poll::Ready(Ok(()));
        }
        let Some(said) = &mut self.said else { return Poll::Ready(Ok(())) };
        let said = ready!(Pin::new(said).poll(context)).unwrap_or_default();
        self.said = None;
        let lines = || said.lines().map(str::trim).filter(|line| !line.is_empty());
        let reason = lines().rfind(|line| REASONS.iter().any(|reason| line.contains(reason)));
        let last = reason.or_else(|| lines().next_back());
        Poll::Ready(Err(io::Error::other(match last {
            Some(line) => format!("ssh says: {line}"),
            None => "ssh ended without a word".to_owned(),
        })))
    }
}

impl AsyncWrite for Process {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        // Why ssh hung up is found out by reading.
        match ready!(Pin::new(&mut self.input).poll_write(context, bytes)) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe && self.said.is_some() => {
                Poll::Ready(Ok(bytes.len()))
            }
            written => Poll::Ready(written),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match ready!(Pin::new(&mut self.input).poll_flush(context)) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe && self.said.is_some() => {
                Poll::Ready(Ok(()))
            }
            flushed => Poll::Ready(flushed),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.input).poll_shutdown(context)
    }
}
