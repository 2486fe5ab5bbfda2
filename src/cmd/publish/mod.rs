//! `ipybox publish`: the images of a fleet to their registries, and their tags all at once.
//!
//! ```text
//! build ─▶ what is asked of each tag ─▶ verify and push by digest, where no tag names it ─▶ journal ─▶ tags ─▶ record
//! ```

mod ready;
mod shards;
mod tags;
mod written;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use futures_util::{StreamExt, TryStreamExt, stream};

use super::build::show;
use super::fleet::{self, Opened, Outcome};
use super::image::Means;
use super::order::Built;
use super::push::failed;
use super::registries::Registries;
use super::{Caller, Failure, verify};
use crate::attest::{self, Attestation, Inputs, Published, Signer, SignerError};
use crate::cli::{BuildArgs, PublishArgs};
use crate::deps::in_backticks;
use crate::diagnostic::Diagnostic;
use crate::engine::{Engine, Image};
use crate::fleet::FILE;
use crate::freshness::Stamp;
use crate::inputs::trust;
use crate::inside::Inside;
use crate::oci::image::labels;
use crate::oci::store::Store;
use crate::publish::{About, Journal, JournalError, Move, Part, Record, Recorded, TagMoved};
use crate::reference::Reference;
use crate::registry::{self, Descriptor, Referrer};
use crate::report;
use ready::{Ready, Target};

/// Requests to registries that are under way at once.
const AT_ONCE: usize = 16;

pub(super) async fn run(mut args: PublishArgs, caller: &mut Caller) -> Result<(), Failure> {
    let begun = Instant::now();
    show(args.build.progress, caller)?;
    let file = args.build.file.take().unwrap_or_else(|| FILE.into());
    if let [option, ..] = args.build.of_one.as_slice() {
        let what = Diagnostic::new(format!("`{option}` means nothing to a fleet that is published"));
        return Err(Failure::usage(what.advice(format!("leave it out; `{FILE}` describes the images"))));
    }
    let mut opened =
        Opened::read(&file, &args.build.names, args.build.image.platform.as_ref(), caller).await?;
    if let Some(shard) = args.shard {
        opened.keep(|tree| shard.has(tree));
    }
    opened.publish_to(args.registry.as_deref())?;
    if args.print_matrix {
        let matrix = opened.fleet.matrix(&opened.chosen, &opened.names);
        let written = caller.report.result(|out| writeln!(out, "{matrix}"));
        return written.map_err(|error| Failure::unwritable("stdout", &error));
    }
    let cache = caller.cache(args.build.image.means.cache_dir.clone())?;
    let mut journal = Journal::open(&cache, &file).map_err(unjournaled)?;
    let environment = &caller.environment;
    let certificates =
        trust::bundle(environment.ssl_cert_file.as_deref(), args.build.steps.ca_cert.as_deref())?;
    let published = opened.names.iter().flat_map(|names| &names.published);
    let names = published.chain(journal.moves.iter().map(|one| &one.name));
    let registries = Registries::of(names, certificates.as_deref(), caller).await?;
    if args.build.dry_run {
        return dry_run(&opened, args, &registries, caller).await;
    }
    tags::finish(&mut journal, &registries, args.build.force, caller).await?;
    let recorded = if args.merge {
        shards::merge(&opened, &file, &registries, caller).await?
    } else {
        let built = built(&opened, &args, caller).await?;
        let publisher = Publisher { args: &args, file: &file, opened: &opened, registries: &registries };
        Box::pin(publisher.publish(built, &cache, caller)).await?
    };
    let moves = moves(&recorded);
    tags::move_all(&mut journal, moves, &registries, args.build.force, caller).await?;
    let record = Record::new(recorded);
    written::write(&args, &record, caller)?;
    let moved: usize = record.images.iter().map(|image| moved(image).count()).sum();
    let sent: u64 = record.images.iter().flat_map(|image| &image.platforms).map(|part| part.sent).sum();
    caller.report.note(&format!(
        "{} published in {}: {} sent, {}",
        counted(record.images.len(), "image"),
        report::duration(begun.elapsed()),
        report::size(sent),
        if moved == 0 { "no tag moved".to_owned() } else { format!("{} moved", counted(moved, "tag")) },
    ));
    Ok(())
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

#[expect(clippy::needless_pass_by_value, reason = "errors are mapped with it")]
fn unjournaled(error: JournalError) -> Failure {
    let advice = match &error {
        JournalError::Busy => "wait until it is over".to_owned(),
        JournalError::Nonsense(file) => {
            format!(
                "remove it, and look at the tags: a run that was killed may have moved some of them: {}",
                file.display()
            )
        }
        JournalError::Io(..) => "another folder can be named with `--cache-dir`".to_owned(),
    };
    let what = Diagnostic::new("nothing can be published").why(error.to_string());
    Failure::refused(what.advice(advice))
}

/// The tags of an image that name something else now.
fn moved(image: &Recorded) -> impl Iterator<Item = &TagMoved> {
    image.tags.iter().filter(|tag| tag.is_moved(&image.digest))
}

/// Tags that are there before those that are new: what fails with them has made nothing that stays.
fn moves(recorded: &[Recorded]) -> Vec<Move> {
    let of_image = |image: &Recorded| {
        let moves = moved(image).map(|tag| Move {
            name: tag.name.clone(),
            before: tag.before.clone(),
            after: image.digest.clone(),
        });
        moves.collect::<Vec<_>>()
    };
    let mut moves: Vec<Move> = recorded.iter().flat_map(of_image).collect();
    moves.sort_by_key(|one| one.before.is_none());
    moves
}

/// The images that are published, all of them there.
async fn built(
    opened: &Opened,
    args: &PublishArgs,
    caller: &mut Caller,
) -> Result<BTreeMap<usize, Built>, Failure> {
    let build = BuildArgs { force: false, ..args.build.clone() };
    let outcomes = Box::pin(fleet::build(opened, build, caller)).await?;
    if caller.interrupt.is_cancelled() {
        return Err(Failure::interrupted());
    }
    if let Some(failure) = fleet::failure(opened, &outcomes) {
        let mut failure = failure;
        failure.diagnostics.iter_mut().for_each(|what| {
            *what = what.clone().why("nothing was pushed, and no tag has moved");
        });
        return Err(failure);
    }
    let there = |(index, outcome)| match outcome {
        Outcome::There(Some(built)) => Some((index, built)),
        _ => None,
    };
    Ok(outcomes.into_iter().filter_map(there).collect())
}

/// What images are brought to their registries with.
struct Publisher<'a> {
    args: &'a PublishArgs,
    file: &'a Path,
    opened: &'a Opened,
    registries: &'a Registries,
}

