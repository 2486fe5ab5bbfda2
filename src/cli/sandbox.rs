//! What can be said to `ipybox sandbox`, `cleanup`, `images` and `prune`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};

use super::values::{duration, processors, size};
use super::{EngineArgs, ImageArgs, StepsArgs, variable_of_list};
use crate::reference::Reference;

/// Arguments of `ipybox sandbox`.
#[derive(Debug, Args)]
pub struct SandboxArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: SandboxCommand,
}

/// A subcommand of `ipybox sandbox`.
#[derive(Debug, Subcommand)]
pub enum SandboxCommand {
    /// Have the one container of a user of a project: ready, of a fresh image, with these settings
    #[command(after_help = "Examples:\n  \
        ipybox sandbox up --project bot --user ann -t sandbox\n  \
        ipybox sandbox up --project bot --user ann -d dependencies.txt --mount .\n  \
        ipybox sandbox up --project bot --user ann -f bot/Dockerfile --mount bot --mount-at /bot --volume /bot/_data\n  \
        ipybox sandbox up --project bot --user ann -t sandbox --network none -- sleep infinity\n\n\
        A container that runs, of the same image and settings, is left as it is; another is replaced, and\n\
        it is said why. Its name is made of both names, whatever they hold, so that two callers at once get\n\
        the same. It has no capabilities, no new privileges and no host network, limits, ports on loopback\n\
        alone, and a token of its own for the image's server.")]
    Up(Box<UpArgs>),
    /// Run a command in a sandbox
    #[command(after_help = "Examples:\n  \
        ipybox sandbox exec --project bot --user ann -- python -c 'print(1)'\n  \
        ipybox sandbox exec --project bot --user ann -w src --timeout 30 --json -- sh -c 'make test'\n  \
        ipybox sandbox exec --project bot --user ann -it -- bash\n\n\
        Ends with the exit code of the command: 124 where its time was over, 126 where it may not run, 127\n\
        where there is no such command; 125 where the sandbox itself fails. When the time is over, and\n\
        after Ctrl-C, everything that the command has started is ended in the container.")]
    Exec(ExecArgs),
    /// List sandboxes
    List(ListArgs),
    /// Print what a sandbox's first process has written
    Logs(LogsArgs),
    /// Copy files into a sandbox, or out of it
    #[command(after_help = "Examples:\n  \
        ipybox sandbox cp --project bot --user ann data.csv :/workspace\n  \
        ipybox sandbox cp --project bot --user ann :/workspace/plot.png .\n\n\
        What is copied in belongs to whom the container runs as, what is copied out to the caller. A folder\n\
        that is there is added to; `A/.` is what is in `A`. Links that lead out of what is copied out, FIFOs\n\
        and devices are refused, and nothing is written then.")]
    Cp(CopyArgs),
    /// Stop sandboxes; `up` starts them again
    Stop(SomeArgs),
    /// Remove sandboxes
    Down(DownArgs),
    /// Stop sandboxes that nobody has used for a while
    Gc(GcArgs),
}

/// Whose sandbox is meant.
#[derive(Debug, Args)]
pub struct OwnerArgs {
    /// The project; any name
    #[arg(long, value_name = "NAME", value_parser = name(), allow_hyphen_values = true)]
    pub project: OsString,

    /// The user; any name
    #[arg(long, value_name = "NAME", value_parser = name(), allow_hyphen_values = true)]
    pub user: OsString,
}

/// Arguments of `ipybox sandbox up`.
#[derive(Debug, Args)]
pub struct UpArgs {
    #[command(flatten)]
    #[expect(missing_docs, reason = "described by its type")]
    pub owner: OwnerArgs,

    /// Image to use; the name of the one that is built, with --dependencies or --file
    #[arg(short, long, value_name = "IMAGE", required_unless_present_any = ["dependencies", "file"])]
    pub tag: Option<Reference>,

    /// Build the image from this dependency list if it is not fresh; further options of `ipybox build` come from the
    /// environment, such as `IPYBOX_PYTHON`
    #[arg(short, long, value_name = "FILE", conflicts_with = "file")]
    pub dependencies: Vec<PathBuf>,

    /// Variant of the image that is built [default: minimal]
    #[arg(short = 'V', long, value_name = "NAME", requires = "dependencies")]
    pub variant: Option<String>,

    /// Image that the build begins with
    #[arg(long, value_name = "IMAGE", requires = "dependencies")]
    pub base: Option<Reference>,

    /// Build the image from this Dockerfile, whose folder is the context, if something in it has changed
    #[arg(short, long, value_name = "DOCKERFILE")]
    pub file: Option<PathBuf>,

