//! What uv is asked for: the files it reads, from a plan. A build step and this host get the same.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::path::Path;

use pep440_rs::Version;
use serde::Serialize;
use toml_edit::{Array, ArrayOfTables, DocumentMut, InlineTable, Item, Table, value};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

use crate::deps::{Name, Priority, Source, percent_encoded};
use crate::plan::{Held, PackageIndex, Pin, Plan, Requirement};
use crate::variant::Placement;

/// What the project is called that stands for the user's list; uv says it in its reasons.
pub(super) const PROJECT: &str = "your-list";

/// Where build steps find what is built.
const SOURCES: &str = "/dev/ipybox/sources";

/// Who reads a request.
#[derive(Debug, Clone, Copy)]
pub enum Reader<'a> {
    /// A build step, which installs what it resolves.
    Step,
    /// This host, in a folder. What the base holds is told as well, with what needs it.
    Host(&'a Path),
}

/// The name of uv's settings in a request.
pub(super) const SETTINGS: &str = "uv.toml";

/// The name of what keeps the base's distributions at their versions, and tells `look.py` which they are.
pub(super) const BASE_CONSTRAINTS: &str = "base.txt";

/// The name of bounds and hashes.
pub(super) const CONSTRAINTS: &str = "constraints.txt";

/// The name of what makes folders of the base visible.
const BASE_FOLDERS: &str = "base.pth";

/// The name of what is installed, where that is locked; uv takes no other for it.
const PYLOCK: &str = "pylock.toml";

/// The folder of locked wheels that are files of this host.
pub const WHEELS: &str = "wheels";

/// The files of a request by their names: `NN/pyproject.toml` for each choice of alternatives, the newest
/// first, and what holds for all of them.
///
/// # Errors
///
/// Of writing a wheel or JSON to memory.
pub fn request(plan: &Plan, reader: Reader<'_>) -> io::Result<BTreeMap<String, Vec<u8>>> {
    let mut files = BTreeMap::new();
    let mut add = |name: &str, text: Vec<u8>| drop(files.insert(name.to_owned(), text));
    if let Some(pins) = &plan.packages.locked {
        add(SETTINGS, uv_settings(plan, reader).into());
        add(PYLOCK, pylock(pins, plan).into());
        if plan.foundation.placement != Placement::Isolated {
            add(BASE_CONSTRAINTS, base_constraints(plan).into());
        }
        if !plan.packages.folders.is_empty() {
            add(BASE_FOLDERS, folders(&plan.packages.folders).into());
        }
        return Ok(files);
    }
    for (number, requirements) in choices(plan).iter().enumerate() {
        add(&format!("{:02}/pyproject.toml", number + 1), pyproject(requirements, plan).into());
    }
    add(SETTINGS, uv_settings(plan, reader).into());
    if plan.foundation.placement != Placement::Isolated {
        add(BASE_CONSTRAINTS, base_constraints(plan).into());
        for (name, held) in &plan.packages.held {
            if let Some(version) = &held.version {
                let wheel = format!("{}-{version}-py3-none-any.whl", name.as_str().replace('-', "_"));
                add(&format!("base/{wheel}"), stand_in(name, version, held)?);
            }
        }
    }
    if !plan.packages.folders.is_empty() {
        add(BASE_FOLDERS, folders(&plan.packages.folders).into());
    }
    if !plan.packages.bounds.is_empty() {
        add(CONSTRAINTS, constraints(plan).into());
    }
    if plan.packages.checks_hashes() {
        let hashes: BTreeMap<_, _> =
            plan.packages.hashed().map(|bound| (bound.name.as_str(), &bound.hashes)).collect();
        add("hashes.json", serde_json::to_vec(&hashes).map_err(io::Error::other)?);
    }
    Ok(files)
}

