//! Says what can be typed; decides nothing, opens nothing.

mod build;
mod cache;
mod compose;
mod environment;
mod image;
mod inside;
mod output;
mod publish;
mod sandbox;
mod sharing;
mod values;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::reference::Reference;
use crate::report::MessageFormat;

pub use build::{BuildArgs, BuilderChoice, LockArgs, Network, StepsArgs};
pub use cache::{CacheArgs, CacheCommand, CacheFolder, CacheInfoArgs, CachePruneArgs, CacheVerifyArgs};
pub use compose::{ComposeArgs, ComposeFormat};
pub use environment::{Environment, variable_of_list};
pub use image::{BaseImage, ImageArgs, IndexArgs, MeansArgs, SelectionArgs, ToolsFor, VariantsFolder};
pub use inside::{BillFormat, DiffArgs, InspectArgs, WhyArgs};
pub use output::{Output, OutputForm};
pub use publish::PublishArgs;
pub use sandbox::{
    CleanupArgs, CopyArgs, DownArgs, ExecArgs, GcArgs, Gift, ImagesArgs, ListArgs, LogsArgs, MountArg,
    OwnerArgs, PruneArgs, SandboxArgs, SandboxCommand, SomeArgs, UpArgs,
};
pub use sharing::SharingArgs;

