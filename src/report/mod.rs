//! Events to text: the only room that writes to a terminal. A way of telling them is a [`Sink`], and a file.

mod github;
mod human;
mod json;
mod live;
mod redact;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::rc::Rc;
use std::time::Duration;

use annotate_snippets::Renderer;
use clap::ValueEnum;

use crate::diagnostic::{Diagnostic, Documents, Fix};
use crate::engine::{BuildEvent, LayerEvent};
use crate::harmless::harmless;
use crate::registry::Pushed;
use crate::verify::Finding;
pub use human::{finding, size};
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
    /// Work that takes its time begins; there is one at a time.
    Began(&'a Work),
    /// It ended well.
    Ended {
        /// Which.
        work: &'a Work,
        /// How long it took.
        after: Duration,
    },
    /// What happens while an image is pulled, or segments go to or from a cache.
    Layer(&'a LayerEvent),
    /// How far a blob of an image that is pushed has come.
    Pushed(Pushed<'a>),
    /// What happens in a build.
    Build(&'a BuildEvent),
    /// What came of a check of an image.
    Checked(&'a Finding),
    /// What ended the command.
    Failed(&'a Failed),
}

/// Work that takes its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Work {
    /// An image is pulled, by its name.
    Pull(String),
    /// It is looked what an image has, by its name.
    Probe(String),
    /// Something is loaded into the engine.
    Load(String),
    /// It is resolved on this host what a list asks for.
    Resolve,
    /// An image is built, with so many steps that run something.
    Build {
        /// How many.
        steps: usize,
    },
    /// So many packages are put into layers.
    Layers(usize),
    /// An image is written to a file or folder.
    Write(String),
    /// An image is pushed to a repository, by its whole name.
    Push(String),
    /// Segments are taken from a cache, by its name.
    Import(String),
    /// Segments are given to a cache, by its name.
    Export(String),
    /// An image is proved.
    Verify,
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

/// A way of telling events; what it gets holds no secret and does nothing to a terminal.
trait Sink: std::fmt::Debug {
    /// The lines for stderr that tell one, each with its line break; of which image, where several are worked on at once.
    fn tell(&mut self, image: Option<&str>, event: &Event<'_>) -> String;

    /// What puts everything in order before something else is written, or the process ends.
    fn settle(&mut self) -> String {
        String::new()
    }
}

/// The images of whose present work it was told as it came what it printed: where it fails, that is not told again.
#[derive(Debug, Default)]
struct Told(BTreeSet<String>);

impl Told {
    /// Takes in an event, which tells of such output or not; whether that of the image's work was told.
    fn take(&mut self, image: Option<&str>, event: &Event<'_>, tells: bool) -> bool {
        let image = image.unwrap_or_default();
        if matches!(event, Event::Began(_)) {
            self.0.remove(image);
        } else if tells {
            self.0.insert(image.to_owned());
        }
        self.0.contains(image)
    }
}

/// Where a command's words go: results to stdout, everything else to stderr.
#[derive(Debug)]
pub struct Report {
    quiet: bool,
    settings: Settings,
    redaction: Redaction,
    /// What it is about, where several images are worked on at once.
    image: Option<Rc<str>>,
    sink: Rc<RefCell<Box<dyn Sink>>>,
}

/// What decides how things are told.
#[derive(Debug, Clone, Copy, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Settings {
    /// What is asked for.
    pub format: MessageFormat,
    /// Whether somebody wants no colours.
    pub no_color: bool,
    /// Whether a runner of GitHub reads it.
    pub is_workflow: bool,
    /// Whether any runner of a pipeline does.
    pub is_pipeline: bool,
    /// Whether the terminal can be written to in places.
    pub is_dumb: bool,
}

impl Settings {
    fn sink(self) -> Box<dyn Sink> {
        match self.format {
            MessageFormat::Json => Box::new(json::Lines),
            format if self.is_workflow || format == MessageFormat::Github => {
                let annotates = format == MessageFormat::Github;
                Box::new(github::Workflow::new(self.renderer(), annotates, self.is_workflow))
            }
            _ => Box::new(human::Plain::new(self.renderer())),
        }
    }

    fn renderer(self) -> Renderer {
        let colour = io::stderr().is_terminal() && !self.no_color;
        if colour { Renderer::styled() } else { Renderer::plain() }
    }
}

/// How to tell what is going on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Progress {
    /// A live view where stderr is a terminal that somebody watches, else lines
    #[default]
    Auto,
    /// A live view
    Tty,
    /// A line for each step, and for each line it prints
    Plain,
    /// One JSON object per line, as with --message-format json
    Json,
    /// Nothing but mistakes and the result
    Quiet,
}

impl Report {
    /// A report to this process's streams.
    #[must_use]
    pub fn new(settings: Settings, redaction: Redaction) -> Self {
        let sink = Rc::new(RefCell::new(settings.sink()));
        Self { quiet: false, settings, redaction, image: None, sink }
    }

    /// Tells what is going on in a way that was asked for.
    ///
    /// # Errors
    ///
    /// Why that cannot be: a live view needs a terminal.
    pub fn show(&mut self, progress: Progress) -> Result<(), &'static str> {
        let Settings { format, is_workflow, is_pipeline, is_dumb, .. } = self.settings;
        let suits = live::Screen::is_there() && !is_dumb && !is_workflow && !is_pipeline;
        match progress {
            Progress::Tty | Progress::Plain if format == MessageFormat::Json => {
                return Err("messages are asked for as JSON");
            }
            Progress::Tty if !live::Screen::is_there() => {
                return Err("stderr is no terminal that has a size");
            }
            Progress::Auto if !suits || format != MessageFormat::Human => {}
            Progress::Auto | Progress::Tty => {
                self.sink = Rc::new(RefCell::new(Box::new(live::Live::new(self.settings.renderer()))));
            }
            Progress::Plain => {}
            Progress::Json => {
                self.settings.format = MessageFormat::Json;
                self.sink = Rc::new(RefCell::new(self.settings.sink()));
            }
            Progress::Quiet => self.quiet = true,
        }
        Ok(())
    }

    /// A report about one of several images that are worked on at once, to the same streams. It keeps to itself what this one
    /// does, and what it is told of beside.
    #[must_use]
    pub fn of_image(&self, image: &str) -> Self {
        Self {
            quiet: self.quiet,
            settings: self.settings,
            redaction: self.redaction.clone(),
            image: Some(image.into()),
            sink: self.sink.clone(),
        }
    }

    /// Keeps more to itself.
    pub fn conceal(&mut self, hide: impl FnOnce(&mut Redaction)) {
        hide(&mut self.redaction);
    }

    /// Lets `write` write a result to stdout.
    ///
    /// # Errors
    ///
    /// Of stdout; a reader that went away is none.
    pub fn result(&self, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
        self.close();
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

    /// Tells that work begins.
    pub fn began(&self, work: &Work) {
        self.tell(&Event::Began(work));
    }

    /// Tells that it ended well.
    pub fn ended(&self, work: &Work, after: Duration) {
        self.tell(&Event::Ended { work, after });
    }

    /// Tells of a layer that is pulled, or of a segment on its way.
    pub fn layer(&self, event: &LayerEvent) {
        self.tell(&Event::Layer(event));
    }

    /// Tells how far a blob has come on its way to a registry.
    pub fn pushed(&self, blob: Pushed<'_>) {
        self.tell(&Event::Pushed(blob));
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

    /// Tells what came of a check.
    pub fn checked(&self, finding: &Finding) {
        self.tell(&Event::Checked(&finding.told(|text| self.redacted(text))));
    }

    /// Shows mistakes, in the documents they speak of.
    pub fn mistakes(&self, failed: Failed) {
        let Failed { documents, diagnostics, output } = failed;
        let diagnostics = diagnostics.into_iter().map(|mistake| self.redacted_mistake(mistake)).collect();
        let output = output.iter().map(|line| self.redacted(line)).collect();
        self.tell(&Event::Failed(&Failed { documents, diagnostics, output }));
    }

    /// Puts everything in order, as at the end.
    pub fn close(&self) {
        say(&self.sink.borrow_mut().settle());
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
        if !self.quiet || matches!(event, Event::Failed(_)) {
            say(&self.sink.borrow_mut().tell(self.image.as_deref(), event));
        }
    }
}

/// Lines to stderr. Where nobody reads them, the command goes on all the same.
fn say(lines: &str) {
    if !lines.is_empty() {
        let _ = io::stderr().lock().write_all(defused(lines).as_bytes());
    }
}

/// Lines, each with the image in front that they are about.
fn marked(image: Option<&str>, lines: &str) -> String {
    let Some(image) = image else { return lines.to_owned() };
    let marked: Vec<_> = lines.split('\n').map(|line| format!("{image} | {line}")).collect();
    marked.join("\n")
}

/// A text without the older spelling of workflow commands, which counts anywhere in a line.
fn defused(text: &str) -> String {
    text.replace("##[", "## [")
}

/// A name that somebody has chosen, in one line: what steers a terminal is spelled out.
#[must_use]
pub fn in_one_line(name: &str) -> String {
    let told = |character: char| {
        let plain = character.to_string();
        let steers = character == '\n' || harmless(&plain).is_empty();
        if steers { character.escape_default().to_string() } else { plain }
    };
    name.chars().map(told).collect()
}

/// A digest as engines tell it of layers.
#[must_use]
pub fn in_short(digest: &str) -> &str {
    let digits = digest.split_once(':').map_or(digest, |(_, digits)| digits);
    digits.get(..12).unwrap_or(digits)
}

/// A length of time for people.
#[must_use]
pub fn duration(duration: Duration) -> String {
    match duration.as_millis() {
        milliseconds @ 0..1000 => format!("{milliseconds} ms"),
        _ => format!("{:.1} s", duration.as_secs_f64()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Arrival;
    use crate::verify::Verdict;

    /// What a sink tells of a build with everything that can happen.
    fn told(settings: Settings) -> String {
        let mut sink = settings.sink();
        let (pull, build) = (Work::Pull("base".to_owned()), Work::Build { steps: 2 });
        let push = Work::Push("registry.invalid/team/app".to_owned());
        let layer = LayerEvent {
            layer: "5c32499ab806".to_owned(),
            state: "Downloading".to_owned(),
            done: Some(12_300_000),
            total: Some(28_200_000),
        };
        let after = Duration::from_millis(1500);
        let started = |step, name: &str| BuildEvent::Started { step, name: name.to_owned() };
        let output = |step, line: &str| BuildEvent::Output { step, line: line.to_owned() };
        let found = |name: &str, verdict| Finding { name: name.to_owned(), verdict, seconds: 0.25 };
        let document = crate::diagnostic::Document::new("dependencies.txt", "numpy = \"^9\"\n");
        let failed = Failed {
            documents: document.into(),
            diagnostics: vec![
                Diagnostic::new("`numpy` has no version that fits")
                    .at(8..12)
                    .why("the newest is 2.4")
                    .advice("ask for less"),
            ],
            output: vec!["  × No solution found".to_owned()],
        };
        let build_events = [
            started(1, "[2/3] RUN install the servers"),
            BuildEvent::Finished { step: 1, cached: true, seconds: 0.0 },
            BuildEvent::Sending { bytes: 1000 },
            started(2, "[3/3] RUN install the packages"),
            output(2, "Resolved 3 packages"),
            output(2, "::error::forged"),
            BuildEvent::Finished { step: 2, cached: false, seconds: 1.25 },
            BuildEvent::Sent { bytes: 163_000 },
        ];
        let mut events = vec![
            Event::Note("a note"),
            Event::Warning { what: "a warning", advice: "what to do" },
            Event::Began(&pull),
            Event::Layer(&layer),
            Event::Ended { work: &pull, after },
            Event::Began(&build),
        ];
        let digest = format!("sha256:{}", "5c32499ab806".repeat(6).get(..64).unwrap());
        let blob = |done, arrival| {
            let (digest, size) = (digest.as_str(), 28_200_000);
            Event::Pushed(Pushed { digest, done, size, arrival })
        };
        let pushing = [
            blob(12_300_000, None),
            blob(28_200_000, Some(Arrival::Sent)),
            blob(28_200_000, Some(Arrival::Mounted)),
            blob(28_200_000, Some(Arrival::There)),
        ];
        events.extend(build_events.iter().map(Event::Build));
        let checks = [
            found("it starts", Verdict::Passed),
            found("it works", Verdict::Failed("no\nat all".to_owned())),
        ];
        events.extend([Event::Ended { work: &build, after }, Event::Began(&Work::Verify)]);
        events.extend(checks.iter().map(Event::Checked));
        events.push(Event::Failed(&failed));
        events.push(Event::Began(&push));
        events.extend(pushing);
        events.push(Event::Ended { work: &push, after });
        let (import, export) = (
            Work::Import("registry.invalid/cache".to_owned()),
            Work::Export("registry.invalid/cache".to_owned()),
        );
        for work in [&import, &export] {
            events.extend([Event::Began(work), Event::Layer(&layer), Event::Ended { work, after }]);
        }
        let text: String = events.iter().map(|event| sink.tell(None, event)).collect();
        let text = text + &sink.settle();
        // The word that ends a silence is another each time.
        let token = text.split("::stop-commands::").nth(1).and_then(|rest| rest.lines().next());
        token.map(str::to_owned).map_or(text.clone(), |_| masked(&text))
    }

    fn masked(text: &str) -> String {
        let mut masked = text.to_owned();
        while let Some(at) = masked.find("ipybox-") {
            masked.replace_range(at..at + "ipybox-".len() + 32, "TOKEN");
        }
        masked
    }

    #[test]
    fn of_several_images_each_line_says_which_it_is_about() {
        let plain = Settings::default();
        let told = |settings: Settings| settings.sink().tell(Some("a"), &Event::Note("first\nsecond"));
        assert_eq!(told(plain), "a | first\na | second\n");
        let json = told(Settings { format: MessageFormat::Json, ..plain });
        assert!(json.contains(r#""image":"a","level":"note""#), "{json}");
        // A group would be torn apart by lines of other images.
        let output = BuildEvent::Output { step: 1, line: "::error::forged".to_owned() };
        let mut sink = Settings { is_workflow: true, ..plain }.sink();
        let lines = sink.tell(Some("a"), &Event::Build(&output));
        assert!(lines.starts_with("::stop-commands::") && !lines.contains("::group::"), "{lines}");
        assert!(lines.ends_with("a | #1   ::error::forged\n"), "{lines}");
    }

    #[test]
    fn what_a_step_printed_is_told_once_of_each_image() {
        let plain = Settings::default();
        let github = Settings { format: MessageFormat::Github, ..plain };
        let output = BuildEvent::Output { step: 1, line: "of the other".to_owned() };
        let failed = || Failed {
            documents: Documents::default(),
            diagnostics: vec![Diagnostic::new("it failed")],
            output: vec!["no such package".to_owned()],
        };
        for mut sink in [plain.sink(), github.sink(), Settings { is_workflow: true, ..plain }.sink()] {
            sink.tell(Some("other"), &Event::Build(&output));
            let mut told =
                |image, event: Event<'_>| sink.tell(Some(image), &event).contains("no such package");
            assert!(told("a", Event::Failed(&failed())));
            assert!(!told("other", Event::Failed(&failed())));
            // What is done next prints something else.
            assert!(!told("other", Event::Began(&Work::Resolve)));
            assert!(told("other", Event::Failed(&failed())));
            let check = Finding { name: "it runs".to_owned(), verdict: Verdict::Passed, seconds: 0.1 };
            assert!(!told("a", Event::Began(&Work::Verify)));
            assert!(!told("a", Event::Checked(&check)));
            assert!(!told("a", Event::Failed(&failed())));
        }
    }

    #[test]
    fn names_take_one_line_and_stay_what_they_are() {
        assert_eq!(in_one_line("svc:x@host é e\u{301} \\ '"), "svc:x@host é e\u{301} \\ '");
        assert_eq!(in_one_line("a\nb\r\u{1b}[1m\u{9b}\u{202e}"), r"a\nb\r\u{1b}[1m\u{9b}\u{202e}");
    }

    #[test]
    fn every_way_of_telling_has_all_that_happens() {
        let plain = Settings::default();
        for (name, settings) in [
            ("plain", plain),
            ("json", Settings { format: MessageFormat::Json, ..plain }),
            ("github", Settings { format: MessageFormat::Github, is_workflow: true, ..plain }),
            ("github_runner", Settings { is_workflow: true, ..plain }),
            ("github_elsewhere", Settings { format: MessageFormat::Github, ..plain }),
        ] {
            insta::assert_snapshot!(format!("mode_{name}"), told(settings));
        }
    }
}
