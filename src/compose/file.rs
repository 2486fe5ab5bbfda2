//! Services to what a Compose file says of them.
//!
//! Rule: Compose Specification; only what docker-compose 1.29 and Compose 2 read in the same way: no `deploy`, limits beside
//! the image.

use super::yaml::Node;
use super::{Facts, Service};

/// What a Compose file gets: services, what they are connected to, and where the API service finds them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Composition {
    /// Services, each with its key and its container's name.
    pub services: Vec<(String, Node)>,
    /// The names of volumes.
    pub volumes: Vec<String>,
    /// The names of networks.
    pub networks: Vec<String>,
    /// Variables of the API service's environment.
    pub urls: Vec<(String, String)>,
}

/// The folders that executors share with the API service, the volumes they are, and whether executors may write them.
fn shared(facts: &Facts) -> Vec<(&'static str, &str, bool)> {
    if !facts.is_executor {
        return Vec::new();
    }
    vec![
        ("workspaces", &facts.workspaces, true),
        ("skills", "/app/skills", false),
        ("uploads", "/app/uploads", false),
    ]
}

impl Composition {
    /// That of some services.
    #[must_use]
    pub fn of(services: &[Service]) -> Self {
        let names = |lists: &mut dyn Iterator<Item = String>| {
            let mut names = Vec::new();
            for name in lists {
                if !names.contains(&name) {
                    names.push(name);
                }
            }
            names
        };
        let urls = services.iter().filter_map(|service| Some((service.url_variable()?, service.url())));
        Self {
            services: services.iter().map(|service| (service.key(), node(service))).collect(),
            volumes: names(&mut services.iter().flat_map(|service| {
                shared(&service.facts).into_iter().map(|(volume, ..)| volume.to_owned()).collect::<Vec<_>>()
            })),
            networks: names(&mut services.iter().flat_map(|service| service.wishes.networks.clone())),
            urls: urls.collect(),
        }
    }

    /// A file of its own.
    #[must_use]
    pub fn document(&self) -> String {
        let empty =
            |names: &[String]| Node::Map(names.iter().map(|name| (name.clone(), Node::Null)).collect());
        let mut file = Node::map([("services", Node::Map(self.services.clone()))]);
        for (key, names) in [("volumes", &self.volumes), ("networks", &self.networks)] {
            if !names.is_empty() {
                file.set(key, empty(names));
            }
        }
        file.document()
    }
}

/// A text that Compose leaves as it is: it takes `$` for the begin of a variable.
fn text(text: &str) -> Node {
    Node::text(text.replace('$', "$$"))
}

fn node(service: &Service) -> Node {
    let Service { image, facts, wishes, .. } = service;
    let mut node = Node::map([("image", text(&image.to_string()))]);
    if let Some(folder) = &wishes.build {
        node.set("build", Node::map([("context", text(folder)), ("dockerfile", Node::text("Dockerfile"))]));
    }
    node.set("container_name", text(&service.host()));
    node.set("restart", Node::text("unless-stopped"));
    if !wishes.profiles.is_empty() {
        node.set("profiles", Node::texts(wishes.profiles.clone()));
    }
    let shared = shared(facts);
    if facts.is_executor {
        node.set(
            "environment",
            Node::map([
                ("EXECUTOR_NAME", text(&service.name)),
                ("EXECUTOR_PORT", Node::text(facts.ports[0].1.to_string())),
                ("WORKSPACES_DIR", text(&facts.workspaces)),
                ("SKILLS_DIR", Node::text("/app/skills")),
                ("UPLOADS_DIR", Node::text("/app/uploads")),
            ]),
        );
        let volumes = shared.iter().map(|(volume, folder, is_written)| {
            text(&format!("{volume}:{folder}{}", if *is_written { "" } else { ":ro" }))
        });
        node.set("volumes", Node::List(volumes.collect()));
    }
    if !wishes.publish.is_empty() {
        let first = facts.ports[0].1;
        let ports = wishes.publish.iter();
        let ports = ports.map(|(host, port)| format!("127.0.0.1:{host}:{}", port.unwrap_or(first)));
        node.set("ports", Node::texts(ports));
    }
    if !wishes.networks.is_empty() {
        node.set("networks", Node::texts(wishes.networks.clone()));
    }
    if !facts.health.is_empty() {
        let test = Node::List(facts.health.iter().map(|word| text(word)).collect());
        node.set("healthcheck", Node::map([("test", test)]));
    }
    node.set("security_opt", Node::texts(["no-new-privileges:true"]));
    node.set("cap_drop", Node::texts(["ALL"]));
    if let Some(bytes) = wishes.memory {
        node.set("mem_limit", Node::text(memory(bytes, ["", "k", "m", "g"])));
    }
    if let Some(thousandths) = wishes.cpus {
        node.set("cpus", Node::Number(cpus(thousandths)));
    }
    if let Some(pids) = wishes.pids {
        node.set("pids_limit", Node::number(pids));
    }
    node
}

/// A number of bytes in the largest unit that it has a whole number of.
pub(super) fn memory(bytes: u64, units: [&str; 4]) -> String {
    let mut number = bytes;
    let mut unit = 0;
    while number > 0 && number.is_multiple_of(1024) && unit + 1 < units.len() {
        (number, unit) = (number / 1024, unit + 1);
    }
    format!("{number}{}", units[unit])
}

/// A number of processors.
fn cpus(thousandths: u32) -> String {
    let text = format!("{}.{:03}", thousandths / 1000, thousandths % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_exact_and_short() {
        for (bytes, written) in
            [(0, "0"), (1, "1"), (1024, "1k"), (1536 << 20, "1536m"), (2 << 30, "2g"), (8 << 40, "8192g")]
        {
            assert_eq!(memory(bytes, ["", "k", "m", "g"]), written);
        }
        for (thousandths, written) in
            [(1, "0.001"), (500, "0.5"), (1000, "1"), (10_000, "10"), (12_250, "12.25")]
        {
            assert_eq!(cpus(thousandths), written);
        }
    }
}
