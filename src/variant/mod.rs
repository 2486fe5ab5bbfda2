//! Reads `variants/NAME/`: what a named kind of image starts from.

mod value;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_spanned::Spanned;

pub use value::{destination, executor_name, label_name, package, value, variable_name};

use crate::diagnostic::{Diagnostic, Document};
use crate::reference::Reference;
use crate::spec::{self, Dependency, pep508};

/// A named kind of image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variant {
    /// The name of its folder.
    pub name: String,
    /// One line for people.
    pub description: String,
    /// The Dockerfile template, a file of `templates/`.
    pub template: String,
    /// Where the packages of its list go.
    pub packages: Packages,
    /// What the servers' environment is installed from: a requirements file with hashes, of
    /// `templates/runtime/`.
    pub lock: String,
    /// What it is built on where the caller names nothing.
    pub base: Option<Reference>,
    /// What its executor server calls itself where the caller gives no name.
    pub executor_name: Option<String>,
    /// What `/opt/venv` has beside the kernel and the list: PEP 508 requirements.
    pub kernel: Vec<Dependency>,
    /// Debian packages.
    pub apt: Vec<String>,
    /// The servers that run in a container of it.
    pub servers: Vec<Server>,
    /// Ports it exposes beside those of its servers.
    pub ports: Vec<u16>,
    /// Its environment.
    pub env: BTreeMap<String, String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Files that are copied into it.
    pub copies: Vec<Copy>,
    /// Commands that change it.
    pub steps: Vec<Step>,
    /// What `ipybox verify` tries beside what it always does.
    pub checks: Vec<Check>,
    /// What is installed when the user names no dependency list.
    pub dependencies: Document,
    /// Its folder on this host, where paths of `copies` begin; `None` for one that is shipped.
    pub folder: Option<PathBuf>,
}

/// The module that is an executor server.
pub const EXECUTOR: &str = "ipybox.executor.server";

/// Where the packages of a list go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Packages {
    /// Into an environment that knows nothing of what the base has.
    #[default]
    Isolated,
    /// Into an environment that sees the base's distributions, and replaces none.
    Layered,
    /// Into the environment that the base's own server starts kernels with; nothing there is replaced.
    Inherited,
}

/// A server in a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// The TCP port it listens on, on every address of the container.
    pub port: u16,
    /// A variable of the container's environment that names another port.
    #[serde(default, rename = "port-variable", skip_serializing_if = "Option::is_none")]
    pub port_variable: Option<String>,
    /// A module of the servers' environment, and its arguments.
    pub command: Vec<String>,
}

impl Server {
    /// Whether it is the program that runs a module.
    #[must_use]
    pub fn runs(&self, module: &str) -> bool {
        self.command.first().is_some_and(|name| name == module)
    }

    /// The port it listens on in an environment.
    #[must_use]
    pub fn port_in(&self, env: &BTreeMap<String, String>) -> u16 {
        let named = self.port_variable.as_ref().and_then(|name| env.get(name)?.parse().ok());
        named.unwrap_or(self.port)
    }
}

/// A file or folder that becomes part of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Copy {
    /// A file or folder; relative to the variant's folder.
    pub from: PathBuf,
    /// An absolute path in the image. A folder's content is laid over what is there.
    pub to: String,
}

/// A command that changes an image while it is built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Lines for `/bin/sh -e`.
    pub run: String,
    /// Who runs it.
    #[serde(default, rename = "as")]
    pub who: Who,
    /// When it runs.
    #[serde(default)]
    pub at: When,
}

/// Who runs a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Who {
    /// The superuser.
    #[default]
    Root,
    /// The user that the image's servers run as.
    User,
}

/// When a step runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum When {
    /// Before the packages of the list are installed, so that another list does not run it again.
    Foundation,
    /// After everything else.
    #[default]
    End,
}

/// Something that must hold in a container: `code` or `command` must end well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// What should be.
    pub name: String,
    /// Python that a kernel runs.
    pub code: Option<String>,
    /// A command for `/bin/sh`, which the image's user runs in `/app`.
    pub command: Option<String>,
    /// A part of what that must write.
    pub prints: Option<String>,
}

/// `variant.toml`: a kind of image that `ipybox build -V NAME` makes.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct File {
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
    packages: Option<Packages>,
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
    #[schemars(with = "Vec<Check>")]
    check: Vec<Spanned<Check>>,
}

/// Why there is no such variant.
#[derive(Debug, thiserror::Error)]
pub enum VariantError {
    /// No variant has this name.
    #[error("there is no variant `{name}`")]
    Unknown {
        /// The name asked for.
        name: String,
        /// The names there are.
        known: Vec<String>,
    },
    /// A file of the variant cannot be read.
    #[error("cannot read `{}`", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// `variant.toml` is not what it should be.
    #[error("invalid `variant.toml`")]
    Invalid {
        /// The file and its text.
        file: Document,
        /// Where, in bytes of the text.
        at: Option<Range<usize>>,
        /// What is wrong there.
        why: String,
    },
}

