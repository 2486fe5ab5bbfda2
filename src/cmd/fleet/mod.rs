//! `ipybox build` for the images of `ipybox.toml`.
//!
//! One engine, one runtime and one report serve all of them: an image that is up to date takes one question to the engine,
//! and nothing of a process of its own. What each says is told with its name in front, and a secret of one is hidden by its
//! own report.

mod requests;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

pub(super) use requests::{orders, platform};

use super::build::{show, time};
use super::image::Means;
use super::order::{Built, Together};
use super::sharing::Sharing;
use super::{Caller, Failure, FailureKind, lock};
use crate::archive::hexadecimal;
use crate::base::Platform;
use crate::cli::{BuildArgs, Environment};
use crate::diagnostic::{Diagnostic, Document, Documents};
use crate::fleet::{FILE, Fleet, MAX_BYTES, Names, Placeholder, Values};
use crate::inputs::checkout;
use crate::reference::{Reference, ReferenceError};
use crate::report::{self, Failed, Report};

/// Who asks for images of a fleet: nobody in particular, so that they are the same whoever builds them.
const IDS: (u32, u32) = (1000, 1000);

/// Digits of a lock's digest that is shortened.
const SHORT: usize = 12;

/// Whether images of a fleet are meant, and not one that is described by options.
#[must_use]
pub fn is_meant(args: &BuildArgs) -> bool {
    !args.names.is_empty() || args.file.is_some() || args.of_one.is_empty() && Path::new(FILE).is_file()
}

/// The file of the fleet that is meant; `None` where one image is.
pub(super) fn file(args: &BuildArgs, report: &Report) -> Result<Option<PathBuf>, Failure> {
    if !is_meant(args) {
        // Nobody sees by the command that a variable decides this.
        let of_environment = args.of_one.iter().all(|option| option.starts_with("IPYBOX_"));
        if let (Some(variable), true, true) = (args.of_one.first(), of_environment, Path::new(FILE).is_file())
        {
            report.note(&format!(
                "`{variable}` describes one image, which is built in place of those of `{FILE}`"
            ));
        }
        return Ok(None);
    }
    if let [option, ..] = args.of_one.as_slice() {
        let what = Diagnostic::new(format!(
            "`{option}` describes one image, and a fleet says that of each by itself"
        ));
        let advice = format!("write it into `{FILE}`, or leave out NAME and `--file`");
        return Err(Failure::usage(what.advice(advice)));
    }
    match &args.file {
        Some(file) => Ok(Some(file.clone())),
        None if Path::new(FILE).is_file() => Ok(Some(FILE.into())),
        None => {
            let name = args.names[0].escape_debug();
            let what =
                Diagnostic::new(format!("there is no `{FILE}` here that could have an image `{name}`"));
            let advice =
                format!("`ipybox init` writes one; to build one image, name it: `ipybox build -t {name}`");
            Err(Failure::usage(what.advice(advice)))
        }
    }
}

/// A fleet, the images of it that are chosen, and what they are called.
pub(super) struct Opened {
    pub(super) fleet: Fleet,
    /// Places among its images, in their order.
    pub(super) chosen: Vec<usize>,
    /// What these are called, in the same order.
    pub(super) names: Vec<Names>,
    /// The file.
    documents: Documents,
}

impl Opened {
    /// Reads a file, for a platform where one is asked for: tags may tell of locks, and each platform has its own. Nothing is
    /// contacted.
    ///
    /// # Errors
    ///
    /// All mistakes of the file; else all names that it does not have; else what is wrong with its tags today.
    pub(super) async fn read(
        file: &Path,
        names: &[String],
        asked: Option<&Platform>,
        caller: &Caller,
    ) -> Result<Self, Failure> {
        let document = Document::read(file, MAX_BYTES).map_err(|error| {
            let what = Diagnostic::new(format!("cannot read `{}`", file.display())).why(error.to_string());
            Failure::refused(
                what.advice("name the file of a fleet with `--file`; `ipybox init` writes a first one"),
            )
        })?;
        let (text, folder) = (document.text.clone(), document.folder().to_owned());
        let documents = Documents::from(document);
        let refused = |mistakes| Failure::in_documents(documents.clone(), mistakes);
        let fleet = Fleet::parse(&text, &folder).map_err(refused)?;
        let chosen = fleet.select(names).map_err(|mistakes| Failure {
            kind: FailureKind::Usage,
            ..Failure::in_documents(Documents::default(), mistakes)
        })?;
        let values = values((&fleet, &chosen), asked, &folder, &caller.environment).await?;
        let names = fleet.names(&chosen, &values).map_err(refused)?;
        Ok(Self { fleet, chosen, names, documents })
    }

