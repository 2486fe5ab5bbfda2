//! Exact versions and hashes of what a list asks for, for one kind of Python on one base: PEP 751.

mod compare;
mod pylock;
mod tags;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path};

use pep440_rs::Version;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::deps::{Name, Url};
use crate::diagnostic::Diagnostic;
use crate::freshness::{Change, Stamp, between};
use crate::plan::{Pin, Plan};
pub use compare::{Difference, Reasons, differences};
pub use pylock::versions;
pub use tags::Tags;

/// Exact versions and hashes, and what they were made for.
#[derive(Debug, Clone, PartialEq)]
pub struct Lock {
    /// How often something in it has changed.
    pub generation: u32,
    /// What it was made for.
    pub made_for: MadeFor,
    /// What is locked.
    pub entries: BTreeMap<Name, Entry>,
}

/// What a lock was made for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct MadeFor {
    /// The variant's name.
    pub variant: String,
    /// The name of the image built on.
    pub base: String,
    /// Its image id.
    pub base_id: String,
    /// The interpreter's version.
    pub python: String,
    /// The platform tag of the newest wheels it takes.
    pub platform: String,
    /// What it was resolved by.
    pub installer: String,
    /// Where it is given, nothing was taken that is newer.
    pub exclude_newer: Option<String>,
    /// Where its files are, sorted.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// What the base has and the packages need.
    #[serde(default)]
    pub relies_on: BTreeMap<Name, Version>,
    /// The parts of a plan that decided it.
    #[serde(default)]
    request: Value,
}

/// A locked package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its version.
    pub version: Version,
    /// The index it is from, where that is known.
    pub index: Option<String>,
    /// What is installed.
    pub wheel: Wheel,
    /// What of the others it needs, sorted.
    pub dependencies: Vec<Name>,
    /// The generation of the lock in which this wheel came.
    pub generation: u32,
}

/// A wheel, by its hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wheel {
    /// The name of its file.
    pub file: String,
    /// Its address; `None` where it is a file beside the lock.
    pub url: Option<String>,
    /// Its path from the lock, where it is a file.
    pub path: Option<String>,
    /// In bytes.
    pub size: Option<u64>,
    /// When its index got it, as in TOML.
    pub upload_time: Option<String>,
    /// In hexadecimal digits.
    pub sha256: String,
    /// Whether the list asks for this file itself.
    pub is_direct: bool,
}

/// Why a text is no lock, or not one to install from.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// It is no TOML, or lacks what PEP 751 demands.
    #[error("it is no lock")]
    Syntax {
        /// Where, and why.
        why: String,
    },
    /// A later version has made it.
    #[error("it is of a newer format, {what}")]
    Newer {
        /// What tells so.
        what: String,
    },
    /// Another tool has made it.
    #[error("it was made by `{by}`")]
    Foreign {
        /// That tool.
        by: String,
    },
    /// What it says of itself is not what was written.
    #[error("it was edited")]
    Edited,
    /// A package in it is not right.
    #[error("its entry of `{name}` is not right")]
    Entry {
        /// The package.
        name: Name,
        /// Why not.
        why: String,
    },
    /// There is no lock for such a target.
    #[error("there is no lock for {0}")]
    Target(String),
    /// Something that was resolved has no wheel that fits.
    #[error("`{0}` has no wheel that fits")]
    NoWheel(Name),
    /// What was resolved is no file that the list admits.
    #[error("no file of `{0}` has a hash of the list")]
    NotAdmitted(Name),
}

impl LockError {
    fn of_toml(error: &toml_edit::de::Error) -> Self {
        Self::Syntax { why: error.to_string().trim().to_owned() }
    }