    /// Folder of this host that the container sees; may be repeated, with its place in the container, and `:ro` where
    /// nothing in it is to be changed
    #[arg(long, value_name = "DIR[:PATH[:ro]]", value_parser = OsStringValueParser::new().try_map(mount))]
    pub mount: Vec<MountArg>,

    /// Where it sees the one without a place; its commands begin there, unless that is below the image's own folder for it
    #[arg(long, value_name = "PATH", default_value = "/workspace", value_parser = place)]
    pub mount_at: String,

    /// Mount also what gives more away: `root`, a folder with every file of this host; `engine`, one with the engine's
    /// socket, by which whoever runs in the container becomes root of this host; `link`, whatever a link leads to
    #[arg(long, value_enum, value_name = "WHAT")]
    pub give_away: Vec<Gift>,

    /// Folder in the container that is a volume of this user alone, and outlives the container; may be repeated
    #[arg(long, value_name = "PATH", value_parser = place)]
    pub volume: Vec<String>,

    /// Environment variable of the container; may be repeated. Without a value it is that of this process
    #[arg(long, value_name = "NAME[=VALUE]", value_parser = env_entry)]
    pub env: Vec<(String, String)>,

    /// Most memory
    #[arg(long, value_name = "SIZE", default_value = "2GB", value_parser = memory)]
    pub memory: u64,

    /// Most processors
    #[arg(long, value_name = "NUMBER", default_value = "2", value_parser = processors)]
    pub cpus: u32,

    /// Most processes and threads
    #[arg(long, value_name = "NUMBER", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..))]
    pub pids: u32,

    /// Let nothing be written but in mounts, volumes, `/tmp`, `/var/tmp` and `/run`
    #[arg(long)]
    pub read_only: bool,

    /// `none`, or a network of the engine [default: the engine's own]; the host's is refused
    #[arg(long, value_name = "NETWORK")]
    pub network: Option<String>,

    /// What alone may be reached: a domain, an address or a network; may be repeated. By the firewall of images of this
    /// program
    #[arg(long, value_name = "DOMAIN", conflicts_with = "network")]
    pub allow_domain: Vec<String>,

    /// What runs the container, such as `runsc` or `kata-runtime` [default: the engine's own]
    #[arg(long, value_name = "NAME")]
    pub runtime: Option<String>,

    /// Capability that the container keeps, such as `NET_BIND_SERVICE`; may be repeated [default: none]
    #[arg(long, value_name = "NAME")]
    pub capability: Vec<String>,

    /// Whom it runs as [default: as the image says]
    #[arg(long = "as", value_name = "UID[:GID]", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub run_as: Option<String>,

    /// Port that is published beside those of the image; may be repeated
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Vec<u16>,

    /// Let the image's server take anybody who reaches it
    #[arg(long)]
    pub no_token: bool,

    /// How many seconds it may take to be ready
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    pub wait: Duration,

    /// Print what it has come to as JSON
    #[arg(long)]
    pub json: bool,

    /// Folder for what need not be asked or fetched twice [default: `~/.cache/ipybox`]
    #[arg(long, value_name = "DIR", env = "IPYBOX_CACHE_DIR", hide_env = true)]
    pub cache_dir: Option<PathBuf>,

    #[command(flatten)]
    #[expect(missing_docs, reason = "described by its type")]
    pub engine: EngineArgs,

    /// What the container runs in place of the image's command
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

/// A folder that a container sees.
#[derive(Debug, Clone)]
pub struct MountArg {
    /// On this host.
    pub folder: PathBuf,
    /// In the container, where that is said.
    pub place: Option<String>,
    /// Whether nothing in it can be changed.
    pub is_read_only: bool,
}

/// What a mount may give away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Gift {
    /// Every file of this host.
    Root,
    /// The engine.
    Engine,
    /// What a link leads to.
    Link,
}

/// Arguments of `ipybox sandbox exec`.
#[derive(Debug, Args)]
pub struct ExecArgs {
    #[command(flatten)]
    #[expect(missing_docs, reason = "described by its type")]
    pub owner: OwnerArgs,

    /// Folder to run in, from the container's own
    #[arg(short, long, value_name = "DIR", default_value = "", hide_default_value = true)]
    pub workdir: String,

    /// End the command, and all that it has started, after so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub timeout: Option<Duration>,

    /// Environment variable of the command; may be repeated. Without a value it is that of this process
    #[arg(long, value_name = "NAME[=VALUE]", value_parser = env_entry)]
    pub env: Vec<(String, String)>,

