//! A [`Plan`] to Dockerfile text through `templates/*.tera`; places values, never decides.

use std::collections::BTreeMap;

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::accounts;
use crate::archive::{EPOCH, hexadecimal};
use crate::base::Base;
use crate::diagnostic::Diagnostic;
use crate::freshness::Stamp;
use crate::image::context;
use crate::inputs::templates::Templates;
use crate::installer::{self, words};
use crate::plan::{Installer, Packages, Plan, StepId, WORKDIR};
use crate::reference::Reference;
use crate::variant::{Placement, When, Who};

/// The id under which build steps find the certificates.
pub const CA_SECRET: &str = "ipybox-ca";

/// The id under which steps that ask package indexes find a netrc.
pub const NETRC_SECRET: &str = "ipybox-netrc";

/// Where a build finds the base and the installer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Supply {
    /// Under private tags in the engine.
    Engine,
    /// The base under its own name, the installer in the context: for `docker build` by anybody.
    Context,
    /// As `Engine`, with the certificates in the context, if any: for engines that have no secrets.
    Plain {
        /// Whether there are certificates.
        certificates: bool,
    },
}

impl Supply {
    /// The mount that certificates come by.
    fn ca(self) -> String {
        match self {
            Self::Plain { certificates: true } => format!("type=bind,source={}", context::CERTIFICATES),
            _ => format!("type=secret,id={CA_SECRET},mode=0444"),
        }
    }

    /// The mount that logins for package indexes come by, for root alone: builds of wheels run foreign code. Empty where
    /// there are no secrets.
    fn netrc(self) -> String {
        match self {
            Self::Plain { .. } => String::new(),
            _ => format!("type=secret,id={NETRC_SECRET},mode=0400"),
        }
    }
}

/// Why there is no Dockerfile.
#[derive(Debug, thiserror::Error)]
pub enum DockerfileError {
    /// A template is missing or wrong, which only happens with templates of the user's own.
    #[error("cannot render the template `{name}`")]
    Template {
        /// The template.
        name: String,
        /// Where, and why.
        source: tera::Error,
    },
    /// A template of the user's own has a step without the title it is told by, which engines without `BuildKit` need.
    #[error("the step `{0}` is not in the Dockerfile")]
    Untitled(String),
    /// A value has a line break or another control character, which a Dockerfile cannot hold.
    #[error("the value of `{name}` holds a control character")]
    Control {
        /// The variable or label.
        name: String,
    },
}

impl DockerfileError {
    /// The refusal.
    #[must_use]
    pub fn diagnostic(&self) -> Diagnostic {
        let what = Diagnostic::new(self.to_string());
        match self {
            Self::Template { source, .. } => {
                what.why(source.to_string()).advice("correct it in the folder of `--templates`")
            }
            Self::Untitled(title) => what
                .why("podman takes a step for done where its text is the same, so it must carry a digest")
                .advice(format!("begin its command with `: \"{title}\" &&` in the folder of `--templates`")),
            Self::Control { .. } => what
                .why("a Dockerfile ends its instructions with line breaks")
                .advice("remove it from the value"),
        }
    }
}

