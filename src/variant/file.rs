//! What `variant.toml` holds, and how that becomes a [`Variant`].

use std::collections::BTreeMap;
use std::ops::Range;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_spanned::Spanned;

use super::{
    Copy, OwnCheck, Placement, SHIPPED, Server, Step, Variant, destination, executor_name, label_name,
    package, secret_id, value, variable_name,
};
use crate::deps::{Dependency, pep508};
use crate::diagnostic::Document;
use crate::reference::ReferenceError;

/// `variant.toml`: a kind of image that `ipybox build -V NAME` makes.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    /// One line for people.
    #[schemars(with = "String")]
    description: Spanned<String>,
    /// A shipped variant whose settings hold where this file has none. `kernel`, `apt`, `ports`, `copy`, `step`
    /// and `check` are added to its own; so are `env` and `labels`, where the same name is replaced.
    #[schemars(with = "Option<String>")]
    extends: Option<Spanned<String>>,
    /// The Dockerfile template, a file of the templates' folder [default: `server.tera`].
    template: Option<String>,
    /// Where the packages of the list go [default: `isolated`].
    packages: Option<Placement>,
    /// What the servers' environment is installed from, a file of `runtime/` in the templates' folder [default:
    /// `server.txt`].
    lock: Option<String>,
    /// What it is built on where `--base` names nothing.
    #[schemars(with = "Option<String>")]
    base: Option<Spanned<String>>,
    /// `EXECUTOR_NAME`, where `--name` gives none.
    #[schemars(with = "Option<String>")]
    name: Option<Spanned<String>>,
    /// What the environment has beside the list: PEP 508 requirements.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    kernel: Vec<Spanned<String>>,
    /// Debian packages.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    apt: Vec<Spanned<String>>,
    /// The servers that run in each container; one alone replaces those of the variant it extends.
    #[serde(default)]
    #[schemars(with = "Vec<Server>")]
    server: Vec<Spanned<Server>>,
    /// Ports it exposes beside those of its servers.
    #[serde(default)]
    #[schemars(with = "Vec<u16>")]
    ports: Vec<Spanned<u16>>,
    /// Its environment.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, String>")]
    env: BTreeMap<Spanned<String>, Spanned<String>>,
    /// Its labels.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, String>")]
    labels: BTreeMap<Spanned<String>, Spanned<String>>,
    /// Files that are copied into it.
    #[serde(default)]
    #[schemars(with = "Vec<Copy>")]
    copy: Vec<Spanned<Copy>>,
    /// Commands that change it.
    #[serde(default)]
    #[schemars(with = "Vec<Step>")]
    step: Vec<Spanned<Step>>,
    /// What `ipybox verify` tries beside what it always does.
    #[serde(default)]
    #[schemars(with = "Vec<OwnCheck>")]
    check: Vec<Spanned<OwnCheck>>,
}

