//! Interpreters of an image: where they are, and what they would say of themselves.

use std::collections::BTreeSet;

use super::Contents;
use super::metadata::distributions;
use super::scan::Scan;
use crate::base::{Interpreter, Python};
use crate::stored::{File, Files, StoredError};

/// Where interpreters are looked for beside the `PATH`; below the last, in every folder.
const FURTHER: [&str; 3] = ["/usr/local/bin", "/usr/bin", "/opt/conda/bin"];
const BELOW: &str = "/opt";

/// Where libraries are beside an interpreter, and where they are else.
const LIBRARIES: [&str; 5] = ["/usr/local/lib", "/usr/lib64", "/usr/lib", "/lib64", "/lib"];

/// The oldest Python 3 that tells its distributions.
const WITH_METADATA: u32 = 8;

/// How many interpreters are looked at.
const MOST: usize = 32;

/// How many folders a list of them may have.
const MOST_FOLDERS: usize = 1000;

/// How many folders lie around an interpreter, and the longest path of one, in bytes.
const MOST_AROUND: usize = 64;
const MOST_PATH: usize = 4096;

/// A program that has the name of an interpreter.
#[derive(Debug)]
pub(super) struct Candidate {
    /// As it is started.
    path: String,
    /// The file that this leads to.
    pub(super) file: String,
}

impl Candidate {
    /// Where the settings of a virtual environment are, of which the first that is there counts.
    pub(super) fn settings(&self) -> [String; 2] {
        let bin = parent(&self.path);
        [bin, parent(bin)].map(|folder| format!("{}/pyvenv.cfg", folder.trim_end_matches('/')))
    }
}

fn parent(path: &str) -> &str {
    match path.rsplit_once('/') {
        Some(("", _)) | None => "/",
        Some((parent, _)) => parent,
    }
}

/// The programs that have the name of an interpreter, in the order that they are asked in.
pub(super) fn candidates(files: &Files, path: &str) -> Vec<Candidate> {
    let mut folders: Vec<String> = path.split(':').chain(FURTHER).map(str::to_owned).collect();
    let below = files.find(BELOW).into_iter().flat_map(File::names);
    folders.extend(below.filter(|name| !name.starts_with('.')).map(|name| format!("{BELOW}/{name}/bin")));
    let (mut seen, mut found) = (BTreeSet::new(), Vec::new());
    // The others depend on where somebody is, or could not be told in a line.
    let is_told = |folder: &&String| folder.starts_with('/') && !folder.contains(char::is_control);
    for folder in folders.iter().filter(is_told).take(MOST_FOLDERS) {
        let Some(real) = files.find(folder).filter(|folder| folder.is_folder()) else { continue };
        let of_version = (10..20).map(|minor| format!("python3.{minor}"));
        for name in ["python3", "python"].map(str::to_owned).into_iter().chain(of_version) {
            let path = absolute(&format!("{folder}/{name}"));
            if let Some(file) = files.find(&path).filter(|file| file.is_program())
                && seen.insert((real.path(), file.path()))
                && found.len() < MOST
            {
                found.push(Candidate { path, file: file.path() });
            }
        }
    }
    found
}

/// A path without parts that say nothing, as Python's `os.path.abspath` has it.
fn absolute(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// A standard library, and so an interpreter's prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Library {
    prefix: String,
    /// Such as `lib`.
    folder: &'static str,
    minor: u32,
}

impl Library {
    /// Those above a folder, the nearest first.
    ///
    /// Rule: Python's `Modules/getpath.py`.
    fn above(files: &Files, folder: &str) -> Vec<Self> {
        let mut found = Vec::new();
        let mut prefix = folder;
        for _ in 0..MOST_AROUND {
            for folder in ["lib", "lib64"] {
                let lib = format!("{}/{folder}", prefix.trim_end_matches('/'));
                for name in files.find(&lib).into_iter().flat_map(File::names) {
                    let minor = name.strip_prefix("python3.").and_then(|minor| minor.parse().ok());
                    let Some(minor) = minor else { continue };
                    if files.find(&format!("{lib}/{name}/os.py")).is_some_and(File::is_file) {
                        found.push(Self { prefix: prefix.to_owned(), folder, minor });
                    }
                }
            }
            if prefix == "/" {
                break;
            }
            prefix = parent(prefix);
        }
        found
    }

