//! A [`Plan`] to the files its build gets; equal plans give equal bytes.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use pep440_rs::Version;
use toml_edit::{Array, ArrayOfTables, DocumentMut, InlineTable, Item, Table, value};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use crate::accounts;
use crate::archive::{Archive, Owner};
use crate::base::{Base, Folder};
use crate::deps::{Name, Priority, Source, percent_encoded};
use crate::local::LocalSource;
use crate::plan::{HOME, Held, PackageIndex, Plan, User};
use crate::templates::Templates;
use crate::variant::{Packages, Who};

/// The files of a build, with the installer among them where the engine does not have it.
///
/// # Errors
///
/// Of asking for the size of the installer, or of a file of `sources`.
pub fn of(
    plan: &Plan,
    templates: &Templates,
    dockerfile: String,
    local: &Local,
    uv: Option<&Path>,
) -> io::Result<Archive> {
    let mut context = Archive::default();
    context.add("Dockerfile", dockerfile);
    if plan.packages != Packages::Inherited {
        context.add("files.tar", image_files(plan, templates).to_tar()?);
        context.add("server.txt", runtime(templates, &plan.lock));
    }
    for (number, requirements) in plan.requests().iter().enumerate() {
        context.add(&format!("request/{:02}/pyproject.toml", number + 1), pyproject(requirements, plan));
    }
    context.add("request/uv.toml", uv_settings(plan));
    if plan.packages != Packages::Isolated {
        context.add("request/base.txt", base_constraints(plan));
        context.add_directory("request/base", 0o755, Owner::default());
        for (name, held) in &plan.held {
            if let Some(version) = &held.version {
                let wheel = format!("{}-{version}-py3-none-any.whl", name.as_str().replace('-', "_"));
                context.add(&format!("request/base/{wheel}"), stand_in(name, version, held)?);
            }
        }
    }
    if !plan.folders.is_empty() {
        context.add("request/base.pth", folders(&plan.folders));
    }
    if !plan.bounds.is_empty() {
        context.add("request/constraints.txt", constraints(plan));
    }
    if plan.checks_hashes() {
        let bounds = plan.bounds.iter().filter(|bound| !bound.hashes.is_empty());
        let hashes: BTreeMap<_, _> = bounds.map(|bound| (bound.name.as_str(), &bound.hashes)).collect();
        context.add("request/hashes.json", serde_json::to_string(&hashes).map_err(io::Error::other)?);
        context.add("request/hashes.py", build_file(templates, "hashes.py"));
    }
    if !plan.sources.is_empty() {
        context.add("sources.txt", sources_to_build(plan));
        context.add_directory("sources", 0o755, Owner::default());
    }
    for (name, source) in local.sources.iter().filter(|(name, _)| plan.sources.contains_key(*name)) {
        for (path, file, mode) in source.files() {
            context.add_file(&format!("sources/{name}/{path}"), mode, file)?;
        }
    }
    if !plan.copies.is_empty() {
        let copies = serde_json::to_string_pretty(&plan.copies).map_err(io::Error::other)?;
        context.add("copies/copies.json", copies);
        context.add("copies/copy.py", build_file(templates, "copy.py"));
    }
    for (number, copy) in local.copies.iter().enumerate() {
        context.add_directory(&format!("copies/{number}"), 0o755, Owner::default());
        for (path, file, mode) in copy.files() {
            context.add_file(&format!("copies/{number}/{path}"), mode, file)?;
        }
    }
    for (number, step) in plan.steps.iter().enumerate() {
        context.add(&format!("steps/{number}/step.sh"), step.run.as_str());
        if step.who == Who::User {
            context.add(&format!("steps/{number}/as_user.py"), build_file(templates, "as_user.py"));
        }
    }
    if let Some(archive) = &local.python_archive {
        context.add_file(PYTHON_ARCHIVE, 0o644, archive)?;
    }
    if let Some(uv) = uv {
        context.add_file(UV, 0o755, uv)?;
    }
    Ok(context)
}

/// The installer's name in a context that holds it.
pub const UV: &str = "uv";

/// The name of an interpreter's archive.
pub const PYTHON_ARCHIVE: &str = "python-archive";

/// Where build steps find what is built.
const SOURCES: &str = "/dev/ipybox/sources";