/// What the templates see.
#[derive(Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "templates have conditions and no types")]
struct Values<'a> {
    ipybox: &'a str,
    variant: &'a str,
    uv_stage: String,
    base: String,
    env: Vec<Setting<'a>>,
    args: Vec<Setting<'a>>,
    labels: Vec<Setting<'a>>,
    python: &'a str,
    /// The archive the interpreter is unpacked from, and the folder in it.
    archive: Option<Unpacked<'a>>,
    /// The interpreter that steps may use.
    servers_python: String,
    /// `UID:GID`.
    owner: String,
    /// The user id alone.
    uid: u32,
    /// The name of a user of the image's own; empty where it has none.
    account: &'static str,
    /// Whether environments made inside see the packages.
    inside: bool,
    /// Who the base runs as; empty where it does not say.
    user: &'a str,
    /// The base's own shell, in exec form; empty where it does not say.
    shell: String,
    /// Whether packages of the base are visible, and stay.
    layered: bool,
    /// Whether that needs a `.pth` file.
    folders: bool,
    /// Whether files are copied.
    copies: bool,
    /// Own steps before the packages, and after everything else.
    foundation: Vec<OwnStep>,
    end: Vec<OwnStep>,
    /// Wheels that are built.
    builds: Vec<Wheel<'a>>,
    /// Debian packages that builds need, with a blank between them.
    build_apt: String,
    /// Whether versions are constrained beyond what is asked for.
    bounds: bool,
    /// Whether hashes are checked apart from the installer.
    hashes: bool,
    /// Whether wheels are built and nothing else.
    only_wheels: bool,
    only_foundation: bool,
    /// Whether a lock says what is installed.
    locked: bool,
    /// Where what is installed is said.
    pylock: &'static str,
    /// Debian packages, with a blank between them.
    apt: String,
    /// Those that are installed where that can be.
    wishes: &'a [String],
    bytecode: bool,
    ports: &'a [u16],
    /// Ends well where every server answers; in exec form.
    health: String,
    /// In exec form.
    command: String,
    epoch: u64,
    workdir: &'static str,
    ca_secret: &'static str,
    netrc_secret: &'static str,
    /// Options of `docker build` for the secrets of own steps, each with a blank in front.
    secret_options: String,
    ca: String,
    netrc: String,
    /// Whether hosts are named that may want to know who asks.
    names_hosts: bool,
    /// Whether somebody names package indexes.
    indexed: bool,
    /// Whether one of them takes the place of the installer's own, and of what the base names.
    replaces_index: bool,
    titles: Titles,
    words: Words,
    /// The ids of the package caches that steps share.
    cache: String,
    apt_cache: String,
}

/// A wheel that is built.
#[derive(Serialize)]
struct Wheel<'a> {
    name: &'a str,
    /// Whether its source is among the files of the build.
    has_files: bool,
}

fn wheels(packages: &Packages) -> Vec<Wheel<'_>> {
    let named = packages.sources.iter();
    let from_elsewhere =
        named.map(|(name, source)| Wheel { name: name.as_str(), has_files: source.digest.is_some() });
    let of_index = packages.unbuilt.keys().map(|name| Wheel { name: name.as_str(), has_files: false });
    from_elsewhere.chain(of_index).collect()
}

/// What the steps are called.
#[derive(Serialize)]
struct Titles {
    python: String,
    apt: String,
    servers: String,
    build_apt: String,
    wheels: String,
    resolve: String,
    packages: String,
    copies: String,
}

impl Titles {
    fn all() -> Self {
        Self {
            python: StepId::Python.title(),
            apt: StepId::Apt.title(),
            servers: StepId::Servers.title(),
            build_apt: StepId::BuildApt.title(),
            wheels: StepId::Wheels.title(),
            resolve: StepId::Resolve.title(),
            packages: StepId::Packages.title(),
            copies: StepId::Copies.title(),
        }
    }
}

/// What the installer says where other alternatives are tried, and where they are not.
#[derive(Serialize)]
struct Words {
    no_solution: &'static str,
    spoilt: &'static str,
    refusing_index: &'static str,
}

#[derive(Serialize)]
struct Unpacked<'a> {
    file: &'static str,
    folder: &'a str,
}

#[derive(Serialize)]
struct OwnStep {
    /// Its place in the plan, from 0.
    number: usize,
    title: String,
    /// Whether the image's user runs it.
    as_user: bool,
    /// The user id that reads its secrets.
    reader: u32,
    secrets: Vec<String>,
}

#[derive(Serialize)]
struct Setting<'a> {
    name: &'a str,
    /// Quoted.
    value: String,
}

/// What comes of a Dockerfile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// The image.
    Image,
    /// The wheels that are built for it, below `/wheels`, and nothing else.
    Wheels,
    /// The image without its packages and labels: what they are put on, layer by layer.
    Foundation,
}

