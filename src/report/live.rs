//! A live view: what runs now, below the lines of what is done.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use annotate_snippets::Renderer;
use unicode_width::UnicodeWidthStr;

use super::human::{self, finding, size};
use super::{Event, Sink, Told, Work, defused, in_short, marked};
use crate::engine::{BuildEvent, LayerEvent};
use crate::registry::Pushed;

/// Shortest time between two pictures.
const FRAME: Duration = Duration::from_millis(100);

/// Lines of a running step that are shown, at most.
const TAIL: usize = 6;

/// The narrowest and the lowest terminal that can be drawn on.
const SMALLEST: (usize, usize) = (20, 4);

/// A live view on stderr, drawn by a thread of its own from the first event on.
#[derive(Debug)]
pub(super) struct Live {
    painter: Option<Painter>,
    renderer: Renderer,
}

#[derive(Debug)]
struct Painter {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// By the images that are worked on at once, of which there may be one without a name.
    views: BTreeMap<String, View>,
    told: Told,
    /// Lines that stay, and are not written yet.
    above: String,
    /// Whether something changed since the last picture.
    is_new: bool,
    /// Whether there is nothing more to come.
    is_over: bool,
    /// Whether nothing more is to be drawn.
    is_abandoned: bool,
}

impl Live {
    pub(super) fn new(renderer: Renderer) -> Self {
        Self { painter: None, renderer }
    }
}

impl Painter {
    fn start() -> Self {
        let shared = Arc::<Shared>::default();
        let seen = shared.clone();
        Self { shared, thread: std::thread::spawn(move || paint(&seen)) }
    }
}

impl Shared {
    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().expect("no panic while it is held"));
        self.changed.notify_one();
    }
}

impl State {
    /// Takes in an event of an image.
    fn take(&mut self, image: Option<&str>, event: &Event<'_>, renderer: &Renderer) {
        let name = image.unwrap_or_default();
        // Of what steps print, the view keeps nothing.
        let told = self.told.take(image, event, matches!(event, Event::Checked(_)));
        if matches!(event, Event::Failed(_)) {
            self.views.remove(name);
        }
        let stays = match event {
            Event::Note(_) | Event::Warning { .. } | Event::Failed(_) => human::text(renderer, event, told),
            event => self.views.entry(name.to_owned()).or_default().take(event, Instant::now()),
        };
        self.above.extend(stays.map(|text| marked(image, &text) + "\n"));
        self.is_new = true;
    }
}

impl Sink for Live {
    fn tell(&mut self, image: Option<&str>, event: &Event<'_>) -> String {
        let painter = self.painter.get_or_insert_with(Painter::start);
        painter.shared.change(|state| state.take(image, event, &self.renderer));
        // The thread writes it.
        String::new()
    }

    fn settle(&mut self) -> String {
        if let Some(Painter { shared, thread }) = self.painter.take() {
            shared.change(|state| {
                state.is_over = true;
                // What a panic says stays on the screen.
                state.is_abandoned = std::thread::panicking();
            });
            let _ = thread.join();
        }
        String::new()
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.settle();
    }
}

/// Draws until there is nothing more to come, and then leaves what stays.
fn paint(shared: &Shared) {
    let mut screen = Screen::default();
    let mut drawn = Instant::now();
    let mut state = shared.state.lock().expect("no panic while it is held");
    loop {
        // Seconds pass, too, while something runs.
        while !state.is_new && !state.is_over {
            let (kept, waited) = shared
                .changed
                .wait_timeout(state, Duration::from_secs(1))
                .expect("no panic while it is held");
            state = kept;
            if waited.timed_out() {
                break;
            }
        }
        // What comes close together is one picture.
        let next = drawn + FRAME;
        while !state.is_over
            && let Some(early) = next.checked_duration_since(Instant::now())
        {
            state = shared.changed.wait_timeout(state, early).expect("no panic while it is held").0;
        }
        if state.is_abandoned {
            return;
        }
        drawn = Instant::now();
        let above = std::mem::take(&mut state.above);
        state.is_new = false;
        let (columns, rows) = Screen::size().unwrap_or(SMALLEST);
        let is_over = state.is_over;
        let frame = if is_over { Vec::new() } else { frame(&state.views, columns, rows, Instant::now()) };
        drop(state);
        let picture = screen.picture(&defused(&above), frame, columns);
        if !picture.is_empty() {
            let mut stderr = io::stderr().lock();
            let _ = stderr.write_all(picture.as_bytes()).and_then(|()| stderr.flush());
        }
        if is_over {
            return;
        }
        state = shared.state.lock().expect("no panic while it is held");
    }
}

