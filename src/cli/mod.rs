//! Says what can be typed; decides nothing, opens nothing.

mod environment;

use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

use crate::accounts::User;
use crate::deps::Selection;
use crate::reference::{Reference, ReferenceError};
use crate::report::MessageFormat;
use crate::request::{PythonVersion, Request};
use crate::variant::{self, executor_name};

pub use environment::{Environment, variable_of_list};
use environment::{variable, words};

/// The tag of ipybox 0.6, for scripts that name none.
const DEFAULT_TAG: &str = "ghcr.io/gradion-ai/ipybox";

/// The command line.
#[derive(Debug, Parser)]
#[command(
    name = "ipybox",
    version,
    about = "Build the container images in which AI agents run code",
    long_about = "Build the container images in which AI agents run code.\n\n\
        A dependency list goes in, a tagged image comes out: a Jupyter kernel gateway on port 8888, your \
        packages in /opt/venv, an unprivileged user, and no secret, proxy or certificate left behind.",
    after_help = "Begin with:\n  \
        echo 'numpy = \"^2.2\"' > dependencies.txt\n  \
        ipybox build -t sandbox -d dependencies.txt\n  \
        docker run --rm -p 127.0.0.1:8888:8888 sandbox\n\n\
        Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 75 engine, registry or index\n\
        unreachable (worth a retry), 128 plus the signal (130, 143) interrupted.",
    max_term_width = 100
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,

    /// How mistakes are told: for people, as JSON, or as annotations of a GitHub workflow
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "FORMAT",
        env = "IPYBOX_MESSAGE_FORMAT",
        hide_env = true
    )]
    pub message_format: MessageFormat,
}

impl Cli {
    /// Reads the arguments of this process, and from the environment what they leave open. Where they
    /// are wrong, says so and ends the process.
    #[must_use]
    pub fn read() -> Self {
        let mut cli = Self::parse();
        let refuse = |kind, message: String| -> ! { Self::command().error(kind, message).exit() };
        if let Command::Build(args) = &mut cli.command
            && args.tag.is_empty()
        {
            let names = variable("IPYBOX_TAG").and_then(|names| names.into_string().ok());
            let names = names.as_deref().unwrap_or(DEFAULT_TAG).split_whitespace();
            args.tag = names
                .map(|name| image_name(name).unwrap_or_else(|why| refuse(ErrorKind::ValueValidation, why)))
                .collect();
        }
        if let Some(image) = cli.command.image_mut() {
            if image.dependencies.is_empty() {
                image.dependencies = words("IPYBOX_DEPENDENCIES").into_iter().map(PathBuf::from).collect();
            }
            complete(&mut image.apt, "IPYBOX_APT", variant::package)
                .and_then(|()| complete(&mut image.env, "IPYBOX_ENV", env_setting))
                .and_then(|()| complete(&mut image.label, "IPYBOX_LABEL", label_setting))
                .and_then(|()| complete(&mut image.copy, "IPYBOX_COPY", copy_setting))
                .unwrap_or_else(|why| refuse(ErrorKind::ValueValidation, why));
            image.selection.complete();
        }
        if let Command::Deps(args) = &mut cli.command {
            args.selection.complete();
        }
        if let Some(image) = cli.command.image()
            && image.root
            && (image.uid.is_some() || image.gid.is_some())
        {
            refuse(ErrorKind::ArgumentConflict, "--root cannot be used with --uid or --gid".to_owned());
        }
        cli
    }
}

