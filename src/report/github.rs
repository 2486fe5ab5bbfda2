//! Workflow commands of GitHub: groups, annotations, and what keeps others from giving any.

use annotate_snippets::Renderer;

use super::{Event, Sink, Told, human, marked};
use crate::diagnostic::{Diagnostic, Documents, Fix};
use crate::engine::BuildEvent;

/// Lines for the log of a workflow: what a step prints is a group, and what is not ours alone gives no commands.
#[derive(Debug)]
pub(super) struct Workflow {
    renderer: Renderer,
    /// Whether mistakes become annotations.
    annotates: bool,
    /// What keeps others from giving commands, where a runner listens.
    commands: Option<Commands>,
    /// The names of the steps that have begun, by their numbers from 1.
    steps: Vec<String>,
    /// The step whose group is open.
    open: Option<usize>,
    told: Told,
}

impl Workflow {
    /// `is_heard` says whether a runner listens.
    pub(super) fn new(renderer: Renderer, annotates: bool, is_heard: bool) -> Self {
        let commands = is_heard.then(Commands::default);
        Self { renderer, annotates, commands, steps: Vec::new(), open: None, told: Told::default() }
    }

    /// A command to the runner.
    fn command(&mut self, text: &str) -> String {
        let resume = self.commands.as_mut().and_then(Commands::resume);
        resume.into_iter().chain([text.to_owned()]).map(|line| line + "\n").collect()
    }

    /// A text that is not ours alone.
    fn foreign(&mut self, text: &str) -> String {
        let stop = self.commands.as_mut().and_then(Commands::stop);
        stop.into_iter().chain([text.to_owned()]).map(|line| line + "\n").collect()
    }

    /// The group of a step, where a runner has any.
    fn turn_to(&mut self, step: Option<usize>) -> String {
        let mut lines = String::new();
        if self.commands.is_none() || self.open == step {
            return lines;
        }
        if self.open.is_some() {
            lines += &self.command("::endgroup::");
        }
        if let Some(number) = step {
            let name = escaped(self.steps.get(number - 1).map_or("", String::as_str));
            lines += &self.command(&format!("::group::#{number} {name}"));
        }
        self.open = step;
        lines
    }
}

impl Sink for Workflow {
    fn tell(&mut self, image: Option<&str>, event: &Event<'_>) -> String {
        match event {
            Event::Began(_) => self.steps.clear(),
            Event::Build(BuildEvent::Started { name, .. }) => self.steps.push(name.clone()),
            _ => {}
        }
        let told = self.told.take(image, event, human::tells_output(event));
        let mut lines = match event {
            // Groups would be torn apart by lines of other images.
            Event::Build(BuildEvent::Output { step, .. }) if image.is_none() => self.turn_to(Some(*step)),
            Event::Build(BuildEvent::Sending { .. }) | Event::Layer(_) => String::new(),
            _ => self.turn_to(None),
        };
        match event {
            Event::Failed(failed) if self.annotates => {
                if !told && !failed.output.is_empty() {
                    lines += &self.foreign(&marked(image, human::output(failed).trim_end()));
                }
                for mistake in &failed.diagnostics {
                    lines += &self.command(&annotation(&failed.documents, mistake));
                }
            }
            event => {
                if let Some(text) = human::text(&self.renderer, event, told) {
                    lines += &self.foreign(&marked(image, &text));
                }
            }
        }
        lines
    }

    fn settle(&mut self) -> String {
        let end = self.turn_to(None);
        let resume = self.commands.as_mut().and_then(Commands::resume);
        end + &resume.map_or_else(String::new, |line| line + "\n")
    }
}

/// Data of a command.
fn escaped(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// A mistake as a workflow command.
///
/// Rule: GitHub Docs, "Workflow commands", "Setting an error message".
fn annotation(documents: &Documents, mistake: &Diagnostic) -> String {
    let property = |text: &str| escaped(text).replace(':', "%3A").replace(',', "%2C");
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
    format!("::error {}::{}", properties.join(","), escaped(&format!("{}{fix}", mistake.why)))
}

/// Whether commands are heard. Whatever is not ours is printed while they are not.
///
/// Rule: GitHub Docs, "Workflow commands", "Stopping and starting workflow commands".
#[derive(Debug, Default)]
struct Commands {
    /// What ends the silence; unguessable.
    token: Option<String>,
}

impl Commands {
    /// The line that stops them, where they are heard.
    fn stop(&mut self) -> Option<String> {
        if self.token.is_some() {
            return None;
        }
        let token = format!("ipybox-{:032x}", rand::random::<u128>());
        let line = format!("::stop-commands::{token}");
        self.token = Some(token);
        Some(line)
    }

    /// The line that lets them be heard again, where they are not.
    fn resume(&mut self) -> Option<String> {
        self.token.take().map(|token| format!("::{token}::"))
    }
}