/// A terminal, and what was drawn on it last.
#[derive(Debug, Default)]
pub(super) struct Screen {
    frame: Vec<String>,
}

impl Screen {
    /// Whether stderr is a terminal that can be drawn on.
    pub(super) fn is_there() -> bool {
        io::stderr().is_terminal()
            && Self::size().is_some_and(|(columns, rows)| columns >= SMALLEST.0 && rows >= SMALLEST.1)
    }

    /// Columns and rows; `None` where it does not say, as terminals of pipelines do not.
    fn size() -> Option<(usize, usize)> {
        let size = rustix::termios::tcgetwinsize(io::stderr()).ok()?;
        (size.ws_col > 0 && size.ws_row > 0).then_some((size.ws_col.into(), size.ws_row.into()))
    }

    /// What makes a terminal of so many columns show `above`, which stays, and the lines of `frame` below it.
    ///
    /// Source: ECMA-48, CUU, EL and ED.
    fn picture(&mut self, above: &str, frame: Vec<String>, columns: usize) -> String {
        if above.is_empty() && frame == self.frame {
            return String::new();
        }
        // A terminal that became narrower has broken the lines of the last picture.
        let rows: usize = self.frame.iter().map(|line| line.width().div_ceil(columns).max(1)).sum();
        let mut picture = if rows == 0 { String::new() } else { format!("\r\x1b[{rows}A") };
        for line in above.lines().chain(frame.iter().map(String::as_str)) {
            picture += line;
            picture += "\x1b[K\n";
        }
        picture += "\x1b[J";
        self.frame = frame;
        picture
    }
}

/// What is going on.
#[derive(Debug, Default)]
struct View {
    work: Option<Running>,
    /// The steps of a build that run, by their numbers.
    steps: BTreeMap<usize, Running>,
    /// Those of all steps that have ended, and of how many.
    done: usize,
    of: usize,
    sent: u64,
    /// The layers of a pull or push, in the order they are told.
    layers: Vec<Layer>,
}

/// A layer on its way.
#[derive(Debug)]
struct Layer {
    name: String,
    /// What is done with it.
    state: String,
    /// What is done of it, in bytes, and all of it.
    done: Option<u64>,
    total: Option<u64>,
    is_there: bool,
}

impl From<&LayerEvent> for Layer {
    fn from(event: &LayerEvent) -> Self {
        let LayerEvent { layer, state, done, total } = event;
        let is_there = event.is_complete();
        Self { name: layer.clone(), state: state.to_lowercase(), done: *done, total: *total, is_there }
    }
}

impl From<&Pushed<'_>> for Layer {
    fn from(Pushed { digest, done, size, arrival }: &Pushed<'_>) -> Self {
        let (name, state) = (in_short(digest).to_owned(), "sending".to_owned());
        Self { name, state, done: Some(*done), total: Some(*size), is_there: arrival.is_some() }
    }
}

#[derive(Debug)]
struct Running {
    name: String,
    since: Instant,
    lines: VecDeque<String>,
}

impl Running {
    fn new(name: String, since: Instant) -> Self {
        Self { name, since, lines: VecDeque::new() }
    }
}

