//! The package indexes that are asked: those of the request, of the lists, and of this host's settings.

use std::io;
use std::path::{Path, PathBuf};

use configparser::ini::Ini;
use serde::Deserialize;

use super::credentials::Login;
use crate::deps::{Index, Priority, Url, percent_decoded};
use crate::diagnostic::{Diagnostic, Document};

/// Why it cannot be told which indexes are asked.
#[derive(Debug, thiserror::Error)]
pub enum IndexesError {
    /// A settings file of uv or pip cannot be read.
    #[error("cannot read the settings in `{}`", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why; nothing of its content.
        why: String,
    },
    /// A setting names what is no address.
    #[error("`{setting}` names no address of a package index")]
    NoAddress {
        /// A variable, or a file.
        setting: String,
    },
}

impl IndexesError {
    /// The refusal.
    #[must_use]
    pub fn diagnostic(&self) -> Diagnostic {
        let what = Diagnostic::new(self.to_string());
        match self {
            Self::Unreadable { why, .. } => what.why(why.clone()).advice("correct it, or move it away"),
            Self::NoAddress { .. } => what
                .why("expected `https://`, a host and a path, and nothing behind; builds cannot ask folders of this host")
                .advice("name an index with `--index-url`, and leave this setting out with `UV_NO_CONFIG=1`, or `PIP_CONFIG_FILE=/dev/null`"),
        }
    }
}

/// The package indexes that are asked.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct AskedIndexes {
    /// In their order; the default one is told by its priority.
    pub indexes: Vec<Index>,
    /// Logins that addresses of this host's settings held, by host.
    pub logins: Vec<(String, Login)>,
}

