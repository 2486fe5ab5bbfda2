//! What a sandbox is made with, and what another one is made with otherwise.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::archive::hexadecimal;
use crate::engine::{Folder, Image, Lasting};
use crate::plan::VARIANT_LABEL;

use super::firewall::awaiting;
use super::owner::Owner;

/// The label with the settings of a sandbox, as JSON; values of the environment are digests in it.
pub const SETTINGS_LABEL: &str = "ipybox.sandbox.settings";

/// The label with the name of a sandbox's image, as it was asked for.
pub const IMAGE_LABEL: &str = "ipybox.sandbox.image";

/// What decides how a sandbox is made.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The name of its image, as it was asked for.
    pub image: String,
    /// In place of the image's command.
    pub command: Option<Vec<String>>,
    /// Who it runs as; as the image says if there is none.
    pub user: Option<String>,
    /// Folders of the engine's host, by their places in it.
    pub mounts: BTreeMap<String, Folder>,
    /// Where its commands begin; as the image says if there is none.
    pub workdir: Option<String>,
    /// Places of private volumes, sorted.
    pub volumes: BTreeSet<String>,
    /// Added to its environment.
    pub env: BTreeMap<String, String>,
    /// Most memory, in bytes.
    pub memory: u64,
    /// Most processors, in thousandths.
    pub milli_cpus: u32,
    /// Most processes and threads.
    pub pids: u32,
    /// Whether its root cannot be written.
    pub is_read_only: bool,
    /// The network it is on; the engine's default if there is none.
    pub network: Option<String>,
    /// What it may reach, where that is restricted: domains, addresses and networks.
    pub allowed: BTreeSet<String>,
    /// What runs it, in place of the engine's default.
    pub runtime: Option<String>,
    /// Capabilities it keeps.
    pub capabilities: BTreeSet<String>,
    /// Ports that are published beside those of the image's servers.
    pub ports: BTreeSet<u16>,
    /// Whether its servers want a token.
    pub has_token: bool,
}

/// Keeps a container up that has nothing else to do, and ends at once when it is asked to.
const STAY: [&str; 3] = ["/bin/sh", "-c", "trap 'exit 0' TERM INT; while :; do sleep 3600 & wait $!; done"];

/// Commands of images that end at once where nobody types anything.
const TALKERS: [&str; 10] = ["sh", "bash", "ash", "dash", "zsh", "python", "python3", "node", "irb", "R"];

/// What an image brings to its sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Brought {
    /// The command, where the image's own is not used.
    pub command: Option<Vec<String>>,
    /// The ports of its servers, where it runs them.
    pub ports: BTreeSet<u16>,
    /// Whether the servers are of this program, and answer HTTP.
    pub is_ours: bool,
    /// Whether it has a health check that tells when the command is ready.
    pub has_health: bool,
}

impl Brought {
    /// What a sandbox of an image runs.
    #[must_use]
    pub fn of(image: &Image, settings: &Settings) -> Self {
        let own: Vec<&str> = image.entrypoint.iter().chain(&image.cmd).map(String::as_str).collect();
        let talks = |program: &str| TALKERS.contains(&program.rsplit('/').next().unwrap_or_default());
        let ends = match own.as_slice() {
            [] => true,
            [_, "-c", line] => talks(line),
            [program, options @ ..] => {
                talks(program) && options.iter().all(|option| ["-i", "-l", "--login"].contains(option))
            }
        };
        let stay = || STAY.map(str::to_owned).to_vec();
        let command = settings.command.clone().or_else(|| ends.then(stay));
        let is_own = command.is_none();
        Self {
            ports: image.ports.iter().copied().filter(|_| is_own).collect(),
            is_ours: is_own && image.labels.contains_key(VARIANT_LABEL),
            has_health: is_own && image.health.first().is_some_and(|kind| kind != "NONE"),
            command,
        }
    }

    /// The variable by which its server takes a token.
    #[must_use]
    pub fn token_variable(&self) -> Option<&'static str> {
        const GATEWAY: u16 = 8888;
        match (self.is_ours, self.ports.contains(&GATEWAY)) {
            (false, _) => None,
            (true, true) => Some("KG_AUTH_TOKEN"),
            (true, false) => (!self.ports.is_empty()).then_some("EXECUTOR_TOKEN"),
        }
    }
}

impl Settings {
    /// As a label tells them, for the image of this id.
    #[must_use]
    pub fn told(&self, image_id: &str) -> Value {
        let env: Map<String, Value> =
            self.env.iter().map(|(name, value)| (name.clone(), digest(value).into())).collect();
        let told =
            |folder: &Folder| format!("{}{}", folder.source, if folder.is_read_only { ":ro" } else { "" });
        let mounts: BTreeMap<&String, String> =
            self.mounts.iter().map(|(place, folder)| (place, told(folder))).collect();
        json!({
            "image": image_id,
            "command": self.command,
            "user": self.user,
            "mounts": mounts,
            "workdir": self.workdir,
            "volumes": self.volumes,
            "env": env,
            "memory": self.memory,
            "milli_cpus": self.milli_cpus,
            "pids": self.pids,
            "read_only": self.is_read_only,
            "network": self.network,
            "allowed": self.allowed,
            "runtime": self.runtime,
            "capabilities": self.capabilities,
            "ports": self.ports,
            "token": self.has_token,
        })
    }

