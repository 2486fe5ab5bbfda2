//! Events to text: the only room that writes to a terminal.

mod github;
mod human;
mod json;
mod redact;

use std::cell::RefCell;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::time::Duration;

use annotate_snippets::Renderer;
use clap::ValueEnum;

use crate::diagnostic::{Diagnostic, Documents, Fix};
use crate::engine::BuildEvent;
use github::Commands;
pub use redact::Redaction;

/// How a caller is told things.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum MessageFormat {
    /// With the lines they speak of
    #[default]
    Human,
    /// One JSON object per line
    Json,
    /// One workflow command per line
    Github,
}

/// What a caller is told, beside results.
#[derive(Debug)]
pub enum Event<'a> {
    /// Something they may want to know.
    Note(&'a str),
    /// Something that may not be what they want.
    Warning {
        /// What it is.
        what: &'a str,
        /// What to do; may be empty.
        advice: &'a str,
    },
    /// What happens in a build.
    Build(&'a BuildEvent),
    /// What ended the command.
    Failed(&'a Failed),
}

/// Mistakes, in the documents they speak of.
#[derive(Debug)]
pub struct Failed {
    /// The texts that places are in.
    pub documents: Documents,
    /// What is wrong.
    pub diagnostics: Vec<Diagnostic>,
    /// What a failed step printed.
    pub output: Vec<String>,
}

/// Where a command's words go: results to stdout, everything else to stderr.
#[derive(Debug)]
pub struct Report {
    quiet: bool,
    format: MessageFormat,
    renderer: Renderer,
    redaction: Redaction,
    /// What a runner of GitHub is kept from hearing, where it listens.
    commands: Option<RefCell<Commands>>,
}

impl Report {
    /// A report to this process's streams, in colour where stderr is a terminal. `is_workflow` says that a runner of
    /// GitHub reads them.
    #[must_use]
    pub fn new(no_color: bool, format: MessageFormat, redaction: Redaction, is_workflow: bool) -> Self {
        let colour = io::stderr().is_terminal() && !no_color;
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        let commands = is_workflow.then(RefCell::default);
        Self { quiet: false, format, renderer, redaction, commands }
    }

    /// Keeps everything to itself but mistakes and results.
    pub fn be_quiet(&mut self) {
        self.quiet = true;
    }

    /// Lets `write` write a result to stdout.
    ///
    /// # Errors
    ///
    /// Of stdout; a reader that went away is none.
    pub fn result(&self, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
        let mut stdout = BufWriter::new(io::stdout().lock());
        match write(&mut stdout).and_then(|()| stdout.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            written => written,
        }
    }

    /// A text of others as it may be told: without secrets, and without what steers a terminal.
    #[must_use]
    pub fn redacted(&self, text: &str) -> String {
        self.redaction.apply(text)
    }

    /// Says something a person may want to know.
    pub fn note(&self, text: &str) {
        self.tell(&Event::Note(&self.redacted(text)));
    }

    /// Warns of something that may not be what the caller wants.
    pub fn warning(&self, what: &str, advice: &str) {
        self.tell(&Event::Warning { what: &self.redacted(what), advice: &self.redacted(advice) });
    }

    /// Tells of one event of a build.
    pub fn event(&self, event: &BuildEvent) {
        let event = match event {
            BuildEvent::Started { step, name } => {
                BuildEvent::Started { step: *step, name: self.redacted(name) }
            }
            BuildEvent::Output { step, line } => {
                BuildEvent::Output { step: *step, line: self.redacted(line) }
            }
            other => other.clone(),
        };
        self.tell(&Event::Build(&event));
    }

    /// Shows mistakes, in the documents they speak of.
    pub fn mistakes(&self, failed: Failed) {
        let Failed { documents, diagnostics, output } = failed;
        let diagnostics = diagnostics.into_iter().map(|mistake| self.redacted_mistake(mistake)).collect();
        let output = output.iter().map(|line| self.redacted(line)).collect();
        self.tell(&Event::Failed(&Failed { documents, diagnostics, output }));
    }

    /// Ends what a runner of GitHub is kept from hearing.
    pub fn close(&self) {
        self.say(self.commands.as_ref().and_then(|commands| commands.borrow_mut().resume()));
    }

    fn redacted_mistake(&self, mistake: Diagnostic) -> Diagnostic {
        Diagnostic {
            what: self.redacted(&mistake.what),
            at: mistake.at,
            why: self.redacted(&mistake.why),
            fix: mistake.fix.map(|fix| match fix {
                Fix::Advice(text) => Fix::Advice(self.redacted(&text)),
                Fix::Replace(text) => Fix::Replace(self.redacted(&text)),
            }),
            also: mistake.also.iter().map(|(at, why)| (at.clone(), self.redacted(why))).collect(),
        }
    }

    fn tell(&self, event: &Event<'_>) {
        if self.quiet && !matches!(event, Event::Failed(_)) {
            return;
        }
        match (self.format, event) {
            // An object begins with a brace, so that no line is a command.
            (MessageFormat::Json, _) => {
                for line in json::lines(event) {
                    self.say(Some(defused(&line)));
                }
            }
            (MessageFormat::Github, Event::Failed(failed)) => {
                if self.quiet && !failed.output.is_empty() {
                    self.say_foreign(human::output(failed).trim_end());
                }
                self.close();
                for mistake in &failed.diagnostics {
                    self.say(Some(github::annotation(&failed.documents, mistake)));
                }
            }
            // What steps printed was told while they did, unless nothing was.
            _ => self.say_foreign(&human::text(&self.renderer, event, !self.quiet)),
        }
    }

    /// A text that is not ours alone.
    fn say_foreign(&self, text: &str) {
        if let Some(commands) = &self.commands {
            let stop = commands.borrow_mut().stop();
            self.say(stop);
        }
        self.say(Some(defused(text)));
    }

    /// A line to stderr. Where nobody reads it, the command goes on all the same.
    #[expect(clippy::unused_self, reason = "what is said is said by a report")]
    fn say(&self, text: Option<String>) {
        if let Some(text) = text {
            let _ = writeln!(io::stderr().lock(), "{text}");
        }
    }
}

/// A text without the older spelling of workflow commands, which counts anywhere in a line.
fn defused(text: &str) -> String {
    text.replace("##[", "## [")
}

/// A length of time for people.
#[must_use]
pub fn duration(duration: Duration) -> String {
    match duration.as_millis() {
        milliseconds @ 0..1000 => format!("{milliseconds} ms"),
        _ => format!("{:.1} s", duration.as_secs_f64()),
    }
}
