//! What an image is made from, as it can be typed.

use std::path::PathBuf;
use std::str::FromStr;

use clap::builder::BoolishValueParser;
use clap::{Args, ValueEnum};

use super::EngineArgs;
use super::environment::{PROXY_VARIABLES, words};
use crate::accounts::User;
use crate::base::Platform;
use crate::deps::{Index, Name, Priority, Selection};
use crate::lock;
use crate::reference::Reference;
use crate::request::{FromSource, Libraries, Locking, PythonVersion, Request, SecretFrom, Tools};
use crate::stored::Place;
use crate::variant::{self, executor_name};

/// The word in place of Debian packages that are found out.
const AUTO: &str = "auto";

/// What an image is made from; the same for every command that makes a plan.
#[derive(Debug, Clone, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub struct ImageArgs {
    /// Dependency list, `-` for standard input; may be repeated [default: the variant's own]
    ///
    /// Poetry's lines (`numpy = "^2.2"`), quoted PEP 508 requirements separated by commas
    /// (`"numpy>=2.2,<3",`), a requirements.txt, a pyproject.toml or a script with inline metadata,
    /// told apart by their content. An empty file is fine.
    #[arg(short, long, value_name = "FILE")]
    pub dependencies: Vec<PathBuf>,

    #[command(flatten)]
    #[expect(missing_docs, reason = "described by its type")]
    pub selection: SelectionArgs,

    /// Lock that says which versions are installed [default: `pylock.toml` beside `dependencies.txt`, `pylock.NAME.toml`
    /// beside `NAME.txt`]
    ///
    /// `ipybox lock` makes it, and `ipybox build` brings it up to date where the list has changed. Without one, the newest
    /// versions are taken that will do.
    #[arg(long, value_name = "FILE", value_parser = lock_file, env = "IPYBOX_LOCK", hide_env = true)]
    pub lock: Option<PathBuf>,

    /// Install nothing but what the lock says; refuse where there is none, or where it is not what is asked for
    #[arg(long, value_parser = BoolishValueParser::new(), env = "IPYBOX_LOCKED", hide_env = true)]
    pub locked: bool,

    /// Kind of image; see `ipybox variants`
    #[arg(
        short = 'V',
        long,
        value_name = "NAME",
        default_value = "minimal",
        env = "IPYBOX_VARIANT",
        hide_env = true
    )]
    pub variant: String,

    /// Image to build on [default: python:X.Y-slim-bookworm]
    ///
    /// `oci:DIR`, `oci-archive:FILE` and `docker-archive:FILE` are images in files of this host, and `docker://NAME` is one
    /// that a registry has: the image is made without an engine then, and written to where `--output` says, or pushed.
    #[arg(long, value_name = "IMAGE", env = "IPYBOX_BASE", hide_env = true)]
    pub base: Option<BaseImage>,

    /// What an executor server calls itself; clients find it by this name
    #[arg(long, value_parser = executor_name, env = "IPYBOX_NAME", hide_env = true)]
    pub name: Option<String>,

    /// Interpreter of the base to use, by its path [default: the first that has packages]
    #[arg(long, value_name = "PATH", env = "IPYBOX_BASE_PYTHON", hide_env = true)]
    pub base_python: Option<String>,

    /// Python for a base that has none: a tar archive, such as python-build-standalone's `install_only`
    #[arg(
        long,
        value_name = "FILE",
        env = "IPYBOX_PYTHON_ARCHIVE",
        hide_env = true,
        conflicts_with = "base_python"
    )]
    pub python_archive: Option<PathBuf>,

    /// Debian package to install; may be repeated. `auto` adds those that installed packages turn out to need
    ///
    /// After each build it is looked which shared libraries packages need and nothing in the image has, such as `libGL.so.1`
    /// of opencv-python. They are told with the Debian packages that have them; `--apt auto` builds once more, with these.
    #[arg(long, value_name = "PACKAGE", value_parser = variant::package)]
    pub apt: Vec<String>,

    /// Build packages that no index has as a wheel from their sources: auto, never, or only those named; may be repeated
    /// [default: auto]
    ///
    /// Builds run in a step of their own, without the package cache, and only wheels get into the image.
    #[arg(long, value_name = "WHICH")]
    pub from_source: Vec<String>,

    /// Debian package that such builds need, and the image does not get; may be repeated
    #[arg(long, value_name = "PACKAGE", value_parser = variant::package)]
    pub build_apt: Vec<String>,

    /// Programs to install for somebody: git, curl, jq, tmux, procps, less, ripgrep, unzip and asciinema for an agent
    #[arg(long, value_name = "WHOSE", value_enum, env = "IPYBOX_TOOLS", hide_env = true)]
    pub tools: Option<ToolsFor>,

    /// Variable of the image's environment, as NAME=VALUE; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = env_setting)]
    pub env: Vec<(String, String)>,

    /// Let `--env` and variants set variables whose names look like those of secrets
    #[arg(long, value_parser = BoolishValueParser::new(), env = "IPYBOX_ALLOW_SECRET_ENV", hide_env = true)]
    pub allow_secret_env: bool,

    /// Variable for the steps of a variant, as NAME=VALUE; may be repeated. It does not stay in the image's environment
    ///
    /// Proxies, such as `HTTPS_PROXY`, are for all steps, and leave no trace.
    #[arg(long, value_name = "NAME=VALUE", value_parser = env_setting)]
    pub build_arg: Vec<(String, String)>,

    /// What the image is to run on, such as `linux/arm64`; another than the engine's own takes emulation there
    #[arg(long, value_name = "OS/ARCH", env = "IPYBOX_PLATFORM", hide_env = true)]
    pub platform: Option<Platform>,

    /// Label of the image, as NAME=VALUE; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = label_setting)]
    pub label: Vec<(String, String)>,

    /// File or folder to copy into the image, as SOURCE:DESTINATION; may be repeated
    ///
    /// The destination is an absolute path; one that ends in `/` is a folder. A folder's content is laid over what is
    /// there. What goes below /app or the user's home belongs to the image's user, everything else to root.
    #[arg(long, value_name = "SRC:DST", value_parser = copy_setting)]
    pub copy: Vec<(PathBuf, String)>,

    /// Secret for the steps of a variant that name it, as id=ID,src=FILE or id=ID,env=VARIABLE; may be repeated
    ///
    /// It leaves no trace in the image.
    #[arg(long, value_name = "id=ID,src=FILE|env=NAME", value_parser = secret_setting)]
    pub secret: Vec<(String, SecretFrom)>,

    /// Read all files that are copied, also those that did not change since they were read last
    #[arg(long, value_parser = BoolishValueParser::new(), env = "IPYBOX_PARANOID", hide_env = true)]
    pub paranoid: bool,

    /// Take the base's facts from this file instead of asking the engine
    #[arg(long, value_name = "FILE", env = "IPYBOX_BASE_FACTS", hide_env = true, conflicts_with = "base")]
    pub base_facts: Option<PathBuf>,

    /// Version of Python [default: 3.12, or the newest that the list admits]
    #[arg(long, value_name = "X.Y", env = "IPYBOX_PYTHON", hide_env = true)]
    pub python: Option<PythonVersion>,

    /// Run as root, as old scripts may expect
    #[arg(short, long, value_parser = BoolishValueParser::new(), env = "IPYBOX_ROOT", hide_env = true)]
    pub root: bool,

    /// User id of the image's user [default: yours; 1000 if you are root]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=i64::from(u32::MAX) - 1), env = "IPYBOX_UID", hide_env = true)]
    pub uid: Option<u32>,

    /// Group id of the image's user [default: yours; 1000 if you are root]
    #[arg(long, value_parser = clap::value_parser!(u32).range(0..=i64::from(u32::MAX) - 1), env = "IPYBOX_GID", hide_env = true)]
    pub gid: Option<u32>,

    /// Leave modules uncompiled: a smaller image that is built sooner and starts later
    #[arg(long, value_parser = BoolishValueParser::new(), env = "IPYBOX_NO_BYTECODE", hide_env = true)]
    pub no_bytecode: bool,

    /// Folder that replaces the shipped templates
    #[arg(long, value_name = "DIR", env = "IPYBOX_TEMPLATES", hide_env = true)]
    pub templates: Option<PathBuf>,

    #[command(flatten)]
    #[expect(missing_docs, reason = "described by its type")]
    pub own: VariantsFolder,

    #[command(flatten)]
    #[expect(missing_docs, reason = "described by its type")]
    pub means: MeansArgs,
}

