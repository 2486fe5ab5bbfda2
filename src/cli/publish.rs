//! What can be said to `ipybox publish`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Args};

use super::BuildArgs;
use super::build::{LISTS_OF_EVERY, OF_EVERY};
use crate::publish::Shard;
use crate::reference::Reference;

/// Options of a build that mean nothing here: each image is verified, and looked at.
const MEANINGLESS: [&str; 2] = ["check", "verify"];

/// Options that are no build's.
const OWN: [&str; 11] = [
    "registry",
    "no_verify",
    "unattested",
    "record",
    "manifest_dir",
    "shard",
    "merge",
    "print_matrix",
    "print_bake",
    "signer",
    "signer_arg",
];

/// Arguments of `ipybox publish`.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub struct PublishArgs {
    /// What is built, and how; its `force` is that of tags.
    #[command(flatten)]
    pub build: BuildArgs,

    /// Where the images go, as HOST/PATH: `NAME` to HOST/PATH/NAME [default: their repositories in `ipybox.toml`]
    #[arg(long, value_name = "HOST/PATH", value_parser = place, env = "IPYBOX_REGISTRY", hide_env = true)]
    pub registry: Option<String>,

    /// Push without proving first that the images run
    #[arg(long, value_parser = BoolishValueParser::new(), env = "IPYBOX_NO_VERIFY", hide_env = true)]
    pub no_verify: bool,

    /// Say nothing about the images in the registry: neither what is inside, nor how they were built
    #[arg(long, value_parser = BoolishValueParser::new(), env = "IPYBOX_UNATTESTED", hide_env = true)]
    pub unattested: bool,

    /// Program that signs what is pushed, as `docs/trust.md` describes it
    #[arg(long, value_name = "TOOL", env = "IPYBOX_SIGNER", hide_env = true)]
    pub signer: Option<OsString>,

    /// Argument for the signer; may be repeated
    #[arg(long, value_name = "ARG", requires = "signer", allow_hyphen_values = true)]
    pub signer_arg: Vec<OsString>,

    /// Write what was published to this file, as JSON [default: `publish.json`]
    #[arg(long, value_name = "FILE", default_value = "publish.json", hide_default_value = true)]
    pub record: PathBuf,

    /// Write a page for each image into this folder, in Markdown
    #[arg(long, value_name = "DIR")]
    pub manifest_dir: Option<PathBuf>,

    /// Build and push a part of the fleet, and leave the tags to `--merge`; several machines do a part each
    #[arg(long, value_name = "I/N", conflicts_with = "merge")]
    pub shard: Option<Shard>,

    /// Build nothing: put together what `--shard` of all machines has pushed, and move the tags
    #[arg(long, conflicts_with = "dry_run")]
    pub merge: bool,

    /// Print the images as a matrix for jobs of a pipeline, as JSON, and do nothing else
    #[arg(long)]
    pub print_matrix: bool,

    /// Write the images as a bake file into this new folder, with a context for each, and do nothing else: any cluster of
    /// `BuildKit` builds them from it
    #[arg(long, value_name = "DIR", conflicts_with_all = ["merge", "dry_run", "print_matrix"])]
    pub print_bake: Option<PathBuf>,
}

impl PublishArgs {
    /// Finds out what was said that describes one image, and what is meant by words that builds know as well.
    pub(super) fn look(&mut self, matches: &ArgMatches) {
        self.build.look(matches, &OWN);
        self.build.of_one.extend(
            MEANINGLESS
                .iter()
                .filter(|id| matches.value_source(id) == Some(ValueSource::CommandLine))
                .map(|id| format!("--{id}")),
        );
        (self.build.check, self.build.verify) = (false, false);
        // A variable that is there for builds moves nobody's tags.
        self.build.force &= matches.value_source("force") == Some(ValueSource::CommandLine);
    }
}

/// An option of a build as this command shows it.
pub(super) fn shown(option: Arg) -> Arg {
    let id = option.get_id().to_string();
    let id = id.as_str();
    match id {
        "names" => {
            option.help("Images of the fleet to publish, with what they are built on [default: all of them]")
        }
        "file" => option.help("File of the fleet [default: `ipybox.toml`]"),
        "force" => option.help("Move tags also where somebody else has moved them meanwhile"),
        "dry_run" => {
            option.help("Print what is to be built and why, and which tags would move; change nothing")
        }
        _ if OWN.contains(&id) => option,
        _ if OF_EVERY.contains(&id) && !MEANINGLESS.contains(&id) || LISTS_OF_EVERY.contains(&id) => option,
        _ => option.hide(true),
    }
}

/// A registry, and perhaps the beginning of the names there.
fn place(text: &str) -> Result<String, String> {
    let place = text.trim_end_matches('/');
    let named: Reference = format!("{place}/x").parse().map_err(|error| format!("{error}"))?;
    match named.registry() {
        Some(_) if named.tag() == Some("latest") && !place.contains('@') => Ok(place.to_owned()),
        _ => {
            Err("a registry begins with its host, such as `registry.example/team` or `localhost:5000`"
                .to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_begins_with_a_host() {
        for text in ["registry.example/team", "localhost:5000", "localhost/a/b/"] {
            assert_eq!(place(text).unwrap(), text.trim_end_matches('/'));
        }
        for text in ["", "team", "team/x", "registry.example/UPPER", "https://registry.example"] {
            assert!(place(text).is_err(), "{text}");
        }
    }
}
