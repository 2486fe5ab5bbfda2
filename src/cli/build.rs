//! What can be said to `ipybox build` and `ipybox lock`.

use std::num::NonZero;
use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, ValueEnum};

use super::environment::{variable, words};
use super::output::Output;
use super::values::{image_name, package_name, size};
use super::{DEFAULT_TAG, ImageArgs, SharingArgs};
use crate::reference::Reference;
use crate::report::Progress;

/// What makes an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum BuilderChoice {
    /// Layers where there is a lock and nothing stands in the way, else the engine's builder.
    #[default]
    Auto,
    /// The engine's builder.
    Buildkit,
    /// Layers that no step makes.
    Direct,
}

/// Arguments of `ipybox build`.
#[derive(Debug, Clone, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub struct BuildArgs {
    /// Images of the fleet in `ipybox.toml` to build, with what they are built on [default: all of them, where no option
    /// describes an image]
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,

    /// File of the fleet [default: `ipybox.toml`, where this folder has it and no option describes an image]
    #[arg(short, long, value_name = "FILE", env = "IPYBOX_FILE", hide_env = true)]
    pub file: Option<PathBuf>,

    /// Images of a fleet that are built side by side, at most
    #[arg(short, long, value_name = "COUNT", default_value = "2", env = "IPYBOX_JOBS", hide_env = true)]
    pub jobs: NonZero<u16>,

    /// Stop at the first image of a fleet that cannot be built, instead of building all that do not need it
    #[arg(long, value_parser = BoolishValueParser::new(), env = "IPYBOX_FAIL_FAST", hide_env = true)]
    pub fail_fast: bool,

    /// What was said that describes one image, by its option or variable.
    #[arg(skip)]
    pub of_one: Vec<String>,

    /// Name of the image, as NAME[:TAG]; may be repeated [default: ghcr.io/gradion-ai/ipybox]
    #[arg(short, long, value_parser = image_name)]
    pub tag: Vec<Reference>,

    #[command(flatten)]
    #[expect(missing_docs, reason = "described by its type")]
    pub image: ImageArgs,

    /// Build also where the image under the tag is what is asked for
    #[arg(long, value_parser = BoolishValueParser::new(), env = "IPYBOX_FORCE", hide_env = true)]
    pub force: bool,

    /// Only tell whether the image under the tag is what is asked for, and if not, why; exit code 3 if it is not
    #[arg(long, value_parser = BoolishValueParser::new(), env = "IPYBOX_CHECK", hide_env = true)]
    pub check: bool,

    /// Do every step again, and download every package
    #[arg(long, value_parser = BoolishValueParser::new(), env = "IPYBOX_NO_CACHE", hide_env = true)]
    pub no_cache: bool,

    /// Prove that the image runs its clients' code before it gets its name; see `ipybox verify`
    #[arg(long, value_parser = BoolishValueParser::new(), env = "IPYBOX_VERIFY", hide_env = true)]
    pub verify: bool,

    /// Give the image the time of `SOURCE_DATE_EPOCH` instead of now, so that equal layers make an equal image id
    /// [default time: 1980-01-01]
    #[arg(long, value_parser = BoolishValueParser::new(), env = "IPYBOX_REPRODUCIBLE", hide_env = true)]
    pub reproducible: bool,

    /// Refuse an image that is larger than this, such as 800MB or 2GB, before any tag moves
    #[arg(long, value_name = "SIZE", value_parser = size, env = "IPYBOX_MAX_SIZE", hide_env = true)]
    pub max_size: Option<u64>,

    /// Look for a newer base first
    #[arg(
        long,
        value_parser = BoolishValueParser::new(),
        env = "IPYBOX_PULL",
        hide_env = true,
        conflicts_with = "base_facts"
    )]
    pub pull: bool,

    #[command(flatten)]
    #[expect(missing_docs, reason = "described by its type")]
    pub steps: StepsArgs,

    /// What makes the image: `direct` puts the wheels of a lock on a foundation as layers, without a step; `buildkit` is the
    /// engine's builder; `auto` is `direct` where there is a lock and nothing stands in the way
    #[arg(long, value_enum, default_value_t, env = "IPYBOX_BUILDER", hide_env = true)]
    pub builder: BuilderChoice,

    /// Write the image to a file or folder, as `type=oci,dest=FILE.tar`, `type=oci,dest=DIR/` or `type=docker,dest=FILE.tar`;
    /// may be repeated. Without `--tag` nothing in the engine gets a name
    #[arg(short, long, value_name = "OUTPUT")]
    pub output: Vec<Output>,

    /// Push the image under its names, with the credentials of Docker's and podman's files, before any tag moves in the engine
    #[arg(long, value_parser = BoolishValueParser::new(), env = "IPYBOX_PUSH", hide_env = true)]
    pub push: bool,

    #[command(flatten)]
    #[expect(missing_docs, reason = "described by its type")]
    pub sharing: SharingArgs,

    /// How to tell what is going on
    #[arg(long, value_enum, default_value_t, env = "IPYBOX_PROGRESS", hide_env = true)]
    pub progress: Progress,

    /// Write the image's id to this file
    #[arg(long, value_name = "FILE", env = "IPYBOX_IIDFILE", hide_env = true)]
    pub iidfile: Option<PathBuf>,

    /// Write what is known of the image to this file, as JSON: id, tags, base, sizes of its layers, times
    #[arg(long, value_name = "FILE", env = "IPYBOX_METADATA_FILE", hide_env = true)]
    pub metadata_file: Option<PathBuf>,

    /// Print what would be pulled, built and tagged, and change nothing
    #[arg(long, value_parser = BoolishValueParser::new(), env = "IPYBOX_DRY_RUN", hide_env = true)]
    pub dry_run: bool,
}

