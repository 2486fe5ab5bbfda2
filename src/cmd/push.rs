//! `ipybox build --push`: an image to the registries that its names say.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;
use std::time::Instant;

use super::registries::Registries;
use super::{Caller, Failure, FailureKind};
use crate::cli::{BuildArgs, DEFAULT_TAG};
use crate::diagnostic::Diagnostic;
use crate::oci::blobs::Packed;
use crate::oci::image::{Descriptor, Image, MANIFEST};
use crate::oci::store::Store;
use crate::reference::Reference;
use crate::registry::{self, Blob, Manifest, RegistryError};
use crate::report::{self, Work};

/// Refuses names that nobody has given, and what registries are not asked.
pub(super) fn fits(args: &BuildArgs) -> Result<(), Failure> {
    if args.check {
        let what = Diagnostic::new("`--check` asks no registry, so it does not go with `--push`");
        return Err(Failure::usage(what.advice("leave out one of them")));
    }
    match args.tag.as_slice() {
        [] => {}
        [name] if name.to_string() == DEFAULT_TAG => {}
        _ => return Ok(()),
    }
    let what = Diagnostic::new("it is not said where the image is pushed to");
    Err(Failure::usage(what.advice("name it, as `--tag registry.example/team/sandbox:1`")))
}

/// Pushes an image under all its names: once to each registry, from where its other repositories have it, and its tags last.
pub(super) async fn push(
    image: &Image,
    store: &Store,
    names: &[Reference],
    registries: &Registries,
    caller: &Caller,
) -> Result<(), Failure> {
    let manifest = Manifest::new(MANIFEST, image.manifest());
    let image = registry::Image { manifest, blobs: blobs(image, store) };
    let mut repositories: BTreeMap<String, Vec<&Reference>> = BTreeMap::new();
    for name in names {
        repositories.entry(name.canonical()).or_default().push(name);
    }
    for (whole, names) in repositories {
        let (began, work) = (Instant::now(), Work::Push(whole.clone()));
        caller.report.began(&work);
        let repository = registries.repository(names[0])?;
        let tags: Vec<&str> = names.iter().map(|name| name.tag().unwrap_or("latest")).collect();
        let pushing = repository.push(&image, &tags, |pushed| caller.report.pushed(pushed));
        let pushed = caller.interrupt.run_until_cancelled(pushing).await.ok_or_else(Failure::interrupted)?;
        let pushed = pushed.map_err(failed)?;
        caller.report.ended(&work, began.elapsed());
        caller.report.note(&format!(
            "{whole}: {}, {} sent in {} blobs, {} mounted, {} there",
            pushed.digest,
            report::size(pushed.bytes),
            pushed.sent,
            pushed.mounted,
            pushed.there,
        ));
    }
    Ok(())
}

/// Those of some layers that the one repository of these names has packed, by their diff ids. They need not be taken out of an
/// engine, nor packed, nor sent: of an image whose base did not change its packages are all that moves.
pub(super) async fn elsewhere(
    layers: Vec<String>,
    names: &[Reference],
    registries: &Registries,
    caller: &Caller,
) -> Result<BTreeMap<String, Packed>, Failure> {
    let mut found = BTreeMap::new();
    if layers.is_empty() || names.iter().any(|name| name.canonical() != names[0].canonical()) {
        return Ok(found);
    }
    let repository = registries.repository(&names[0])?;
    let looking = async {
        let mut known = BTreeMap::new();
        for name in names {
            if !known.is_empty() {
                break;
            }
            known = match repository.layers(name.tag().unwrap_or("latest")).await {
                Err(error) if error.is_worth_a_retry() => return Err(failed(error)),
                // What is no image has no layers, and what may not be read is not read.
                layers => layers.unwrap_or_default(),
            };
        }
        for layer in layers {
            let blob = known.remove(&layer).filter(|blob| blob.media_type.ends_with("gzip"));
            let Some(blob) = blob else { continue };
            // A registry that has lost some of an image gets it from here.
            if repository.has(&blob).await.map_err(failed)? {
                found.insert(layer, Packed { digest: blob.digest, size: blob.size });
            }
        }
        Ok(found)
    };
    caller.interrupt.run_until_cancelled(looking).await.ok_or_else(Failure::interrupted)?
}

/// What a manifest of the image names.
pub(super) fn blobs(image: &Image, store: &Store) -> Vec<Blob> {
    let blob = |Descriptor { media_type, digest, size }, content| Blob {
        digest,
        size,
        media_type: media_type.to_owned(),
        content,
        mount_from: None,
    };
    let config: Arc<[u8]> = image.config.clone().into();
    let of_config = blob(image.config(), Arc::new(move |out: &mut dyn Write| out.write_all(&config)));
    let layers = image.layers.iter().map(|packed| {
        let (store, of_layer) = (store.clone(), packed.clone());
        blob(
            Descriptor::of_layer(packed),
            Arc::new(move |out: &mut dyn Write| store.write_packed(&of_layer, out)) as _,
        )
    });
    layers.chain([of_config]).collect()
}

#[expect(clippy::needless_pass_by_value, reason = "errors are mapped with it")]
pub(super) fn failed(error: RegistryError) -> Failure {
    let kind = if error.is_worth_a_retry() { FailureKind::Unreachable } else { FailureKind::Refused };
    Failure { kind, ..Failure::refused(error.diagnostic()) }
}
