//! Images in files: what an engine has made, written for other tools.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use futures_util::future::LocalBoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::direct::here::is_gone;
use super::{Caller, Failure, direct};
use crate::archive::hexadecimal;
use crate::cli::{Output, OutputForm};
use crate::diagnostic::Diagnostic;
use crate::engine::Engine;
use crate::freshness::Stamp;
use crate::kept::keep;
use crate::oci::blobs::Packed;
use crate::oci::image::Image;
use crate::oci::layout;
use crate::oci::saved::Saved;
use crate::oci::store::Store;
use crate::plan::Plan;
use crate::reference::{ImageId, Reference};
use crate::report::Work;

/// The label of images whose modules are not compiled for want of a Python: they are made again once there is one.
pub(super) const UNCOMPILED: &str = "ipybox.uncompiled";

/// What a file was when an image had been written to it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Written {
    image: ImageId,
    fingerprint: String,
    names: Vec<Reference>,
    size: u64,
    inode: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Written {
    fn of(file: &Path, image: &ImageId, fingerprint: &str, names: &[Reference]) -> io::Result<Self> {
        let found = fs::metadata(file)?;
        if !found.is_file() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(Self {
            image: image.clone(),
            fingerprint: fingerprint.to_owned(),
            names: names.to_vec(),
            size: found.len(),
            inode: found.ino(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        })
    }

    /// Where that is kept.
    fn place(file: &Path, cache: &Path) -> io::Result<PathBuf> {
        let path = fs::canonicalize(file)?;
        Ok(cache.join("outputs").join(hexadecimal(&Sha256::digest(path.as_os_str().as_encoded_bytes()))))
    }
}

/// The image that a file or folder has, where it is what is asked for, and whole.
pub(super) fn fresh(output: &Output, names: &[Reference], wanted: &Stamp, cache: &Path) -> Option<ImageId> {
    if output.form == OutputForm::Layout {
        let mut found = names.iter().map(Some).chain(names.is_empty().then_some(None)).map(|name| {
            let (id, labels) = layout::whole(&output.dest, name)?;
            let labels = labels.as_object().filter(|labels| !labels.contains_key(UNCOMPILED))?.iter();
            let text = |(name, value): (&String, &Value)| Some((name.clone(), value.as_str()?.to_owned()));
            let stamp = Stamp::read(&labels.filter_map(text).collect());
            stamp.filter(|stamp| stamp == wanted).and(ImageId::try_from(id).ok())
        });
        let first = found.next()??;
        return found.all(|other| other.as_ref() == Some(&first)).then_some(first);
    }
    let text = fs::read(Written::place(&output.dest, cache).ok()?).ok()?;
    let written: Written = serde_json::from_slice(&text).ok()?;
    let now = Written::of(&output.dest, &written.image, &wanted.fingerprint(), names).ok()?;
    (written == now).then_some(written.image)
}

/// Where an image comes from.
pub(super) enum Source<'a> {
    /// The engine has it, of this plan.
    Engine(&'a Engine, &'a ImageId, &'a Plan),
    /// It was made here, and can be made again.
    Made(&'a Image, &'a dyn Fn() -> LocalBoxFuture<'a, Result<Image, Failure>>),
}

/// Writes an image to files and folders, and tells what they hold: an image is known by its configuration there, whatever an
/// engine calls it.
pub(super) async fn write(
    outputs: &[&Output],
    source: &Source<'_>,
    stamp: &Stamp,
    names: &[Reference],
    cache: &Path,
    caller: &Caller,
) -> Result<Option<ImageId>, Failure> {
    let store = Store::in_cache(cache);
    let mut held = None;
    for output in outputs {
        let (began, work) = (Instant::now(), Work::Write(output.to_string()));
        caller.report.began(&work);
        // What is spoilt in the store is forgotten, and made or fetched once more: a layer at a time.
        let mut tries = 0;
        let id = loop {
            tries += 1;
            let image = match *source {
                Source::Engine(engine, id, plan) => taken(engine, id, plan, &store, &BTreeMap::new()).await?,
                Source::Made(image, _) if tries == 1 => image.clone(),
                Source::Made(_, again) => again().await?,
            };
            let (id, most) = (image.id(), image.layers.len());
            let (store, to, names) = (store.clone(), (*output).clone(), names.to_vec());
            let interrupt = caller.interrupt.clone();
            // It is waited for also where the caller gives up: what is half written goes.
            let writing = tokio::task::spawn_blocking(move || {
                written(&image, &store, &to, &names, &|| interrupt.is_cancelled())
            });
            let written = writing.await;
            if caller.interrupt.is_cancelled() {
                return Err(Failure::interrupted());
            }
            match written.unwrap_or_else(|error| Err(io::Error::other(error))) {
                Ok(()) => break id,
                Err(error) if error.kind() == io::ErrorKind::InvalidData && tries <= most => {
                    caller.report.note(&format!("{error}; it is made again"));
                }
                Err(error) => return Err(Failure::unwritable(&format!("`{output}`"), &error)),
            }
        };
        let is_compiled = match source {
            Source::Engine(..) => true,
            Source::Made(image, _) => image.label(UNCOMPILED).is_none(),
        };
        if output.form != OutputForm::Layout && is_compiled {
            let known = Written::of(&output.dest, &id, &stamp.fingerprint(), names);
            // Without it the file is written once more.
            let _ = known.and_then(|known| keep(&Written::place(&output.dest, cache)?, &known));
        }
        caller.report.ended(&work, began.elapsed());
        held = Some(id);
    }
    Ok(held)
}

/// Writes an image to a file, which is there whole or not at all, or into a folder.
fn written(
    image: &Image,
    store: &Store,
    output: &Output,
    names: &[Reference],
    is_over: &dyn Fn() -> bool,
) -> io::Result<()> {
    if output.form == OutputForm::Layout {
        return layout::write_folder(image, store, &output.dest, names, is_over);
    }
    let is_for_docker = output.form == OutputForm::Docker;
    if fs::metadata(&output.dest).is_ok_and(|found| !found.is_file()) {
        let mut file = BufWriter::with_capacity(256 << 10, File::create(&output.dest)?);
        return layout::write_archive(image, store, &mut file, names, is_for_docker, is_over);
    }
    let folder = output.dest.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
    let mut file = layout::unfinished(folder)?;
    let mut out = BufWriter::with_capacity(256 << 10, &mut file);
    layout::write_archive(image, store, &mut out, names, is_for_docker, is_over)?;
    drop(out);
    file.persist(&output.dest)?;
    Ok(())
}

/// The layers of an engine's image that the store has not packed.
pub(super) async fn unpacked(
    engine: &Engine,
    image: &ImageId,
    store: &Store,
) -> Result<Vec<String>, Failure> {
    let mut layers = layers(engine, image).await?;
    layers.retain(|layer| store.packed(layer).is_none());
    Ok(layers)
}

async fn layers(engine: &Engine, image: &ImageId) -> Result<Vec<String>, Failure> {
    let gone = || unwritable(&format!("the engine has no image `{image}`"));
    Ok(engine.image(image.as_str()).await?.ok_or_else(gone)?.layers)
}

/// An image of the engine with its layers packed in the store, but for those that are packed `elsewhere`, by their diff ids.
pub(super) async fn taken(
    engine: &Engine,
    image: &ImageId,
    plan: &Plan,
    store: &Store,
    elsewhere: &BTreeMap<String, Packed>,
) -> Result<Image, Failure> {
    let taken = match tried(engine, image, plan, store, elsewhere).await? {
        // What was spoilt is forgotten now, and the engine has it.
        Err(error) if is_gone(&error) => tried(engine, image, plan, store, elsewhere).await?,
        taken => taken,
    };
    taken.map_err(|error| unwritable(&error.to_string()))
}

async fn tried(
    engine: &Engine,
    image: &ImageId,
    plan: &Plan,
    store: &Store,
    elsewhere: &BTreeMap<String, Packed>,
) -> Result<io::Result<Image>, Failure> {
    let layers = layers(engine, image).await?;
    let lacks = |layer: &&String| {
        !elsewhere.contains_key(*layer) && store.packed(layer).is_none() && store.recipe(layer).is_none()
    };
    let lacking: Vec<&String> = layers.iter().filter(lacks).collect();
    let mut config = store.config(image.as_str(), &layers);
    if config.is_none() || !lacking.is_empty() {
        let below = engine.image(&direct::foundation_name(plan)).await?;
        let below = below.filter(|below| lacking.iter().all(|layer| below.layers.contains(layer)));
        let from = below.filter(|_| config.is_some()).map_or_else(|| image.clone(), |below| below.id);
        let (reader, writer) = io::pipe().map_err(|error| unwritable(&error.to_string()))?;
        let (of_engine, known) = (store.clone(), layers.clone());
        let elsewhere: BTreeSet<String> = elsewhere.keys().cloned().collect();
        let read = tokio::task::spawn_blocking(move || Saved::take(reader, &of_engine, &known, &elsewhere));
        let saved = engine.save(&from, writer).await;
        let read = read.await.unwrap_or_else(|error| Err(io::Error::other(error)));
        // Where reading has failed the engine was not listened to any more.
        let read = match (read, saved) {
            (Ok(read), Ok(())) => read,
            (Err(error), Err(saved)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(saved.into());
            }
            (Ok(_), Err(saved)) => return Err(saved.into()),
            (Err(error), _) => return Ok(Err(error)),
        };
        if config.is_none() {
            config = read.config().map(<[u8]>::to_vec);
            // Without it the engine gives the image away once more.
            let _ = config.as_ref().map(|config| store.keep_config(image.as_str(), config));
        }
    }
    let config = config.ok_or_else(|| unwritable("the engine gives an image without its configuration"))?;
    let own: Vec<String> = layers.iter().filter(|layer| !elsewhere.contains_key(*layer)).cloned().collect();
    let of_layers = store.clone();
    let packed = tokio::task::spawn_blocking(move || of_layers.packed_all(&own));
    let packed =
        engine.unless_interrupted(packed).await?.unwrap_or_else(|error| Err(io::Error::other(error)));
    Ok(packed.map(|packed| {
        let mut own = packed.into_iter();
        let layers = layers.iter().filter_map(|layer| elsewhere.get(layer).cloned().or_else(|| own.next()));
        Image { config, layers: layers.collect() }
    }))
}

fn unwritable(why: &str) -> Failure {
    Failure::refused(Diagnostic::new("the image cannot be written to a file").why(why))
}
