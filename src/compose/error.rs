//! Why a file does not get a service.

use std::ops::Range;

use crate::diagnostic::Diagnostic;

/// Why services cannot be told, or a file does not get them. Places are bytes of the file's text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompositionError {
    /// It is no YAML.
    #[error("it is no YAML")]
    Syntax {
        /// Where reading ended.
        at: Range<usize>,
        /// What the reader says.
        why: String,
    },
    /// A line begins with a tab.
    #[error("a line begins with a tab")]
    Tab {
        /// The tab.
        at: Range<usize>,
    },
    /// A carriage return is no part of a line end.
    #[error("a line ends with a lone carriage return")]
    CarriageReturn {
        /// The carriage return.
        at: Range<usize>,
    },
    /// There are several documents, or there is an end of one.
    #[error("there are several documents")]
    SeveralDocuments {
        /// Where the second begins, or the first ends.
        at: Range<usize>,
    },
    /// A map has a key twice.
    #[error("the key `{key}` is there twice")]
    DuplicateKey {
        /// The second.
        at: Range<usize>,
        /// The key.
        key: String,
    },
    /// It is nested too deep.
    #[error("it is nested too deep")]
    TooDeep {
        /// Where.
        at: Range<usize>,
    },
    /// Something would be added to what is in braces or brackets.
    #[error("nothing can be added to `{path}`")]
    Flow {
        /// Where that begins.
        at: Range<usize>,
        /// Its place in the document.
        path: String,
    },
    /// Something would be added to what other places stand for, or what stands for them.
    #[error("nothing can be added to `{path}`")]
    Shared {
        /// Where that begins.
        at: Range<usize>,
        /// Its place in the document.
        path: String,
    },
    /// Something is no map or list.
    #[error("`{path}` is no map")]
    Kind {
        /// Where it begins.
        at: Range<usize>,
        /// Its place in the document.
        path: String,
    },
    /// A key does not begin its line, or not where its siblings begin theirs.
    #[error("the layout is unusual")]
    Layout {
        /// The key.
        at: Range<usize>,
    },
    /// There is something by the name of what would be added, and it differs.
    #[error("{what} is there, and differs")]
    Differs {
        /// Its key.
        at: Range<usize>,
        /// What it is.
        what: String,
        /// How it differs.
        differences: Vec<String>,
    },
    /// Another service has the container's name.
    #[error("another service has the container `{container}`")]
    Taken {
        /// Its key.
        at: Range<usize>,
        /// The name of the container.
        container: String,
    },
    /// What was written does not read as what was meant.
    #[error("the edited file would not mean what it should")]
    Unproven,
    /// Kubernetes does not take a name.
    #[error("`{name}` is no name for Kubernetes")]
    LongName {
        /// The name.
        name: String,
    },
}

impl CompositionError {
    /// What to tell the user.
    #[must_use]
    pub fn diagnostic(&self) -> Diagnostic {
        const BY_HAND: &str =
            "write that part in lines of its own, or add the service by hand: without `--into` it is printed";
        let said = self.to_string();
        let placed = |at: &Range<usize>, why: &str, advice: &str| {
            Diagnostic::new(said.clone()).at(at.clone()).why(why).advice(advice)
        };
        match self {
            Self::Syntax { at, why } => {
                let why = why.escape_debug().to_string();
                placed(at, &why, "mend it; nothing was written")
            }
            Self::Tab { at } => placed(at, "YAML is indented with blanks", "replace it by blanks"),
            Self::CarriageReturn { at } => {
                placed(at, "line ends are `\\n` or `\\r\\n`", "save it with the line ends of your system")
            }
            Self::SeveralDocuments { at } => placed(
                at,
                "a Compose file is one document, without a mark where it ends",
                "name a file with one",
            ),
            Self::DuplicateKey { at, .. } => {
                placed(at, "readers take one or the other", "remove one of them")
            }
            Self::TooDeep { at } => placed(at, "no Compose file needs this", "name a Compose file"),
            Self::Flow { at, .. } => placed(at, "it is in braces or brackets", BY_HAND),
            Self::Shared { at, .. } => placed(
                at,
                "an anchor, alias, merge or tag would carry it to other places, or hide it",
                "add it by hand: without `--into` it is printed",
            ),
            Self::Kind { at, .. } => placed(at, "expected lines with keys", "name a Compose file"),
            Self::Layout { at } => {
                placed(at, "expected a key in a line of its own, as its siblings", BY_HAND)
            }
            Self::Differs { at, differences, .. } => placed(
                at,
                &differences.join("; "),
                "`--replace` writes it anew; what was added to it is lost",
            ),
            Self::Taken { at, .. } => placed(
                at,
                "an engine has one container of a name",
                "rename or remove that service, or name another executor",
            ),
            Self::Unproven => Diagnostic::new(said)
                .why("read once more, it is not the same and the service; nothing was written")
                .advice("add the service by hand: without `--into` it is printed"),
            Self::LongName { .. } => Diagnostic::new(said)
                .why("expected up to 63 letters, digits and `-`, the first a letter")
                .advice("choose another name"),
        }
    }
}
