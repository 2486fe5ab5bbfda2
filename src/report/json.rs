//! One JSON object per line on stderr; `docs/messages.md` describes them.

use schemars::JsonSchema;
use serde::Serialize;

use super::{Event, Failed, Sink, Work};
use crate::diagnostic::{Diagnostic, Documents, Fix};
use crate::engine::{BuildEvent, LayerEvent};
use crate::registry::{Arrival, Pushed};
use crate::verify::Finding;

/// What the objects look like; counted up where that changes otherwise than by more fields and more events.
const VERSION: u32 = 1;

/// JSON lines.
#[derive(Debug)]
pub(super) struct Lines;

impl Sink for Lines {
    fn tell(&mut self, image: Option<&str>, event: &Event<'_>) -> String {
        // An object begins with a brace, so that no line is a command.
        let line = |body| {
            let message = Message { version: VERSION, image, body };
            serde_json::to_string(&message).expect("texts and numbers are JSON") + "\n"
        };
        bodies(event).into_iter().map(line).collect()
    }
}

/// A line that `ipybox --message-format json` writes to stderr.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Message")]
struct Message<'a> {
    /// What the objects look like: 1.
    version: u32,
    /// What it is about, where several images of a fleet are built at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<&'a str>,
    #[serde(flatten)]
    body: Body<'a>,
}

#[derive(Serialize, JsonSchema)]
#[serde(tag = "level", rename_all = "lowercase")]
enum Body<'a> {
    /// Something that may be worth knowing.
    Note { message: &'a str },
    /// Something that may not be what the caller wants.
    Warning {
        message: &'a str,
        /// What to do; may be empty.
        help: &'a str,
    },
    /// How far work has got.
    Progress(Step<'a>),
    /// What ended the command; there may be several.
    Error(Box<Mistake<'a>>),
}

#[derive(Serialize, JsonSchema)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Step<'a> {
    /// Work that takes its time begins.
    Began {
        #[serde(flatten)]
        work: Named<'a>,
    },
    /// It ended well.
    Ended {
        #[serde(flatten)]
        work: Named<'a>,
        seconds: f64,
    },
    /// What is done with a layer that is pulled.
    Layer {
        layer: &'a str,
        /// The engine's word for it, such as `Downloading`.
        state: &'a str,
        /// What is done of it, in bytes.
        #[serde(skip_serializing_if = "Option::is_none")]
        bytes: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        total: Option<u64>,
    },
    /// How far a layer, or the configuration, of an image that is pushed has come.
    Pushed {
        digest: &'a str,
        /// What the registry has of it, or was sent, in bytes. What has to be sent again no longer counts.
        bytes: u64,
        total: u64,
        /// How it came, once it is there.
        #[serde(skip_serializing_if = "Option::is_none")]
        arrival: Option<Came>,
    },
    /// A step of the build begins.
    Started {
        /// Counted from 1 in the order they begin.
        step: usize,
        name: &'a str,
    },
    /// A step printed a line.
    Output { step: usize, line: &'a str },
    /// A step ended well.
    Finished {
        step: usize,
        /// Whether an earlier build had done it.
        cached: bool,
        seconds: f64,
    },
    /// What was sent of the context so far.
    Sending { bytes: u64 },
    /// What was sent of the context.
    Sent { bytes: u64 },
    /// A check of the image ended.
    Checked(&'a Finding),
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Came {
    /// It was there.
    There,
    /// The registry has it from another of its repositories.
    Mounted,
    /// It was sent.
    Sent,
}

impl From<Arrival> for Came {
    fn from(arrival: Arrival) -> Self {
        match arrival {
            Arrival::There => Self::There,
            Arrival::Mounted => Self::Mounted,
            Arrival::Sent => Self::Sent,
        }
    }
}

#[derive(Serialize, JsonSchema)]
struct Named<'a> {
    work: &'static str,
    /// What it is done with, where that has a name.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
}

#[derive(Serialize, JsonSchema)]
struct Mistake<'a> {
    message: &'a str,
    reason: &'a str,
    /// What to do about it.
    help: Option<&'a str>,
    /// What to write in its place, where one answer is surely right.
    replacement: Option<&'a str>,
    place: Option<Place<'a>>,
    /// Other places that have to do with it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    also: Vec<Also<'a>>,
    /// The last lines that a failed step printed.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    output: &'a [String],
}

/// A part of a file; lines and columns are counted from 1, columns in characters.
#[derive(Serialize, JsonSchema)]
struct Place<'a> {
    file: std::borrow::Cow<'a, str>,
    /// In bytes.
    start: usize,
    end: usize,
    line: usize,
    column: usize,
    end_line: usize,
    end_column: usize,
}

#[derive(Serialize, JsonSchema)]
struct Also<'a> {
    place: Option<Place<'a>>,
    reason: &'a str,
}

