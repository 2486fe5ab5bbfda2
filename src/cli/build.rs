//! What can be said to `ipybox build` and `ipybox lock`.

use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::{Args, ValueEnum};

use super::ImageArgs;
use super::values::{image_name, package_name, size};
use crate::reference::Reference;
use crate::report::Progress;

/// Arguments of `ipybox build`.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub struct BuildArgs {
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

/// What build steps get from this host.
#[derive(Debug, Args)]
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
