//! `ipybox sandbox up`: the one container of a user of a project.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::json;
use sha2::{Digest, Sha256};

use super::super::build;
use super::super::{Caller, Failure};
use super::Told;
use super::mount;
use crate::archive::hexadecimal;
use crate::cli::{MountArg, UpArgs};
use crate::diagnostic::Diagnostic;
use crate::engine::{Build, Engine, Folder, Image, KnownEngines};
use crate::inputs::folder::BuildFolder;
use crate::inputs::hashes::KnownHashes;
use crate::reference::Reference;
use crate::report::Work;
use crate::sandbox::{self, Brought, Outcome, Owner, SandboxError, Settings, Up, image_of};

/// The label of images that are built from somebody's Dockerfile, with the digest of its folder.
pub(in crate::cmd) const FOLDER_LABEL: &str = "ipybox.sandbox.folder";

pub(super) async fn run(mut args: UpArgs, caller: &mut Caller) -> Result<(), Failure> {
    let cache = caller.cache(args.cache_dir.clone())?;
    let owner = Owner { project: args.owner.project.clone(), user: args.owner.user.clone() };
    let engine = super::super::engine(&args.engine, &KnownEngines::in_cache(&cache), caller).await?;
    let mounts = mounts(&args, &engine).await?;
    let (tag, image) = Box::pin(image(&args, &owner, &engine, &cache, caller)).await?;
    let settings = settings(&mut args, &tag, &image, mounts)?;
    let token = format!("{:032x}{:032x}", rand::random::<u128>(), rand::random::<u128>());
    let up = sandbox::up(&engine, &owner, &settings, &image, &token, args.wait);
    let up = match Box::pin(up).await {
        Ok(up) => up,
        Err(SandboxError::Engine(error)) => return Err(error.into()),
        Err(error) => return Err(Failure::refused(error.diagnostic())),
    };
    tell(&up, &settings, &image, &cache, args.json, &engine, caller)
}

/// The image that is asked for, built where it is not fresh, and what it is called.
async fn image(
    args: &UpArgs,
    owner: &Owner,
    engine: &Engine,
    cache: &Path,
    caller: &mut Caller,
) -> Result<(Reference, Image), Failure> {
    let tag = args.tag.clone().map_or_else(|| image_of(&owner.project).parse(), Ok);
    let tag: Reference = tag.map_err(|error| Failure::usage(Diagnostic::new(format!("{error}"))))?;
    let id = if let Some(dockerfile) = &args.file {
        from_dockerfile(dockerfile, &tag, engine, cache, caller).await?
    } else if args.dependencies.is_empty() {
        match engine.image(&tag.to_string()).await? {
            Some(image) => return Ok((tag, image)),
            None => {
                let (began, work) = (Instant::now(), Work::Pull(tag.to_string()));
                caller.report.began(&work);
                engine.pull(&tag, None, |layer| caller.report.layer(&layer)).await?;
                caller.report.ended(&work, began.elapsed());
                tag.to_string()
            }
        }
    } else {
        let (image, steps) = args.build().map_err(|why| {
            let what = Diagnostic::new("the image cannot be built from what is asked for").why(why.trim());
            Failure::usage(what.advice("correct it, or look for `IPYBOX_` in the environment"))
        })?;
        Box::pin(build::fresh_image(image, steps, engine, &tag, caller)).await?.to_string()
    };
    match engine.image(&id).await? {
        Some(image) => Ok((tag, image)),
        None => Err(Failure::refused(Diagnostic::new(format!("the image `{tag}` is gone again")))),
    }
}

