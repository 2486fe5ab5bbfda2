//! Caches that machines share: what wheels become is taken from them before any is fetched, and given to one of them once all
//! images are there. Nothing depends on them: what they do not give is made here, and where they take nothing a line says so.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::pin::pin;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use super::push::failed;
use super::registries::Registries;
use super::{Caller, Failure};
use crate::cli::BuildArgs;
use crate::credentials::AuthFiles;
use crate::diagnostic::{Diagnostic, Fix};
use crate::engine::LayerEvent;
use crate::inputs::trust;
use crate::oci::blobs::Packed;
use crate::oci::shared::{Offer, Offers, Place, Untaken};
use crate::oci::store::Store;
use crate::reference::Reference;
use crate::registry::{Patience, Pushed, RegistryError, Summary};
use crate::report::{self, Report, Work};

/// Segments that are taken from one cache at once.
const AT_ONCE: usize = 8;

/// How often it is told how far one has come, at most.
const TICK: Duration = Duration::from_millis(200);

/// How long a registry may be silent, and for how long it is tried: less than where an image has to get there.
const SILENCE: Duration = Duration::from_secs(20);
const TRIED: Duration = Duration::from_secs(60);

/// The caches of one run.
pub(super) struct Sharing {
    from: Vec<Source>,
    to: Option<Reference>,
    store: Store,
    files: AuthFiles,
    certificates: Option<Vec<u8>>,
    /// The keys of the segments that the images of this run are made of.
    used: RefCell<BTreeSet<String>>,
}

/// A cache that is read.
struct Source {
    name: Reference,
    /// What it has, once it was asked; `None` where it has nothing to give.
    cache: OnceCell<Option<Cache>>,
    /// Whether it has stopped answering.
    is_lost: Cell<bool>,
}

struct Cache {
    registries: Registries,
    offers: Offers,
}

