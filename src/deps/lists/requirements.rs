//! pip's requirements files.

use std::ops::Range;
use std::path::Path;

use pep440_rs::{Operator, VersionSpecifiers};

use super::lines::{Line, Piece, logical_lines, place, split_options, words};
use super::pep508::{self, path_source};
use super::source::{Priority, archive_stem, is_distribution, parse_url};
use super::{
    Dependency, Include, Name, Parsed, Source, Surroundings, Url, index, name, nearest, project, quoted,
    source,
};
use crate::diagnostic::Diagnostic;

/// An option that a requirements file may hold.
struct FileOption {
    /// With one dash; empty where there is none.
    short: &'static str,
    /// With two dashes.
    name: &'static str,
    takes_value: bool,
}

/// Rule: pip, "Requirements File Format", "Supported options".
const OPTIONS: [FileOption; 17] = [
    option("-r", "--requirement", true),
    option("-c", "--constraint", true),
    option("-e", "--editable", true),
    option("-i", "--index-url", true),
    option("", "--extra-index-url", true),
    option("", "--pypi-url", true),
    option("-f", "--find-links", true),
    option("", "--no-index", false),
    option("", "--no-binary", true),
    option("", "--only-binary", true),
    option("", "--prefer-binary", false),
    option("", "--require-hashes", false),
    option("", "--pre", false),
    option("", "--trusted-host", true),
    option("", "--use-feature", true),
    option("", "--hash", true),
    option("-C", "--config-settings", true),
];

const fn option(short: &'static str, name: &'static str, takes_value: bool) -> FileOption {
    FileOption { short, name, takes_value }
}

/// Hashes that pip takes, and their digits.
const HASHES: [(&str, usize); 3] = [("sha256", 64), ("sha384", 96), ("sha512", 128)];

/// Reads a requirements file that lies in `folder`.
pub(in crate::deps) fn parse(text: &str, folder: &Path, surroundings: Surroundings<'_>, parsed: &mut Parsed) {
    let mut file = File { folder, surroundings, parsed, hashes_required: false };
    for line in logical_lines(text) {
        if file.parsed.is_hopeless() {
            return;
        }
        let Some(line) = file.expand(line) else { continue };
        file.line(&line);
    }
    file.finish();
}

struct File<'a> {
    folder: &'a Path,
    surroundings: Surroundings<'a>,
    parsed: &'a mut Parsed,
    hashes_required: bool,
}

