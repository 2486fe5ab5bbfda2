//! Packages put on a foundation as layers that no step makes: from the wheels of a lock to an image, without a build.

mod assembly;
mod compiler;
pub(super) mod here;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use sha2::{Digest, Sha256};

pub(super) use self::assembly::Forgotten;
use self::assembly::{Assembly, Compiled};
use super::build::{How, ordered, supply};
use super::installed::Installed;
use super::{Asked, Caller, Failure, Planned};
use crate::archive::hexadecimal;
use crate::base::Base;
use crate::diagnostic::Diagnostic;
use crate::engine::{Build, BuildEvent, Builder, Engine, EngineError, Put, PutError, Spec};
use crate::freshness::{self, NEWEST_STEP};
use crate::image::context::Local;
use crate::image::dockerfile::{self, Goal};
use crate::inputs::templates::Templates;
use crate::oci::rule;
use crate::oci::store::{Layer, Owned, Store};
use crate::plan::{Pin, Plan, VENV};
use crate::reference::{ImageId, Reference};
use crate::report::{Report, Work};
use crate::ustar::Ids;
use crate::variant::Placement;

/// The label of containers that compile modules.
const LABEL: &str = "ipybox.compile";

/// Why a plan cannot be built in this way, where it cannot.
pub(super) fn obstacle((plan, base): (&Plan, &Base), engine: &Engine, how: &How<'_>) -> Option<String> {
    if engine.builder() == Builder::Classic {
        return Some("podman's API takes no layers".to_owned());
    }
    of_plan(plan, base, how)
}

/// Why the packages of a plan cannot be put into layers, with an engine or without.
fn of_plan(plan: &Plan, base: &Base, how: &How<'_>) -> Option<String> {
    let is_above = |link: &&String| format!("{VENV}/").starts_with(&format!("{link}/"));
    if let Some(link) = base.links.keys().find(is_above) {
        return Some(format!("`{link}` of its base is a link"));
    }
    let pinned = plan.packages.locked.iter().flatten().find(|(_, pin)| pin.is_direct).map(|(name, _)| name);
    if let Some(name) = pinned.or_else(|| plan.packages.sources.keys().next()) {
        return Some(format!("the list names a file, a repository or an address for `{name}`"));
    }
    if plan.foundation.placement != Placement::Isolated {
        return Some(format!("packages of `{}` lie among those of its base", plan.variant));
    }
    if !plan.finish.steps.is_empty() || !plan.finish.copies.is_empty() {
        return Some(
            "files of `--copy`, or steps and files of the variant, come after its packages".to_owned(),
        );
    }
    if plan.foundation.interpreter.implementation != "cpython" {
        return Some(format!("its Python is {}", plan.foundation.interpreter.implementation));
    }
    let is_closed = how.supplies.credentials.hosts().next().is_some();
    is_closed.then(|| "the package index wants to know who asks".to_owned())
}

/// The image of a plan that nothing stands in the way of; the plan may become another one on the way, where packages lack
/// libraries. Layers of an image of `known` ones do not travel.
pub(super) async fn built(
    engine: &Engine,
    asked: &Asked,
    planned: &mut Planned<'_>,
    how: How<'_>,
    known: &[String],
    caller: &Caller,
    sent: &mut u64,
) -> Result<ImageId, Failure> {
    let report = &caller.report;
    let platform = asked.request.platform.as_ref().map(ToString::to_string);
    let mut tries = 3;
    loop {
        let parts = (&planned.plan, &planned.base, &planned.local);
        let templates = &asked.inputs.templates;
        let foundation =
            match engine.image(&foundation_name(&planned.plan)).await?.filter(|_| how.anew.is_none()) {
                Some(image) => image.id,
                None => {
                    supply(engine, &planned.plan, asked.installer(&planned.plan), report).await?;
                    let made = foundation(engine, parts, templates, how, platform.clone(), report, sent);
                    Box::pin(made).await?.map_err(|error| asked.explain(planned, error))?
                }
            };
        let store = Store::in_cache(asked.cache());
        let parts = (&planned.plan, &planned.local);
        let assembly = packages(engine, parts, &foundation, templates, how, store);
        if let Some(forgotten) = how.anew {
            assembly.forget(forgotten);
        }
        let labels = dockerfile::labels(&planned.as_asked());
        let base = &planned.plan.foundation.base.id;
        let image = match put_on(engine, (&foundation, base), &labels, &assembly, known, report).await {
            // Somebody may have removed it meanwhile.
            Err(_) if tries > 0 && engine.image(foundation.as_str()).await?.is_none() => {
                tries -= 1;
                continue;
            }
            image => image?,
        };
        let seen = Box::pin(see(engine, (&image, &foundation), &assembly, templates)).await?;
        let Some(Seen { installed, is_new }) = seen else { return Ok(image) };
        match asked.with_libraries(planned, &installed.lacking(), report) {
            Some(plan) => planned.plan = plan,
            None => {
                if is_new {
                    installed.tell_sizes(report);
                }
                installed.warn(&planned.plan, &planned.base, report);
                return Ok(image);
            }
        }
        asked.leave(engine, &image).await;
    }
}