/// A subcommand.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Build an image from a dependency list, and tag it
    #[command(after_help = "Examples:\n  \
        ipybox build -t sandbox                          the variant minimal, with its own list\n  \
        ipybox build -t sandbox -d dependencies.txt      your packages\n  \
        ipybox build -t science -V basic --python 3.13   another variant, another Python\n  \
        ipybox build -t skills-executor-vision -V any-base --base cuda-image --name vision\n  \
        ipybox build -t more -V extend-base --base skills-executor-vision --name more -d more.txt\n\n\
        The image id goes to stdout, everything else to stderr. A tag moves only after the new\n\
        image is complete. Every option can come from the environment: --base from IPYBOX_BASE,\n\
        --no-cache from IPYBOX_NO_CACHE (0 or 1), --apt from IPYBOX_APT, where white space separates\n\
        several, and so on.")]
    Build(BuildArgs),
    /// Print everything that decides an image, as JSON
    #[command(
        after_help = "The facts of the base can be saved and given back, to plan and render without an engine:\n  \
        ipybox plan --facts > base.json\n  \
        ipybox plan --base-facts base.json"
    )]
    Plan(PlanArgs),
    /// Print the Dockerfile, or write out the whole build context
    #[command(after_help = "The first comment of the Dockerfile is the command that builds the folder:\n  \
        ipybox render -d dependencies.txt --out context\n  \
        head -1 context/Dockerfile")]
    Render(RenderArgs),
    /// Read dependency lists, and print what they mean
    #[command(after_help = "Examples:\n  \
        ipybox deps dependencies.txt                 as PEP 508 requirements\n  \
        ipybox deps pyproject.toml --group dev       with a dependency group\n  \
        ipybox deps --fix dependencies.txt           mend what has one right answer\n\n\
        As a pre-commit hook: ipybox deps --check FILE...")]
    Deps(DepsArgs),
    /// Start an image, and prove that it runs what its clients will ask of it
    #[command(after_help = "Examples:\n  \
        ipybox verify sandbox                 as the variant its label names\n  \
        ipybox verify sandbox -V kernel       as another, such as an image that was built elsewhere\n  \
        ipybox verify sandbox --json          for programs\n\n\
        Containers are started as the clients of ipybox and smolagents start them, and removed at the\n\
        end. Exit code 1 if a check fails. `ipybox build --verify` does this before a tag moves.")]
    Verify(VerifyArgs),
    /// List the variants, or show one
    Variants(VariantsArgs),
}

impl Command {
    fn image_mut(&mut self) -> Option<&mut ImageArgs> {
        match self {
            Self::Build(args) => Some(&mut args.image),
            Self::Plan(args) => Some(&mut args.image),
            Self::Render(args) => Some(&mut args.image),
            Self::Deps(_) | Self::Verify(_) | Self::Variants(_) => None,
        }
    }

    fn image(&self) -> Option<&ImageArgs> {
        match self {
            Self::Build(args) => Some(&args.image),
            Self::Plan(args) => Some(&args.image),
            Self::Render(args) => Some(&args.image),
            Self::Deps(_) | Self::Verify(_) | Self::Variants(_) => None,
        }
    }
}

/// What an image is made from; the same for every command that makes a plan.
#[derive(Debug, Args)]
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
    #[arg(long, value_name = "IMAGE", env = "IPYBOX_BASE", hide_env = true)]
    pub base: Option<Reference>,

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

    /// Debian package to install; may be repeated
    #[arg(long, value_name = "PACKAGE", value_parser = variant::package)]
    pub apt: Vec<String>,

    /// Variable of the image's environment, as NAME=VALUE; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = env_setting)]
    pub env: Vec<(String, String)>,

    /// Let `--env` and variants set variables whose names look like those of secrets
    #[arg(long, value_parser = BoolishValueParser::new(), env = "IPYBOX_ALLOW_SECRET_ENV", hide_env = true)]
    pub allow_secret_env: bool,

    /// Label of the image, as NAME=VALUE; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = label_setting)]
    pub label: Vec<(String, String)>,

    /// File or folder to copy into the image, as SOURCE:DESTINATION; may be repeated
    ///
    /// The destination is an absolute path; one that ends in `/` is a folder. A folder's content is laid over what is
    /// there. What goes below /app or the user's home belongs to the image's user, everything else to root.
    #[arg(long, value_name = "SRC:DST", value_parser = copy_setting)]
    pub copy: Vec<(PathBuf, String)>,

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

    /// Installer to use instead of the pinned uv
    #[arg(long, value_name = "PATH", env = "IPYBOX_UV", hide_env = true)]
    pub uv: Option<PathBuf>,

    /// Folder that replaces the shipped templates
    #[arg(long, value_name = "DIR", env = "IPYBOX_TEMPLATES", hide_env = true)]
    pub templates: Option<PathBuf>,

    #[command(flatten)]
    #[expect(missing_docs, reason = "described by its type")]
    pub own: VariantsFolder,

    #[command(flatten)]
    #[expect(missing_docs, reason = "described by its type")]
    pub engine: EngineArgs,

    /// Folder for what need not be asked or fetched twice [default: `~/.cache/ipybox`]
    #[arg(long, value_name = "DIR", env = "IPYBOX_CACHE_DIR", hide_env = true)]
    pub cache_dir: Option<PathBuf>,
}