    /// The folder of its modules.
    fn modules(&self) -> String {
        format!("{}/{}/python3.{}", self.prefix.trim_end_matches('/'), self.folder, self.minor)
    }

    fn headers(&self) -> String {
        format!("{}/include/python3.{}/patchlevel.h", self.prefix.trim_end_matches('/'), self.minor)
    }
}

/// What is known of an interpreter before it is known whether it can be told.
struct Draft {
    path: String,
    scan: Scan,
    /// The folder of the virtual environment, where it is one, and whether that sees the packages around it.
    environment: Option<(String, bool)>,
    libraries: Vec<Library>,
    /// Where the library may be that Python is in.
    shared: Vec<String>,
    libc: Option<String>,
}

/// All interpreters, and those that cannot be told, each with the reason.
pub(super) fn all(
    contents: &mut Contents<'_>,
    candidates: &[Candidate],
    python_path: Option<&str>,
) -> Result<(Vec<Python>, Vec<String>), StoredError> {
    let mut broken = Vec::new();
    let drafts: Vec<_> = candidates
        .iter()
        .filter_map(|candidate| {
            let draft = Draft::of(contents, candidate);
            draft.map_err(|why| broken.push(format!("{} ({why})", candidate.path))).ok()
        })
        .collect();
    let libraries = || drafts.iter().flat_map(|draft| &draft.libraries);
    let texts = libraries()
        .flat_map(|library| [library.headers(), format!("{}/site.py", library.modules())])
        .collect::<Vec<_>>();
    let scans = drafts.iter().flat_map(|draft| draft.shared.iter().chain(&draft.libc).cloned());
    contents.fetch(texts, scans.collect::<Vec<_>>())?;

    let mut interpreters: Vec<(Draft, Library, [u32; 3])> = Vec::new();
    for draft in drafts {
        match draft.version(contents) {
            Ok((library, version)) => interpreters.push((draft, library, version)),
            Err(why) => broken.push(format!("{} ({why})", draft.path)),
        }
    }
    // One interpreter has several names.
    let mut prefixes = BTreeSet::new();
    interpreters.retain(|(draft, library, _)| prefixes.insert(draft.prefix(library).to_owned()));

    // What is started with an interpreter may say where further packages are.
    let files = contents.files;
    let mut texts = BTreeSet::new();
    for (draft, library, _) in &interpreters {
        let path = search_path(contents, draft, library, python_path).0;
        texts.extend(path.iter().map(|folder| format!("{folder}/sitecustomize.py")));
        for folder in path {
            let names = files.find(&folder).into_iter().flat_map(File::names);
            texts.extend(names.filter(|name| is_path_file(name)).map(|name| format!("{folder}/{name}")));
        }
    }
    contents.fetch(texts, [])?;
    let (mut pythons, mut paths) = (Vec::new(), Vec::new());
    for (draft, library, version) in interpreters {
        let (path, why_not) = search_path(contents, &draft, &library, python_path);
        if let Some(why) = why_not {
            broken.push(format!("{} ({why})", draft.path));
            continue;
        }
        let is_packages = |folder: &&String| {
            let folder = folder.trim_end_matches('/');
            folder.ends_with("site-packages") || folder.ends_with("dist-packages")
        };
        let libc = draft.libc.as_ref().and_then(|library| contents.scans.get(library)).and_then(libc);
        pythons.push(Python {
            interpreter: Interpreter {
                path: draft.path.clone(),
                version: format!("{}.{}.{}", version[0], version[1], version[2]),
                implementation: "cpython".to_owned(),
                libc,
            },
            prefix: draft.prefix(&library).to_owned(),
            is_virtual: draft.prefix(&library) != library.prefix,
            folders: path.iter().filter(is_packages).cloned().collect(),
            distributions: Vec::new(),
        });
        paths.push(if version[1] < WITH_METADATA { Vec::new() } else { path });
    }
    let found = distributions(contents, &paths)?;
    for (python, distributions) in pythons.iter_mut().zip(found) {
        python.distributions = distributions;
    }
    Ok((pythons, broken))
}