/// Whether an image was made in this way, by its newest step.
pub(super) async fn has_made(engine: &Engine, image: &ImageId) -> Result<bool, Failure> {
    Ok(engine.history(image).await?.first().is_some_and(|step| step.command.starts_with(NEWEST_STEP)))
}

/// The image of a plan once more, from nothing but its base and its wheels.
pub(super) async fn again(
    engine: &Engine,
    (plan, base): (&Plan, &Base),
    how: How<'_>,
    report: &Report,
) -> Result<ImageId, Failure> {
    if let Some(why) = obstacle((plan, base), engine, &how) {
        return Err(unassembled(&why));
    }
    if plan.packages.locked.is_none() {
        return Err(unassembled("its versions were those of their day; `ipybox lock` keeps them"));
    }
    let cache = tempfile::tempdir().map_err(|error| Failure::unwritable("a temporary folder", &error))?;
    let (local, templates) = (Local::default(), Templates::shipped());
    let platform = Some(plan.foundation.base.platform.to_string());
    let foundation =
        Box::pin(foundation(engine, (plan, base, &local), &templates, how, platform, report, &mut 0))
            .await??;
    let store = Store::in_cache(cache.path());
    let assembly = packages(engine, (plan, &local), &foundation, &templates, how, store);
    let (labels, base) = (dockerfile::labels(plan), &plan.foundation.base.id);
    put_on(engine, (&foundation, base), &labels, &assembly, &[], report).await
}

/// The packages of a plan, on a foundation.
fn packages<'a>(
    engine: &'a Engine,
    (plan, local): (&'a Plan, &'a Local),
    foundation: &ImageId,
    templates: &'a Templates,
    how: How<'a>,
    store: Store,
) -> Assembly<'a> {
    let compiled =
        if plan.foundation.bytecode { Compiled::In(engine, foundation.clone()) } else { Compiled::Not };
    Assembly {
        pins: plan.packages.locked.as_ref().expect("what is not locked is not put into layers"),
        local: &local.wheels,
        owned: of_packages(plan),
        rule: rule::layers,
        python: &plan.foundation.interpreter.version,
        compiled,
        templates,
        certificates: how.supplies.certificates.as_deref(),
        store,
        sharing: how.sharing,
        interrupt: engine.interrupt(),
    }
}

/// The keys of what an image is made of whose packages are put into layers; none where it has no lock.
pub(super) fn keys(plan: &Plan) -> Vec<String> {
    let (owned, python) = (of_packages(plan), &plan.foundation.interpreter.version);
    let bytecode = if plan.foundation.bytecode { python.as_str() } else { "" };
    let pins = plan.packages.locked.iter().flatten();
    pins.map(|(_, pin)| assembly::key(pin, &owned, python, bytecode)).collect()
}

/// The environment of packages: whatever user of group 0 a container runs as may install more.
fn of_packages(plan: &Plan) -> Owned {
    let ids = Ids { uid: plan.foundation.user.ids().0, gid: 0 };
    Owned { prefix: VENV.trim_start_matches('/').to_owned(), ids, umask: 0o002 }
}

/// The image of a foundation, which has a base, with packages above it.
async fn put_on(
    engine: &Engine,
    (foundation, base): (&ImageId, &ImageId),
    labels: &BTreeMap<String, String>,
    assembly: &Assembly<'_>,
    known: &[String],
    report: &Report,
) -> Result<ImageId, Failure> {
    assembly.import(report).await?;
    let (began, work) = (Instant::now(), Work::Layers(assembly.pins.len()));
    report.began(&work);
    let store = &assembly.store;
    let step = freshness::newest_step(labels);
    let mut tries = assembly.pins.len() + 2;
    loop {
        tries -= 1;
        let layers = assembly.layers(report).await?;
        let put = |layer: &Layer| put(store, &assembly.owned, layer);
        let puts: Vec<Put> = layers.iter().map(put).collect();
        match engine.with_layers(foundation, base, &puts, (labels, &step), known).await {
            Ok((image, config)) => {
                report.ended(&work, began.elapsed());
                // Without it the engine is asked.
                let _ = store.keep_config(image.as_str(), config.as_bytes());
                return Ok(image);
            }
            Err(PutError::Layer(error)) if is_spoilt(&error) && tries > 0 => {
                // What is known of it may be wrong, too: it is found out again.
                store.forget_layers();
                report.note(&format!("{error}; it is made again"));
            }
            Err(PutError::Digest(_)) if tries > 0 => {
                tries = tries.min(2);
                store.forget_layers();
            }
            Err(PutError::Engine(error)) => return Err(error.into()),
            Err(error) => return Err(unassembled(&error.to_string())),
        }
    }
}

/// Whether a layer is not what the store knows of it: in its content, or in its size alone.
fn is_spoilt(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}

