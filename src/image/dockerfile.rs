//! A [`Plan`] to Dockerfile text through `templates/*.tera`; places values, never decides.

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::archive::{EPOCH, hexadecimal};
use crate::base::Base;
use crate::diagnostic::Diagnostic;
use crate::image::context;
use crate::inputs::templates::Templates;
use crate::installer::words;
use crate::plan::{Plan, StepId, WORKDIR};
use crate::reference::Reference;
use crate::variant::{Placement, When, Who};

/// The id under which build steps find the certificates.
pub const CA_SECRET: &str = "ipybox-ca";

/// Where a build finds the base and the installer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Supply {
    /// Under private tags in the engine.
    Engine,
    /// The base under its own name, the installer in the context: for `docker build` by anybody.
    Context,
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
    labels: Vec<Setting<'a>>,
    python: &'a str,
    /// The archive the interpreter is unpacked from, and the folder in it.
    archive: Option<Unpacked<'a>>,
    /// The interpreter that steps may use.
    servers_python: String,
    /// `UID:GID`.
    owner: String,
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
    /// Whether wheels are built.
    builds: bool,
    /// Whether versions are constrained beyond what is asked for.
    bounds: bool,
    /// Whether hashes are checked apart from the installer.
    hashes: bool,
    /// Debian packages, with a blank between them.
    apt: String,
    /// Whether Debian's curl is installed where that can be.
    wants_curl: bool,
    bytecode: bool,
    ports: &'a [u16],
    /// Ends well where every server answers; in exec form.
    health: String,
    /// In exec form.
    command: String,
    epoch: u64,
    workdir: &'static str,
    ca_secret: &'static str,
    titles: Titles,
    words: Words,
    /// The ids of the package caches that steps share.
    cache: String,
    apt_cache: String,
}

/// What the steps are called.
#[derive(Serialize)]
struct Titles {
    python: String,
    apt: String,
    servers: String,
    wheels: String,
    packages: String,
    copies: String,
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
}

#[derive(Serialize)]
struct Setting<'a> {
    name: &'a str,
    /// Quoted.
    value: String,
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
) -> Result<String, DockerfileError> {
    let (uid, gid) = plan.foundation.user.ids();
    let steps = |at: When| {
        let steps = plan.own_steps().enumerate().filter(move |(_, step)| step.at == at);
        steps
            .map(|(number, step)| OwnStep {
                number,
                title: StepId::Own(number).title(),
                as_user: step.who == Who::User,
            })
            .collect()
    };
    let Plan { foundation, packages, finish, .. } = plan;
    let values = Values {
        ipybox: &plan.ipybox,
        variant: &plan.variant,
        uv_stage: match supply {
            Supply::Engine => format!("FROM {} AS uv\n", foundation.installer.private_tag()),
            Supply::Context => format!("FROM scratch AS uv\nCOPY {0} /uv\n", context::UV),
        },
        base: match supply {
            Supply::Engine => foundation.base.private_tag().to_string(),
            // In full, since a name alone could be that of a stage.
            Supply::Context => foundation.base.reference.in_full(),
        },
        env: settings(&foundation.env)?,
        labels: settings(&finish.labels)?,
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
        builds: !packages.sources.is_empty(),
        bounds: !packages.bounds.is_empty(),
        hashes: packages.checks_hashes(),
        apt: foundation.apt.join(" "),
        wants_curl: foundation.wants_curl,
        bytecode: foundation.bytecode,
        ports: &finish.ports,
        health: exec_form(&foundation.health()),
        command: exec_form(&foundation.command()),
        epoch: EPOCH,
        workdir: WORKDIR,
        ca_secret: CA_SECRET,
        titles: Titles {
            python: StepId::Python.title(),
            apt: StepId::Apt.title(),
            servers: StepId::Servers.title(),
            wheels: StepId::Wheels.title(),
            packages: StepId::Packages.title(),
            copies: StepId::Copies.title(),
        },
        words: Words {
            no_solution: words::NO_SOLUTION,
            spoilt: words::SPOILT,
            refusing_index: words::REFUSING_INDEX,
        },
        cache: cache("ipybox-uv", &foundation.base.reference),
        apt_cache: cache("ipybox-apt", &foundation.base.reference),
    };
    let failed = |source| DockerfileError::Template { name: plan.foundation.template.clone(), source };
    let mut tera = tera::Tera::new();
    tera.autoescape_on(Vec::<&str>::new());
    // The line break at a template's end belongs to the file, not to what it stands for.
    let texts = templates.dockerfiles().map(|(name, text)| (name, text.trim_end()));
    tera.add_raw_templates(texts).map_err(failed)?;
    let values = tera::Context::from_serialize(&values).map_err(failed)?;
    tera.render(&plan.foundation.template, &values).map(|text| text + "\n").map_err(failed)
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
