//! `ipybox build --push`: an image to the registries that its names say.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;
use std::time::Instant;

use super::{Caller, Failure, FailureKind};
use crate::cli::{BuildArgs, DEFAULT_TAG};
use crate::credentials::DockerCredential;
use crate::diagnostic::Diagnostic;
use crate::oci::image::{Descriptor, Image, MANIFEST};
use crate::oci::store::Store;
use crate::reference::Reference;
use crate::registry::{self, Blob, Manifest, Registry, RegistryError};
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
    certificates: Option<&[u8]>,
    caller: &Caller,
) -> Result<(), Failure> {
    let manifest = Manifest::new(MANIFEST, image.manifest());
    let image = registry::Image { manifest, blobs: blobs(image, store) };
    let mut repositories: BTreeMap<String, Vec<&Reference>> = BTreeMap::new();
    for name in names {
        repositories.entry(name.canonical()).or_default().push(name);
    }
    let mut known: Vec<(Login, Registry)> = Vec::new();
    for (whole, names) in repositories {
        let (began, work) = (Instant::now(), Work::Push(whole.clone()));
        caller.report.began(&work);
        let (host, repository) = whole.split_once('/').expect("a whole name has a registry");
        let registry = connected(&mut known, host, names[0], certificates, caller).await?;
        let repository = registry.repository(repository).map_err(failed)?;
        let tags: Vec<&str> = names.iter().map(|name| name.tag().unwrap_or("latest")).collect();
        let pushing = repository.push(&image, &tags, |_| {});
        let pushed = caller.interrupt.run_until_cancelled(pushing).await.ok_or_else(Failure::interrupted)?;
        let pushed = pushed.map_err(failed)?;
        caller.report.ended(&work, began.elapsed());
        caller.report.note(&format!(
            "{whole}: {}, {} sent in {} blobs, {} blobs there",
            pushed.digest,
            report::size(pushed.bytes),
            pushed.sent,
            pushed.there + pushed.mounted,
        ));
    }
    Ok(())
}

/// A registry's host, and who asks there.
pub(super) type Login = (String, Option<DockerCredential>);

/// The registry of a name, with what is known already of where its blobs are. Parts of a registry may have logins of their
/// own.
pub(super) async fn connected<'a>(
    known: &'a mut Vec<(Login, Registry)>,
    host: &str,
    name: &Reference,
    certificates: Option<&[u8]>,
    caller: &Caller,
) -> Result<&'a Registry, Failure> {
    let login = async || {
        caller.environment.engine.auth_files().of_image(name).await.map_err(|why| {
            let what = format!("there are no credentials for `{host}`");
            Failure::refused(Diagnostic::new(what).why(why).advice("mend them with `docker login`"))
        })
    };
    let wanted = (host.to_owned(), login().await?);
    let place = match known.iter().position(|(login, _)| *login == wanted) {
        Some(place) => place,
        None => {
            // Credentials are no values that can be copied.
            let registry = Registry::new(host, login().await?, certificates).map_err(failed)?;
            known.push((wanted, registry));
            known.len() - 1
        }
    };
    Ok(&known[place].1)
}

/// What a manifest of the image names.
fn blobs(image: &Image, store: &Store) -> Vec<Blob> {
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
