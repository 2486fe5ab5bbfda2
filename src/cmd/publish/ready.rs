//! An image as a registry will have it.

use std::collections::BTreeMap;

use super::super::Failure;
use super::super::order::Built;
use super::super::output::taken;
use crate::engine::Engine;
use crate::fleet::{Image as Wanted, Names};
use crate::oci::blobs::Packed;
use crate::oci::image::{Image, MANIFEST};
use crate::oci::store::Store;
use crate::plan::Plan;
use crate::platform::Platform;
use crate::publish::{Part, Recorded, TagMoved};
use crate::reference::{ImageId, Reference};
use crate::registry::{Descriptor, Entry, Manifest};
use crate::report::Report;

/// Labels that are annotations of the manifest as well.
///
/// Rule: OCI image specification, "Annotations", "Pre-Defined Annotation Keys".
const ANNOTATIONS: &str = "org.opencontainers.image.";

/// An image of the engine, packed, for one platform.
pub(super) struct Ready<'a> {
    pub(super) image: ImageId,
    pub(super) plan: &'a Plan,
    /// What it is built on, where that is one of the fleet: its name, and the digest of what its tags name.
    pub(super) base: Option<(Reference, String)>,
    pub(super) whole: Image,
    pub(super) manifest: Manifest,
    pub(super) platform: Platform,
}

/// The index of an image's manifests, with the annotations that all of them have.
pub(super) fn index_of(images: &[(&Platform, &Manifest)]) -> Manifest {
    let entry = |(platform, manifest): &(&Platform, &Manifest)| Entry {
        manifest: manifest.descriptor(),
        platform: (*platform).clone(),
    };
    let mut noted = images.iter().map(|(_, manifest)| manifest.annotations());
    let mut common = noted.next().unwrap_or_default();
    for others in noted {
        common.retain(|name, value| others.get(name) == Some(value));
    }
    Manifest::index(&images.iter().map(entry).collect::<Vec<_>>(), &common)
}

/// An image that is to be published, and what its tags name now.
pub(super) struct Target<'a> {
    pub(super) index: usize,
    pub(super) names: &'a Names,
    pub(super) ready: Ready<'a>,
    /// What names it beside images for other platforms, where it is for several.
    pub(super) list: Option<Manifest>,
    /// By its tags, in their order; of a part of a fleet, what was left for the machine that merges.
    pub(super) known: Vec<Option<Descriptor>>,
    is_shard: bool,
}

impl<'a> Ready<'a> {
    /// The image of a build. The engine gives away only what the store has not, and what is not packed elsewhere already.
    pub(super) async fn of(
        engine: &Engine,
        Built { image, plan, .. }: &'a Built,
        parent: Option<&Target<'_>>,
        store: &Store,
        elsewhere: &BTreeMap<String, Packed>,
    ) -> Result<Self, Failure> {
        let whole = taken(engine, image, plan, store, elsewhere).await?;
        // Those of the base are about the base.
        let own = plan.finish.labels.iter().filter(|(name, _)| name.starts_with(ANNOTATIONS));
        let mut annotations: BTreeMap<String, String> =
            own.map(|(name, value)| (name.clone(), value.clone())).collect();
        let base = parent.map(|parent| (parent.names.published[0].clone(), parent.digest().to_owned()));
        if let Some((name, digest)) = &base {
            let base = [("base.name", name.canonical()), ("base.digest", digest.clone())];
            annotations.extend(base.map(|(name, value)| (format!("{ANNOTATIONS}{name}"), value)));
        }
        let manifest = Manifest::new(MANIFEST, whole.annotated_manifest(&annotations));
        let platform = plan.foundation.base.platform.clone();
        Ok(Self { image: image.clone(), plan, base, platform, whole, manifest })
    }
}

impl<'a> Target<'a> {
    pub(super) fn new(
        index: usize,
        wanted: &Wanted,
        names: &'a Names,
        ready: Ready<'a>,
        is_shard: bool,
        report: &Report,
    ) -> Self {
        let others = wanted.platforms.iter().filter(|other| **other != ready.platform);
        let others: Vec<String> = others.map(ToString::to_string).collect();
        if !others.is_empty() && !is_shard {
            report.warning(
                &format!("`{}` is published for {} alone", wanted.id, ready.platform),
                &format!(
                    "publish it with `--shard` on a machine for {} as well, then with `--merge`",
                    others.join(" and ")
                ),
            );
        }
        let list = (!others.is_empty() && !is_shard).then(|| index_of(&[(&ready.platform, &ready.manifest)]));
        Self { index, names, ready, list, known: Vec::new(), is_shard }
    }

    /// The digest that its tags are to name.
    pub(super) fn digest(&self) -> &str {
        self.list.as_ref().unwrap_or(&self.ready.manifest).digest()
    }

    /// Whether one of its tags names it: it was proved then, and a registry that serves a manifest has all of its blobs.
    pub(super) fn is_there(&self) -> bool {
        self.known.iter().flatten().any(|known| known.digest == self.digest())
    }

    /// What is known of it before anything is done.
    pub(super) fn part(&self) -> Part {
        let Ready { whole, manifest, platform, .. } = &self.ready;
        Part {
            platform: Some(platform.clone()),
            digest: manifest.digest().to_owned(),
            config: whole.config().digest,
            bytes: whole.layers.iter().map(|layer| layer.size).sum(),
            sent: 0,
            verified: None,
            about: Vec::new(),
            packages: BTreeMap::new(),
            inside: None,
            changes: Vec::new(),
        }
    }

    pub(super) fn recorded(&self, id: &str, part: Part) -> Recorded {
        let known = if self.is_shard { &[] } else { self.known.as_slice() };
        let tags = self.names.published.iter().zip(known).map(|(name, known)| TagMoved {
            name: name.clone(),
            before: known.as_ref().map(|known| known.digest.clone()),
        });
        Recorded {
            image: id.to_owned(),
            repository: self.names.published[0].canonical(),
            digest: self.digest().to_owned(),
            tags: tags.collect(),
            about: Vec::new(),
            platforms: vec![part],
        }
    }
}
