//! Wheels, and the files that an installer makes of them.
//!
//! Rule: Python packaging guide, "Binary distribution format" and "Recording installed projects"; where these leave something
//! open, uv.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Seek, Write};

use pep440_rs::Version;
use sha2::{Digest, Sha256};

use super::error::Fault;
pub use super::error::{Refusal, WheelError};
use super::record::{self, Expected, Line, Record};
use super::scripts::{self, EntryPoints, PLACEHOLDER};
use super::zip::Archive;
pub use super::zip::file_above;
use crate::deps::Name;

/// What the installer calls itself in what it installs.
const INSTALLER: &str = "uv";

/// Files of a `.dist-info` folder that installers write.
const INSTALLERS: [&str; 5] = ["INSTALLER", "REQUESTED", "direct_url.json", "uv_build.json", "uv_cache.json"];

/// The most bytes of a file that describes a wheel.
const DESCRIPTION: u64 = 64 << 20;

/// A virtual environment that wheels are installed into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    /// Its absolute path, without a slash at the end.
    pub prefix: String,
    /// The version of its interpreter, as in `3.12`.
    pub python: String,
    /// What names of bytecode have in them, where modules are compiled once they are there: what a wheel has brought in its
    /// place gives way, as it does where an installer compiles.
    pub cache_tag: Option<String>,
}

/// Where the bytecode of a module is.
///
/// Rule: Python, `importlib.util.cache_from_source`.
#[must_use]
pub fn bytecode(module: &str, cache_tag: &str) -> String {
    let (folder, name) = module.rsplit_once('/').unwrap_or(("", module));
    format!("{folder}/__pycache__/{}.{cache_tag}.pyc", name.trim_end_matches(".py"))
}

impl Environment {
    fn interpreter(&self) -> String {
        format!("{}/bin/python", self.prefix)
    }

    /// Its `site-packages`, from its prefix.
    fn packages(&self) -> String {
        format!("lib/python{}/site-packages", self.python)
    }

    /// Where the headers of a package are, from its prefix.
    fn headers(&self, name: &Name) -> String {
        format!("include/site/python{}/{name}", self.python)
    }

    /// The path of a file as `RECORD` has it: from `site-packages`.
    fn recorded(&self, path: &str) -> String {
        let packages = self.packages();
        let common = packages.split('/').zip(path.split('/')).take_while(|(one, other)| one == other).count();
        let up = packages.split('/').skip(common).map(|_| "..");
        up.chain(path.split('/').skip(common)).collect::<Vec<_>>().join("/")
    }

    /// Whether a file is one that the environment has by itself, or that lies where a wheel has nothing to do.
    pub(super) fn owns(&self, path: &str) -> bool {
        let packages = self.packages();
        match path.split_once('/') {
            None => matches!(path, "pyvenv.cfg" | ".gitignore" | ".lock" | "CACHEDIR.TAG" | "bin" | "lib64"),
            Some(("lib64", _)) => true,
            Some(("bin", name)) => is_of_environment(&name.to_ascii_lowercase()),
            Some(_) => path.strip_prefix(&packages).is_some_and(|name| {
                matches!(name, "/_virtualenv.py" | "/_virtualenv.pth" | "/base.pth" | "/ipybox.pth")
            }),
        }
    }
}

/// Whether a program is an interpreter, or switches the environment on or off.
fn is_of_environment(name: &str) -> bool {
    let plain = name.strip_suffix(".exe").unwrap_or(name);
    let plain = plain.strip_suffix(".py").unwrap_or(plain);
    let is_version = |rest: &str| {
        rest.strip_suffix('t').unwrap_or(rest).chars().all(|next| next.is_ascii_digit() || next == '.')
    };
    let is_interpreter = ["pythonw", "python", "pypy", "graalpy"]
        .iter()
        .any(|program| plain.strip_prefix(program).is_some_and(is_version));
    is_interpreter
        || matches!(name, "activate" | "activate_this.py" | "deactivate.bat" | "pydoc.bat")
        || name.starts_with("activate.")
}

/// A wheel as it is in an environment, except for the bytecode of its modules.
pub struct Wheel<R> {
    name: String,
    archive: Archive<R>,
    files: Vec<File>,
}

/// A file that a wheel puts into an environment.
#[derive(Debug)]
pub struct File {
    /// Its path from the root of the file system, without a slash at the beginning.
    pub path: String,
    /// Whether everybody may run it who may read it.
    pub is_executable: bool,
    /// Bytes of its content.
    pub size: u64,
    /// Whether it is a module in Python that has its bytecode beside it.
    pub is_module: bool,
    content: Content,
}

#[derive(Debug)]
enum Content {
    /// That of an entry of the archive.
    Entry { index: usize, expected: Option<Expected>, first_line: Option<String> },
    /// What the installer says.
    Made(Vec<u8>),
}

/// Where an entry goes, from the environment's prefix.
enum Place {
    File(String),
    Program(String),
}

impl<R: Read + Seek> Wheel<R> {
    /// Reads what a wheel consists of. `direct_url` is the content of `direct_url.json` for one that is from no index.
    ///
    /// # Errors
    ///
    /// [`WheelError`] for one that is damaged, ambiguous, or would write what is not its own. Contents are looked at only
    /// where files follow from them.
    pub fn open(
        reader: R,
        name: &str,
        environment: &Environment,
        direct_url: Option<&str>,
    ) -> Result<Self, WheelError> {
        Self::read(reader, name, environment, direct_url).map_err(|fault| fault.in_wheel(name))
    }

