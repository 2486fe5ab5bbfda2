//! Reads `variants/NAME/`: what a named kind of image starts from.

use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::diagnostic::{Diagnostic, Document};
use crate::spec;

/// A named kind of image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variant {
    /// The name of its folder.
    pub name: String,
    /// One line for people.
    pub description: String,
    /// The Dockerfile template, a file of `templates/`.
    pub template: String,
    /// The servers that run in a container of it.
    pub servers: Vec<Server>,
    /// What is installed when the user names no dependency list.
    pub dependencies: Document,
}

/// A server in a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// The TCP port it listens on, on every address of the container.
    pub port: u16,
    /// A script of the servers' environment, and its arguments.
    pub command: Vec<String>,
}

/// `variant.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    description: String,
    template: String,
    #[serde(default)]
    server: Vec<Server>,
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

const SHIPPED: [(&str, &str, &str); 3] = [
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
        match toml_edit::de::from_str::<File>(&settings.text) {
            Ok(File { description, template, server }) => {
                Ok(Self { name: name.to_owned(), description, template, servers: server, dependencies })
            }
            Err(error) => Err(VariantError::Invalid {
                at: error.span(),
                why: error.message().to_owned(),
                file: settings,
            }),
        }
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
            assert!(!Spec::parse(&variant.dependencies.text).unwrap().dependencies.is_empty());
            assert_eq!(variant.servers[0].port, 8888);
        }
    }
}
