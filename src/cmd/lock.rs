//! `ipybox lock`: what a list asks for, resolved once and written beside it; and what builds make of that.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use sha2::{Digest, Sha256};
use tempfile::{NamedTempFile, TempDir};

use super::build::{self, Gathered, How};
use super::fresh::{lines, placed};
use super::{Asked, Caller, Failure, FailureKind, Planned};
use crate::archive::{files_into, hexadecimal};
use crate::cli::LockArgs;
use crate::deps::Name;
use crate::diagnostic::{Diagnostic, Document};
use crate::engine::Spec;
use crate::freshness::Change;
use crate::image::dockerfile::Goal;
use crate::installer::{Resolve, ResolveError, Upgrade, resolve};
use crate::lock::{Difference, Lock, LockError, Reasons, Resolution, Tags, Wheel, differences, versions};
use crate::plan::{Packages, StepId};
use crate::report::{self, Report, Work};
use crate::request::{Locking, Request};

/// The largest lock that is read, in bytes.
const MAX_BYTES: u64 = 64_000_000;

/// Why a lock has to be up to date before a build begins.
const OF_TAG: &str = "`{lock.short}` in a tag of the image tells its digest";

/// A lock of a request, where it has a place.
#[derive(Debug)]
pub(super) enum Kept {
    /// There is none.
    Nothing,
    /// One of ours.
    Ours(Box<Lock>),
    /// One of another tool: its versions.
    Versions { by: String, versions: String },
}

impl Kept {
    /// Its versions, for an installer that keeps them as long as they will do.
    fn preferences(&self) -> Option<String> {
        match self {
            Self::Nothing => None,
            Self::Ours(lock) => Some(lock.preferences()),
            Self::Versions { versions, .. } => Some(versions.clone()),
        }
    }
}

/// What a plan has to do with a lock.
#[derive(Debug)]
pub(super) enum Standing {
    /// There is none, or none of ours.
    Unlocked,
    /// The plan installs what it says.
    Locked,
    /// The plan installs what was resolved for this build alone. This is what was asked for.
    ForNow(Packages),
    /// It is not what the plan asks for any more.
    Stale(Box<Lock>, Vec<Change>),
}

/// How versions are chosen anew.
#[derive(Debug, Default)]
struct Wishes {
    upgrade: Upgrade,
    exclude_newer: Option<String>,
}