/// The tag of ipybox 0.6, for scripts that name none.
pub(crate) const DEFAULT_TAG: &str = "ghcr.io/gradion-ai/ipybox";

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
        let matches = Self::command().get_matches();
        let mut cli = Self::from_arg_matches(&matches)
            .unwrap_or_else(|error| error.format(&mut Self::command()).exit());
        let refuse = |kind, message: String| -> ! { Self::command().error(kind, message).exit() };
        if let Command::Build(args) = &mut cli.command {
            args.look(matches.subcommand_matches("build").expect("this is the command"), &[]);
            args.complete().unwrap_or_else(|why| refuse(ErrorKind::ValueValidation, why));
        }
        if let Command::Publish(args) = &mut cli.command {
            args.look(matches.subcommand_matches("publish").expect("this is the command"));
            args.build.sharing.complete().unwrap_or_else(|why| refuse(ErrorKind::ValueValidation, why));
        }
        if let Some(image) = cli.command.image_mut() {
            image.complete().unwrap_or_else(|why| refuse(ErrorKind::ValueValidation, why));
        }
        match &mut cli.command {
            Command::Deps(args) => args.selection.complete(),
            Command::Doctor(args) => {
                args.means.indexes.complete().unwrap_or_else(|why| refuse(ErrorKind::ValueValidation, why));
            }
            _ => {}
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
        ipybox build -t more -V extend-base --base skills-executor-vision --name more -d more.txt\n  \
        ipybox build -d dependencies.txt -o type=oci,dest=sandbox.tar    to a file, for other tools\n  \
        ipybox build -d dependencies.txt -o type=oci,dest=sandbox.tar --base oci:base    without an engine\n  \
        ipybox build                                     all images of ipybox.toml, where that is there\n  \
        ipybox build science --check                     one of them, and what it is built on\n\n\
        The image id goes to stdout, everything else to stderr. A tag moves only after the new\n\
        image is complete. Every option can come from the environment: --base from IPYBOX_BASE,\n\
        --no-cache from IPYBOX_NO_CACHE (0 or 1), --apt from IPYBOX_APT, where white space separates\n\
        several, and so on.")]
    Build(BuildArgs),
    /// Build, verify and push the images of `ipybox.toml`, and move their tags together
    #[command(
        mut_args = publish::shown,
        after_help = "Examples:\n  \
        ipybox publish --registry registry.example/team            all images of ipybox.toml\n  \
        ipybox publish science --registry registry.example/team    one of them, and what it is built on\n  \
        ipybox publish --dry-run                                   what is to be built, and which tags would move\n\n\
        Images are pushed by their digests. Once all of them are there the tags move: all of them, or\n\
        none. What a run that was killed has left is finished by the next one. An image whose tags\n\
        already name it is neither verified nor pushed again."
    )]
    Publish(PublishArgs),
    /// Write a first `ipybox.toml`, with an image for each dependency list of this folder
    #[command(after_help = "Examples:\n  \
        ipybox init && ipybox build\n  \
        ipybox init --schema > ipybox.schema.json       for editors")]
    Init(InitArgs),
    /// Resolve a dependency list once, and write exact versions and hashes beside it
    #[command(after_help = "Examples:\n  \
        ipybox lock -d dependencies.txt                 writes pylock.toml beside it\n  \
        ipybox lock -d dependencies.txt --upgrade       with the newest versions that will do\n  \
        ipybox lock -d dependencies.txt --check         exit code 3 where the lock is not what the list asks for\n\n\
        It takes the options of `ipybox build`, so that both mean the same image; those that do not\n\
        decide what is installed make no difference. Builds take the lock by themselves.\n\
        The file is of PEP 751, and pip and uv install it as well: on the same kind of Python, and\n\
        on top of the same base where that brings packages.")]
    Lock(LockArgs),
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
        ipybox verify sandbox --json          for programs\n  \
        ipybox verify --rebuild sandbox       built again, is it the same?\n\n\
        Containers are started as the clients of ipybox and smolagents start them, and removed at the\n\
        end. Exit code 1 if a check fails. `ipybox build --verify` does this before a tag moves.")]
    Verify(VerifyArgs),
    /// Tell what is inside an image: its packages, what they take, and who asked for each
    #[command(after_help = "Examples:\n  \
        ipybox inspect sandbox                        the largest packages first\n  \
        ipybox inspect sandbox --json                 for programs\n  \
        ipybox inspect sandbox --format cyclonedx     a bill of materials, for scanners")]
    Inspect(InspectArgs),
    /// Tell why a package is in an image
    Why(WhyArgs),
    /// Tell what an image has otherwise than another
    Diff(DiffArgs),
    /// Long-lived containers for agents, one for each user of a project
    Sandbox(SandboxArgs),
    /// Remove the containers that were made from an image
    Cleanup(CleanupArgs),
    /// List the images that this program has left in the engine
    Images(ImagesArgs),
    /// Remove images of this program that nothing needs any more
    Prune(PruneArgs),
    /// Tell Compose or Kubernetes how to run an image, or put it into a Compose file
    #[command(after_help = "Examples:\n  \
        ipybox compose vision                                         of the image skills-executor-vision\n  \
        ipybox compose vision --into docker-compose.yaml              nothing else in it changes\n  \
        ipybox compose -t sandbox --publish 8888                      a kernel gateway\n  \
        ipybox compose vision --format k8s | kubectl apply -f -\n\n\
        What the image says of itself is asked from the engine, where that has it.")]
    Compose(ComposeArgs),
    /// Look whether this host is able to build, and tell what to mend
    #[command(after_help = "Examples:\n  \
        ipybox doctor                         with the default base\n  \
        ipybox doctor --base company/base     with another\n  \
        ipybox doctor --json                  for programs\n\n\
        Looked at are the engine, its version, builder, storage, clock and disk, whether the base is\n\
        there or its registry has it, the installer, the cache, and whether a build step reaches the\n\
        package index with this host's proxies and certificates. Nothing stays in the engine but the\n\
        installer. Exit code 1 if builds will fail, 75 if only the network is at fault.")]
    Doctor(DoctorArgs),
    /// List the variants, or show one
    Variants(VariantsArgs),
    /// What is kept on this host for layers that no step makes
    Cache(CacheArgs),
    /// Print what makes a shell complete commands and options
    #[command(after_help = "Examples:\n  \
        ipybox completions bash > ~/.local/share/bash-completion/completions/ipybox\n  \
        ipybox completions zsh > ~/.zfunc/_ipybox              with ~/.zfunc in fpath\n  \
        ipybox completions fish > ~/.config/fish/completions/ipybox.fish")]
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print a manual page
    #[command(after_help = "Examples:\n  \
        ipybox man | man -l -                    all commands\n  \
        ipybox man build | man -l -              one of them")]
    Man {
        /// The command it is about [default: all of them]
        command: Option<String>,
    },
}

impl Command {
    fn image_mut(&mut self) -> Option<&mut ImageArgs> {
        match self {
            Self::Build(args) => Some(&mut args.image),
            Self::Publish(args) => Some(&mut args.build.image),
            Self::Plan(args) => Some(&mut args.image),
            Self::Render(args) => Some(&mut args.image),
            Self::Lock(args) => Some(&mut args.image),
            Self::Deps(_)
            | Self::Verify(_)
            | Self::Inspect(_)
            | Self::Why(_)
            | Self::Diff(_)
            | Self::Sandbox(_)
            | Self::Cleanup(_)
            | Self::Images(_)
            | Self::Prune(_)
            | Self::Cache(_)
            | Self::Compose(_)
            | Self::Doctor(_)
            | Self::Variants(_)
            | Self::Init(_)
            | Self::Completions { .. }
            | Self::Man { .. } => None,
        }
    }