/// One list of requirements for each choice of alternatives. The first that resolves is taken; newer
/// versions come first.
fn choices(plan: &Plan) -> Vec<Vec<String>> {
    let open = plan.packages.requirements.iter().enumerate().filter(|(_, one)| one.alternatives.len() > 1);
    let mut choices: Vec<Vec<(usize, usize)>> = vec![Vec::new()];
    for (at, requirement) in open {
        let extended = |choice: Vec<(usize, usize)>| {
            (0..requirement.alternatives.len()).map(move |index| [choice.as_slice(), &[(at, index)]].concat())
        };
        choices = choices.into_iter().flat_map(extended).collect();
    }
    choices.sort_by_key(|choice| choice.iter().map(|(_, index)| index).sum::<usize>());
    let request = |choice: Vec<(usize, usize)>| {
        let mut texts: Vec<String> = plan.packages.requirements.iter().map(ToString::to_string).collect();
        for (at, index) in choice {
            texts[at] = plan.packages.requirements[at].alternative(index);
        }
        texts
    };
    choices.into_iter().map(request).collect()
}

/// Locked wheels as uv reads them.
///
/// Rule: PEP 751, "Specification".
fn pylock(pins: &BTreeMap<Name, Pin>, plan: &Plan) -> String {
    let mut document = DocumentMut::new();
    document["lock-version"] = value("1.0");
    document["created-by"] = value("ipybox");
    let minor = plan.foundation.interpreter.version.splitn(3, '.').take(2).collect::<Vec<_>>().join(".");
    document["requires-python"] = value(format!("=={minor}.*"));
    let package = |(name, pin): (&Name, &Pin)| {
        let mut hashes = InlineTable::new();
        hashes.insert("sha256", pin.sha256.as_str().into());
        let mut file = InlineTable::new();
        match &pin.url {
            Some(url) => file.insert("url", url.as_str().into()),
            None => file.insert("path", format!("{WHEELS}/{}", pin.file).into()),
        };
        file.insert("hashes", hashes.into());
        let mut table = Table::new();
        table["name"] = value(name.as_str());
        table["version"] = value(&pin.version);
        if pin.is_direct {
            table["archive"] = value(file);
        } else {
            file.insert("name", pin.file.as_str().into());
            table["wheels"] = value(Array::from_iter([file]));
        }
        table
    };
    // The standard wants the key also where there is nothing.
    document["packages"] = if pins.is_empty() {
        value(Array::new())
    } else {
        Item::ArrayOfTables(pins.iter().map(package).collect())
    };
    document.to_string()
}

/// What keeps the base's distributions at their versions.
fn base_constraints(plan: &Plan) -> String {
    let line = |(name, held): (&Name, &Held)| Some(format!("{name}=={}\n", held.version.as_ref()?));
    plan.packages.held.iter().filter_map(line).collect()
}

/// A wheel with a held distribution's metadata and nothing else. It is resolved like any other, also where no
/// index knows the distribution, and is never installed.
///
/// Rule: Python packaging, "Binary distribution format" and "Core metadata specifications".
fn stand_in(name: &Name, version: &Version, held: &Held) -> io::Result<Vec<u8>> {
    let mut metadata = format!("Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n");
    for requirement in &held.requires {
        metadata += &format!("Requires-Dist: {requirement}\n");
    }
    for extra in &held.extras {
        metadata += &format!("Provides-Extra: {extra}\n");
    }
    let mut wheel = ZipWriter::new(io::Cursor::new(Vec::new()));
    // The same time in every wheel, whatever the clock says.
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .last_modified_time(DateTime::default());
    let folder = format!("{}-{version}.dist-info", name.as_str().replace('-', "_"));
    for (file, text) in [
        ("METADATA", metadata.as_str()),
        ("WHEEL", "Wheel-Version: 1.0\nGenerator: ipybox\nRoot-Is-Purelib: true\nTag: py3-none-any\n"),
        ("RECORD", ""),
    ] {
        wheel.start_file(format!("{folder}/{file}"), options)?;
        wheel.write_all(text.as_bytes())?;
    }
    Ok(wheel.finish()?.into_inner())
}