    /// The container that an owner gets.
    #[must_use]
    pub fn container(&self, owner: &Owner, image: &Image, brought: &Brought, token: Option<&str>) -> Lasting {
        let settings = self.told(image.id.as_str()).to_string();
        let own = [(SETTINGS_LABEL, settings), (IMAGE_LABEL, self.image.clone())];
        let own = own.map(|(label, value)| (label.to_owned(), value));
        let labels = owner.labels().into_iter().chain(own);
        let token = token.zip(brought.token_variable()).filter(|_| self.has_token);
        let token = token.map(|(token, variable)| format!("{variable}={token}"));
        let env = self.env.iter().map(|(name, value)| format!("{name}={value}"));
        let none = self.network.as_deref() == Some("none");
        Lasting {
            name: owner.container(),
            image: image.id.to_string(),
            command: if self.allowed.is_empty() {
                brought.command.clone()
            } else {
                let own = || image.entrypoint.iter().chain(&image.cmd).cloned().collect();
                Some(awaiting(brought.command.clone().unwrap_or_else(own)))
            },
            user: self.user.clone(),
            workdir: self.workdir.clone(),
            env: token.into_iter().chain(env).collect(),
            labels: labels.collect(),
            folders: self.mounts.iter().map(|(place, folder)| (folder.clone(), place.clone())).collect(),
            volumes: self.volumes.iter().map(|place| (owner.volume(place), place.clone())).collect(),
            memory: i64::try_from(self.memory).unwrap_or(i64::MAX),
            nano_cpus: i64::from(self.milli_cpus) * 1_000_000,
            pids: i64::from(self.pids),
            is_read_only: self.is_read_only,
            network: self.network.clone().unwrap_or_else(|| "default".to_owned()),
            runtime: self.runtime.clone(),
            capabilities: self.capabilities.iter().cloned().collect(),
            ports: brought.ports.union(&self.ports).copied().filter(|_| !none).collect(),
        }
    }
}

fn digest(value: &str) -> String {
    hexadecimal(&Sha256::digest(value)[..8])
}

/// What one sandbox is made with otherwise than another, in words.
#[must_use]
pub fn differences(earlier: &Value, later: &Value) -> Vec<String> {
    const NAMES: [(&str, &str); 17] = [
        ("image", "the image"),
        ("command", "the command"),
        ("user", "who it runs as"),
        ("mounts", "folders"),
        ("workdir", "where commands begin"),
        ("volumes", "volumes"),
        ("env", "the environment"),
        ("memory", "memory"),
        ("milli_cpus", "processors"),
        ("pids", "processes"),
        ("read_only", "a root that cannot be written"),
        ("network", "the network"),
        ("allowed", "what it may reach"),
        ("runtime", "the runtime"),
        ("capabilities", "capabilities"),
        ("ports", "ports"),
        ("token", "a token"),
    ];
    let differ = NAMES.iter().filter(|(key, _)| earlier.get(key) != later.get(key));
    let changed = |(key, name): &(&str, &str)| {
        let word = |settings: &Value| word(key, settings.get(key).unwrap_or(&Value::Null));
        match *key {
            "env" => format!("{name}: {}", variables(earlier.get(key), later.get(key))),
            _ => format!("{name}: {} → {}", word(earlier), word(later)),
        }
    };
    differ.map(changed).collect()
}

