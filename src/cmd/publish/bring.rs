//! Images on their way: proved, pushed by their digests, and said something about.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use futures_util::{StreamExt, stream};

use super::super::fleet::{self, Opened};
use super::super::image::Means;
use super::super::order::Built;
use super::super::published::good_signature;
use super::super::push::{self, blobs, failed};
use super::super::registries::Registries;
use super::super::{Caller, Failure, output, verify};
use super::ready::{Ready, Target};
use super::shards::{Files, Releases};
use super::{counted, tags};
use crate::attest::{self, Attestation, Base, Inputs, Published, Signer, SignerError};
use crate::cli::PublishArgs;
use crate::diagnostic::Diagnostic;
use crate::engine::{Engine, Image};
use crate::freshness::{Change, Stamp};
use crate::inside::{Inside, InsideError};
use crate::oci::image::labels;
use crate::oci::store::Store;
use crate::publish::{About, Recorded};
use crate::registry::{self, Descriptor, Referrer, RegistryError, Repository};
use crate::report::{self, Report};

/// What images are brought to their registries with.
pub(super) struct Publisher<'a> {
    pub(super) args: &'a PublishArgs,
    pub(super) opened: &'a Opened,
    pub(super) releases: &'a Releases,
    pub(super) registries: &'a Registries,
}