    fn read(
        reader: R,
        name: &str,
        environment: &Environment,
        direct_url: Option<&str>,
    ) -> Result<Self, Fault> {
        let named = FileName::parse(name).ok_or(Refusal::FileName)?;
        let mut archive = Archive::open(reader)?;
        let stem = named.stem_in(&archive)?;
        let info = format!("{stem}.dist-info");
        let description = |file: &str| format!("{info}/{file}");
        check_wheel(&required(&mut archive, &description("WHEEL"))?)
            .map_err(|refusal| refusal.of(&description("WHEEL")))?;
        named
            .check_metadata(&required(&mut archive, &description("METADATA"))?)
            .map_err(|refusal| refusal.of(&description("METADATA")))?;
        let points = description("entry_points.txt");
        let minor = environment.python.split_once('.').map_or("", |(_, minor)| minor);
        let programs = match text(&mut archive, &points)? {
            Some(text) => scripts::entry_points(&text, minor).map_err(|refusal| refusal.of(&points))?,
            None => EntryPoints::new(),
        };
        let mut installed = Installed {
            environment,
            named: &named,
            stem: &stem,
            programs,
            files: Vec::new(),
            lines: Vec::new(),
        };
        installed.add_entries(&mut archive)?;
        installed.add_programs();
        installed.add_descriptions(direct_url);
        let files = installed.finish()?;
        Ok(Self { name: name.to_owned(), archive, files })
    }

    /// What it puts into the environment, sorted by path. Folders are those of the files.
    #[must_use]
    pub fn files(&self) -> &[File] {
        &self.files
    }

    /// Writes the content of a file, in constant memory.
    ///
    /// # Errors
    ///
    /// [`WheelError`] of reading and writing, and where the content is not the one that the wheel's `RECORD` tells: what was
    /// written until then is to be thrown away.
    ///
    /// # Panics
    ///
    /// Where there is no file of that number.
    pub fn write(&mut self, file: usize, to: &mut impl Write) -> Result<(), WheelError> {
        let File { content, .. } = &self.files[file];
        match content {
            Content::Made(bytes) => to.write_all(bytes).map_err(|error| Refusal::Write(error).into()),
            Content::Entry { index, expected, first_line } => {
                write(&mut self.archive, *index, expected.as_ref(), first_line.as_deref(), to)
                    .map_err(|refusal| refusal.of(&self.archive.entries()[*index].path))
            }
        }
        .map_err(|fault: Fault| fault.in_wheel(&self.name))
    }
}

fn write<R: Read + Seek>(
    archive: &mut Archive<R>,
    index: usize,
    expected: Option<&Expected>,
    first_line: Option<&str>,
    to: &mut impl Write,
) -> Result<(), Refusal> {
    let mut hash = expected.map(Expected::hash);
    let mut replaced = first_line.map(|_| FirstLine::default());
    to.write_all(first_line.unwrap_or_default().as_bytes()).map_err(Refusal::Write)?;
    archive.read(index, |piece| {
        if let Some(hash) = &mut hash {
            hash.update(piece);
        }
        let rest = replaced.as_mut().map_or(piece, |line| line.behind(piece));
        to.write_all(rest).map_err(Refusal::Write)
    })?;
    let is_recorded = expected.zip(hash).is_none_or(|(expected, hash)| expected.is(hash));
    if is_recorded { Ok(()) } else { Err(Refusal::Recorded("content")) }
}

/// The first line of a content that comes in pieces. It ends with `\n`, `\r` or both.
#[derive(Default, PartialEq)]
enum FirstLine {
    #[default]
    Inside,
    /// Behind `\r`, which `\n` may follow.
    Ending,
    Behind,
}

impl FirstLine {
    /// What of a piece lies behind it.
    fn behind<'a>(&mut self, mut piece: &'a [u8]) -> &'a [u8] {
        if *self == Self::Inside {
            let Some(end) = piece.iter().position(|byte| matches!(byte, b'\n' | b'\r')) else { return &[] };
            *self = if piece[end] == b'\r' { Self::Ending } else { Self::Behind };
            piece = &piece[end + 1..];
        }
        if *self == Self::Ending && !piece.is_empty() {
            *self = Self::Behind;
            piece = piece.strip_prefix(b"\n").unwrap_or(piece);
        }
        piece
    }
}

/// What the name of a wheel's file says.
struct FileName {
    name: Name,
    version: Version,
}

impl FileName {
    /// Rule: Python packaging guide, "Binary distribution format", File name convention.
    fn parse(file: &str) -> Option<Self> {
        let parts: Vec<_> = file.strip_suffix(".whl")?.split('-').collect();
        let is_build = |part: &str| part.starts_with(|first: char| first.is_ascii_digit());
        match parts.as_slice() {
            [name, version, _, _, _] => Self::of(name, version),
            [name, version, build, _, _, _] if is_build(build) => Self::of(name, version),
            _ => None,
        }
    }

    fn of(name: &str, version: &str) -> Option<Self> {
        Some(Self { name: Name::parse(name)?, version: version.parse().ok()? })
    }

    /// Whether a name and a version are those of the file. Inside the wheel, the local part of the version may be missing.
    fn is(&self, name: &str, version: &str) -> bool {
        Self::of(name, version).is_some_and(|other| {
            let same = other.version == self.version || other.version == self.version.clone().without_local();
            same && other.name == self.name
        })
    }