/// Renders the Dockerfile of a plan. It stays inside what the frontend built into Docker 20.10
/// accepts.
///
/// # Errors
///
/// [`DockerfileError`].
pub fn render(
    plan: &Plan,
    base: &Base,
    templates: &Templates,
    supply: Supply,
    goal: Goal,
) -> Result<String, DockerfileError> {
    let (uid, gid) = plan.foundation.user.ids();
    let steps = |at: When| {
        let steps = plan.own_steps().enumerate().filter(move |(_, step)| step.at == at);
        steps
            .map(|(number, step)| OwnStep {
                number,
                title: StepId::Own(number).title(),
                as_user: step.who == Who::User,
                reader: if step.who == Who::User { uid } else { 0 },
                secrets: step.secrets.clone(),
            })
            .collect()
    };
    let Plan { foundation, packages, finish, .. } = plan;
    let names_hosts = !packages.hosts().is_empty();
    let labels = labels(plan);
    let values = Values {
        ipybox: &plan.ipybox,
        variant: &plan.variant,
        uv_stage: match supply {
            // Whatever the program is for, the engine takes its image for one of its own platform.
            Supply::Engine => {
                format!("FROM --platform=$BUILDPLATFORM {} AS uv\n", foundation.installer.private_tag())
            }
            Supply::Plain { .. } => format!("FROM {} AS uv\n", foundation.installer.private_tag()),
            Supply::Context => format!("FROM scratch AS uv\nCOPY {0} /uv\n", context::UV),
        },
        base: match supply {
            Supply::Engine | Supply::Plain { .. } => foundation.base.private_tag().to_string(),
            // In full, since a name alone could be that of a stage.
            Supply::Context => foundation.base.reference.in_full(),
        },
        env: settings(&foundation.env)?,
        args: settings(&finish.args)?,
        labels: settings(&labels)?,
        python: &foundation.interpreter.path,
        archive: foundation
            .python_archive
            .as_ref()
            .map(|archive| Unpacked { file: context::PYTHON_ARCHIVE, folder: &archive.folder }),
        servers_python: foundation.servers_python().to_owned(),
        user: &base.config.user,
        shell: match base.config.shell.as_slice() {
            [] => String::new(),
            shell => exec_form(shell),
        },
        layered: foundation.placement == Placement::Layered,
        folders: !packages.folders.is_empty(),
        copies: plan.copies().next().is_some(),
        foundation: steps(When::Foundation),
        end: steps(When::End),
        owner: format!("{uid}:{gid}"),
        uid,
        account: if foundation.user.is_unprivileged() { accounts::NAME } else { "" },
        // A base whose packages stay apart is left alone.
        inside: foundation.placement == Placement::Isolated,
        builds: wheels(packages),
        build_apt: packages.build_apt.join(" "),
        bounds: !packages.bounds.is_empty(),
        only_wheels: goal == Goal::Wheels,
        only_foundation: goal == Goal::Foundation,
        hashes: packages.checks_hashes(),
        locked: packages.locked.is_some(),
        pylock: if packages.locked.is_some() { "request/pylock.toml" } else { "pylock.toml" },
        apt: foundation.apt.join(" "),
        wishes: &foundation.wishes,
        bytecode: foundation.bytecode,
        ports: &finish.ports,
        health: exec_form(&foundation.health()),
        command: exec_form(&foundation.command()),
        epoch: EPOCH,
        workdir: WORKDIR,
        ca_secret: CA_SECRET,
        netrc_secret: NETRC_SECRET,
        secret_options: plan
            .secrets()
            .iter()
            .fold(String::new(), |options, id| options + " --secret=id=" + id + ",src=FILE"),
        ca: supply.ca(),
        netrc: if names_hosts { supply.netrc() } else { String::new() },
        names_hosts,
        indexed: !packages.indexes.is_empty(),
        replaces_index: installer::replaces_own(&packages.indexes),
        titles: Titles::all(),
        words: Words {
            no_solution: words::NO_SOLUTION,
            spoilt: words::SPOILT,
            refusing_index: words::REFUSING_INDEX,
        },
        cache: cache("ipybox-uv", &foundation.base.reference),
        apt_cache: cache("ipybox-apt", &foundation.base.reference),
    };
    let text = filled(templates, &plan.foundation.template, &values)?;
    match supply {
        Supply::Engine | Supply::Context => Ok(text),
        Supply::Plain { .. } => marked(text, plan, goal),
    }
}

/// The labels of a plan's image.
#[must_use]
pub fn labels(plan: &Plan) -> BTreeMap<String, String> {
    plan.finish.labels.clone().into_iter().chain(Stamp::of(plan).labels()).collect()
}

/// A template with its values.
fn filled(templates: &Templates, name: &str, values: &impl Serialize) -> Result<String, DockerfileError> {
    let failed = |source| DockerfileError::Template { name: name.to_owned(), source };
    let mut tera = tera::Tera::new();
    tera.autoescape_on(Vec::<&str>::new());
    // The line break at a template's end belongs to the file, not to what it stands for.
    let texts = templates.dockerfiles().map(|(name, text)| (name, text.trim_end()));
    tera.add_raw_templates(texts).map_err(failed)?;
    let values = tera::Context::from_serialize(values).map_err(failed)?;
    tera.render(name, &values).map(|text| text + "\n").map_err(failed)
}

