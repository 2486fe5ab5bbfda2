//! What can be said to `ipybox cache`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::values::size;

/// Arguments of `ipybox cache`.
#[derive(Debug, Args)]
pub struct CacheArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: CacheCommand,
}

/// A subcommand of `ipybox cache`.
#[derive(Debug, Subcommand)]
pub enum CacheCommand {
    /// Tell what is kept on this host for layers that no step makes
    Info(CacheInfoArgs),
    /// Read all of it, and forget what is not what it was
    Verify(CacheVerifyArgs),
    /// Forget what was not used for longest
    Prune(CachePruneArgs),
}

/// Where the cache is.
#[derive(Debug, Args)]
pub struct CacheFolder {
    /// Folder for what need not be asked or fetched twice [default: `~/.cache/ipybox`]
    #[arg(long, value_name = "DIR", env = "IPYBOX_CACHE_DIR", hide_env = true)]
    pub cache_dir: Option<PathBuf>,
}

/// Arguments of `ipybox cache info`.
#[derive(Debug, Args)]
pub struct CacheInfoArgs {
    #[command(flatten)]
    #[expect(missing_docs, reason = "described by its type")]
    pub folder: CacheFolder,

    /// Print it as JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `ipybox cache verify`.
#[derive(Debug, Args)]
pub struct CacheVerifyArgs {
    #[command(flatten)]
    #[expect(missing_docs, reason = "described by its type")]
    pub folder: CacheFolder,
}

/// Arguments of `ipybox cache prune`.
#[derive(Debug, Args)]
pub struct CachePruneArgs {
    #[command(flatten)]
    #[expect(missing_docs, reason = "described by its type")]
    pub folder: CacheFolder,

    /// Keep so much of what was used last
    #[arg(long, value_name = "SIZE", default_value = "0", value_parser = size)]
    pub keep: u64,
}