/// The id of the image of a Dockerfile, built where something in its folder has changed.
async fn from_dockerfile(
    dockerfile: &Path,
    tag: &Reference,
    engine: &Engine,
    cache: &Path,
    caller: &Caller,
) -> Result<String, Failure> {
    let read = BuildFolder::read(dockerfile, &KnownHashes::in_cache(cache));
    let BuildFolder { context, dockerfile: name, digest, images } =
        read.map_err(|error| Failure::refused(error.diagnostic()))?;
    let digest = with_images(digest, &images, engine).await?;
    let there = engine.image(&tag.to_string()).await?;
    let report = &caller.report;
    let shown = dockerfile.display();
    match there.as_ref().map(|image| image.labels.get(FOLDER_LABEL)) {
        Some(Some(known)) if *known == digest => {
            return Ok(there.expect("it has labels").id.to_string());
        }
        Some(Some(_)) => {
            let what =
                format!("{tag}: `{shown}`, something in its folder, or an image it is built on, has changed");
            report.note(&what);
        }
        Some(None) => report.note(&format!("{tag} was not built from `{shown}`")),
        None => report.note(&format!("{tag} is not there yet")),
    }
    let build = Build {
        dockerfile: name,
        labels: HashMap::from([(FOLDER_LABEL.to_owned(), digest)]),
        build_args: caller.environment.proxies.clone(),
        ..Build::of(context)
    };
    let (began, work) = (Instant::now(), Work::Build { steps: 0 });
    report.began(&work);
    let image = engine.build(build, |event| report.event(&event)).await?;
    report.ended(&work, began.elapsed());
    engine.tag(&image, tag).await?;
    Ok(image.to_string())
}

/// The digest of a folder and the images that its Dockerfile names, as far as the engine has them: names move.
async fn with_images(digest: String, images: &BTreeSet<String>, engine: &Engine) -> Result<String, Failure> {
    let mut all = Sha256::new();
    all.update(digest);
    for name in images {
        if let Some(image) = engine.image(name).await? {
            all.update(format!("{name}\0{}\0", image.id));
        }
    }
    Ok(hexadecimal(&all.finalize()))
}

/// The folders that are mounted, by their places.
async fn mounts(args: &UpArgs, engine: &Engine) -> Result<BTreeMap<String, Folder>, Failure> {
    let mut mounts = BTreeMap::new();
    // Folders of another host are its engine's to judge.
    let own = if args.mount.is_empty() || !engine.is_local() {
        Vec::new()
    } else {
        let info = engine.unless_interrupted(engine.info()).await??;
        engine.socket().map(Path::to_owned).into_iter().chain([PathBuf::from(info.folder)]).collect()
    };
    for MountArg { folder, place, is_read_only } in &args.mount {
        let source = if engine.is_local() {
            mount::checked(folder, &args.give_away, &own)?
        } else {
            folder.display().to_string()
        };
        let place = place.as_ref().unwrap_or(&args.mount_at);
        let folder = Folder { source, is_read_only: *is_read_only };
        if args.volume.contains(place) {
            let what = Diagnostic::new(format!("a folder and a volume are mounted at `{place}`"));
            return Err(Failure::usage(what.advice("give each its own place")));
        }
        if mounts.insert(place.clone(), folder).is_some() {
            let what = Diagnostic::new(format!("two folders are mounted at `{place}`"));
            return Err(Failure::usage(what.advice("give each its place: `--mount DIR:PATH`")));
        }
    }
    Ok(mounts)
}

/// What the arguments say, checked.
fn settings(
    args: &mut UpArgs,
    tag: &Reference,
    image: &Image,
    mounts: BTreeMap<String, Folder>,
) -> Result<Settings, Failure> {
    if let Some(network) = &args.network {
        // Also that of a container (`container:`) or of any process (`ns:`).
        let gives_away = network == "host" || network.is_empty() || network.contains(':');
        if gives_away {
            let what = Diagnostic::new(format!("the network `{}` is refused", network.escape_debug()));
            let why = "whoever runs in the container would reach what only this host may";
            return Err(Failure::refused(
                what.why(why).advice("use `none`, or a network of the engine's own"),
            ));
        }
    }
    let changes_rules = |name: &String| {
        let name = name.to_ascii_uppercase();
        ["ALL", "NET_ADMIN", "SYS_ADMIN"].contains(&name.strip_prefix("CAP_").unwrap_or(&name))
    };
    if let Some(name) = args.capability.iter().find(|name| changes_rules(name))
        && !args.allow_domain.is_empty()
    {
        let what = Diagnostic::new(format!("`--allow-domain` means nothing beside `--capability {name}`"));
        let why = "whoever runs in the container could change the rules of its firewall";
        return Err(Failure::usage(what.why(why).advice("leave out one of them")));
    }
    // A folder inside the one that its commands begin in is no other beginning.
    let is_inside = !image.workdir.is_empty() && Path::new(&args.mount_at).starts_with(&image.workdir);
    let is_placed = mounts.contains_key(&args.mount_at) && !is_inside;
    let network = args.network.take().filter(|network| network != "default");
    Ok(Settings {
        image: tag.to_string(),
        command: (!args.command.is_empty()).then(|| std::mem::take(&mut args.command)),
        user: args.run_as.take(),
        workdir: is_placed.then(|| std::mem::take(&mut args.mount_at)),
        mounts,
        volumes: args.volume.drain(..).collect(),
        env: args.env.drain(..).collect(),
        memory: args.memory,
        milli_cpus: args.cpus,
        pids: args.pids,
        is_read_only: args.read_only,
        network,
        allowed: args.allow_domain.drain(..).collect(),
        runtime: args.runtime.take(),
        capabilities: args.capability.drain(..).collect(),
        ports: args.port.drain(..).collect(),
        has_token: !args.no_token,
    })
}