/// Renders the Dockerfile of a build that only asks the package index, in a step of this title. No two have the same
/// `nonce`: BuildKit does once what two builds ask for at the same time, even with other proxies and certificates.
///
/// # Errors
///
/// [`DockerfileError`].
pub fn question(
    base: &str,
    python: &str,
    installer: &Installer,
    title: &str,
    nonce: u64,
    replaces_index: bool,
    supply: Supply,
) -> Result<String, DockerfileError> {
    #[derive(Serialize)]
    struct Values<'a> {
        base: &'a str,
        python: &'a str,
        uv_image: String,
        title: &'a str,
        nonce: u64,
        ca: String,
        netrc: String,
        replaces_index: bool,
    }
    let uv_image = installer.private_tag().to_string();
    let (ca, netrc) = (supply.ca(), supply.netrc());
    let values = Values { base, python, uv_image, title, nonce, ca, netrc, replaces_index };
    filled(&Templates::shipped(), "index.tera", &values)
}

/// Gives each step the digest of its part of the plan: buildah takes a step for done where its text is the same, whatever
/// is in the files that are mounted.
fn marked(text: String, plan: &Plan, goal: Goal) -> Result<String, DockerfileError> {
    let Plan { foundation, packages, finish, .. } = plan;
    let (early, late) = (foundation.digest(), finish.digest());
    let of_foundation = |is_early: bool| if is_early { &early } else { &late };
    let packages = packages.digest();
    plan.build_steps().into_iter().try_fold(text, |text, step| {
        let digest = match step {
            StepId::Python | StepId::Apt | StepId::Servers => &early,
            StepId::BuildApt | StepId::Wheels | StepId::Resolve | StepId::Packages => &packages,
            StepId::Copies => of_foundation(!foundation.copies.is_empty()),
            StepId::Own(number) => of_foundation(number < foundation.steps.len()),
        };
        let titled = format!(": \"{}\" &&", step.title());
        if goal == Goal::Image && !text.contains(&titled) {
            return Err(DockerfileError::Untitled(step.title()));
        }
        Ok(text.replace(&titled, &format!("{titled} : {digest} &&")))
    })
}

/// The id of a cache that build steps share. A base may run what it likes in them, so only those of official images
/// have one in common.
fn cache(name: &str, base: &Reference) -> String {
    if matches!(base.repository(), "python" | "library/python" | "docker.io/library/python") {
        return name.to_owned();
    }
    format!("{name}-{}", hexadecimal(&Sha256::digest(base.in_full())[..6]))
}

fn settings(
    settings: &std::collections::BTreeMap<String, String>,
) -> Result<Vec<Setting<'_>>, DockerfileError> {
    let quoted = settings.iter().map(|(name, value)| match quote(value) {
        Some(value) => Ok(Setting { name, value }),
        None => Err(DockerfileError::Control { name: name.clone() }),
    });
    quoted.collect()
}

/// A value of `ENV` or `LABEL` in double quotes, where Docker expands variables; `None` where it
/// holds a control character.
///
/// Rule: Dockerfile reference, "Escape" and "Environment replacement".
fn quote(value: &str) -> Option<String> {
    let mut quoted = String::with_capacity(value.len() + 2);
    quoted.push('"');
    for character in value.chars() {
        match character {
            '"' | '\\' | '$' => quoted.extend(['\\', character]),
            control if control.is_control() => return None,
            plain => quoted.push(plain),
        }
    }
    quoted.push('"');
    Some(quoted)
}

/// A command in exec form: a JSON array, in which Docker expands nothing.
fn exec_form(command: &[String]) -> String {
    serde_json::to_string(command).expect("texts are JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_quoted_by_where_they_stand() {
        assert_eq!(quote(r#"a "b" \c $D ${E:-x}"#).unwrap(), r#""a \"b\" \\c \$D \${E:-x}""#);
        assert_eq!(quote("a\nRUN id"), None);
        assert_eq!(exec_form(&["a\"b\n".into()]), r#"["a\"b\n"]"#);
    }
}