/// Package indexes beside those that lists name.
#[derive(Debug, Clone, Args)]
pub struct IndexArgs {
    /// Package index to ask last, in place of the lists' default, this host's and the installer's own
    ///
    /// Further indexes of lists, and of what uv or pip are set up with on this host (`UV_INDEX`, `uv.toml`,
    /// `PIP_EXTRA_INDEX_URL`, `pip.conf`), are still asked before it. User names and passwords come from `~/.netrc`, or
    /// `UV_INDEX_NAME_USERNAME` and `UV_INDEX_NAME_PASSWORD`.
    #[arg(long, value_name = "URL", env = "IPYBOX_INDEX_URL", hide_env = true, hide_env_values = true)]
    pub index_url: Option<String>,

    /// Package index to ask first; may be repeated. A package comes from the first index that has it
    #[arg(long, value_name = "URL")]
    pub extra_index_url: Vec<String>,

    /// The address of an index that a list names as `source`, or a name for one to ask first; may be repeated
    #[arg(long, value_name = "NAME=URL")]
    pub index: Vec<String>,
}

impl IndexArgs {
    /// Takes from the environment what the arguments leave open.
    pub(super) fn complete(&mut self) -> Result<(), String> {
        for (given, variable) in
            [(&mut self.extra_index_url, "IPYBOX_EXTRA_INDEX_URL"), (&mut self.index, "IPYBOX_INDEX")]
        {
            if given.is_empty() {
                *given = words(variable);
            }
        }
        self.indexes().map(drop)
    }

