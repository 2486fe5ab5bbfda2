//! What an image claims to be.

use crate::engine::Image;
use crate::plan::{EXECUTOR_LABEL, SERVES_LABEL, listed};
use crate::variant::{Interface, OwnCheck, Placement, Variant, is_of_firewall};

/// What servers are told to ask for, in a container of its own.
pub(super) const TOKEN: &str = "verify-token";

/// What an image claims, which decides the checks it is tried with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claim {
    /// A server speaks this interface.
    Speaks(Interface),
    /// Its servers are this program's, and not of an image that somebody built by hand.
    Ours,
    /// A label names the distributions of its list.
    Labelled,
    /// A label says that agents may enter it.
    Exec,
    /// It has what a firewall needs.
    Firewall,
    /// It does not run as root, whose home is the base's.
    Unprivileged,
}

/// An image and what it is tried as.
pub(super) struct Subject<'a> {
    pub(super) image: &'a Image,
    /// The commands it was built with.
    pub(super) history: &'a [String],
    /// The ports of its servers, in the order of the variant.
    pub(super) ports: Vec<u16>,
    /// What the variant asks for beside the table.
    pub(super) own_checks: &'a [OwnCheck],
    variant: &'a Variant,
    interfaces: Vec<(Interface, u16)>,
}

impl<'a> Subject<'a> {
    pub(super) fn of(image: &'a Image, variant: &'a Variant, history: &'a [String]) -> Self {
        let pair =
            |variable: &String| variable.split_once('=').map(|(name, value)| (name.into(), value.into()));
        let env = image.env.iter().filter_map(pair).collect();
        // The image's environment may name another port.
        let ports = variant.servers.iter().map(|server| server.port_in(&env)).collect();
        let interfaces = [Interface::Gateway, Interface::Resources, Interface::Executor];
        let spoken = interfaces.into_iter().filter_map(|interface| {
            variant.server(interface).map(|server| (interface, server.port_in(&env)))
        });
        let interfaces = spoken.collect();
        Self { image, history, ports, own_checks: &variant.checks, variant, interfaces }
    }

    pub(super) fn claims(&self, claim: Claim) -> bool {
        match claim {
            Claim::Speaks(interface) => self.port(interface).is_some(),
            Claim::Ours => {
                self.variant.packages != Placement::Inherited
                    || self.image.labels.contains_key(EXECUTOR_LABEL)
            }
            Claim::Labelled => self.dependencies().is_some(),
            Claim::Exec => {
                let serves = self.image.labels.get(SERVES_LABEL).map(String::as_str).unwrap_or_default();
                serves.split_whitespace().any(|interface| interface == "exec")
            }
            Claim::Unprivileged => !self.is_root(),
            Claim::Firewall => self.variant.apt.iter().any(|name| is_of_firewall(name)),
        }
    }

    /// Where a server listens in a container.
    pub(super) fn port(&self, interface: Interface) -> Option<u16> {
        self.interfaces.iter().find(|(spoken, _)| *spoken == interface).map(|&(_, port)| port)
    }

    /// What makes its servers ask for [`TOKEN`].
    pub(super) fn token_variable(&self) -> String {
        let is_executor = self.claims(Claim::Speaks(Interface::Executor));
        let name = if is_executor { "EXECUTOR_TOKEN" } else { "KG_AUTH_TOKEN" };
        format!("{name}={TOKEN}")
    }

    /// The folder of its executor's workspaces.
    pub(super) fn workspaces(&self) -> Option<&'a str> {
        self.image.env.iter().find_map(|variable| variable.strip_prefix("WORKSPACES_DIR="))
    }

    /// What its executor calls itself.
    pub(super) fn executor_name(&self) -> Option<&'a str> {
        self.image.env.iter().find_map(|variable| variable.strip_prefix("EXECUTOR_NAME="))
    }

    /// The names of the list's distributions; `None` where no label has them.
    pub(super) fn dependencies(&self) -> Option<Vec<&'a str>> {
        listed(&self.image.labels)
    }

    pub(super) fn is_root(&self) -> bool {
        matches!(self.image.user.split(':').next(), Some("" | "0" | "root"))
    }
}
