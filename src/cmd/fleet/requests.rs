//! What the images of a fleet are asked to be: each by the file, with what is wished for all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use tokio_util::sync::CancellationToken;

use super::{IDS, Opened, Outcome, child, gravest, told};
use crate::base::Platform;
use crate::cli::BuildArgs;
use crate::cmd::build::Gathered;
use crate::cmd::image::Means;
use crate::cmd::order::Order;
use crate::cmd::{Asked, Caller, Failure, FailureKind, lock};
use crate::diagnostic::Diagnostic;
use crate::fleet::{FILE, Image, Placeholder};
use crate::request::Request;

/// The platform that an image is made for; `None` leaves it to the engine.
pub(in crate::cmd) fn platform<'a>(image: &'a Image, asked: Option<&'a Platform>) -> Option<&'a Platform> {
    let here = Platform { os: "linux".to_owned(), ..Platform::here() };
    asked.or_else(|| image.platform(&here))
}

/// Everything that the chosen images are built from, before any is begun.
pub(in crate::cmd) async fn orders(
    opened: &Opened,
    args: &mut BuildArgs,
    means: &Means,
    stop: &CancellationToken,
    caller: &mut Caller,
) -> Result<BTreeMap<usize, (Order, Caller)>, Failure> {
    let gathered = Gathered::of(&args.steps, &mut args.image, caller)?;
    if let Some((name, _)) = args.image.build_arg.first() {
        let what = Diagnostic::new(format!("`--build-arg {name}` describes one image"));
        let advice =
            format!("write `args = {{ {name} = \"…\" }}` into `{FILE}`; proxies alone are for all images");
        return Err(Failure::usage(what.advice(advice)));
    }
    let mut wishes = Wishes::new(opened, args.image.clone().request(IDS));
    wishes.tell_unused(caller);
    let (mut orders, mut refused) = (BTreeMap::new(), BTreeMap::new());
    for (index, names) in opened.chosen.iter().copied().zip(&opened.names) {
        let own = child(caller, Some(&opened.fleet.images[index].id), stop);
        let args = BuildArgs { tag: names.local.clone(), output: Vec::new(), ..args.clone() };
        let ordered = async {
            let asked = Asked::of(wishes.request(index)?, means.clone(), &own).await?;
            Order::of(args, asked, gathered.clone(), &own)
        };
        match Box::pin(ordered).await {
            Ok(order) => drop(orders.insert(index, (order, own))),
            Err(failure) => drop(refused.insert(index, told(failure, &own))),
        }
    }
    if caller.interrupt.is_cancelled() {
        return Err(Failure::interrupted());
    }
    match gravest(&refused) {
        None => Ok(orders),
        Some(kind) => Err(none_begun(opened, &refused, kind)),
    }
}

/// Why no image is begun.
fn none_begun(opened: &Opened, refused: &BTreeMap<usize, Outcome>, kind: FailureKind) -> Failure {
    let as_it_is = if refused.len() == 1 { "as it is" } else { "as they are" };
    let (count, all) = (refused.len(), opened.chosen.len());
    let what = format!("{count} of {all} images cannot be built {as_it_is}, and none was begun");
    let ids = refused.keys().map(|index| format!("`{}` failed", opened.fleet.images[*index].id));
    let why = ids.collect::<Vec<_>>().join(", ");
    let advice = "mend what is told of each above, and run the same again";
    Failure { kind, ..Failure::refused(Diagnostic::new(what).why(why).advice(advice)) }
}

/// What is wished for all images, and what they have in common.
struct Wishes<'a> {
    opened: &'a Opened,
    all: Request,
    /// Locks that tags tell of.
    in_tags: BTreeSet<PathBuf>,
    /// Locks that are there, each with the first image that has it.
    locks: BTreeMap<PathBuf, (&'a Image, Request)>,
}

impl<'a> Wishes<'a> {
    fn new(opened: &'a Opened, all: Request) -> Self {
        let images = opened.chosen.iter().map(|index| &opened.fleet.images[*index]);
        let telling = images.filter(|image| image.tells(Placeholder::Lock));
        let place = |image: &Image| lock::place(&image.request(None, platform(image, all.platform.as_ref())));
        let in_tags = telling.filter_map(place).collect();
        Self { opened, all, in_tags, locks: BTreeMap::new() }
    }

