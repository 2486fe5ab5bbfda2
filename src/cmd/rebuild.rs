//! `ipybox verify --rebuild`: is an image what comes of the plan that it tells?

use std::io;
use std::time::Instant;

use tempfile::NamedTempFile;

use super::build::{How, ordered, supply};
use super::outcome::title;
use super::{Caller, Failure, direct};
use crate::base::Base;
use crate::cli::VerifyArgs;
use crate::diagnostic::Diagnostic;
use crate::engine::{BuildEvent, Engine, Image, KnownEngines, Layer};
use crate::freshness::Stamp;
use crate::image::context::Local;
use crate::image::dockerfile::Goal;
use crate::inputs::templates::Templates;
use crate::inputs::trust;
use crate::plan::{Foundation, Installer, Plan, Provenance};
use crate::reference::ImageId;
use crate::report::{self, Work};
use crate::stored::{Comparison, FirstDifference, Place, Stored, StoredError};
use crate::supply::Supplies;
use crate::variant;

pub(super) async fn run(args: VerifyArgs, caller: &mut Caller) -> Result<(), Failure> {
    let engine = super::engine(&args.engine, &KnownEngines::default(), caller).await?;
    let cache = caller.cache(args.cache_dir)?;
    let name = args.image.escape_debug().to_string();
    let Some(image) = engine.image(&args.image).await? else {
        let what = Diagnostic::new(format!("the engine has no image `{name}`"));
        return Err(Failure::refused(what.advice("build or pull it first, or correct its name")));
    };
    let plan = plan_of(&image, &name)?;
    let base = base_of(&plan, &engine, &cache).await?;
    let environment = &caller.environment;
    let certificates = trust::bundle(environment.ssl_cert_file.as_deref(), args.steps.ca_cert.as_deref())?;
    check(&plan, &base, &name)?;
    // An image may name any host: nobody's logins are for whoever wrote that.
    let supplies = Supplies { certificates, proxies: environment.proxies.clone(), ..Supplies::default() };
    caller.conceal(&supplies);
    let report = &caller.report;
    if plan.packages.locked.is_none() {
        let advice = "build it with a lock (`ipybox lock`), so that it can be built again as it is";
        report.warning("the image has no lock: packages are resolved anew, and may be others", advice);
    }
    let installer = plan.foundation.installer.clone();
    supply(&engine, &plan, async { Ok(installer.obtain(&cache).await?) }, report).await?;
    let forgotten = direct::Forgotten::default();
    let how = How {
        anew: Some(&forgotten),
        network: args.steps.network,
        epoch: None,
        supplies: &supplies,
        sharing: None,
    };
    let (began, work) = (Instant::now(), Work::Build { steps: plan.build_steps().len() });
    let again = if direct::has_made(&engine, &image.id).await? {
        direct::again(&engine, (&plan, &base), how, report).await?
    } else {
        report.began(&work);
        let again = built(&engine, (&plan, &base), how, report).await?;
        report.ended(&work, began.elapsed());
        again
    };
    let compared = compare(&engine, &image, &again).await;
    let _ = engine.remove_image(&again).await;
    let count = image.layers.len();
    let same = match compared? {
        Verdict::Equal => format!("all {count} layers are equal"),
        Verdict::Alike(written) => {
            let numbers: Vec<_> = written.iter().map(|number| (number + 1).to_string()).collect();
            let numbers = numbers.join(", ");
            format!("all files are equal; of {count} layers these are written in another way: {numbers}")
        }
        Verdict::Differs { steps, difference } => {
            let what = Diagnostic::new(format!("`{name}` is not what comes of its plan: {steps}"));
            return Err(Failure::refused(match difference {
                Some(difference) => what.why(difference.to_string()),
                None => what,
            }));
        }
    };
    let line = format!("{}: built again in {}, {same}", args.image, report::duration(began.elapsed()));
    report.result(|out| writeln!(out, "{line}")).map_err(|error| Failure::unwritable("stdout", &error))
}

/// What comes of comparing an image with what is built again.
enum Verdict {
    /// All layers are equal to the byte.
    Equal,
    /// These layers are not, counted from 0, and change the same: engines write the layer of a step in two ways.
    Alike(Vec<usize>),
    /// It is another one.
    Differs { steps: String, difference: Option<FirstDifference> },
}

