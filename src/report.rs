//! Diagnostics and events to text: the only module that writes to a terminal.

use std::io::{self, BufWriter, IsTerminal, Write};
use std::ops::Range;
use std::time::Duration;

use annotate_snippets::{AnnotationKind, Group, Level, Patch, Renderer, Snippet};
use serde_json::json;

use crate::cli::MessageFormat;
use crate::diagnostic::{Diagnostic, Documents, Fix, Place};
use crate::engine::BuildEvent;

/// Bytes of a line that are shown before and behind a mistake, at most.
const MOST_AROUND: usize = 400;

/// Mistakes that are shown of one document.
const MOST_MISTAKES: usize = 50;

/// Where a command's words go: results to stdout, everything else to stderr.
#[derive(Debug)]
pub struct Report {
    quiet: bool,
    format: MessageFormat,
    renderer: Renderer,
}

impl Report {
    /// A report to this process's streams, in colour where stderr is a terminal.
    #[must_use]
    pub fn new(no_color: bool, format: MessageFormat) -> Self {
        let colour = io::stderr().is_terminal() && !no_color;
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        Self { quiet: false, format, renderer }
    }

    /// Keeps everything to itself but mistakes and results.
    pub fn be_quiet(&mut self) {
        self.quiet = true;
    }

    /// Whether notes are told nobody.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.quiet
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
            say(&clean(text));
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

    /// Shows mistakes, in the documents they speak of.
    pub fn mistakes(&self, documents: &Documents, mistakes: &[Diagnostic], output: &[String]) {
        for line in output {
            say(&format!("  {line}"));
        }
        match self.format {
            MessageFormat::Human => {}
            MessageFormat::Json => {
                for mistake in mistakes {
                    say(&as_json(documents, &printable(mistake)));
                }
                return;
            }
            MessageFormat::Github => {
                for mistake in mistakes {
                    say(&as_annotation(documents, &printable(mistake)));
                }
                return;
            }
        }
        for mistake in mistakes.iter().take(MOST_MISTAKES) {
            say(&self.render(documents, mistake));
            say("");
        }
        let named: Vec<_> =
            mistakes.iter().filter_map(|mistake| documents.find(mistake.at.as_ref()?)).collect();
        if let [first, _, ..] = named.as_slice() {
            let shown = if mistakes.len() > MOST_MISTAKES { ", the first of which are shown" } else { "" };
            let one = named.iter().all(|place| place.document.name == first.document.name);
            let place =
                if one { format!("in {}", first.document.name) } else { "in several files".to_owned() };
            say(&format!("{} mistakes {place}{shown}", mistakes.len()));
        }
    }

    fn render(&self, documents: &Documents, mistake: &Diagnostic) -> String {
        let mistake = printable(mistake);
        let excerpt = mistake.at.as_ref().and_then(|at| documents.find(at)).map(|place| Excerpt::of(&place));
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
    /// Whole lines, without credentials.
    text: String,
    /// The number of the first of them, counted from 1.
    line: usize,
    /// The place of the mistake in `text`, in bytes.
    at: Range<usize>,
}

impl<'a> Excerpt<'a> {
    fn of(place: &Place<'a>) -> Self {
        let (text, at) = (&place.document.text, &place.at);
        let near = |position: usize| {
            (0..=position.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0)
        };
        // Of a line as long as a file, only what lies around the place.
        let first = near(at.start.saturating_sub(MOST_AROUND));
        let start = text[first..at.start].rfind('\n').map_or(first, |end| first + end + 1);
        let shown = near(at.end.min(at.start.saturating_add(MOST_AROUND))).max(at.start);
        let last = near(shown.saturating_add(MOST_AROUND));
        let end = text[shown..last].find('\n').map_or(last, |length| shown + length);
        let at = at.start..at.end.min(end);
        Self {
            name: &place.document.name,
            text: without_credentials(&text[start..end]),
            line: place.line(),
            at: at.start - start..at.end - start,
        }
    }

    fn snippet<T: Clone>(&self) -> Snippet<'_, T> {
        Snippet::source(self.text.as_str()).path(self.name).line_start(self.line)
    }
}

