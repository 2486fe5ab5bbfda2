//! The text of a lock: PEP 751, read and written.

use std::collections::BTreeMap;

use pep440_rs::Version;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use sha2::{Digest, Sha256};
use toml_edit::{Array, ArrayOfTables, Datetime, DocumentMut, InlineTable, Item, Table, Value, value};

use super::{Entry, Lock, LockError, MadeFor, Wheel, without_nothing};
use crate::archive::hexadecimal;
use crate::deps::{Name, percent_decoded};

/// The version of the format.
const LOCK_VERSION: &str = "1.0";

/// What the part of a lock that is ours looks like; counted up where that changes.
const FORMAT: u32 = 1;

/// Who makes our locks.
const CREATED_BY: &str = "ipybox";

/// What stands on top of a lock.
const HEAD: &str = "# Made by `ipybox lock` for one kind of Python on one base, as `tool.ipybox` says; not edited by hand.\n";

/// What stands there where the base brings packages.
const HEAD_LAYERED: &str =
    "# It is complete only on top of what the base has: `tool.ipybox.relies-on` says what that is.\n";

/// A lock as it is written.
///
/// Rule: PEP 751, "Specification".
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct File {
    lock_version: String,
    created_by: String,
    #[serde(default)]
    packages: Vec<Package>,
    #[serde(default)]
    tool: Tools,
}

#[derive(Deserialize, Default)]
struct Tools {
    ipybox: Option<Json>,
}

/// What is ours in a lock.
#[derive(Serialize, Deserialize)]
struct Ours {
    format: u32,
    generation: u32,
    #[serde(flatten)]
    made_for: MadeFor,
}

/// The key of the digest over all else that is ours.
const DIGEST: &str = "sha256";

impl Ours {
    /// As it is written, with its digest.
    fn sealed(&self) -> Json {
        let mut json = serde_json::to_value(self).expect("it is plain data");
        without_nothing(&mut json);
        json[DIGEST] = digest(&json).into();
        json
    }

    /// Reads it, if nobody has changed it.
    fn opened(mut json: Json) -> Result<Self, LockError> {
        let format = json.get("format").and_then(Json::as_u64);
        if let Some(format) = format.filter(|format| *format > u64::from(FORMAT)) {
            return Err(LockError::Newer { what: format!("format {format}") });
        }
        let sealed = json.as_object_mut().and_then(|ours| ours.remove(DIGEST));
        if sealed.as_ref().and_then(Json::as_str) != Some(&digest(&json)) {
            return Err(LockError::Edited);
        }
        serde_json::from_value(json).map_err(|error| LockError::Syntax { why: error.to_string() })
    }
}

/// SHA-256 over the names and values of a table, in the order of the names.
fn digest(json: &Json) -> String {
    hexadecimal(&Sha256::digest(json.to_string()))
}

#[derive(Deserialize)]
struct Package {
    name: Name,
    version: Option<Version>,
    index: Option<String>,
    #[serde(default)]
    dependencies: Vec<Reference>,
    #[serde(default)]
    wheels: Vec<WheelFile>,
    archive: Option<WheelFile>,
    #[serde(default)]
    tool: PackageTools,
}

#[derive(Deserialize, Default)]
struct PackageTools {
    ipybox: Option<OfPackage>,
}

#[derive(Deserialize)]
struct OfPackage {
    generation: u32,
}

#[derive(Deserialize)]
struct Reference {
    name: Name,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct WheelFile {
    name: Option<String>,
    url: Option<String>,
    path: Option<String>,
    size: Option<u64>,
    upload_time: Option<Datetime>,
    #[serde(default)]
    hashes: BTreeMap<String, String>,
}

/// A package as any tool's lock has it.
pub(super) struct Found {
    pub(super) name: Name,
    pub(super) version: Option<Version>,
    pub(super) index: Option<String>,
    pub(super) wheels: Vec<Wheel>,
}

/// The packages of a lock, whoever made it.
pub(super) fn packages(text: &str) -> Result<Vec<Found>, LockError> {
    let file: File = toml_edit::de::from_str(text).map_err(|error| LockError::of_toml(&error))?;
    check_version(&file)?;
    file.packages
        .into_iter()
        .map(|package| {
            let Package { name, version, index, wheels, archive, .. } = package;
            let indexed = wheels.into_iter().map(|file| (file, false));
            // A file of this host is one that was built for it, and known better than uv tells it.
            let archive = archive.filter(|file| file.path.is_none());
            let files = indexed.chain(archive.map(|file| (file, true)));
            let wheels =
                files.map(|(file, is_direct)| wheel(&name, file, is_direct)).collect::<Result<_, _>>()?;
            Ok(Found { name, version, index, wheels })
        })
        .collect()
}

fn check_version(file: &File) -> Result<(), LockError> {
    // A newer minor version adds what may be ignored.
    match file.lock_version.split_once('.') {
        Some(("1", _)) => Ok(()),
        _ => Err(LockError::Newer { what: format!("`lock-version` {}", file.lock_version) }),
    }
}

fn wheel(package: &Name, file: WheelFile, is_direct: bool) -> Result<Wheel, LockError> {
    let bad = |why: &str| LockError::Entry { name: package.clone(), why: why.to_owned() };
    let last = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
    let of_address = || file.url.as_deref().map(|url| last(url.split(['?', '#']).next().unwrap_or_default()));
    let name = file.name.clone().or_else(of_address).or_else(|| file.path.as_deref().map(last));
    let name = name.and_then(|name| percent_decoded(&name)).ok_or_else(|| bad("a file has no name"))?;
    let sha256 = file.hashes.get("sha256").ok_or_else(|| bad("a file has no SHA-256"))?.to_ascii_lowercase();
    if sha256.len() != 64 || !sha256.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(bad("its SHA-256 is none"));
    }
    if name.contains(['/', '\\', '\0']) || name.starts_with('.') {
        return Err(bad("the name of its file is none"));
    }
    let upload_time = file.upload_time.map(|time| time.to_string());
    Ok(Wheel { file: name, url: file.url, path: file.path, size: file.size, upload_time, sha256, is_direct })
}

