//! What an image is beside its packages, and whether a base is fit for it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::str::FromStr;

use pep440_rs::Version;

use super::{
    DEPENDENCIES_LABEL, EXECUTOR_LABEL, Files, PlanError, PlannedCopy, Provenance, SERVES_LABEL, Target,
    VARIANT_LABEL, VENV, WORKDIR, WORKSPACE,
};
use crate::accounts::{self, User};
use crate::base::{Base, Python};
use crate::deps::Name;
use crate::request::Request;
use crate::variant::{self, EXECUTOR, Interface, Placement, Server, Variant};

/// The variable that names an executor server.
const EXECUTOR_NAME: &str = "EXECUTOR_NAME";

/// Who the image runs as.
pub(super) fn user(packages: Placement, base: &Base, request: &Request) -> Result<User, PlanError> {
    if packages != Placement::Inherited {
        return Ok(request.user);
    }
    let user = &base.config.user;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
    let ids = accounts::ids(&base.passwd, &base.group, user).filter(|_| user.bytes().all(plain));
    let (uid, gid) = ids.ok_or_else(|| {
        let (base, user) = (base.reference.to_string(), user.escape_debug().to_string());
        PlanError::BaseUser { base, user }
    })?;
    Ok(User::Inherited { uid, gid })
}

/// What starts the kernels of an image that is extended: an executor server, or a kernel gateway of this program's.
fn starts_kernels(base: &Base) -> Option<Interface> {
    let command = [base.config.entrypoint.as_slice(), &base.config.cmd].concat().join(" ");
    if [EXECUTOR, "executor_server:app"].iter().any(|server| command.contains(server)) {
        return Some(Interface::Executor);
    }
    let is_ours = base.config.labels.contains_key(VARIANT_LABEL) && command.contains("ipybox.supervisor");
    (is_ours && command.contains("kernel_gateway")).then_some(Interface::Gateway)
}

/// What an image lacks to be extended.
pub(super) fn lacks(base: &Base, python: Option<&Python>) -> Vec<String> {
    let mut lacks = Vec::new();
    if starts_kernels(base).is_none() {
        lacks.push(
            "no command that starts an executor server, or a kernel gateway of this program".to_owned(),
        );
    }
    if base.pythons.is_empty() {
        lacks.push("no Python".to_owned());
    } else if let Some(python) = python {
        let has = |name: &str| python.distributions.iter().any(|one| one.name.eq_ignore_ascii_case(name));
        if !has("ipykernel") {
            lacks.push(format!("no `ipykernel` for `{}`", python.interpreter.path.escape_debug()));
        }
    }
    lacks
}

/// Why nothing can be built on a base, whatever is asked for.
pub(super) fn unfit(base: &Base, python: Option<&Python>, packages: Placement) -> Vec<PlanError> {
    let reference = || base.reference.to_string();
    let mut errors = Vec::new();
    if !base.has("find") {
        errors.push(PlanError::NoProgram { base: reference(), program: "find" });
    }
    if let Some(instruction) = base.config.on_build.first() {
        errors.push(PlanError::OnBuild { base: reference(), instruction: instruction.clone() });
    }
    if packages == Placement::Inherited {
        let distributions = python.map(|python| python.distributions.as_slice()).unwrap_or_default();
        let odd = distributions.iter().find(|one| Version::from_str(&one.version).is_err());
        if let Some((one, name)) = odd.and_then(|one| Some((one, Name::parse(&one.name)?))) {
            let version = one.version.escape_debug().to_string();
            errors.push(PlanError::OddVersion { base: reference(), name, version });
        }
    }
    errors
}

/// Debian packages: those asked for, and a Python that the base lacks.
pub(super) fn apt(variant: &Variant, provenance: Option<Provenance>, request: &Request) -> BTreeSet<String> {
    let tools = request.tools.iter().flat_map(|tools| tools.packages()).map(|&name| name.to_owned());
    let asked = variant.apt.iter().chain(&request.apt).cloned().chain(tools);
    let python = (provenance == Some(Provenance::Apt)).then(|| "python3".to_owned());
    asked.chain(python).collect()
}

/// Debian packages that are installed where they can be: curl, with which Compose files of executors ask for their
/// health, and what has `pkill`, with which agents end what takes too long.
pub(super) fn wishes(servers: &[Server], base: &Base, apt: &BTreeSet<String>) -> Vec<String> {
    if servers.is_empty() || !base.has("apt-get") {
        return Vec::new();
    }
    let is_executor = servers.iter().any(|server| server.speaks(Interface::Executor));
    let wishes = [("curl", "curl", is_executor), ("procps", "pkill", true)];
    let wishes = wishes
        .into_iter()
        .filter(|(package, program, wanted)| *wanted && !base.has(program) && !apt.contains(*package));
    wishes.map(|(package, ..)| package.to_owned()).collect()
}

/// The folder of an executor's workspaces, where that is one that an image can have.
pub(super) fn workspaces(servers: &[Server], env: &BTreeMap<String, String>) -> Option<String> {
    let folder = env
        .get("WORKSPACES_DIR")
        .filter(|_| servers.iter().any(|server| server.speaks(Interface::Executor)))?;
    variant::destination(folder).ok().map(|()| folder.trim_end_matches('/').to_owned())
}

