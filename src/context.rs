//! A [`Plan`] to the files its build gets; equal plans give equal bytes.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use toml_edit::{Array, ArrayOfTables, DocumentMut, InlineTable, Item, Table, value};

use crate::accounts;
use crate::archive::{Archive, Owner};
use crate::local::LocalSource;
use crate::plan::{HOME, PackageIndex, Plan};
use crate::spec::{Name, Priority, Source, percent_encoded};
use crate::templates::Templates;

/// The installer's name in a context that holds it.
pub const UV: &str = "uv";

/// Where build steps find what is built.
const SOURCES: &str = "/dev/ipybox/sources";

/// The files of a build, with the installer among them where the engine does not have it.
///
/// # Errors
///
/// Of asking for the size of the installer, or of a file of `sources`.
pub fn of(
    plan: &Plan,
    templates: &Templates,
    dockerfile: String,
    sources: &BTreeMap<Name, LocalSource>,
    uv: Option<&Path>,
) -> io::Result<Archive> {
    let mut context = Archive::default();
    context.add("Dockerfile", dockerfile);
    context.add("files.tar", image_files(plan, templates).to_tar()?);
    context.add("server.txt", runtime(templates, &plan.lock));
    for (number, requirements) in plan.requests().iter().enumerate() {
        context.add(&format!("request/{:02}/pyproject.toml", number + 1), pyproject(requirements, plan));
    }
    context.add("request/uv.toml", uv_settings(&plan.indexes));
    if !plan.bounds.is_empty() {
        context.add("request/constraints.txt", constraints(plan));
    }
    if !plan.sources.is_empty() {
        context.add("sources.txt", sources_to_build(plan));
        context.add_directory("sources", 0o755, Owner::default());
    }
    for (name, source) in sources.iter().filter(|(name, _)| plan.sources.contains_key(*name)) {
        for (path, file, mode) in source.files() {
            context.add_file(&format!("sources/{name}/{path}"), mode, file)?;
        }
    }
    if let Some(uv) = uv {
        context.add_file(UV, 0o755, uv)?;
    }
    Ok(context)
}

/// What one `ADD` lays over the base: everything but the two environments.
fn image_files(plan: &Plan, templates: &Templates) -> Archive {
    let (uid, gid) = plan.user.ids();
    let mut files = Archive::default();
    if plan.base.lacks_hosts {
        files.add("etc/hosts", "");
    }
    if plan.base.lacks_resolv_conf {
        files.add("etc/resolv.conf", "");
    }
    if let Some(passwd) = accounts::passwd(&plan.base.passwd, plan.user) {
        files.add("etc/passwd", passwd);
        files.add_directory(relative(plan.user.home()), 0o755, Owner { uid, gid });
    }
    if let Some(group) = accounts::group(&plan.base.group, plan.user) {
        files.add("etc/group", group);
    }
    files.add_directory("app", 0o755, Owner { uid, gid });
    for (path, text) in templates.modules() {
        files.add(&format!("{}/lib/{path}", relative(HOME)), text);
    }
    files.add_program("usr/local/bin/init-firewall.sh", runtime(templates, "init-firewall.sh"));
    for (path, file) in [
        ("server/share/jupyter/kernels/python3/kernel.json", "kernel.json"),
        ("server/etc/jupyter/jupyter_kernel_gateway_config.py", "jupyter_kernel_gateway_config.py"),
    ] {
        files.add(&format!("{}/{path}", relative(HOME)), runtime(templates, file));
    }
    files
}

/// A path of an image as archives have it.
fn relative(path: &str) -> &str {
    path.trim_start_matches('/')
}

fn runtime<'a>(templates: &'a Templates, file: &str) -> &'a str {
    templates.get(&format!("runtime/{file}")).expect("a plan names files that there are")
}

/// A request as uv reads it: requirements, and the indexes that some of them come from alone.
fn pyproject(requirements: &[String], plan: &Plan) -> String {
    let dependencies: Array = requirements.iter().collect();
    let mut project = Table::new();
    project["name"] = value("ipybox-packages");
    project["version"] = value("0");
    project["dependencies"] = value(dependencies);
    let mut document = DocumentMut::new();
    document["project"] = project.into();
    let mut indexes = ArrayOfTables::new();
    let mut sources = Table::new();
    for (number, index) in plan.indexes.iter().enumerate().filter(|(_, index)| !index.only.is_empty()) {
        let name = index_name(number);
        let mut described = described(&name, index);
        described["explicit"] = value(true);
        indexes.push(described);
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

fn index_name(number: usize) -> String {
    format!("index-{}", number + 1)
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

/// uv's settings. It takes a distribution from the first index that has it, and asks the default one
/// last.
fn uv_settings(indexes: &[PackageIndex]) -> String {
    let (asked, replaced) = asked(indexes);
    let mut tables = ArrayOfTables::new();
    for (number, index) in asked.iter().enumerate() {
        let mut table = described(&format!("asked-{}", number + 1), index);
        if replaced && number + 1 == asked.len() {
            table["default"] = value(true);
        }
        tables.push(table);
    }
    let mut document = DocumentMut::new();
    if !tables.is_empty() {
        document["index"] = Item::ArrayOfTables(tables);
    }
    document.to_string()
}

/// Bounds and hashes as installers read them.
fn constraints(plan: &Plan) -> String {
    let line = |text: String, bound: &crate::plan::Requirement| {
        let hashes = bound.hashes.iter().fold(String::new(), |hashes, hash| hashes + " --hash=" + hash);
        text + &bound.to_string() + &hashes + "\n"
    };
    plan.bounds.iter().fold(String::new(), line)
}

/// What pip builds wheels from.
fn sources_to_build(plan: &Plan) -> String {
    let mut text = String::new();
    let (asked, replaced) = asked(&plan.indexes);
    for (number, index) in asked.iter().enumerate() {
        let replaces = replaced && number + 1 == asked.len();
        let option = if replaces { "--index-url" } else { "--extra-index-url" };
        text += &format!("{option} {}\n", index.url);
    }
    for (name, source) in &plan.sources {
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
        text += &format!("{name} @ {address}");
        text.push('\n');
    }
    text
}
