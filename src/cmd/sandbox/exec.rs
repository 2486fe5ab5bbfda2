//! `ipybox sandbox exec`: a command in a sandbox.

use std::io::{self, IsTerminal, Write};
use std::pin::Pin;
use std::time::{Duration, Instant};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use serde_json::json;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{sleep_until, timeout};

use super::super::{Caller, Failure, FailureKind};
use super::{found, not_running};
use crate::cli::ExecArgs;
use crate::diagnostic::{Diagnostic, Documents};
use crate::engine::{KnownEngines, Piece, Run, Running};
use crate::sandbox::{Command, Owner, end};

/// How a command ends that nobody could run.
const UNUSABLE: u8 = 125;

/// How a command ends whose time is over.
const TIMED_OUT: u8 = 124;

/// How a command ends whose output nobody reads: 128 and the number of SIGPIPE.
const UNREAD: u8 = 141;

/// Most of each stream that is kept for JSON, in bytes.
const MAX_KEPT: u64 = 10_000_000;

/// How long output is waited for while everything is ended.
const FAREWELL: Duration = Duration::from_secs(3);

pub(super) async fn run(args: ExecArgs, caller: &mut Caller) -> Result<(), Failure> {
    match executed(args, caller).await {
        Ok(0) => Ok(()),
        Ok(code) => {
            let kind = FailureKind::Inside(code);
            Err(Failure {
                kind,
                documents: Documents::default(),
                diagnostics: Vec::new(),
                output: Vec::new(),
            })
        }
        Err(failure) if failure.kind == FailureKind::Interrupted => Err(failure),
        // Whoever asks for the exit code of a command must not take ours for it.
        Err(failure) => Err(Failure { kind: FailureKind::Inside(UNUSABLE), ..failure }),
    }
}

/// Why a command's output is not read to its end.
enum Cut {
    TimedOut,
    Interrupted,
    Unread,
    Failed(Failure),
    /// The engine cannot run it, and says so in its place.
    Unusable(String),
}

/// With what engines begin to say that they cannot run a command, where its output would be.
const CANNOT_RUN: &[u8] = b"OCI runtime exec failed";

async fn executed(args: ExecArgs, caller: &mut Caller) -> Result<u8, Failure> {
    let cache = caller.cache(args.cache_dir)?;
    let owner = Owner::from(args.owner);
    let engine = super::super::engine(&args.engine, &KnownEngines::in_cache(&cache), caller).await?;
    let container = found(&engine, &owner).await?.container;
    let mut env: Vec<String> = args.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    if args.tty {
        env.extend(caller.environment.terminal.iter().map(|kind| format!("TERM={kind}")));
    }
    let command = Command::new();
    let has_shell = engine.unless_interrupted(engine.has_file(&container.id, "/bin/sh")).await??;
    let run = if has_shell {
        command.run(&container, &args.workdir, &env, &args.command)
    } else {
        let workdir = Some(args.workdir.as_str()).filter(|folder| !folder.is_empty());
        Run { workdir, ..command.run_plainly(&container, &env, &args.command) }
    };
    let run = Run { has_input: args.interactive || args.tty, has_terminal: args.tty, ..run };
    let _raw = args.tty.then(Raw::set).transpose()?;
    let begun = Instant::now();
    let Some(mut running) = engine.unless_interrupted(engine.run(run)).await?? else {
        return Err(not_running(&engine, &owner).await?);
    };
    let input = running.input().map(|input| tokio::spawn(pass_on(input)));
    let mut sink = Sink::new(args.json, args.max_output);
    let deadline = args.timeout.map(|time| tokio::time::Instant::now() + time);
    let cut = read(&mut running, &mut sink, deadline, args.tty, caller).await;
    if let Some(input) = input {
        input.abort();
    }
    let exit_code = async |running: &Running| {
        Ok::<_, Failure>(u8::try_from(running.exit_code().await?).unwrap_or(u8::MAX))
    };
    let timed_out = matches!(cut, Some(Cut::TimedOut));
    let mut goes_on = false;
    let code = match cut {
        None => exit_code(&running).await?,
        // Its shell is there, so it is the container that is not.
        Some(Cut::Unusable(why)) if has_shell => {
            let what = Diagnostic::new("the engine runs nothing in the container").why(why.trim());
            return Err(Failure::refused(what.advice("try again: it may be replaced at this moment")));
        }
        Some(Cut::Unusable(why)) => {
            let words = args.command.first().map(|command| command.escape_debug().to_string());
            caller.report.warning(&format!("`{}` cannot be run", words.unwrap_or_default()), why.trim());
            exit_code(&running).await?
        }
        Some(cut) => {
            // An engine that cannot get rid of output hears of nothing else in the container.
            let drain = async {
                while let Ok(Some(piece)) = running.next().await {
                    if timed_out {
                        let _ = sink.take(&piece);
                    }
                }
            };
            let (ended, _) = tokio::join!(end(&engine, &container.id, &command), timeout(FAREWELL, drain));
            if !ended {
                goes_on = true;
                let what = "something that the command started goes on in the container";
                caller.report.warning(what, "`ipybox sandbox stop` ends everything in it");
            }
            match cut {
                Cut::Interrupted => return Err(Failure::interrupted()),
                Cut::Failed(failure) => return Err(failure),
                Cut::Unread => return Ok(UNREAD),
                Cut::TimedOut | Cut::Unusable(_) => TIMED_OUT,
            }
        }
    };
    match sink.kept {
        Some([stdout, stderr]) => {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let json = json!({
                "exit_code": code,
                "stdout": text(&stdout),
                "stderr": text(&stderr),
                "timed_out": timed_out,
                "truncated": sink.truncated,
                "seconds": begun.elapsed().as_secs_f64(),
            });
            let written = caller.report.result(|out| writeln!(out, "{json:#}"));
            written.map_err(|error| Failure::unwritable("stdout", &error))?;
        }
        None if timed_out => {
            let after = args.timeout.unwrap_or_default().as_secs_f64();
            let what = if goes_on { "given up" } else { "ended, with all that it had started" };
            caller.report.note(&format!("{what}: its {after} s are over"));
        }
        None if sink.truncated => caller.report.note("there was more output than is passed on"),
        None => {}
    }
    Ok(code)
}