fn tell(
    up: &Up,
    settings: &Settings,
    image: &Image,
    cache: &Path,
    as_json: bool,
    engine: &Engine,
    caller: &Caller,
) -> Result<(), Failure> {
    let container = &up.inspected.container;
    let brought = Brought::of(image, settings);
    let variable = brought.token_variable().filter(|_| settings.has_token);
    let token = variable.and_then(|variable| {
        let values = up.inspected.env.iter();
        values.filter_map(|entry| entry.strip_prefix(variable)?.strip_prefix('=')).next_back()
    });
    let token_file = token.map(|token| keep_token(cache, &container.name, token)).transpose()?;
    let server = brought.ports.iter().find_map(|port| container.ports.get(port));
    let server = server.or_else(|| container.ports.values().next());
    let address = server.filter(|_| engine.is_local()).map(|address| format!("http://{address}"));
    let report = &caller.report;
    for warning in &up.warnings {
        report.warning(warning, "what it may reach is less than was asked for");
    }
    for why in &up.why {
        report.note(&format!("replaced, since it had another setting: {why}"));
    }
    let told = Told::of(container);
    let written = if as_json {
        let workdir = settings.workdir.as_deref();
        let mut json = json!(told);
        json["outcome"] = up.outcome.word().into();
        json["why"] = json!(up.why);
        json["address"] = json!(address);
        json["token"] = json!(token);
        json["token_file"] = json!(token_file);
        json["workdir"] = json!(workdir.unwrap_or(image.workdir.as_str()));
        report.result(|out| writeln!(out, "{json:#}"))
    } else {
        report.result(|out| {
            let after = match up.outcome {
                Outcome::Running => "runs already",
                Outcome::Started => "started",
                Outcome::Created => "created",
                Outcome::Replaced => "created in place of another",
            };
            writeln!(out, "{}: {after}", told.name)?;
            for (port, address) in &container.ports {
                writeln!(out, "  port {port}  {address}")?;
            }
            if let Some(address) = &address {
                writeln!(out, "  address    {address}")?;
            }
            match (token, &token_file) {
                (Some(token), Some(file)) => {
                    writeln!(out, "  token      {token}, also in {}", file.display())
                }
                _ => Ok(()),
            }
        })
    };
    written.map_err(|error| Failure::unwritable("stdout", &error))
}

/// Keeps a token where only its user reads it.
fn keep_token(cache: &Path, name: &str, token: &str) -> Result<PathBuf, Failure> {
    let file = token_file(cache, name);
    let write = || {
        let folder = file.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        if fs::read_to_string(&file).is_ok_and(|known| known == token) {
            return Ok(());
        }
        let unfinished = folder.join(format!("{name}.{:016x}", rand::random::<u64>()));
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true).mode(0o600).open(&unfinished)?.write_all(token.as_bytes())?;
        fs::rename(&unfinished, &file)
    };
    write().map_err(|error| Failure::unwritable(&format!("`{}`", file.display()), &error))?;
    Ok(file)
}

/// The file with the token of a container.
pub(super) fn token_file(cache: &Path, name: &str) -> PathBuf {
    cache.join("tokens").join(name)
}