    /// What the wheel's own folders begin with.
    fn stem_in<R: Read + Seek>(&self, archive: &Archive<R>) -> Result<String, Fault> {
        let top = |path: &str| path.split('/').next().unwrap_or_default().to_owned();
        let folders = archive.entries().iter().filter(|entry| entry.is_folder || entry.path.contains('/'));
        let is_info = |name: &String| name.to_ascii_lowercase().ends_with(".dist-info");
        let infos: BTreeSet<_> = folders.map(|entry| top(&entry.path)).filter(is_info).collect();
        let mut infos = infos.into_iter();
        let (info, other) = (infos.next(), infos.next());
        if other.is_some() {
            return Err(Refusal::DistInfo("more than one").into());
        }
        let stem = info.as_deref().and_then(|info| info.strip_suffix(".dist-info"));
        let stem = stem.ok_or(Refusal::DistInfo("no"))?;
        let is_ours = stem.rsplit_once('-').is_some_and(|(name, version)| self.is(name, version));
        if is_ours { Ok(stem.to_owned()) } else { Err(Refusal::Another(stem.to_owned()).into()) }
    }

    fn check_metadata(&self, metadata: &str) -> Result<(), Refusal> {
        let [name, version] = ["Name", "Version"].map(|key| field(metadata, key).unwrap_or_default());
        if self.is(name, version) { Ok(()) } else { Err(Refusal::Another(format!("{name} {version}"))) }
    }
}

/// Whether we know how to install it.
fn check_wheel(text: &str) -> Result<(), Refusal> {
    let version = field(text, "Wheel-Version").ok_or(Refusal::Malformed("`Wheel-Version` is missing"))?;
    if version.split_once('.').is_none_or(|(major, _)| major != "1") {
        return Err(Refusal::Version(version.to_owned()));
    }
    match field(text, "Root-Is-Purelib").map(str::to_ascii_lowercase).as_deref() {
        Some("true" | "false") => Ok(()),
        _ => Err(Refusal::Malformed("`Root-Is-Purelib` is neither `true` nor `false`")),
    }
}

/// A field of what has the form of an e-mail message.
fn field<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let head = text.lines().take_while(|line| !line.is_empty());
    let mut fields = head.filter_map(|line| line.split_once(':'));
    fields.find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| value.trim())
}

/// A text of the archive, if it is there.
fn text<R: Read + Seek>(archive: &mut Archive<R>, path: &str) -> Result<Option<String>, Fault> {
    let found = archive.entries().iter().position(|entry| entry.path == path && !entry.is_folder);
    let Some(index) = found else { return Ok(None) };
    if archive.entries()[index].size > DESCRIPTION {
        return Err(Refusal::Limit("64 MiB").of(path));
    }
    let mut bytes = Vec::new();
    let collect = |piece: &[u8]| {
        bytes.extend_from_slice(piece);
        Ok(())
    };
    archive.read(index, collect).map_err(|refusal| refusal.of(path))?;
    String::from_utf8(bytes).map(Some).map_err(|_| Refusal::Malformed("it is no UTF-8").of(path))
}

fn required<R: Read + Seek>(archive: &mut Archive<R>, path: &str) -> Result<String, Fault> {
    text(archive, path)?.ok_or_else(|| Refusal::Missing.of(path))
}

/// What is installed, while it is collected. Paths are from the environment's prefix.
struct Installed<'a> {
    environment: &'a Environment,
    named: &'a FileName,
    stem: &'a str,
    programs: EntryPoints,
    files: Vec<File>,
    lines: Vec<Line>,
}

