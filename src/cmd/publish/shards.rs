//! A fleet that several machines publish together: the registry alone is what they have in common.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::super::fleet::{self, Opened};
use super::super::push::failed;
use super::super::registries::Registries;
use super::super::{Caller, Failure, lock};
use super::AT_ONCE;
use super::bring::signed;
use super::ready::index_of;
use super::tags::named_now;
use crate::archive::hexadecimal;
use crate::attest::{Attestation, Bill, SIGNED};
use crate::cli::{PublishArgs, variable_of_list};
use crate::diagnostic::{Diagnostic, Documents};
use crate::fleet::Image as Wanted;
use crate::inputs::hashes::KnownHashes;
use crate::inputs::{Inputs, InputsError, checkout};
use crate::platform::Platform;
use crate::publish::{About, Part, Recorded, TagMoved, staging_tag};
use crate::registry::{Descriptor, Manifest, Referrer, RegistryError, Repository};
use crate::report::Report;

/// The largest bill of materials that is read, in bytes.
const MOST_BILL: u64 = 16 << 20;

/// What an image's lists and its lock are.
pub(super) struct Files {
    /// SHA-256 over its lists, one behind the other, in hexadecimal digits.
    pub(super) list: Option<String>,
    /// The same over its lock.
    pub(super) lock: Option<String>,
}

impl Files {
    pub(super) fn read(wanted: &Wanted, platform: Option<&Platform>) -> Self {
        let request = wanted.request(None, platform);
        let lists: Vec<u8> =
            request.dependencies.iter().filter_map(|list| fs::read(list).ok()).flatten().collect();
        let lock = lock::place(&request).and_then(|lock| fs::read(lock).ok());
        let digest = |bytes: &[u8]| hexadecimal(&Sha256::digest(bytes));
        Self {
            list: (!request.dependencies.is_empty()).then(|| digest(&lists)),
            lock: lock.map(|lock| digest(&lock)),
        }
    }
}

/// What says which images are meant, as the files were before anything was built: the fleet's file, its commit, the images'
/// names, and all files that they are made of, with those of what they are built on, and the version of this program. Machines
/// that differ in any of these do not publish the same.
pub(super) struct Releases {
    common: Vec<u8>,
    /// SHA-256 over what images are made of beside their locks, where several machines publish them.
    contents: BTreeMap<usize, String>,
    /// The tags under which machines leave images of one platform for the one that merges.
    tags: BTreeMap<usize, String>,
}

impl Releases {
    /// Those of the platform that is asked for, else of what an engine here makes.
    pub(super) async fn of(
        opened: &Opened,
        file: &Path,
        args: &PublishArgs,
        cache: &Path,
        caller: &Caller,
    ) -> Result<Self, Failure> {
        let asked = args.build.image.platform.as_ref();
        let mut common = fs::read(file).unwrap_or_default();
        let folder = file.parent().unwrap_or(Path::new(""));
        let commit = checkout::commit(folder).await.unwrap_or_default();
        common.extend(format!("\0{commit}\0{}", env!("CARGO_PKG_VERSION")).into_bytes());
        let mut releases = Self { common, contents: BTreeMap::new(), tags: BTreeMap::new() };
        if args.merge || args.shard.is_some() {
            for index in &opened.chosen {
                let contents = contents(&opened.fleet.images[*index], args, cache);
                let contents = caller.interrupt.run_until_cancelled(contents).await;
                releases.contents.insert(*index, contents.ok_or_else(Failure::interrupted)??);
            }
        }
        for index in &opened.chosen {
            let wanted = &opened.fleet.images[*index];
            let tag = releases.tag_for(opened, *index, fleet::platform(wanted, asked));
            releases.tags.insert(*index, tag);
        }
        Ok(releases)
    }

    /// The tag under which an image is left for the machine that merges.
    pub(super) fn tag(&self, index: usize) -> &str {
        &self.tags[&index]
    }