pub(super) async fn run(mut args: LockArgs, caller: &mut Caller) -> Result<(), Failure> {
    let begun = Instant::now();
    let gathered = Gathered::of(&args.steps, &mut args.image, caller)?;
    let asked = Asked::read(args.image, caller).await?;
    let Some(file) = place(&asked.request) else {
        let what = Diagnostic::new("a list from standard input has no place for a lock beside it");
        return Err(Failure::usage(what.advice("say where it goes with `--lock FILE`")));
    };
    let mut planned = asked.resolve_unlocked(args.steps.ca_cert.as_deref(), caller).await?;
    let kept = read(&file)?;
    let others = args.from.as_deref().map(of_other_tool).transpose()?;
    let is_wanted = args.upgrade || !args.upgrade_package.is_empty() || args.from.is_some();
    let name = file.display().to_string();
    let (earlier, changes) = match &kept {
        Kept::Ours(lock) => (Some(&**lock), lock.changes(&planned.plan)),
        _ => (None, Vec::new()),
    };
    let report = &caller.report;
    if args.check {
        return match earlier {
            Some(_) if changes.is_empty() => {
                report.note(&format!("{name}: up to date"));
                Ok(())
            }
            Some(_) => {
                asked.tell_stale(
                    &format!("{name} is not what the list asks for:"),
                    &changes,
                    &planned,
                    report,
                );
                Err(stale())
            }
            None => {
                report.note(&format!("there is no lock `{name}` of this program"));
                Err(stale())
            }
        };
    }
    let dated = earlier.and_then(|lock| lock.made_for.exclude_newer.clone());
    let is_dated_anew = args.exclude_newer.is_some() && args.exclude_newer != dated;
    if earlier.is_some() && changes.is_empty() && !is_wanted && !is_dated_anew {
        report.note(&format!("{name}: up to date"));
        return tell(&[], args.json, caller);
    }
    let upgrade = match (args.upgrade || is_dated_anew, args.upgrade_package) {
        (true, _) => Upgrade::All,
        (false, names) if names.is_empty() => Upgrade::Needed,
        (false, names) => Upgrade::Packages(names),
    };
    let exclude_newer = args.exclude_newer.or(dated.filter(|_| !args.upgrade));
    let is_upgrade = upgrade != Upgrade::Needed;
    let wishes = Wishes { upgrade, exclude_newer };
    let supplies = gathered.with(asked.secrets(&caller.report)?, &asked, &planned.plan, caller)?;
    let how =
        How { anew: None, network: args.steps.network, epoch: None, supplies: &supplies, sharing: None };
    let preferences = others.or_else(|| kept.preferences());
    let made = made(&asked, &mut planned, (earlier, preferences), &wishes, how, caller).await?;
    made.keep(&file)?;
    let lock = made.lock;
    let report = &caller.report;
    let differences = earlier.map(|earlier| {
        let asked_anew = reasons(&changes, &asked, &planned);
        differences(earlier, &lock, &Reasons { asked: asked_anew, upgrade: is_upgrade })
    });
    for difference in differences.iter().flatten() {
        report.note(&format!("  {difference}"));
    }
    let count = lock.entries.len();
    let what = match &differences {
        None => format!("locked {count} packages"),
        Some(differences) if differences.is_empty() => format!("locked {count} packages, the same as before"),
        Some(differences) => format!("locked {count} packages, {} of them otherwise", differences.len()),
    };
    report.note(&format!("{what}: {name}, in {}", report::duration(begun.elapsed())));
    tell(&differences.unwrap_or_default(), args.json, caller)
}

fn tell(differences: &[Difference], as_json: bool, caller: &Caller) -> Result<(), Failure> {
    if !as_json {
        return Ok(());
    }
    let json = serde_json::to_string_pretty(differences).expect("differences are plain data");
    let written = caller.report.result(|out| writeln!(out, "{json}"));
    written.map_err(|error| Failure::unwritable("stdout", &error))
}

/// A check that found a lock to make.
fn stale() -> Failure {
    let what = Diagnostic::new("the lock is to be made anew").advice("run the same without `--check`");
    Failure { kind: FailureKind::ToDo, ..Failure::refused(what) }
}

/// What the list asks for otherwise, by package.
fn reasons(changes: &[Change], asked: &Asked, planned: &Planned<'_>) -> BTreeMap<Name, String> {
    let mut reasons = BTreeMap::new();
    for placed in placed(changes, asked, planned) {
        let Some(name) = placed.entry() else { continue };
        let asks = planned.plan.packages.requirements.iter().find(|requirement| requirement.name == name);
        let asks = asks.map(|requirement| requirement.alternatives[0].to_string());
        let text = match (placed.place(), asks) {
            (Some(place), Some(versions)) if versions.is_empty() => format!("{place} now asks for it"),
            (Some(place), Some(versions)) => format!("{place} now asks {versions}"),
            (None, None) => "nothing asks for it any more".to_owned(),
            _ => placed.what().to_owned(),
        };
        reasons.insert(name, text);
    }
    reasons
}

/// Where the lock of a request is: where it is told, else beside its first list, else, for the list of a variant, in
/// this folder. One that nobody names has a platform that is asked for in its name.
pub(super) fn place(request: &Request) -> Option<PathBuf> {
    if let Some(file) = &request.lock.file {
        return Some(file.clone());
    }
    let (folder, stem) = match (&request.lock.own, request.dependencies.first()) {
        (Some((folder, name)), _) => (folder.as_path(), name.as_str()),
        (None, Some(list)) if list.as_os_str() == "-" => return None,
        (None, Some(list)) => (list.parent().unwrap_or(Path::new("")), list.file_stem()?.to_str()?),
        (None, None) => (Path::new(""), request.variant.as_str()),
    };
    let stem = if stem == "dependencies" { String::new() } else { stem.replace('.', "-") };
    let platform = request.platform.as_ref().map(|platform| platform.to_string().replace('/', "-"));
    let name = [Some(stem), platform].into_iter().flatten().filter(|part| !part.is_empty());
    let name = name.collect::<Vec<_>>().join("-");
    Some(folder.join(if name.is_empty() { "pylock.toml".to_owned() } else { format!("pylock.{name}.toml") }))
}