impl Installed<'_> {
    fn in_info(&self, file: &str) -> String {
        format!("{}/{}.dist-info/{file}", self.environment.packages(), self.stem)
    }

    /// Adds what the archive has.
    fn add_entries<R: Read + Seek>(&mut self, archive: &mut Archive<R>) -> Result<(), Fault> {
        let info = format!("{}.dist-info", self.stem);
        let record_path = format!("{info}/RECORD");
        let text = required(archive, &record_path)?;
        let mut record = record::read(&text)
            .map_err(|refusal| refusal.of(&record_path))
            .and_then(|lines| Record::of(lines).map_err(|(file, refusal)| refusal.of(&file)))?;
        let entries = archive.entries().iter().enumerate().filter(|(_, entry)| !entry.is_folder);
        let paths: Vec<_> = entries.map(|(index, entry)| (index, entry.path.clone(), entry.size)).collect();
        for (index, path, size) in paths {
            let line = record.take(&path);
            match path.strip_prefix(&info).and_then(|rest| rest.strip_prefix('/')) {
                Some("RECORD") => {
                    self.lines.push(line.unwrap_or(Line { path, hash: None, size: Some(size) }));
                    continue;
                }
                Some(file) if INSTALLERS.contains(&file) => return Err(Refusal::Installers.of(&path)),
                _ => {}
            }
            // Signatures of the record cannot be in it.
            let is_signature =
                [".jws", ".p7s"].iter().any(|end| path.strip_suffix(end) == Some(&record_path));
            self.add_entry(archive, index, &path, line, is_signature).map_err(|refusal| refusal.of(&path))?;
        }
        Ok(())
    }

    fn add_entry<R: Read + Seek>(
        &mut self,
        archive: &mut Archive<R>,
        index: usize,
        path: &str,
        line: Option<Line>,
        is_signature: bool,
    ) -> Result<(), Refusal> {
        let mut size = archive.entries()[index].size;
        let hash = line.as_ref().and_then(|line| line.hash.as_deref());
        let expected = hash.map(Expected::read).transpose()?;
        if expected.is_none() && !is_signature {
            return Err(Refusal::Unrecorded);
        }
        if line.as_ref().and_then(|line| line.size).is_some_and(|recorded| recorded != size) {
            return Err(Refusal::Recorded("size"));
        }
        let place = self.place(path)?;
        let mut is_executable = archive.entries()[index].is_executable;
        let mut first_line = None;
        let mut line = line;
        let place = match place {
            // The record of what is in its place says no more of it.
            Place::Program(name) if self.is_entry_point(&name) => {
                self.lines.extend(line);
                return Ok(());
            }
            Place::Program(name) => {
                is_executable = true;
                if archive.begins_with(index, PLACEHOLDER)? {
                    let written = scripts::first_line(&self.environment.interpreter());
                    let (hash, rewritten) = hash_with(archive, index, &written)?;
                    size = rewritten;
                    first_line = Some(written);
                    line = line.map(|line| Line { hash: Some(hash), size: Some(size), ..line });
                }
                format!("bin/{name}")
            }
            Place::File(place) => place,
        };
        if let Some(line) = line {
            let is_moved = path.starts_with(&format!("{}.data/", self.stem));
            let path = if is_moved { self.environment.recorded(&place) } else { line.path };
            self.lines.push(Line { path, ..line });
        }
        let content = Content::Entry { index, expected, first_line };
        self.files.push(File { path: place, is_executable, size, is_module: false, content });
        Ok(())
    }

    /// Where an entry goes.
    fn place(&self, path: &str) -> Result<Place, Refusal> {
        let packages = self.environment.packages();
        let data = path.strip_prefix(self.stem).and_then(|rest| rest.strip_prefix(".data/"));
        let Some(data) = data else { return Ok(Place::File(format!("{packages}/{path}"))) };
        match data.split_once('/') {
            Some(("purelib" | "platlib", path)) => Ok(Place::File(format!("{packages}/{path}"))),
            Some(("data", path)) => Ok(Place::File(path.to_owned())),
            Some(("headers", path)) => {
                Ok(Place::File(format!("{}/{path}", self.environment.headers(&self.named.name))))
            }
            Some(("scripts", name)) if !name.contains('/') => Ok(Place::Program(name.to_owned())),
            _ => Err(Refusal::Scheme),
        }
    }

    /// Whether a script is what an installer makes of an entry point.
    fn is_entry_point(&self, script: &str) -> bool {
        let ends = [".exe", "-script.py", ".pya"];
        let name = ends.iter().find_map(|end| script.strip_suffix(end)).unwrap_or(script);
        self.programs.contains_key(name)
    }

    fn add_programs(&mut self) {
        let interpreter = self.environment.interpreter();
        for (name, point) in std::mem::take(&mut self.programs) {
            self.add_made(format!("bin/{name}"), point.program(&interpreter).into_bytes(), true);
        }
    }

    /// Adds what an installer says of a wheel.
    fn add_descriptions(&mut self, direct_url: Option<&str>) {
        let descriptions =
            [("REQUESTED", Some("")), ("direct_url.json", direct_url), ("INSTALLER", Some(INSTALLER))];
        for (file, content) in descriptions {
            if let Some(content) = content {
                self.add_made(self.in_info(file), content.as_bytes().to_vec(), false);
            }
        }
    }

    fn add_made(&mut self, path: String, content: Vec<u8>, is_executable: bool) {
        self.lines.push(Line::of(self.environment.recorded(&path), &content));
        self.add_unrecorded(path, content, is_executable);
    }

    fn add_unrecorded(&mut self, path: String, content: Vec<u8>, is_executable: bool) {
        let size = content.len() as u64;
        self.files.push(File {
            path,
            is_executable,
            size,
            is_module: false,
            content: Content::Made(content),
        });
    }

    /// Leaves out bytecode that is made anew. `RECORD` names it as installers do that compile: nobody knows its content yet.
    fn leave_out_bytecode(&mut self) {
        let Some(cache_tag) = &self.environment.cache_tag else { return };
        let packages = self.environment.packages() + "/";
        let modules = self.files.iter().map(|file| &file.path).filter(|path| is_module(path, &packages));
        let made: BTreeSet<String> = modules.map(|path| bytecode(path, cache_tag)).collect();
        self.files.retain(|file| !made.contains(&file.path));
        let recorded: BTreeSet<String> = made.iter().map(|path| self.environment.recorded(path)).collect();
        for line in self.lines.iter_mut().filter(|line| recorded.contains(&line.file())) {
            (line.hash, line.size) = (None, None);
        }
    }

    /// All files, if none is in the way of another or of the environment.
    fn finish(mut self) -> Result<Vec<File>, Refusal> {
        self.leave_out_bytecode();
        let record = record::write(std::mem::take(&mut self.lines));
        self.add_unrecorded(self.in_info("RECORD"), record.into_bytes(), false);
        let Self { environment, stem, files, .. } = self;
        let packages = environment.packages() + "/";
        let info = format!("{stem}.dist-info");
        let mut sorted = BTreeMap::new();
        for mut file in files {
            let inside = file.path.strip_prefix(&packages);
            let folder = inside.and_then(|path| path.split_once('/')).map(|(folder, _)| folder);
            let is_another = folder.is_some_and(|folder| folder.ends_with(".dist-info") && folder != info);
            if is_another || environment.owns(&file.path) {
                return Err(Refusal::Owned(file.path));
            }
            file.is_module = is_module(&file.path, &packages);
            if let Some(file) = sorted.insert(file.path.clone(), file) {
                return Err(Refusal::Collision(file.path));
            }
        }
        let above = sorted.keys().find_map(|path| file_above(path, |above| sorted.contains_key(above)));
        if let Some(path) = above {
            return Err(Refusal::Collision(path.to_owned()));
        }
        let root = environment.prefix.trim_start_matches('/');
        let from_root = |file: File| File { path: format!("{root}/{}", file.path), ..file };
        Ok(sorted.into_values().map(from_root).collect())
    }
}