/// The C library that a scan of it tells.
fn libc(scan: &Scan) -> Option<String> {
    let musl = || scan.versions.iter().find(|version| version[0] == 1);
    match &scan.glibc {
        Some(version) => Some(format!("glibc {version}")),
        None => musl().map(|[major, minor, patch]| format!("musl {major}.{minor}.{patch}")),
    }
}

impl Draft {
    fn of(contents: &Contents<'_>, candidate: &Candidate) -> Result<Self, &'static str> {
        let files = contents.files;
        let scan = contents.scans.get(&candidate.file).cloned().unwrap_or_default();
        if !scan.is_elf {
            return Err("it is a script, and what that starts is not known");
        }
        let settings = candidate.settings();
        let settings = settings.iter().find_map(|path| contents.text(path));
        let lines = || settings.into_iter().flat_map(str::lines).filter_map(|line| line.split_once('='));
        let values = |name: &'static str| {
            lines()
                .filter(move |(key, _)| key.trim().eq_ignore_ascii_case(name))
                .map(|(_, value)| value.trim())
        };
        let home = values("home").next().filter(|home| home.len() < MOST_PATH);
        let environment = settings.map(|_| {
            let sees_others = values("include-system-site-packages").next_back();
            let sees_others = sees_others.is_some_and(|value| value.eq_ignore_ascii_case("true"));
            (parent(parent(&candidate.path)).to_owned(), sees_others)
        });
        let bin = home.unwrap_or_else(|| parent(&candidate.file));
        let libraries = Library::above(files, bin);
        if libraries.is_empty() {
            return Err("no standard library of Python 3 is found for it");
        }
        let loader = scan.loaders.iter().find_map(|loader| files.find(loader));
        let libc = loader.map(|loader| {
            let beside = format!("{}/libc.so.6", parent(&loader.path()));
            files.find(&beside).map_or_else(|| loader.path(), File::path)
        });
        let real_bin = parent(&candidate.file);
        let mut places =
            vec![format!("{real_bin}/../lib"), format!("{real_bin}/../lib64"), real_bin.to_owned()];
        places.extend(LIBRARIES.map(str::to_owned));
        places.extend(libc.as_deref().map(|libc| parent(libc).to_owned()));
        let shared = scan
            .library
            .iter()
            .flat_map(|name| places.iter().filter_map(move |place| files.find(&format!("{place}/{name}"))));
        let shared = shared.map(File::path).take(1).collect();
        Ok(Self { path: candidate.path.clone(), scan, environment, libraries, shared, libc })
    }