/// A `.pth` file that makes distributions of other folders visible.
///
/// Rule: Python's documentation of the module `site`: lines that begin with `import` are run.
fn folders(folders: &[String]) -> String {
    let line = |folder: &String| {
        let literal = serde_json::to_string(folder).expect("a text is JSON");
        format!("import site; site.addsitedir({literal})\n")
    };
    folders.iter().map(line).collect()
}

/// A request as uv reads it: requirements, and the indexes that some of them come from alone.
fn pyproject(requirements: &[String], plan: &Plan) -> String {
    let dependencies: Array = requirements.iter().collect();
    let mut project = Table::new();
    project["name"] = value(PROJECT);
    project["version"] = value("0");
    project["dependencies"] = value(dependencies);
    let mut document = DocumentMut::new();
    document["project"] = project.into();
    let mut indexes = ArrayOfTables::new();
    let mut sources = Table::new();
    for (name, index) in asked_for_some(&plan.packages.indexes) {
        indexes.push(explicit(&name, index));
        for distribution in &index.only {
            let mut source = InlineTable::new();
            source.insert("index", name.as_str().into());
            sources[distribution.as_str()] = value(source);
        }
    }
    if !indexes.is_empty() {
        let mut uv = Table::new();
        uv.set_implicit(true);
        uv["index"] = Item::ArrayOfTables(indexes);
        uv["sources"] = sources.into();
        let mut tool = Table::new();
        tool.set_implicit(true);
        tool["uv"] = uv.into();
        document["tool"] = tool.into();
    }
    document.to_string()
}

/// The indexes that some distributions come from alone, with names for them.
fn asked_for_some(indexes: &[PackageIndex]) -> impl Iterator<Item = (String, &PackageIndex)> {
    let named = indexes.iter().enumerate().map(|(number, index)| (format!("index-{}", number + 1), index));
    named.filter(|(_, index)| !index.only.is_empty())
}

fn explicit(name: &str, index: &PackageIndex) -> Table {
    let mut table = described(name, index);
    table["explicit"] = value(true);
    table
}

fn described(name: &str, index: &PackageIndex) -> Table {
    let mut table = Table::new();
    table["name"] = value(name);
    table["url"] = value(index.url.as_str());
    table
}

/// The indexes that are asked for everything, in the order they are asked. The last one replaces the
/// installer's own, where any does.
fn asked(indexes: &[PackageIndex]) -> (Vec<&PackageIndex>, bool) {
    let of = |priority| indexes.iter().filter(move |index| index.priority == priority);
    let defaults = [Priority::Default, Priority::Supplemental].into_iter().flat_map(of);
    let asked: Vec<_> = of(Priority::Extra).chain(defaults).collect();
    let replaced = asked.last().is_some_and(|last| last.priority != Priority::Extra);
    (asked, replaced)
}

fn asked_tables(indexes: &[PackageIndex]) -> ArrayOfTables {
    let (asked, replaced) = asked(indexes);
    let table = |(number, index): (usize, &&PackageIndex)| {
        let mut table = described(&format!("asked-{}", number + 1), index);
        if replaced && number + 1 == asked.len() {
            table["default"] = value(true);
        }
        table
    };
    asked.iter().enumerate().map(table).collect()
}