    pub(super) fn names_of(&self, index: usize) -> &Names {
        let place = self.chosen.binary_search(&index).expect("what is built on is chosen, too");
        &self.names[place]
    }

    /// Chooses of these some trees of images, counted from 0, and all that is built on the one that each begins with.
    pub(super) fn keep(&mut self, is_meant: impl Fn(usize) -> bool) {
        let root = |mut index: usize| {
            while let Some(parent) = self.fleet.images[index].from {
                index = parent;
            }
            index
        };
        let roots: Vec<usize> = self.chosen.iter().map(|index| root(*index)).collect();
        let own = roots.iter().collect::<BTreeSet<_>>().into_iter().enumerate();
        let own: BTreeSet<usize> = own.filter(|(tree, _)| is_meant(*tree)).map(|(_, root)| *root).collect();
        let mut is_own = roots.iter().map(|root| own.contains(root));
        let mut of_names = roots.iter().map(|root| own.contains(root));
        self.chosen.retain(|_| is_own.next().unwrap_or_default());
        self.names.retain(|_| of_names.next().unwrap_or_default());
    }

    /// The same with those images alone that are meant, and what they are built on.
    pub(super) fn only(&self, is_meant: impl Fn(&usize) -> bool) -> Self {
        let mut own: BTreeSet<usize> = self.chosen.iter().copied().filter(|index| is_meant(index)).collect();
        for index in self.chosen.iter().rev() {
            if own.contains(index) {
                own.extend(self.fleet.images[*index].from);
            }
        }
        let both = self.chosen.iter().zip(&self.names).filter(|(index, _)| own.contains(index));
        let (chosen, names) = both.map(|(index, names)| (*index, names.clone())).unzip();
        Self { fleet: self.fleet.clone(), chosen, names, documents: self.documents.clone() }
    }

    /// Lets images go to a place in a registry, in place of what their repositories say.
    ///
    /// # Errors
    ///
    /// For all images that go nowhere.
    pub(super) fn publish_to(&mut self, place: Option<&str>) -> Result<(), Failure> {
        let mut mistakes = Vec::new();
        for (index, names) in self.chosen.iter().zip(&mut self.names) {
            if let Some(place) = place {
                let named = names.local.iter().map(|name| format!("{place}/{}", name.in_full()).parse());
                match named.collect() {
                    Ok(published) => names.published = published,
                    Err(error) => {
                        let error: ReferenceError = error;
                        let what =
                            format!("`{}` cannot be published in `{place}`", self.fleet.images[*index].id);
                        mistakes.push(Diagnostic::new(what).why(error.to_string()));
                    }
                }
            }
            if names.published.is_empty() && mistakes.is_empty() {
                let what = format!("it is not said where `{}` is published", self.fleet.images[*index].id);
                mistakes.push(Diagnostic::new(what).advice(format!(
                    "write `repository = \"registry.example/team\"` below `[fleet]` in `{FILE}`, or name it with `--registry`"
                )));
            }
        }
        if mistakes.is_empty() {
            return Ok(());
        }
        Err(Failure { kind: FailureKind::Usage, ..Failure::in_documents(Documents::default(), mistakes) })
    }

    /// The image that another is built on, as the engine has it.
    fn parent(&self, index: usize) -> Option<(usize, &Reference)> {
        let parent = self.fleet.images[index].from?;
        Some((parent, &self.names_of(parent).local[0]))
    }
}

/// What placeholders of chosen images stand for, as far as they are used.
async fn values(
    (fleet, chosen): (&Fleet, &[usize]),
    asked: Option<&Platform>,
    folder: &Path,
    environment: &Environment,
) -> Result<Values, Failure> {
    let used = fleet.placeholders(chosen);
    let mut values = Values::default();
    if used.contains(&Placeholder::Version) && fleet.version.is_none() {
        values.version = checkout::version(folder).await;
    }
    if used.contains(&Placeholder::Git) {
        values.git = checkout::commit(folder).await;
    }
    if used.contains(&Placeholder::Date) {
        values.date = date(time(environment)?);
    }
    if used.contains(&Placeholder::Lock) {
        for index in chosen {
            let image = &fleet.images[*index];
            let file = lock::place(&image.request(None, platform(image, asked)));
            if let Some(text) = file.and_then(|file| fs::read(file).ok()) {
                let digest = hexadecimal(&Sha256::digest(text));
                values.locks.insert(image.id.clone(), digest[..SHORT].to_owned());
            }
        }
    }
    Ok(values)
}