impl AskedIndexes {
    /// Those of a request, of lists, and of this host's settings.
    ///
    /// # Errors
    ///
    /// [`IndexesError`].
    pub fn read(
        request: &[Index],
        listed: Vec<Index>,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, IndexesError> {
        let host = of_host(variable)?;
        Ok(Self { indexes: joined(request, listed, host.indexes), logins: host.logins })
    }
}

/// All indexes in the order they are asked. The address of `request` counts where a list has an index of the same
/// name; of several defaults, that of the request, else that of the lists, else that of the host.
fn joined(request: &[Index], listed: Vec<Index>, host: Vec<Index>) -> Vec<Index> {
    let same_name = |one: &Index, other: &Index| one.name.is_some() && one.name == other.name;
    let replaced = |mut index: Index| {
        if let Some(given) = request.iter().find(|given| same_name(given, &index)) {
            index.url.clone_from(&given.url);
        }
        index
    };
    let listed: Vec<Index> = listed.into_iter().map(replaced).collect();
    let further = request.iter().filter(|index| !listed.iter().any(|other| same_name(index, other)));
    let mut all: Vec<Index> = further.cloned().collect();
    for indexes in [listed, host] {
        let has_default = all.iter().any(|index| index.priority == Priority::Default);
        for mut index in indexes {
            if has_default && index.priority == Priority::Default {
                index.priority = Priority::Explicit;
            }
            if !all.iter().any(|other| same_name(other, &index)) {
                all.push(index);
            }
        }
    }
    all
}

/// What uv is set up with on this host; where that names no index, what pip is. Variables count before files.
///
/// Rule: uv, "Package indexes" and "Configuration files"; pip, "Configuration".
///
/// # Errors
///
/// [`IndexesError`].
fn of_host(variable: &dyn Fn(&str) -> Option<String>) -> Result<AskedIndexes, IndexesError> {
    let home = variable("HOME").map(PathBuf::from);
    let config = variable("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let config = config.or_else(|| Some(home.as_ref()?.join(".config")));
    let of_uv = of_uv(variable, config.as_deref())?;
    if !of_uv.indexes.is_empty() {
        return Ok(of_uv);
    }
    of_pip(variable, home.as_deref(), config.as_deref())
}

fn of_uv(
    variable: &dyn Fn(&str) -> Option<String>,
    config: Option<&Path>,
) -> Result<AskedIndexes, IndexesError> {
    let mut found = AskedIndexes::default();
    for (name, priority) in [
        ("UV_INDEX", Priority::Extra),
        ("UV_EXTRA_INDEX_URL", Priority::Extra),
        ("UV_DEFAULT_INDEX", Priority::Default),
    ] {
        found.add_words(name, &variable(name).unwrap_or_default(), priority)?;
    }
    if let Some(url) = variable("UV_INDEX_URL").filter(|_| !found.has_default()) {
        found.add_words("UV_INDEX_URL", &url, Priority::Default)?;
    }
    if variable("UV_NO_CONFIG").is_some_and(|value| value != "0" && value != "false") {
        return Ok(found);
    }
    let given = variable("UV_CONFIG_FILE").map(PathBuf::from);
    let files = match given {
        Some(file) => vec![file],
        None => config
            .map(|folder| folder.join("uv/uv.toml"))
            .into_iter()
            .chain(["/etc/uv/uv.toml".into()])
            .collect(),
    };
    for file in files {
        let Some(text) = text_of(&file)? else {
            match variable("UV_CONFIG_FILE") {
                Some(_) => {
                    let why = "there is no such file; `UV_CONFIG_FILE` names it".to_owned();
                    return Err(IndexesError::Unreadable { path: file, why });
                }
                None => continue,
            }
        };
        let settings: UvSettings = toml_edit::de::from_str(&text).map_err(|error| {
            let line = error.span().map(|span| 1 + text[..span.start].matches('\n').count());
            let why = line
                .map_or_else(|| "it is no TOML".to_owned(), |line| format!("line {line} is not as expected"));
            IndexesError::Unreadable { path: file.clone(), why }
        })?;
        let place = file.display().to_string();
        for UvIndex { name, url, default, explicit, format } in settings.index {
            if format.is_some_and(|format| format != "simple") {
                return Err(IndexesError::NoAddress { setting: place });
            }
            let priority = match (explicit, default) {
                (true, _) => Priority::Explicit,
                (false, true) => Priority::Default,
                (false, false) => Priority::Extra,
            };
            found.add(&place, name.as_deref(), &url, priority)?;
        }
        for url in &settings.extra_index_url {
            found.add(&place, None, url, Priority::Extra)?;
        }
        if let Some(url) = &settings.index_url {
            found.add(&place, None, url, Priority::Default)?;
        }
    }
    Ok(found)
}

/// The part of `uv.toml` that names indexes.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct UvSettings {
    #[serde(default)]
    index: Vec<UvIndex>,
    index_url: Option<String>,
    #[serde(default)]
    extra_index_url: Vec<String>,
}

#[derive(Deserialize)]
struct UvIndex {
    name: Option<String>,
    url: String,
    #[serde(default)]
    default: bool,
    #[serde(default)]
    explicit: bool,
    format: Option<String>,
}

fn of_pip(
    variable: &dyn Fn(&str) -> Option<String>,
    home: Option<&Path>,
    config: Option<&Path>,
) -> Result<AskedIndexes, IndexesError> {
    let mut files = vec![PathBuf::from("/etc/xdg/pip/pip.conf"), "/etc/pip.conf".into()];
    files.extend(home.map(|home| home.join(".pip/pip.conf")));
    files.extend(config.map(|folder| folder.join("pip/pip.conf")));
    files.extend(variable("VIRTUAL_ENV").map(|folder| Path::new(&folder).join("pip.conf")));
    match variable("PIP_CONFIG_FILE") {
        // Rule: pip, "PIP_CONFIG_FILE": this one means that no file counts.
        Some(file) if file == "/dev/null" => files.clear(),
        Some(file) => files.push(file.into()),
        None => {}
    }
    let mut settings =
        [("PIP_INDEX_URL", "index-url", None), ("PIP_EXTRA_INDEX_URL", "extra-index-url", None)];
    for file in files {
        let Some(text) = text_of(&file)? else { continue };
        let mut ini = Ini::new();
        ini.set_multiline(true);
        ini.set_inline_comment_symbols(Some(&[]));
        let sections = ini.read(text).map_err(|_| IndexesError::Unreadable {
            path: file.clone(),
            why: "it is no file of sections".to_owned(),
        })?;
        for (section, at) in [("global", 0), ("global", 1), ("install", 0), ("install", 1)] {
            let (_, key, value) = &mut settings[at];
            let keys = sections.get(section).into_iter().flatten();
            let mut found = keys.filter(|(name, _)| name.replace('_', "-") == *key);
            if let Some((_, Some(text))) = found.next() {
                *value = Some((file.display().to_string(), text.clone()));
            }
        }
    }
    let mut found = AskedIndexes::default();
    for ((name, _, of_file), priority) in settings.into_iter().zip([Priority::Default, Priority::Extra]) {
        let of_variable = variable(name).map(|text| (name.to_owned(), text));
        let (place, text) = of_variable.or(of_file).unwrap_or_default();
        found.add_words(&place, &text, priority)?;
    }
    Ok(found)
}

/// A text file; `None` where there is none.
fn text_of(path: &Path) -> Result<Option<String>, IndexesError> {
    const MAX_BYTES: u64 = 1 << 20;
    match Document::read(path, MAX_BYTES) {
        Ok(document) => Ok(Some(document.text)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(IndexesError::Unreadable { path: path.to_owned(), why: error.to_string() }),
    }
}

impl AskedIndexes {
    fn has_default(&self) -> bool {
        self.indexes.iter().any(|index| index.priority == Priority::Default)
    }

    /// Addresses with white space between them, with names or without.
    fn add_words(&mut self, place: &str, words: &str, priority: Priority) -> Result<(), IndexesError> {
        for word in words.split_whitespace() {
            let (name, url) = match word.split_once('=') {
                Some((name, url)) if !name.contains([':', '/']) => (Some(name), url),
                _ => (None, word),
            };
            self.add(place, name, url, priority)?;
        }
        Ok(())
    }

    /// An index; of several defaults the first counts.
    fn add(
        &mut self,
        place: &str,
        name: Option<&str>,
        url: &str,
        priority: Priority,
    ) -> Result<(), IndexesError> {
        let no_address = || IndexesError::NoAddress { setting: place.to_owned() };
        if priority == Priority::Default && self.has_default() {
            return Ok(());
        }
        let address = Url::parse(url).ok_or_else(no_address)?;
        let plain = match address.user_info {
            None => url.to_owned(),
            Some(user_info) => {
                let (user, password) = user_info.split_once(':').unwrap_or((user_info, ""));
                let decoded = |text: &str| percent_decoded(text).unwrap_or_else(|| text.to_owned());
                let login = Login { user: decoded(user), password: decoded(password) };
                self.logins.push((address.host_name(), login));
                url.replacen(&format!("{user_info}@"), "", 1)
            }
        };
        self.indexes.push(Index::of(name, &plain, priority).map_err(|_| no_address())?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::fs;

    use super::*;

    fn of(variables: &[(&str, &str)]) -> Result<AskedIndexes, IndexesError> {
        let variables: HashMap<_, _> = variables.iter().copied().collect();
        of_host(&|name| variables.get(name).map(|value| (*value).to_owned()))
    }

    fn told(found: &AskedIndexes) -> Vec<String> {
        let line = |index: &Index| {
            format!("{:?} {} {}", index.priority, index.name.as_deref().unwrap_or("-"), index.url)
        };
        found.indexes.iter().map(line).collect()
    }

    #[test]
    fn variables_count_before_files_and_those_of_uv_before_those_of_pip() {
        let home = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = home.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
        };
        let at = home.path().to_str().unwrap();
        let with = |more: &[(&str, &str)]| told(&of(&[&[("HOME", at)], more].concat()).unwrap());
        assert_eq!(with(&[]), [""; 0]);
        write(".pip/pip.conf", "[global]\nindex-url = https://old.test/simple\n");
        write(
            ".config/pip/pip.conf",
            "[global]\nindex_url = https://u:p%40q@pip.test/simple\nextra-index-url =\n    https://one.test/\n    https://two.test/\n",
        );
        let pip =
            ["Default - https://pip.test/simple", "Extra - https://one.test/", "Extra - https://two.test/"];
        assert_eq!(with(&[]), pip);
        let login = Login { user: "u".to_owned(), password: "p@q".to_owned() };
        assert_eq!(of(&[("HOME", at)]).unwrap().logins, [("pip.test".to_owned(), login)]);
        let variable = ("PIP_INDEX_URL", "https://variable.test/");
        assert_eq!(
            with(&[variable, ("PIP_EXTRA_INDEX_URL", "https://three.test/")]),
            ["Default - https://variable.test/", "Extra - https://three.test/"]
        );
        assert_eq!(with(&[("PIP_CONFIG_FILE", "/dev/null")]), [""; 0]);
        write(
            ".config/uv/uv.toml",
            "[[index]]\nname = \"a\"\nurl = \"https://a.test/\"\nexplicit = true\n[[index]]\nurl = \"https://d.test/\"\ndefault = true\n",
        );
        assert_eq!(with(&[variable]), ["Explicit a https://a.test/", "Default - https://d.test/"]);
        assert_eq!(with(&[("UV_NO_CONFIG", "1")]), pip);
        let index = ("UV_INDEX", "b=https://b.test/x=1/ https://c.test/");
        assert_eq!(
            with(&[index, ("UV_INDEX_URL", "https://e.test/")]),
            [
                "Extra b https://b.test/x=1/",
                "Extra - https://c.test/",
                "Default - https://e.test/",
                "Explicit a https://a.test/"
            ]
        );
        write(".config/uv/uv.toml", "[[index]]\nurl = \"https://u:secret@d.test\n");
        let error = of(&[("HOME", at)]).unwrap_err().diagnostic();
        assert!(error.why.contains("line 2") && !format!("{error:?}").contains("secret"), "{error:?}");
        let error = of(&[("UV_INDEX", "u:secret@host")]).unwrap_err().diagnostic();
        assert!(error.what.contains("UV_INDEX") && !format!("{error:?}").contains("secret"), "{error:?}");
    }

    #[test]
    fn the_request_counts_before_the_lists_and_these_before_the_host() {
        let index = |name: &str, url: &str, priority| {
            Index::of(Some(name).filter(|name| !name.is_empty()), url, priority).unwrap()
        };
        let told = |indexes: Vec<Index>| told(&AskedIndexes { indexes, logins: Vec::new() });
        let request = [
            index("inner", "https://new.test/", Priority::Extra),
            index("", "https://d.test/", Priority::Default),
        ];
        let listed = vec![
            index("inner", "https://old.test/", Priority::Explicit),
            index("", "https://l.test/", Priority::Default),
        ];
        let host = vec![
            index("", "https://h.test/", Priority::Extra),
            index("", "https://hd.test/", Priority::Default),
        ];
        assert_eq!(
            told(joined(&request, listed.clone(), host.clone())),
            [
                "Default - https://d.test/",
                "Explicit inner https://new.test/",
                "Explicit - https://l.test/",
                "Extra - https://h.test/",
                "Explicit - https://hd.test/"
            ]
        );
        assert_eq!(
            told(joined(&[], listed, host)),
            [
                "Explicit inner https://old.test/",
                "Default - https://l.test/",
                "Extra - https://h.test/",
                "Explicit - https://hd.test/"
            ]
        );
    }
}