    /// Warns of secrets that no image reads.
    fn tell_unused(&self, caller: &Caller) {
        let images = || self.opened.chosen.iter().map(|index| &self.opened.fleet.images[*index]);
        for id in self.all.secrets.keys().filter(|id| !images().any(|image| image.secrets.contains(*id))) {
            let advice = format!("name it in `secrets` of an image in `{FILE}`, or leave it out");
            caller.report.warning(&format!("no image that is chosen uses the secret `{id}`"), &advice);
        }
    }

    /// What an image is asked to be.
    fn request(&mut self, index: usize) -> Result<Request, Failure> {
        let opened = self.opened;
        let image = &opened.fleet.images[index];
        let platform = self.platform(image)?;
        let mut request = image.request(opened.parent(index).map(|(_, name)| name), platform);
        request.indexes.clone_from(&self.all.indexes);
        request.installer.clone_from(&self.all.installer);
        request.lock.is_demanded = self.all.lock.is_demanded;
        let known = self.all.secrets.iter().filter(|(id, _)| image.secrets.contains(*id));
        request.secrets = known.map(|(id, from)| (id.clone(), from.clone())).collect();
        if let Some(lock) = lock::place(&request) {
            request.lock.is_in_tag = self.in_tags.contains(&lock);
            if lock.exists() {
                let (other, first) = self.locks.entry(lock.clone()).or_insert((image, request.clone()));
                if let Some(differ) = differing(first, &request) {
                    let what =
                        format!("`{}` and `{}` have one lock, `{}`", other.id, image.id, lock.display());
                    let why = format!("{differ} differ, and a lock is for one of them");
                    let what = Diagnostic::new(what).at(image.at.clone()).why(why);
                    let mistake =
                        what.advice("give each a `lock` of its own, made with `ipybox lock --lock FILE`");
                    let also = [(other.at.clone(), "this is the other".to_owned())].into();
                    let mistakes = vec![Diagnostic { also, ..mistake }];
                    return Err(Failure::in_documents(opened.documents.clone(), mistakes));
                }
            }
        }
        Ok(request)
    }

    /// The platform of an image, which is that of the one it is built on.
    fn platform(&self, image: &'a Image) -> Result<Option<&Platform>, Failure> {
        let asked = self.all.platform.as_ref();
        if let Some(asked) =
            asked.filter(|asked| !image.platforms.is_empty() && !image.platforms.contains(asked))
        {
            let what = Diagnostic::new(format!("`{}` is not for {asked}", image.id));
            let advice = format!("add it to `platforms` in `{FILE}`, or leave it out");
            return Err(Failure::usage(what.advice(advice)));
        }
        let own = platform(image, asked);
        let parent = image.from.map(|parent| &self.opened.fleet.images[parent]);
        let of_parent = parent.and_then(|parent| Some((parent, platform(parent, asked)?)));
        match (own, of_parent) {
            (Some(own), Some((parent, other))) if own != other => {
                let what = format!("`{}` is for {own}, and `{}` would be for {other}", image.id, parent.id);
                let what = Diagnostic::new(what).at(image.at.clone());
                let what = what.why("an image runs on what the one below it runs on");
                let mistakes = vec![what.advice(format!("build both for one, with `--platform {own}`"))];
                Err(Failure::in_documents(self.opened.documents.clone(), mistakes))
            }
            _ => Ok(own),
        }
    }
}

/// What of two images differs that a lock is for.
fn differing(one: &Request, other: &Request) -> Option<&'static str> {
    let are_told = one.python.zip(other.python);
    let lists = one.dependencies != other.dependencies || one.selection != other.selection;
    let pythons = are_told.is_some_and(|(one, other)| one != other) || one.base_python != other.base_python;
    let parents = (one.base_is_local || other.base_is_local) && one.base != other.base;
    let kinds = [
        ("their variants", one.variant != other.variant),
        ("their lists", lists),
        ("their Pythons", pythons || one.python_archive != other.python_archive),
        ("their platforms", one.platform != other.platform),
        ("the images they are built on", parents),
    ];
    kinds.into_iter().find(|(_, differ)| *differ).map(|(what, _)| what)
}
