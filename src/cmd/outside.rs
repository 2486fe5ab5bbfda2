//! Bases that no engine is asked for: in files of this host, or fetched from a registry.

use std::io;
use std::path::Path;
use std::time::Instant;

use futures_util::{StreamExt, TryStreamExt, stream};
use tempfile::NamedTempFile;
use tokio::io::AsyncWriteExt;

use super::push::failed;
use super::registries::Registries;
use super::{Caller, Failure};
use crate::diagnostic::Diagnostic;
use crate::engine::{Engine, LayerEvent};
use crate::inputs::trust;
use crate::oci::layout::write_manifest;
use crate::oci::store::Store;
use crate::platform::Platform;
use crate::reference::Reference;
use crate::registry::{Descriptor, Parts, Repository};
use crate::report::Work;
use crate::stored::Place;

/// How many layers come at once.
const AT_ONCE: usize = 3;

/// A base that no engine is asked for.
pub(super) struct Outside {
    /// Where it lies.
    pub(super) place: Place,
    /// What it is called.
    pub(super) reference: Reference,
}

/// Who makes an image.
pub(super) enum Maker {
    /// An engine.
    Engine(Engine),
    /// This host alone, on such a base.
    Here(Outside),
}

/// A base of a registry, as an image of the store's layout. Its blobs are fetched once, and its name is asked for each time.
pub(super) async fn fetched(
    name: &Reference,
    platform: Option<&Platform>,
    ca_cert: Option<&Path>,
    cache: &Path,
    caller: &Caller,
) -> Result<Outside, Failure> {
    let certificates = trust::bundle(caller.environment.ssl_cert_file.as_deref(), ca_cert)?;
    let registries = Registries::of([name], certificates.as_deref(), caller).await?;
    let repository = registries.repository(name)?;
    let platform = platform.cloned().unwrap_or_else(Platform::here);
    let store = Store::in_cache(cache);
    let fetching = whole(name, &platform, &repository, &store, caller);
    let digest = caller.interrupt.run_until_cancelled(fetching).await.ok_or_else(Failure::interrupted)??;
    Ok(Outside {
        place: Place::Layout { folder: store.bases(), name: Some(digest) },
        reference: name.clone(),
    })
}

/// Fetches what the store lacks of an image, and tells the digest of its manifest.
async fn whole(
    name: &Reference,
    platform: &Platform,
    repository: &Repository<'_>,
    store: &Store,
    caller: &Caller,
) -> Result<String, Failure> {
    let by = name.digest().or(name.tag()).unwrap_or("latest");
    let Some(Parts { manifest, config, layers }) = repository.image(by, platform).await.map_err(failed)?
    else {
        let what = Diagnostic::new(format!("there is no image `{name}` for {platform}"));
        let others = repository.platforms(by).await.map_err(failed)?;
        let others: Vec<String> = others.iter().map(ToString::to_string).collect();
        return Err(Failure::refused(match others.as_slice() {
            [] => what.advice("correct its name, or push it first"),
            others => {
                what.why(format!("it is there for {}", others.join(", "))).advice("choose `--platform`")
            }
        }));
    };
    let is_there = |blob: &Descriptor| store.has_of_bases(&blob.digest, blob.size);
    let lacking: Vec<&Descriptor> = layers.iter().chain([&config]).filter(|blob| !is_there(blob)).collect();
    if !lacking.is_empty() {
        let (began, work) = (Instant::now(), Work::Pull(name.to_string()));
        caller.report.began(&work);
        let coming = stream::iter(lacking).map(async |blob| fetch(blob, repository, store, caller).await);
        coming.buffer_unordered(AT_ONCE).try_collect::<()>().await?;
        caller.report.ended(&work, began.elapsed());
    }
    let Descriptor { digest, media_type, .. } = manifest.descriptor();
    write_manifest(&store.bases(), &media_type, &digest, manifest.bytes()).map_err(|error| unkept(&error))?;
    Ok(digest)
}

async fn fetch(
    blob: &Descriptor,
    repository: &Repository<'_>,
    store: &Store,
    caller: &Caller,
) -> Result<(), Failure> {
    let (file, path) = store.unfinished().map_err(|error| unkept(&error))?.into_parts();
    let mut to = tokio::fs::File::from_std(file);
    let mut download = repository.blob(blob).map_err(failed)?;
    let layer = blob.digest.trim_start_matches("sha256:").chars().take(12).collect::<String>();
    let tell = |state: &str, done: u64| {
        let (layer, state) = (layer.clone(), state.to_owned());
        caller.report.layer(&LayerEvent { layer, state, done: Some(done), total: Some(blob.size) });
    };
    let mut done = 0;
    while let Some(bytes) = download.next().await.map_err(failed)? {
        to.write_all(&bytes).await.map_err(|error| unkept(&error))?;
        done += bytes.len() as u64;
        tell("Downloading", done);
    }
    to.flush().await.map_err(|error| unkept(&error))?;
    let file = NamedTempFile::from_parts(to.into_std().await, path);
    store.keep_of_bases(&blob.digest, file).map_err(|error| unkept(&error))?;
    tell("Pull complete", done);
    Ok(())
}

fn unkept(error: &io::Error) -> Failure {
    Failure::unwritable("the cache", error)
}
