//! Services to what Kubernetes runs: a Deployment and a Service each, as its "restricted" Pod Security Standard has them.

use super::file::memory;
use super::yaml::Node;
use super::{CompositionError, Service};

/// The manifests of some services, as a YAML stream.
///
/// # Errors
///
/// [`CompositionError::LongName`].
pub fn manifests(services: &[Service]) -> Result<String, CompositionError> {
    let mut documents = Vec::new();
    for service in services {
        let name = label(&service.host())?;
        documents.push(deployment(service, &name).document());
        documents.push(access(service, &name).document());
    }
    Ok(documents.join("---\n"))
}

/// A name as Kubernetes has them.
///
/// Rule: RFC 1123, "label": up to 63 letters, digits and `-`; and as RFC 1035 has it for Services, which begin with a letter.
fn label(name: &str) -> Result<String, CompositionError> {
    let name = name.replace('_', "-");
    let begins = name.starts_with(|first: char| first.is_ascii_lowercase());
    if name.len() <= 63 && begins { Ok(name) } else { Err(CompositionError::LongName { name }) }
}

fn labels(name: &str) -> Node {
    Node::map([("app.kubernetes.io/name", Node::text(name))])
}

fn about(name: &str) -> Node {
    Node::map([("name", Node::text(name)), ("labels", labels(name))])
}

fn access(service: &Service, name: &str) -> Node {
    let ports = service.facts.ports.iter().map(|&(port, number)| {
        let ours =
            [("name", Node::text(port)), ("port", Node::number(number)), ("targetPort", Node::text(port))];
        Node::map(ours)
    });
    Node::map([
        ("apiVersion", Node::text("v1")),
        ("kind", Node::text("Service")),
        ("metadata", about(name)),
        ("spec", Node::map([("selector", labels(name)), ("ports", Node::List(ports.collect()))])),
    ])
}

fn deployment(service: &Service, name: &str) -> Node {
    let metadata = Node::map([("labels", labels(name))]);
    Node::map([
        ("apiVersion", Node::text("apps/v1")),
        ("kind", Node::text("Deployment")),
        ("metadata", about(name)),
        (
            "spec",
            Node::map([
                // Kernels live in one server's memory.
                ("replicas", Node::number(1_u8)),
                ("strategy", Node::map([("type", Node::text("Recreate"))])),
                ("selector", Node::map([("matchLabels", labels(name))])),
                ("template", Node::map([("metadata", metadata), ("spec", pod(service))])),
            ]),
        ),
    ])
}

fn pod(service: &Service) -> Node {
    let mut security = Node::map([("runAsNonRoot", Node::Truth(true))]);
    if !service.wishes.any_uid {
        security.set("runAsUser", Node::number(service.facts.uid.unwrap_or(1000)));
        security.set("runAsGroup", Node::number(0_u8));
        security.set("fsGroup", Node::number(0_u8));
    }
    security.set("seccompProfile", Node::map([("type", Node::text("RuntimeDefault"))]));
    let volumes = folders(service)
        .into_iter()
        .map(|(volume, _)| Node::map([("name", Node::text(volume)), ("emptyDir", Node::Map(Vec::new()))]));
    Node::map([
        ("automountServiceAccountToken", Node::Truth(false)),
        // They would set variables that servers read, such as EXECUTOR_PORT.
        ("enableServiceLinks", Node::Truth(false)),
        ("securityContext", security),
        ("containers", Node::List(vec![container(service)])),
        ("volumes", Node::List(volumes.collect())),
    ])
}

/// What is written: everything else is read-only.
fn folders(service: &Service) -> Vec<(&'static str, &str)> {
    let facts = &service.facts;
    let work = if facts.is_executor { ("workspaces", facts.workspaces.as_str()) } else { ("app", "/app") };
    let mut folders = vec![work, ("workspace", "/workspace"), ("tmp", "/tmp")];
    let is_known = folders.iter().any(|(_, folder)| *folder == facts.home);
    if !is_known && facts.home.len() > 1 && facts.home.starts_with('/') {
        folders.push(("home", &facts.home));
    }
    folders
}

fn container(service: &Service) -> Node {
    let facts = &service.facts;
    let ports = facts.ports.iter().map(|&(port, number)| {
        Node::map([("name", Node::text(port)), ("containerPort", Node::number(number))])
    });
    let mut container = Node::map([
        ("name", Node::text(facts.ports[0].0)),
        ("image", Node::text(service.image.to_string())),
        ("imagePullPolicy", Node::text("IfNotPresent")),
        ("ports", Node::List(ports.collect())),
    ]);
    if facts.is_executor {
        let variables = [
            ("EXECUTOR_NAME", service.name.clone()),
            ("EXECUTOR_PORT", facts.ports[0].1.to_string()),
            // Kubernetes replaces `$(NAME)`, and takes `$$` for a `$`.
            ("WORKSPACES_DIR", facts.workspaces.replace('$', "$$")),
        ];
        let variables = variables
            .map(|(name, value)| Node::map([("name", Node::text(name)), ("value", Node::text(value))]));
        container.set("env", Node::List(variables.into()));
    }
    let capabilities = Node::map([("drop", Node::texts(["ALL"]))]);
    container.set(
        "securityContext",
        Node::map([
            ("allowPrivilegeEscalation", Node::Truth(false)),
            ("readOnlyRootFilesystem", Node::Truth(true)),
            ("capabilities", capabilities),
        ]),
    );
    let mut limits = Node::Map(Vec::new());
    if let Some(bytes) = service.wishes.memory {
        limits.set("memory", Node::text(memory(bytes, ["", "Ki", "Mi", "Gi"])));
    }
    if let Some(thousandths) = service.wishes.cpus {
        limits.set("cpu", Node::text(format!("{thousandths}m")));
    }
    if limits != Node::Map(Vec::new()) {
        container.set("resources", Node::map([("limits", limits)]));
    }
    let asked = |entries: &[(&str, u64)]| {
        let mut probe = if facts.is_executor {
            let request = Node::map([("path", Node::text("/health")), ("port", Node::text("executor"))]);
            Node::map([("httpGet", request)])
        } else {
            // Where it wants a token, it answers nobody without.
            Node::map([("tcpSocket", Node::map([("port", Node::text("gateway"))]))])
        };
        for &(key, value) in entries {
            probe.set(key, Node::number(value));
        }
        probe
    };
    container.set("startupProbe", asked(&[("periodSeconds", 2), ("failureThreshold", 60)]));
    container.set("readinessProbe", asked(&[("periodSeconds", 10), ("timeoutSeconds", 10)]));
    container.set(
        "livenessProbe",
        asked(&[("periodSeconds", 30), ("timeoutSeconds", 10), ("failureThreshold", 3)]),
    );
    let mounts = folders(service)
        .into_iter()
        .map(|(volume, folder)| Node::map([("name", Node::text(volume)), ("mountPath", Node::text(folder))]));
    container.set("volumeMounts", Node::List(mounts.collect()));
    container
}
