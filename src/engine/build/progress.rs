//! BuildKit's status messages to events a person can follow.

use std::collections::{HashMap, VecDeque};

use bollard::errors::Error as Api;
use bollard::moby::buildkit::v1::{StatusResponse, Vertex};

use crate::engine::error::{EngineError, message};
use crate::harmless;

/// What the user is told while a build runs.
#[derive(Debug, Clone, PartialEq)]
pub enum BuildEvent {
    /// A step has begun.
    Started {
        /// Counts the steps of a build from 1, in the order they begin.
        step: usize,
        /// The instruction, shortened.
        name: String,
    },
    /// A step printed one line; without its newline.
    Output {
        /// The step.
        step: usize,
        /// The line, without control characters.
        line: String,
    },
    /// A step has ended well.
    Finished {
        /// The step.
        step: usize,
        /// Whether an earlier build had done it.
        cached: bool,
        /// How long it took.
        seconds: f64,
    },
    /// The engine takes the context.
    Sending {
        /// Bytes of it that it took so far.
        bytes: u64,
    },
    /// The build is over.
    Sent {
        /// Bytes of the context that the engine took.
        bytes: u64,
    },
}

/// Lines of a failed step that are kept: reasons of installers can be long, and their end says most.
const LAST_LINES: usize = 400;

/// Longest name of a step, in characters.
const NAME_LENGTH: usize = 70;

/// Longest unfinished line that is kept, in bytes.
pub(super) const MAX_LINE: usize = 16 << 10;

pub(super) struct Progress {
    titles: Vec<String>,
    /// By the digest of their vertex, or by their number.
    steps: HashMap<String, Step>,
    failed: Option<String>,
}

struct Step {
    number: usize,
    name: String,
    /// Its place among the titles.
    title: Option<usize>,
    finished: bool,
    unfinished_line: Vec<u8>,
    last_lines: VecDeque<String>,
}

impl Progress {
    pub(super) fn new(titles: Vec<String>) -> Self {
        Self { titles, steps: HashMap::new(), failed: None }
    }

    /// Takes in one status message and reports what is new.
    pub(super) fn update(&mut self, status: StatusResponse, report: &mut impl FnMut(BuildEvent)) {
        for vertex in status.vertexes {
            if !vertex.name.starts_with("[internal]") {
                self.vertex(&vertex, report);
            }
        }
        for log in status.logs {
            self.output(&log.vertex, &log.msg, report);
        }
    }

    fn vertex(&mut self, vertex: &Vertex, report: &mut impl FnMut(BuildEvent)) {
        let Some(started) = vertex.started else { return };
        self.begin(&vertex.digest, &vertex.name, report);
        if !vertex.error.is_empty() {
            // Steps that are cancelled because another failed carry an error, too.
            if !vertex.error.contains("context canceled") {
                self.fail(&vertex.digest);
            }
        } else if let Some(completed) = vertex.completed {
            #[expect(clippy::cast_precision_loss, reason = "a build does not last for centuries")]
            let seconds = (completed.seconds - started.seconds) as f64
                + f64::from(completed.nanos - started.nanos) / 1e9;
            self.finish(&vertex.digest, vertex.cached, seconds, report);
        }
    }

    /// A step is there, by what it is told apart by, and its instruction.
    pub(super) fn begin(&mut self, id: &str, instruction: &str, report: &mut impl FnMut(BuildEvent)) {
        let number = self.steps.len() + 1;
        self.steps.entry(id.to_owned()).or_insert_with(|| {
            let title = title(instruction);
            let name = shorten(instruction, title);
            report(BuildEvent::Started { step: number, name: name.clone() });
            let title = self.titles.iter().position(|known| Some(known.as_str()) == title);
            let (unfinished_line, last_lines) = (Vec::new(), VecDeque::new());
            Step { number, name, title, finished: false, unfinished_line, last_lines }
        });
    }

    /// A step printed something.
    pub(super) fn output(&mut self, id: &str, bytes: &[u8], report: &mut impl FnMut(BuildEvent)) {
        if let Some(step) = self.steps.get_mut(id) {
            step.log(bytes, report);
        }
    }

    /// A step has ended well, which is told once.
    pub(super) fn finish(
        &mut self,
        id: &str,
        cached: bool,
        seconds: f64,
        report: &mut impl FnMut(BuildEvent),
    ) {
        if let Some(step) = self.steps.get_mut(id)
            && !std::mem::replace(&mut step.finished, true)
        {
            report(BuildEvent::Finished { step: step.number, cached, seconds });
        }
    }

    /// A step has failed; the first one counts.
    pub(super) fn fail(&mut self, id: &str) {
        self.failed.get_or_insert_with(|| id.to_owned());
    }