impl Publisher<'_> {
    /// Verifies and pushes what no tag names yet. Nothing has another tag than before when it returns.
    pub(super) async fn publish(
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
            let unpacked = output::unpacked(engine, &built.image, store).await?;
            let elsewhere = push::elsewhere(unpacked, &names.published, self.registries, caller).await?;
            let ready = Ready::of(engine, built, parent, store, &elsewhere).await?;
            let is_shard = self.args.shard.is_some();
            targets.push(Target::new(*index, image, names, ready, is_shard, &caller.report));
        }
        let known: Vec<_> = stream::iter(&targets)
            .map(async |target| self.known(target, caller).await)
            .buffered(super::AT_ONCE)
            .collect()
            .await;
        for (target, known) in targets.iter_mut().zip(known) {
            target.known = known?;
        }
        let homes = homes(&targets);
        let jobs = usize::from(self.args.build.jobs.get());
        let coming = stream::iter(&targets)
            .map(async |target| self.brought(target, &homes, (engine, store), caller).await)
            .buffered(jobs);
        // Where one fails the others come to their end: nothing is left running, and nothing is sent again the next time.
        let brought: Vec<Result<Recorded, Failure>> = Box::pin(coming.collect()).await;
        brought.into_iter().collect()
    }

    /// What each tag names now; of a part of a fleet, what was left for the machine that merges.
    async fn known(&self, target: &Target<'_>, caller: &Caller) -> Result<Vec<Option<Descriptor>>, Failure> {
        let asking = async {
            if self.args.shard.is_none() {
                return tags::named_now(&target.names.published, self.registries).await;
            }
            let repository = self.registries.repository(&target.names.published[0])?;
            let left = repository.head(self.releases.tag(target.index)).await.map_err(failed)?;
            Ok(vec![left])
        };
        caller.interrupt.run_until_cancelled(asking).await.ok_or_else(Failure::interrupted)?
    }

    /// An image in its registry, with what is said about it.
    async fn brought(
        &self,
        target: &Target<'_>,
        homes: &Homes,
        (engine, store): (&Engine, &Store),
        caller: &Caller,
    ) -> Result<Recorded, Failure> {
        if caller.interrupt.is_cancelled() {
            return Err(Failure::interrupted());
        }
        let id = &self.opened.fleet.images[target.index].id;
        let report = caller.report.of_image(id);
        let first = &target.names.published[0];
        let repository = self.registries.repository(first)?;
        let mut part = target.part();
        let is_there = target.is_there();
        self.keeps_platforms(target, &repository).await?;
        if !is_there {
            if !self.args.no_verify {
                let own = self.opened.fleet.images[target.index].request(None, None).variants;
                let passed =
                    verify::prove(engine, &target.ready.image, None, own.as_deref(), &report).await?;
                part.verified = Some(format!("by {}", counted(passed, "check")));
            }
            let pushing = self.pushed(target, homes, store, &repository, &report);
            let pushed = caller.interrupt.run_until_cancelled(pushing).await;
            part.sent = pushed.ok_or_else(Failure::interrupted)??;
        }
        if !is_there || self.args.signer.is_some() || self.args.manifest_dir.is_some() {
            let found = engine.image(target.ready.image.as_str()).await?;
            let gone =
                || Failure::refused(Diagnostic::new(format!("the image of `{id}` is gone from the engine")));
            let found = found.ok_or_else(gone)?;
            part.inside = match Inside::of(engine, &first.to_string(), &found).await {
                Ok(inside) => Some(inside),
                Err(InsideError::Engine(error)) => return Err(error.into()),
                Err(error @ InsideError::Silent) => {
                    report.warning(&error.to_string(), "its bill has what its lock says");
                    None
                }
            };
            let packages = part.inside.iter().flat_map(|inside| &inside.packages);
            part.packages =
                packages.map(|(name, package)| (name.to_string(), package.version.clone())).collect();
            let attesting = self.attested(target, (&found, part.inside.as_ref()), is_there, caller);
            part.about = Box::pin(attesting).await?;
        }
        if !is_there && let Some(before) = target.known.iter().flatten().next() {
            match changes(target, before, &repository).await {
                Ok(changes) => part.changes = changes,
                // Nothing but the record depends on it.
                Err(error) => report.note(&format!("what was there before cannot be compared: {error}")),
            }
        }
        if self.args.shard.is_some() && !is_there {
            let leaving = repository.tag(self.releases.tag(target.index), &target.ready.manifest);
            leaving.await.map_err(failed)?;
        }
        Ok(target.recorded(id, part))
    }

    /// Pushes what a registry lacks of an image, and tells how many bytes that were.
    async fn pushed(
        &self,
        target: &Target<'_>,
        homes: &Homes,
        store: &Store,
        repository: &Repository<'_>,
        report: &Report,
    ) -> Result<u64, Failure> {
        let first = &target.names.published[0];
        let mut blobs = blobs(&target.ready.whole, store);
        for blob in &mut blobs {
            blob.mount_from = homes.get(&(first.host().to_owned(), blob.digest.clone())).cloned();
        }
        let image = registry::Image { manifest: target.ready.manifest.clone(), blobs };
        let tell = |pushed: registry::Pushed<'_>| report.pushed(pushed);
        let pushed = match &target.list {
            None => repository.push(&image, &[], tell).await,
            Some(list) => repository.push_index(list, &[&image], &[], tell).await,
        };
        let pushed = pushed.map_err(failed)?;
        let unmounted = match pushed.unmounted {
            0 => String::new(),
            count => format!(", {count} of them since the registry did not mount what it has"),
        };
        report.note(&format!(
            "{}: {}, {} sent in {}{unmounted}, {} there",
            first.canonical(),
            pushed.digest,
            report::size(pushed.bytes),
            counted(pushed.sent, "blob"),
            counted(pushed.there + pushed.mounted, "blob"),
        ));
        Ok(pushed.bytes)
    }

    /// Refuses to take platforms away from whoever uses the tags.
    async fn keeps_platforms(&self, target: &Target<'_>, repository: &Repository<'_>) -> Result<(), Failure> {
        if target.list.is_none() || self.args.build.force {
            return Ok(());
        }
        let known = target.known.iter().flatten().map(|known| known.digest.as_str());
        let others: BTreeSet<&str> = known.filter(|digest| *digest != target.digest()).collect();
        let mut lost: BTreeSet<String> = BTreeSet::new();
        for digest in others {
            let listed = repository.platforms(digest).await.map_err(failed)?;
            let gone = listed.iter().filter(|platform| **platform != target.ready.platform);
            lost.extend(gone.map(ToString::to_string));
        }
        if lost.is_empty() {
            return Ok(());
        }
        let id = &self.opened.fleet.images[target.index].id;
        let lost = lost.into_iter().collect::<Vec<_>>().join(" and ");
        let what = Diagnostic::new(format!("`{id}` would no longer be there for {lost}"));
        let why = format!("its tags have that, and this engine makes {} alone", target.ready.platform);
        Err(Failure::refused(what.why(why).advice(
            "publish with `--shard 1/1` on a machine for each and then with `--merge`, or take it out with `--force`",
        )))
    }

    /// Says in the registry what is known of an image, and has it signed where a signer is named.
    async fn attested(
        &self,
        target: &Target<'_>,
        (found, inside): (&Image, Option<&Inside>),
        is_there: bool,
        caller: &Caller,
    ) -> Result<Vec<About>, Failure> {
        let repository = self.registries.repository(&target.names.published[0])?;
        let (place, subject) = (target.names.published[0].canonical(), target.ready.manifest.descriptor());
        let published = Published {
            repository: &place,
            manifest: &subject,
            platform: &target.ready.platform,
            created: found.created.as_deref(),
            base: target.ready.base.as_ref().map(|(name, digest)| Base::known(name, digest)),
        };
        // Locks are up to date now.
        let wanted = &self.opened.fleet.images[target.index];
        let asked = self.args.build.image.platform.as_ref();
        let Files { list, lock } = Files::read(wanted, fleet::platform(wanted, asked));
        let inputs = Inputs { list: list.as_deref(), lock: lock.as_deref() };
        let mut said = Vec::new();
        if !self.args.unattested && !is_there {
            let bill = attest::bill(&published, target.ready.plan, inside);
            let provenance = attest::provenance(&published, target.ready.plan, inputs);
            said.push(Attestation::Bill.artifact(&subject, bill));
            said.push(Attestation::Provenance.artifact(&subject, provenance));
        }
        let mut about = Vec::new();
        for artifact in said {
            about.push(attach(&repository, &artifact, caller).await?);
        }
        about.extend(signed(self.args, &repository, &subject, caller).await?);
        if let Some(list) = &target.list {
            about.extend(signed(self.args, &repository, &list.descriptor(), caller).await?);
        }
        Ok(about)
    }
}