/// Whether a file is a module among packages, which are in this folder.
fn is_module(path: &str, packages: &str) -> bool {
    let name = path.strip_prefix(packages).and_then(|path| path.rsplit('/').next());
    name.and_then(|name| name.strip_suffix(".py")).is_some_and(|name| !name.is_empty())
}

/// SHA-256 and size of a content whose first line is another one.
fn hash_with<R: Read + Seek>(
    archive: &mut Archive<R>,
    index: usize,
    first_line: &str,
) -> Result<(String, u64), Refusal> {
    let mut hash = Sha256::new_with_prefix(first_line);
    let mut size = first_line.len() as u64;
    let mut line = FirstLine::default();
    archive.read(index, |piece| {
        let rest = line.behind(piece);
        hash.update(rest);
        size += rest.len() as u64;
        Ok(())
    })?;
    Ok((record::written(&hash.finalize()), size))
}

#[cfg(test)]
mod tests {
    use std::io::{self, Cursor};

    use proptest::prelude::*;
    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    use super::*;

    const NAME: &str = "a_b-1.0-py3-none-any.whl";

    const METADATA: &str = "a_b-1.0.dist-info/METADATA";

    const WHEEL: &str = "a_b-1.0.dist-info/WHEEL";

    const RECORD: &str = "a_b-1.0.dist-info/RECORD";

    const POINTS: &str = "a_b-1.0.dist-info/entry_points.txt";