/// The names of variables that differ; what is in them is nobody's business.
fn variables(earlier: Option<&Value>, later: Option<&Value>) -> String {
    let of = |env: Option<&Value>| env.and_then(Value::as_object).cloned().unwrap_or_default();
    let (earlier, later) = (of(earlier), of(later));
    let names: BTreeSet<&String> = earlier.keys().chain(later.keys()).collect();
    let differ = names.into_iter().filter(|name| earlier.get(*name) != later.get(*name));
    differ.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

fn word(key: &str, value: &Value) -> String {
    match (key, value) {
        ("network", Value::Null) => "the engine's own".to_owned(),
        (_, Value::Null) => "none".to_owned(),
        (_, Value::Bool(is)) => if *is { "yes" } else { "no" }.to_owned(),
        ("image", Value::String(id)) => id.trim_start_matches("sha256:").chars().take(12).collect(),
        ("memory", Value::Number(bytes)) => {
            format!("{} MB", bytes.as_u64().unwrap_or_default().div_ceil(1_000_000))
        }
        ("milli_cpus", Value::Number(count)) => format!("{}", count.as_f64().unwrap_or_default() / 1000.0),
        (_, Value::String(text)) => format!("`{text}`"),
        (_, Value::Array(list)) if list.is_empty() => "none".to_owned(),
        (_, Value::Array(list)) => list.iter().map(|one| word(key, one)).collect::<Vec<_>>().join(" "),
        (_, Value::Object(map)) if map.is_empty() => "none".to_owned(),
        (_, Value::Object(map)) => map
            .iter()
            .map(|(place, folder)| format!("{} at `{place}`", word(key, folder)))
            .collect::<Vec<_>>()
            .join(", "),
        (_, other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            image: "x".to_owned(),
            command: None,
            user: None,
            mounts: BTreeMap::new(),
            workdir: None,
            volumes: BTreeSet::new(),
            env: BTreeMap::new(),
            memory: 2_000_000_000,
            milli_cpus: 2000,
            pids: 1024,
            is_read_only: false,
            network: None,
            allowed: BTreeSet::new(),
            runtime: None,
            capabilities: BTreeSet::new(),
            ports: BTreeSet::new(),
            has_token: true,
        }
    }

    fn image(entrypoint: &[&str], cmd: &[&str], ports: &[u16], is_ours: bool) -> Image {
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
        let label = is_ours.then(|| (VARIANT_LABEL.to_owned(), "minimal".to_owned()));
        Image {
            id: format!("sha256:{}", "0a".repeat(32)).try_into().unwrap(),
            os: "linux".to_owned(),
            architecture: "amd64".to_owned(),
            user: "1000:0".to_owned(),
            env: Vec::new(),
            entrypoint: words(entrypoint),
            cmd: words(cmd),
            shell: Vec::new(),
            workdir: "/app".to_owned(),
            ports: ports.iter().copied().collect(),
            labels: label.into_iter().collect(),
            health: Vec::new(),
            on_build: Vec::new(),
            settings: BTreeMap::new(),
            created: None,
            bytes: 0,
            layers: Vec::new(),
        }
    }

    #[test]
    fn an_image_stays_up_by_its_own_command_where_it_has_one() {
        let brought = |entrypoint: &[&str], cmd: &[&str]| {
            Brought::of(&image(entrypoint, cmd, &[8888], true), &settings())
        };
        for (entrypoint, cmd, is_own) in [
            (&[] as &[&str], &[] as &[&str], false),
            (&[], &["/bin/bash"], false),
            (&[], &["python3"], false),
            (&[], &["bash", "-l"], false),
            (&[], &["/bin/sh", "-c", "bash"], false),
            (&[], &["/bin/sh", "-c", "bash serve.sh"], true),
            (&["python3"], &["server.py"], true),
            (&["server"], &[], true),
        ] {
            let brought = brought(entrypoint, cmd);
            assert_eq!(brought.command.is_none(), is_own, "{entrypoint:?} {cmd:?}");
            assert_eq!((brought.is_ours, brought.ports.is_empty()), (is_own, !is_own));
        }
        assert_eq!(brought(&["server"], &[]).token_variable(), Some("KG_AUTH_TOKEN"));
        let executor = Brought::of(&image(&["server"], &[], &[62680], true), &settings());
        assert_eq!(executor.token_variable(), Some("EXECUTOR_TOKEN"));
        let others = Brought::of(&image(&["server"], &[], &[8888], false), &settings());
        assert_eq!(others.token_variable(), None);
    }

    #[test]
    fn what_differs_is_told_without_what_is_in_variables() {
        let image = image(&["server"], &[], &[8888], true);
        let told = |settings: &Settings| settings.told(image.id.as_str());
        let earlier = settings();
        let mut later = settings();
        later.env.insert("KEY".to_owned(), "secret".to_owned());
        later.milli_cpus = 500;
        later.network = Some("none".to_owned());
        later.volumes.insert("/data".to_owned());
        later.is_read_only = true;
        later
            .mounts
            .insert("/bot".to_owned(), Folder { source: "/home/bot".to_owned(), is_read_only: false });
        assert_eq!(differences(&told(&earlier), &told(&earlier)), Vec::<String>::new());
        assert_eq!(
            differences(&told(&earlier), &told(&later)),
            [
                "folders: none → `/home/bot` at `/bot`",
                "volumes: none → `/data`",
                "the environment: `KEY`",
                "processors: 2 → 0.5",
                "a root that cannot be written: no → yes",
                "the network: the engine's own → `none`",
            ]
        );
        assert!(!told(&later).to_string().contains("secret"));
        // No setting is left out of what is told.
        let words = serde_json::to_value(told(&later)).unwrap();
        assert_eq!(words.as_object().unwrap().len(), 17);
        let owner = Owner { project: "p".into(), user: "u".into() };
        let brought = Brought::of(&image, &later);
        let container = later.container(&owner, &image, &brought, Some("t0ken"));
        assert!(container.ports.is_empty() && container.env.contains(&"KG_AUTH_TOKEN=t0ken".to_owned()));
        assert!(!container.labels.values().any(|label| label.contains("secret") || label.contains("t0ken")));
    }
}