/// A text in which what stands before the `@` of an address is stars, byte for byte.
fn without_credentials(text: &str) -> String {
    let mut masked = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, behind) = rest.split_at(at + 3);
        masked.push_str(before);
        // A password may hold anything but white space and quotes.
        let end =
            behind.find(|end: char| end.is_whitespace() || "\"',".contains(end)).unwrap_or(behind.len());
        let authority = behind.find(['/', '?', '#']).unwrap_or(behind.len()).min(end);
        let user_info = match behind[..authority].rfind('@') {
            Some(at) => at,
            // With a `/` in it, an `@` behind a `:` that no port follows.
            None => match (behind[..authority].rfind(':'), behind[..end].rfind('@')) {
                (Some(colon), Some(at))
                    if !behind[colon + 1..authority].bytes().all(|byte| byte.is_ascii_digit()) =>
                {
                    at
                }
                _ => 0,
            },
        };
        masked.extend(std::iter::repeat_n('*', user_info));
        rest = &behind[user_info..];
    }
    masked.push_str(rest);
    // Without a scheme, as in `name:password@host`.
    let token = |at: usize| {
        masked[..at].rfind(|end: char| end.is_whitespace() || "\"'=,".contains(end)).map_or(0, |end| end + 1)
    };
    let found = masked.match_indices('@').map(|(at, _)| token(at)..at);
    let bare: Vec<_> = found
        .filter(|part| masked[part.clone()].contains(':') && !masked[part.clone()].contains("://"))
        .collect();
    for part in bare {
        let stars = "*".repeat(part.len());
        masked.replace_range(part, &stars);
    }
    masked
}

/// A mistake as one line of JSON: the documented object of `--message-format json`.
fn as_json(documents: &Documents, mistake: &Diagnostic) -> String {
    let place = mistake.at.as_ref().and_then(|at| documents.find(at)).map(|place| {
        let [(line, column), (end_line, end_column)] = place.span();
        json!({
            "file": place.document.name, "start": place.at.start, "end": place.at.end,
            "line": line, "column": column, "end_line": end_line, "end_column": end_column,
        })
    });
    let (help, replacement) = match &mistake.fix {
        Some(Fix::Advice(advice)) => (Some(advice), None),
        Some(Fix::Replace(text)) => (None, Some(text)),
        None => (None, None),
    };
    json!({
        "level": "error", "message": mistake.what, "reason": mistake.why,
        "help": help, "replacement": replacement, "place": place,
    })
    .to_string()
}

/// A mistake as a workflow command.
///
/// Rule: GitHub Docs, "Workflow commands", "Setting an error message".
fn as_annotation(documents: &Documents, mistake: &Diagnostic) -> String {
    let data = |text: &str| text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A");
    let property = |text: &str| data(text).replace(':', "%3A").replace(',', "%2C");
    let mut properties = Vec::new();
    if let Some(place) = mistake.at.as_ref().and_then(|at| documents.find(at)) {
        let [(line, column), (end_line, end_column)] = place.span();
        properties = vec![
            format!("file={}", property(&place.document.name)),
            format!("line={line}"),
            format!("endLine={end_line}"),
            format!("col={column}"),
            format!("endColumn={end_column}"),
        ];
    }
    properties.push(format!("title={}", property(&mistake.what)));
    let fix = match &mistake.fix {
        Some(Fix::Advice(advice)) => format!("\n{advice}"),
        Some(Fix::Replace(text)) => format!("\nwrite `{text}`"),
        None => String::new(),
    };
    format!("::error {}::{}", properties.join(","), data(&format!("{}{fix}", mistake.why)))
}

/// A mistake whose words do nothing to a terminal but appear: some are the user's own, or an engine's.
fn printable(mistake: &Diagnostic) -> Diagnostic {
    Diagnostic {
        what: clean(&mistake.what),
        at: mistake.at.clone(),
        why: clean(&mistake.why),
        fix: mistake.fix.as_ref().map(|fix| match fix {
            Fix::Advice(text) => Fix::Advice(clean(text)),
            Fix::Replace(text) => Fix::Replace(clean(text)),
        }),
        also: mistake.also.iter().map(|(at, why)| (at.clone(), clean(why))).collect(),
    }
}

/// A text that does nothing to a terminal but appear, without credentials.
#[must_use]
pub fn clean(text: &str) -> String {
    let harmless = |character: char| !character.is_control() || character == '\n';
    without_credentials(text).chars().filter(|&character| harmless(character)).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_become_stars() {
        for (text, shown) in [
            ("a @ https://me:secret@host.invalid/x@y", "a @ https://*********@host.invalid/x@y"),
            ("-i https://é@h/ https://t@h", "-i https://**@h/ https://*@h"),
            ("https://host.invalid/@", "https://host.invalid/@"),
            ("https://host.invalid:80/a@b", "https://host.invalid:80/a@b"),
            ("https://me:pa/ss@host/", "https://********@host/"),
            ("git = \"me:secret@host.invalid:a/b\"", "git = \"*********@host.invalid:a/b\""),
            ("git@host.invalid:a", "git@host.invalid:a"),
            ("no address", "no address"),
        ] {
            assert_eq!(without_credentials(text), shown);
            assert_eq!(without_credentials(text).len(), text.len());
        }
    }
}
