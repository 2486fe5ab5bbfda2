//! Workflow commands of GitHub, and what keeps others from giving any.

use crate::diagnostic::{Diagnostic, Documents, Fix};

/// A mistake as a workflow command.
///
/// Rule: GitHub Docs, "Workflow commands", "Setting an error message".
pub(super) fn annotation(documents: &Documents, mistake: &Diagnostic) -> String {
    let data = |text: &str| text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A");
    let property = |text: &str| data(text).replace(':', "%3A").replace(',', "%2C");
    let mut properties = Vec::new();
    if let Some(place) = mistake.at.as_ref().and_then(|at| documents.find(at)) {
        let [(line, column), (end_line, end_column)] = place.span();
        properties = vec![
            format!("file={}", property(&place.document.name())),
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

/// Whether commands are heard. Whatever is not ours is printed while they are not.
///
/// Rule: GitHub Docs, "Workflow commands", "Stopping and starting workflow commands".
#[derive(Debug, Default)]
pub(super) struct Commands {
    /// What ends the silence; unguessable.
    token: Option<String>,
}

impl Commands {
    /// The line that stops them, where they are heard.
    pub(super) fn stop(&mut self) -> Option<String> {
        if self.token.is_some() {
            return None;
        }
        let token = format!("ipybox-{:032x}", rand::random::<u128>());
        let line = format!("::stop-commands::{token}");
        self.token = Some(token);
        Some(line)
    }

    /// The line that lets them be heard again, where they are not.
    pub(super) fn resume(&mut self) -> Option<String> {
        self.token.take().map(|token| format!("::{token}::"))
    }
}