impl Publisher<'_> {
    /// Verifies and pushes what no tag names yet. Nothing has another tag than before when it returns.
    async fn publish(
        &self,
        built: BTreeMap<usize, Built>,
        cache: &Path,
        caller: &Caller,
    ) -> Result<Vec<Recorded>, Failure> {
        let means = Means::of(&self.args.build.image, caller)?;
        let engine = &means.engine(caller).await?;
        let store = &Store::in_cache(cache);
        let mut targets: Vec<Target> = Vec::new();
        for (index, names) in self.opened.chosen.iter().zip(&self.opened.names) {
            let (image, built) = (&self.opened.fleet.images[*index], &built[index]);
            let parent = image.from.and_then(|parent| targets.iter().find(|target| target.index == parent));
            let ready = Ready::of(engine, built, parent, store).await?;
            targets.push(Target::new(*index, image, names, ready, self.args.shard.is_some(), &caller.report));
        }
        let work = async {
            for target in &mut targets {
                target.known = self.known(target).await?;
            }
            let jobs = usize::from(self.args.build.jobs.get());
            let known = homes(&targets);
            stream::iter(&targets)
                .map(async |target| self.brought(target, &known, (engine, store), caller).await)
                .buffered(jobs)
                .try_collect()
                .await
        };
        caller.interrupt.run_until_cancelled(Box::pin(work)).await.ok_or_else(Failure::interrupted)?
    }

    /// What each tag names now.
    async fn known(&self, target: &Target<'_>) -> Result<Vec<Option<Descriptor>>, Failure> {
        if self.args.shard.is_some() {
            return Ok(Vec::new());
        }
        tags::named_now(&target.names.published, self.registries).await
    }

    /// An image in its registry, with what is said about it.
    async fn brought(
        &self,
        target: &Target<'_>,
        homes: &Homes,
        (engine, store): (&Engine, &Store),
        caller: &Caller,
    ) -> Result<Recorded, Failure> {
        let id = &self.opened.fleet.images[target.index].id;
        let report = caller.report.of_image(id);
        let first = &target.names.published[0];
        let repository = self.registries.repository(first)?;
        let mut part = target.part();
        let is_there = target.is_published();
        if !is_there {
            if !self.args.no_verify {
                let own = self.opened.fleet.images[target.index].request(None, None).variants;
                let passed =
                    verify::prove(engine, &target.ready.image, None, own.as_deref(), &report).await?;
                part.verified = Some(format!("by {}", counted(passed, "check")));
            }
            let mut blobs = super::push::blobs(&target.ready.whole, store);
            for blob in &mut blobs {
                blob.mount_from = homes.get(&(host(first), blob.digest.clone())).cloned();
            }
            let image = registry::Image { manifest: target.ready.manifest.clone(), blobs };
            let pushed = match &target.list {
                None => repository.push(&image, &[], |pushed| report.pushed(pushed)).await,
                Some(list) => {
                    repository.push_index(list, &[&image], &[], |pushed| report.pushed(pushed)).await
                }
            };
            let pushed = pushed.map_err(failed)?;
            part.sent = pushed.bytes;
            report.note(&format!(
                "{}: {}, {} sent in {}, {} there",
                first.canonical(),
                pushed.digest,
                report::size(pushed.bytes),
                counted(pushed.sent, "blob"),
                counted(pushed.there + pushed.mounted, "blob"),
            ));
        }
        if !is_there || self.args.manifest_dir.is_some() {
            let name = first.to_string();
            let found = engine.image(target.ready.image.as_str()).await?;
            if let Some(found) = found
                && let Ok(inside) = Inside::of(engine, &name, &found).await
            {
                if !is_there {
                    part.about = self.attested(target, (&found, &inside), caller).await?;
                }
                part.inside = Some(inside);
            }
        }
        if !is_there && let Some(Some(before)) = target.known.first() {
            self.compare(target, before, &mut part).await?;
        }
        if self.args.shard.is_some() {
            shards::leave(self.opened, self.file, target, self.registries).await?;
        }
        Ok(target.recorded(id, part))
    }

    /// Says in the registry what is known of an image, and has it signed where a signer is named.
    async fn attested(
        &self,
        target: &Target<'_>,
        (found, inside): (&Image, &Inside),
        caller: &Caller,
    ) -> Result<Vec<About>, Failure> {
        let repository = self.registries.repository(&target.names.published[0])?;
        let (place, subject) = (target.names.published[0].canonical(), target.ready.manifest.descriptor());
        let published = Published {
            repository: &place,
            manifest: &subject,
            platform: &target.ready.platform,
            created: found.created.as_deref(),
            base: target.ready.base.as_deref(),
        };
        let read = shards::read(&self.opened.fleet.images[target.index]);
        let inputs = Inputs { list: read.list.as_deref(), lock: read.lock.as_deref() };
        let mut said = Vec::new();
        if !self.args.unattested {
            let bill = attest::bill(&published, target.ready.plan, Some(inside));
            let provenance = attest::provenance(&published, target.ready.plan, inputs);
            said.push(Attestation::Bill.artifact(&subject, bill));
            said.push(Attestation::Provenance.artifact(&subject, provenance));
        }
        said.extend(signed(self.args, &subject, caller).await?);
        if let Some(list) = &target.list {
            said.extend(signed(self.args, &list.descriptor(), caller).await?);
        }
        let mut about = Vec::new();
        for artifact in said {
            let attached = repository.attach(&artifact, |_| {}).await.map_err(failed)?;
            let referrer = Referrer::of(&artifact.manifest);
            let artifact_type = referrer.map_or(String::new(), |(referrer, _)| referrer.artifact_type);
            about.push(About { artifact_type, digest: attached.digest });
        }
        Ok(about)
    }

    /// What an image has otherwise than the one that its first tag names.
    async fn compare(
        &self,
        target: &Target<'_>,
        before: &Descriptor,
        part: &mut Part,
    ) -> Result<(), Failure> {
        let repository = self.registries.repository(&target.names.published[0])?;
        let config = repository.config(&before.digest, &target.ready.platform).await.map_err(failed)?;
        let earlier = config.and_then(|config| Stamp::read(&labels(&config)));
        if let (Some(earlier), Some(now)) = (earlier, Stamp::read(&target.ready.whole.labels())) {
            part.changes = earlier.changes(&now);
        }
        Ok(())
    }
}