    /// The refusal of a file.
    #[must_use]
    pub fn diagnostic(&self, file: &str) -> Diagnostic {
        let what = Diagnostic::new(format!("cannot use the lock `{file}`: {self}"));
        let anew = "make it anew: remove it, then `ipybox lock`";
        match self {
            Self::Newer { .. } => what.advice("use a newer version of ipybox"),
            Self::Foreign { .. } => what
                .why("it does not say which base it is for")
                .advice("`ipybox lock` takes its versions over"),
            Self::Edited => what
                .why("what it says that it was made for does not agree with its digest")
                .advice(format!("restore it, or {anew}")),
            Self::Syntax { why } | Self::Entry { why, .. } => {
                what.why(why.clone()).advice(format!("restore it, or {anew}"))
            }
            Self::Target(_) => what.why("wheels are locked for CPython 3 on Linux"),
            Self::NoWheel(_) => what,
            Self::NotAdmitted(_) => what
                .why("the index has other files of the version that was resolved")
                .advice("ask whoever runs the index, or correct the hashes"),
        }
    }
}

/// The parts of a plan that decide what is resolved.
const DECIDING: [&str; 7] = [
    "foundation.placement",
    "foundation.base.platform",
    "foundation.interpreter.implementation",
    "packages.requirements",
    "packages.bounds",
    "packages.indexes",
    "packages.sources",
];

/// What of a plan decides what is resolved.
fn request(plan: &Plan) -> Value {
    let mut request = Stamp::of(plan).parts(&DECIDING);
    let minor = plan.foundation.interpreter.version.splitn(3, '.').take(2).collect::<Vec<_>>().join(".");
    request["foundation"]["interpreter"]["version"] = minor.into();
    without_nothing(&mut request);
    request
}

/// Leaves out what is `null` or empty, which TOML cannot tell or people need not read.
fn without_nothing(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.values_mut().for_each(without_nothing);
            map.retain(|_, value| match value {
                Value::Null => false,
                Value::Array(list) => !list.is_empty(),
                Value::Object(map) => !map.is_empty(),
                _ => true,
            });
        }
        Value::Array(list) => list.iter_mut().for_each(without_nothing),
        _ => {}
    }
}

/// What an installer has resolved.
#[derive(Debug, Clone)]
pub struct Resolution {
    /// As a lock of its own.
    pub pylock: String,
    /// As a requirements file, with what each package is needed by.
    pub annotated: String,
    /// What it was resolved by.
    pub installer: String,
    /// What it was told to leave out for being newer.
    pub exclude_newer: Option<String>,
    /// Wheels that were built for it, where they lie from the lock.
    pub built: BTreeMap<Name, Wheel>,
}

/// What the file of a lock may be called.
///
/// Rule: PEP 751, "File Name".
///
/// # Errors
///
/// Why a path is none of a lock.
pub fn file_name(path: &str) -> Result<(), &'static str> {
    let name = Path::new(path).file_name().and_then(|name| name.to_str());
    let is_right = |name: &str| match name.strip_prefix("pylock") {
        Some("") => true,
        Some(rest) => rest.strip_prefix('.').is_some_and(|rest| !rest.is_empty() && !rest.contains('.')),
        None => false,
    };
    match name.and_then(|name| name.strip_suffix(".toml")) {
        Some(name) if is_right(name) => Ok(()),
        _ => Err("a lock is called `pylock.toml` or `pylock.NAME.toml`, without further dots"),
    }
}

/// The wheels that an interpreter takes of what an installer has found, by their distributions; of them only such as have
/// one of these hashes.
///
/// # Errors
///
/// [`LockError`].
pub fn pins(pylock: &str, tags: &Tags, admitted: &BTreeSet<&str>) -> Result<BTreeMap<Name, Pin>, LockError> {
    let mut pins = BTreeMap::new();
    for found in pylock::packages(pylock)? {
        let admitted = found.wheels.into_iter().filter(|wheel| admitted.contains(wheel.sha256.as_str()));
        let ranked = admitted.filter_map(|wheel| Some((tags.rank(&wheel.file)?, wheel)));
        let Some((_, wheel)) = ranked.min_by_key(|(rank, _)| *rank) else {
            return Err(LockError::NoWheel(found.name));
        };
        let version = found.version.or_else(|| version_of(&wheel.file));
        let version = version.ok_or_else(|| LockError::NoWheel(found.name.clone()))?;
        let Wheel { file, url, sha256, size, is_direct, .. } = wheel;
        let pin = Pin { version: version.to_string(), file, url, sha256, size, is_direct, generation: 0 };
        pins.insert(found.name, pin);
    }
    Ok(pins)
}