/// The day of a time in seconds since 1970, else today, in UTC.
fn date(epoch: Option<u64>) -> Option<String> {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs());
    let seconds = epoch.or_else(now)?;
    let time = time::OffsetDateTime::from_unix_timestamp(i64::try_from(seconds).ok()?).ok()?;
    Some(format!("{:04}-{:02}-{:02}", time.year(), u8::from(time.month()), time.day()))
}

/// What came of an image.
pub(super) enum Outcome {
    /// The engine has it; a check that finds nothing to do does not tell its id.
    There(Option<Built>),
    /// It cannot be built, or a check found something to do; whoever asks has been told.
    Failed(FailureKind),
    /// The image it is built on is not there, by its place.
    NotBegun(Option<usize>),
}

pub(super) async fn run(args: BuildArgs, file: &Path, caller: &mut Caller) -> Result<(), Failure> {
    let begun = Instant::now();
    show(args.progress, caller)?;
    let opened = Opened::read(file, &args.names, args.image.platform.as_ref(), caller).await?;
    if args.dry_run {
        return dry_run(&opened, args, caller).await;
    }
    let (is_check, names) = (args.check, &opened.fleet.images);
    let outcomes = build(&opened, args, caller).await?;
    if caller.interrupt.is_cancelled() {
        return Err(Failure::interrupted());
    }
    let ids = outcomes.iter().filter_map(|(index, outcome)| match outcome {
        Outcome::There(Some(built)) => Some(format!("{} {}\n", names[*index].id, built.image)),
        _ => None,
    });
    let ids: String = ids.collect();
    if !ids.is_empty() {
        let written = caller.report.result(|out| out.write_all(ids.as_bytes()));
        written.map_err(|error| Failure::unwritable("stdout", &error))?;
    }
    if !is_check {
        let after = report::duration(begun.elapsed());
        caller.report.note(&format!("{} in {after}", counts(&outcomes)));
    }
    match failure(&opened, &outcomes) {
        Some(failure) => Err(failure),
        None => Ok(()),
    }
}

/// Builds what is not up to date of the chosen images, each after the one it is built on, others side by side.
///
/// # Errors
///
/// What is wrong before any of them is begun: with all that their lists and other files say. What happens to each by itself
/// is told, and an [`Outcome`].
pub(super) async fn build(
    opened: &Opened,
    mut args: BuildArgs,
    caller: &mut Caller,
) -> Result<BTreeMap<usize, Outcome>, Failure> {
    let stop = caller.interrupt.child_token();
    let means = Means::of(&args.image, caller)?.shared();
    let names = opened.names.iter().flat_map(|names| names.local.iter().chain(&names.published));
    let sharing = Sharing::of(&args, names, caller)?;
    let mut orders = orders(opened, &mut args, &means, &stop, caller).await?;
    let engine = means.engine(&child(caller, None, &stop)).await?;
    let together = Together::new(engine, sharing, usize::from(args.jobs.get()));
    let mut outcomes: BTreeMap<usize, Outcome> = BTreeMap::new();
    let mut running = FuturesUnordered::new();
    loop {
        for index in opened.chosen.iter().copied() {
            let parent = opened.fleet.images[index].from;
            let is_ready = |parent: usize| outcomes.contains_key(&parent);
            if !orders.contains_key(&index) || !parent.is_none_or(is_ready) {
                continue;
            }
            let (order, mut own) = orders.remove(&index).expect("it is there");
            match parent.map(|parent| (parent, &outcomes[&parent])) {
                _ if stop.is_cancelled() => {
                    outcomes.insert(index, Outcome::NotBegun(None));
                }
                Some((parent, Outcome::Failed(_) | Outcome::NotBegun(_))) => {
                    outcomes.insert(index, Outcome::NotBegun(Some(parent)));
                }
                _ => {
                    let together = &together;
                    running
                        .push(async move { (index, Box::pin(order.built(together, &mut own)).await, own) });
                }
            }
        }
        let Some((index, built, own)) = running.next().await else { break };
        let outcome = match built {
            Ok(built) => Outcome::There(built),
            Err(failure) => {
                // A check that finds something to do has not failed.
                if args.fail_fast && failure.kind != FailureKind::ToDo {
                    stop.cancel();
                }
                told(failure, &own)
            }
        };
        outcomes.insert(index, outcome);
    }
    means.sweep(&together.engine).await;
    // What an image that failed is made of would be missing.
    if let Some(sharing) = &together.sharing
        && outcomes.values().all(|outcome| matches!(outcome, Outcome::There(_)))
    {
        sharing.give(&caller.report, &caller.interrupt).await;
    }
    Ok(outcomes)
}

/// Tells why an image is not there.
fn told(Failure { kind, documents, diagnostics, output }: Failure, own: &Caller) -> Outcome {
    match kind {
        FailureKind::Interrupted => own.report.note("stopped"),
        // What there is to do has been told.
        FailureKind::ToDo => {}
        _ => own.report.mistakes(Failed { documents, diagnostics, output }),
    }
    Outcome::Failed(kind)
}