macro_rules! shipped {
    ($($name:literal),*) => {
        [$((
            $name,
            include_str!(concat!("../../variants/", $name, "/variant.toml")),
            include_str!(concat!("../../variants/", $name, "/dependencies.txt")),
        )),*]
    };
}

const SHIPPED: [(&str, &str, &str); 7] =
    shipped!["kernel", "minimal", "basic", "example", "eval", "any-base", "extend-base"];

impl Variant {
    /// The names of all variants: the shipped ones in the order of their size, or the folders of
    /// `folder`, sorted.
    ///
    /// # Errors
    ///
    /// [`VariantError::Unreadable`] for the folder.
    pub fn names(folder: Option<&Path>) -> Result<Vec<String>, VariantError> {
        let Some(folder) = folder else {
            return Ok(SHIPPED.iter().map(|(name, ..)| (*name).to_owned()).collect());
        };
        let unreadable = |source| VariantError::Unreadable { path: folder.to_owned(), source };
        let mut names = Vec::new();
        for entry in folder.read_dir().map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            if entry.path().join("variant.toml").is_file()
                && let Ok(name) = entry.file_name().into_string()
            {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// Reads one variant, shipped or from a folder of folders.
    ///
    /// # Errors
    ///
    /// [`VariantError`] where there is none, or its files are not right.
    pub fn read(name: &str, folder: Option<&Path>) -> Result<Self, VariantError> {
        let known = Self::names(folder)?;
        if !known.iter().any(|known| known == name) {
            return Err(VariantError::Unknown { name: name.to_owned(), known });
        }
        let Some(folder) = folder else {
            return Self::shipped(name).expect("a name of the list above");
        };
        let folder = folder.join(name);
        let text = |file: &str| {
            let path = folder.join(file);
            let document = Document::read(&path, spec::MAX_BYTES)
                .map_err(|source| VariantError::Unreadable { path, source })?;
            // Line breaks of other systems would become part of commands.
            Ok(Document { text: document.text.replace("\r\n", "\n"), ..document })
        };
        let variant = Self::parse(name, text("variant.toml")?, text("dependencies.txt")?)?;
        Ok(Self { folder: Some(folder), ..variant })
    }

    /// A variant in the binary; `None` where none has the name.
    fn shipped(name: &str) -> Option<Result<Self, VariantError>> {
        let (_, settings, dependencies) = SHIPPED.into_iter().find(|(shipped, ..)| *shipped == name)?;
        Some(Self::parse(
            name,
            Document { name: format!("variants/{name}/variant.toml"), text: settings.into() },
            Document { name: format!("variants/{name}/dependencies.txt"), text: dependencies.into() },
        ))
    }

    /// The JSON schema of `variant.toml`.
    #[must_use]
    pub fn schema() -> serde_json::Value {
        schemars::schema_for!(File).to_value()
    }

    fn parse(name: &str, settings: Document, dependencies: Document) -> Result<Self, VariantError> {
        let read = toml_edit::de::from_str::<File>(&settings.text)
            .map_err(|error| Mistake { at: error.span(), why: error.message().to_owned() });
        let read = read.and_then(|file| Self::of(name, file, dependencies));
        read.map_err(|Mistake { at, why }| VariantError::Invalid { file: settings, at, why })
    }

    fn of(name: &str, file: File, dependencies: Document) -> Result<Self, Mistake> {
        let extended = match &file.extends {
            Some(extends) => extended(extends)?,
            None => Self::empty(),
        };
        let reference = |text: Spanned<String>| {
            let parsed = text.as_ref().parse();
            parsed.map_err(|error: crate::reference::ReferenceError| mistake(&text, &error.to_string()))
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
            _ => Ok(step.into_inner()),
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
        let other = if packages == Packages::Inherited { "server.tera" } else { "extend.tera" };
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

    /// What holds where a file says nothing.
    fn empty() -> Self {
        Self {
            name: String::new(),
            description: String::new(),
            template: "server.tera".to_owned(),
            packages: Packages::default(),
            lock: "server.txt".to_owned(),
            base: None,
            executor_name: None,
            kernel: Vec::new(),
            apt: Vec::new(),
            servers: Vec::new(),
            ports: Vec::new(),
            env: BTreeMap::new(),
            labels: BTreeMap::new(),
            copies: Vec::new(),
            steps: Vec::new(),
            checks: Vec::new(),
            dependencies: Document { name: String::new(), text: String::new() },
            folder: None,
        }
    }

    /// The server that runs a module, where there is one.
    #[must_use]
    pub fn server(&self, module: &str) -> Option<&Server> {
        self.servers.iter().find(|server| server.runs(module))
    }

    /// Its executor server, where it has one.
    #[must_use]
    pub fn executor(&self) -> Option<&Server> {
        self.server(EXECUTOR)
    }
}

/// Something that is wrong in a file: where, in bytes, and what.
struct Mistake {
    at: Option<Range<usize>>,
    why: String,
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

impl VariantError {
    /// The refusal, and the text it speaks of.
    #[must_use]
    pub fn diagnostic(self) -> (Option<Document>, Diagnostic) {
        let what = self.to_string();
        match self {
            Self::Unknown { known, .. } => {
                let advice = if known.is_empty() {
                    "a variant is a folder in `--variants` with a `variant.toml`".to_owned()
                } else {
                    format!("choose one of {}", known.join(", "))
                };
                (None, Diagnostic::new(what).advice(advice))
            }
            Self::Unreadable { source, .. } => (None, Diagnostic::new(what).why(source.to_string())),
            Self::Invalid { file, at, why } => {
                let diagnostic = Diagnostic { at, ..Diagnostic::new(what).why(why) };
                (Some(file), diagnostic)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Spec;

    #[test]
    fn every_shipped_variant_is_right() {
        for name in Variant::names(None).unwrap() {
            let variant = Variant::read(&name, None).unwrap();
            let spec = Spec::parse(&variant.dependencies.text).unwrap();
            let own = ["kernel", "any-base", "extend-base"].contains(&name.as_str());
            assert_eq!(spec.dependencies.is_empty(), own);
            assert_eq!(variant.servers[0].port, if name.ends_with("-base") { 62680 } else { 8888 });
        }
    }

    fn refused(settings: &str) -> String {
        let document = |text: &str| Document { name: "x".into(), text: text.into() };
        match Variant::parse("x", document(settings), document("")) {
            Err(VariantError::Invalid { at: Some(_), why, .. }) => why,
            other => panic!("`{settings}` gave {other:?}"),
        }
    }

    #[test]
    fn what_is_wrong_in_a_file_has_a_place() {
        for (line, part) in [
            ("apt = [\"curl;id\"]", "Debian package"),
            ("extends = \"nothing\"", "no shipped variant"),
            ("name = \"A b\"", "lower-case"),
            ("base = \"UPPER/case\"", "lower"),
            ("env = { \"A B\" = \"x\" }", "name of a variable"),
            ("env = { A = \"x\\ny\" }", "control character"),
            ("labels = { \"a b\" = \"x\" }", "name of a label"),
            ("[[copy]]\nfrom = \"a\"\nto = \"relative\"", "absolute path"),
            ("[[copy]]\nfrom = \"a\"\nto = \"/etc/../opt/venv\"", "absolute path"),
            ("[[copy]]\nfrom = \"a\"\nto = \"/opt/venv/bin\"", "nothing can be copied"),
            ("[[step]]\nrun = \" \"", "expected a command"),
            ("[[step]]\nrun = \"a\"\nas = \"me\"", "unknown variant"),
            ("[[check]]\nname = \"a\"", "either `code` or `command`"),
            ("stray = 1", "unknown field"),
            ("ports = [3000, 0]", "above 0"),
            ("labels = { \"ipybox.variant\" = \"x\" }", "the image's own"),
            ("[[copy]]\nfrom = \"\"\nto = \"/a\"", "in `from`"),
            ("", "expected a `[[server]]`"),
            ("[[server]]\nport = 0\ncommand = [\"a\"]", "above 0"),
            ("[[server]]\nport = 1\ncommand = []", "expected a module"),
            ("packages = \"inherited\"", "does not go together"),
            ("template = \"extend.tera\"", "does not go together"),
        ] {
            let extends = if line.starts_with("extends") || line.starts_with("[[server") || line.is_empty() {
                ""
            } else {
                "extends = \"any-base\"\n"
            };
            let why = refused(&format!("description = \"x\"\n{extends}{line}\n"));
            assert!(why.contains(part), "`{line}`: {why}");
        }
    }

    #[test]
    fn what_a_variant_extends_holds_where_it_is_silent() {
        let document = |text: &str| Document { name: "x".into(), text: text.into() };
        let text = "description = \"x\"\nextends = \"any-base\"\napt = [\"graphviz\"]\nports = [3000]\n\
                    env = { EXECUTOR_PORT = \"62681\" }\n";
        let variant = Variant::parse("x", document(text), document("")).unwrap();
        let parent = Variant::read("any-base", None).unwrap();
        assert_eq!(variant.servers, parent.servers);
        assert_eq!(variant.packages, Packages::Layered);
        assert_eq!(variant.env["EXECUTOR_PORT"], "62681");
        assert_eq!(variant.env.len(), parent.env.len());
        assert_eq!((variant.apt, variant.ports), (vec!["graphviz".to_owned()], vec![3000]));
    }

    #[test]
    fn the_examples_of_the_documents_are_right() {
        let page = include_str!("../../docs/variants.md");
        let examples: Vec<_> = page.split("```toml\n").skip(1).map(|rest| rest.split("```").next()).collect();
        assert_eq!(examples.len(), 2);
        for example in examples {
            let document = |text: &str| Document { name: "x".into(), text: text.into() };
            Variant::parse("x", document(example.unwrap()), document("")).unwrap();
        }
    }

    #[test]
    fn the_schema_of_the_documents_is_this_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/variant.schema.json");
        let schema = format!("{:#}\n", Variant::schema());
        assert_eq!(
            std::fs::read_to_string(path).unwrap_or_default(),
            schema,
            "run `ipybox variants --schema`"
        );
    }
}
