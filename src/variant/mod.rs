//! Reads `variants/NAME/`: what a named kind of image starts from.

mod file;
mod value;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use value::{
    destination, executor_name, is_of_firewall, label_name, package, secret_id, value, variable_name,
};

use file::{File, Mistake};

use crate::deps::{self, Dependency};
use crate::diagnostic::{Diagnostic, Document};
use crate::reference::Reference;

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
    pub packages: Placement,
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
    pub checks: Vec<OwnCheck>,
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
pub enum Placement {
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
    /// What it speaks, by which clients and `ipybox verify` know it. Where it is left out, what the shipped module of the
    /// command speaks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<Interface>,
}

/// What clients of a server rely on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Interface {
    /// Kernels over websockets, as Jupyter's kernel gateway has them.
    Gateway,
    /// Files, sources of modules and MCP tools, as ipybox has them.
    Resources,
    /// Code and commands in workspaces, as skill-compose has them.
    Executor,
}

/// The modules that are shipped, and what they speak.
const MODULES: [(&str, Interface); 3] = [
    ("kernel_gateway", Interface::Gateway),
    ("ipybox.resource.server", Interface::Resources),
    (EXECUTOR, Interface::Executor),
];

impl Server {
    /// Whether clients of an interface can use it.
    #[must_use]
    pub fn speaks(&self, interface: Interface) -> bool {
        let of_module =
            || MODULES.iter().find(|(module, _)| self.command.first().is_some_and(|name| name == module));
        self.interface.or_else(|| of_module().map(|(_, interface)| *interface)) == Some(interface)
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
    /// Secrets that it reads in `/dev/ipybox/secrets/`, by the ids that `--secret` gives them. They leave no trace in the
    /// image, and another content alone does not run the step again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<String>,
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
pub struct OwnCheck {
    /// What should be.
    pub name: String,
    /// Python that a kernel runs.
    pub code: Option<String>,
    /// A command for `/bin/sh`, which the image's user runs in `/app`.
    pub command: Option<String>,
    /// A part of what that must write.
    pub prints: Option<String>,
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
            let document = Document::read(&path, deps::MAX_BYTES)
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
            Document::new(format!("variants/{name}/variant.toml"), settings),
            Document::new(format!("variants/{name}/dependencies.txt"), dependencies),
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

    /// What holds where a file says nothing.
    fn empty() -> Self {
        Self {
            name: String::new(),
            description: String::new(),
            template: "server.tera".to_owned(),
            packages: Placement::default(),
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
            dependencies: Document::new("", String::new()),
            folder: None,
        }
    }

    /// The server with an interface, where it has one.
    #[must_use]
    pub fn server(&self, interface: Interface) -> Option<&Server> {
        self.servers.iter().find(|server| server.speaks(interface))
    }
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
    use crate::deps::Spec;

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
        let document = |text: &str| Document::new("x", text);
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
        let document = |text: &str| Document::new("x", text);
        let text = "description = \"x\"\nextends = \"any-base\"\napt = [\"graphviz\"]\nports = [3000]\n\
                    env = { EXECUTOR_PORT = \"62681\" }\n";
        let variant = Variant::parse("x", document(text), document("")).unwrap();
        let parent = Variant::read("any-base", None).unwrap();
        assert_eq!(variant.servers, parent.servers);
        assert_eq!(variant.packages, Placement::Layered);
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
            let document = |text: &str| Document::new("x", text);
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