    fn tag_for(&self, opened: &Opened, index: usize, platform: Option<&Platform>) -> String {
        let wanted = &opened.fleet.images[index];
        let mut text = self.common.clone();
        let mut next = Some(index);
        while let Some(index) = next {
            let wanted = &opened.fleet.images[index];
            let Files { list, lock } = Files::read(wanted, platform);
            // What placeholders stand for may be another on another day.
            let tags = wanted.tags.iter().map(ToString::to_string);
            let place = opened.names_of(index).published[0].canonical();
            let contents = self.contents.get(&index).cloned();
            for part in tags.chain([wanted.id.clone(), place]).chain(list).chain(lock).chain(contents) {
                text.push(0);
                text.extend(part.into_bytes());
            }
            next = wanted.from;
        }
        let of_tag = platform.filter(|_| !wanted.platforms.is_empty());
        staging_tag(&text, of_tag)
    }
}

/// SHA-256 over what an image is made of on this host, whatever commits say.
async fn contents(wanted: &Wanted, args: &PublishArgs, cache: &Path) -> Result<String, Failure> {
    let is_believed = !args.build.image.paranoid;
    let known = if is_believed { KnownHashes::in_cache(cache) } else { KnownHashes::none() };
    let inputs = Inputs::read(&wanted.request(None, None), &known, variable_of_list).await?;
    Ok(inputs.digest(&known).await.map_err(InputsError::from)?)
}

/// Refuses images that machines for several platforms would leave under one tag, the last of them for all.
pub(super) fn are_for_several(opened: &Opened, platform: &Platform) -> Result<(), Failure> {
    let images = opened.chosen.iter().map(|index| &opened.fleet.images[*index]);
    let refused = images.filter(|wanted| wanted.platforms.is_empty()).map(|wanted| {
        let what = Diagnostic::new(format!("`{}` is for no platform in particular", wanted.id));
        let why = format!("where several machines publish it, that for {platform} takes the place of all");
        what.why(why).advice("give it `platforms`, or leave `--platform` out")
    });
    match refused.collect::<Vec<_>>() {
        none if none.is_empty() => Ok(()),
        refused => Err(Failure::in_documents(Documents::default(), refused)),
    }
}

/// The platforms of an image, each of which somebody pushes by itself.
fn platforms(wanted: &Wanted) -> Vec<Option<&Platform>> {
    match wanted.platforms.as_slice() {
        [] => vec![None],
        platforms => platforms.iter().map(Some).collect(),
    }
}

/// Rule: OCI image specification, "Image Manifest".
#[derive(Deserialize)]
struct Named {
    config: Blob,
    layers: Vec<Blob>,
}

#[derive(Deserialize)]
struct Blob {
    digest: String,
    size: u64,
}

/// Puts together what other machines have pushed. Nothing has another tag than before when it returns.
pub(super) async fn merge(
    opened: &Opened,
    args: &PublishArgs,
    releases: &Releases,
    registries: &Registries,
    caller: &Caller,
) -> Result<Vec<Recorded>, Failure> {
    let (mut recorded, mut lacking) = (Vec::new(), Vec::new());
    for (index, names) in opened.chosen.iter().zip(&opened.names) {
        let wanted = &opened.fleet.images[*index];
        let repository = registries.repository(&names.published[0])?;
        let mut found: Vec<(Option<&Platform>, Manifest)> = Vec::new();
        for platform in platforms(wanted) {
            let tag = releases.tag_for(opened, *index, platform);
            let manifest = caller.interrupt.run_until_cancelled(repository.manifest(&tag)).await;
            match manifest.ok_or_else(Failure::interrupted)?.map_err(failed)? {
                Some(manifest) => found.push((platform, manifest)),
                None => {
                    let of = platform.map_or(String::new(), |platform| format!(" for {platform}"));
                    let what = Diagnostic::new(format!("nobody has pushed `{}`{of} yet", wanted.id));
                    lacking.push(
                        what.why(format!("`{}` has no tag `{tag}`", names.published[0].canonical())).advice(
                            "run `ipybox publish --shard I/N` on the machine for it, with the same files",
                        ),
                    );
                }
            }
        }
        let named = match found.as_slice() {
            [(_, only)] if wanted.platforms.len() < 2 => only.descriptor(),
            found => {
                let images: Vec<_> =
                    found.iter().filter_map(|(platform, manifest)| Some(((*platform)?, manifest))).collect();
                let list = index_of(&images);
                if lacking.is_empty() && repository.head(list.digest()).await.map_err(failed)?.is_none() {
                    repository.put(&list).await.map_err(failed)?;
                }
                list.descriptor()
            }
        };
        if !lacking.is_empty() {
            continue;
        }
        let about = signed(args, &repository, &named, caller).await?;
        let known = named_now(&names.published, registries).await?;
        let tags = names.published.iter().zip(known);
        let (mut parts, report) = (Vec::new(), caller.report.of_image(&wanted.id));
        for (platform, manifest) in &found {
            let part = part(*platform, manifest, &repository, &report);
            let part = caller.interrupt.run_until_cancelled(part).await;
            parts.extend(part.ok_or_else(Failure::interrupted)?);
        }
        recorded.push(Recorded {
            image: wanted.id.clone(),
            repository: names.published[0].canonical(),
            digest: named.digest,
            tags: tags
                .map(|(name, known)| TagMoved { name: name.clone(), before: known.map(|known| known.digest) })
                .collect(),
            about: about.into_iter().collect(),
            platforms: parts,
        });
    }
    if lacking.is_empty() { Ok(recorded) } else { Err(Failure::in_documents(Documents::default(), lacking)) }
}