impl Sharing {
    /// Those that are asked for, of a run that makes images of these names. Nothing is contacted.
    ///
    /// # Errors
    ///
    /// Where an image and a cache would have one name.
    pub(super) fn of<'a>(
        args: &BuildArgs,
        names: impl IntoIterator<Item = &'a Reference>,
        caller: &Caller,
    ) -> Result<Option<Self>, Failure> {
        let (from, to) = (&args.sharing.cache_from, &args.sharing.cache_to);
        if args.check || from.is_empty() && to.is_none() {
            return Ok(None);
        }
        let full = |name: &Reference| (name.canonical(), name.tag().map(str::to_owned));
        if let Some(to) = to
            && names.into_iter().any(|name| full(name) == full(to))
        {
            let what = Diagnostic::new(format!("`{to}` is the name of an image, and of the cache as well"));
            return Err(Failure::usage(what.advice("give the cache another name with `--cache-to`")));
        }
        // Who wants everything anew takes nothing of others.
        let from = from.iter().filter(|_| !args.no_cache);
        let source = |name: &Reference| Source {
            name: name.clone(),
            cache: OnceCell::new(),
            is_lost: Cell::new(false),
        };
        let environment = &caller.environment;
        Ok(Some(Self {
            from: from.map(source).collect(),
            to: to.clone(),
            store: Store::in_cache(&caller.cache(args.image.means.cache_dir.clone())?),
            files: environment.engine.auth_files(),
            certificates: trust::bundle(environment.ssl_cert_file.as_deref(), args.steps.ca_cert.as_deref())?,
            used: RefCell::default(),
        }))
    }

    /// Notes what an image of this run is made of, or would be if it were not there already.
    pub(super) fn used(&self, keys: impl IntoIterator<Item = String>) {
        self.used.borrow_mut().extend(keys);
    }

    /// Takes segments into the store that it lacks, as far as a cache has them; they are told by the names of their packages.
    pub(super) async fn take(&self, packages: &BTreeMap<String, String>, place: Place<'_>, report: &Report) {
        for source in self.from.iter().filter(|source| !source.is_lost.get()) {
            let lacking = packages.iter().filter(|(key, _)| self.store.segment(key).is_none());
            let lacking: Vec<_> = lacking.collect();
            if lacking.is_empty() {
                return;
            }
            let looked = source.cache.get_or_init(async || self.looked(&source.name, report).await);
            let Some(cache) = looked.await else { continue };
            let offered = |(key, package)| Some((key, package, cache.offers.0.get(key)?));
            let offered: Vec<_> = lacking.into_iter().filter_map(offered).collect();
            if !offered.is_empty() {
                self.take_from(source, cache, offered, place, report).await;
            }
        }
    }

    /// What a cache has. One that is not there yet is not talked about.
    async fn looked(&self, name: &Reference, report: &Report) -> Option<Cache> {
        let looking = async {
            let registries = self.registries(name).await?;
            let by = name.digest().or(name.tag()).unwrap_or("latest");
            let manifest = registries.repository(name)?.manifest(by).await.map_err(failed)?;
            let Some(manifest) = manifest else { return Ok(None) };
            let offers = Offers::read(&manifest).ok_or_else(|| foreign(name))?;
            Ok::<_, Failure>(Some(Cache { registries, offers }))
        };
        looking.await.unwrap_or_else(|failure| {
            told(&format!("nothing is taken from the cache `{name}`"), failure, report);
            None
        })
    }

    async fn registries(&self, name: &Reference) -> Result<Registries, Failure> {
        let patience = Patience { silence: SILENCE, total: TRIED, ..Patience::default() };
        Registries::with([name], self.certificates.as_deref(), &self.files, &patience).await
    }

    async fn take_from(
        &self,
        Source { name, is_lost, .. }: &Source,
        cache: &Cache,
        offered: Vec<(&String, &String, &Offer)>,
        place: Place<'_>,
        report: &Report,
    ) {
        let Ok(repository) = cache.registries.repository(name) else { return };
        let (began, work) = (Instant::now(), Work::Import(name.to_string()));
        report.began(&work);
        let progress = Progress::of(report);
        let taking = stream::iter(offered).map(async |(key, package, offer)| {
            let Packed { digest, size } = &offer.packed;
            let tell = |done| progress.coming("Downloading", digest, done, *size);
            let taken = offer.fetch(key, place, &repository, &self.store, tell).await;
            if taken.is_ok() {
                progress.event("Pull complete", digest, None);
            }
            (package, offer, taken)
        });
        let mut taking = pin!(taking.buffer_unordered(AT_ONCE));
        let (mut count, mut bytes) = (0, 0);
        while let Some((package, offer, taken)) = taking.next().await {
            match taken {
                Ok(is_new) => {
                    count += u64::from(is_new);
                    bytes += u64::from(is_new) * offer.packed.size;
                }
                Err(Untaken::Registry(error)) if is_of_all(&error) => {
                    is_lost.set(true);
                    told(&format!("nothing more is taken from the cache `{name}`"), failed(error), report);
                    break;
                }
                Err(error) => report.note(&format!("`{package}` of the cache `{name}` is not used: {error}")),
            }
        }
        report.ended(&work, began.elapsed());
        report.note(&format!("{name}: {count} packages taken, {}", report::size(bytes)));
    }

    /// Gives what the images of this run are made of to the cache that is written. Images are there whatever comes of it.
    pub(super) async fn give(&self, report: &Report, interrupt: &CancellationToken) {
        let Some(name) = &self.to else { return };
        let stays = format!("the cache `{name}` stays as it is");
        let nothing =
            || report.note(&format!("{stays}: packages of this run's images were put into no layers"));
        let keys = self.used.borrow().clone();
        if keys.is_empty() {
            return nothing();
        }
        let (began, work) = (Instant::now(), Work::Export(name.to_string()));
        report.began(&work);
        let giving = self.given(name, keys, report, interrupt);
        match interrupt.run_until_cancelled(giving).await {
            Some(Ok((0, _))) => nothing(),
            Some(Ok((count, given))) => {
                report.ended(&work, began.elapsed());
                report.note(&match given {
                    None => format!("{name}: has all {count} packages already"),
                    Some(Summary { sent, bytes, there, mounted, .. }) => format!(
                        "{name}: {count} packages, {} sent in {sent} blobs, {} there",
                        report::size(bytes),
                        there + mounted
                    ),
                });
            }
            Some(Err(failure)) => told(&stays, failure, report),
            None => report.note(&stays),
        }
    }

    /// How many segments the cache has now, and what that took; nothing where it had all of them.
    async fn given(
        &self,
        name: &Reference,
        used: BTreeSet<String>,
        report: &Report,
        interrupt: &CancellationToken,
    ) -> Result<(usize, Option<Summary>), Failure> {
        let registries = self.registries(name).await?;
        let repository = registries.repository(name)?;
        let tag = name.tag().unwrap_or("latest");
        let mut all_here = false;
        loop {
            let (store, keys, interrupt) = (self.store.clone(), used.clone(), interrupt.clone());
            let packing = tokio::task::spawn_blocking(move || {
                Offers::of(&store, &keys, all_here, &|| interrupt.is_cancelled())
            });
            let offers = packing.await.unwrap_or_else(|error| Err(io::Error::other(error)));
            let mut offers = offers.map_err(|error| {
                Failure::refused(Diagnostic::new("packages cannot be packed").why(error.to_string()))
            })?;
            let there = repository.manifest(tag).await.map_err(failed)?;
            if let Some(there) = &there {
                let known = Offers::read(there).ok_or_else(|| foreign(name))?;
                // What an image that was there already is made of may be in the cache alone.
                let lacking = |key: &String| !all_here && used.contains(key) && !offers.0.contains_key(key);
                let kept: Vec<_> = known.0.into_iter().filter(|(key, _)| lacking(key)).collect();
                offers.0.extend(kept);
            }
            let (count, artifact) = (offers.0.len(), offers.artifact(&self.store));
            if count == 0 || there.is_some_and(|there| there.digest() == artifact.manifest.digest()) {
                return Ok((count, None));
            }
            let progress = Progress::of(report);
            let tell = |Pushed { digest, done, size, arrival }: Pushed<'_>| match arrival {
                None => progress.coming("Pushing", digest, done, size),
                Some(_) => progress.event("Pushed", digest, None),
            };
            match repository.push(&artifact, &[tag], tell).await {
                // What was taken from elsewhere may be packed otherwise here, and is no longer where it was.
                Err(RegistryError::Content { .. }) if !all_here => all_here = true,
                pushed => return Ok((count, Some(pushed.map_err(failed)?))),
            }
        }
    }
}