/// uv's settings. It takes a distribution from the first index that has it, and asks the default one
/// last.
fn uv_settings(plan: &Plan, reader: Reader<'_>) -> String {
    let mut tables = asked_tables(&plan.packages.indexes);
    // The project describes them as well; uv says of those in its settings alone why they gave nothing.
    for (name, index) in asked_for_some(&plan.packages.indexes) {
        tables.push(explicit(&name, index));
    }
    let mut document = DocumentMut::new();
    if plan.foundation.placement != Placement::Isolated {
        // An index that has the same version has its own word on what that requires.
        let metadata = plan.packages.held.iter().filter_map(|(name, held)| {
            let mut metadata = InlineTable::new();
            metadata.insert("name", name.as_str().into());
            metadata.insert("version", held.version.as_ref()?.to_string().into());
            metadata.insert("requires-dist", held.requires.iter().collect::<Array>().into());
            metadata.insert("provides-extra", held.extras.iter().map(Name::as_str).collect::<Array>().into());
            Some(metadata)
        });
        document["dependency-metadata"] = value(metadata.collect::<Array>());
        let mut pip = Table::new();
        let stand_ins = match reader {
            Reader::Step => {
                let omitted: Array = plan.packages.held.keys().map(Name::as_str).collect();
                pip["no-emit-package"] = value(omitted);
                "/dev/ipybox/request/base".to_owned()
            }
            Reader::Host(folder) => folder.join("base").to_string_lossy().into_owned(),
        };
        pip["find-links"] = value(Array::from_iter([stand_ins]));
        document["pip"] = pip.into();
    }
    if !tables.is_empty() {
        document["index"] = Item::ArrayOfTables(tables);
    }
    document.to_string()
}

/// Bounds and hashes as installers read them.
fn constraints(plan: &Plan) -> String {
    let line = |text: String, bound: &Requirement| {
        let hashes = bound.hashes.iter().fold(String::new(), |hashes, hash| hashes + " --hash=" + hash);
        text + &bound.to_string() + &hashes + "\n"
    };
    plan.packages.bounds.iter().fold(String::new(), line)
}

/// uv's settings where nothing of a list is asked for: the one index that replaces its own, if any.
#[must_use]
pub fn default_index(plan: &Plan) -> String {
    let (asked, replaced) = asked(&plan.packages.indexes);
    index_settings(
        &asked.last().filter(|_| replaced).map(|&index| index.clone()).into_iter().collect::<Vec<_>>(),
    )
}

/// Whether one of the indexes takes the place of the installer's own.
#[must_use]
pub fn replaces_own(indexes: &[PackageIndex]) -> bool {
    asked(indexes).1
}

/// uv's settings for these indexes alone.
#[must_use]
pub fn index_settings(indexes: &[PackageIndex]) -> String {
    let mut document = DocumentMut::new();
    let tables = asked_tables(indexes);
    if !tables.is_empty() {
        document["index"] = Item::ArrayOfTables(tables);
    }
    document.to_string()
}

/// What is asked of which index where wheels are built, as `templates/build/index.py` reads it.
///
/// # Errors
///
/// Of writing JSON to memory.
pub fn index_order(plan: &Plan) -> io::Result<Vec<u8>> {
    #[derive(Serialize)]
    struct Order<'a> {
        /// Addresses, in their order.
        asked: Vec<&'a str>,
        /// Whether pip's own index comes last.
        own: bool,
        /// Distributions that come from one index and no other.
        alone: BTreeMap<&'a str, &'a str>,
    }
    let (asked, replaced) = asked(&plan.packages.indexes);
    let order = Order {
        asked: asked.into_iter().map(|index| index.url.as_str()).collect(),
        own: !replaced,
        alone: plan
            .packages
            .indexes
            .iter()
            .flat_map(|index| index.only.iter().map(|name| (name.as_str(), index.url.as_str())))
            .collect(),
    };
    serde_json::to_vec_pretty(&order).map_err(io::Error::other)
}

/// A source that a wheel is built of, as `templates/build/wheel.py` reads it.
#[derive(Serialize)]
struct Unbuilt {
    name: String,
    /// A line of a requirements file.
    requirement: String,
    /// Whether an index is asked for the source.
    is_indexed: bool,
}

