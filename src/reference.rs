//! Names of images, as Docker's grammar has them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The name of an image: a repository with a tag, or with a digest.
///
/// Rule: the distribution project's reference grammar. A name without a tag or digest means
/// `latest`. Names are kept as they were written, without `docker.io/library/` in front.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference {
    repository: String,
    tag: Option<String>,
    digest: Option<String>,
}

/// Why a text names no image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// There is nothing before the tag.
    #[error("an image name is missing")]
    Empty,
    /// A repository has characters that are not allowed.
    #[error(
        "`{0}` is no image name: lower-case letters and digits, separated by `.`, `_` or `-`, in parts joined by `/`"
    )]
    Repository(String),
    /// A tag has characters that are not allowed, or more than 128.
    #[error("`{0}` is no tag: up to 128 letters, digits, `_`, `.` and `-`, not beginning with `.` or `-`")]
    Tag(String),
    /// A digest is not `sha256:` and 64 hexadecimal digits.
    #[error("`{0}` is no digest: `sha256:` and 64 hexadecimal digits")]
    Digest(String),
    /// The repository has more than 255 characters.
    #[error("an image name has at most 255 characters before its tag")]
    TooLong,
}

impl Reference {
    /// Everything before the tag or digest, with the registry's host where one was written.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag; `latest` where neither tag nor digest was written, `None` beside a digest alone.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        match (&self.tag, &self.digest) {
            (Some(tag), _) => Some(tag),
            (None, None) => Some("latest"),
            (None, Some(_)) => None,
        }
    }

    /// The whole name, with the tag even where that is `latest`.
    #[must_use]
    pub fn in_full(&self) -> String {
        match (&self.tag, &self.digest) {
            (None, None) => format!("{}:latest", self.repository),
            _ => self.to_string(),
        }
    }

    /// The repository with the registry that a name without one means.
    ///
    /// Rule: the distribution project, `reference.ParseNormalizedNamed`.
    #[must_use]
    pub fn canonical(&self) -> String {
        match self.registry() {
            Some(_) => self.repository.clone(),
            None if self.repository.contains('/') => format!("docker.io/{}", self.repository),
            None => format!("docker.io/library/{}", self.repository),
        }
    }

    /// The registry that serves the image, also where a name without one means Docker's.
    #[must_use]
    pub fn host(&self) -> &str {
        self.registry().unwrap_or("docker.io")
    }

    /// Whether Docker takes the name for an image id or a digest, and so refuses to give it.
    #[must_use]
    pub fn looks_like_an_id(&self) -> bool {
        let hexadecimal = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        self.repository == "sha256"
            || (self.repository.len() == 64 && self.repository.bytes().all(hexadecimal))
    }

    /// The digest, where one was written.
    #[must_use]
    pub fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    /// The registry that serves the image: the first part of the name where that is a host.
    #[must_use]
    pub fn registry(&self) -> Option<&str> {
        let (first, _) = self.repository.split_once('/')?;
        (first.contains(['.', ':']) || first == "localhost").then_some(first)
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest)),
            None => (text, None),
        };
        let last_part = name.rfind('/').map_or(0, |slash| slash + 1);
        let (repository, tag) = match name[last_part..].split_once(':') {
            Some((end, tag)) => (&name[..last_part + end.len()], Some(tag)),
            None => (name, None),
        };
        if repository.is_empty() {
            return Err(ReferenceError::Empty);
        }
        if repository.len() > 255 {
            return Err(ReferenceError::TooLong);
        }
        let parts: Vec<_> = repository.split('/').collect();
        let valid = parts
            .iter()
            .enumerate()
            .all(|(index, part)| is_component(part) || (index == 0 && parts.len() > 1 && is_host(part)));
        if !valid {
            return Err(ReferenceError::Repository(repository.escape_debug().to_string()));
        }
        if let Some(tag) = tag.filter(|tag| !is_tag(tag)) {
            return Err(ReferenceError::Tag(tag.escape_debug().to_string()));
        }
        if let Some(digest) = digest.filter(|digest| !is_digest(digest)) {
            return Err(ReferenceError::Digest(digest.escape_debug().to_string()));
        }
        Ok(Self {
            repository: repository.to_owned(),
            tag: tag.map(str::to_owned),
            digest: digest.map(str::to_owned),
        })
    }
}

