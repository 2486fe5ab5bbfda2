//! Locked wheels on their way into layers.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::PathBuf;
use std::sync::PoisonError;
use std::time::Duration;

use futures_util::future::{join, try_join_all};
use futures_util::{StreamExt, TryStreamExt, stream};
use sha2::{Digest, Sha256};
use tokio::sync::Mutex;
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio_util::sync::CancellationToken;

use super::compiler::{Compiler, HostPython, cache_tag};
use super::{Failure, LABEL, changed, unassembled};
use crate::archive::hexadecimal;
use crate::cmd::sharing::Sharing;
use crate::deps::Name;
use crate::diagnostic::Diagnostic;
use crate::engine::{Engine, Spec};
use crate::inputs::templates::Templates;
use crate::oci;
use crate::oci::fetch::Fetcher;
use crate::oci::measured::digest;
use crate::oci::rule::Weighed;
use crate::oci::segment::{Entry, Unfinished};
use crate::oci::shared::Place;
use crate::oci::store::{Layer, Owned, Segment, Store};
use crate::oci::wheel::{Environment, Wheel, file_above};
use crate::plan::Pin;
use crate::reference::ImageId;
use crate::report::Report;
use crate::ustar::Ids;

/// What a segment is; counted up where its bytes change.
const FORMAT: &str = "ipybox-segment-3";

/// Keeps a container up as long as something else runs in it.
const STAY: &str = "sleep 20; while :; do count=0; for one in /proc/[0-9]*; do count=$((count + 1)); done; \
    [ $count -gt 1 ] || exit 0; sleep 5; done";

/// When one is left over. It is there while wheels are fetched.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// How many wheels are fetched at once.
const FETCHES: usize = 8;

/// How many compile at once at most, and where an engine does not say how many processors it has.
const COMPILERS: usize = 8;
const IN_DOUBT: usize = 2;

