//! A fleet that several machines publish together: the registry alone is what they have in common.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::super::fleet::Opened;
use super::super::push::failed;
use super::super::registries::Registries;
use super::super::{Caller, Failure, lock};
use super::ready::Target;
use super::tags::named_now;
use crate::archive::hexadecimal;
use crate::diagnostic::{Diagnostic, Documents};
use crate::fleet::Image as Wanted;
use crate::platform::Platform;
use crate::publish::{Part, Recorded, TagMoved, staging_tag};
use crate::registry::{Entry, Manifest};

/// Digests of the files that an image is built by.
pub(super) struct Read {
    pub(super) list: Option<String>,
    pub(super) lock: Option<String>,
}

/// SHA-256 over an image's lists, one behind the other, and over its lock.
pub(super) fn read(wanted: &Wanted) -> Read {
    let request = wanted.request(None, None);
    let lists: Vec<u8> =
        request.dependencies.iter().filter_map(|list| fs::read(list).ok()).flatten().collect();
    let lock = lock::place(&request).and_then(|lock| fs::read(lock).ok());
    let digest = |bytes: &[u8]| hexadecimal(&Sha256::digest(bytes));
    Read {
        list: (!request.dependencies.is_empty()).then(|| digest(&lists)),
        lock: lock.map(|lock| digest(&lock)),
    }
}

/// What says which image is meant: the file of the fleet, the image's names, and its lists and locks, with those of what it is
/// built on. Machines that differ in any of these do not publish the same.
fn release(opened: &Opened, file: &Path, index: usize) -> Vec<u8> {
    let wanted = &opened.fleet.images[index];
    let Read { list, lock } = read(wanted);
    let names = opened.names_of(index).published.iter().map(ToString::to_string);
    let mut release = fs::read(file).unwrap_or_default();
    for part in names.chain(list).chain(lock) {
        release.push(0);
        release.extend(part.into_bytes());
    }
    if let Some(parent) = wanted.from {
        release.extend(self::release(opened, file, parent));
    }
    release
}

/// Leaves an image where the machine that merges finds it.
pub(super) async fn leave(
    opened: &Opened,
    file: &Path,
    target: &Target<'_>,
    registries: &Registries,
) -> Result<(), Failure> {
    let wanted = &opened.fleet.images[target.index];
    let release = release(opened, file, target.index);
    let platform = if wanted.platforms.is_empty() { None } else { Some(&target.ready.platform) };
    let repository = registries.repository(&target.names.published[0])?;
    let manifest = &target.ready.manifest;
    let tag = staging_tag(&release, platform);
    let there = repository.head(&tag).await.map_err(failed)?;
    if there.is_some_and(|there| there.digest == manifest.digest()) {
        return Ok(());
    }
    repository.tag(&tag, manifest).await.map_err(failed)
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
    file: &Path,
    registries: &Registries,
    caller: &Caller,
) -> Result<Vec<Recorded>, Failure> {
    let (mut recorded, mut lacking) = (Vec::new(), Vec::new());
    for (index, names) in opened.chosen.iter().zip(&opened.names) {
        let wanted = &opened.fleet.images[*index];
        let release = release(opened, file, *index);
        let repository = registries.repository(&names.published[0])?;
        let platforms: Vec<Option<&Platform>> = match wanted.platforms.as_slice() {
            [] => vec![None],
            platforms => platforms.iter().map(Some).collect(),
        };
        let mut found: Vec<(Option<&Platform>, Manifest)> = Vec::new();
        for platform in platforms {
            let tag = staging_tag(&release, platform);
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
        let digest = match found.as_slice() {
            [(_, only)] if wanted.platforms.len() < 2 => only.digest().to_owned(),
            found => {
                let entries: Vec<Entry> = found
                    .iter()
                    .filter_map(|(platform, manifest)| {
                        Some(Entry { manifest: manifest.descriptor(), platform: (*platform)?.clone() })
                    })
                    .collect();
                let list = Manifest::index(&entries, &BTreeMap::new());
                if lacking.is_empty() && repository.head(list.digest()).await.map_err(failed)?.is_none() {
                    repository.put(&list).await.map_err(failed)?;
                }
                list.digest().to_owned()
            }
        };
        if !lacking.is_empty() {
            continue;
        }
        let known = named_now(&names.published, registries).await?;
        let tags = names.published.iter().zip(known);
        recorded.push(Recorded {
            image: wanted.id.clone(),
            repository: names.published[0].canonical(),
            digest,
            tags: tags
                .map(|(name, known)| TagMoved { name: name.clone(), before: known.map(|known| known.digest) })
                .collect(),
            platforms: found.iter().filter_map(|(platform, manifest)| part(*platform, manifest)).collect(),
        });
    }
    if lacking.is_empty() { Ok(recorded) } else { Err(Failure::in_documents(Documents::default(), lacking)) }
}

/// What a manifest says of an image.
fn part(platform: Option<&Platform>, manifest: &Manifest) -> Option<Part> {
    let named: Named = serde_json::from_slice(manifest.bytes()).ok()?;
    Some(Part {
        platform: platform.cloned(),
        digest: manifest.digest().to_owned(),
        config: named.config.digest,
        bytes: named.layers.iter().map(|layer| layer.size).sum(),
        sent: 0,
        verified: None,
        about: Vec::new(),
        inside: None,
        changes: Vec::new(),
        packages: BTreeMap::new(),
    })
}