    /// The files that all wheels have, with others in their place or beside them; without those that are `None`.
    fn files<'a>(others: &[(&'a str, Option<&'a str>)]) -> BTreeMap<&'a str, &'a str> {
        let mut files = BTreeMap::from([
            ("a_b/__init__.py", "pass\n"),
            (METADATA, "Metadata-Version: 2.1\nName: A.B\nVersion: 1\n"),
            (WHEEL, "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"),
        ]);
        for (path, content) in others {
            match content {
                Some(content) => files.insert(path, content),
                None => files.remove(path),
            };
        }
        files
    }

    fn record_of(files: &BTreeMap<&str, &str>) -> String {
        let lines = files.iter().map(|(path, content)| Line::of((*path).to_owned(), content.as_bytes()));
        let itself = Line { path: RECORD.to_owned(), hash: None, size: None };
        record::write(lines.chain([itself]).collect())
    }

    fn packed(files: &BTreeMap<&str, &str>, record: &str) -> Vec<u8> {
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        for (path, content) in files.iter().chain([(&RECORD, &record)]) {
            let mode = if path.ends_with("/run") { 0o744 } else { 0o600 };
            zip.start_file(*path, SimpleFileOptions::default().unix_permissions(mode)).unwrap();
            zip.write_all(content.as_bytes()).unwrap();
        }
        zip.finish().unwrap().into_inner()
    }

    fn wheel(others: &[(&str, Option<&str>)]) -> Vec<u8> {
        let files = files(others);
        packed(&files, &record_of(&files))
    }

    fn environment() -> Environment {
        Environment { prefix: "/opt/venv".to_owned(), python: "3.12".to_owned(), cache_tag: None }
    }

    fn open(name: &str, bytes: &[u8]) -> Result<Wheel<Cursor<Vec<u8>>>, WheelError> {
        Wheel::open(Cursor::new(bytes.to_vec()), name, &environment(), None)
    }

    fn refused(name: &str, bytes: &[u8]) -> String {
        match open(name, bytes) {
            Ok(_) => "it was taken".to_owned(),
            Err(error) => {
                let diagnostic = error.diagnostic();
                assert!(diagnostic.what.contains(name) && diagnostic.fix.is_some());
                diagnostic.why
            }
        }
    }

    fn content(wheel: &mut Wheel<Cursor<Vec<u8>>>, path: &str) -> Result<String, WheelError> {
        let index = wheel.files().iter().position(|file| file.path == path).unwrap();
        let mut bytes = Vec::new();
        wheel.write(index, &mut bytes)?;
        assert_eq!(bytes.len() as u64, wheel.files()[index].size, "{path}");
        Ok(String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn files_go_where_the_environment_has_them() {
        let bytes = wheel(&[
            ("a_b/run", Some("")),
            ("a_b/.py", Some("")),
            ("other.data/scripts/x", Some("")),
            ("a_b-1.0.data/purelib/pure.py", Some("")),
            ("a_b-1.0.data/platlib/plat.so", Some("")),
            ("a_b-1.0.data/data/share/x/y", Some("")),
            ("a_b-1.0.data/data/lib/z.py", Some("")),
            ("a_b-1.0.data/headers/a.h", Some("")),
            ("a_b-1.0.data/scripts/binary", Some("\u{7f}ELF")),
            ("a_b-1.0.data/scripts/script", Some("#!pythonw -x\r\nrest\n")),
            ("a_b-1.0.data/scripts/made-script.py", Some("")),
            (POINTS, Some("[console_scripts]\nmade = a_b:c.d [extra]\n")),
        ]);
        let mut wheel = open(NAME, &bytes).unwrap();
        let listed = |file: &File| {
            let marks = [(file.is_executable, '*'), (file.is_module, '.')];
            let marks: String = marks.iter().filter(|(is, _)| *is).map(|(_, mark)| mark).collect();
            format!("{} {}{marks}", file.path.trim_start_matches("opt/venv/"), file.size)
        };
        let listing: Vec<_> = wheel.files().iter().map(listed).collect();
        insta::assert_snapshot!(listing.join("\n"), @r#"
        bin/binary 4*
        bin/made 285*
        bin/script 28*
        include/site/python3.12/a-b/a.h 0
        lib/python3.12/site-packages/a_b-1.0.dist-info/INSTALLER 2
        lib/python3.12/site-packages/a_b-1.0.dist-info/METADATA 43
        lib/python3.12/site-packages/a_b-1.0.dist-info/RECORD 1363
        lib/python3.12/site-packages/a_b-1.0.dist-info/REQUESTED 0
        lib/python3.12/site-packages/a_b-1.0.dist-info/WHEEL 59
        lib/python3.12/site-packages/a_b-1.0.dist-info/entry_points.txt 41
        lib/python3.12/site-packages/a_b/.py 0
        lib/python3.12/site-packages/a_b/__init__.py 5.
        lib/python3.12/site-packages/a_b/run 0*
        lib/python3.12/site-packages/other.data/scripts/x 0
        lib/python3.12/site-packages/plat.so 0
        lib/python3.12/site-packages/pure.py 0.
        lib/z.py 0
        share/x/y 0
        "#);
        insta::assert_snapshot!(content(&mut wheel, "opt/venv/bin/script").unwrap(), @r#"
        #!/opt/venv/bin/python
        rest
        "#);
        insta::assert_snapshot!(content(&mut wheel, "opt/venv/bin/made").unwrap(), @r#"
        #!/opt/venv/bin/python
        # -*- coding: utf-8 -*-
        import sys
        from a_b import c
        if __name__ == "__main__":
            if sys.argv[0].endswith("-script.pyw"):
                sys.argv[0] = sys.argv[0][:-11]
            elif sys.argv[0].endswith(".exe"):
                sys.argv[0] = sys.argv[0][:-4]
            sys.exit(c.d())
        "#);
        let record = "opt/venv/lib/python3.12/site-packages/a_b-1.0.dist-info/RECORD";
        insta::assert_snapshot!(content(&mut wheel, record).unwrap(), @r#"
        ../../../bin/binary,sha256=O9u0_oOXzSuEJDCznM_wGoZjx1GUXvXpoJ4mf7ix01k,4
        ../../../bin/made,sha256=hsiSfN32C79bnTEZ2ilfNYi6Dn3ESHxinr23jx6C1U4,285
        ../../../bin/script,sha256=ZRMcODN9Ro9A5s7ueCmAdnCE1k0N2Vr_qMb4fVrOXTQ,28
        ../../../include/site/python3.12/a-b/a.h,sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU,0
        ../../../share/x/y,sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU,0
        ../../z.py,sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU,0
        a_b-1.0.data/scripts/made-script.py,sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU,0
        a_b-1.0.dist-info/INSTALLER,sha256=5hhM4Q4mYTT9z6QB6PGpUAW81PGNFrYrdXMj4oM_6ak,2
        a_b-1.0.dist-info/METADATA,sha256=4tla7ZXlvHo_dbbQCpVu2XMufXdinPGEVlsjj9mrZxo,43
        a_b-1.0.dist-info/RECORD,,
        a_b-1.0.dist-info/REQUESTED,sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU,0
        a_b-1.0.dist-info/WHEEL,sha256=JCVX9z8V-js2aV5qmQR2E3fiCs-Yu3vPO91cCBmO1JM,59
        a_b-1.0.dist-info/entry_points.txt,sha256=kIvM3yB-jlr8GwbiNSHzZiMCmsXJENLU_ESWFBH91ZU,41
        a_b/.py,sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU,0
        a_b/__init__.py,sha256=n1bnYdeb_bNDBKASWGywTRa0Ne9hMAkal3AuVZJgovI,5
        a_b/run,sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU,0
        other.data/scripts/x,sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU,0
        plat.so,sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU,0
        pure.py,sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU,0
        "#);
        for file in 0..wheel.files().len() {
            wheel.write(file, &mut io::sink()).unwrap();
        }
    }

    #[test]
    fn hostile_wheels_are_refused() {
        let gone = None;
        for (path, content, why) in [
            (WHEEL, gone, "`a_b-1.0.dist-info/WHEEL`: it is not in the wheel"),
            (WHEEL, Some("Root-Is-Purelib: true\n"), "`Wheel-Version` is missing"),
            (WHEEL, Some("Wheel-Version: 2.0\nRoot-Is-Purelib: true\n"), "unknown version `2.0`"),
            (WHEEL, Some("Wheel-Version: 1.0\n"), "`Root-Is-Purelib` is neither"),
            (WHEEL, Some("Wheel-Version: 1.0\nRoot-Is-Purelib: perhaps\n"), "`Root-Is-Purelib` is neither"),
            (METADATA, gone, "`a_b-1.0.dist-info/METADATA`: it is not in the wheel"),
            (METADATA, Some("Name: a-c\nVersion: 1.0\n"), "it is `a-c 1.0`, which is not what"),
            (METADATA, Some("Name: a-b\nVersion: 1.1\n"), "it is `a-b 1.1`, which is not what"),
            (METADATA, Some("\nName: a-b\nVersion: 1.0\n"), "it is ` `, which is not what"),
            ("c-1.0.dist-info/METADATA", Some(""), "more than one `.dist-info` folder"),
            ("A_B-1.0.DIST-INFO/METADATA", Some(""), "differs in case alone"),
            ("A_B-1.0.DIST-INFO/x", Some(""), "more than one `.dist-info` folder"),
            ("a_b-1.0.dist-info/INSTALLER", Some("pip"), "an installer writes it"),
            ("a_b-1.0.dist-info/direct_url.json", Some("{}"), "an installer writes it"),
            ("a_b-1.0.data/x", Some(""), "`a_b-1.0.data/x`: it is for no known folder"),
            ("a_b-1.0.data/etc/x", Some(""), "it is for no known folder"),
            ("a_b-1.0.data/scripts/x/y", Some(""), "it is for no known folder"),
            ("a_b-1.0.data/scripts/python3.12", Some(""), "would be installed as `bin/python3.12`"),
            ("a_b-1.0.data/scripts/Python", Some(""), "which belongs to the environment"),
            ("a_b-1.0.data/scripts/activate.fish", Some(""), "which belongs to the environment"),
            ("a_b-1.0.data/data/bin/python", Some(""), "which belongs to the environment"),
            ("a_b-1.0.data/data/bin", Some(""), "which belongs to the environment"),
            ("a_b-1.0.data/data/pyvenv.cfg", Some(""), "would be installed as `pyvenv.cfg`"),
            ("a_b-1.0.data/data/lib64/x", Some(""), "which belongs to the environment"),
            ("a_b-1.0.data/data/lib", Some(""), "two of its files would be installed as `lib`"),
            ("a_b-1.0.data/platlib/a_b/__init__.py", Some(""), "two of its files would be installed as"),
            ("a_b-1.0.data/platlib/a_b", Some(""), "two of its files would be installed as"),
            ("a_b-1.0.data/purelib/c-1.0.dist-info/RECORD", Some(""), "which belongs to the environment"),
            (
                "a_b-1.0.data/purelib/a_b-1.0.dist-info/RECORD",
                Some(""),
                "two of its files would be installed",
            ),
            ("_virtualenv.py", Some(""), "which belongs to the environment"),
            ("ipybox.pth", Some(""), "which belongs to the environment"),
            (
                POINTS,
                Some("[console_scripts]\n../x = a:b\n"),
                "its entry point `../x` is none: its name has a slash",
            ),
            (POINTS, Some("[console_scripts]\n/x = a:b\n"), "its name has a slash"),
            (POINTS, Some("[console_scripts]\nx = a\n"), "it does not say `module:function`"),
            (POINTS, Some("[console_scripts]\nx\n"), "a line is neither a section nor an option"),
            (POINTS, Some("[DEFAULT]\nx = a:b\n"), "it has a section `DEFAULT`"),
            (POINTS, Some("[gui_scripts]\nx = a:b;import os\n"), "it does not say `module:function`"),
            (POINTS, Some("[console_scripts]\nx = a:b\n[gui_scripts]\nx = a:b\n"), "it is there twice"),
            (POINTS, Some("[console_scripts]\npython = a:b\n"), "which belongs to the environment"),
            (
                POINTS,
                Some("[console_scripts\n"),
                "`a_b-1.0.dist-info/entry_points.txt`: it is not well-formed: a line is in no section",
            ),
        ] {
            let refused = refused(NAME, &wheel(&[(path, content)]));
            assert!(refused.contains(why), "{path} {content:?}: {refused}");
        }
    }

    #[test]
    fn every_file_is_recorded() {
        let files = files(&[]);
        let record = record_of(&files);
        let line = record.lines().find(|line| line.starts_with("a_b/")).unwrap();
        let digits = line.split(',').nth(1).unwrap();
        let with = |other: &str| record.replace(digits, other);
        for (record, why) in [
            (record.replace(line, ""), "`a_b/__init__.py`: `RECORD` has no hash of it"),
            (with(""), "`RECORD` has no hash of it"),
            (with("md5=1B2M2Y8AsgTpgAmY7PhCfg"), "but `md5`"),
            (with("sha1=2jmj7l5rSw0yVb_vlWAYkK_YBwk"), "but `sha1`"),
            (with("sha256=x"), "a hash is none"),
            (record.replace(",5\n", ",6\n"), "its size is not the one in `RECORD`"),
            (record.replace(",5\n", ",x\n"), "a size is no number"),
            (record.replace(",5\n", "\n"), "a line has not three fields"),
            (record.replace("a_b/__init__", "\"a_b/__init__"), "a quote is not closed"),
            (format!("{record}a_b/__init__.py,,\n"), "it is there twice"),
        ] {
            let refused = refused(NAME, &packed(&files, &record));
            assert!(refused.contains(why), "{record}: {refused}");
        }
        let others = with("sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU");
        let mut wheel = open(NAME, &packed(&files, &others)).unwrap();
        let path = "opt/venv/lib/python3.12/site-packages/a_b/__init__.py";
        let error = content(&mut wheel, path).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "cannot take the wheel `{NAME}`: `a_b/__init__.py`: its content is not the one in `RECORD`"
            )
        );
    }

    #[test]
    fn bytecode_that_is_made_anew_gives_way_and_the_record_says_nothing_of_it() {
        let bytes = wheel(&[
            ("a_b/__pycache__/__init__.cpython-312.pyc", Some("1")),
            ("a_b/__pycache__/__init__.cpython-311.pyc", Some("2")),
            ("a_b/__pycache__/other.cpython-312.pyc", Some("3")),
            ("a_b-1.0.data/purelib/pure.py", Some("")),
            ("a_b-1.0.data/platlib/__pycache__/pure.cpython-312.pyc", Some("4")),
        ]);
        let left = |cache_tag: Option<&str>| {
            let environment = Environment { cache_tag: cache_tag.map(str::to_owned), ..environment() };
            let mut wheel = Wheel::open(Cursor::new(bytes.clone()), NAME, &environment, None).unwrap();
            let record =
                content(&mut wheel, "opt/venv/lib/python3.12/site-packages/a_b-1.0.dist-info/RECORD");
            let names = wheel.files().iter().filter_map(|file| file.path.split_once("__pycache__/"));
            let mut names: Vec<String> = names.map(|(_, name)| name.to_owned()).collect();
            names.sort();
            (names, format!("\n{}", record.unwrap()))
        };
        let (names, record) = left(Some("cpython-312"));
        assert_eq!(names, ["__init__.cpython-311.pyc", "other.cpython-312.pyc"]);
        assert!(record.contains("\na_b/__pycache__/__init__.cpython-312.pyc,,\n"), "{record}");
        assert!(record.contains("\n__pycache__/pure.cpython-312.pyc,,\n"), "{record}");
        assert!(record.contains("other.cpython-312.pyc,sha256="), "{record}");
        let (names, record) = left(None);
        assert_eq!(names.len(), 4);
        assert!(!record.contains(".pyc,,"), "{record}");
    }

    #[test]
    fn a_record_may_tell_more_than_there_is() {
        let files = files(&[("a_b-1.0.dist-info/RECORD.jws", Some("{}"))]);
        let record = record_of(&files);
        let signed = record.lines().find(|line| line.contains("RECORD.jws")).unwrap();
        let record = record.replace(&format!("{signed}\n"), "") + "a_b/gone.py,sha256=x,1\n";
        let record = record.replace("a_b/__init__.py", "./a_b/__init__.py");
        let mut wheel = open(NAME, &packed(&files, &record)).unwrap();
        let path = "opt/venv/lib/python3.12/site-packages/a_b-1.0.dist-info/RECORD";
        let installed = content(&mut wheel, path).unwrap();
        assert!(installed.starts_with("./a_b/__init__.py,sha256="), "{installed}");
        assert!(!installed.contains("gone") && !installed.contains("jws"), "{installed}");
    }

    #[test]
    fn a_wheel_is_what_its_name_says() {
        let bytes = wheel(&[]);
        for (name, is_taken) in [
            (NAME, true),
            ("A.B-1-py3-none-any.whl", true),
            ("a_b-1.0.0-2x-py3-none-any.whl", true),
            ("a_b-1.0+cpu-py3-none-any.whl", true),
            ("a_b-1.1-py3-none-any.whl", false),
            ("a_c-1.0-py3-none-any.whl", false),
            ("a_b-1.0-x2-py3-none-any.whl", false),
            ("a_b-1.0-none-any.whl", false),
            ("a_b-x-py3-none-any.whl", false),
            ("a_b-1.0-py3-none-any.zip", false),
        ] {
            assert_eq!(open(name, &bytes).is_ok(), is_taken, "{name}");
        }
    }

    #[test]
    fn what_is_from_no_index_says_from_where() {
        let reader = Cursor::new(wheel(&[]));
        let mut wheel = Wheel::open(reader, NAME, &environment(), Some("{\"url\":\"x\"}")).unwrap();
        let path = "opt/venv/lib/python3.12/site-packages/a_b-1.0.dist-info/";
        assert_eq!(content(&mut wheel, &format!("{path}direct_url.json")).unwrap(), "{\"url\":\"x\"}");
        let record = content(&mut wheel, &format!("{path}RECORD")).unwrap();
        assert!(record.contains("a_b-1.0.dist-info/direct_url.json,sha256="), "{record}");
    }

    #[test]
    fn a_script_of_any_size_gets_its_line() {
        for (script, installed) in [
            ("#!python", "#!/opt/venv/bin/python\n".to_owned()),
            ("#!python3 -x\ny", "#!/opt/venv/bin/python\ny".to_owned()),
            ("#!/bin/sh\n", "#!/bin/sh\n".to_owned()),
            ("#!pytho", "#!pytho".to_owned()),
            (&format!("#!python{}\ny", " ".repeat(200_000)), "#!/opt/venv/bin/python\ny".to_owned()),
        ] {
            let mut wheel = open(NAME, &wheel(&[("a_b-1.0.data/scripts/x", Some(script))])).unwrap();
            assert_eq!(content(&mut wheel, "opt/venv/bin/x").unwrap(), installed);
        }
    }

    #[test]
    fn a_first_line_ends_in_whichever_piece() {
        for (content, rest) in [
            ("#!python", ""),
            ("#!python\n\rx", "\rx"),
            ("#!python\r\n\nx", "\nx"),
            ("#!python\r\r\nx", "\r\nx"),
            ("#!python\rx", "x"),
            ("#!python\r", ""),
        ] {
            for size in 1..=content.len() {
                let mut line = FirstLine::default();
                let behind: Vec<_> =
                    content.as_bytes().chunks(size).flat_map(|piece| line.behind(piece)).collect();
                assert_eq!(behind, rest.as_bytes().iter().collect::<Vec<_>>(), "{content:?} by {size}");
            }
        }
    }

    fn read_to_the_end(bytes: &[u8]) {
        if let Ok(mut wheel) = open(NAME, bytes) {
            for file in 0..wheel.files().len() {
                let _ = wheel.write(file, &mut io::sink());
            }
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            read_to_the_end(&bytes);
        }

        #[test]
        fn no_changed_wheel_panics(
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
            end in proptest::option::of(any::<prop::sample::Index>()),
        ) {
            let mut bytes = wheel(&[("a_b-1.0.data/scripts/x", Some("#!python")), (POINTS, Some("[gui_scripts]\na=b:c"))]);
            for (index, byte) in changes {
                let at = index.index(bytes.len());
                bytes[at] = byte;
            }
            if let Some(end) = end {
                bytes.truncate(end.index(bytes.len()));
            }
            read_to_the_end(&bytes);
        }
    }
}
