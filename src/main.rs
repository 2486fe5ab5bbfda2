//! Turns arguments into one command, and its outcome into an exit code.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use ipybox::cli::{Cli, Command, Environment};
use ipybox::cmd::{self, Caller, Failure, FailureKind};
use ipybox::report::{Failed, Report, Settings};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// How long a command gets to clean up after it was interrupted.
const FAREWELL: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let cli = Cli::read();
    let runtime = runtime();
    let code = runtime.block_on(run(cli));
    // A thread that still reads a file of the context is not waited for.
    runtime.shutdown_background();
    ExitCode::from(code)
}

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().expect("the kernel grants a few file descriptors")
}

async fn run(cli: Cli) -> u8 {
    let environment = Environment::read();
    let interrupt = CancellationToken::new();
    let signals = Signals::watch(interrupt.clone());
    let settings = Settings { format: cli.message_format, ..environment.report };
    let report = Report::new(settings, environment.redaction());
    let tags_one = matches!(&cli.command, Command::Build(args) if !cmd::builds_fleet(args));
    let mut caller = Caller { report, environment, interrupt: interrupt.clone() };
    let outcome = Box::pin(cmd::run(cli.command, &mut caller)).await;
    let report = &caller.report;
    let Err(Failure { kind, documents, diagnostics, output }) = outcome else {
        report.close();
        return 0;
    };
    // What fails because it was interrupted, as programs do that a terminal interrupts with us, is no failure.
    if kind == FailureKind::Interrupted || interrupt.is_cancelled() {
        report.note(if tags_one { "interrupted; nothing was tagged" } else { "interrupted" });
        report.close();
        return signals.exit_code();
    }
    if !diagnostics.is_empty() {
        report.mistakes(Failed { documents, diagnostics, output });
    }
    report.close();
    match kind {
        FailureKind::Refused | FailureKind::Unassembled => 1,
        FailureKind::ToDo => 3,
        FailureKind::Usage | FailureKind::Fault => 2,
        FailureKind::Unreachable => 75,
        FailureKind::Inside(code) => code,
        FailureKind::Interrupted => unreachable!("answered above"),
    }
}

/// The signal that ended the command, once one has.
struct Signals(Arc<AtomicU8>);

impl Signals {
    /// Cancels `interrupt` at the first signal that asks for the end: SIGINT, SIGTERM, SIGHUP or
    /// SIGQUIT. A second one ends the process at once, and so does a command that has not ended
    /// `FAREWELL` later, as one that waits for a file may not.
    fn watch(interrupt: CancellationToken) -> Self {
        let received = Arc::new(AtomicU8::new(0));
        let seen = Self(received.clone());
        let exit = |number: u8| std::process::exit(128 + i32::from(number));
        std::thread::spawn(move || {
            let watch = async {
                let mut interrupts = signal(SignalKind::interrupt())?;
                let mut terminations = signal(SignalKind::terminate())?;
                let mut hangups = signal(SignalKind::hangup())?;
                let mut quits = signal(SignalKind::quit())?;
                let mut next = async || {
                    tokio::select! {
                        _ = hangups.recv() => 1,
                        _ = interrupts.recv() => 2,
                        _ = quits.recv() => 3,
                        _ = terminations.recv() => 15,
                    }
                };
                let first = next().await;
                received.store(first, Ordering::Relaxed);
                interrupt.cancel();
                let last = tokio::time::timeout(FAREWELL, next()).await;
                exit(last.unwrap_or(first));
                Ok::<_, std::io::Error>(())
            };
            // Without a watch the signals end the process, as they do by themselves.
            let _ = runtime().block_on(watch);
        });
        seen
    }

    fn exit_code(&self) -> u8 {
        128 + self.0.load(Ordering::Relaxed)
    }
}