    /// The indexes; what a refusal says holds no address, since that may hold a password.
    ///
    /// # Errors
    ///
    /// What is wrong with one of them.
    pub fn indexes(&self) -> Result<Vec<Index>, String> {
        let checked = |option: &str, name: Option<&str>, url: &str, priority| {
            Index::of(name, url, priority).map_err(|error| format!("{option}: {error}"))
        };
        let mut indexes = Vec::new();
        for text in &self.index {
            let (name, url) = text
                .split_once('=')
                .filter(|(name, _)| is_index_name(name))
                .ok_or("--index: expected NAME=URL, with letters, digits, `-`, `_` and `.` in the name")?;
            if indexes.iter().any(|other: &Index| other.name.as_deref() == Some(name)) {
                return Err(format!("--index: there are two addresses for `{name}`"));
            }
            indexes.push(checked("--index", Some(name), url, Priority::Extra)?);
        }
        for url in &self.extra_index_url {
            indexes.push(checked("--extra-index-url", None, url, Priority::Extra)?);
        }
        if let Some(url) = &self.index_url {
            indexes.push(checked("--index-url", None, url, Priority::Default)?);
        }
        Ok(indexes)
    }
}

fn is_index_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    !name.is_empty() && name.bytes().all(plain)
}

/// What builds are made with, on this host and on others.
#[derive(Debug, Clone, Args)]
pub struct MeansArgs {
    #[command(flatten)]
    #[expect(missing_docs, reason = "described by its type")]
    pub indexes: IndexArgs,

    #[command(flatten)]
    #[expect(missing_docs, reason = "described by its type")]
    pub engine: EngineArgs,

    /// Installer to use instead of the pinned uv
    #[arg(long, value_name = "PATH", env = "IPYBOX_UV", hide_env = true)]
    pub uv: Option<PathBuf>,

    /// Folder for what need not be asked or fetched twice [default: `~/.cache/ipybox`]
    #[arg(long, value_name = "DIR", env = "IPYBOX_CACHE_DIR", hide_env = true)]
    pub cache_dir: Option<PathBuf>,
}