    fn image(&self) -> Option<&ImageArgs> {
        match self {
            Self::Build(args) => Some(&args.image),
            Self::Publish(args) => Some(&args.build.image),
            Self::Plan(args) => Some(&args.image),
            Self::Render(args) => Some(&args.image),
            Self::Lock(args) => Some(&args.image),
            Self::Deps(_)
            | Self::Verify(_)
            | Self::Inspect(_)
            | Self::Why(_)
            | Self::Diff(_)
            | Self::Sandbox(_)
            | Self::Cleanup(_)
            | Self::Images(_)
            | Self::Prune(_)
            | Self::Cache(_)
            | Self::Compose(_)
            | Self::Doctor(_)
            | Self::Variants(_)
            | Self::Init(_)
            | Self::Completions { .. }
            | Self::Man { .. } => None,
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

    /// Tell what differs from the plan of this image, or of this file, as `ipybox plan` prints it
    #[arg(long, value_name = "IMAGE|FILE", conflicts_with = "facts")]
    pub diff: Option<String>,

    /// Print that as JSON
    #[arg(long, requires = "diff")]
    pub json: bool,
}

/// Which engine is used.
#[derive(Debug, Clone, Args)]
pub struct EngineArgs {
    /// Engine to use, such as `unix:///var/run/docker.sock`, `tcp://host:2376` or `ssh://user@host`
    /// [default: what `DOCKER_HOST`, `DOCKER_CONTEXT` or `docker context use` say, else the first that answers]
    ///
    /// With `DOCKER_TLS_VERIFY` set, TCP is TLS, with `ca.pem`, `cert.pem` and `key.pem` of `DOCKER_CERT_PATH`. Where
    /// nothing says which engine is meant, the sockets of Docker, Docker Desktop, Colima, `OrbStack`, Rancher Desktop, Lima
    /// and podman are tried in this order.
    #[arg(long, value_name = "HOST", env = "IPYBOX_HOST", hide_env = true)]
    pub host: Option<String>,

    /// Context of Docker's client that names the engine
    #[arg(long, value_name = "NAME", env = "IPYBOX_CONTEXT", hide_env = true)]
    pub context: Option<String>,
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
    /// A local image: a name or an id; with `--published` the name of one in a registry
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

    /// Build the image again from what it says of itself, and compare the layers, instead of starting it
    ///
    /// What an image does not tell cannot be built again: files, secrets and own steps of whoever built it. Without a lock,
    /// versions are those of today.
    #[arg(long, conflicts_with_all = ["json", "variant", "variants"])]
    pub rebuild: bool,

    #[command(flatten)]
    #[expect(missing_docs, reason = "described by its type")]
    pub publication: PublicationArgs,

    /// Folder for what need not be asked or fetched twice [default: `~/.cache/ipybox`]
    #[arg(long, value_name = "DIR", env = "IPYBOX_CACHE_DIR", hide_env = true)]
    pub cache_dir: Option<PathBuf>,

    #[command(flatten)]
    #[expect(missing_docs, reason = "described by its type")]
    pub steps: StepsArgs,

    #[command(flatten)]
    #[expect(missing_docs, reason = "described by its type")]
    pub engine: EngineArgs,
}

/// What is checked of an image in a registry.
#[derive(Debug, Args)]
pub struct PublicationArgs {
    /// Check an image where it was published, then pull and start it: digests, what is said about it, and who signed it
    #[arg(long, conflicts_with = "rebuild")]
    pub published: bool,

    /// Program that checks signatures, as `docs/trust.md` describes it; there has to be a good one then
    #[arg(long, value_name = "TOOL", requires = "published")]
    pub signer: Option<OsString>,

    /// Argument for the signer; may be repeated
    #[arg(long, value_name = "ARG", requires = "signer", allow_hyphen_values = true)]
    pub signer_arg: Vec<OsString>,

    /// Neither pull nor start the published image
    #[arg(long, requires = "published")]
    pub no_run: bool,
}

/// Arguments of `ipybox doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Image that builds begin with [default: python:X.Y-slim-bookworm]
    #[arg(long, value_name = "IMAGE", env = "IPYBOX_BASE", hide_env = true)]
    pub base: Option<Reference>,

    /// Print the checks as JSON
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    #[expect(missing_docs, reason = "described by its type")]
    pub steps: StepsArgs,

    #[command(flatten)]
    #[expect(missing_docs, reason = "described by its type")]
    pub means: MeansArgs,
}

/// Arguments of `ipybox init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// Replace the `ipybox.toml` that is there
    #[arg(long)]
    pub force: bool,

    /// Print the JSON schema of `ipybox.toml`, for editors
    #[arg(long, conflicts_with = "force")]
    pub schema: bool,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
