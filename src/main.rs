//! Turns arguments into one command, and its outcome into an exit code.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use clap::Parser;
use ipybox::cli::{Cli, Environment};
use ipybox::cmd::{self, Caller, FailureKind};
use ipybox::report::Report;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// How long a command gets to clean up after it was interrupted.
const FAREWELL: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("the kernel grants a few file descriptors");
    let code = runtime.block_on(run(cli));
    // A thread that still reads a file of the context is not waited for.
    runtime.shutdown_background();
    ExitCode::from(code)
}

async fn run(cli: Cli) -> u8 {
    let environment = Environment::read();
    let interrupt = CancellationToken::new();
    let mut caller =
        Caller { report: Report::new(environment.no_color), environment, interrupt: interrupt.clone() };
    let signals = Signals::watch(&interrupt);
    let outcome = tokio::select! {
        outcome = cmd::run(cli.command, &mut caller) => outcome,
        () = async { interrupt.cancelled().await; tokio::time::sleep(FAREWELL).await } => return signals.exit_code(),
    };
    let Err(failure) = outcome else { return 0 };
    if failure.kind == FailureKind::Interrupted {
        caller.report.note("interrupted; nothing was tagged");
        return signals.exit_code();
    }
    caller.report.mistakes(failure.document.as_ref(), &failure.diagnostics, &failure.output);
    match failure.kind {
        FailureKind::Refused => 1,
        FailureKind::Fault => 2,
        FailureKind::Unreachable => 75,
        FailureKind::Interrupted => unreachable!("answered above"),
    }
}

/// The signal that ended the command, once one has.
struct Signals(Arc<AtomicU8>);

impl Signals {
    /// Cancels `interrupt` at the first SIGINT or SIGTERM; the second ends the process at once.
    fn watch(interrupt: &CancellationToken) -> Self {
        let received = Arc::new(AtomicU8::new(0));
        for (kind, number) in [(SignalKind::interrupt(), 2), (SignalKind::terminate(), 15)] {
            let (interrupt, received) = (interrupt.clone(), received.clone());
            let Ok(mut signals) = signal(kind) else { continue };
            tokio::spawn(async move {
                while signals.recv().await.is_some() {
                    if received.swap(number, Ordering::Relaxed) != 0 {
                        std::process::exit(128 + i32::from(number));
                    }
                    interrupt.cancel();
                }
            });
        }
        Self(received)
    }

    fn exit_code(&self) -> u8 {
        128 + self.0.load(Ordering::Relaxed)
    }
}