/// The image of a plan by the engine's builder, without its cache.
async fn built(
    engine: &Engine,
    (plan, base): (&Plan, &Base),
    how: How<'_>,
    report: &report::Report,
) -> Result<ImageId, Failure> {
    let local = Local::default();
    let mut build = ordered((plan, base, &local), &Templates::shipped(), engine.builder(), how, Goal::Image)?;
    build.no_cache = true;
    build.platform = Some(plan.foundation.base.platform.to_string());
    build.network = how.network.map(crate::cli::Network::name);
    Ok(engine.build(build, |event: BuildEvent| report.event(&event)).await?)
}

/// The plan that an image was built from.
fn plan_of(image: &Image, name: &str) -> Result<Plan, Failure> {
    let cannot = |why: String| {
        Failure::refused(
            Diagnostic::new(format!("`{name}` cannot be built again from what it tells")).why(why),
        )
    };
    let stamp = Stamp::read(&image.labels);
    let stamp = stamp.ok_or_else(|| cannot("it does not say what it was built from".to_owned()))?;
    let env = image.env.iter().filter_map(|variable| variable.split_once('='));
    let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let plan = stamp.restored(&env, &image.labels);
    let plan = plan.map_err(|lacking| cannot(format!("it keeps back {}", lacking.join(", "))))?;
    if plan.foundation.templates != Templates::shipped().digest() {
        let by = format!("it was built by ipybox {} with other templates than these", plan.ipybox);
        return Err(cannot(by));
    }
    if plan.foundation.installer.version == "custom" {
        return Err(cannot("it was built with an installer of somebody's own".to_owned()));
    }
    Ok(plan)
}

/// Refuses a plan that this program cannot have made: what an image says becomes a part of commands.
fn check(plan: &Plan, base: &Base, name: &str) -> Result<(), Failure> {
    let Foundation { interpreter, provenance, installer, apt, wishes, env, template, servers_lock, .. } =
        &plan.foundation;
    let templates = Templates::shipped();
    let is_of_base = *provenance == Provenance::Base
        && base.pythons.iter().any(|python| python.interpreter == *interpreter);
    let debian = apt.iter().chain(wishes).chain(&plan.packages.build_apt);
    let is_ours = is_of_base
        && Installer::of(&base.platform).as_ref() == Some(installer)
        && debian.into_iter().all(|package| variant::package(package).is_ok())
        && env.keys().chain(plan.finish.labels.keys()).all(|name| is_plain(name))
        && ["server.tera", "extend.tera"].contains(&template.as_str())
        && templates.get(&format!("runtime/{servers_lock}")).is_some();
    if is_ours {
        return Ok(());
    }
    let what = Diagnostic::new(format!("`{name}` cannot be built again from what it tells"));
    Err(Failure::refused(
        what.why("its interpreter, its installer or a name in it is none of this program and its base"),
    ))
}

/// Whether a name is one wherever it stands.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte))
}

/// The base of a plan, by its id.
async fn base_of(plan: &Plan, engine: &Engine, cache: &std::path::Path) -> Result<Base, Failure> {
    let planned = &plan.foundation.base;
    for reference in [&planned.private_tag(), &planned.reference] {
        if let Some(base) = Base::of(engine, reference, cache).await?
            && base.id == planned.id
        {
            return Ok(Base { reference: planned.reference.clone(), ..base });
        }
    }
    let what = format!("the base `{}` ({}) is not here any more", planned.reference, planned.id.short());
    Err(Failure::refused(Diagnostic::new(what).advice("pull it by its digest, if its registry has it still")))
}