    /// Give it what this process reads
    #[arg(short, long)]
    pub interactive: bool,

    /// Give it a terminal
    #[arg(short, long, conflicts_with = "json")]
    pub tty: bool,

    /// Pass on so much of its output, and drop the rest [default: all of it; with --json 10MB of each stream]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub max_output: Option<u64>,

    /// Print what came of it as JSON
    #[arg(long)]
    pub json: bool,

    /// Folder for what need not be asked twice [default: `~/.cache/ipybox`]
    #[arg(long, value_name = "DIR", env = "IPYBOX_CACHE_DIR", hide_env = true)]
    pub cache_dir: Option<PathBuf>,

    #[command(flatten)]
    #[expect(missing_docs, reason = "described by its type")]
    pub engine: EngineArgs,

    /// The command
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

/// Which sandboxes are meant.
#[derive(Debug, Args)]
pub struct SomeArgs {
    /// The project
    #[arg(long, value_name = "NAME", value_parser = name(), allow_hyphen_values = true)]
    pub project: OsString,

    /// The user [default: all of the project]
    #[arg(long, value_name = "NAME", value_parser = name(), allow_hyphen_values = true)]
    pub user: Option<OsString>,

    #[command(flatten)]
    #[expect(missing_docs, reason = "described by its type")]
    pub engine: EngineArgs,
}

/// Arguments of `ipybox sandbox list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// The project [default: all]
    #[arg(long, value_name = "NAME", value_parser = name(), allow_hyphen_values = true)]
    pub project: Option<OsString>,

    /// The user [default: all]
    #[arg(long, value_name = "NAME", value_parser = name(), allow_hyphen_values = true)]
    pub user: Option<OsString>,

    /// Print them as JSON
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    #[expect(missing_docs, reason = "described by its type")]
    pub engine: EngineArgs,
}

/// Arguments of `ipybox sandbox logs`.
#[derive(Debug, Args)]
pub struct LogsArgs {
    #[command(flatten)]
    #[expect(missing_docs, reason = "described by its type")]
    pub owner: OwnerArgs,

    /// Print also what follows, until the container ends
    #[arg(short, long)]
    pub follow: bool,

    /// Print no more than the last lines [default: all]
    #[arg(long, value_name = "LINES")]
    pub tail: Option<usize>,

    #[command(flatten)]
    #[expect(missing_docs, reason = "described by its type")]
    pub engine: EngineArgs,
}

/// Arguments of `ipybox sandbox cp`.
#[derive(Debug, Args)]
pub struct CopyArgs {
    #[command(flatten)]
    #[expect(missing_docs, reason = "described by its type")]
    pub owner: OwnerArgs,

    /// What is copied; with `:` before it, of the container
    pub from: PathBuf,

    /// The folder it is put into, or its new name; with `:` before it, of the container
    pub to: PathBuf,

    #[command(flatten)]
    #[expect(missing_docs, reason = "described by its type")]
    pub engine: EngineArgs,
}

/// Arguments of `ipybox sandbox down`.
#[derive(Debug, Args)]
pub struct DownArgs {
    #[command(flatten)]
    #[expect(missing_docs, reason = "described by its type")]
    pub some: SomeArgs,

    /// Remove also what they keep in volumes
    #[arg(long)]
    pub volumes: bool,

    /// Remove also the image that was built for the project, where nothing else runs it
    #[arg(long, conflicts_with = "user")]
    pub image: bool,

    /// Folder for what need not be asked twice [default: `~/.cache/ipybox`]
    #[arg(long, value_name = "DIR", env = "IPYBOX_CACHE_DIR", hide_env = true)]
    pub cache_dir: Option<PathBuf>,
}

/// Arguments of `ipybox sandbox gc`.
#[derive(Debug, Args)]
pub struct GcArgs {
    /// How long nobody has used them, such as 30m or 1h
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub idle: Duration,

    /// Remove them, but for their volumes
    #[arg(long)]
    pub remove: bool,

    /// Only tell which they are
    #[arg(long)]
    pub dry_run: bool,

    #[command(flatten)]
    #[expect(missing_docs, reason = "described by its type")]
    pub engine: EngineArgs,
}

/// Arguments of `ipybox cleanup`.
#[derive(Debug, Args)]
pub struct CleanupArgs {
    /// Image whose containers are removed, and those of images that are built on it
    #[arg(short, long, value_name = "IMAGE", default_value = super::DEFAULT_TAG)]
    pub ancestor: String,