/// Options of `ipybox build` that hold for every image of a fleet.
pub(super) const OF_EVERY: [&str; 27] = [
    "names",
    "file",
    "jobs",
    "fail_fast",
    "force",
    "check",
    "no_cache",
    "verify",
    "reproducible",
    "max_size",
    "pull",
    "ca_cert",
    "network",
    "builder",
    "progress",
    "dry_run",
    "host",
    "context",
    "uv",
    "cache_dir",
    "cache_to",
    "index_url",
    "paranoid",
    "locked",
    "platform",
    "message_format",
    // Lists, of which the environment is asked elsewhere: proxies alone are taken of these.
    "build_arg",
];

/// Lists that hold for every image of a fleet.
pub(super) const LISTS_OF_EVERY: [&str; 4] = ["extra_index_url", "index", "secret", "cache_from"];

/// Lists that describe one image, and come from the environment without clap.
const LISTS_OF_ONE: [&str; 11] = [
    "tag",
    "output",
    "dependencies",
    "group",
    "extra",
    "apt",
    "from_source",
    "build_apt",
    "env",
    "label",
    "copy",
];

impl BuildArgs {
    /// Finds out what was said that describes one image. Options of the command that are no build's do not.
    pub(super) fn look(&mut self, matches: &ArgMatches, others: &[&str]) {
        let variable_of = |id: &str| format!("IPYBOX_{}", id.to_uppercase());
        let describes = |id: &&str| {
            // Groups are called as their types are.
            id.starts_with(|first: char| first.is_ascii_lowercase())
                && !OF_EVERY.contains(id)
                && !LISTS_OF_EVERY.contains(id)
                && !others.contains(id)
        };
        // A switch that a variable turns off says nothing.
        let is_off = |id: &str| matches.try_get_one(id).is_ok_and(|on| on == Some(&false));
        for id in matches.ids().map(clap::Id::as_str).filter(describes).filter(|id| !is_off(id)) {
            match matches.value_source(id) {
                Some(ValueSource::CommandLine) => self.of_one.push(format!("--{}", id.replace('_', "-"))),
                Some(ValueSource::EnvVariable) => self.of_one.push(variable_of(id)),
                _ => {}
            }
        }
        let named = LISTS_OF_ONE.map(variable_of).into_iter().filter(|name| variable(name).is_some());
        self.of_one.extend(named);
        // Where fleets are does not make one of an image.
        let is_typed = matches.value_source("file") == Some(ValueSource::CommandLine);
        if !is_typed && self.names.is_empty() && !self.of_one.is_empty() {
            self.file = None;
        }
    }

    /// Fills in what the environment says where no argument does, and the name that an image has without either.
    pub(super) fn complete(&mut self) -> Result<(), String> {
        if self.output.is_empty() {
            self.output = words("IPYBOX_OUTPUT").iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
        }
        if self.tag.is_empty() {
            self.tag = words("IPYBOX_TAG").iter().map(|name| image_name(name)).collect::<Result<_, _>>()?;
        }
        if self.tag.is_empty() && self.output.is_empty() {
            self.tag.push(image_name(DEFAULT_TAG)?);
        }
        self.sharing.complete()
    }
}

/// What build steps get from this host.
#[derive(Debug, Clone, Args)]
pub struct StepsArgs {
    /// Certificates that build steps trust beside the host's [default: those of `SSL_CERT_FILE`]
    #[arg(long, value_name = "FILE", env = "IPYBOX_CA_CERT", hide_env = true)]
    pub ca_cert: Option<PathBuf>,

    /// Network that build steps use [default: the engine's own]
    #[arg(long, value_enum, value_name = "NETWORK", env = "IPYBOX_NETWORK", hide_env = true)]
    pub network: Option<Network>,
}

/// Arguments of `ipybox lock`.
#[derive(Debug, Args)]
pub struct LockArgs {
    #[command(flatten)]
    #[expect(missing_docs, reason = "described by its type")]
    pub image: ImageArgs,

    /// Take the newest versions that will do, whatever is locked
    #[arg(long)]
    pub upgrade: bool,

    /// Take the newest version of this package that will do; may be repeated
    #[arg(long, value_name = "NAME", value_parser = package_name)]
    pub upgrade_package: Vec<String>,

    /// Take nothing that its index got after this date, such as `2026-01-31` or `2026-01-31T12:00:00Z`; kept until another
    /// is given, or `--upgrade`
    #[arg(long, value_name = "DATE")]
    pub exclude_newer: Option<String>,

    /// Begin with the versions of this lock of another tool: `pylock.toml`, `uv.lock` or `poetry.lock`
    #[arg(long, value_name = "FILE")]
    pub from: Option<PathBuf>,

    /// Only tell whether the lock is what the list asks for, and if not, why; exit code 3 if it is not
    #[arg(long, conflicts_with_all = ["upgrade", "upgrade_package", "exclude_newer", "from"])]
    pub check: bool,

    /// Print what changed as JSON
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    #[expect(missing_docs, reason = "described by its type")]
    pub steps: StepsArgs,
}

/// The network of build steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Network {
    /// One of the engine's, behind its address translation
    Default,
    /// That of the engine's host
    Host,
    /// None at all
    None,
}

impl Network {
    /// As engines call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Host => "host",
            Self::None => "none",
        }
    }
}
