//! An image on its way: its blobs a few at once, then its manifest, then its tags.

use std::collections::BTreeSet;
use std::pin::pin;

use futures_util::{StreamExt, TryStreamExt, stream};

use super::auth::push;
use super::blobs::{Arrival, Brought, FAREWELL, Sessions};
use super::error::RegistryError;
use super::image::{Blob, Image};
use super::manifests::{Descriptor, Manifest};
use super::{AT_ONCE, Registry, digest, tag};

/// How far a blob has come. What has to be sent again no longer counts as done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pushed<'a> {
    /// The blob's digest.
    pub digest: &'a str,
    /// Bytes of it that the registry has, or was sent.
    pub done: u64,
    /// All of its bytes.
    pub size: u64,
    /// How it came, once it is there.
    pub arrival: Option<Arrival>,
}

/// What pushing an image, or an index with its images, took.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Summary {
    /// The digest of what the tags name: the image's manifest, or the index.
    pub digest: String,
    /// Whether the registry did not have it before.
    pub is_new: bool,
    /// Blobs that were sent.
    pub sent: usize,
    /// Blobs that another repository gave.
    pub mounted: usize,
    /// Blobs that another repository has, and that were sent all the same: the registry did not mount them.
    pub unmounted: usize,
    /// Blobs that were there.
    pub there: usize,
    /// Bytes of blobs that were sent, with those that were sent again.
    pub bytes: u64,
    /// The tags that name it now and did not before.
    pub tags: Vec<String>,
}

impl Registry {
    /// Pushes images and, where there is one, the index that names them. Tags name the index, or the one image.
    ///
    /// Whoever drops it leaves at most sessions that the registry ends by itself; a manifest comes after all of its blobs,
    /// and the tags come last.
    pub(super) async fn push_all(
        &self,
        repository: &str,
        images: &[&Image],
        named: &Manifest,
        tags: &[&str],
        tell: &impl Fn(Pushed<'_>),
    ) -> Result<Summary, RegistryError> {
        tags.iter().try_for_each(|text| tag(text))?;
        images.iter().flat_map(|image| &image.blobs).try_for_each(|blob| digest(&blob.digest))?;
        let found = self.look_for_all(repository, tags, &[push(repository)]).await?;
        let has: Vec<bool> = found
            .iter()
            .map(|there| there.as_ref().is_some_and(|there| there.digest == named.digest()))
            .collect();
        let mut summary = Summary { digest: named.digest().to_owned(), ..Summary::default() };
        if !has.contains(&true) {
            let mut digests: BTreeSet<&str> = images.iter().map(|image| image.manifest.digest()).collect();
            digests.insert(named.digest());
            summary.is_new = self.bring_all(repository, images, named, digests, &mut summary, tell).await?;
        }
        for blob in images.iter().flat_map(|image| &image.blobs) {
            self.homes.of(&blob.digest).is_in(repository);
        }
        for (tag, _) in tags.iter().zip(has).filter(|(_, has)| !has) {
            self.put_manifest(repository, tag, named).await?;
            summary.tags.push((*tag).to_owned());
        }
        Ok(summary)
    }

    /// Brings what a repository lacks; whether that was anything. A registry that serves a manifest has what it names.
    async fn bring_all(
        &self,
        repository: &str,
        images: &[&Image],
        named: &Manifest,
        digests: BTreeSet<&str>,
        summary: &mut Summary,
        tell: &impl Fn(Pushed<'_>),
    ) -> Result<bool, RegistryError> {
        let digests: Vec<&str> = digests.into_iter().collect();
        let found = self.look_for_all(repository, &digests, &[push(repository)]).await?;
        let there = found.into_iter().zip(digests).filter_map(|(found, digest)| found.map(|_| digest));
        let mut there: BTreeSet<&str> = there.collect();
        if there.contains(named.digest()) {
            return Ok(false);
        }
        for image in images {
            if there.insert(image.manifest.digest()) {
                self.bring_blobs(repository, &image.blobs, summary, tell).await?;
                self.put_manifest(repository, image.manifest.digest(), &image.manifest).await?;
            }
        }
        if there.insert(named.digest()) {
            self.put_manifest(repository, named.digest(), named).await?;
        }
        Ok(true)
    }

    /// What a repository has under tags and digests, in their order.
    pub(super) async fn look_for_all(
        &self,
        repository: &str,
        by: &[&str],
        scopes: &[String],
    ) -> Result<Vec<Option<Descriptor>>, RegistryError> {
        let looking = by.iter().map(async |by| self.look_for_manifest(repository, by, scopes).await);
        stream::iter(looking).buffered(AT_ONCE).try_collect().await
    }

    /// Brings the blobs of one manifest, a few at once.
    pub(super) async fn bring_blobs(
        &self,
        repository: &str,
        blobs: &[Blob],
        summary: &mut Summary,
        tell: &impl Fn(Pushed<'_>),
    ) -> Result<(), RegistryError> {
        let sessions = Sessions::default();
        let mut seen = BTreeSet::new();
        let once = blobs.iter().filter(|blob| seen.insert(&blob.digest));
        let mut coming = pin!(
            stream::iter(once)
                .map(async |blob| {
                    let pushed =
                        |done, arrival| Pushed { digest: &blob.digest, done, size: blob.size, arrival };
                    let progress = |done| tell(pushed(done, None));
                    let brought = self.bring(repository, blob, &sessions, &progress).await?;
                    if !sessions.are_over() {
                        tell(pushed(blob.size, Some(brought.arrival)));
                    }
                    Ok(brought)
                })
                .buffer_unordered(AT_ONCE)
        );
        while let Some(next) = coming.next().await {
            let Brought { arrival, sent, refused } = match next {
                Ok(came) => came,
                Err(error) => {
                    sessions.stop();
                    let others = async { while coming.next().await.is_some() {} };
                    let _ = tokio::time::timeout(FAREWELL, others).await;
                    self.give_up(&sessions).await;
                    return Err(error);
                }
            };
            match arrival {
                Arrival::There => summary.there += 1,
                Arrival::Mounted => summary.mounted += 1,
                Arrival::Sent => summary.sent += 1,
            }
            summary.unmounted += usize::from(refused);
            summary.bytes += sent;
        }
        Ok(())
    }
}