/// How the engine is given a layer.
fn put(store: &Store, owned: &Owned, layer: &Layer) -> Put {
    let (store, owned, content) = (store.clone(), owned.clone(), layer.clone());
    Put {
        diff_id: layer.diff_id.clone(),
        size: layer.size,
        title: title(layer),
        content: Arc::new(move |mut out| store.write(&content, &owned, &mut out)),
    }
}

/// What a layer is called in the history of an image.
fn title(layer: &Layer) -> String {
    match layer.packages.as_slice() {
        [one] => one.clone(),
        packages => format!("{} packages: {}", packages.len(), packages.join(" ")),
    }
}

/// What an image's packages take, and what they lack.
struct Seen {
    installed: Installed,
    /// Whether it was not known before.
    is_new: bool,
}

/// Looks at an image of packages on a foundation, or remembers what was seen of them there; `None` where there is nothing to see.
async fn see(
    engine: &Engine,
    (image, foundation): (&ImageId, &ImageId),
    assembly: &Assembly<'_>,
    templates: &Templates,
) -> Result<Option<Seen>, Failure> {
    // What has no libraries lacks none, and has none for others.
    let store = &assembly.store;
    let native: Vec<_> = assembly.keys().into_iter().filter(|key| store.has_libraries(key)).collect();
    if native.is_empty() {
        return Ok(None);
    }
    let script = templates.get("build/look.py").expect("templates are read with all their files");
    let how = format!("{foundation}\0{script}");
    if let Some(installed) = store.seen(&how, &native) {
        return Ok(Some(Seen { installed, is_new: false }));
    }
    let Some(installed) = look(engine, image, script).await? else { return Ok(None) };
    // Without it they are looked at again.
    let _ = store.see(&how, &native, &installed);
    Ok(Some(Seen { installed, is_new: true }))
}

/// What an image tells of its packages; `None` where it tells nothing.
async fn look(engine: &Engine, image: &ImageId, script: &str) -> Result<Option<Installed>, Failure> {
    let python = format!("{VENV}/bin/python");
    let command = [python.as_str(), "-I", "-B", "-c", script];
    let spec =
        Spec { label: LABEL, command: Some(&command), user: Some("0:0"), is_locked: true, ..Spec::default() };
    let looked = engine.with_container(image, spec, async |container| container.output().await);
    let looked = Box::pin(looked).await??;
    Ok(looked.output.lines().find_map(Installed::read))
}

fn unassembled(why: &str) -> Failure {
    let what = Diagnostic::new("the packages cannot be put into layers").why(why);
    Failure::unassembled(what.advice("build with `--builder buildkit`, or with another `--cache-dir`"))
}

/// A wheel beside a lock that is another file.
fn changed(pin: &Pin) -> Failure {
    let what = Diagnostic::new(format!("`{}` is not the file that the lock was made with", pin.file));
    let why = format!("its SHA-256 is not {}", pin.sha256);
    Failure::refused(what.why(why).advice("bring it back, or make the lock anew with `ipybox lock`"))
}

/// What the image is called that packages are put on: by all that decides it.
pub(super) fn foundation_name(plan: &Plan) -> String {
    let mut digest = Sha256::new();
    for part in [
        serde_json::to_vec(&plan.foundation),
        serde_json::to_vec(&plan.finish.args),
        serde_json::to_vec(&plan.finish.ports),
    ] {
        digest.update(part.expect("a plan is JSON"));
        digest.update([0]);
    }
    format!("ipybox-foundation:{}", hexadecimal(&digest.finalize()[..12]))
}

/// Builds that image. The installer is in the engine.
async fn foundation(
    engine: &Engine,
    (plan, base, local): (&Plan, &Base, &Local),
    templates: &Templates,
    how: How<'_>,
    platform: Option<String>,
    report: &Report,
    sent: &mut u64,
) -> Result<Result<ImageId, EngineError>, Failure> {
    let work = Work::Build { steps: plan.build_steps().len() };
    let began = Instant::now();
    report.began(&work);
    let build = Build {
        no_cache: how.anew.is_some(),
        network: how.network.map(crate::cli::Network::name),
        platform,
        ..ordered((plan, base, local), templates, engine.builder(), how, Goal::Foundation)?
    };
    let tell = |event| {
        if let BuildEvent::Sent { bytes } = &event {
            *sent += bytes;
        }
        report.event(&event);
    };
    let image = match engine.build(build, tell).await {
        Ok(image) => image,
        Err(error) => return Ok(Err(error)),
    };
    report.ended(&work, began.elapsed());
    let name: Reference = foundation_name(plan).parse().expect("it is made of digits");
    engine.tag(&image, &name).await?;
    Ok(Ok(image))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ustar;

    #[test]
    fn a_layer_of_another_size_than_is_known_is_spoilt() {
        let written = |size| {
            let root = Ids { uid: 0, gid: 0 };
            ustar::written_file(&mut io::sink(), "layer", 0o644, root, 0, size, |out| out.write_all(b"12345"))
        };
        assert!(written(5).is_ok());
        assert!([4, 6].into_iter().all(|size| is_spoilt(&written(size).unwrap_err())));
        assert!(!is_spoilt(&io::ErrorKind::StorageFull.into()));
    }
}
