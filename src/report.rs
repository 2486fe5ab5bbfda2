//! Diagnostics and events to text: the only module that writes to a terminal.

use std::io::{self, BufWriter, IsTerminal, Write};
use std::ops::Range;
use std::time::Duration;

use annotate_snippets::{AnnotationKind, Group, Level, Patch, Renderer, Snippet};

use crate::diagnostic::{Diagnostic, Document, Fix};
use crate::engine::BuildEvent;

/// Mistakes that are shown of one document.
const MOST_MISTAKES: usize = 50;

/// Where a command's words go: results to stdout, everything else to stderr.
#[derive(Debug)]
pub struct Report {
    quiet: bool,
    renderer: Renderer,
}

impl Report {
    /// A report to this process's streams, in colour where stderr is a terminal.
    #[must_use]
    pub fn new(no_color: bool) -> Self {
        let colour = io::stderr().is_terminal() && !no_color;
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        Self { quiet: false, renderer }
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

    /// Says something a person may want to know.
    pub fn note(&self, text: &str) {
        if !self.quiet {
            say(text);
        }
    }

    /// Warns of something that may not be what the caller wants.
    pub fn warning(&self, what: &str, advice: &str) {
        if self.quiet {
            return;
        }
        let mut group = Group::with_title(Level::WARNING.primary_title(what));
        if !advice.is_empty() {
            group = group.element(Level::HELP.message(advice));
        }
        say(&self.renderer.render(&[group]));
    }

    /// Tells of one event of a build.
    pub fn event(&self, event: &BuildEvent) {
        if self.quiet {
            return;
        }
        match event {
            BuildEvent::Started { step, name } => say(&format!("#{step} {name}")),
            BuildEvent::Output { step, line } => say(&format!("#{step}   {line}")),
            BuildEvent::Finished { step, cached: true, .. } => say(&format!("#{step} cached")),
            BuildEvent::Finished { step, seconds, .. } => say(&format!("#{step} done in {seconds:.1} s")),
            BuildEvent::Sent { bytes } => say(&format!("sent {} of context", size(*bytes))),
        }
    }

    /// Shows mistakes, in the document they speak of.
    pub fn mistakes(&self, document: Option<&Document>, mistakes: &[Diagnostic], output: &[String]) {
        for line in output {
            say(&format!("  {line}"));
        }
        for mistake in mistakes.iter().take(MOST_MISTAKES) {
            say(&self.render(document, mistake));
            say("");
        }
        if let Some(document) = document
            && mistakes.len() > 1
        {
            let shown = if mistakes.len() > MOST_MISTAKES { ", the first of which are shown" } else { "" };
            say(&format!("{} mistakes in {}{shown}; nothing was built", mistakes.len(), document.name));
        }
    }

    fn render(&self, document: Option<&Document>, mistake: &Diagnostic) -> String {
        let mistake = printable(mistake);
        let excerpt = document.zip(mistake.at.as_ref()).map(|(document, at)| Excerpt::of(document, at));
        let mut groups = Vec::new();
        let mut group = Group::with_title(Level::ERROR.primary_title(&mistake.what));
        match &excerpt {
            Some(excerpt) => {
                let mut annotation = AnnotationKind::Primary.span(excerpt.at.clone());
                if !mistake.why.is_empty() {
                    annotation = annotation.label(&mistake.why);
                }
                group = group.element(excerpt.snippet().annotation(annotation));
            }
            None if !mistake.why.is_empty() => group = group.element(Level::NOTE.message(&mistake.why)),
            None => {}
        }
        match (&mistake.fix, &excerpt) {
            (Some(Fix::Replace(text)), Some(excerpt)) => {
                let patch = excerpt.snippet().patch(Patch::new(excerpt.at.clone(), text));
                groups.push(group);
                groups.push(Level::HELP.secondary_title("write").element(patch));
            }
            (Some(Fix::Replace(text)), None) => {
                groups.push(group.element(Level::HELP.message(format!("write `{text}`"))));
            }
            (Some(Fix::Advice(advice)), _) => groups.push(group.element(Level::HELP.message(advice))),
            (None, _) => groups.push(group),
        }
        self.renderer.render(&groups)
    }
}

/// The lines of a document that a mistake lies in.
struct Excerpt<'a> {
    name: &'a str,
    /// Whole lines.
    text: &'a str,
    /// The number of the first of them, counted from 1.
    line: usize,
    /// The place of the mistake in `text`, in bytes.
    at: Range<usize>,
}

impl<'a> Excerpt<'a> {
    fn of(document: &'a Document, at: &Range<usize>) -> Self {
        let text = &document.text;
        let start = text[..at.start].rfind('\n').map_or(0, |end| end + 1);
        let end = text[at.end..].find('\n').map_or(text.len(), |length| at.end + length);
        Self {
            name: &document.name,
            text: &text[start..end],
            line: text[..start].matches('\n').count() + 1,
            at: at.start - start..at.end - start,
        }
    }

    fn snippet<T: Clone>(&self) -> Snippet<'a, T> {
        Snippet::source(self.text).path(self.name).line_start(self.line)
    }
}

/// A mistake whose words do nothing to a terminal but appear: some are the user's own, or an engine's.
fn printable(mistake: &Diagnostic) -> Diagnostic {
    let clean = |text: &str| -> String {
        let harmless = |character: char| !character.is_control() || character == '\n';
        text.chars().filter(|&character| harmless(character)).collect()
    };
    Diagnostic {
        what: clean(&mistake.what),
        at: mistake.at.clone(),
        why: clean(&mistake.why),
        fix: mistake.fix.as_ref().map(|fix| match fix {
            Fix::Advice(text) => Fix::Advice(clean(text)),
            Fix::Replace(text) => Fix::Replace(clean(text)),
        }),
    }
}

/// A length of time for people.
#[must_use]
pub fn duration(duration: Duration) -> String {
    match duration.as_millis() {
        milliseconds @ 0..1000 => format!("{milliseconds} ms"),
        _ => format!("{:.1} s", duration.as_secs_f64()),
    }
}

/// A number of bytes for people, in powers of 1000.
#[must_use]
pub fn size(bytes: u64) -> String {
    match bytes {
        0..1000 => format!("{bytes} B"),
        1000..1_000_000 => format!("{} kB", bytes.div_ceil(1000)),
        _ => format!("{} MB", bytes.div_ceil(1_000_000)),
    }
}

/// A line to stderr. Where nobody reads it, the command goes on all the same.
fn say(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}