    #[command(flatten)]
    #[expect(missing_docs, reason = "described by its type")]
    pub engine: EngineArgs,
}

/// Arguments of `ipybox images`.
#[derive(Debug, Args)]
pub struct ImagesArgs {
    /// Print them as JSON
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    #[expect(missing_docs, reason = "described by its type")]
    pub engine: EngineArgs,
}

/// Arguments of `ipybox prune`.
#[derive(Debug, Args)]
pub struct PruneArgs {
    /// Only tell what would be removed
    #[arg(long)]
    pub dry_run: bool,

    #[command(flatten)]
    #[expect(missing_docs, reason = "described by its type")]
    pub engine: EngineArgs,
}

impl UpArgs {
    /// What is built, as `ipybox build` is asked for it with this list; the rest comes from the environment.
    ///
    /// # Errors
    ///
    /// What is wrong there.
    pub fn build(&self) -> Result<(ImageArgs, StepsArgs), String> {
        let mut words = vec![OsString::from("ipybox")];
        let mut add = |option: &str, value: OsString| {
            words.push(option.into());
            words.push(value);
        };
        for list in &self.dependencies {
            add("--dependencies", list.into());
        }
        if let Some(variant) = &self.variant {
            add("--variant", variant.into());
        }
        if let Some(base) = &self.base {
            add("--base", base.to_string().into());
        }
        let Built { mut image, steps } = Built::try_parse_from(words).map_err(|error| error.to_string())?;
        image.complete()?;
        image.means.engine = self.engine.clone();
        image.means.cache_dir.clone_from(&self.cache_dir);
        Ok((image, steps))
    }
}

/// What `ipybox build` takes that decides an image.
#[derive(Debug, Parser)]
struct Built {
    #[command(flatten)]
    image: ImageArgs,
    #[command(flatten)]
    steps: StepsArgs,
}

/// A variable, with a value or that of this process.
fn env_entry(text: &str) -> Result<(String, String), String> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, value.to_owned()),
        None => (text, variable_of_list(text).ok_or_else(|| format!("`{text}` is not set here"))?),
    };
    if name.is_empty() || name.contains('\0') || value.contains('\0') {
        return Err("expected NAME=VALUE".to_owned());
    }
    Ok((name.to_owned(), value))
}

/// Any name but none at all: a variable that is not set is nobody's name.
fn name() -> impl TypedValueParser<Value = OsString> {
    OsStringValueParser::new().try_map(|name| if name.is_empty() { Err("it is empty") } else { Ok(name) })
}

/// A folder of this host, its place in a container behind the last `:/`, and whether it is only read.
fn mount(text: OsString) -> Result<MountArg, &'static str> {
    let bytes = text.as_bytes();
    match bytes.windows(2).rposition(|two| two == b":/").filter(|at| *at > 0) {
        None if bytes.is_empty() => Err("expected a folder"),
        None => Ok(MountArg { folder: text.into(), place: None, is_read_only: false }),
        Some(at) => {
            let path = std::str::from_utf8(&bytes[at + 1..]).map_err(|_| "the place is not UTF-8")?;
            let read_only = path.strip_suffix(":ro");
            let place = place(read_only.or_else(|| path.strip_suffix(":rw")).unwrap_or(path))?;
            let folder = OsStr::from_bytes(&bytes[..at]).into();
            Ok(MountArg { folder, place: Some(place), is_read_only: read_only.is_some() })
        }
    }
}

/// A place in a container.
fn place(text: &str) -> Result<String, &'static str> {
    let is_clean = text.split('/').skip(1).all(|part| !matches!(part, "" | "." | ".."));
    // There the kernel has its own.
    let is_of_kernel =
        ["/proc", "/sys", "/dev"].iter().any(|&of| text == of || text.starts_with(&format!("{of}/")));
    if text.starts_with('/') && is_clean && !is_of_kernel && text.len() > 1 && !text.contains(['\0', ':']) {
        Ok(text.to_owned())
    } else {
        Err("expected a path from the container's root, such as /workspace")
    }
}

/// A size of memory that a container can have: without a limit it is not left.
fn memory(text: &str) -> Result<u64, &'static str> {
    size(text)
        .and_then(|bytes| if bytes > 0 { Ok(bytes) } else { Err("expected a limit above 0, such as 2GB") })
}

/// A time in seconds, more than none.
fn seconds(text: &str) -> Result<Duration, &'static str> {
    let seconds: Option<f64> = text.parse().ok();
    let time = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    time.filter(|time| !time.is_zero()).ok_or("expected a number of seconds above 0, such as 30 or 0.5")
}
