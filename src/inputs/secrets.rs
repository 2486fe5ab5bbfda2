//! Secrets for the steps of a variant.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

use crate::diagnostic::Diagnostic;
use crate::request::{Request, SecretFrom};
use crate::variant::Variant;

/// The largest secret, in bytes.
///
/// Rule: `BuildKit`, `session/secrets/secretsprovider`: larger ones are refused.
const MAX_BYTES: u64 = 500 * 1024;

/// Why a secret cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// A step needs one that was not given.
    #[error("a step of the variant `{variant}` needs the secret `{id}`")]
    Missing {
        /// The variant.
        variant: String,
        /// What the step calls it.
        id: String,
    },
    /// Its file cannot be read.
    #[error("cannot read the secret `{id}` in `{}`", path.display())]
    Unreadable {
        /// What it is called.
        id: String,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its variable is not set.
    #[error("the secret `{id}` is in the variable `{name}`, which is not set")]
    Unset {
        /// What it is called.
        id: String,
        /// The variable.
        name: String,
    },
}

impl SecretError {
    /// The refusal.
    #[must_use]
    pub fn diagnostic(&self) -> Diagnostic {
        let what = Diagnostic::new(self.to_string());
        match self {
            Self::Missing { id, .. } => what.advice(format!(
                "give it with `--secret id={id},src=FILE` or `--secret id={id},env=VARIABLE`"
            )),
            Self::Unreadable { source, .. } => what.why(source.to_string()),
            Self::Unset { .. } => what.why("an empty one counts as not set"),
        }
    }
}

/// What the steps of a variant need, by the names they have for it.
///
/// # Errors
///
/// [`SecretError`].
pub fn read(
    request: &Request,
    variant: &Variant,
    variable: fn(&str) -> Option<String>,
) -> Result<BTreeMap<String, Vec<u8>>, SecretError> {
    let needed = variant.steps.iter().flat_map(|step| &step.secrets);
    let content = |id: &String| {
        let missing = || SecretError::Missing { variant: variant.name.clone(), id: id.clone() };
        let content = match request.secrets.get(id).ok_or_else(missing)? {
            SecretFrom::Variable(name) => variable(name)
                .ok_or_else(|| SecretError::Unset { id: id.clone(), name: name.clone() })?
                .into_bytes(),
            SecretFrom::File(path) => of_file(path).map_err(|source| SecretError::Unreadable {
                id: id.clone(),
                path: path.clone(),
                source,
            })?,
        };
        Ok((id.clone(), content))
    };
    needed.map(content).collect()
}

fn of_file(path: &PathBuf) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    File::open(path)?.take(MAX_BYTES + 1).read_to_end(&mut content)?;
    if content.len() as u64 > MAX_BYTES {
        return Err(io::Error::other(format!(
            "it is larger than {} kB, the most that a secret may have",
            MAX_BYTES / 1024
        )));
    }
    Ok(content)
}