/// The distributions of the list that an image was made of, where a label says so.
#[must_use]
pub fn listed(labels: &BTreeMap<String, String>) -> Option<Vec<&str>> {
    labels.get(DEPENDENCIES_LABEL).map(|names| names.split_whitespace().collect())
}

/// What is in that label.
fn dependencies(target: &Target<'_>, packages: Placement, base: &Base) -> String {
    let before = listed(&base.config.labels).filter(|_| packages == Placement::Inherited).unwrap_or_default();
    let names: BTreeSet<_> =
        target.needed.iter().map(|dependency| dependency.name.as_str()).chain(before).collect();
    names.into_iter().collect::<Vec<_>>().join(" ")
}

/// What an image speaks, by the names of its interfaces.
fn serves(variant: &Variant) -> String {
    let interfaces = [
        (Interface::Gateway, "kernel-gateway"),
        (Interface::Resources, "resources"),
        (Interface::Executor, "executor"),
    ];
    let spoken = interfaces.into_iter().filter(|(interface, _)| variant.server(*interface).is_some());
    spoken.map(|(_, name)| name).chain(std::iter::once("exec")).collect::<Vec<_>>().join(" ")
}

/// The variant that an image is of: an extended gateway image stays what it was, and clients of executors find theirs
/// whatever it is built on.
fn kind<'a>(variant: &'a Variant, base: &'a Base) -> &'a str {
    let stays = variant.packages == Placement::Inherited && starts_kernels(base) == Some(Interface::Gateway);
    base.config.labels.get(VARIANT_LABEL).filter(|_| stays).unwrap_or(&variant.name)
}

pub(super) fn labels(
    variant: &Variant,
    base: &Base,
    target: &Target<'_>,
    request: &Request,
) -> BTreeMap<String, String> {
    let own = [
        (DEPENDENCIES_LABEL, dependencies(target, variant.packages, base)),
        ("ipybox.python", target.python.interpreter.version.clone()),
        (VARIANT_LABEL, kind(variant, base).to_owned()),
        ("ipybox.version", env!("CARGO_PKG_VERSION").to_owned()),
        ("org.opencontainers.image.base.name", base.reference.to_string()),
    ];
    let mut labels = variant.labels.clone();
    labels.extend(request.labels.clone());
    if variant.packages != Placement::Inherited {
        labels.insert(SERVES_LABEL.to_owned(), serves(variant));
        if variant.server(Interface::Executor).is_some() {
            labels.insert(EXECUTOR_LABEL.to_owned(), "1".to_owned());
        }
    }
    labels.extend(own.map(|(name, value)| (name.to_owned(), value)));
    labels
}

pub(super) fn environment(
    variant: &Variant,
    base: &Base,
    user: Option<User>,
    request: &Request,
    errors: &mut Vec<PlanError>,
) -> BTreeMap<String, String> {
    const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let mut env = variant.env.clone();
    env.extend(request.env.clone());
    let own = ["HOME", "PATH", "VIRTUAL_ENV", "PYTHONHOME", EXECUTOR_NAME];
    errors.extend(
        own.iter().filter(|name| env.contains_key(**name)).map(|name| PlanError::OwnVariable((*name).into())),
    );
    let has_executor = match variant.packages {
        Placement::Inherited => starts_kernels(base) == Some(Interface::Executor),
        Placement::Isolated | Placement::Layered => variant.server(Interface::Executor).is_some(),
    };
    match (request.name.as_ref().or(variant.executor_name.as_ref()), has_executor) {
        (Some(name), true) => {
            env.insert(EXECUTOR_NAME.to_owned(), name.clone());
        }
        (None, true) => {
            errors.push(PlanError::NeedsName(variant.name.clone()));
        }
        (Some(_), false) => errors.push(PlanError::NothingToName(kind(variant, base).to_owned())),
        (None, false) => {}
    }
    if user.is_some_and(User::is_unprivileged) {
        // For ids without a name, which clusters choose.
        env.entry("USER".to_owned()).or_insert_with(|| accounts::NAME.to_owned());
    }
    if let Some(home) = user.and_then(User::home) {
        let rest = base.config.variable("PATH").filter(|path| !path.is_empty()).unwrap_or(SYSTEM_PATH);
        env.insert("HOME".to_owned(), home.to_owned());
        env.insert("PATH".to_owned(), format!("{VENV}/bin:{rest}"));
        env.insert("VIRTUAL_ENV".to_owned(), VENV.to_owned());
        if base.config.variable("PYTHONHOME").is_some() {
            env.insert("PYTHONHOME".to_owned(), String::new());
        }
    }
    env
}

pub(super) fn copy(to: &str, files: &Files, user: User) -> PlannedCopy {
    let to = match files.file.as_deref().filter(|_| to.ends_with('/')) {
        Some(file) => format!("{to}{file}"),
        None => to.trim_end_matches('/').to_owned(),
    };
    let theirs =
        [WORKDIR, WORKSPACE].into_iter().chain(user.home()).any(|folder| Path::new(&to).starts_with(folder));
    PlannedCopy {
        is_folder: files.file.is_none(),
        owner: if theirs { user.owner() } else { (0, 0) },
        digest: files.digest.clone(),
        to,
    }
}