impl Lock {
    /// The lock of what was resolved for a plan. What stays as it was in an earlier one keeps its generation.
    ///
    /// # Errors
    ///
    /// [`LockError`].
    pub fn of(resolution: Resolution, plan: &Plan, earlier: Option<&Self>) -> Result<Self, LockError> {
        let tags = Self::tags(plan)?;
        let held = &plan.packages.held;
        let needed = needed(&resolution.annotated);
        let mut entries = BTreeMap::new();
        for found in pylock::packages(&resolution.pylock)? {
            if held.contains_key(&found.name) {
                continue;
            }
            let built = resolution.built.get(&found.name).cloned();
            let wheels = built.map_or(found.wheels, |wheel| vec![wheel]);
            // A list may admit some files and no others; nothing else looks at that once it is locked.
            let mut pinned = plan.packages.hashed().filter(|bound| bound.name == found.name).peekable();
            let is_pinned = pinned.peek().is_some();
            let admitted: Vec<&String> = pinned.flat_map(|bound| &bound.hashes).collect();
            let is_admitted = |wheel: &Wheel| {
                !is_pinned || admitted.iter().any(|hash| **hash == format!("sha256:{}", wheel.sha256))
            };
            if is_pinned && !wheels.iter().any(is_admitted) {
                return Err(LockError::NotAdmitted(found.name));
            }
            let fitting = wheels
                .into_iter()
                .filter(is_admitted)
                .filter_map(|wheel| Some((tags.rank(&wheel.file)?, wheel)));
            let Some((_, wheel)) = fitting.min_by_key(|(rank, _)| *rank) else {
                return Err(LockError::NoWheel(found.name));
            };
            let version = found.version.or_else(|| version_of(&wheel.file));
            let version = version.ok_or_else(|| LockError::NoWheel(found.name.clone()))?;
            let index = found.index.or_else(|| needed.get(&found.name)?.index.clone());
            let entry = Entry { version, index, wheel, dependencies: Vec::new(), generation: 0 };
            entry.check_address(&found.name)?;
            entries.insert(found.name, entry);
        }
        for (name, Needed { by, .. }) in &needed {
            for parent in by {
                if let (true, Some(parent)) = (entries.contains_key(name), entries.get_mut(parent)) {
                    parent.dependencies.push(name.clone());
                }
            }
        }
        let relied = needed.iter().filter(|(_, needed)| needed.by.iter().any(|by| entries.contains_key(by)));
        let relies_on = relied.filter_map(|(name, _)| Some((name.clone(), held.get(name)?.version.clone()?)));
        let hosts: BTreeSet<String> = entries.values().filter_map(|entry| entry.wheel.host()).collect();
        let base = &plan.foundation.base;
        let made_for = MadeFor {
            variant: plan.variant.clone(),
            base: base.reference.to_string(),
            base_id: base.id.to_string(),
            python: plan.foundation.interpreter.version.clone(),
            platform: tags.platform(),
            installer: resolution.installer,
            exclude_newer: resolution.exclude_newer,
            hosts: hosts.into_iter().collect(),
            relies_on: relies_on.collect(),
            request: request(plan),
        };
        let mut lock = Self { generation: 0, made_for, entries };
        if let Some(earlier) = earlier {
            lock.follow(earlier);
        }
        Ok(lock)
    }

