//! What an image is beside its packages, and whether a base is fit for it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::str::FromStr;

use pep440_rs::Version;

use super::{
    DEPENDENCIES_LABEL, EXECUTOR_LABEL, Files, PlanError, PlannedCopy, Provenance, Target, VARIANT_LABEL,
    VENV, WORKDIR,
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

/// What an image lacks to be extended.
pub(super) fn lacks(base: &Base, python: Option<&Python>) -> Vec<String> {
    let mut lacks = Vec::new();
    let command = [base.config.entrypoint.as_slice(), &base.config.cmd].concat().join(" ");
    if ![EXECUTOR, "executor_server:app"].iter().any(|server| command.contains(server)) {
        lacks.push("no command that starts an executor server".to_owned());
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
    let asked = variant.apt.iter().chain(&request.apt).cloned();
    let python = (provenance == Some(Provenance::Apt)).then(|| "python3".to_owned());
    asked.chain(python).collect()
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

pub(super) fn labels(
    variant: &Variant,
    base: &Base,
    target: &Target<'_>,
    request: &Request,
) -> BTreeMap<String, String> {
    let own = [
        (DEPENDENCIES_LABEL, dependencies(target, variant.packages, base)),
        ("ipybox.python", target.python.interpreter.version.clone()),
        (VARIANT_LABEL, variant.name.clone()),
        ("ipybox.version", env!("CARGO_PKG_VERSION").to_owned()),
        ("org.opencontainers.image.base.name", base.reference.to_string()),
    ];
    let mut labels = variant.labels.clone();
    labels.extend(request.labels.clone());
    if variant.server(Interface::Executor).is_some() && variant.packages != Placement::Inherited {
        labels.insert(EXECUTOR_LABEL.to_owned(), "1".to_owned());
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
    match (request.name.as_ref().or(variant.executor_name.as_ref()), variant.server(Interface::Executor)) {
        (Some(name), Some(_)) => {
            env.insert(EXECUTOR_NAME.to_owned(), name.clone());
        }
        (None, Some(_)) => {
            errors.push(PlanError::NeedsName(variant.name.clone()));
        }
        (Some(_), None) => errors.push(PlanError::NothingToName(variant.name.clone())),
        _ => {}
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
    let theirs = [WORKDIR].into_iter().chain(user.home()).any(|folder| Path::new(&to).starts_with(folder));
    PlannedCopy {
        is_folder: files.file.is_none(),
        owner: if theirs { user.ids() } else { (0, 0) },
        digest: files.digest.clone(),
        to,
    }
}
