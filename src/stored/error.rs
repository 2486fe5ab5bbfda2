//! Why an image in files is not taken.

use std::fmt;
use std::io;

use thiserror::Error;

use super::Place;
use crate::diagnostic::Diagnostic;
use crate::platform::Platform;

/// An image in files that is not taken.
#[derive(Debug, Error)]
#[error("cannot take the image `{place}`: {}{refusal}", part(.at.as_deref()))]
pub struct StoredError {
    /// Where it lies.
    pub place: Box<Place>,
    /// What of it is refused, if it is not the whole: a file's name, a digest, or a path in a layer.
    pub at: Option<String>,
    /// Why.
    #[source]
    pub refusal: Refusal,
}

fn part(at: Option<&str>) -> String {
    at.map_or_else(String::new, |at| format!("`{}`: ", at.escape_debug()))
}

/// What is wrong with an image, or with a part of it.
#[derive(Debug, Error)]
pub enum Refusal {
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Read(#[source] io::Error),
    /// The archive is compressed, so that it cannot be read in place.
    #[error("the archive as a whole is compressed")]
    Packed,
    /// A file that every such image has is not there.
    #[error("it is not there")]
    Missing,
    /// It is neither a regular file nor a link to one.
    #[error("it is no regular file")]
    Special,
    /// The archive has it twice, and readers differ in which one counts.
    #[error("it is there twice")]
    Twice,
    /// A path leads elsewhere, or cannot be one.
    #[error("its path {0}")]
    Path(&'static str),
    /// Its text cannot be understood.
    #[error("it is not well-formed: {0}")]
    Malformed(String),
    /// A tar archive that cannot be understood, or not by all readers alike.
    #[error("it is no tar archive that all read alike: {0}")]
    Tar(&'static str),
    /// More than any image has.
    #[error("it has more than {0}")]
    Limit(&'static str),
    /// It is longer or shorter than is said of it.
    #[error("it has {is} bytes, and not {said}")]
    Size {
        /// What is said, in bytes.
        said: u64,
        /// What is there, in bytes.
        is: u64,
    },
    /// Its content is not the one of its digest.
    #[error("its content is another one than `{0}`")]
    Digest(String),
    /// A digest that is none, or not of SHA-256.
    #[error("`{}` is no SHA-256 digest", .0.escape_debug())]
    UnknownDigest(String),
    /// A media type that is none of an image's.
    #[error("it is of the kind `{}`, which is not read", .0.escape_debug())]
    MediaType(String),
    /// A layer that is compressed as nothing here reads.
    #[error("it is compressed with zstd, which is not read")]
    Zstd,
    /// A layer that is not compressed as is said.
    #[error("it is {is}, and its media type says {said}")]
    Otherwise {
        /// What it is.
        is: &'static str,
        /// What is said.
        said: &'static str,
    },
    /// Its configuration speaks of other layers.
    #[error("it has {layers} layers, and its configuration speaks of {diff_ids}")]
    DiffIds {
        /// How many layers there are.
        layers: usize,
        /// How many the configuration has.
        diff_ids: usize,
    },
    /// There is no image.
    #[error("no image is in it")]
    Empty,
    /// There is no image of the name.
    #[error("no image of this name is in it; there is {}", listed(.0))]
    Name(Vec<String>),
    /// There are several images.
    #[error("several images are in it: {}", listed(.0))]
    Several(Vec<String>),
    /// There is none for the platform.
    #[error("it is not for {wanted}, but for {}", listed(.there))]
    Platform {
        /// What is wanted.
        wanted: Platform,
        /// What there is.
        there: Vec<Platform>,
    },
}

/// How many of what there is are told.
const MOST_TOLD: usize = 10;

fn listed(all: &[impl ToString]) -> String {
    let mut told: Vec<_> =
        all.iter().take(MOST_TOLD).map(|one| format!("`{}`", one.to_string().escape_debug())).collect();
    if all.is_empty() {
        told.push("none with a name".to_owned());
    }
    if all.len() > MOST_TOLD {
        told.push(format!("{} more", all.len() - MOST_TOLD));
    }
    told.join(", ")
}

impl Refusal {
    /// Names the part.
    pub(super) fn of(self, at: impl Into<String>) -> Fault {
        Fault { at: Some(at.into()), refusal: self }
    }

    pub(super) fn malformed(why: &dyn fmt::Display) -> Self {
        Self::Malformed(why.to_string())
    }
}

/// Refusals travel through readers as their errors.
impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        error.downcast().unwrap_or_else(Self::Read)
    }
}

impl From<Refusal> for io::Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Read(error) => error,
            refusal => Self::new(io::ErrorKind::InvalidData, refusal),
        }
    }
}

/// A refusal of a part, or of the whole.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) at: Option<String>,
    pub(super) refusal: Refusal,
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        Self { at: None, refusal }
    }
}

impl Fault {
    /// Names the image.
    pub(super) fn in_image(self, place: &Place) -> StoredError {
        StoredError { place: Box::new(place.clone()), at: self.at, refusal: self.refusal }
    }
}

impl StoredError {
    /// The refusal of an image.
    #[must_use]
    pub fn diagnostic(&self) -> Diagnostic {
        let place = self.place.to_string();
        let what = Diagnostic::new(format!("cannot take the image `{}`", place.escape_debug()));
        let advice = match &self.refusal {
            Refusal::Read(_) => {
                "see that the path is right, that the file may be read and that all of it is there"
            }
            Refusal::Packed => "decompress it first, such as with `gunzip`",
            Refusal::Missing | Refusal::Special if matches!(*self.place, Place::DockerArchive { .. }) => {
                "give what `docker save` writes; an archive with `index.json` alone is one of `oci-archive:`"
            }
            Refusal::Missing | Refusal::Special => {
                "give an OCI image layout with all its blobs; what `docker save` writes is one of `docker-archive:`"
            }
            Refusal::MediaType(_) | Refusal::Zstd | Refusal::Otherwise { .. } => {
                "copy it with `skopeo copy --dest-compress-format gzip`, which writes its layers anew"
            }
            Refusal::Empty | Refusal::Platform { .. } => {
                "give another image, or `--platform` with one of those that there are"
            }
            Refusal::Name(_) | Refusal::Several(_) => "write one of these names after the path and a colon",
            _ => {
                "write the image anew with `docker save` or `skopeo copy`; if that ends the same, tell those who made it"
            }
        };
        what.why(format!("{}{}", part(self.at.as_deref()), self.refusal)).advice(advice)
    }
}