impl Variant {
    pub(super) fn of(name: &str, file: File, dependencies: Document) -> Result<Self, Mistake> {
        let extended = match &file.extends {
            Some(extends) => extended(extends)?,
            None => Self::empty(),
        };
        let reference = |text: Spanned<String>| {
            let parsed = text.as_ref().parse();
            parsed.map_err(|error: ReferenceError| mistake(&text, &error.to_string()))
        };
        let executor = |name: Spanned<String>| match executor_name(name.as_ref()) {
            Ok(valid) => Ok(valid),
            Err(why) => Err(mistake(&name, why)),
        };
        let ports = file.ports.into_iter().map(|port| match port.as_ref() {
            0 => Err(mistake(&port, "expected a port above 0")),
            _ => Ok(port.into_inner()),
        });
        let ports = ports.collect::<Result<Vec<_>, _>>()?;
        let checked = file.kernel.iter().map(requirement).collect::<Result<Vec<_>, _>>()?;
        let apt = file.apt.iter().map(|text| package(text.as_ref()).map_err(|why| mistake(text, why)));
        let apt = apt.collect::<Result<Vec<_>, _>>()?;
        let copies = file.copy.into_iter().map(|copy| match destination(&copy.as_ref().to) {
            Ok(()) if copy.as_ref().from.as_os_str().is_empty() => {
                Err(mistake(&copy, "expected a file or folder in `from`"))
            }
            Ok(()) => Ok(copy.into_inner()),
            Err(why) => Err(mistake(&copy, why)),
        });
        let steps = file.step.into_iter().map(|step| match step.as_ref().run.trim() {
            "" => Err(mistake(&step, "expected a command in `run`")),
            _ if step.as_ref().run.contains('\0') => Err(mistake(&step, "`run` holds a NUL")),
            _ => match step.as_ref().secrets.iter().find_map(|id| secret_id(id).err()) {
                Some(why) => Err(mistake(&step, why)),
                None => Ok(step.into_inner()),
            },
        });
        let checks =
            file.check.into_iter().map(|check| match (&check.as_ref().code, &check.as_ref().command) {
                (Some(_), None) | (None, Some(_)) => Ok(check.into_inner()),
                _ => Err(mistake(&check, "expected either `code` or `command`")),
            });
        let servers = file.server.into_iter().map(|server| match server.as_ref() {
            Server { port: 0, .. } => Err(mistake(&server, "expected a port above 0")),
            Server { command, .. } if command.is_empty() => {
                Err(mistake(&server, "expected a module in `command`"))
            }
            _ => Ok(server.into_inner()),
        });
        let servers = servers.collect::<Result<Vec<_>, _>>()?;
        if servers.is_empty() && extended.servers.is_empty() {
            let why = "expected a `[[server]]`, or a variant in `extends` that has one".to_owned();
            return Err(Mistake { at: Some(file.description.span()), why });
        }
        let packages = file.packages.unwrap_or(extended.packages);
        let template = file.template.unwrap_or(extended.template);
        let other = if packages == Placement::Inherited { "server.tera" } else { "extend.tera" };
        if template == other {
            let why = format!("the template `{template}` does not go together with these `packages`");
            return Err(Mistake { at: Some(file.description.span()), why });
        }
        Ok(Self {
            name: name.to_owned(),
            description: file.description.into_inner(),
            template,
            packages,
            lock: file.lock.unwrap_or(extended.lock),
            base: file.base.map(reference).transpose()?.or(extended.base),
            executor_name: file.name.map(executor).transpose()?.or(extended.executor_name),
            kernel: [extended.kernel, checked].concat(),
            apt: [extended.apt, apt].concat(),
            servers: if servers.is_empty() { extended.servers } else { servers },
            ports: [extended.ports, ports].concat(),
            env: settings(extended.env, file.env, variable_name)?,
            labels: settings(extended.labels, file.labels, label_name)?,
            copies: extended.copies.into_iter().map(Ok).chain(copies).collect::<Result<_, _>>()?,
            steps: extended.steps.into_iter().map(Ok).chain(steps).collect::<Result<_, _>>()?,
            checks: extended.checks.into_iter().map(Ok).chain(checks).collect::<Result<_, _>>()?,
            dependencies,
            folder: None,
        })
    }
}

/// Something that is wrong in a file: where, in bytes, and what.
pub(super) struct Mistake {
    pub(super) at: Option<Range<usize>>,
    pub(super) why: String,
}

fn mistake<T>(what: &Spanned<T>, why: &str) -> Mistake {
    Mistake { at: Some(what.span()), why: why.to_owned() }
}

/// The shipped variant that another names.
fn extended(name: &Spanned<String>) -> Result<Variant, Mistake> {
    match Variant::shipped(name.as_ref()) {
        Some(variant) => Ok(variant.expect("shipped variants are right")),
        None => {
            let known = SHIPPED.map(|(name, ..)| name).join(", ");
            Err(mistake(name, &format!("there is no shipped variant of this name; there are {known}")))
        }
    }
}

fn settings(
    mut all: BTreeMap<String, String>,
    further: BTreeMap<Spanned<String>, Spanned<String>>,
    check: impl Fn(&str) -> Result<(), &'static str>,
) -> Result<BTreeMap<String, String>, Mistake> {
    for (name, text) in further {
        check(name.as_ref()).map_err(|why| mistake(&name, why))?;
        value(text.as_ref()).map_err(|why| mistake(&text, why))?;
        all.insert(name.into_inner(), text.into_inner());
    }
    Ok(all)
}

fn requirement(text: &Spanned<String>) -> Result<Dependency, Mistake> {
    pep508::parse(text.as_ref()).map_err(|error| mistake(text, &error.why))
}
