//! Events as people read them.

use std::borrow::Cow;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Patch, Renderer, Snippet};

use super::{Event, Failed, Sink, Told, Work, in_short, marked};
use crate::diagnostic::{Diagnostic, Documents, Fix, Place};
use crate::engine::BuildEvent;
use crate::harmless::without_credentials;
use crate::registry::{Arrival, Pushed};
use crate::verify::{Finding, Verdict};

/// Bytes of a line that are shown before and behind a mistake, at most.
const MOST_AROUND: usize = 400;

/// Mistakes that are shown of one document.
const MOST_MISTAKES: usize = 50;

/// Lines of a failed step that are shown.
const MOST_LINES: usize = 40;

/// Lines, as they are told: nothing is taken back.
#[derive(Debug)]
pub(super) struct Plain {
    renderer: Renderer,
    told: Told,
}

impl Plain {
    pub(super) fn new(renderer: Renderer) -> Self {
        Self { renderer, told: Told::default() }
    }
}

impl Sink for Plain {
    fn tell(&mut self, image: Option<&str>, event: &Event<'_>) -> String {
        let told = self.told.take(image, event, tells_output(event));
        let text = text(&self.renderer, event, told);
        text.map_or_else(String::new, |text| marked(image, &text) + "\n")
    }
}

/// Whether lines tell of an event what work has printed.
pub(super) fn tells_output(event: &Event<'_>) -> bool {
    matches!(event, Event::Build(_) | Event::Checked(_))
}

/// The text of an event, where lines tell it. What a failed step printed is left out where it was `told` before.
pub(super) fn text(renderer: &Renderer, event: &Event<'_>, told: bool) -> Option<String> {
    Some(match event {
        Event::Note(text) => (*text).to_owned(),
        Event::Warning { what, advice } => {
            let mut group = Group::with_title(Level::WARNING.primary_title(*what));
            if !advice.is_empty() {
                group = group.element(Level::HELP.message(*advice));
            }
            renderer.render(&[group])
        }
        Event::Began(Work::Probe(_) | Work::Build { .. }) | Event::Ended { .. } | Event::Layer(_) => {
            return None;
        }
        Event::Began(work) => title(work),
        Event::Pushed(Pushed { arrival: None, .. }) => return None,
        Event::Pushed(Pushed { digest, size: bytes, arrival: Some(arrival), .. }) => {
            format!("{} {}, {}", in_short(digest), arrived(*arrival), size(*bytes))
        }
        Event::Build(event) => return progress(event),
        Event::Checked(found) => finding(found),
        Event::Failed(failed) => mistakes(renderer, failed, told),
    })
}

/// What is done, while it is.
pub(super) fn title(work: &Work) -> String {
    match work {
        Work::Pull(name) => format!("pulling {name}"),
        Work::Probe(name) => format!("looking at {name}"),
        Work::Load(what) => format!("loading {what} into the engine, once"),
        Work::Resolve => "resolving the packages".to_owned(),
        Work::Build { .. } => "building the image".to_owned(),
        Work::Layers(count) => format!("putting {count} packages into layers"),
        Work::Write(file) => format!("writing {file}"),
        Work::Push(repository) => format!("pushing to {repository}"),
        Work::Import(cache) => format!("taking packages from {cache}"),
        Work::Export(cache) => format!("sharing packages as {cache}"),
        Work::Verify => "verifying the image".to_owned(),
    }
}

/// How a blob came to be in a registry.
fn arrived(arrival: Arrival) -> &'static str {
    match arrival {
        Arrival::There => "was there",
        Arrival::Mounted => "mounted",
        Arrival::Sent => "sent",
    }
}

/// What came of a check, as a line of a table.
#[must_use]
pub fn finding(Finding { name, verdict, seconds }: &Finding) -> String {
    match verdict {
        Verdict::Passed => format!("ok      {name:<42} {seconds:>5.1} s"),
        Verdict::Failed(why) => {
            let why = why.replace('\n', "\n        ");
            format!("FAILED  {name:<42} {seconds:>5.1} s\n        {why}")
        }
        Verdict::NotRun => format!("not run {name}"),
    }
}

fn progress(event: &BuildEvent) -> Option<String> {
    Some(match event {
        BuildEvent::Started { step, name } => format!("#{step} {name}"),
        BuildEvent::Output { step, line } => format!("#{step}   {line}"),
        BuildEvent::Finished { step, cached: true, .. } => format!("#{step} cached"),
        BuildEvent::Finished { step, seconds, .. } => format!("#{step} done in {seconds:.1} s"),
        BuildEvent::Sending { .. } => return None,
        BuildEvent::Sent { bytes } => format!("sent {} of context", size(*bytes)),
    })
}

/// What a failed step printed, before what is said of it.
pub(super) fn output(failed: &Failed) -> String {
    let first = failed.output.len().saturating_sub(MOST_LINES);
    failed.output[first..].iter().fold(String::new(), |text, line| text + "  " + line + "\n")
}

pub(super) fn mistakes(renderer: &Renderer, failed: &Failed, told: bool) -> String {
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
#[must_use]
pub fn size(bytes: u64) -> String {
    match bytes {
        0..1000 => format!("{bytes} B"),
        1000..1_000_000 => format!("{} kB", bytes.div_ceil(1000)),
        _ => format!("{} MB", bytes.div_ceil(1_000_000)),
    }
}