impl File<'_> {
    /// Replaces `${NAME}` by what the environment has.
    ///
    /// Rule: pip, "Using environment variables": only upper case letters, digits and `_`.
    fn expand(&mut self, line: Line) -> Option<Line> {
        if !line.text.contains("${") {
            return Some(line);
        }
        let mut expanded = Line::default();
        let mut position = 0;
        let mut complete = true;
        while let Some(found) = line.text[position..].find("${").map(|at| at + position) {
            let name = line.text[found + 2..].split('}').next().unwrap_or_default();
            let end = found + 2 + name.len() + 1;
            let is_closed = !name.is_empty() && end <= line.text.len();
            let in_capitals = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
            let is_name = is_closed && name.bytes().all(in_capitals);
            if is_closed && !is_name && name.to_ascii_uppercase().bytes().all(in_capitals) {
                complete = false;
                self.parsed.mistakes.push(
                    Diagnostic::new(format!("`${{{name}}}` is not replaced by a value"))
                        .at(line.place(found..end))
                        .why("pip knows variables whose names are in capitals only")
                        .advice(format!(
                            "write `${{{}}}`, and set it, or write the value",
                            name.to_uppercase()
                        )),
                );
            }
            if !is_name {
                expanded.push_part(&line, position..found + 2);
                position = found + 2;
                continue;
            }
            expanded.push_part(&line, position..found);
            match (self.surroundings.variable)(name) {
                Some(value) => expanded.push(&value, line.place(found..end), false),
                None => {
                    complete = false;
                    self.parsed.mistakes.push(
                        Diagnostic::new(format!("the environment variable `{name}` is not set"))
                            .at(line.place(found..end))
                            .why("it would be replaced by its value")
                            .advice("set it, or write the value"),
                    );
                }
            }
            position = end;
        }
        expanded.push_part(&line, position..line.text.len());
        complete.then_some(expanded)
    }

    fn line(&mut self, line: &Line) {
        let (requirement, options) = split_options(&line.text);
        let options = match words(options) {
            Ok(words) => words,
            Err(open) => {
                self.parsed.mistakes.push(
                    Diagnostic::new("an option has an open quote")
                        .at(line.place_of(open))
                        .why("expected a closing quote")
                        .advice("remove the quote; values with spaces need two"),
                );
                return;
            }
        };
        let mut dependency = match requirement.trim() {
            "" => None,
            requirement => match self.requirement(line, requirement) {
                Some(dependency) => Some(dependency),
                None => return,
            },
        };
        let mut options = options.into_iter();
        while let Some((word, written)) = options.next() {
            let at = line.place_of(written);
            let Some((option, mut value)) = self.option(&word, at.clone()) else { return };
            let mut value_at = at.clone();
            if option.takes_value && value.is_none() {
                match options.next() {
                    Some((next, written)) => (value, value_at) = (Some(next), line.place_of(written)),
                    None => {
                        self.parsed.mistakes.push(
                            Diagnostic::new(format!("the option `{}` has no value", option.name))
                                .at(at)
                                .why("expected a value behind it")
                                .advice(format!("write `{} VALUE`, or remove the option", option.name)),
                        );
                        return;
                    }
                }
            }
            let value = value.unwrap_or_default();
            match (option.name, dependency.as_mut()) {
                ("--hash", Some(dependency)) => match hash(&value) {
                    Some(hash) => dependency.hashes.push(hash),
                    None => self.parsed.mistakes.push(
                        Diagnostic::new(format!("dependency `{}` has an invalid hash", dependency.name))
                            .at(value_at)
                            .why("expected `sha256:` and 64 hexadecimal digits, or sha384 or sha512")
                            .advice("write what `pip hash` or `uv pip compile --generate-hashes` prints"),
                    ),
                },
                ("--hash", None) => self.parsed.mistakes.push(
                    Diagnostic::new("a hash belongs to no requirement")
                        .at(at)
                        .why("nothing stands before it; a comment between continued lines ends the requirement")
                        .advice("put it on the requirement's line, with a backslash at the end of the line before"),
                ),
                (name, Some(dependency)) if name != "--config-settings" => {
                    let what = format!("the option `{name}` stands behind the requirement `{}`", dependency.name);
                    self.parsed.mistakes.push(
                        Diagnostic::new(what)
                            .at(at)
                            .why("only `--hash` belongs to a single requirement")
                            .advice("give the option a line of its own"),
                    );
                }
                (name, _) => self.setting(name, &value, at, value_at),
            }
        }
        if let Some(mut dependency) = dependency {
            self.check_hashes(&mut dependency);
            self.parsed.take(dependency);
        }
    }

    /// Hashes belong to the files of one version, or to the one file behind an address.
    fn check_hashes(&mut self, dependency: &mut Dependency) {
        let is_pin = |set: &VersionSpecifiers| set.len() == 1 && *set[0].operator() == Operator::Equal;
        if dependency.hashes.is_empty() {
            return;
        }
        let mistake = match (&mut dependency.source, dependency.hashes.as_slice()) {
            (Source::Registry { .. }, _) if dependency.constraint.alternatives().iter().all(is_pin) => return,
            (Source::Url { sha256, .. }, [one]) if one.starts_with("sha256:") => {
                *sha256 = one.strip_prefix("sha256:").map(str::to_owned);
                return;
            }
            (Source::Registry { .. }, _) => Diagnostic::new(format!(
                "dependency `{}` has a hash and leaves its version open",
                dependency.name
            ))
            .why("a hash belongs to the files of one version")
            .advice("pin it with `==`, or remove the hash"),
            (Source::Url { .. }, _) => {
                Diagnostic::new(format!("dependency `{}` has hashes of several files", dependency.name))
                    .why("behind its address is one")
                    .advice("keep the one with `sha256:`")
            }
            _ => Diagnostic::new(format!(
                "dependency `{}` has a hash of something of this host",
                dependency.name
            ))
            .why("a folder or repository has none, and a file of this host is taken as it is")
            .advice("remove the hash"),
        };
        self.parsed.mistakes.push(mistake.at(dependency.at.clone()));
    }

    /// The option that a word is, and its value if it holds one.
    fn option(&mut self, word: &str, at: Range<usize>) -> Option<(&'static FileOption, Option<String>)> {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) if name.starts_with("--") => (name, Some(value)),
            _ => (word, None),
        };
        for option in &OPTIONS {
            if option.name == name && (option.takes_value || value.is_none()) {
                return Some((option, value.map(str::to_owned)));
            }
            if let Some(value) = word
                .strip_prefix(option.short)
                .filter(|_| !option.short.is_empty() && !word.starts_with("--"))
            {
                return Some((option, (!value.is_empty()).then(|| value.to_owned())));
            }
        }
        if OPTIONS.iter().any(|option| option.name == name) {
            return self.parsed.refuse(
                Diagnostic::new(format!("the option `{name}` takes no value"))
                    .at(at)
                    .why("it stands for itself")
                    .replace(name),
            );
        }
        if !word.starts_with('-') {
            return self.parsed.refuse(
                Diagnostic::new("something stands behind an option")
                    .at(at)
                    .why("expected another option, or the end of the line")
                    .advice("give it a line of its own, before or behind"),
            );
        }
        let known = OPTIONS.iter().map(|option| option.name);
        let begun: Vec<_> = known.clone().filter(|known| known.starts_with(name) && name.len() > 2).collect();
        let meant = match begun.as_slice() {
            [only] => Some(*only),
            _ => nearest(name, known),
        };
        let mistake =
            Diagnostic::new(format!("`{}` is no option of a requirements file", name.escape_debug())).at(at);
        self.parsed.refuse(match (meant, value) {
            (Some(meant), None) => mistake.why(format!("did you mean `{meant}`?")).replace(meant),
            (Some(meant), Some(value)) => {
                mistake.why(format!("did you mean `{meant}`?")).replace(format!("{meant}={value}"))
            }
            _ => mistake.why("expected an option that pip reads in files").advice("remove it"),
        })
    }

    /// Heeds an option that stands for itself.
    fn setting(&mut self, name: &str, value: &str, at: Range<usize>, value_at: Range<usize>) {
        let refused = |what: &str, why: &str, advice: &str| {
            Diagnostic::new(what).at(at.clone()).why(why).advice(advice)
        };
        match name {
            "--requirement" | "--constraint" => {
                if Url::parse(value).is_some_and(|url| url.scheme != "file") {
                    self.parsed.mistakes.push(refused(
                        "a requirements file is included from the network",
                        "what it says could change with every build",
                        "download it, and include the file",
                    ));
                    return;
                }
                let path = value.strip_prefix("file://").unwrap_or(value).to_owned();
                self.parsed.includes.push(Include { path, bounds: name == "--constraint", at: value_at });
            }
            "--editable" => {
                let line = Line {
                    text: value.to_owned(),
                    pieces: vec![Piece { start: 0, at: value_at, verbatim: false }],
                };
                let Some(mut dependency) = self.requirement(&line, &line.text) else { return };
                if let Source::Git { develop, .. } | Source::Path { develop, .. } = &mut dependency.source {
                    *develop = true;
                    self.parsed.spec.dependencies.push(dependency);
                } else {
                    self.parsed.mistakes.push(refused(
                        "only projects can be editable",
                        "this is none: expected a folder, or `git+` and an address",
                        "write `-e ./folder`, or leave out `-e`",
                    ));
                }
            }
            "--index-url" | "--pypi-url" | "--extra-index-url" => {
                let priority = if name == "--extra-index-url" { Priority::Extra } else { Priority::Default };
                if let Some(index) = index::read(None, value, priority, value_at, self.parsed) {
                    // pip begins anew with each.
                    if priority == Priority::Default {
                        self.parsed.spec.indexes.clear();
                    }
                    self.parsed.spec.indexes.push(index);
                }
            }
            "--pre" => self.parsed.all_prereleases = true,
            "--require-hashes" => self.hashes_required = true,
            "--no-binary" if value != ":none:" => self.parsed.mistakes.push(refused(
                "`--no-binary` asks for source archives",
                "images install wheels only",
                "remove it; name a project to build with `name @ git+https://…` or a path",
            )),
            "--no-index" | "--find-links" => self.parsed.mistakes.push(refused(
                &format!("`{name}` is not supported"),
                "packages come from package indexes",
                "name an index with `--index-url`, and single files by their path",
            )),
            "--trusted-host" => self.parsed.mistakes.push(refused(
                "`--trusted-host` would take packages from anybody",
                "certificates are always checked",
                "remove it, and give the authority's certificate with `--ca-cert`",
            )),
            // What is left cannot change what is installed from wheels.
            _ => {}
        }
    }

    /// A requirement without its options; mistakes are reported.
    fn requirement(&mut self, line: &Line, text: &str) -> Option<Dependency> {
        let whole = line.place_of(text);
        let is_archive = |path: &str| is_distribution(path);
        let address = text.split([' ', '\t', ';', '#', '[']).next().unwrap_or_default();
        let scheme = Url::parse(address).is_some() || address.starts_with("file:");
        let path = !scheme
            && (text.starts_with(['.', '/', '~']) || address.contains(['/', '\\']) || is_archive(address));
        if !(scheme || path) || has_name_before_at(text) {
            // pip ends an address at a `;`, and PEP 508 only behind a blank.
            let spaced = text.replacen("; ", " ;", usize::from(has_name_before_at(text)));
            return match pep508::parse(&spaced) {
                Ok(dependency) => Some(Dependency { at: place(line, text, &dependency.at), ..dependency }),
                Err(mistake) => {
                    let mistake = explained(line, text, mistake);
                    self.parsed.refuse(mistake)
                }
            };
        }
        if let Some((host, path)) = text.strip_prefix("git+").and_then(|rest| rest.split_once(':'))
            && host.contains('@')
            && !path.starts_with("//")
        {
            return self.parsed.refuse(
                Diagnostic::new("this is no address of a repository")
                    .at(whole)
                    .why("behind `git+` stands an address with a scheme")
                    .replace(format!("git+ssh://{host}/{path}")),
            );
        }
        // A marker behind an address needs a space on one side of its `;`.
        let end = [" ;", "; "].iter().filter_map(|end| text.find(end)).min().unwrap_or(text.len());
        let (address, marker) = text.split_at(end);
        let marker = marker.trim_start().trim_start_matches(';').trim();
        let (address, extras) =
            match address.trim().strip_suffix(']').and_then(|address| address.rsplit_once('[')) {
                Some((address, extras)) => (address, extras.split(',').map(str::trim).collect::<Vec<_>>()),
                None => (address.trim(), Vec::new()),
            };
        let fragment = address.split_once('#').map_or("", |(_, fragment)| fragment);
        let egg = fragment.split('&').find_map(|pair| pair.strip_prefix("egg="));
        let (egg, of_egg) = match egg.and_then(|egg| egg.strip_suffix(']')?.split_once('[')) {
            Some((name, extras)) => (Some(name), extras.split(',').map(str::trim).collect()),
            None => (egg.map(|egg| egg.split('[').next().unwrap_or_default()), Vec::new()),
        };
        let extras = [extras, of_egg].concat();
        if Url::parse(address.strip_prefix("git+").unwrap_or(address))
            .is_some_and(|url| url.has_credentials())
        {
            return self.parsed.refuse(source::credentials("a requirement").at(whole));
        }
        let source = if scheme { parse_url(address) } else { Some(path_source(address)) };
        let Some(source) = source else {
            return self.parsed.refuse(
                Diagnostic::new("this is no address of a distribution")
                    .at(whole)
                    .why("expected a scheme and a host")
                    .advice("write `name @ https://…`, or a path such as `./folder`"),
            );
        };
        let named = egg.and_then(Name::parse).or_else(|| self.name_of(&source));
        let Some(name) = named else {
            return self.parsed.refuse(
                Diagnostic::new("the name of this distribution cannot be told")
                    .at(whole)
                    .why("it is neither in the address nor in a `pyproject.toml` there")
                    .advice("write the name before it: `name @ …`"),
            );
        };
        let mut dependency = Dependency { source, ..Dependency::any(name, whole.clone()) };
        for extra in extras {
            match Name::parse(extra) {
                Some(extra) => dependency.extras.push(extra),
                None => {
                    return self.parsed.refuse(
                        Diagnostic::new(format!("dependency `{}` has an invalid extra", dependency.name))
                            .at(whole)
                            .why("expected letters, digits, `.`, `-` and `_`")
                            .advice("write extras as `[first,second]`"),
                    );
                }
            }
        }
        if !marker.is_empty() {
            match super::Marker::parse(marker) {
                Ok(marker) => dependency.marker = Some(marker),
                Err(error) => {
                    return self.parsed.refuse(
                        Diagnostic::new(format!("dependency `{}` has an invalid marker", dependency.name))
                            .at(line.place_of(marker))
                            .why(error.why)
                            .advice("write a PEP 508 marker such as `python_version < \"3.12\"`"),
                    );
                }
            }
        }
        Some(dependency)
    }

    /// The name of what lies at an address, as far as the address or a folder of this host tells.
    fn name_of(&self, source: &Source) -> Option<Name> {
        let (path, subdirectory, folder) = match source {
            Source::Registry { .. } | Source::Git { .. } => return None,
            Source::Url { url, subdirectory, .. } => (url.as_str(), subdirectory, false),
            Source::Path { path, subdirectory, .. } => (path.as_str(), subdirectory, true),
        };
        let file = path.split('?').next().unwrap_or_default().rsplit('/').next().unwrap_or_default();
        if let Some(stem) = file.strip_suffix(".whl") {
            let parts: Vec<_> = stem.split('-').collect();
            return Name::parse(parts[0]).filter(|_| matches!(parts.len(), 5 | 6));
        }
        if let Some(stem) = archive_stem(file) {
            return Name::parse(stem.rsplit_once('-')?.0);
        }
        let folder =
            folder.then(|| self.folder.join(path).join(subdirectory.as_deref().unwrap_or_default()))?;
        let document = (self.surroundings.read)(&folder.join("pyproject.toml")).ok()?;
        project::name(&document.text)
    }

    fn finish(self) {
        if !self.hashes_required {
            return;
        }
        let registry = |one: &&Dependency| matches!(one.source, Source::Registry { .. });
        for dependency in
            self.parsed.spec.dependencies.iter().filter(registry).filter(|one| one.hashes.is_empty())
        {
            self.parsed.mistakes.push(
                Diagnostic::new(format!("dependency `{}` has no hash", dependency.name))
                    .at(dependency.at.clone())
                    .why("`--require-hashes` asks for one")
                    .advice("add `--hash=sha256:…`, or remove `--require-hashes`"),
            );
        }
    }
}

