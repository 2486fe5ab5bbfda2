//! Where an image lies.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use thiserror::Error;

use crate::reference::Reference;

/// Where an image lies in files of this host, as skopeo and podman write it.
///
/// Rule: containers-transports(5). The file is what stands before the first colon, so its path has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// `oci:FOLDER[:NAME]`, an OCI image layout.
    Layout {
        /// The folder.
        folder: PathBuf,
        /// Which of its images.
        name: Option<String>,
    },
    /// `oci-archive:FILE[:NAME]`, such a layout as a tar archive.
    OciArchive {
        /// The archive.
        file: PathBuf,
        /// Which of its images.
        name: Option<String>,
    },
    /// `docker-archive:FILE[:NAME]`, what `docker save` writes.
    DockerArchive {
        /// The archive.
        file: PathBuf,
        /// Which of its images.
        name: Option<String>,
    },
}

/// Why a text is no place of an image.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PlaceError {
    /// It begins with nothing that is known.
    #[error("expected `oci:FOLDER`, `oci-archive:FILE` or `docker-archive:FILE`")]
    Kind,
    /// Nothing follows.
    #[error("expected a path after `{0}:`")]
    NoPath(&'static str),
    /// A colon is all that follows the path.
    #[error("expected the name of an image after the last colon")]
    NoName,
}

const LAYOUT: &str = "oci";
const OCI_ARCHIVE: &str = "oci-archive";
const DOCKER_ARCHIVE: &str = "docker-archive";

impl Place {
    /// The place that a text names; `None` where it does not begin as one, and so may be the name of an image in an engine.
    #[must_use]
    pub fn told(text: &str) -> Option<Result<Self, PlaceError>> {
        match text.parse() {
            Err(PlaceError::Kind) => None,
            parsed => Some(parsed),
        }
    }

    /// The file or folder.
    #[must_use]
    pub fn path(&self) -> &PathBuf {
        match self {
            Self::Layout { folder: path, .. }
            | Self::OciArchive { file: path, .. }
            | Self::DockerArchive { file: path, .. } => path,
        }
    }

    /// Which of the images there.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Layout { name, .. } | Self::OciArchive { name, .. } | Self::DockerArchive { name, .. } => {
                name.as_deref()
            }
        }
    }

    /// A name for the image, where one is wanted: its own, or that of its file.
    #[must_use]
    pub fn reference(&self) -> Reference {
        if let Some(reference) = self.name().and_then(|name| name.parse().ok()) {
            return reference;
        }
        let file =
            self.path().file_stem().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
        file.parse().unwrap_or_else(|_| "base".parse().expect("it is a name"))
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Layout { .. } => LAYOUT,
            Self::OciArchive { .. } => OCI_ARCHIVE,
            Self::DockerArchive { .. } => DOCKER_ARCHIVE,
        }
    }
}

impl FromStr for Place {
    type Err = PlaceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (kind, rest) = text.split_once(':').ok_or(PlaceError::Kind)?;
        let kind = [LAYOUT, OCI_ARCHIVE, DOCKER_ARCHIVE].into_iter().find(|known| *known == kind);
        let kind = kind.ok_or(PlaceError::Kind)?;
        let (path, name) = rest.split_once(':').map_or((rest, None), |(path, name)| (path, Some(name)));
        if path.is_empty() {
            return Err(PlaceError::NoPath(kind));
        }
        if name == Some("") {
            return Err(PlaceError::NoName);
        }
        let (path, name) = (PathBuf::from(path), name.map(str::to_owned));
        Ok(match kind {
            LAYOUT => Self::Layout { folder: path, name },
            OCI_ARCHIVE => Self::OciArchive { file: path, name },
            _ => Self::DockerArchive { file: path, name },
        })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind(), self.path().display())?;
        self.name().map_or(Ok(()), |name| write!(f, ":{name}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_told_from_names_of_images_by_how_they_begin() {
        for (text, path, name) in [
            ("oci:dir", "dir", None),
            ("oci:/a/b:x", "/a/b", Some("x")),
            ("oci-archive:a.tar:docker.io/library/x:1", "a.tar", Some("docker.io/library/x:1")),
            ("docker-archive:./a b.tar:x:latest", "./a b.tar", Some("x:latest")),
        ] {
            let place = Place::told(text).unwrap().unwrap();
            assert_eq!((place.path().to_str(), place.name()), (Some(path), name), "{text}");
            assert_eq!(place.to_string(), text);
        }
        for text in ["oci", "python:3.12", "oci/x", "registry.invalid/oci:x", "OCI:dir", "oci-dir:x", ""] {
            assert_eq!(Place::told(text), None, "{text}");
        }
        for (text, error) in [
            ("oci:", PlaceError::NoPath("oci")),
            ("docker-archive::x", PlaceError::NoPath("docker-archive")),
            ("oci-archive:x:", PlaceError::NoName),
        ] {
            assert_eq!(Place::told(text), Some(Err(error)), "{text}");
        }
    }
}