    /// What became of the build that ended with `error`.
    pub(super) fn failure(mut self, error: Api) -> EngineError {
        let text = message(&error);
        let Some(step) = self.failed.and_then(|digest| self.steps.remove(&digest)) else {
            return EngineError::api("build the image")(error);
        };
        let mut output = step.last_lines;
        if !step.unfinished_line.is_empty() {
            output.push_back(harmless::line(&step.unfinished_line));
        }
        let exit_code = exit_code(&text);
        if exit_code.is_none() {
            output.push_back(without_command(&text).to_owned());
        }
        EngineError::Step { step: step.name, title: step.title, exit_code, output: output.into() }
    }
}

impl Step {
    fn log(&mut self, bytes: &[u8], report: &mut impl FnMut(BuildEvent)) {
        for part in bytes.split_inclusive(|&byte| byte == b'\n') {
            self.unfinished_line.extend_from_slice(part);
            if part.ends_with(b"\n") || self.unfinished_line.len() > MAX_LINE {
                let line = harmless::line(&std::mem::take(&mut self.unfinished_line));
                if self.last_lines.len() == LAST_LINES {
                    self.last_lines.pop_front();
                }
                self.last_lines.push_back(line.clone());
                report(BuildEvent::Output { step: self.number, line });
            }
        }
    }
}

/// What an engine says of a step that it could not run, without the command: what stands there did not happen.
fn without_command(error: &str) -> &str {
    const BEHIND: [&str; 2] = ["]: ", "did not complete successfully: "];
    if !error.contains("executor failed running [") && !error.contains(BEHIND[1]) {
        return error;
    }
    BEHIND.iter().find_map(|mark| error.rsplit_once(mark)).map_or(error, |(_, why)| why)
}

/// The number behind `exit code: ` or `exit status `, as Docker and podman write it into their errors.
fn exit_code(error: &str) -> Option<i32> {
    let behind = |words| error.rsplit_once(words).map(|(_, after)| after);
    let after = behind("exit code: ").or_else(|| behind("exit status "))?;
    let digits = after.find(|next: char| !next.is_ascii_digit()).unwrap_or(after.len());
    after[..digits].parse().ok()
}

/// The title that an instruction begins with: `RUN : "TITLE" && …`, behind its mounts.
fn title(name: &str) -> Option<&str> {
    let (before, rest) = name.split_once(" : \"")?;
    let is_first = before
        .split_whitespace()
        .skip_while(|word| *word != "RUN")
        .skip(1)
        .all(|word| word.starts_with("--mount="));
    let (title, _) = rest.split_once('"')?;
    is_first.then_some(title)
}

/// An instruction for people: with its title, or without its mounts.
fn shorten(name: &str, title: Option<&str>) -> String {
    let mut words = name.split_whitespace().filter(|word| !word.starts_with("--mount="));
    if let Some(title) = title {
        let before: Vec<_> = words.by_ref().take_while(|word| *word != ":").collect();
        return format!("{} {title}", before.join(" "));
    }
    let name = words.collect::<Vec<_>>().join(" ");
    match name.char_indices().nth(NAME_LENGTH) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_named_for_people() {
        let named = |name: &str| shorten(name, title(name));
        let titled = "[stage-1 4/5] RUN --mount=type=bind,from=uv --mount=type=cache : \"install the packages\" && set -e; x";
        assert_eq!(named(titled), "[stage-1 4/5] RUN install the packages");
        assert_eq!(named("[2/5] ADD files.tar /"), "[2/5] ADD files.tar /");
        assert_eq!(named("[2/5] RUN echo : \"no title\""), "[2/5] RUN echo : \"no title\"");
        assert_eq!(named(&"x".repeat(200)).chars().count(), NAME_LENGTH + 1);
    }

    #[test]
    fn the_exit_code_is_found_in_the_words_of_every_engine() {
        assert_eq!(exit_code("executor failed running [/bin/sh -c exit 7]: exit code: 7"), Some(7));
        assert_eq!(exit_code("process \"x\" did not complete successfully: exit code: 12"), Some(12));
        let podman = "building at STEP \"RUN x\": while running runtime: exit status 7";
        assert_eq!(exit_code(podman), Some(7));
        assert_eq!(exit_code("failed to solve"), None);
    }

    #[test]
    fn a_command_that_did_not_run_is_no_part_of_what_went_wrong() {
        let why = "failed to create endpoint on network bridge: could not find bridge docker0";
        for said in [
            format!(
                "executor failed running [/bin/sh -c grep \"has an invalid package format\" said]: {why}"
            ),
            format!("process \"/bin/sh -c grep format\" did not complete successfully: {why}"),
            why.to_owned(),
        ] {
            assert_eq!(without_command(&said), why);
        }
    }
}