/// How far segments have come.
struct Progress<'a> {
    report: &'a Report,
    /// When it was told of each last, by its digest.
    last: RefCell<BTreeMap<String, Instant>>,
}

impl<'a> Progress<'a> {
    fn of(report: &'a Report) -> Self {
        Self { report, last: RefCell::default() }
    }

    /// Tells how many bytes have come, unless it was told a moment ago.
    fn coming(&self, state: &str, digest: &str, done: u64, total: u64) {
        let mut last = self.last.borrow_mut();
        if last.get(digest).is_none_or(|last| last.elapsed() >= TICK) {
            last.insert(digest.to_owned(), Instant::now());
            self.event(state, digest, Some((done, total)));
        }
    }

    fn event(&self, state: &str, digest: &str, bytes: Option<(u64, u64)>) {
        self.report.layer(&LayerEvent {
            layer: report::in_short(digest).to_owned(),
            state: state.to_owned(),
            done: bytes.map(|(done, _)| done),
            total: bytes.map(|(_, total)| total),
        });
    }
}

/// Whether others of the same cache would not come either.
fn is_of_all(error: &RegistryError) -> bool {
    matches!(
        error,
        RegistryError::Unreachable { .. }
            | RegistryError::Busy { .. }
            | RegistryError::Denied { .. }
            | RegistryError::Untrusted { .. }
            | RegistryError::Elsewhere { .. }
    )
}

fn foreign(name: &Reference) -> Failure {
    let what = Diagnostic::new(format!("`{name}` is no cache of packages, but something else"));
    Failure::refused(what.advice("name a cache that nothing else has for its name"))
}

/// Warns of a failure that nothing fails with.
fn told(what: &str, failure: Failure, report: &Report) {
    let Some(Diagnostic { what: reason, why, fix, .. }) = failure.diagnostics.into_iter().next() else {
        return;
    };
    let why = if why.is_empty() { String::new() } else { format!(": {why}") };
    let advice = match fix {
        Some(Fix::Advice(advice)) => advice,
        _ => String::new(),
    };
    report.warning(&format!("{what}: {reason}{why}"), &advice);
}
