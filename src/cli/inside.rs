//! What can be said to `ipybox inspect`, `why` and `diff`.

use clap::{Args, ValueEnum};

use super::EngineArgs;

/// Arguments of `ipybox inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// A local image: a name or an id
    pub image: String,

    /// What to print
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub format: BillFormat,

    /// Print everything as JSON; the same as `--format json`
    #[arg(long, conflicts_with = "format")]
    pub json: bool,

    #[command(flatten)]
    #[expect(missing_docs, reason = "described by its type")]
    pub engine: EngineArgs,
}

/// What `ipybox inspect` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum BillFormat {
    /// A table, the largest packages first
    #[default]
    Text,
    /// Everything that is known, as JSON
    Json,
    /// A bill of materials of `CycloneDX` 1.6, as JSON
    Cyclonedx,
    /// A bill of materials of SPDX 2.3, as JSON
    Spdx,
}

/// Arguments of `ipybox why`.
#[derive(Debug, Args)]
pub struct WhyArgs {
    /// A local image: a name or an id
    pub image: String,

    /// The package
    pub package: String,

    /// Print the ways to it as JSON
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    #[expect(missing_docs, reason = "described by its type")]
    pub engine: EngineArgs,
}

/// Arguments of `ipybox diff`.
#[derive(Debug, Args)]
pub struct DiffArgs {
    /// The earlier image: a name or an id
    pub earlier: String,

    /// The later one
    pub later: String,

    /// Print what differs as JSON
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    #[expect(missing_docs, reason = "described by its type")]
    pub engine: EngineArgs,
}
