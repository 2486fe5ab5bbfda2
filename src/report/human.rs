//! Events as people read them.

use std::borrow::Cow;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Patch, Renderer, Snippet};

use super::{Event, Failed};
use crate::diagnostic::{Diagnostic, Documents, Fix, Place};
use crate::engine::BuildEvent;
use crate::harmless::without_credentials;

/// Bytes of a line that are shown before and behind a mistake, at most.
const MOST_AROUND: usize = 400;

/// Mistakes that are shown of one document.
const MOST_MISTAKES: usize = 50;

/// Lines of a failed step that are shown.
const MOST_LINES: usize = 40;

/// The text of an event. What a failed step printed is left out where it was `told` before.
pub(super) fn text(renderer: &Renderer, event: &Event<'_>, told: bool) -> String {
    match event {
        Event::Note(text) => (*text).to_owned(),
        Event::Warning { what, advice } => {
            let mut group = Group::with_title(Level::WARNING.primary_title(*what));
            if !advice.is_empty() {
                group = group.element(Level::HELP.message(*advice));
            }
            renderer.render(&[group])
        }
        Event::Build(event) => progress(event),
        Event::Failed(failed) => mistakes(renderer, failed, told),
    }
}

fn progress(event: &BuildEvent) -> String {
    match event {
        BuildEvent::Started { step, name } => format!("#{step} {name}"),
        BuildEvent::Output { step, line } => format!("#{step}   {line}"),
        BuildEvent::Finished { step, cached: true, .. } => format!("#{step} cached"),
        BuildEvent::Finished { step, seconds, .. } => format!("#{step} done in {seconds:.1} s"),
        BuildEvent::Sent { bytes } => format!("sent {} of context", size(*bytes)),
    }
}

/// What a failed step printed, before what is said of it.
pub(super) fn output(failed: &Failed) -> String {
    let first = failed.output.len().saturating_sub(MOST_LINES);
    failed.output[first..].iter().fold(String::new(), |text, line| text + "  " + line + "\n")
}

fn mistakes(renderer: &Renderer, failed: &Failed, told: bool) -> String {
    let Failed { documents, diagnostics, .. } = failed;
    let mut text = if told { String::new() } else { output(failed) };
    for mistake in diagnostics.iter().take(MOST_MISTAKES) {
        text += &format!("{}\n\n", render(renderer, documents, mistake));
    }
    let named: Vec<_> =
        diagnostics.iter().filter_map(|mistake| documents.find(mistake.at.as_ref()?)).collect();
    if let [first, _, ..] = named.as_slice() {
        let shown = if diagnostics.len() > MOST_MISTAKES { ", the first of which are shown" } else { "" };
        let one = named.iter().all(|place| place.document.path == first.document.path);
        let place = if one { format!("in {}", first.document.name()) } else { "in several files".to_owned() };
        text += &format!("{} mistakes {place}{shown}\n", diagnostics.len());
    }
    text.truncate(text.trim_end_matches('\n').len() + usize::from(named.len() < 2));
    text
}

fn render(renderer: &Renderer, documents: &Documents, mistake: &Diagnostic) -> String {
    let excerpt = |at: &Range<usize>| documents.find(at).map(|place| Excerpt::of(&place));
    let main = mistake.at.as_ref().and_then(excerpt);
    let others: Vec<_> = mistake.also.iter().filter_map(|(at, why)| Some((excerpt(at)?, why))).collect();
    let mut groups = Vec::new();
    let mut group = Group::with_title(Level::ERROR.primary_title(&mistake.what));
    match &main {
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
    for (excerpt, why) in &others {
        let annotation = AnnotationKind::Context.span(excerpt.at.clone()).label(why.as_str());
        group = group.element(excerpt.snippet().annotation(annotation));
    }
    match (&mistake.fix, &main) {
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
    renderer.render(&groups)
}

/// The lines of a document that a mistake lies in.
struct Excerpt<'a> {
    name: Cow<'a, str>,
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
            name: place.document.name(),
            text: without_credentials(&text[start..end]),
            line: place.line(),
            at: at.start - start..at.end - start,
        }
    }

    fn snippet<T: Clone>(&self) -> Snippet<'_, T> {
        Snippet::source(self.text.as_str()).path(&*self.name).line_start(self.line)
    }
}

/// A number of bytes for people, in powers of 1000.
fn size(bytes: u64) -> String {
    match bytes {
        0..1000 => format!("{bytes} B"),
        1000..1_000_000 => format!("{} kB", bytes.div_ceil(1000)),
        _ => format!("{} MB", bytes.div_ceil(1_000_000)),
    }
}