/// What an image has otherwise than the one that a tag names.
async fn changes(
    target: &Target<'_>,
    before: &Descriptor,
    repository: &Repository<'_>,
) -> Result<Vec<Change>, RegistryError> {
    let config = repository.config(&before.digest, &target.ready.platform).await?;
    let earlier = config.and_then(|config| Stamp::read(&labels(&config)));
    Ok(match (earlier, Stamp::read(&target.ready.whole.labels())) {
        (Some(earlier), Some(now)) => earlier.changes(&now),
        _ => Vec::new(),
    })
}

async fn attach(
    repository: &Repository<'_>,
    artifact: &registry::Image,
    caller: &Caller,
) -> Result<About, Failure> {
    let attaching = repository.attach(artifact, |_| {});
    let attached = caller.interrupt.run_until_cancelled(attaching).await.ok_or_else(Failure::interrupted)?;
    let digest = attached.map_err(failed)?.digest;
    let referrer = Referrer::of(&artifact.manifest);
    Ok(About {
        artifact_type: referrer.map_or(String::new(), |(referrer, _)| referrer.artifact_type),
        digest,
    })
}

/// Has a manifest or an index signed, where somebody is to sign and has not yet.
pub(super) async fn signed(
    args: &PublishArgs,
    repository: &Repository<'_>,
    subject: &Descriptor,
    caller: &Caller,
) -> Result<Option<About>, Failure> {
    let Some(program) = &args.signer else { return Ok(None) };
    let signer = Signer { args: args.signer_arg.clone(), ..Signer::new(program) };
    let known = good_signature(subject, &signer, repository, caller);
    let known = caller.interrupt.run_until_cancelled(known).await.ok_or_else(Failure::interrupted)??;
    if let Some(known) = known {
        return Ok(Some(About { artifact_type: known.artifact_type, digest: known.digest }));
    }
    match signer.sign(subject, &caller.interrupt).await {
        Ok(signature) => attach(repository, &signature, caller).await.map(Some),
        Err(SignerError::Interrupted) => Err(Failure::interrupted()),
        Err(error) => Err(Failure::refused(error.diagnostic())),
    }
}

/// Repositories that have blobs, by registry and digest.
type Homes = BTreeMap<(String, String), String>;

/// Where the blobs are of images that are published already: others mount them from there.
fn homes(targets: &[Target<'_>]) -> Homes {
    let of_target = |target: &Target<'_>| {
        let name = &target.names.published[0];
        let repository = name.canonical().split_once('/').map_or(String::new(), |(_, path)| path.to_owned());
        let layers = target.ready.whole.layers.iter();
        layers
            .map(|layer| ((name.host().to_owned(), layer.digest.clone()), repository.clone()))
            .collect::<Vec<_>>()
    };
    targets.iter().filter(|target| target.is_there()).flat_map(of_target).collect()
}