/// The lock in a file.
fn read(file: &Path) -> Result<Kept, Failure> {
    let name = file.display().to_string();
    let unreadable =
        |why: String| Failure::refused(Diagnostic::new(format!("cannot read the lock `{name}`")).why(why));
    let text = match Document::read(file, MAX_BYTES) {
        Ok(document) => document.text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Kept::Nothing),
        Err(error) => return Err(unreadable(error.to_string())),
    };
    match Lock::parse(&text) {
        Ok(lock) => Ok(Kept::Ours(Box::new(lock))),
        Err(LockError::Foreign { by }) => match versions(&text) {
            Ok(versions) => Ok(Kept::Versions { by, versions }),
            Err(error) => Err(Failure::refused(error.diagnostic(&name))),
        },
        Err(error) => Err(Failure::refused(error.diagnostic(&name))),
    }
}

/// The versions in a lock of another tool.
fn of_other_tool(file: &Path) -> Result<String, Failure> {
    let name = file.display().to_string();
    let document = Document::read(file, MAX_BYTES).map_err(|error| {
        Failure::refused(Diagnostic::new(format!("cannot read the lock `{name}`")).why(error.to_string()))
    })?;
    versions(&document.text).map_err(|error| Failure::refused(error.diagnostic(&name)))
}

/// The folder of wheels that belong to a lock, from the folder of that.
fn wheels_of(file: &Path) -> String {
    format!("{}.wheels", file.file_stem().and_then(|stem| stem.to_str()).unwrap_or("pylock"))
}

/// A lock that is not written yet, and the wheels that were built for it.
struct Made {
    lock: Lock,
    tags: Tags,
    folder: TempDir,
}

impl Made {
    /// Writes the lock, whole or not at all, and its wheels before it.
    fn keep(&self, file: &Path) -> Result<(), Failure> {
        let folder = match file.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        let written = || {
            for entry in self.lock.entries.values() {
                let Some(path) = &entry.wheel.path else { continue };
                let place = folder.join(path);
                fs::create_dir_all(place.parent().unwrap_or(folder))?;
                let mut unfinished = tempfile_in(place.parent().unwrap_or(folder))?;
                io::copy(&mut fs::File::open(self.folder.path().join(&entry.wheel.file))?, &mut unfinished)?;
                unfinished.persist(place)?;
            }
            let mut unfinished = tempfile_in(folder)?;
            unfinished.write_all(self.lock.write(&self.tags).as_bytes())?;
            unfinished.persist(file).map(drop).map_err(io::Error::from)
        };
        written().map_err(|error| Failure::unwritable(&format!("`{}`", file.display()), &error))
    }
}

/// A file that others may read, once it has a name.
fn tempfile_in(folder: &Path) -> io::Result<NamedTempFile> {
    tempfile::Builder::new().permissions(Permissions::from_mode(0o666)).tempfile_in(folder)
}