impl ImageArgs {
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
        Request {
            variant: self.variant,
            variants: self.own.variants,
            templates: self.templates,
            dependencies: self.dependencies,
            selection: self.selection.selection(),
            base: self.base,
            base_facts: self.base_facts,
            python: self.python,
            base_python: self.base_python,
            python_archive: self.python_archive,
            name: self.name,
            user,
            user_is_chosen: self.root || self.uid.is_some() || self.gid.is_some(),
            apt: self.apt,
            env: self.env.into_iter().collect(),
            allow_secret_env: self.allow_secret_env,
            labels: self.label.into_iter().collect(),
            copies: self.copy,
            bytecode: !self.no_bytecode,
            installer: self.uv,
        }
    }
}

/// Arguments of `ipybox plan`.
#[derive(Debug, Args)]
pub struct PlanArgs {
    #[command(flatten)]
    #[expect(missing_docs, reason = "described by its type")]
    pub image: ImageArgs,

    /// Print what is known of the base instead, for --base-facts
    #[arg(long)]
    pub facts: bool,
}

/// Which engine is used.
#[derive(Debug, Args)]
pub struct EngineArgs {
    /// Engine to use; only unix sockets yet
    #[arg(long, value_name = "HOST", env = "DOCKER_HOST", default_value = "", hide_default_value = true)]
    pub host: String,
}

/// Where variants are.
#[derive(Debug, Args)]
pub struct VariantsFolder {
    /// Folder of variants that replaces the shipped ones
    #[arg(long, value_name = "DIR", env = "IPYBOX_VARIANTS", hide_env = true)]
    pub variants: Option<PathBuf>,
}

/// What is asked for beside a project's own dependencies.
#[derive(Debug, Args)]
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
    fn complete(&mut self) {
        for (names, variable) in [(&mut self.group, "IPYBOX_GROUP"), (&mut self.extra, "IPYBOX_EXTRA")] {
            if names.is_empty() {
                *names = words(variable);
            }
        }
    }
}

/// Arguments of `ipybox deps`.
#[derive(Debug, Args)]
pub struct DepsArgs {
    /// Dependency lists; `-` is standard input
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,

    /// What to print
    #[arg(long, value_enum, default_value_t)]
    pub format: DepsFormat,

    #[command(flatten)]
    #[expect(missing_docs, reason = "described by its type")]
    pub selection: SelectionArgs,

    /// Print only mistakes; exit with 3 if `--fix` could mend all of them, with 1 if it could not
    #[arg(long, conflicts_with = "format")]
    pub check: bool,

    /// Write corrections with one surely right answer into the files
    #[arg(long, conflicts_with_all = ["format", "check"])]
    pub fix: bool,
}

/// What `ipybox deps` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum DepsFormat {
    /// A PEP 508 requirement per line; alternatives with `||` between them
    #[default]
    Pep508,
    /// Everything that was read, as JSON
    Json,
    /// A requirements file for pip
    Requirements,
}