    /// The one version that it can have, and its standard library.
    fn version(&self, contents: &Contents<'_>) -> Result<(Library, [u32; 3]), &'static str> {
        let own = self.scan.versions.iter();
        let shared = self.shared.iter().filter_map(|path| contents.scans.get(path));
        let versions: BTreeSet<_> = own.chain(shared.flat_map(|scan| &scan.versions)).collect();
        let library_of = |version: &[u32; 3]| {
            let mut libraries = self.libraries.iter();
            libraries.find(|library| version[0] == 3 && library.minor == version[1]).cloned()
        };
        let found: Vec<_> =
            versions.into_iter().filter_map(|version| Some((library_of(version)?, *version))).collect();
        if let [(library, version)] = found.as_slice() {
            return Ok((library.clone(), *version));
        }
        // Its headers decide.
        let told = self.libraries.iter().filter_map(|library| {
            let text = contents.text(&library.headers())?;
            let line = text.lines().find_map(|line| line.trim_start().strip_prefix("#define PY_VERSION "))?;
            let version = super::scan::version(line.trim().trim_matches('"'))?;
            (version[..2] == [3, library.minor]).then(|| (library.clone(), version))
        });
        let mut told = told.filter(|told| found.is_empty() || found.contains(told));
        told.next().ok_or("its version is not found in it")
    }

    fn prefix<'a>(&'a self, library: &'a Library) -> &'a str {
        self.environment.as_ref().map_or(&library.prefix, |(folder, _)| folder)
    }
}

/// Whether a file of a folder of packages may name further folders.
fn is_path_file(name: &str) -> bool {
    name.strip_suffix(".pth").is_some() && !name.starts_with('.')
}

/// The folders that modules are looked for in, and why that cannot be known for sure. Files that are not read yet say nothing.
///
/// Rule: Python's `site` module, and Debian's, which has folders of its own.
fn search_path(
    contents: &Contents<'_>,
    draft: &Draft,
    library: &Library,
    python_path: Option<&str>,
) -> (Vec<String>, Option<String>) {
    let files = contents.files;
    let modules = library.modules();
    let mut path: Vec<String> = Vec::new();
    let first =
        python_path.into_iter().flat_map(|path| path.split(':')).filter(|folder| folder.starts_with('/'));
    for folder in
        first.take(MOST_FOLDERS / 2).map(absolute).chain([modules.clone(), format!("{modules}/lib-dynload")])
    {
        if !path.contains(&folder) {
            path.push(folder);
        }
    }
    let (prefix, minor) = (draft.prefix(library), library.minor);
    let prefixes = match &draft.environment {
        Some((folder, true)) => vec![folder.as_str(), &library.prefix],
        _ => vec![prefix],
    };
    let is_debians =
        contents.text(&format!("{modules}/site.py")).is_some_and(|text| text.contains("dist-packages"));
    let is_virtual = prefix != library.prefix;
    let mut why_not = None;
    for prefix in prefixes {
        let prefix = prefix.trim_end_matches('/');
        let mut places = Vec::new();
        if is_debians {
            if is_virtual {
                places.push(format!("lib/python3.{minor}/site-packages"));
            }
            places.push(format!("local/lib/python3.{minor}/dist-packages"));
            places.push("lib/python3/dist-packages".to_owned());
            places.push(format!("lib/python3.{minor}/dist-packages"));
        } else {
            if library.folder != "lib" {
                places.push(format!("{}/python3.{minor}/site-packages", library.folder));
            }
            places.push(format!("lib/python3.{minor}/site-packages"));
        }
        for place in places {
            let folder = format!("{prefix}/{place}");
            let Some(found) = files.find(&folder).filter(|found| found.is_folder()) else { continue };
            if path.contains(&folder) {
                continue;
            }
            path.push(folder.clone());
            for name in found.names().filter(|name| is_path_file(name)) {
                let Some(text) = contents.text(&format!("{folder}/{name}")) else { continue };
                for line in text.trim_start_matches('\u{feff}').lines().filter(|line| !line.starts_with('#'))
                {
                    if line.starts_with("import ") || line.starts_with("import\t") {
                        if moves_packages(line) {
                            why_not.get_or_insert_with(|| moved(&format!("{folder}/{name}")));
                        }
                    } else if !line.trim().is_empty() {
                        let line = line.trim_end();
                        let further = absolute(&if line.starts_with('/') {
                            line.to_owned()
                        } else {
                            format!("{folder}/{line}")
                        });
                        if path.len() == MOST_FOLDERS {
                            why_not.get_or_insert_with(|| "its packages are in too many folders".to_owned());
                        } else if files.find(&further).is_some() && !path.contains(&further) {
                            path.push(further);
                        }
                    }
                }
            }
        }
    }
    let mut custom = path.iter().map(|folder| format!("{folder}/sitecustomize.py"));
    let found = custom.find_map(|path| Some((contents.text(&path)?, path)));
    if let Some((text, path)) = found
        && text.lines().any(moves_packages)
    {
        why_not.get_or_insert_with(|| moved(&path));
    }
    (path, why_not)
}

fn moved(by: &str) -> String {
    format!("`{by}` may change where its packages are")
}

/// Whether a line of code may change where packages are looked for.
fn moves_packages(line: &str) -> bool {
    let code = line.split('#').next().unwrap_or_default();
    ["sys.path", "addsitedir", "addsitepackages", "exec("].iter().any(|word| code.contains(word))
}