    /// Counts the generations on.
    fn follow(&mut self, earlier: &Self) {
        let is_kept = |name: &Name, entry: &Entry| {
            earlier.entries.get(name).is_some_and(|before| before.wheel.sha256 == entry.wheel.sha256)
        };
        let same = self.entries.len() == earlier.entries.len()
            && self.entries.iter().all(|(name, entry)| is_kept(name, entry));
        self.generation = if same { earlier.generation } else { earlier.generation.saturating_add(1) };
        for (name, entry) in &mut self.entries {
            entry.generation =
                if is_kept(name, entry) { earlier.entries[name].generation } else { self.generation };
        }
    }

    /// Which wheels fit where a plan installs them.
    ///
    /// # Errors
    ///
    /// [`LockError::Target`].
    pub fn tags(plan: &Plan) -> Result<Tags, LockError> {
        let (interpreter, platform) = (&plan.foundation.interpreter, &plan.foundation.base.platform);
        Tags::of(interpreter, platform).ok_or_else(|| {
            LockError::Target(format!("{} {} on {platform}", interpreter.implementation, interpreter.version))
        })
    }

    /// What a plan asks for otherwise than what the lock was made for, and what of it does not fit the plan's base;
    /// nothing where it can be installed.
    #[must_use]
    pub fn changes(&self, plan: &Plan) -> Vec<Change> {
        let mut changes = between(&self.made_for.request, &request(plan));
        let mut of_base = |path: String, what: String| {
            changes.push(Change { path, what, follows: false, entry: None });
        };
        for (name, version) in &self.made_for.relies_on {
            let has = plan.packages.held.get(name).map(|held| held.version.as_ref());
            let has = match has {
                Some(Some(has)) if has == version => continue,
                Some(Some(has)) => has.to_string(),
                Some(None) => "an unknown version".to_owned(),
                None => "nothing".to_owned(),
            };
            of_base(format!("packages.held.{name}"), format!("`{name}` of the base: {version} → {has}"));
        }
        for name in self.entries.keys().filter(|name| plan.packages.held.contains_key(*name)) {
            of_base(format!("packages.held.{name}"), format!("`{name}` is in the base now"));
        }
        if let Ok(tags) = Self::tags(plan) {
            for (name, entry) in &self.entries {
                if tags.rank(&entry.wheel.file).is_none() {
                    let what = format!("the wheel of `{name}` is not for {}", tags.platform());
                    of_base("foundation.base.platform".to_owned(), what);
                }
            }
        }
        changes
    }

    /// Whether it was made for another image than the plan's base, whose packages will do as well.
    #[must_use]
    pub fn is_of_another_base(&self, plan: &Plan) -> bool {
        !self.made_for.relies_on.is_empty() && self.made_for.base_id != plan.foundation.base.id.to_string()
    }

    /// What is installed, for a plan.
    #[must_use]
    pub fn pins(&self) -> BTreeMap<Name, Pin> {
        let pin = |entry: &Entry| Pin {
            version: entry.version.to_string(),
            file: entry.wheel.file.clone(),
            url: entry.wheel.url.clone(),
            sha256: entry.wheel.sha256.clone(),
            size: entry.wheel.size,
            is_direct: entry.wheel.is_direct,
            generation: entry.generation,
        };
        self.entries.iter().map(|(name, entry)| (name.clone(), pin(entry))).collect()
    }
}

impl Wheel {
    fn host(&self) -> Option<String> {
        Url::parse(self.url.as_deref()?).map(|url| url.host_name())
    }
}

impl Entry {
    /// Refuses an address that would tell a secret to whoever reads the lock, or the image.
    fn check_address(&self, name: &Name) -> Result<(), LockError> {
        let Some(url) = &self.wheel.url else { return Ok(()) };
        let why = match Url::parse(url) {
            None => "its address is none",
            Some(address) if address.has_credentials() => "its address holds a user name or a password",
            Some(_) if url.contains('?') => {
                "its address has a query, which may hold a token and end with it; have it as a file"
            }
            Some(_) => return Ok(()),
        };
        Err(LockError::Entry { name: name.clone(), why: why.to_owned() })
    }