impl Asked {
    /// Holds a plan to the lock of its request, where there is one and it is of it.
    pub(super) fn hold(&self, planned: &mut Planned<'_>, caller: &Caller) -> Result<(), Failure> {
        let Locking { file: named, is_demanded, is_in_tag, .. } = &self.request.lock;
        let is_demanded = *is_demanded || *is_in_tag;
        let refused = |what: String| {
            let why = if *is_in_tag { OF_TAG } else { "" };
            Failure::refused(Diagnostic::new(what).why(why).advice("make it with `ipybox lock`"))
        };
        let Some(file) = place(&self.request) else {
            if is_demanded {
                return Err(refused("a list from standard input has no lock beside it".to_owned()));
            }
            return Ok(());
        };
        let name = file.display().to_string();
        match read(&file)? {
            // What is named is meant to be there.
            Kept::Nothing if is_demanded || named.is_some() => {
                Err(refused(format!("there is no lock `{name}`")))
            }
            Kept::Nothing => Ok(()),
            Kept::Versions { by, .. } if is_demanded => {
                Err(Failure::refused(LockError::Foreign { by }.diagnostic(&name)))
            }
            Kept::Versions { by, .. } => {
                let advice = "`ipybox lock` takes its versions over; builds resolve anew until then";
                caller
                    .report
                    .warning(&format!("the lock `{name}` was made by `{by}`, and is not used"), advice);
                Ok(())
            }
            Kept::Ours(lock) => {
                let changes = lock.changes(&planned.plan);
                if !changes.is_empty() {
                    planned.standing = Standing::Stale(lock, changes);
                    return Ok(());
                }
                if lock.is_of_another_base(&planned.plan) {
                    let what = format!(
                        "`{name}` was made on {} ({}); what it needs of that is in this base, too",
                        lock.made_for.base,
                        lock.made_for.base_id.trim_start_matches("sha256:").get(..12).unwrap_or_default()
                    );
                    caller.report.note(&what);
                }
                install_from(&lock, &file, planned)
            }
        }
    }

    /// Tells why a lock is not what is asked for.
    pub(super) fn tell_stale(&self, what: &str, changes: &[Change], planned: &Planned<'_>, report: &Report) {
        report.note(what);
        for line in lines(&placed(changes, self, planned)) {
            report.note(&line);
        }
    }

    /// Refuses a plan whose lock is stale, where nothing but a lock will do.
    pub(super) fn refuse_stale(&self, planned: &Planned<'_>) -> Result<(), Failure> {
        let Locking { is_demanded, is_in_tag, .. } = self.request.lock;
        match &planned.standing {
            Standing::Stale(_, changes) if is_demanded || is_in_tag => {
                let lines = lines(&placed(changes, self, planned));
                let of_tag = is_in_tag.then(|| OF_TAG.to_owned());
                let why = lines.into_iter().chain(of_tag).collect::<Vec<_>>().join("\n");
                let what = Diagnostic::new("the lock is not what the list asks for").why(why);
                Err(Failure::refused(what.advice("bring it up to date with `ipybox lock`")))
            }
            _ => Ok(()),
        }
    }

    /// Brings the lock of a plan up to date where it is stale, and holds the plan to it.
    pub(super) async fn relock(
        &self,
        planned: &mut Planned<'_>,
        how: How<'_>,
        caller: &Caller,
    ) -> Result<(), Failure> {
        let (earlier, changes) = match std::mem::replace(&mut planned.standing, Standing::Unlocked) {
            Standing::Stale(earlier, changes) => (earlier, changes),
            standing => {
                planned.standing = standing;
                return Ok(());
            }
        };
        let file = place(&self.request).expect("what is stale was read from a file");
        let report = &caller.report;
        let of_list = |change: &Change| {
            ["packages.requirements", "packages.bounds", "packages.sources", "packages.indexes"]
                .iter()
                .any(|part| change.path.starts_with(part))
        };
        if earlier.made_for.variant != planned.plan.variant || !changes.iter().all(of_list) {
            let why = lines(&placed(&changes, self, planned)).join("\n");
            let what = format!(
                "the lock `{}` is of another image: {} on {}",
                file.display(),
                earlier.made_for.variant,
                earlier.made_for.base
            );
            let advice =
                "make it anew with `ipybox lock`, or give each image a lock of its own with `--lock FILE`";
            return Err(Failure::refused(Diagnostic::new(what).why(why).advice(advice)));
        }
        self.tell_stale(&format!("{} is brought up to date:", file.display()), &changes, planned, report);
        let asked = reasons(&changes, self, planned);
        let exclude_newer = earlier.made_for.exclude_newer.clone();
        let wishes = Wishes { upgrade: Upgrade::Needed, exclude_newer };
        let kept = (Some(&*earlier), Some(earlier.preferences()));
        let made = made(self, planned, kept, &wishes, how, caller).await?;
        for difference in differences(&earlier, &made.lock, &Reasons { asked, upgrade: false }) {
            report.note(&format!("  {difference}"));
        }
        made.keep(&file)?;
        install_from(&made.lock, &file, planned)
    }
}

