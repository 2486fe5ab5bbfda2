//! An image to the service that runs it, for Compose and for Kubernetes; and such services into a Compose file that somebody
//! wrote, without touching what is theirs. Nothing here opens anything.

mod error;
mod file;
mod kubernetes;
mod lines;
mod merge;
mod read;
mod yaml;

pub use error::CompositionError;
pub use file::Composition;
pub use kubernetes::manifests;
pub use merge::{Merged, networks_of};
pub use yaml::{Node, scalar};

use crate::engine::Image;
use crate::freshness::Stamp;
use crate::plan::{EXECUTOR_LABEL, SERVES_LABEL};
use crate::reference::Reference;
use crate::variant::{Interface, Server, executor_name};

/// Where executors listen, if nothing says otherwise.
const EXECUTOR_PORT: u16 = 62680;

/// What clients find in an image, and what containers of it need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Whether it is an executor; else it has a kernel gateway.
    pub is_executor: bool,
    /// What it calls itself, where it is an executor and says so.
    pub name: Option<String>,
    /// The ports of its servers by what they speak, the most important first.
    pub ports: Vec<(&'static str, u16)>,
    /// Its health check, as Compose has it: `CMD` or `CMD-SHELL`, and a command.
    pub health: Vec<String>,
    /// The folder of an executor's workspaces.
    pub workspaces: String,
    /// Its user's home.
    pub home: String,
    /// Its user's id, where that is one and not root's.
    pub uid: Option<u32>,
}

impl Facts {
    /// Those of an executor that `ipybox build -V any-base` makes of most bases.
    #[must_use]
    pub fn of_executor() -> Self {
        Self {
            is_executor: true,
            name: None,
            ports: vec![("executor", EXECUTOR_PORT)],
            health: Vec::new(),
            workspaces: "/app/workspaces".to_owned(),
            home: "/home/ipybox".to_owned(),
            uid: None,
        }
    }

    /// What an image says of itself; `None` where it has neither an executor nor a kernel gateway.
    #[must_use]
    pub fn of(image: &Image) -> Option<Self> {
        let env = image.env.iter().filter_map(|variable| variable.split_once('='));
        let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let value =
            |name: &str| std::collections::BTreeMap::get(&env, name).filter(|value| !value.is_empty());
        let planned = Stamp::read(&image.labels).map(|stamp| stamp.parts(&["foundation.servers"]));
        let planned =
            planned.and_then(|parts| serde_json::from_value(parts["foundation"]["servers"].clone()).ok());
        // An extended image plans none; it has those of its base.
        let planned: Vec<Server> = planned.unwrap_or_default();
        let command = [image.entrypoint.as_slice(), &image.cmd].concat().join(" ");
        let serves = image.labels.get(SERVES_LABEL).map(String::as_str).unwrap_or_default();
        let port_of = |interface: Interface| {
            if let Some(server) = planned.iter().find(|server| server.speaks(interface)) {
                return Some(server.port_in(&env));
            }
            let has = |name: &str| serves.split_whitespace().any(|served| served == name);
            let port = value("EXECUTOR_PORT").and_then(|port| port.parse().ok()).unwrap_or(EXECUTOR_PORT);
            let by_hand =
                || image.labels.contains_key(EXECUTOR_LABEL) || command.contains("executor_server:app");
            match interface {
                Interface::Executor => (has("executor") || by_hand()).then_some(port),
                Interface::Gateway => has("kernel-gateway").then_some(8888),
                Interface::Resources => has("resources").then_some(8900),
            }
        };
        let named = [
            ("executor", Interface::Executor),
            ("gateway", Interface::Gateway),
            ("resources", Interface::Resources),
        ];
        let ports: Vec<_> =
            named.into_iter().filter_map(|(name, interface)| Some((name, port_of(interface)?))).collect();
        let is_executor = match ports.first() {
            Some(("executor", _)) => true,
            Some(("gateway", _)) => false,
            _ => return None,
        };
        let brings_check =
            ["CMD", "CMD-SHELL"].iter().any(|kind| image.health.first().is_some_and(|first| first == kind));
        let health = match (brings_check, is_executor) {
            (true, _) => image.health.clone(),
            (false, true) => {
                let address = format!("http://localhost:{}/health", ports[0].1);
                ["CMD", "curl", "-f", &address].map(str::to_owned).into()
            }
            (false, false) => Vec::new(),
        };
        let user = image.user.split(':').next().unwrap_or_default();
        let default = Self::of_executor();
        Some(Self {
            is_executor,
            name: value("EXECUTOR_NAME").and_then(|name| executor_name(name).ok()),
            ports,
            health,
            workspaces: value("WORKSPACES_DIR").cloned().unwrap_or(default.workspaces),
            home: value("HOME").cloned().unwrap_or(default.home),
            uid: user.parse().ok().filter(|uid| *uid != 0),
        })
    }
}

/// How a service is to run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wishes {
    /// The folder that Compose builds the image from, where it does.
    pub build: Option<String>,
    /// Compose starts it only with one of these profiles, where there are any.
    pub profiles: Vec<String>,
    /// Its networks; Compose's default one where there are none.
    pub networks: Vec<String>,
    /// Most memory, in bytes.
    pub memory: Option<u64>,
    /// Most of processors, in thousandths of one.
    pub cpus: Option<u32>,
    /// Most processes.
    pub pids: Option<u32>,
    /// Ports of this host's loopback, each with the container's, where that is not the first of its servers.
    pub publish: Vec<(u16, Option<u16>)>,
    /// Whether the cluster chooses user and group.
    pub any_uid: bool,
}

/// An image, and how it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// What an executor calls itself; else the name of the service.
    pub name: String,
    /// The image's name.
    pub image: Reference,
    /// What it is.
    pub facts: Facts,
    /// How it runs.
    pub wishes: Wishes,
}

impl Service {
    /// The image of an executor, if nobody says otherwise.
    ///
    /// # Errors
    ///
    /// Why no image can have the name.
    pub fn image_of(name: &str) -> Result<Reference, String> {
        format!("skills-executor-{name}")
            .parse()
            .map_err(|error: crate::reference::ReferenceError| error.to_string())
    }

    /// The key of the service in a Compose file.
    #[must_use]
    pub fn key(&self) -> String {
        if self.facts.is_executor { format!("executor-{}", self.name) } else { self.name.clone() }
    }

    /// The name of the container, by which clients find an executor.
    #[must_use]
    pub fn host(&self) -> String {
        if self.facts.is_executor { format!("skills-executor-{}", self.name) } else { self.name.clone() }
    }

    /// Where its first server answers, to others of its networks.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}:{}", self.host(), self.facts.ports[0].1)
    }

    /// The variable that tells the API service of skill-compose where an executor is; `None` for others.
    #[must_use]
    pub fn url_variable(&self) -> Option<String> {
        let name = self.name.to_ascii_uppercase().replace('-', "_");
        self.facts.is_executor.then(|| format!("EXECUTOR_{name}_URL"))
    }
}