/// Locked wheels on their way into layers of an environment.
pub(super) struct Assembly<'a> {
    pub(super) pins: &'a BTreeMap<Name, Pin>,
    /// Wheels that are files of this host.
    pub(super) local: &'a BTreeMap<Name, PathBuf>,
    pub(super) owned: Owned,
    /// Which of them share a layer.
    pub(super) rule: fn(&[Weighed<'_>]) -> Vec<Vec<usize>>,
    /// The version of the environment's Python.
    pub(super) python: &'a str,
    pub(super) compiled: Compiled<'a>,
    pub(super) templates: &'a Templates,
    pub(super) certificates: Option<&'a [u8]>,
    pub(super) store: Store,
    /// Caches of other machines, where there are any.
    pub(super) sharing: Option<&'a Sharing>,
    pub(super) interrupt: &'a CancellationToken,
}

/// Who compiles modules.
pub(super) enum Compiled<'a> {
    /// Nobody.
    Not,
    /// The Python of an image, in a container of it.
    In(&'a Engine, ImageId),
    /// A Python of this host.
    Here(&'a HostPython),
}

/// What was forgotten in this run, of everything that is made anew: images that are built side by side share wheels, and what
/// one of them has made is as new as another wants it.
#[derive(Debug, Default)]
pub(in crate::cmd) struct Forgotten(std::sync::Mutex<BTreeSet<String>>);

impl Forgotten {
    /// Whether it is still to be forgotten; once.
    fn is_left(&self, key: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key.to_owned())
    }
}

/// A wheel whose segment is not there.
#[derive(Debug, Clone)]
struct Job {
    key: String,
    file: String,
    wheel: PathBuf,
}

/// Wheels whose segments are to be made, while more of them come.
struct Queue {
    jobs: Mutex<UnboundedReceiver<Job>>,
    /// Cancelled where one cannot be had, and the others are of no use.
    is_over: CancellationToken,
}

impl Queue {
    /// Does `work` as long as the others are of use.
    async fn unless_over(&self, work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
        Box::pin(self.is_over.run_until_cancelled(work)).await.unwrap_or(Ok(()))
    }
}

/// What decides the bytes of a wheel's segment, as a digest: whose it is, the version of its environment's Python, and that of
/// the one that compiles its modules, which is empty where none does.
pub(super) fn key(pin: &Pin, owned: &Owned, python: &str, bytecode: &str) -> String {
    let Owned { prefix, ids: Ids { uid, gid }, umask } = owned;
    let whose = format!("{uid}\0{gid}\0{umask:o}");
    let parts = [FORMAT, &pin.sha256, prefix, &release(python), bytecode, &whose];
    hexadecimal(&Sha256::digest(parts.join("\0")))
}

/// The version of Python as folders have it, such as `3.12`.
fn release(python: &str) -> String {
    python.split('.').take(2).collect::<Vec<_>>().join(".")
}

/// Two packages with one path, be it a file in the one and a folder in the other: whichever lies above would win unseen.
fn refuse_collisions(packages: &[(&str, BTreeSet<String>)]) -> Result<(), Failure> {
    let refused = |one: &str, other: &str, path: &str| {
        let what = format!("`{one}` and `{other}` both have `/{path}`");
        let why = "in layers one of the two would be there, and nobody would have chosen which";
        let advice = "leave out one of them, or build with `--builder buildkit`";
        Err(Failure::unassembled(Diagnostic::new(what).why(why).advice(advice)))
    };
    let mut owners: BTreeMap<&str, &str> = BTreeMap::new();
    for (name, paths) in packages {
        for path in paths {
            if let Some(other) = owners.insert(path, name) {
                return refused(other, name, path);
            }
        }
    }
    for (path, name) in &owners {
        if let Some(above) = file_above(path, |above| owners.contains_key(above)) {
            return refused(owners[above], name, above);
        }
    }
    Ok(())
}

impl Assembly<'_> {
    fn prefix(&self) -> String {
        format!("/{}", self.owned.prefix)
    }

    fn key(&self, pin: &Pin) -> String {
        let bytecode = match &self.compiled {
            Compiled::Not => "",
            Compiled::In(..) => self.python,
            Compiled::Here(python) => &python.version,
        };
        key(pin, &self.owned, self.python, bytecode)
    }

    fn environment(&self) -> Environment {
        let cache_tag = (!matches!(self.compiled, Compiled::Not)).then(|| cache_tag(self.python));
        Environment { prefix: self.prefix(), python: release(self.python), cache_tag }
    }

    /// The keys of the segments of all packages.
    pub(super) fn keys(&self) -> Vec<String> {
        self.pins.values().map(|pin| self.key(pin)).collect()
    }

    /// Forgets all that is known of the packages, so that it is fetched and made anew, unless it was in this run.
    pub(super) fn forget(&self, forgotten: &Forgotten) {
        for (pin, key) in self.pins.values().zip(self.keys()) {
            if forgotten.is_left(&key) {
                self.store.forget(&key);
            }
            if forgotten.is_left(&pin.sha256) {
                let _ = fs::remove_file(self.store.wheel(&pin.sha256));
            }
        }
    }

    /// Takes what the store lacks from caches of other machines, as far as they have it.
    pub(super) async fn import(&self, report: &Report) -> Result<(), Failure> {
        let Some(sharing) = self.sharing else { return Ok(()) };
        let packages = self.pins.iter().map(|(name, pin)| (self.key(pin), name.to_string())).collect();
        let environment = self.environment();
        let place = Place { environment: &environment, owned: &self.owned };
        self.unless_interrupted(sharing.take(&packages, place, report)).await
    }

    /// The layers of the packages, made once more where something in the store turns out to be spoilt.
    pub(super) async fn layers(&self, report: &Report) -> Result<Vec<Layer>, Failure> {
        let mut tries = self.pins.len() + 2;
        loop {
            tries -= 1;
            match self.tried().await? {
                Ok(layers) => {
                    self.sharing.inspect(|sharing| sharing.used(self.keys()));
                    return Ok(layers);
                }
                Err(error) if error.kind() == io::ErrorKind::InvalidData && tries > 0 => {
                    report.note(&format!("{error}; it is made again"));
                }
                Err(error) => return Err(unassembled(&error.to_string())),
            }
        }
    }

    /// The layers of the packages, which the store knows, or which are made.
    async fn tried(&self) -> Result<io::Result<Vec<Layer>>, Failure> {
        let pins: Vec<_> = self.pins.iter().collect();
        let keys = self.keys();
        let mut all = Sha256::new();
        for ((name, pin), key) in pins.iter().zip(&keys) {
            all.update(format!("{name}\0{key}\0{}\0", pin.generation));
        }
        let all = hexadecimal(&all.finalize());
        for key in &keys {
            self.store.used(key);
        }
        if let Some(layers) = self.store.layers(&all)
            && layers.iter().flat_map(|layer| &layer.segments).collect::<BTreeSet<_>>()
                == keys.iter().collect()
            && layers.iter().all(|layer| self.store.has_recipe(layer, &self.owned))
        {
            return Ok(Ok(layers));
        }
        let mut lacking = Vec::new();
        for ((_, pin), key) in pins.iter().zip(&keys) {
            if self.store.segment(key).is_none() {
                lacking.push((*pin, key.clone()));
            }
        }
        self.make(lacking).await?;
        let mut segments: Vec<Segment> = Vec::new();
        for key in &keys {
            // Others may remove it at any time.
            match self.store.segment(key) {
                Some(segment) => segments.push(segment),
                None => return Ok(Err(self.store.spoilt(key))),
            }
        }
        let mut paths = Vec::new();
        for ((name, _), key) in pins.iter().zip(&keys) {
            match self.store.paths(key) {
                Ok(of_package) => paths.push((name.as_str(), of_package)),
                Err(error) => return Ok(Err(error)),
            }
        }
        refuse_collisions(&paths)?;
        let weighed: Vec<Weighed<'_>> = pins
            .iter()
            .zip(&segments)
            .map(|((name, pin), segment)| Weighed {
                name: name.as_str(),
                size: segment.size,
                generation: pin.generation,
            })
            .collect();
        let measured = (self.rule)(&weighed).into_iter().map(|places| {
            let of = places.iter().map(|&at| (weighed[at].name.to_owned(), keys[at].clone())).collect();
            let (store, owned) = (self.store.clone(), self.owned.clone());
            async move { tokio::task::spawn_blocking(move || store.layer(&of, &owned)).await }
        });
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let measured: Result<Vec<Layer>, _> = stream::iter(measured)
            .buffered(processors)
            .map(|layer| layer.unwrap_or_else(|error| Err(io::Error::other(error))))
            .try_collect()
            .await;
        let layers = match measured {
            Ok(layers) => layers,
            Err(error) => return Ok(Err(error)),
        };
        // Without it the same is found out again.
        let _ = self.store.keep_layers(&all, &layers);
        Ok(Ok(layers))
    }

    /// Makes segments of wheels, with the bytecode of their modules, each as soon as its wheel is there.
    async fn make(&self, mut lacking: Vec<(&Pin, String)>) -> Result<(), Failure> {
        if lacking.is_empty() {
            return Ok(());
        }
        let fetcher = Fetcher::new(self.certificates);
        let fetcher = &fetcher.map_err(|error| unassembled(&error.to_string()))?;
        let most = lacking.len().min(COMPILERS);
        // What takes longest begins first.
        lacking.sort_by_key(|(pin, key)| (Reverse(pin.size.unwrap_or(u64::MAX)), key.clone()));
        let (sender, jobs) = mpsc::unbounded_channel();
        let is_over = CancellationToken::new();
        let queue = Queue { jobs: Mutex::new(jobs), is_over: is_over.clone() };
        let fetching = async move {
            let mut fetched = stream::iter(lacking)
                .map(async |(pin, key)| self.fetched(fetcher, pin, key).await)
                .buffer_unordered(FETCHES);
            loop {
                let job = tokio::select! {
                    job = fetched.next() => job,
                    // Nobody takes any more where a worker has failed.
                    () = sender.closed() => return Ok(()),
                };
                match job {
                    Some(Ok(job)) => drop(sender.send(job)),
                    Some(Err(failure)) => {
                        is_over.cancel();
                        return Err(failure);
                    }
                    None => return Ok(()),
                }
            }
        };
        let (fetched, compiled) =
            Box::pin(join(self.unless_interrupted(fetching), self.compile(queue, most))).await;
        fetched??;
        compiled
    }

    /// Makes segments of what comes, at most so many at once.
    async fn compile(&self, queue: Queue, most: usize) -> Result<(), Failure> {
        let queue = &queue;
        match &self.compiled {
            Compiled::Not => self.unless_interrupted(queue.unless_over(self.work(queue, None))).await?,
            Compiled::Here(python) => {
                let processors = std::thread::available_parallelism().map_or(1, usize::from);
                let workers = (0..processors.min(most))
                    .map(async |_| self.work(queue, Some(Compiler::here(python, self.templates)?)).await);
                let working = async { try_join_all(workers).await.map(drop) };
                self.unless_interrupted(queue.unless_over(working)).await?
            }
            Compiled::In(engine, image) => {
                let spec = Spec {
                    label: LABEL,
                    command: Some(&["/bin/sh", "-c", STAY]),
                    user: Some("0:0"),
                    is_locked: true,
                    longest: Some(LONGEST),
                    ..Spec::default()
                };
                let python = format!("{}/bin/python", self.prefix());
                let made = engine.with_container(image, spec, async |container| {
                    let working = async {
                        container.start().await?;
                        let processors = match most {
                            1 => 1,
                            _ => engine.info().await.map_or(IN_DOUBT, |info| info.processors),
                        };
                        let container = &*container;
                        let workers = (0..processors.clamp(1, most)).map(async |_| {
                            let compiler = Compiler::inside(container, &python, self.templates).await?;
                            self.work(queue, Some(compiler)).await
                        });
                        try_join_all(workers).await.map(drop)
                    };
                    queue.unless_over(working).await
                });
                Box::pin(made).await?
            }
        }
    }

    /// A wheel that is there, and what its segment is to be called.
    async fn fetched(&self, fetcher: &Fetcher, pin: &Pin, key: String) -> Result<Job, Failure> {
        let local = self.local.values().find(|path| path.ends_with(&pin.file)).cloned();
        let wheel = match (&pin.url, local) {
            (_, Some(local)) => {
                let (of_wheel, sha256) = (local.clone(), pin.sha256.clone());
                let checked = move || digest(&of_wheel).is_ok_and(|found| found == sha256);
                let is_right = tokio::task::spawn_blocking(checked).await.unwrap_or(false);
                is_right.then_some(local).ok_or_else(|| changed(pin))?
            }
            (Some(url), None) => {
                let fetched = fetcher.wheel(&self.store, &pin.file, url, &pin.sha256, pin.size).await;
                fetched.map_err(|error| Failure::refused(error.diagnostic()))?
            }
            (None, None) => return Err(unassembled(&format!("`{}` is no file here", pin.file))),
        };
        Ok(Job { key, file: pin.file.clone(), wheel })
    }

    async fn unless_interrupted<T>(&self, work: impl Future<Output = T>) -> Result<T, Failure> {
        self.interrupt.run_until_cancelled(work).await.ok_or_else(Failure::interrupted)
    }

    /// Makes segments, one after the other, until all wheels have come and none is left.
    async fn work(&self, queue: &Queue, mut compiler: Option<Compiler>) -> Result<(), Failure> {
        loop {
            let job = queue.jobs.lock().await.recv().await;
            let Some(job) = job else { return Ok(()) };
            self.segment(&job, compiler.as_mut()).await?;
        }
    }

    async fn segment(&self, job: &Job, compiler: Option<&mut Compiler>) -> Result<(), Failure> {
        let failed = |error: io::Error| unassembled(&format!("`{}`: {error}", job.file));
        let (store, of_job, owned) = (self.store.clone(), job.clone(), self.owned.clone());
        let environment = self.environment();
        let unpack = move || -> Result<_, Failure> {
            let failed = |error: io::Error| unassembled(&format!("`{}`: {error}", of_job.file));
            let alone = store.alone(&of_job.key).map_err(failed)?;
            if store.segment(&of_job.key).is_some() {
                return Ok(None);
            }
            let file = match File::open(&of_job.wheel) {
                // Somebody has removed it meanwhile: as long as its segment is lacking it is fetched again.
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                file => file.map_err(failed)?,
            };
            let mut wheel = Wheel::open(BufReader::new(file), &of_job.file, &environment, None)
                .map_err(|error| Failure::unassembled(error.diagnostic()))?;
            let mut unfinished = Unfinished::new(&store, &owned).map_err(failed)?;
            for number in 0..wheel.files().len() {
                let oci::wheel::File { path, is_executable, size, is_module, .. } = &wheel.files()[number];
                let path = path.clone();
                let entry =
                    Entry { path: &path, size: *size, is_program: *is_executable, is_module: *is_module };
                let mut refused = None;
                let added = unfinished.add(&entry, |mut out| {
                    wheel.write(number, &mut out).map_err(|error| {
                        refused = Some(Failure::unassembled(error.diagnostic()));
                        io::ErrorKind::InvalidData.into()
                    })
                });
                added.map_err(|error| refused.unwrap_or_else(|| failed(error)))?;
            }
            Ok(Some((alone, unfinished)))
        };
        let unpacked =
            tokio::task::spawn_blocking(unpack).await.map_err(|error| failed(io::Error::other(error)))??;
        let Some((_alone, mut unfinished)) = unpacked else { return Ok(()) };
        if let Some(compiler) = compiler {
            compiler.compile(&mut unfinished, &cache_tag(self.python)).await?;
        }
        unfinished.keep(&self.store, &job.key).map_err(failed)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write};

    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use tempfile::TempDir;
    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    use super::*;
    use crate::cmd::FailureKind;
    use crate::oci::rule;
    use crate::report::{Redaction, Settings};

    /// Wheels of this host, and a cache for what is made of them.
    struct Bench {
        folder: TempDir,
        pins: BTreeMap<Name, Pin>,
        local: BTreeMap<Name, PathBuf>,
        templates: Templates,
        interrupt: CancellationToken,
    }

    impl Bench {
        fn new() -> Self {
            Self {
                folder: tempfile::tempdir().unwrap(),
                pins: BTreeMap::new(),
                local: BTreeMap::new(),
                templates: Templates::shipped(),
                interrupt: CancellationToken::new(),
            }
        }

        /// Adds a wheel with these files, beside those that each has.
        fn with(mut self, name: &str, files: &[(&str, &str)]) -> Self {
            let info = format!("{name}-1.dist-info");
            let own = [
                (format!("{info}/METADATA"), format!("Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")),
                (format!("{info}/WHEEL"), "Wheel-Version: 1.0\nRoot-Is-Purelib: true\n".to_owned()),
            ];
            let others = files.iter().map(|(path, content)| ((*path).to_owned(), (*content).to_owned()));
            let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
            let mut record = format!("{info}/RECORD,,\n");
            let mut add = |path: &str, content: &str| {
                zip.start_file(path, SimpleFileOptions::default()).unwrap();
                zip.write_all(content.as_bytes()).unwrap();
            };
            for (path, content) in others.chain(own) {
                let hash = URL_SAFE_NO_PAD.encode(Sha256::digest(&content));
                record += &format!("{path},sha256={hash},{}\n", content.len());
                add(&path, &content);
            }
            add(&format!("{info}/RECORD"), &record);
            let bytes = zip.finish().unwrap().into_inner();
            let file = format!("{name}-1-py3-none-any.whl");
            let place = self.folder.path().join(&file);
            fs::write(&place, &bytes).unwrap();
            let pin = Pin {
                version: "1".to_owned(),
                file,
                url: None,
                sha256: hexadecimal(&Sha256::digest(&bytes)),
                size: None,
                is_direct: false,
                generation: 0,
            };
            let name = Name::parse(name).unwrap();
            self.local.insert(name.clone(), place);
            self.pins.insert(name, pin);
            self
        }

        fn store(&self) -> Store {
            Store::in_cache(&self.folder.path().join("cache"))
        }

        fn assembly(&self) -> Assembly<'_> {
            Assembly {
                pins: &self.pins,
                local: &self.local,
                owned: Owned { prefix: "opt/venv".to_owned(), ids: Ids { uid: 1000, gid: 0 }, umask: 0o002 },
                rule: rule::layers,
                python: "3.12.8",
                compiled: Compiled::Not,
                templates: &self.templates,
                certificates: None,
                store: self.store(),
                sharing: None,
                interrupt: &self.interrupt,
            }
        }

        async fn layers(&self) -> Result<Vec<Layer>, Failure> {
            self.assembly().layers(&Report::new(Settings::default(), Redaction::default())).await
        }
    }

    #[tokio::test]
    async fn what_others_remove_beside_a_build_is_made_again() {
        let bench = Bench::new().with("a", &[("a.py", "a = 1")]).with("b", &[("b.py", "b = 1")]);
        let layers = bench.layers().await.unwrap();
        let (assembly, store) = (bench.assembly(), bench.store());
        let key = &assembly.keys()[0];
        // A wheel that goes between its download and its segment leaves the segment lacking, and nothing worse.
        store.forget(key);
        let gone = Job { key: key.clone(), file: "a-1-py3-none-any.whl".to_owned(), wheel: "/gone".into() };
        assembly.segment(&gone, None).await.unwrap();
        assert!(store.segment(key).is_none());
        // A segment that goes once it was made is one that is spoilt.
        let told = |error: io::Error| (error.kind(), error.to_string());
        let spoilt = told(store.paths(key).unwrap_err());
        assert_eq!(spoilt.0, io::ErrorKind::InvalidData);
        let written = store.write(&layers[0], &assembly.owned, &mut io::sink());
        assert_eq!(told(written.unwrap_err()), spoilt);
        assert_eq!(bench.layers().await.unwrap(), layers);
    }

    #[tokio::test]
    async fn a_wheel_that_cannot_be_had_ends_the_work() {
        let mut bench = (0..200).fold(Bench::new(), |bench, number| bench.with(&format!("a{number}"), &[]));
        // The largest are the first.
        bench.pins.values_mut().for_each(|pin| pin.size = Some(1));
        let bench = bench.with("changed", &[]);
        let file = bench.folder.path().join("changed-1-py3-none-any.whl");
        fs::write(&file, "another").unwrap();
        let failure = bench.layers().await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Refused);
        assert!(failure.diagnostics[0].what.contains("`changed-1-py3-none-any.whl`"));
        assert!(bench.store().held().unwrap()["segments"].count < 200, "others are of no use then");
        fs::remove_file(&file).unwrap();
        assert!(bench.layers().await.is_err());
    }

    #[tokio::test]
    async fn packages_with_one_path_are_refused_by_name() {
        let site = "opt/venv/lib/python3.12/site-packages";
        for (of_a, of_b, path) in [
            ("x/same.py", "x/same.py", Some("x/same.py")),
            ("x/y.py", "x", Some("x")),
            ("x", "x/y/z.py", Some("x")),
            ("x/y", "x/z", None),
            ("x-y", "x/y", None),
        ] {
            let bench = Bench::new().with("a", &[(of_a, "1")]).with("b", &[(of_b, "2")]);
            match (bench.layers().await, path) {
                (Ok(_), None) => {}
                (Err(failure), Some(path)) => {
                    assert_eq!(failure.kind, FailureKind::Unassembled);
                    let what = &failure.diagnostics[0].what;
                    let names = ["`a` and `b`", "`b` and `a`"];
                    assert!(names.iter().any(|names| what.starts_with(names)), "{what}");
                    assert!(what.ends_with(&format!("`/{site}/{path}`")), "{what}");
                }
                (made, _) => panic!("{of_a} {of_b}: {made:?}"),
            }
        }
    }

    #[tokio::test]
    async fn of_a_wheel_that_is_refused_nothing_is_left() {
        for (path, why) in
            [("../../x.pth", "its path"), ("/etc/x", "its path"), ("b-1.dist-info/X", ".dist-info")]
        {
            let bench = Bench::new().with("a", &[("a.py", "a = 1"), (path, "hostile")]);
            let failure = bench.layers().await.unwrap_err();
            assert_eq!(failure.kind, FailureKind::Unassembled);
            let Diagnostic { what, why: told, .. } = &failure.diagnostics[0];
            assert!(what.contains("`a-1-py3-none-any.whl`") && told.contains(why), "{what}: {told}");
            assert!(bench.store().held().unwrap().values().all(|held| held.count == 0));
            let left = bench.folder.path().join("cache/layers/unfinished").read_dir().unwrap();
            let mut left = left.map(|entry| entry.unwrap().path());
            assert!(left.all(|path| path.extension().is_some_and(|end| end == "lock")), "{path}");
            assert!(!bench.folder.path().join("x.pth").exists());
        }
    }

    #[tokio::test]
    async fn a_store_that_takes_nothing_is_told_and_what_is_only_kept_for_later_is_not_needed() {
        // Tests may run as root, whom permissions do not stop: files stand where folders should be.
        for (folder, is_needed) in
            [("segments", true), ("unfinished", true), ("layers", false), ("recipes", false)]
        {
            let bench = Bench::new().with("a", &[("a.py", "a = 1")]);
            let place = bench.folder.path().join("cache/layers").join(folder);
            fs::create_dir_all(place.parent().unwrap()).unwrap();
            fs::write(&place, "somebody's").unwrap();
            for _ in 0..2 {
                match bench.layers().await {
                    Ok(layers) => assert!(!is_needed && layers.len() == 1, "{folder}"),
                    Err(failure) => {
                        assert!(is_needed, "{folder}");
                        assert_eq!(failure.kind, FailureKind::Unassembled);
                        let Diagnostic { why, fix, .. } = &failure.diagnostics[0];
                        assert!(why.contains("os error"), "{why}");
                        assert!(fix.as_ref().is_some_and(|fix| format!("{fix:?}").contains("--cache-dir")));
                    }
                }
            }
            assert_eq!(fs::read_to_string(&place).unwrap(), "somebody's");
        }
    }

    #[tokio::test]
    async fn layers_that_are_known_can_be_packed() {
        let bench = Bench::new().with("a", &[("a.py", "a = 1")]);
        let layers = bench.layers().await.unwrap();
        // Somebody has forgotten all layers just before these were kept.
        fs::remove_dir_all(bench.folder.path().join("cache/layers/recipes")).unwrap();
        assert_eq!(bench.layers().await.unwrap(), layers);
        assert_eq!(bench.store().packed_all(&[layers[0].diff_id.clone()]).unwrap().len(), 1);
    }

    #[tokio::test]
    async fn what_is_made_anew_is_forgotten_once_in_a_run() {
        let bench = Bench::new().with("a", &[("a.py", "a = 1")]);
        let (assembly, store, forgotten) = (bench.assembly(), bench.store(), Forgotten::default());
        let key = &assembly.keys()[0];
        for is_first in [true, false] {
            bench.layers().await.unwrap();
            assembly.forget(&forgotten);
            assert_eq!(store.segment(key).is_none(), is_first);
        }
        assembly.forget(&Forgotten::default());
        assert!(store.segment(key).is_none(), "another run forgets it, too");
    }
}