/// A mistake of a requirement, with the line it surely means where it is one of Poetry's.
fn explained(line: &Line, text: &str, mistake: Diagnostic) -> Diagnostic {
    let whole = text.as_ptr() as usize - line.text.as_ptr() as usize;
    let whole = whole..whole + text.len();
    if let Some(requirement) = quoted::poetry_line(text)
        && line.is_verbatim(&whole)
    {
        return Diagnostic::new("this is a line of Poetry's language")
            .at(line.place(whole))
            .why("the other lines are requirements as pip writes them")
            .replace(requirement);
    }
    let bare = text.trim_end_matches(',').trim_matches(['"', '\'']);
    if bare.len() < text.len() && pep508::parse(bare).is_ok() && line.is_verbatim(&whole) {
        return Diagnostic::new("this is a requirement in quotes")
            .at(line.place(whole))
            .why("requirements files have no quotes around them and no commas between them")
            .replace(bare);
    }
    let at = mistake.at.clone().unwrap_or_default();
    let verbatim = line.is_verbatim(&(whole.start + at.start..whole.start + at.end));
    if line.pieces.iter().any(|piece| !piece.verbatim) {
        // Its words could tell what a variable holds.
        return Diagnostic::new("invalid requirement")
            .at(line.place(whole))
            .why("with its variables replaced, it is none")
            .advice("check what the variables hold");
    }
    let placed = Diagnostic { at: Some(place(line, text, &at)), ..mistake };
    if verbatim { placed } else { placed.advice("write a PEP 508 requirement such as `numpy>=2.2,<3`") }
}

/// Whether a requirement begins with a name, perhaps extras, and an `@`.
fn has_name_before_at(text: &str) -> bool {
    let (name, rest) = name::split(text);
    Name::parse(name).is_some() && rest.starts_with('@')
}

/// A hash as pip writes it.
fn hash(text: &str) -> Option<String> {
    let (algorithm, digits) = text.split_once(':')?;
    let length = HASHES.iter().find_map(|(known, length)| (*known == algorithm).then_some(*length))?;
    (digits.len() == length && digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
        .then(|| format!("{algorithm}:{}", digits.to_ascii_lowercase()))
}