impl Lock {
    /// Reads a lock of ours.
    ///
    /// # Errors
    ///
    /// [`LockError`].
    pub fn parse(text: &str) -> Result<Self, LockError> {
        let file: File = toml_edit::de::from_str(text).map_err(|error| LockError::of_toml(&error))?;
        check_version(&file)?;
        let Some(ours) = file.tool.ipybox else { return Err(LockError::Foreign { by: file.created_by }) };
        let Ours { generation: latest, made_for, .. } = Ours::opened(ours)?;
        let mut entries = BTreeMap::new();
        for package in file.packages {
            let bad = |why: &str| LockError::Entry { name: package.name.clone(), why: why.to_owned() };
            let version = package.version.clone().ok_or_else(|| bad("it has no version"))?;
            let mut files = package.wheels.into_iter().map(|file| (file, false));
            let mut files = files.by_ref().chain(package.archive.map(|file| (file, true)));
            let (Some((file, is_direct)), None) = (files.next(), files.next()) else {
                return Err(bad("it has not one wheel"));
            };
            let generation = package.tool.ipybox.map_or(0, |ours| ours.generation);
            if generation > latest {
                return Err(bad("its generation is later than the lock's"));
            }
            let entry = Entry {
                version,
                index: package.index,
                wheel: wheel(&package.name, file, is_direct)?,
                dependencies: package.dependencies.into_iter().map(|reference| reference.name).collect(),
                generation,
            };
            entry.check(&package.name, &made_for)?;
            if entries.insert(package.name.clone(), entry).is_some() {
                return Err(bad("there are two entries of it"));
            }
        }
        Ok(Self { generation: latest, made_for, entries })
    }
}

impl Lock {
    /// The text of the lock.
    #[must_use]
    pub fn write(&self, tags: &super::Tags) -> String {
        let Self { generation, made_for, entries } = self;
        let mut document = DocumentMut::new();
        document["lock-version"] = value(LOCK_VERSION);
        document["environments"] = value(Array::from_iter([tags.marker()]));
        document["requires-python"] = value(tags.requires_python());
        document["extras"] = value(Array::new());
        document["dependency-groups"] = value(Array::new());
        document["created-by"] = value(CREATED_BY);
        document["packages"] = tables(entries.iter().map(|(name, entry)| package(name, entry)));
        let ours = Ours { format: FORMAT, generation: *generation, made_for: made_for.clone() };
        let mut tool = Table::new();
        tool.set_implicit(true);
        tool["ipybox"] = item(&ours.sealed());
        document["tool"] = Item::Table(tool);
        let layered = if made_for.relies_on.is_empty() { "" } else { HEAD_LAYERED };
        format!("{HEAD}{layered}{document}")
    }

    /// Its versions, for an installer that keeps them as long as they will do.
    #[must_use]
    pub fn preferences(&self) -> String {
        preferences(self.entries.iter().map(|(name, entry)| (name.clone(), entry.version.clone())))
    }
}