impl Asked {
    /// Holds a plan that has no lock to what is resolved for it now, and kept nowhere.
    pub(super) async fn lock_for_now(
        &self,
        planned: &mut Planned<'_>,
        how: How<'_>,
        caller: &Caller,
    ) -> Result<(), Failure> {
        if planned.plan.packages.locked.is_some() {
            return Ok(());
        }
        let wishes = Wishes { upgrade: Upgrade::Needed, exclude_newer: None };
        let made = made(self, planned, (None, None), &wishes, how, caller).await?;
        let built = made.lock.entries.iter().find(|(_, entry)| entry.wheel.path.is_some());
        if let Some((name, _)) = built {
            let what =
                Diagnostic::new(format!("`{name}` is built from its source, and nothing keeps its wheel"));
            return Err(Failure::refused(what.advice("make a lock first, with `ipybox lock`")));
        }
        let locked = planned.plan.clone().with_lock(made.lock.pins());
        planned.standing = Standing::ForNow(std::mem::replace(&mut planned.plan, locked).packages);
        caller.report.note("versions are those of today; `ipybox lock` keeps them");
        Ok(())
    }
}

/// Holds a plan to a lock that is of it.
fn install_from(lock: &Lock, file: &Path, planned: &mut Planned<'_>) -> Result<(), Failure> {
    let folder = file.parent().unwrap_or(Path::new(""));
    for (name, entry) in &lock.entries {
        let Some(path) = &entry.wheel.path else { continue };
        let wheel = folder.join(path);
        if !wheel.is_file() {
            let what = Diagnostic::new(format!(
                "the wheel of `{name}` that `{}` names is not there",
                file.display()
            ));
            let why = format!("`{}` was built when the lock was made, and belongs to it", wheel.display());
            let advice = "restore it, or make the lock anew with `ipybox lock --upgrade-package NAME`";
            return Err(Failure::refused(what.why(why).advice(advice.replace("NAME", name.as_str()))));
        }
        planned.local.wheels.insert(name.clone(), wheel);
    }
    planned.plan = planned.plan.clone().with_lock(lock.pins());
    planned.standing = Standing::Locked;
    Ok(())
}

/// The wheels that a plan has to build, in a folder, as a lock in `file` names them.
async fn wheels(
    asked: &Asked,
    planned: &mut Planned<'_>,
    how: How<'_>,
    (folder, file): (&Path, &Path),
    caller: &Caller,
) -> Result<BTreeMap<Name, Wheel>, Failure> {
    const LABEL: &str = "ipybox.wheels";
    let engine = asked.engine(caller).await?;
    if let Some(refusal) = how.supplies.refusal(engine.builder()) {
        return Err(Failure::refused(refusal));
    }
    let mut sent = 0;
    let image = build::built(&engine, asked, planned, how, Goal::Wheels, caller, &mut sent).await?;
    // It has nothing that could run, and is not started.
    let spec = Spec { label: LABEL, command: Some(&["/none"]), is_locked: true, ..Spec::default() };
    let mut tar = tempfile::tempfile_in(folder).map_err(|error| Failure::unwritable("the wheels", &error))?;
    let copied =
        engine.with_container(&image, spec, async |container| container.copy_out("/wheels", &tar).await);
    Box::pin(copied).await??;
    asked.leave(&engine, &image).await;
    let read = |tar: &mut fs::File| {
        tar.rewind()?;
        let mut wheels = BTreeMap::new();
        for path in files_into(folder, tar)? {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
            let Some(distribution) = name.split('-').next().and_then(Name::parse) else { continue };
            let wheel = Wheel {
                url: None,
                path: Some(format!("{}/{name}", wheels_of(file))),
                size: Some(fs::metadata(&path)?.len()),
                upload_time: None,
                sha256: sha256_of(&path)?,
                is_direct: false,
                file: name,
            };
            wheels.insert(distribution, wheel);
        }
        Ok(wheels)
    };
    read(&mut tar).map_err(|error: io::Error| Failure::unwritable("the wheels", &error))
}