/// Files of this host that a plan speaks of.
#[derive(Debug, Clone, Default)]
pub struct Local {
    /// The files of dependencies.
    pub sources: BTreeMap<Name, LocalSource>,
    /// What is copied, in the plan's order.
    pub copies: Vec<LocalSource>,
    /// The archive of an interpreter.
    pub python_archive: Option<PathBuf>,
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
    let place = |path: &str| in_base(&plan.base, path);
    for (path, text) in templates.modules() {
        files.add(&place(&format!("{HOME}/lib/{path}")), text);
    }
    if plan.apt.iter().any(|name| name == "iptables") {
        let script = place("/usr/local/bin/init-firewall.sh");
        files.add_program(&script, runtime(templates, "init-firewall.sh"));
    }
    let server = |path: &str| format!("{HOME}/server/{path}");
    files
        .add(&place(&server("share/jupyter/kernels/python3/kernel.json")), runtime(templates, "kernel.json"));
    if plan.servers.iter().any(|server| server.runs("kernel_gateway")) {
        let settings = "jupyter_kernel_gateway_config.py";
        files.add(&place(&server(&format!("etc/jupyter/{settings}"))), runtime(templates, settings));
    }
    // The superuser's home is the base's.
    let home = plan.user.home().filter(|_| plan.user != User::Root);
    let own = ["/app"].into_iter().chain(home).chain(plan.workspaces.as_deref());
    let own: Vec<_> = own.map(place).collect();
    for folder in &own {
        files.add_directory(folder, 0o755, Owner { uid, gid });
    }
    if let Some(passwd) = accounts::passwd(&plan.base.passwd, plan.user) {
        files.add("etc/passwd", passwd);
    }
    if let Some(group) = accounts::group(&plan.base.group, plan.user) {
        files.add("etc/group", group);
    }
    for (path, Folder { mode, uid, gid }) in &plan.base.folders {
        let path = path.trim_start_matches('/');
        if !own.iter().any(|folder| folder == path) {
            files.set_directory(path, *mode, Owner { uid: *uid, gid: *gid });
        }
    }
    files
}

/// A path of an image as archives have it, without the links of its base: a folder in an archive would take the
/// place of a link.
fn in_base(base: &Base, path: &str) -> String {
    const MOST: usize = 8;
    let mut path = path.to_owned();
    for _ in 0..MOST {
        let inside =
            |link: &str| path.strip_prefix(link).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        let Some((link, target)) = base.links.iter().find(|(link, _)| inside(link)) else { break };
        let through = format!("{}{}", target.trim_end_matches('/'), &path[link.len()..]);
        // A link to the root itself is no place for anything.
        if through.is_empty() {
            break;
        }
        path = through;
    }
    let clean = path.split('/').filter(|part| !matches!(*part, "" | "." | ".."));
    clean.collect::<Vec<_>>().join("/")
}

/// What keeps the base's distributions at their versions.
fn base_constraints(plan: &Plan) -> String {
    let line = |(name, held): (&Name, &Held)| Some(format!("{name}=={}\n", held.version.as_ref()?));
    plan.held.iter().filter_map(line).collect()
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
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
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

fn build_file<'a>(templates: &'a Templates, file: &str) -> &'a str {
    templates.get(&format!("build/{file}")).expect("templates are read with all their files")
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
fn uv_settings(plan: &Plan) -> String {
    let (asked, replaced) = asked(&plan.indexes);
    let mut tables = ArrayOfTables::new();
    for (number, index) in asked.iter().enumerate() {
        let mut table = described(&format!("asked-{}", number + 1), index);
        if replaced && number + 1 == asked.len() {
            table["default"] = value(true);
        }
        tables.push(table);
    }
    let mut document = DocumentMut::new();
    if plan.packages != Packages::Isolated {
        // An index that has the same version has its own word on what that requires.
        let metadata = plan.held.iter().filter_map(|(name, held)| {
            let mut metadata = InlineTable::new();
            metadata.insert("name", name.as_str().into());
            metadata.insert("version", held.version.as_ref()?.to_string().into());
            metadata.insert("requires-dist", held.requires.iter().collect::<Array>().into());
            metadata.insert("provides-extra", held.extras.iter().map(Name::as_str).collect::<Array>().into());
            Some(metadata)
        });
        document["dependency-metadata"] = value(metadata.collect::<Array>());
        let mut pip = Table::new();
        let omitted: Array = plan.held.keys().map(Name::as_str).collect();
        pip["no-emit-package"] = value(omitted);
        pip["find-links"] = value(Array::from_iter(["/dev/ipybox/request/base"]));
        document["pip"] = pip.into();
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Distribution;
    use crate::deps::Spec;
    use crate::plan::Options;
    use crate::variant::Variant;

    #[test]
    fn folders_of_an_archive_do_not_replace_links() {
        let mut base = Base::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/base.json").as_ref()).unwrap();
        for (link, target) in
            [("/opt", "/var/opt"), ("/var/opt", "/data"), ("/app", "/"), ("/loop", "/loop/x")]
        {
            base.links.insert(link.to_owned(), target.to_owned());
        }
        for (path, place) in [
            ("/opt/ipybox/lib", "data/ipybox/lib"),
            ("/optional", "optional"),
            ("/app/workspaces", "workspaces"),
            ("/usr/local/bin/x", "usr/local/bin/x"),
            ("/app", "app"),
        ] {
            assert_eq!(in_base(&base, path), place);
        }
        assert!(in_base(&base, "/loop").starts_with("loop/x/x"));
    }

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
        let uv = crate::uv::Release::of(&base.platform);
        let options = Options { name: Some("x".to_owned()), ..Options::new(User::Root, uv) };
        let spec = Spec::parse("torch = \">=2\"\n").unwrap();
        let plan = Plan::resolve(&spec, &Variant::read("any-base", None).unwrap(), base, &options).unwrap();
        let settings = uv_settings(&plan);
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