/// Repositories that have blobs, by registry and digest.
type Homes = BTreeMap<(String, String), String>;

fn host(name: &Reference) -> String {
    name.canonical().split_once('/').map_or(String::new(), |(host, _)| host.to_owned())
}

/// Where the blobs are of images that are published already: others mount them from there.
fn homes(targets: &[Target<'_>]) -> Homes {
    let of_target = |target: &Target<'_>| {
        let name = &target.names.published[0];
        let repository = name.canonical().split_once('/').map_or(String::new(), |(_, path)| path.to_owned());
        let layers = target.ready.whole.layers.iter();
        layers.map(|layer| ((host(name), layer.digest.clone()), repository.clone())).collect::<Vec<_>>()
    };
    targets.iter().filter(|target| target.is_published()).flat_map(of_target).collect()
}

/// The signature of a manifest or an index, where somebody is to sign.
async fn signed(
    args: &PublishArgs,
    subject: &Descriptor,
    caller: &Caller,
) -> Result<Option<registry::Image>, Failure> {
    let Some(program) = &args.signer else { return Ok(None) };
    let signer = Signer { args: args.signer_arg.clone(), ..Signer::new(program) };
    match signer.sign(subject, &caller.interrupt).await {
        Ok(signature) => Ok(Some(signature)),
        Err(SignerError::Interrupted) => Err(Failure::interrupted()),
        Err(error) => Err(Failure::refused(error.diagnostic())),
    }
}