impl ImageArgs {
    /// Takes from the environment what the arguments leave open, and tells what is wrong with either.
    pub(super) fn complete(&mut self) -> Result<(), String> {
        if self.dependencies.is_empty() {
            self.dependencies = words("IPYBOX_DEPENDENCIES").into_iter().map(PathBuf::from).collect();
        }
        if self.from_source.is_empty() {
            self.from_source = words("IPYBOX_FROM_SOURCE");
        }
        self.selection.complete();
        self.means.indexes.complete()?;
        from_source(&self.from_source)?;
        complete(&mut self.apt, "IPYBOX_APT", variant::package)?;
        complete(&mut self.build_apt, "IPYBOX_BUILD_APT", variant::package)?;
        complete(&mut self.env, "IPYBOX_ENV", env_setting)?;
        complete(&mut self.build_arg, "IPYBOX_BUILD_ARG", env_setting)?;
        complete(&mut self.label, "IPYBOX_LABEL", label_setting)?;
        complete(&mut self.secret, "IPYBOX_SECRET", secret_setting)?;
        for (number, (id, _)) in self.secret.iter().enumerate() {
            if self.secret[..number].iter().any(|(earlier, _)| earlier == id) {
                return Err(format!("--secret: there are two of the id `{id}`"));
            }
        }
        complete(&mut self.copy, "IPYBOX_COPY", copy_setting)
    }

    /// Takes out the build arguments that Docker knows by itself, which leave no trace.
    pub fn take_proxies(&mut self) -> Vec<(String, String)> {
        self.build_arg.extract_if(.., |(name, _)| PROXY_VARIABLES.contains(&name.as_str())).collect()
    }

    /// What is asked for, by somebody with these user and group ids.
    #[must_use]
    pub fn request(self, (uid, gid): (u32, u32)) -> Request {
        // Nobody wants images that run as root because they are built by root.
        let (uid, gid) = if uid == 0 { (1000, 1000) } else { (uid, gid) };
        let user = if self.root {
            User::Root
        } else {
            User::Unprivileged { uid: self.uid.unwrap_or(uid), gid: self.gid.unwrap_or(gid) }
        };
        let (base, base_files, base_registry) = match self.base {
            Some(BaseImage::Named(reference)) => (Some(reference), None, None),
            Some(BaseImage::InFiles(place)) => (None, Some(place), None),
            Some(BaseImage::InRegistry(reference)) => (None, None, Some(reference)),
            None => (None, None, None),
        };
        Request {
            variant: self.variant,
            variants: self.own.variants,
            templates: self.templates,
            dependencies: self.dependencies,
            selection: self.selection.selection(),
            lock: Locking { file: self.lock, is_demanded: self.locked, ..Locking::default() },
            base,
            base_is_local: false,
            base_files,
            base_registry,
            base_facts: self.base_facts,
            python: self.python,
            base_python: self.base_python,
            python_archive: self.python_archive,
            name: self.name,
            user,
            user_is_chosen: self.root || self.uid.is_some() || self.gid.is_some(),
            libraries: if self.apt.iter().any(|name| name == AUTO) {
                Libraries::Added
            } else {
                Libraries::Told
            },
            apt: self.apt.into_iter().filter(|name| name != AUTO).collect(),
            from_source: from_source(&self.from_source).unwrap_or(FromSource::Auto),
            build_apt: self.build_apt,
            tools: self.tools.map(|ToolsFor::Agent| Tools::Agent),
            env: self.env.into_iter().collect(),
            allow_secret_env: self.allow_secret_env,
            args: self.build_arg.into_iter().collect(),
            platform: self.platform,
            labels: self.label.into_iter().collect(),
            copies: self.copy,
            bytecode: !self.no_bytecode,
            secrets: self.secret.into_iter().collect(),
            installer: self.means.uv,
            indexes: self.means.indexes.indexes().unwrap_or_default(),
        }
    }
}

/// An image to build on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BaseImage {
    /// One that an engine has, or pulls.
    Named(Reference),
    /// One in files of this host.
    InFiles(Place),
    /// One that a registry has, and no engine is asked for.
    InRegistry(Reference),
}

/// What stands before the name of an image that a registry has.
///
/// Rule: containers-transports(5).
const REGISTRY: &str = "docker://";

impl FromStr for BaseImage {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let named = |text: &str| text.parse::<Reference>().map_err(|error| error.to_string());
        if let Some(name) = text.strip_prefix(REGISTRY) {
            return named(name).map(Self::InRegistry);
        }
        match Place::told(text) {
            Some(place) => place.map(Self::InFiles).map_err(|error| error.to_string()),
            None => named(text).map(Self::Named),
        }
    }
}

/// Who is to find programs in an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ToolsFor {
    /// What agents run first in a shell
    Agent,
}