impl View {
    /// Takes in an event; the line that stays of it, where one does.
    fn take(&mut self, event: &Event<'_>, now: Instant) -> Option<String> {
        match event {
            Event::Began(work) => {
                *self = Self { work: Some(Running::new(human::title(work), now)), ..Self::default() };
                if let Work::Build { steps } = work {
                    self.of = *steps;
                }
                None
            }
            Event::Ended { work, after } => {
                *self = Self::default();
                match work {
                    Work::Pull(name) => Some(line("pulled", name, after.as_secs_f64())),
                    Work::Write(file) => Some(line("wrote", file, after.as_secs_f64())),
                    Work::Push(repository) => Some(line("pushed", repository, after.as_secs_f64())),
                    Work::Import(cache) => Some(line("took", cache, after.as_secs_f64())),
                    Work::Export(cache) => Some(line("shared", cache, after.as_secs_f64())),
                    Work::Load(what) => Some(line("loaded", what, after.as_secs_f64())),
                    Work::Layers(count) => {
                        Some(line("put", &format!("{count} packages into layers"), after.as_secs_f64()))
                    }
                    Work::Probe(_) | Work::Resolve | Work::Build { .. } | Work::Verify => None,
                }
            }
            Event::Layer(layer) => {
                self.layer((*layer).into());
                None
            }
            Event::Pushed(pushed) => {
                self.layer(pushed.into());
                None
            }
            Event::Build(event) => self.step(event, now),
            Event::Checked(found) => Some(finding(found)),
            Event::Note(_) | Event::Warning { .. } | Event::Failed(_) => None,
        }
    }

    fn layer(&mut self, layer: Layer) {
        match self.layers.iter_mut().find(|known| known.name == layer.name) {
            Some(known) => *known = layer,
            None => self.layers.push(layer),
        }
    }

    fn step(&mut self, event: &BuildEvent, now: Instant) -> Option<String> {
        match event {
            BuildEvent::Started { step, name } => {
                self.steps.insert(*step, Running::new(instruction(name).to_owned(), now));
            }
            BuildEvent::Output { step, line } => {
                let lines = &mut self.steps.get_mut(step)?.lines;
                if lines.len() == TAIL {
                    lines.pop_front();
                }
                lines.push_back(line.clone());
            }
            BuildEvent::Finished { step, cached, seconds } => {
                let Running { name, .. } = self.steps.remove(step)?;
                self.done += 1;
                return Some(if *cached { format!("cached  {name}") } else { line("done", &name, *seconds) });
            }
            BuildEvent::Sending { bytes } | BuildEvent::Sent { bytes } => self.sent = *bytes,
        }
        None
    }

    /// The lines of a picture, none of them wider than the terminal, and fewer than it has rows.
    fn frame(&self, columns: usize, rows: usize, now: Instant) -> Vec<String> {
        let Some(work) = &self.work else { return Vec::new() };
        let clock = |since: Instant| format!("{} s", now.saturating_duration_since(since).as_secs());
        let mut counts = Vec::new();
        if self.of > 0 {
            counts.push(match self.done {
                1 => "1 step done".to_owned(),
                done => format!("{done} steps done"),
            });
        }
        if self.sent > 0 {
            counts.push(format!("{} sent", size(self.sent)));
        }
        if !self.layers.is_empty() {
            let whole = self.layers.iter().filter(|layer| layer.is_there).count();
            counts.push(format!("{whole} of {} layers", self.layers.len()));
        }
        let status = if counts.is_empty() {
            work.name.clone()
        } else {
            format!("{}: {}", work.name, counts.join(", "))
        };
        let mut above = Vec::new();
        for layer in self.layers.iter().filter(|layer| !layer.is_there) {
            above.push(fitted(&layer_line(layer), "", columns));
        }
        // Every running step gets its line, and the lines that are left go to what it prints.
        let room = rows.saturating_sub(2 + above.len() + self.steps.len());
        let tail = (room / self.steps.len().max(1)).min(TAIL);
        for step in self.steps.values() {
            above.push(fitted(&format!("run     {}", step.name), &clock(step.since), columns));
            for text in step.lines.iter().skip(step.lines.len().saturating_sub(tail)) {
                above.push(fitted(&format!("      | {text}"), "", columns));
            }
        }
        above.truncate(rows.saturating_sub(2));
        above.push(fitted(&status, &clock(work.since), columns));
        above
    }
}