/// Runs of lower-case letters and digits, separated by `.`, `_`, `__` or any number of `-`.
fn is_component(part: &str) -> bool {
    let alphanumeric =
        |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let bytes = part.as_bytes();
    alphanumeric(bytes.first())
        && alphanumeric(bytes.last())
        && part.split(|character: char| character.is_ascii_lowercase() || character.is_ascii_digit()).all(
            |separator| {
                matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|byte| byte == b'-')
            },
        )
}

/// A host name with an optional port; told from a component by `.`, `:` or the name `localhost`.
fn is_host(part: &str) -> bool {
    let (host, port) = part.split_once(':').unwrap_or((part, "0"));
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    host.split('.').all(label)
        && !port.is_empty()
        && port.bytes().all(|byte| byte.is_ascii_digit())
        && (part.contains(['.', ':']) || part == "localhost")
}

fn is_tag(tag: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (1..=128).contains(&tag.len())
        && word(tag.as_bytes()[0])
        && tag.bytes().all(|byte| word(byte) || b".-".contains(&byte))
}

/// Whether a text is `sha256:` and 64 hexadecimal digits, so that it is safe as a part of a path.
pub(crate) fn is_digest(digest: &str) -> bool {
    digest.strip_prefix("sha256:").is_some_and(|hex| {
        hex.len() == 64 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    })
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl TryFrom<String> for Reference {
    type Error = ReferenceError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> Self {
        reference.to_string()
    }
}

/// The id of an image in an engine: `sha256:` and 64 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageId(String);

impl ImageId {
    /// The whole id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first twelve digits, as Docker shows them.
    #[must_use]
    pub fn short(&self) -> &str {
        &self.0["sha256:".len()..][..12]
    }
}

impl TryFrom<String> for ImageId {
    type Error = ReferenceError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if is_digest(&text) { Ok(Self(text)) } else { Err(ReferenceError::Digest(text)) }
    }
}

impl From<ImageId> for String {
    fn from(id: ImageId) -> Self {
        id.0
    }
}

impl fmt::Display for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_docker_takes_are_taken() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        for (text, repository, tag, registry) in [
            ("demo", "demo", Some("latest"), None),
            ("demo:1.0_x-y", "demo", Some("1.0_x-y"), None),
            ("team/a__b.c---d:v1", "team/a__b.c---d", Some("v1"), None),
            ("localhost/x", "localhost/x", Some("latest"), Some("localhost")),
            ("127.0.0.1:5000/x:y", "127.0.0.1:5000/x", Some("y"), Some("127.0.0.1:5000")),
            ("Registry.invalid/x", "Registry.invalid/x", Some("latest"), Some("Registry.invalid")),
            (&format!("x@{digest}"), "x", None, None),
            (&format!("x:y@{digest}"), "x", Some("y"), None),
        ] {
            let reference: Reference = text.parse().unwrap();
            assert_eq!(reference.to_string(), text);
            assert_eq!(reference.repository(), repository);
            assert_eq!(reference.tag(), tag);
            assert_eq!(reference.registry(), registry);
        }
    }

    #[test]
    fn names_that_docker_refuses_are_refused() {
        for text in [
            "",
            ":x",
            "Demo",
            "a/B",
            "a b",
            "a\nb",
            "a//b",
            "/a",
            "a/",
            "-a",
            "a-",
            "a___b",
            "a..b",
            "a:",
            "a:.x",
            "a:-x",
            "a:x y",
            "a:b:c",
            "a@sha256:12",
            "a@",
            "$(id)",
            "a:$(id)",
            "exa_mple:5000/x",
        ] {
            assert!(text.parse::<Reference>().is_err(), "`{text}` was taken");
        }
        assert!(format!("a:{}", "x".repeat(129)).parse::<Reference>().is_err());
        assert!("a".repeat(256).parse::<Reference>().is_err());
    }
}