/// Says what would be done. Registries are asked for nothing but what their tags name.
async fn dry_run(
    opened: &Opened,
    args: PublishArgs,
    registries: &Registries,
    caller: &mut Caller,
) -> Result<(), Failure> {
    let build = BuildArgs { check: true, dry_run: false, force: false, ..args.build };
    let outcomes = Box::pin(fleet::build(opened, build, caller)).await?;
    let mut text = String::new();
    for (index, names) in opened.chosen.iter().zip(&opened.names) {
        let image = &opened.fleet.images[*index];
        let state = match &outcomes[index] {
            Outcome::There(_) => "up to date".to_owned(),
            Outcome::Failed(super::FailureKind::ToDo) => "to be built".to_owned(),
            Outcome::Failed(_) => "cannot be built".to_owned(),
            Outcome::NotBegun(Some(parent)) => format!("to be built on {}", opened.fleet.images[*parent].id),
            Outcome::NotBegun(None) => "not looked at".to_owned(),
        };
        text += &format!("{}: {state}\n", image.id);
        let now = tags::named_now(&names.published, registries).await?;
        for (name, now) in names.published.iter().zip(now) {
            let now = now.map_or("is new".to_owned(), |now| format!("names {}", now.digest));
            text += &format!("  {name} {now}\n");
        }
    }
    let written = caller.report.result(|out| out.write_all(text.as_bytes()));
    written.map_err(|error| Failure::unwritable("stdout", &error))?;
    let real: Vec<&str> = outcomes
        .iter()
        .filter(|(_, outcome)| matches!(outcome, Outcome::Failed(kind) if *kind != super::FailureKind::ToDo))
        .map(|(index, _)| opened.fleet.images[*index].id.as_str())
        .collect();
    if real.is_empty() {
        return Ok(());
    }
    let what = Diagnostic::new(format!("{} cannot be built", in_backticks(real.into_iter())));
    Err(Failure::refused(what.why("as told above")))
}