/// Compares an image with what is built again.
async fn compare(engine: &Engine, image: &Image, again: &ImageId) -> Result<Verdict, Failure> {
    let Some(built) = engine.image(again.as_str()).await? else {
        return Err(Failure::refused(Diagnostic::new("somebody has removed what was built again")));
    };
    let (had, has) = (image.layers.len(), built.layers.len());
    let other = if had == has {
        said_otherwise(image, &built).map(|what| format!("its `{what}` is another one"))
    } else {
        Some(format!("it has {had} layers, and {has} when it is built again"))
    };
    if let Some(steps) = other {
        return Ok(Verdict::Differs { steps, difference: None });
    }
    let pairs = image.layers.iter().zip(&built.layers).enumerate();
    let differ: Vec<_> = pairs.filter(|(_, (one, other))| one != other).map(|(number, _)| number).collect();
    if differ.is_empty() {
        return Ok(Verdict::Equal);
    }
    let failed = |error: io::Error| Failure::unwritable("what is compared", &error);
    // Whoever is interrupted leaves none of them.
    let files = [NamedTempFile::new().map_err(failed)?, NamedTempFile::new().map_err(failed)?];
    engine.save(&image.id, files[0].as_file()).await?;
    engine.save(again, files[1].as_file()).await?;
    let places =
        files.each_ref().map(|file| Place::DockerArchive { file: file.path().to_owned(), name: None });
    let numbers = differ.clone();
    let comparing = tokio::task::spawn_blocking(move || first_difference(&places, &numbers));
    let ended = |error: tokio::task::JoinError| Failure::refused(Diagnostic::new(error.to_string()));
    let Some((number, difference)) = engine.unless_interrupted(comparing).await?.map_err(ended)? else {
        return Ok(Verdict::Alike(differ));
    };
    let history = engine.history(&image.id).await?;
    let steps: Vec<&Layer> = history.iter().rev().filter(|layer| layer.bytes > 0).collect();
    let step = match steps.get(number) {
        Some(layer) if steps.len() == had => format!(", `{}`,", title(&layer.command)),
        _ => String::new(),
    };
    let steps = format!("layer {} of {had}{step} differs", number + 1);
    Ok(Verdict::Differs { steps, difference: Some(difference) })
}

/// What the configuration of an image says, and that of what is built again says otherwise, by Docker's name.
fn said_otherwise<'a>(image: &'a Image, built: &'a Image) -> Option<&'a str> {
    let mut names = image.settings.keys().chain(built.settings.keys());
    names.find(|name| image.settings.get(*name) != built.settings.get(*name)).map(String::as_str)
}

/// The first of these layers of two images that changes something else, and what.
fn first_difference(places: &[Place; 2], numbers: &[usize]) -> Option<(usize, FirstDifference)> {
    let unread = |number: usize, error: &StoredError| {
        let what = format!("what differs cannot be told: {}", error.refusal);
        Some((number, FirstDifference { path: String::new(), what }))
    };
    let opened = (Stored::open(&places[0], None), Stored::open(&places[1], None));
    let (one, other) = match &opened {
        (Ok(one), Ok(other)) => (one, other),
        (Err(error), _) | (_, Err(error)) => return unread(*numbers.first()?, error),
    };
    let mut comparison = Comparison::new(one, other);
    numbers.iter().find_map(|&number| match comparison.of_layer(number) {
        Ok(difference) => difference.map(|difference| (number, difference)),
        Err(error) => unread(number, &error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::User;
    use crate::deps::Spec;
    use crate::plan::{Materials, Target};
    use crate::request::Request;
    use crate::variant::Variant;

    #[test]
    fn what_no_plan_of_this_program_says_is_not_built() {
        let base = Base::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/base.json").as_ref()).unwrap();
        let (spec, variant) =
            (Spec::parse("rich = \"*\"\n").unwrap(), Variant::read("kernel", None).unwrap());
        let request = Request::new(&variant.name, User::Root);
        let materials = Materials { installer: Installer::of(&base.platform), ..Materials::default() };
        let target = Target::choose(&request, &spec, &variant, &base, &materials).unwrap();
        let plan = Plan::resolve(&request, &spec, &variant, &base, target, materials).unwrap();
        check(&plan, &base, "x").unwrap();
        let spoils: [fn(&mut Plan); 9] = [
            |plan| plan.foundation.interpreter.path = "/tmp/x; id".into(),
            |plan| plan.foundation.provenance = Provenance::Archive,
            |plan| plan.foundation.installer.sha256 = "0".repeat(64),
            |plan| plan.foundation.apt.push("a; id".to_owned()),
            |plan| plan.foundation.wishes.push("$(id)".to_owned()),
            |plan| plan.packages.build_apt.push("-o=x".to_owned()),
            |plan| drop(plan.foundation.env.insert("A\nRUN id".to_owned(), String::new())),
            |plan| plan.foundation.template = "../server.tera".to_owned(),
            |plan| plan.foundation.servers_lock = "../server.txt".to_owned(),
        ];
        for (number, spoil) in spoils.iter().enumerate() {
            let mut spoilt = plan.clone();
            spoil(&mut spoilt);
            assert!(check(&spoilt, &base, "x").is_err(), "{number}");
        }
    }
}