    /// Refuses what no lock of ours has.
    fn check(&self, name: &Name, made_for: &MadeFor) -> Result<(), LockError> {
        let bad = |why: String| Err(LockError::Entry { name: name.clone(), why });
        let Wheel { file, url, path, is_direct, .. } = &self.wheel;
        let of = file.strip_suffix(".whl").and_then(|stem| Name::parse(stem.split('-').next()?));
        if of.as_ref() != Some(name) {
            return bad(format!("`{}` is no wheel of it", file.escape_debug()));
        }
        if !is_direct && version_of(file).as_ref() != Some(&self.version) {
            return bad(format!("`{}` is of another version", file.escape_debug()));
        }
        self.check_address(name)?;
        match (url, path) {
            (Some(url), None) => match Url::parse(url).map(|url| url.host_name()) {
                Some(host) if made_for.hosts.contains(&host) => Ok(()),
                Some(host) => bad(format!("nothing else says that its files are on `{host}`")),
                None => bad("its address is none".to_owned()),
            },
            (None, Some(path)) if is_inside(path) => Ok(()),
            (None, Some(_)) => bad("its path leads out of the folder of the lock".to_owned()),
            _ => bad("it has neither an address nor a path".to_owned()),
        }
    }
}

/// Whether a path stays in the folder it begins in.
fn is_inside(path: &str) -> bool {
    !path.is_empty() && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)))
}

/// The version in the name of a wheel.
fn version_of(file: &str) -> Option<Version> {
    file.split('-').nth(1)?.replace('_', "-").parse().ok()
}

/// What a package is needed by, and where it is from.
#[derive(Debug, Default, PartialEq)]
struct Needed {
    by: Vec<Name>,
    index: Option<String>,
}