/// Whom the work on one image is for, or on none of them.
fn child(caller: &Caller, image: Option<&str>, stop: &CancellationToken) -> Caller {
    let image = image.unwrap_or("fleet");
    Caller {
        environment: Environment { ids: IDS, ..caller.environment.clone() },
        report: caller.report.of_image(image),
        interrupt: stop.clone(),
    }
}

/// Says what building the chosen images would do.
async fn dry_run(opened: &Opened, mut args: BuildArgs, caller: &mut Caller) -> Result<(), Failure> {
    let stop = caller.interrupt.child_token();
    let means = Means::of(&args.image, caller)?;
    let orders = orders(opened, &mut args, &means, &stop, caller).await?;
    let engine = means.engine(caller).await?;
    for (index, (order, own)) in &orders {
        let id = &opened.fleet.images[*index].id;
        let parent = opened.parent(*index);
        let lacking = match parent {
            Some((_, name)) => engine.image(&name.to_string()).await?.is_none(),
            None => false,
        };
        let line = match parent {
            Some((parent, _)) if lacking => {
                format!("{id}:\nbuild on {}, once that is there\n", opened.fleet.images[parent].id)
            }
            _ => format!("{id}:\n"),
        };
        let written = own.report.result(|out| out.write_all(line.as_bytes()));
        written.map_err(|error| Failure::unwritable("stdout", &error))?;
        if !lacking {
            order.dry_run(&engine, own).await?;
        }
    }
    Ok(())
}

/// How many came to what.
fn counts(outcomes: &BTreeMap<usize, Outcome>) -> String {
    let count = |is_it: fn(&Outcome) -> bool| outcomes.values().filter(|outcome| is_it(outcome)).count();
    let parts = [
        ("built", count(|outcome| matches!(outcome, Outcome::There(Some(Built { was_there: false, .. }))))),
        (
            "up to date",
            count(|outcome| matches!(outcome, Outcome::There(Some(Built { was_there: true, .. })))),
        ),
        ("failed", count(|outcome| matches!(outcome, Outcome::Failed(_)))),
        ("not begun", count(|outcome| matches!(outcome, Outcome::NotBegun(_)))),
    ];
    let parts = parts.into_iter().filter(|(_, count)| *count > 0);
    parts.map(|(what, count)| format!("{count} {what}")).collect::<Vec<_>>().join(", ")
}

/// The kind of failure that says most; what was stopped was so for another's sake.
fn gravest(outcomes: &BTreeMap<usize, Outcome>) -> Option<FailureKind> {
    let order = [
        FailureKind::Fault,
        FailureKind::Usage,
        FailureKind::Refused,
        FailureKind::Unassembled,
        FailureKind::Unreachable,
        FailureKind::ToDo,
        FailureKind::Interrupted,
    ];
    let has = |kind| outcomes.values().any(|outcome| matches!(outcome, Outcome::Failed(of) if *of == kind));
    order.into_iter().find(|kind| has(*kind))
}

/// Why not all of them are there.
pub(super) fn failure(opened: &Opened, outcomes: &BTreeMap<usize, Outcome>) -> Option<Failure> {
    let id = |index: &usize| opened.fleet.images[*index].id.as_str();
    let kind = gravest(outcomes)?;
    let lines = outcomes.iter().filter_map(|(index, outcome)| match outcome {
        Outcome::There(_) => None,
        Outcome::Failed(FailureKind::ToDo) => Some(format!("`{}` is not up to date", id(index))),
        Outcome::Failed(FailureKind::Interrupted) => Some(format!("`{}` was stopped", id(index))),
        Outcome::Failed(_) => Some(format!("`{}` failed", id(index))),
        Outcome::NotBegun(Some(parent)) => Some(format!("`{}` is built on `{}`", id(index), id(parent))),
        Outcome::NotBegun(None) => Some(format!("`{}` was not begun", id(index))),
    });
    let lines: BTreeSet<String> = lines.collect();
    let why = lines.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    let diagnostic = match kind {
        FailureKind::ToDo => {
            Diagnostic::new("there is something to build").why(why).advice("run the same without `--check`")
        }
        _ => {
            let (lacking, all) = (lines.len(), opened.chosen.len());
            let what =
                format!("{lacking} of {all} images {} not there", if lacking == 1 { "is" } else { "are" });
            Diagnostic::new(what).why(why).advice("mend what is told of each above, and run the same again")
        }
    };
    Some(Failure { kind, ..Failure::refused(diagnostic) })
}