/// The versions of a lock of any tool, for an installer that keeps them as long as they will do: PEP 751, `uv.lock` and
/// `poetry.lock`.
///
/// # Errors
///
/// [`LockError::Syntax`].
pub fn versions(text: &str) -> Result<String, LockError> {
    #[derive(Deserialize)]
    struct Any {
        #[serde(default, alias = "package")]
        packages: Vec<Named>,
    }
    #[derive(Deserialize)]
    struct Named {
        name: Name,
        version: Option<Version>,
    }
    let Any { packages } = toml_edit::de::from_str(text).map_err(|error| LockError::of_toml(&error))?;
    // Of several versions for different platforms the newest is preferred.
    let mut newest = BTreeMap::<Name, Version>::new();
    for Named { name, version } in packages {
        let Some(version) = version else { continue };
        let known = newest.entry(name).or_insert_with(|| version.clone());
        if version > *known {
            *known = version;
        }
    }
    Ok(preferences(newest.into_iter()))
}

fn preferences(versions: impl Iterator<Item = (Name, Version)>) -> String {
    let mut document = DocumentMut::new();
    document["lock-version"] = value(LOCK_VERSION);
    document["created-by"] = value(CREATED_BY);
    let package = |(name, version): (Name, Version)| {
        let mut table = Table::new();
        table["name"] = value(name.as_str());
        table["version"] = value(version.to_string());
        table
    };
    document["packages"] = tables(versions.map(package));
    document.to_string()
}

/// An array of tables, which is there also where it is empty.
fn tables(tables: impl Iterator<Item = Table>) -> Item {
    let tables: ArrayOfTables = tables.collect();
    if tables.is_empty() { value(Array::new()) } else { Item::ArrayOfTables(tables) }
}

fn package(name: &Name, entry: &Entry) -> Table {
    let Entry { version, index, wheel, dependencies, generation } = entry;
    let mut table = Table::new();
    table["name"] = value(name.as_str());
    table["version"] = value(version.to_string());
    if let Some(index) = index {
        table["index"] = value(index);
    }
    if !dependencies.is_empty() {
        let named = |name: &Name| {
            let mut reference = InlineTable::new();
            reference.insert("name", name.as_str().into());
            reference
        };
        table["dependencies"] = value(lines(dependencies.iter().map(|name| Value::from(named(name)))));
    }
    if wheel.is_direct {
        table["archive"] = value(file(wheel));
    } else {
        table["wheels"] = value(lines(std::iter::once(Value::from(file(wheel)))));
    }
    if *generation > 0 {
        let mut ours = InlineTable::new();
        ours.insert("generation", i64::from(*generation).into());
        let mut tool = Table::new();
        tool.set_dotted(true);
        tool["ipybox"] = value(ours);
        table["tool"] = Item::Table(tool);
    }
    table
}

fn file(wheel: &Wheel) -> InlineTable {
    let mut table = InlineTable::new();
    // What is taken as it is has no name of its own there.
    if !wheel.is_direct {
        table.insert("name", wheel.file.as_str().into());
    }
    if let Some(time) = wheel.upload_time.as_deref().and_then(|time| time.parse::<Datetime>().ok()) {
        table.insert("upload-time", time.into());
    }
    if let Some(url) = &wheel.url {
        table.insert("url", url.as_str().into());
    }
    if let Some(path) = &wheel.path {
        table.insert("path", path.as_str().into());
    }
    if let Some(size) = wheel.size.and_then(|size| i64::try_from(size).ok()) {
        table.insert("size", size.into());
    }
    let mut hashes = InlineTable::new();
    hashes.insert("sha256", wheel.sha256.as_str().into());
    table.insert("hashes", hashes.into());
    table
}

/// An array with a line for each of its entries.
fn lines(entries: impl Iterator<Item = Value>) -> Array {
    let mut array = Array::new();
    for mut entry in entries {
        entry.decor_mut().set_prefix("\n    ");
        array.push_formatted(entry);
    }
    if !array.is_empty() {
        array.set_trailing("\n");
        array.set_trailing_comma(true);
    }
    array
}

/// JSON as TOML, which has no `null`: objects are tables, and lists have a line for each entry.
fn item(json: &Json) -> Item {
    match json {
        Json::Object(map) => {
            let mut table = Table::new();
            table.set_implicit(map.values().all(Json::is_object) && !map.is_empty());
            for (name, entry) in map.iter().filter(|(_, entry)| !entry.is_null()) {
                table[name] = item(entry);
            }
            Item::Table(table)
        }
        Json::Array(list) => value(lines(list.iter().map(inline))),
        other => value(inline(other)),
    }
}

fn inline(json: &Json) -> Value {
    match json {
        Json::Object(map) => {
            let entries = map.iter().filter(|(_, entry)| !entry.is_null());
            entries.map(|(name, entry)| (name.as_str(), inline(entry))).collect::<InlineTable>().into()
        }
        Json::Array(list) => list.iter().map(inline).collect::<Array>().into(),
        Json::String(text) => text.as_str().into(),
        Json::Bool(is) => (*is).into(),
        Json::Number(number) => number.as_i64().unwrap_or_default().into(),
        Json::Null => "".into(),
    }
}