/// The lines of a picture of all that is worked on, none wider than the terminal, and fewer than it has rows.
fn frame(views: &BTreeMap<String, View>, columns: usize, rows: usize, now: Instant) -> Vec<String> {
    let busy: Vec<_> = views.iter().filter(|(_, view)| view.work.is_some()).collect();
    let share = rows / busy.len().max(1);
    let mut lines = Vec::new();
    for (image, view) in busy {
        let image = Some(image.as_str()).filter(|image| !image.is_empty());
        let room = columns.saturating_sub(marked(image, "").width());
        lines.extend(view.frame(room, share, now).iter().map(|line| marked(image, line)));
    }
    lines.truncate(rows.saturating_sub(1));
    lines
}

/// The name of a step without its stage and number, and without what every step does.
fn instruction(name: &str) -> &str {
    let behind = name.strip_prefix('[').and_then(|rest| rest.split_once("] ")).map_or(name, |(_, rest)| rest);
    behind.strip_prefix("RUN ").unwrap_or(behind)
}

fn line(what: &str, name: &str, seconds: f64) -> String {
    format!("{what:<7} {name}  {seconds:.1} s")
}

fn layer_line(Layer { name, state, done, total, .. }: &Layer) -> String {
    let amount = match (done, total) {
        (Some(done), Some(total)) => format!("  {} of {}", size(*done), size(*total)),
        (Some(done), None) => format!("  {}", size(*done)),
        _ => String::new(),
    };
    format!("        {name}  {state}{amount}")
}

/// A text and what stands at the end of its line, in no more than so many columns.
fn fitted(text: &str, end: &str, columns: usize) -> String {
    // The last column is left alone: some terminals break a line there.
    let room = columns.saturating_sub(1 + end.width() + usize::from(!end.is_empty()));
    // Characters together may be wider than each by itself, as with emoji.
    let ends = text.char_indices().map(|(at, character)| at + character.len_utf8());
    let shown = ends.take_while(|end| text[..*end].width() <= room).last().map_or("", |end| &text[..end]);
    if end.is_empty() {
        return shown.to_owned();
    }
    format!("{shown}{}{end}", " ".repeat(room - shown.width() + 1))
}

#[cfg(test)]
mod tests {
    use std::num::NonZero;

    use super::*;
    use crate::diagnostic::{Diagnostic, Documents};
    use crate::registry::Arrival;
    use crate::report::Failed;
    use crate::verify::{Finding, Verdict};

    /// What a terminal shows after pictures for its widths: each event, then a picture.
    struct Terminal {
        parser: vt100::Parser,
        screen: Screen,
        view: View,
        columns: u16,
        rows: u16,
        now: Instant,
    }

    impl Terminal {
        fn new(columns: u16, rows: u16) -> Self {
            let parser = vt100::Parser::new(nonzero(rows), nonzero(columns), 100);
            Self {
                parser,
                screen: Screen::default(),
                view: View::default(),
                columns,
                rows,
                now: Instant::now(),
            }
        }

        fn resize(&mut self, columns: u16) {
            self.columns = columns;
            self.parser.screen_mut().set_size(nonzero(self.rows), nonzero(columns));
        }

        fn show(&mut self, events: &[Event<'_>]) {
            let mut above = String::new();
            for event in events {
                self.now += Duration::from_secs(2);
                above.extend(self.view.take(event, self.now).map(|text| text + "\n"));
            }
            let frame = self.view.frame(self.columns.into(), self.rows.into(), self.now);
            let widest = frame.iter().map(|line| line.width()).max().unwrap_or(0);
            assert!(widest < self.columns.into() && frame.len() < self.rows.into());
            let picture = self.screen.picture(&above, frame, self.columns.into());
            self.parser.process(picture.replace('\n', "\r\n").as_bytes());
        }

        fn seen(&self) -> String {
            let text = self.parser.screen().contents();
            text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
        }
    }

    fn nonzero(number: u16) -> NonZero<u16> {
        NonZero::new(number).unwrap()
    }

    fn started(step: usize, name: &str) -> BuildEvent {
        BuildEvent::Started { step, name: name.to_owned() }
    }