/// Reads what a command writes until it ends, or is to be ended.
async fn read(
    running: &mut Running,
    sink: &mut Sink,
    deadline: Option<tokio::time::Instant>,
    has_terminal: bool,
    caller: &Caller,
) -> Option<Cut> {
    let mut is_first = true;
    let mut resized = signal(SignalKind::window_change()).ok().filter(|_| has_terminal);
    if has_terminal {
        resize(running).await;
    }
    loop {
        let over = async {
            match deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        let resize_asked = async {
            match &mut resized {
                Some(resized) => drop(resized.recv().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = over => return Some(Cut::TimedOut),
            () = caller.interrupt.cancelled() => return Some(Cut::Interrupted),
            piece = running.next() => match piece {
                Ok(None) => return None,
                Ok(Some(piece)) if is_first && piece.bytes.starts_with(CANNOT_RUN) => {
                    return Some(Cut::Unusable(String::from_utf8_lossy(&piece.bytes).into_owned()));
                }
                Ok(Some(piece)) => match sink.take(&piece) {
                    Ok(()) => is_first = false,
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Some(Cut::Unread),
                    Err(error) => return Some(Cut::Failed(Failure::unwritable("stdout", &error))),
                },
                Err(error) => return Some(Cut::Failed(error.into())),
            },
            () = resize_asked => resize(running).await,
        }
    }
}

async fn resize(running: &Running) {
    if let Ok(size) = tcgetwinsize(io::stdout()) {
        running.resize(size.ws_col, size.ws_row).await;
    }
}

/// Passes on what this process reads, to its end.
async fn pass_on(mut input: Pin<Box<dyn AsyncWrite + Send>>) {
    // A command that reads no more is no failure.
    let _ = tokio::io::copy(&mut tokio::io::stdin(), &mut input).await;
    let _ = input.shutdown().await;
}

/// Where output goes.
struct Sink {
    /// Stdout and stderr, where they are kept rather than passed on.
    kept: Option<[Vec<u8>; 2]>,
    /// How many bytes of each are taken.
    left: [u64; 2],
    truncated: bool,
}

impl Sink {
    fn new(keeps: bool, most: Option<u64>) -> Self {
        let most = most.unwrap_or(if keeps { MAX_KEPT } else { u64::MAX });
        Self { kept: keeps.then(Default::default), left: [most; 2], truncated: false }
    }

    fn take(&mut self, piece: &Piece) -> io::Result<()> {
        let stream = usize::from(piece.is_error);
        let count = piece.bytes.len().min(usize::try_from(self.left[stream]).unwrap_or(usize::MAX));
        self.truncated |= count < piece.bytes.len();
        self.left[stream] -= count as u64;
        let bytes = &piece.bytes[..count];
        match &mut self.kept {
            Some(kept) => kept[stream].extend_from_slice(bytes),
            None if piece.is_error => io::stderr().write_all(bytes)?,
            None => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(bytes)?;
                stdout.flush()?;
            }
        }
        Ok(())
    }
}

/// The terminal of this process, which passes on every key until this is dropped.
struct Raw(Termios);

impl Raw {
    fn set() -> Result<Self, Failure> {
        let none = |why: String| {
            let what = Diagnostic::new("the command cannot be given a terminal").why(why);
            Failure::usage(what.advice("leave out `-t`, or run this in a terminal"))
        };
        if !io::stdin().is_terminal() {
            return Err(none("stdin is none".to_owned()));
        }
        let before = tcgetattr(io::stdin()).map_err(|error| none(error.to_string()))?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Now, &raw).map_err(|error| none(error.to_string()))?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}