/// Arguments of `ipybox build`.
#[derive(Debug, Args)]
pub struct BuildArgs {
    /// Name of the image, as NAME[:TAG]; may be repeated [default: ghcr.io/gradion-ai/ipybox]
    #[arg(short, long, value_parser = image_name)]
    pub tag: Vec<Reference>,

    #[command(flatten)]
    #[expect(missing_docs, reason = "described by its type")]
    pub image: ImageArgs,

    /// Do every step again, and download every package
    #[arg(long, value_parser = BoolishValueParser::new(), env = "IPYBOX_NO_CACHE", hide_env = true)]
    pub no_cache: bool,

    /// Prove that the image runs its clients' code before it gets its name; see `ipybox verify`
    #[arg(long, value_parser = BoolishValueParser::new(), env = "IPYBOX_VERIFY", hide_env = true)]
    pub verify: bool,

    /// Look for a newer base first
    #[arg(
        long,
        value_parser = BoolishValueParser::new(),
        env = "IPYBOX_PULL",
        hide_env = true,
        conflicts_with = "base_facts"
    )]
    pub pull: bool,

    /// Certificates that build steps trust beside the host's [default: those of `SSL_CERT_FILE`]
    #[arg(long, value_name = "FILE", env = "IPYBOX_CA_CERT", hide_env = true)]
    pub ca_cert: Option<PathBuf>,

    /// How to tell what is going on
    #[arg(long, value_enum, default_value_t, env = "IPYBOX_PROGRESS", hide_env = true)]
    pub progress: Progress,
}

/// Arguments of `ipybox render`.
#[derive(Debug, Args)]
pub struct RenderArgs {
    #[command(flatten)]
    #[expect(missing_docs, reason = "described by its type")]
    pub image: ImageArgs,

    /// Write the whole build context into this folder, which must be new or empty
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,

    /// Write the whole build context as a tar file; `-` is stdout
    #[arg(long, value_name = "FILE", conflicts_with = "out")]
    pub tar: Option<PathBuf>,
}

/// Arguments of `ipybox verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// A local image: a name or an id
    pub image: String,

    /// What it should be [default: what its label says, else minimal]
    #[arg(short = 'V', long, value_name = "NAME")]
    pub variant: Option<String>,

    #[command(flatten)]
    #[expect(missing_docs, reason = "described by its type")]
    pub own: VariantsFolder,

    /// Print the checks as JSON
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    #[expect(missing_docs, reason = "described by its type")]
    pub engine: EngineArgs,
}

/// Arguments of `ipybox variants`.
#[derive(Debug, Args)]
pub struct VariantsArgs {
    /// Show this one
    pub name: Option<String>,

    /// Print the JSON schema of `variant.toml`, for editors
    #[arg(long, conflicts_with_all = ["name", "variants"])]
    pub schema: bool,

    #[command(flatten)]
    #[expect(missing_docs, reason = "described by its type")]
    pub own: VariantsFolder,
}

/// How to tell what is going on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Progress {
    /// Whatever suits stderr; always plain yet
    #[default]
    Auto,
    /// A line for each step, and for each line it prints
    Plain,
    /// Nothing but mistakes and the result
    Quiet,
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

fn copy_setting(text: &str) -> Result<(PathBuf, String), &'static str> {
    let (from, to) = text.rsplit_once(':').ok_or("expected SOURCE:DESTINATION")?;
    if from.is_empty() {
        return Err("expected SOURCE:DESTINATION");
    }
    variant::destination(to)?;
    Ok((from.into(), to.to_owned()))
}

/// A name that an image can be given.
fn image_name(text: &str) -> Result<Reference, String> {
    let reference: Reference = text.parse().map_err(|error: ReferenceError| error.to_string())?;
    match reference.digest() {
        Some(_) => Err("an image gets its digest from what is in it; give a name and a tag".to_owned()),
        None if reference.looks_like_an_id() => {
            Err("Docker would take this name for the id of an image; give another".to_owned())
        }
        None => Ok(reference),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