    fn output(step: usize, line: &str) -> BuildEvent {
        BuildEvent::Output { step, line: line.to_owned() }
    }

    fn layer(layer: &str, state: &str, done: Option<u64>, total: Option<u64>) -> LayerEvent {
        LayerEvent { layer: layer.to_owned(), state: state.to_owned(), done, total }
    }

    #[test]
    fn a_build_is_watched_on_terminals_of_every_width() {
        let build = Work::Build { steps: 4 };
        let events = [
            started(1, "[stage-1 1/4] FROM ipybox-base:0123456789ab"),
            BuildEvent::Finished { step: 1, cached: false, seconds: 0.04 },
            started(2, "[stage-1 2/4] RUN install the servers"),
            BuildEvent::Finished { step: 2, cached: true, seconds: 0.0 },
            BuildEvent::Sending { bytes: 163_000 },
            started(3, "[stage-1 3/4] RUN install the packages"),
            output(3, "Resolved 31 packages in 1.20s"),
            output(3, "Downloading numpy (15.9MiB), a name that is much longer than many terminals are wide"),
            output(
                3,
                "⚠️⚠️ two signs with a selector, ⚠️⚠️⚠️⚠️⚠️⚠️⚠️⚠️⚠️⚠️⚠️⚠️⚠️⚠️⚠️⚠️⚠️⚠️⚠️⚠️⚠️⚠️⚠️⚠️⚠️⚠️⚠️⚠️⚠️⚠️⚠️⚠️⚠️",
            ),
            output(3, "Prüfung 漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字"),
        ];
        for columns in [40, 80, 132] {
            let mut terminal = Terminal::new(columns, 12);
            terminal.show(&[Event::Began(&build)]);
            for event in &events {
                terminal.show(&[Event::Build(event)]);
            }
            insta::assert_snapshot!(format!("build_{columns}"), terminal.seen());
            terminal.show(&[Event::Ended { work: &build, after: Duration::from_secs(9) }]);
            assert!(!terminal.seen().contains("building"), "{}", terminal.seen());
        }
    }

    #[test]
    fn a_pull_is_watched_layer_by_layer() {
        let pull = Work::Pull("python:3.12-slim-bookworm".to_owned());
        let events = [
            layer("5c32499ab806", "Downloading", Some(12_300_000), Some(28_200_000)),
            layer("0a1b2c3d4e5f", "Downloading", Some(1_000), Some(3_500_000)),
            layer("ffeeddccbbaa", "Waiting", None, None),
            layer("0a1b2c3d4e5f", "Pull complete", None, None),
            layer("5c32499ab806", "Extracting", Some(28_000_000), Some(28_200_000)),
        ];
        let mut terminal = Terminal::new(60, 12);
        terminal.show(&[Event::Began(&pull)]);
        for event in &events {
            terminal.show(&[Event::Layer(event)]);
        }
        insta::assert_snapshot!("pull", terminal.seen());
        terminal.show(&[Event::Ended { work: &pull, after: Duration::from_millis(3210) }]);
        assert_eq!(terminal.seen(), "pulled  python:3.12-slim-bookworm  3.2 s");
    }

    #[test]
    fn a_push_is_watched_blob_by_blob() {
        let push = Work::Push("registry.invalid/team/app".to_owned());
        let digests = ["5c32", "0a1b", "ffee"].map(|digits| format!("sha256:{}", digits.repeat(16)));
        let pushed = |digest: usize, done, arrival| {
            Event::Pushed(Pushed { digest: &digests[digest], done, size: 28_200_000, arrival })
        };
        let mut terminal = Terminal::new(60, 12);
        terminal.show(&[Event::Began(&push)]);
        terminal.show(&[pushed(0, 28_200_000, Some(Arrival::Mounted)), pushed(1, 0, None)]);
        terminal.show(&[pushed(2, 12_300_000, None), pushed(1, 4_200_000, None)]);
        insta::assert_snapshot!("push", terminal.seen());
        terminal.show(&[pushed(1, 28_200_000, Some(Arrival::Sent))]);
        assert!(terminal.seen().contains("2 of 3 layers"), "{}", terminal.seen());
        terminal.show(&[Event::Ended { work: &push, after: Duration::from_millis(3210) }]);
        assert_eq!(terminal.seen(), "pushed  registry.invalid/team/app  3.2 s");
    }

