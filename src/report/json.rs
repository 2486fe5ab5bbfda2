//! One JSON object per line on stderr; `docs/messages.md` describes them.

use serde_json::{Value, json};

use super::Event;
use crate::diagnostic::{Diagnostic, Documents, Fix};
use crate::engine::BuildEvent;

/// What the objects look like; counted up where that changes.
const VERSION: u32 = 1;

/// The objects of an event.
pub(super) fn lines(event: &Event<'_>) -> Vec<String> {
    match event {
        Event::Note(text) => vec![object("note", json!({ "message": text }))],
        Event::Warning { what, advice } => {
            vec![object("warning", json!({ "message": what, "help": advice }))]
        }
        Event::Build(event) => vec![object("progress", progress(event))],
        Event::Failed(failed) => {
            let output = (!failed.output.is_empty()).then_some(&failed.output);
            let of = |what| mistake(&failed.documents, what, output);
            failed.diagnostics.iter().map(of).collect()
        }
    }
}

fn object(level: &str, mut fields: Value) -> String {
    fields["version"] = VERSION.into();
    fields["level"] = level.into();
    fields.to_string()
}

fn progress(event: &BuildEvent) -> Value {
    match event {
        BuildEvent::Started { step, name } => json!({ "event": "started", "step": step, "name": name }),
        BuildEvent::Output { step, line } => json!({ "event": "output", "step": step, "line": line }),
        BuildEvent::Finished { step, cached, seconds } => {
            json!({ "event": "finished", "step": step, "cached": cached, "seconds": seconds })
        }
        BuildEvent::Sent { bytes } => json!({ "event": "sent", "bytes": bytes }),
    }
}

fn mistake(documents: &Documents, mistake: &Diagnostic, output: Option<&Vec<String>>) -> String {
    let place = |at: &std::ops::Range<usize>| {
        let place = documents.find(at)?;
        let [(line, column), (end_line, end_column)] = place.span();
        Some(json!({
            "file": place.document.name(), "start": place.at.start, "end": place.at.end,
            "line": line, "column": column, "end_line": end_line, "end_column": end_column,
        }))
    };
    let (help, replacement) = match &mistake.fix {
        Some(Fix::Advice(advice)) => (Some(advice), None),
        Some(Fix::Replace(text)) => (None, Some(text)),
        None => (None, None),
    };
    let mut fields = json!({
        "message": mistake.what, "reason": mistake.why, "help": help, "replacement": replacement,
        "place": mistake.at.as_ref().and_then(place),
    });
    if !mistake.also.is_empty() {
        let also = mistake.also.iter().map(|(at, why)| json!({ "place": place(at), "reason": why }));
        fields["also"] = also.collect();
    }
    if let Some(output) = output {
        fields["output"] = json!(output);
    }
    object("error", fields)
}