/// What wheels are built of, as JSON by distribution.
///
/// # Errors
///
/// Of writing JSON to memory.
pub fn builds(plan: &Plan) -> io::Result<Vec<(&Name, Vec<u8>)>> {
    let from_elsewhere = plan.packages.sources.iter().map(|(name, source)| {
        // pip takes the subdirectory of a folder as it stands, so it goes into the path.
        let inside = source.subdirectory.as_deref().map(percent_encoded);
        let address = match (&source.digest, &source.file, inside) {
            (None, ..) => {
                let (url, subdirectory) = (source.from.clone(), source.subdirectory.clone());
                Source::Url { url, subdirectory, sha256: source.sha256.clone() }.to_string()
            }
            (Some(_), Some(file), _) => format!("file://{SOURCES}/{name}/{file}"),
            (Some(_), None, None) => format!("file://{SOURCES}/{name}"),
            (Some(_), None, Some(inside)) => format!("file://{SOURCES}/{name}/{inside}"),
        };
        let requirement = format!("{name} @ {address}");
        (name, Unbuilt { name: name.to_string(), requirement, is_indexed: false })
    });
    let of_index = plan.packages.unbuilt.iter().map(|(name, versions)| {
        let bounds = || plan.packages.bounds.iter().filter(|bound| bound.name == *name);
        let sets = bounds().map(|bound| bound.alternatives[0].to_string()).chain([versions.to_string()]);
        let versions: BTreeSet<_> = sets.filter(|set| !set.is_empty()).collect();
        let versions = versions.into_iter().collect::<Vec<_>>().join(",");
        let hashes = bounds().flat_map(|bound| &bound.hashes).map(|hash| format!(" --hash={hash}"));
        let requirement = format!("{name}{versions}{}", hashes.collect::<String>());
        (name, Unbuilt { name: name.to_string(), requirement, is_indexed: true })
    });
    let json = |(name, build)| Ok((name, serde_json::to_vec_pretty(&build).map_err(io::Error::other)?));
    from_elsewhere.chain(of_index).map(json).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::User;
    use crate::base::{Base, Distribution};
    use crate::deps::Spec;
    use crate::plan::{Installer, Materials, Target};
    use crate::request::Request;
    use crate::variant::Variant;

    #[test]
    fn the_installer_hears_what_a_base_has_and_not_what_an_index_says_of_it() {
        let mut base = Base::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/base.json").as_ref()).unwrap();
        let one = |name: &str, version: &str, requires: &[&str]| Distribution {
            name: name.to_owned(),
            version: version.to_owned(),
            requires: requires.iter().map(|text| (*text).to_owned()).collect(),
            extras: vec!["opt".to_owned()],
            of_system: false,
        };
        base.pythons[0].distributions = vec![
            one("Torch", "2.3.0+cu121", &["numpy", "nvidia-cublas==12.1", "sympy; extra == 'opt'"]),
            one("numpy", "1.26.4", &[]),
        ];
        let (spec, variant) =
            (Spec::parse("torch = \">=2\"\n").unwrap(), Variant::read("any-base", None).unwrap());
        let request = Request { name: Some("x".to_owned()), ..Request::new("any-base", User::Root) };
        let installer = Installer::of(&base.platform);
        let materials = Materials { installer, ..Materials::default() };
        let target = Target::choose(&request, &spec, &variant, &base, &materials).unwrap();
        let plan = Plan::resolve(&request, &spec, &variant, &base, target, materials).unwrap();
        let settings = uv_settings(&plan, Reader::Step);
        let torch = r#"{ name = "torch", version = "2.3.0+cu121", requires-dist = ["numpy", "sympy; extra == 'opt'"], provides-extra = ["opt"] }"#;
        assert!(settings.contains(torch), "{settings}");
        assert!(settings.contains(r#"no-emit-package = ["numpy", "torch"]"#), "{settings}");
        assert_eq!(base_constraints(&plan), "numpy==1.26.4\ntorch==2.3.0+cu121\n");
    }

    #[test]
    fn folders_become_python_literals() {
        assert_eq!(
            folders(&["/a \"b\"\n".to_owned()]),
            "import site; site.addsitedir(\"/a \\\"b\\\"\\n\")\n"
        );
    }
}