    #[test]
    fn of_an_image_that_failed_nothing_is_drawn_and_its_output_stays() {
        let (mut state, renderer) = (State::default(), Renderer::plain());
        let mut tell = |image, event: Event<'_>| state.take(Some(image), &event, &renderer);
        let check = Finding { name: "it runs".to_owned(), verdict: Verdict::Passed, seconds: 0.1 };
        tell("other", Event::Began(&Work::Verify));
        tell("other", Event::Checked(&check));
        tell("a", Event::Began(&Work::Build { steps: 2 }));
        tell("a", Event::Build(&output(1, "no such package")));
        let failed = Failed {
            documents: Documents::default(),
            diagnostics: vec![Diagnostic::new("it failed")],
            output: vec!["no such package".to_owned()],
        };
        tell("a", Event::Failed(&failed));
        tell("other", Event::Failed(&Failed { output: vec!["it runs".to_owned()], ..failed }));
        tell("b", Event::Began(&Work::Resolve));
        assert_eq!(state.views.keys().collect::<Vec<_>>(), ["b"]);
        assert_eq!(state.above.matches("no such package").count(), 1, "{}", state.above);
        assert_eq!(state.above.matches("it runs").count(), 1, "{}", state.above);
    }

    #[test]
    fn a_picture_of_another_width_leaves_nothing_of_the_last() {
        let build = Work::Build { steps: 2 };
        let mut terminal = Terminal::new(100, 12);
        terminal.show(&[Event::Began(&build), Event::Build(&started(1, &"x".repeat(90)))]);
        terminal.show(&[Event::Build(&output(1, &"y".repeat(90)))]);
        terminal.resize(120);
        terminal.show(&[Event::Build(&output(1, "short"))]);
        terminal.show(&[Event::Build(&BuildEvent::Finished { step: 1, cached: false, seconds: 1.0 })]);
        let seen = terminal.seen();
        assert_eq!(seen.matches("building the image").count(), 1, "{seen}");
        assert!(!seen.contains('y'), "{seen}");
        // Where a terminal becomes narrower it breaks lines, each of which counts for its rows.
        let mut screen = Screen { frame: vec!["a".repeat(99), "b".repeat(30)] };
        assert!(screen.picture("", vec!["c".to_owned()], 40).starts_with("\r\x1b[4A"));
        assert_eq!(screen.picture("", vec!["c".to_owned()], 40), "");
    }

    #[test]
    fn several_images_share_the_screen() {
        let now = Instant::now();
        let mut views: BTreeMap<String, View> = BTreeMap::new();
        let started = BuildEvent::Started { step: 1, name: "[1/2] RUN install".to_owned() };
        for image in ["a", "b", "c"] {
            let view = views.entry(image.to_owned()).or_default();
            view.take(&Event::Began(&Work::Build { steps: 2 }), now);
            view.take(&Event::Build(&started), now);
        }
        views.get_mut("c").unwrap().take(&Event::Ended { work: &Work::Resolve, after: FRAME }, now);
        let lines = frame(&views, 40, 12, now);
        let begins: Vec<_> = lines.iter().map(|line| line.split_at(11).0).collect();
        assert_eq!(begins, ["a | run    ", "a | buildin", "b | run    ", "b | buildin"]);
        assert!(lines.iter().all(|line| line.width() < 40), "{lines:?}");
        assert_eq!(frame(&views, 40, 2, now).len(), 1);
    }

    #[test]
    fn a_low_terminal_shows_what_it_has_room_for() {
        let mut terminal = Terminal::new(40, 5);
        terminal.show(&[Event::Began(&Work::Build { steps: 9 })]);
        for step in 1..9 {
            terminal.show(&[Event::Build(&started(step, "a step")), Event::Build(&output(step, "a line"))]);
        }
        let seen = terminal.seen();
        assert!(seen.contains("building the image"), "{seen}");
    }
}