/// What is known of an image by its manifest, and by what is said about it.
async fn part(
    platform: Option<&Platform>,
    manifest: &Manifest,
    repository: &Repository<'_>,
    report: &Report,
) -> Option<Part> {
    let named: Named = serde_json::from_slice(manifest.bytes()).ok()?;
    // Nothing but the record depends on it.
    let said = said(manifest.digest(), repository).await.unwrap_or_else(|error| {
        report.note(&format!("what is said about `{}` cannot be read: {error}", manifest.digest()));
        (Vec::new(), BTreeMap::new())
    });
    let (about, packages) = said;
    Some(Part {
        platform: platform.cloned(),
        digest: manifest.digest().to_owned(),
        config: named.config.digest,
        bytes: named.layers.iter().map(|layer| layer.size).sum(),
        sent: 0,
        verified: None,
        about,
        packages,
        inside: None,
        changes: Vec::new(),
    })
}

/// What is said about an image, and the packages that its bill names.
async fn said(
    digest: &str,
    repository: &Repository<'_>,
) -> Result<(Vec<About>, BTreeMap<String, String>), RegistryError> {
    let listed = repository.referrers(digest, None).await?;
    let mut packages = BTreeMap::new();
    let is_bill = |one: &&Referrer| {
        let is_ours = one.annotations.as_ref().is_some_and(|notes| notes.contains_key(SIGNED));
        is_ours && Attestation::of(&one.artifact_type) == Some(Attestation::Bill)
    };
    if let Some(bill) = listed.iter().find(is_bill)
        && let Some(manifest) = repository.manifest(&bill.digest).await?
        && let Ok(Named { layers, .. }) = serde_json::from_slice(manifest.bytes())
        && let [Blob { digest: blob, size }] = layers.as_slice()
        && *size <= MOST_BILL
    {
        let media_type = bill.artifact_type.clone();
        let bytes = repository.small(&Descriptor { digest: blob.clone(), media_type, size: *size }).await?;
        if Attestation::Bill.check(&bytes, digest).is_ok() {
            packages = Bill::packages(&bytes);
        }
    }
    let about = |one: Referrer| About { artifact_type: one.artifact_type, digest: one.digest };
    Ok((listed.into_iter().map(about).collect(), packages))
}

/// Takes away the tags under which machines have left what is published now, where its registry removes tags. Those of other
/// runs stay.
pub(super) async fn clear(
    opened: &Opened,
    releases: &Releases,
    registries: &Registries,
    caller: &Caller,
) -> Result<(), Failure> {
    let left = opened.chosen.iter().zip(&opened.names).flat_map(|(index, names)| {
        let wanted = &opened.fleet.images[*index];
        let tag = |platform| (&names.published[0], releases.tag_for(opened, *index, platform));
        platforms(wanted).into_iter().map(tag)
    });
    let removing = stream::iter(left).map(async |(name, tag)| {
        // A tag that stays is in nobody's way.
        let _ = registries.repository(name)?.remove(&tag).await;
        Ok(())
    });
    let removing = removing.buffer_unordered(AT_ONCE).try_collect::<()>();
    caller.interrupt.run_until_cancelled(removing).await.unwrap_or(Ok(()))
}