fn sha256_of(path: &Path) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut file = fs::File::open(path)?;
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hexadecimal(&hash.finalize())),
            read => hash.update(&buffer[..read]),
        }
    }
}

/// Resolves anew, on this host. Versions that are preferred are kept as long as they will do.
async fn made(
    asked: &Asked,
    planned: &mut Planned<'_>,
    (earlier, preferences): (Option<&Lock>, Option<String>),
    wishes: &Wishes,
    how: How<'_>,
    caller: &Caller,
) -> Result<Made, Failure> {
    let of_target = |error: LockError| Failure::refused(error.diagnostic("pylock.toml"));
    let tags = Lock::tags(&planned.plan).map_err(of_target)?;
    let program = caller.interrupt.run_until_cancelled(asked.installer_here()).await;
    let program = program.ok_or_else(Failure::interrupted)??;
    let file = place(&asked.request).expect("a lock has a place");
    let folder = tempfile::tempdir().map_err(|error| Failure::unwritable("the wheels", &error))?;
    let (netrc, cache) = (how.supplies.credentials.netrc(), asked.cache().join("packages"));
    let platform = tags.uv_platform();
    let mut built = BTreeMap::new();
    let mut built_for = None;
    loop {
        if planned.plan.packages.builds() && built_for.as_ref() != Some(&planned.plan.packages) {
            let scratch = tempfile::tempdir_in(folder.path());
            let scratch = scratch.map_err(|error| Failure::unwritable("the wheels", &error))?;
            built = wheels(asked, planned, how, (scratch.path(), &file), caller).await?;
            for wheel in built.values() {
                let moved = fs::rename(scratch.path().join(&wheel.file), folder.path().join(&wheel.file));
                moved.map_err(|error| Failure::unwritable("the wheels", &error))?;
            }
            built_for = Some(planned.plan.packages.clone());
        }
        let of_name = |(name, wheel): (&Name, &Wheel)| (name.clone(), folder.path().join(&wheel.file));
        let wheels: Vec<(Name, PathBuf)> = built.iter().map(of_name).collect();
        let (began, work) = (Instant::now(), Work::Resolve);
        caller.report.began(&work);
        let resolving = resolve(Resolve {
            plan: &planned.plan,
            platform: &platform,
            uv: &program,
            environment: &caller.environment.of_installers,
            cache: &cache,
            certificates: how.supplies.certificates.as_deref(),
            netrc: netrc.as_deref(),
            preferences: preferences.as_deref(),
            upgrade: &wishes.upgrade,
            exclude_newer: wishes.exclude_newer.as_deref(),
            wheels: &wheels,
        });
        let resolved =
            caller.interrupt.run_until_cancelled(resolving).await.ok_or_else(Failure::interrupted)?;
        match resolved {
            Ok((pylock, annotated)) => {
                caller.report.ended(&work, began.elapsed());
                let resolution = Resolution {
                    pylock,
                    annotated,
                    installer: planned.plan.foundation.installer.version.clone(),
                    exclude_newer: wishes.exclude_newer.clone(),
                    built,
                };
                let lock = Lock::of(resolution, &planned.plan, earlier).map_err(of_target)?;
                return Ok(Made { lock, tags, folder });
            }
            Err(error) => {
                let ResolveError::Failed { output, exit_code } = &error else {
                    return Err(Failure::refused(error.diagnostic()));
                };
                match asked.learn(planned, StepId::Packages, output, &caller.report) {
                    Some(plan) => planned.plan = plan,
                    None => {
                        let explained = asked.explanation(planned, StepId::Packages, output, *exit_code);
                        return Err(match explained {
                            Some(failure) => Failure { output: output.clone(), ..failure },
                            None => Failure::refused(error.diagnostic()),
                        });
                    }
                }
            }
        }
    }
}