/// Where variants are.
#[derive(Debug, Clone, Args)]
pub struct VariantsFolder {
    /// Folder of variants that replaces the shipped ones
    #[arg(long, value_name = "DIR", env = "IPYBOX_VARIANTS", hide_env = true)]
    pub variants: Option<PathBuf>,
}

/// What is asked for beside a project's own dependencies.
#[derive(Debug, Clone, Args)]
pub struct SelectionArgs {
    /// Dependency group of a pyproject.toml to add; may be repeated
    #[arg(long, value_name = "NAME")]
    pub group: Vec<String>,

    /// Optional dependencies of a pyproject.toml to add; may be repeated
    #[arg(long, value_name = "NAME")]
    pub extra: Vec<String>,
}

impl SelectionArgs {
    /// The same as plain data.
    #[must_use]
    pub fn selection(&self) -> Selection {
        Selection { groups: self.group.clone(), extras: self.extra.clone() }
    }

    /// Takes from the environment what the arguments leave open.
    pub(super) fn complete(&mut self) {
        for (names, variable) in [(&mut self.group, "IPYBOX_GROUP"), (&mut self.extra, "IPYBOX_EXTRA")] {
            if names.is_empty() {
                *names = words(variable);
            }
        }
    }
}

/// What `--from-source` means: one of its two words, or names of distributions.
fn from_source(words: &[String]) -> Result<FromSource, String> {
    match words {
        [] => Ok(FromSource::Auto),
        [word] if word == "auto" => Ok(FromSource::Auto),
        [word] if word == "never" => Ok(FromSource::Never),
        names => {
            let name = |word: &String| {
                let is_word = ["auto", "never"].contains(&word.as_str());
                let name = Name::parse(word).filter(|_| !is_word);
                name.ok_or_else(|| format!("--from-source: `{word}` is no name of a package"))
            };
            names.iter().map(name).collect::<Result<_, _>>().map(FromSource::Only)
        }
    }
}

fn setting(
    text: &str,
    check: impl Fn(&str) -> Result<(), &'static str>,
) -> Result<(String, String), &'static str> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    check(name)?;
    variant::value(value)?;
    Ok((name.to_owned(), value.to_owned()))
}

fn env_setting(text: &str) -> Result<(String, String), &'static str> {
    setting(text, variant::variable_name)
}

fn label_setting(text: &str) -> Result<(String, String), &'static str> {
    setting(text, variant::label_name)
}

/// Rule: Docker docs, "docker buildx build", `--secret`.
fn secret_setting(text: &str) -> Result<(String, SecretFrom), &'static str> {
    const EXPECTED: &str = "expected id=ID,src=FILE or id=ID,env=VARIABLE";
    let (mut id, mut from) = (None, None);
    for part in text.split(',') {
        let (key, value) = part.split_once('=').filter(|(_, value)| !value.is_empty()).ok_or(EXPECTED)?;
        let earlier = match key {
            "id" => id.replace(value.to_owned()).is_some(),
            "src" | "source" => from.replace(SecretFrom::File(value.into())).is_some(),
            "env" => from.replace(SecretFrom::Variable(value.to_owned())).is_some(),
            "type" => !["file", "env"].contains(&value),
            _ => true,
        };
        if earlier {
            return Err(EXPECTED);
        }
    }
    let id = id.ok_or(EXPECTED)?;
    variant::secret_id(&id)?;
    Ok((id, from.ok_or(EXPECTED)?))
}

fn lock_file(text: &str) -> Result<PathBuf, &'static str> {
    lock::file_name(text).map(|()| PathBuf::from(text))
}

fn copy_setting(text: &str) -> Result<(PathBuf, String), &'static str> {
    let (from, to) = text.rsplit_once(':').ok_or("expected SOURCE:DESTINATION")?;
    if from.is_empty() {
        return Err("expected SOURCE:DESTINATION");
    }
    variant::destination(to)?;
    Ok((from.into(), to.to_owned()))
}

/// Takes from the environment what the arguments leave open: words with white space between them.
fn complete<T>(
    values: &mut Vec<T>,
    name: &str,
    read: impl Fn(&str) -> Result<T, &'static str>,
) -> Result<(), String> {
    if values.is_empty() {
        let word = |word: &String| read(word).map_err(|why| format!("{name}: `{word}`: {why}"));
        *values = words(name).iter().map(word).collect::<Result<_, _>>()?;
    }
    Ok(())
}
