//! Reads `variants/NAME/`: what a named kind of image starts from.

use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_spanned::Spanned;

use crate::diagnostic::{Diagnostic, Document};
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
    /// What the servers' environment is installed from: a requirements file with hashes, of
    /// `templates/runtime/`.
    pub lock: String,
    /// What `/opt/venv` has beside the kernel and the list: PEP 508 requirements.
    pub kernel: Vec<Dependency>,
    /// Debian packages.
    pub apt: Vec<String>,
    /// The servers that run in a container of it.
    pub servers: Vec<Server>,
    /// What `ipybox verify` tries beside what it always does.
    pub checks: Vec<Check>,
    /// What is installed when the user names no dependency list.
    pub dependencies: Document,
}

/// A server in a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// The TCP port it listens on, on every address of the container.
    pub port: u16,
    /// A module of the servers' environment, and its arguments.
    pub command: Vec<String>,
}

/// Something that must hold in a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// What should be.
    pub name: String,
    /// Python that a kernel runs; it must end without an error.
    pub code: String,
    /// A part of what that must write.
    pub prints: Option<String>,
}

/// `variant.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    description: String,
    template: String,
    #[serde(default = "every_server")]
    lock: String,
    #[serde(default)]
    kernel: Vec<Spanned<String>>,
    #[serde(default)]
    apt: Vec<Spanned<String>>,
    #[serde(default)]
    server: Vec<Server>,
    #[serde(default)]
    check: Vec<Check>,
}

fn every_server() -> String {
    "server.txt".to_owned()
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

const SHIPPED: [(&str, &str, &str); 5] = [
    (
        "kernel",
        include_str!("../variants/kernel/variant.toml"),
        include_str!("../variants/kernel/dependencies.txt"),
    ),
    (
        "minimal",
        include_str!("../variants/minimal/variant.toml"),
        include_str!("../variants/minimal/dependencies.txt"),
    ),
    (
        "basic",
        include_str!("../variants/basic/variant.toml"),
        include_str!("../variants/basic/dependencies.txt"),
    ),
    (
        "example",
        include_str!("../variants/example/variant.toml"),
        include_str!("../variants/example/dependencies.txt"),
    ),
    (
        "eval",
        include_str!("../variants/eval/variant.toml"),
        include_str!("../variants/eval/dependencies.txt"),
    ),
];

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
            let (_, settings, dependencies) =
                SHIPPED.into_iter().find(|(shipped, ..)| *shipped == name).expect("a name of the list above");
            return Self::parse(
                name,
                Document { name: format!("variants/{name}/variant.toml"), text: settings.into() },
                Document { name: format!("variants/{name}/dependencies.txt"), text: dependencies.into() },
            );
        };
        let text = |file: &str| {
            let path = folder.join(name).join(file);
            Document::read(&path, spec::MAX_BYTES).map_err(|source| VariantError::Unreadable { path, source })
        };
        Self::parse(name, text("variant.toml")?, text("dependencies.txt")?)
    }

    fn parse(name: &str, settings: Document, dependencies: Document) -> Result<Self, VariantError> {
        let read = toml_edit::de::from_str::<File>(&settings.text);
        let read = read.map_err(|error| (error.span(), error.message().to_owned())).and_then(|file| {
            let File { description, template, lock, kernel, apt, server: servers, check: checks } = file;
            let kernel = kernel.iter().map(requirement).collect::<Result<_, _>>()?;
            let apt = apt.iter().map(package).collect::<Result<_, _>>()?;
            let name = name.to_owned();
            Ok(Self { name, description, template, lock, kernel, apt, servers, checks, dependencies })
        });
        read.map_err(|(at, why)| VariantError::Invalid { file: settings, at, why })
    }
}

/// Where something is wrong, in bytes, and what.
type Mistake = (Option<Range<usize>>, String);

fn requirement(text: &Spanned<String>) -> Result<Dependency, Mistake> {
    pep508::parse(text.as_ref()).map_err(|error| (Some(text.span()), error.why))
}

/// A Debian package, with a version or an architecture if need be.
///
/// Rule: Debian Policy, 5.6.1 and 5.6.12.
fn package(text: &Spanned<String>) -> Result<String, Mistake> {
    let rest = |byte: u8| byte.is_ascii_alphanumeric() || b".+-:~=".contains(&byte);
    let name = text.as_ref();
    let first = name.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric);
    // Behind a name a hyphen asks for its removal.
    if first && name.bytes().all(rest) && !name.ends_with('-') {
        Ok(name.clone())
    } else {
        Err((Some(text.span()), "expected the name of a Debian package".to_owned()))
    }
}

impl VariantError {
    /// The refusal, and the text it speaks of.
    #[must_use]
    pub fn diagnostic(self) -> (Option<Document>, Diagnostic) {
        let what = self.to_string();
        match self {
            Self::Unknown { known, .. } => {
                (None, Diagnostic::new(what).advice(format!("choose one of {}", known.join(", "))))
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
            assert_eq!(spec.dependencies.is_empty(), name == "kernel");
            assert_eq!(variant.servers[0].port, 8888);
        }
    }
}