/// The objects of an event.
fn bodies<'a>(event: &'a Event<'a>) -> Vec<Body<'a>> {
    let progress = |step| vec![Body::Progress(step)];
    match event {
        Event::Note(message) => vec![Body::Note { message }],
        Event::Warning { what, advice } => vec![Body::Warning { message: what, help: advice }],
        Event::Began(work) => progress(Step::Began { work: named(work) }),
        Event::Ended { work, after } => {
            progress(Step::Ended { work: named(work), seconds: after.as_secs_f64() })
        }
        Event::Layer(LayerEvent { layer, state, done, total }) => {
            progress(Step::Layer { layer, state, bytes: *done, total: *total })
        }
        Event::Pushed(Pushed { digest, done, size, arrival }) => {
            let arrival = arrival.map(Came::from);
            progress(Step::Pushed { digest, bytes: *done, total: *size, arrival })
        }
        Event::Build(event) => progress(match **event {
            BuildEvent::Started { step, ref name } => Step::Started { step, name },
            BuildEvent::Output { step, ref line } => Step::Output { step, line },
            BuildEvent::Finished { step, cached, seconds } => Step::Finished { step, cached, seconds },
            BuildEvent::Sending { bytes } => Step::Sending { bytes },
            BuildEvent::Sent { bytes } => Step::Sent { bytes },
        }),
        Event::Checked(finding) => progress(Step::Checked(finding)),
        Event::Failed(Failed { documents, diagnostics, output }) => {
            diagnostics.iter().map(|what| Body::Error(Box::new(mistake(documents, what, output)))).collect()
        }
    }
}

fn named(work: &Work) -> Named<'_> {
    let (work, name) = match work {
        Work::Pull(name) => ("pull", Some(name.as_str())),
        Work::Probe(name) => ("probe", Some(name.as_str())),
        Work::Load(what) => ("load", Some(what.as_str())),
        Work::Resolve => ("resolve", None),
        Work::Build { .. } => ("build", None),
        Work::Layers(_) => ("layers", None),
        Work::Write(file) => ("write", Some(file.as_str())),
        Work::Push(repository) => ("push", Some(repository.as_str())),
        Work::Import(cache) => ("import", Some(cache.as_str())),
        Work::Export(cache) => ("export", Some(cache.as_str())),
        Work::Verify => ("verify", None),
    };
    Named { work, name }
}

fn mistake<'a>(documents: &'a Documents, mistake: &'a Diagnostic, output: &'a [String]) -> Mistake<'a> {
    let place = |at: &std::ops::Range<usize>| {
        let place = documents.find(at)?;
        let [(line, column), (end_line, end_column)] = place.span();
        let (start, end) = (place.at.start, place.at.end);
        Some(Place { file: place.document.name(), start, end, line, column, end_line, end_column })
    };
    let (help, replacement) = match &mistake.fix {
        Some(Fix::Advice(advice)) => (Some(advice.as_str()), None),
        Some(Fix::Replace(text)) => (None, Some(text.as_str())),
        None => (None, None),
    };
    let also = mistake.also.iter().map(|(at, why)| Also { place: place(at), reason: why }).collect();
    let place = mistake.at.as_ref().and_then(place);
    Mistake { message: &mistake.what, reason: &mistake.why, help, replacement, place, also, output }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema() -> String {
        let schema = schemars::schema_for!(Message<'static>);
        serde_json::to_string_pretty(&schema).unwrap() + "\n"
    }

    #[test]
    fn the_schema_of_the_documents_is_this_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/messages.schema.json");
        assert!(std::fs::read_to_string(path).unwrap_or_default() == schema(), "it is not: {}", schema());
    }
}