/// Reads the comments of a requirements file of uv: what `via` and `from` say.
fn needed(annotated: &str) -> BTreeMap<Name, Needed> {
    let mut needed = BTreeMap::<Name, Needed>::new();
    let mut current: Option<Name> = None;
    for line in annotated.lines() {
        if !line.starts_with([' ', '#']) {
            let end = line.find(|next: char| !next.is_ascii_alphanumeric() && !"._-".contains(next));
            current = Name::parse(&line[..end.unwrap_or(line.len())]);
            if let Some(name) = &current {
                needed.entry(name.clone()).or_default();
            }
            continue;
        }
        let comment = line.trim().trim_start_matches('#').trim();
        let Some(entry) = current.as_ref().and_then(|name| needed.get_mut(name)) else { continue };
        match comment.strip_prefix("from ") {
            Some(index) => entry.index = Some(index.trim().to_owned()),
            // A project or a file is named with an address or a blank behind it, and is no package.
            None => entry.by.extend(Name::parse(comment.strip_prefix("via ").unwrap_or(comment).trim())),
        }
    }
    needed
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::accounts::User;
    use crate::archive::hexadecimal;
    use crate::base::{Base, Distribution};
    use crate::deps::Spec;
    use crate::plan::{Installer, Materials, Requirement, Target};
    use crate::request::Request;
    use crate::variant::Variant;

    fn plan(variant: &str, list: &str, has: &[(&str, &str)]) -> Plan {
        let mut base = Base::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/base.json").as_ref()).unwrap();
        let distribution = |(name, version): &(&str, &str)| Distribution {
            name: (*name).to_owned(),
            version: (*version).to_owned(),
            requires: Vec::new(),
            extras: Vec::new(),
            of_system: false,
        };
        base.pythons[0].distributions = has.iter().map(distribution).collect();
        let (spec, variant) = (Spec::parse(list).unwrap(), Variant::read(variant, None).unwrap());
        let request = Request::new(&variant.name, User::Root);
        let name = (variant.name == "any-base").then(|| "x".to_owned());
        let request = Request { name, ..request };
        let materials = Materials { installer: Installer::of(&base.platform), ..Materials::default() };
        let target = Target::choose(&request, &spec, &variant, &base, &materials).unwrap();
        Plan::resolve(&request, &spec, &variant, &base, target, materials).unwrap()
    }

    /// What uv would say of wheels for every platform: names with versions, and what they are needed by.
    fn resolution(packages: &[(&str, &str, &str)]) -> Resolution {
        let mut pylock = "lock-version = \"1.0\"\ncreated-by = \"uv\"\n".to_owned();
        let mut annotated = String::new();
        for (name, version, by) in packages {
            let sha256 = hexadecimal(&Sha256::digest(format!("{name}{version}")));
            pylock += &format!(
                "\n[[packages]]\nname = \"{name}\"\nversion = \"{version}\"\nwheels = [{{ url = \
                 \"https://files.test/{name}-{version}-py3-none-any.whl\", size = 7, hashes = {{ sha256 = \"{sha256}\" }} }}]\n"
            );
            annotated +=
                &format!("{name}=={version}\n    # via {by}\n    # from https://index.test/simple\n");
        }
        let installer = "0.1".to_owned();
        Resolution { pylock, annotated, installer, exclude_newer: None, built: BTreeMap::new() }
    }

    fn name(text: &str) -> Name {
        Name::parse(text).unwrap()
    }

    fn written(lock: &Lock, plan: &Plan) -> String {
        lock.write(&Lock::tags(plan).unwrap())
    }

    #[test]
    fn a_lock_is_read_as_it_was_written() {
        let plan = plan("minimal", "pandas = \"^2.2\"\n", &[]);
        let packages = [("pandas", "2.3.0", "your-list (pyproject.toml)"), ("numpy", "2.2.0", "pandas")];
        let lock = Lock::of(resolution(&packages), &plan, None).unwrap();
        let text = written(&lock, &plan);
        assert_eq!(Lock::parse(&text).unwrap(), lock, "{text}");
        assert_eq!(lock.changes(&plan), []);
        assert_eq!(lock.entries[&name("pandas")].dependencies, [name("numpy")]);
        assert_eq!(lock.entries[&name("numpy")].index.as_deref(), Some("https://index.test/simple"));
        assert!(
            text.contains("environments = [\"implementation_name == 'cpython' and python_version == '3.12'")
        );
        assert_eq!(lock.pins()[&name("numpy")].version, "2.2.0");
    }

    #[test]
    fn a_lock_says_what_it_is_not_for_any_more() {
        let list = "pandas = \"^2.2\"\n";
        let packages = [("pandas", "2.3.0", "your-list (pyproject.toml)")];
        let lock = Lock::of(resolution(&packages), &plan("minimal", list, &[]), None).unwrap();
        let told = |plan: &Plan| lock.changes(plan).into_iter().map(|change| change.what).collect::<Vec<_>>();
        let commented = plan("minimal", "# of mine\npandas = \">=2.2,<3.0\"\n", &[]);
        assert_eq!(told(&commented), Vec::<String>::new());
        let other = plan("minimal", "pandas = \"^2.3\"\nrich = \"*\"\n", &[]);
        assert_eq!(told(&other), ["pandas: >=2.2,<3.0 → >=2.3,<3.0", "rich is new"]);
        let mut newer = plan("minimal", list, &[]);
        newer.foundation.interpreter.version = "3.13.1".to_owned();
        assert_eq!(told(&newer)[0], "Python: 3.12 → 3.13");
    }

    #[test]
    fn a_lock_of_nothing_is_one() {
        let mut plan = plan("minimal", "pandas = \"^2.2\"\n", &[]);
        plan.packages.requirements.clear();
        let lock = Lock::of(resolution(&[]), &plan, None).unwrap();
        let text = written(&lock, &plan);
        assert!(text.contains("packages = []"), "{text}");
        assert_eq!(Lock::parse(&text).unwrap(), lock);
    }

    #[test]
    fn a_lock_keeps_to_the_hashes_of_its_list() {
        let packages = [("pandas", "2.3.0", "your-list (pyproject.toml)")];
        let locked = |sha256: &str| {
            let mut plan = plan("minimal", "pandas = \"2.3.0\"\n", &[]);
            let asked = plan.packages.requirements.iter().find(|asked| asked.name == name("pandas")).unwrap();
            let bound = Requirement { hashes: vec![format!("sha256:{sha256}")], ..asked.clone() };
            plan.packages.bounds.push(bound);
            Lock::of(resolution(&packages), &plan, None)
        };
        let sha256 = hexadecimal(&Sha256::digest("pandas2.3.0"));
        assert_eq!(locked(&sha256).unwrap().entries[&name("pandas")].wheel.sha256, sha256);
        let other = locked(&"0".repeat(64)).unwrap_err();
        assert_eq!(other.to_string(), "no file of `pandas` has a hash of the list");
    }

    #[test]
    fn a_lock_on_a_base_knows_what_it_relies_on() {
        let has = [("numpy", "1.26.4"), ("six", "1.16.0")];
        let plan_on = |has: &[(&str, &str)]| plan("any-base", "pandas = \"^2.2\"\n", has);
        let packages = [("pandas", "2.3.0", "your-list (pyproject.toml)"), ("numpy", "1.26.4", "pandas")];
        let lock = Lock::of(resolution(&packages), &plan_on(&has), None).unwrap();
        assert_eq!(lock.entries.keys().collect::<Vec<_>>(), [&name("pandas")]);
        assert_eq!(lock.made_for.relies_on.keys().collect::<Vec<_>>(), [&name("numpy")]);
        let text = written(&lock, &plan_on(&has));
        assert_eq!(Lock::parse(&text).unwrap(), lock, "{text}");
        let told = |has: &[(&str, &str)]| {
            lock.changes(&plan_on(has)).into_iter().map(|change| change.what).collect::<Vec<_>>()
        };
        assert_eq!(told(&[("numpy", "1.26.4")]), Vec::<String>::new());
        assert_eq!(told(&[("numpy", "2.0.0")]), ["`numpy` of the base: 1.26.4 → 2.0.0"]);
        assert_eq!(told(&[]), ["`numpy` of the base: 1.26.4 → nothing"]);
        let with_pandas = told(&[("numpy", "1.26.4"), ("pandas", "2.3.0")]);
        assert_eq!(with_pandas.last().unwrap(), "`pandas` is in the base now");
        let mut other = plan_on(&has);
        other.foundation.base.id = format!("sha256:{}", "1f".repeat(32)).try_into().unwrap();
        assert!(lock.is_of_another_base(&other) && !lock.is_of_another_base(&plan_on(&has)));
    }

    #[test]
    fn generations_count_what_changed_and_differences_say_why() {
        let (first, second) = ("pandas = \"^2.2\"\n", "pandas = \"^2.3\"\n");
        let top = "your-list (pyproject.toml)";
        let packages = [("pandas", "2.2.0", top), ("numpy", "2.1.0", "pandas"), ("pytz", "2024.1", "pandas")];
        let plan_of = |list| plan("minimal", list, &[]);
        let earlier = Lock::of(resolution(&packages), &plan_of(first), None).unwrap();
        let same = Lock::of(resolution(&packages), &plan_of(first), Some(&earlier)).unwrap();
        assert_eq!(same, earlier);
        let packages =
            [("pandas", "2.3.0", top), ("numpy", "2.1.0", "pandas"), ("tzdata", "2025.1", "pandas")];
        let later = Lock::of(resolution(&packages), &plan_of(second), Some(&earlier)).unwrap();
        assert_eq!(later.generation, 1);
        let generations: Vec<u32> = later.entries.values().map(|entry| entry.generation).collect();
        assert_eq!(generations, [0, 1, 1]);
        assert_eq!(Lock::parse(&written(&later, &plan_of(second))).unwrap(), later);
        let asked = BTreeMap::from([(name("pandas"), "deps.txt:1 now asks ^2.3".to_owned())]);
        let told = differences(&earlier, &later, &Reasons { asked, upgrade: false });
        let told: Vec<String> = told.iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "pandas 2.2.0 → 2.3.0, because deps.txt:1 now asks ^2.3",
                "pytz 2024.1 is gone, because nothing needs it any more",
                "tzdata 2025.1 is new, because pandas 2.3.0 needs it",
            ]
        );
    }

    #[test]
    fn what_is_no_lock_of_ours_is_refused() {
        let plan = plan("minimal", "pandas = \"^2.2\"\n", &[]);
        let packages = [("pandas", "2.3.0", "your-list (pyproject.toml)")];
        let text = written(&Lock::of(resolution(&packages), &plan, None).unwrap(), &plan);
        let refused = |from: &str, to: &str| {
            assert!(text.contains(from), "`{from}` is not in {text}");
            let error = Lock::parse(&text.replacen(from, to, 1)).unwrap_err();
            let why = match &error {
                LockError::Entry { why, .. } => why.clone(),
                _ => String::new(),
            };
            format!("{error}: {why}")
        };
        let sha256 = hexadecimal(&Sha256::digest("pandas2.3.0"));
        let package = &text[text.find("[[packages]]").unwrap()..text.find("[tool.ipybox]").unwrap()];
        for (from, to, why) in [
            ("lock-version = \"1.0\"", "lock-version = \"2.0\"", "newer format, `lock-version` 2.0"),
            ("format = 1", "format = 2", "newer format, format 2"),
            ("\"pandas>=2.2,<3.0\"", "\"pandas>=2.1,<3.0\"", "it was edited"),
            ("hosts = [", "hosts = [\"other.test\", ", "it was edited"),
            ("generation = 0", "generation = 1", "it was edited"),
            ("sha256 = \"", "sha256 = \"0", "its SHA-256 is none"),
            ("//files.test/", "//me:secret@files.test/", "holds a user name or a password"),
            ("any.whl\", size", "any.whl?token=secret\", size", "its address has a query"),
            (&sha256, "12", "its SHA-256 is none"),
            (
                "\"https://files.test/",
                "\"https://other.test/",
                "nothing else says that its files are on `other.test`",
            ),
            ("version = \"2.3.0\"", "version = \"2.4.0\"", "is of another version"),
            ("name = \"pandas-2.3.0", "name = \"numpy-2.3.0", "is no wheel of it"),
            ("name = \"pandas-2.3.0", "name = \"../pandas-2.3.0", "the name of its file is none"),
            (
                "url = \"https://files.test/pandas-2.3.0-py3-none-any.whl\"",
                "path = \"../pandas.whl\"",
                "leads out of the folder",
            ),
            (package, &package.repeat(2), "there are two entries of it"),
            ("lock-version", "lock version", "it is no lock"),
        ] {
            let told = refused(from, to);
            assert!(told.contains(why), "{told} instead of {why}");
        }
        let foreign = Lock::parse(&text[..text.find("[tool.ipybox]").unwrap()]).unwrap_err();
        assert_eq!(foreign.to_string(), "it was made by `ipybox`");
        let mut other = plan.clone();
        other.foundation.base.platform.architecture = "arm64".to_owned();
        let lock = Lock::parse(&text.replace("none-any", "none-linux_x86_64")).unwrap();
        let told: Vec<String> = lock.changes(&other).into_iter().map(|change| change.what).collect();
        assert!(
            told.iter().any(|what| what.contains("the wheel of `pandas` is not for manylinux_2_36_aarch64")),
            "{told:?}"
        );
    }

    #[test]
    fn versions_of_other_tools_are_taken_over() {
        let uv = "version = 1\n[[package]]\nname = \"Six\"\nversion = \"1.16.0\"\n[[package]]\nname = \"six\"\nversion = \"1.17.0\"\n";
        assert!(versions(uv).unwrap().contains("name = \"six\"\nversion = \"1.17.0\""));
        assert!(versions("[[packages]]\nname = \"a\"\n").is_ok() && versions("[[packages").is_err());
    }
}
