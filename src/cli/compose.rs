//! What can be said to `ipybox compose`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::EngineArgs;
use super::values::{processors, size};
use crate::reference::Reference;
use crate::variant::executor_name;

/// Arguments of `ipybox compose`.
#[derive(Debug, Args)]
pub struct ComposeArgs {
    /// What executors call themselves, as in `ipybox build --name`; their images are `skills-executor-NAME`
    #[arg(value_name = "NAME", value_parser = executor_name, required_unless_present = "image")]
    pub names: Vec<String>,

    /// Another image: of the executor NAME, or with a kernel gateway; without NAME, it is called what it calls itself
    #[arg(short = 't', long = "tag", value_name = "IMAGE")]
    pub image: Option<Reference>,

    /// What to print
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub format: ComposeFormat,

    /// Put it into this Compose file instead, of which nothing else changes
    #[arg(long, value_name = "FILE")]
    pub into: Option<PathBuf>,

    /// Write services of the same names anew, where they differ
    #[arg(long, requires = "into")]
    pub replace: bool,

    /// The service in that file that is told where executors are, in `EXECUTOR_NAME_URL`
    #[arg(long, value_name = "SERVICE", value_parser = key, default_value = "api", requires = "into")]
    pub api_service: String,

    /// Let Compose build the image from this folder, which `ipybox render --out` wrote; as seen from the Compose file
    #[arg(long, value_name = "DIR", conflicts_with = "any_uid")]
    pub build: Option<String>,

    /// Start it only with this profile; may be repeated
    #[arg(long, value_name = "PROFILE", value_parser = key)]
    pub profile: Vec<String>,

    /// A network it is connected to; may be repeated [default: with --into, those of the API service]
    #[arg(long, value_name = "NETWORK", value_parser = key)]
    pub network: Vec<String>,

    /// Most memory; 0 is no limit
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "2GiB")]
    pub memory: u64,

    /// Most processors, such as 1.5 [default: all]
    #[arg(long, value_name = "NUMBER", value_parser = processors)]
    pub cpus: Option<u32>,

    /// Most processes; 0 is no limit. Kubernetes sets its own
    #[arg(long, value_name = "NUMBER", default_value_t = 1024)]
    pub pids: u32,

    /// A port of this host's loopback for the first server, or for the one that listens on PORT; may be repeated
    #[arg(long, value_name = "HOST_PORT[:PORT]", value_parser = published)]
    pub publish: Vec<(u16, Option<u16>)>,

    /// Let the cluster choose user and group, as `OpenShift` does
    #[arg(long)]
    pub any_uid: bool,

    #[command(flatten)]
    #[expect(missing_docs, reason = "described by its type")]
    pub engine: EngineArgs,
}

/// What `ipybox compose` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum ComposeFormat {
    /// A Compose file
    #[default]
    Compose,
    /// A Deployment and a Service for Kubernetes
    K8s,
}

/// A key that Compose files have for services, networks and profiles.
fn key(text: &str) -> Result<String, &'static str> {
    let inside = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    let begins = text.starts_with(|first: char| first.is_ascii_alphanumeric());
    if begins && text.len() <= 128 && text.bytes().all(inside) {
        Ok(text.to_owned())
    } else {
        Err("expected letters, digits, `_`, `.` and `-`, the first a letter or digit")
    }
}

/// A port of the host, and one of the container.
fn published(text: &str) -> Result<(u16, Option<u16>), &'static str> {
    let port = |text: &str| {
        let port =
            text.parse().ok().filter(|port| *port != 0 && text.bytes().all(|byte| byte.is_ascii_digit()));
        port.ok_or("expected HOST_PORT or HOST_PORT:PORT, such as 8080 or 8080:62680")
    };
    match text.split_once(':') {
        Some((host, container)) => Ok((port(host)?, Some(port(container)?))),
        None => Ok((port(text)?, None)),
    }
}
