//! Why a wheel is not taken.

use std::io;

use thiserror::Error;

use crate::diagnostic::Diagnostic;

/// A wheel that is not taken.
#[derive(Debug, Error)]
#[error("cannot take the wheel `{wheel}`: {}{refusal}", place(.entry.as_deref()))]
pub struct WheelError {
    /// The name of its file.
    pub wheel: String,
    /// What in it is refused, if it is not the whole.
    pub entry: Option<String>,
    /// Why.
    #[source]
    pub refusal: Refusal,
}

fn place(entry: Option<&str>) -> String {
    entry.map_or_else(String::new, |entry| format!("`{}`: ", entry.escape_debug()))
}

/// What is wrong with a wheel, or with an entry of it.
#[derive(Debug, Error)]
pub enum Refusal {
    /// It cannot be read, or in more than one way.
    #[error("it is no zip archive that all read alike: {0}")]
    Archive(&'static str),
    /// More than any wheel has.
    #[error("it has more than {0}")]
    Limit(&'static str),
    /// The path is none that a wheel may have.
    #[error("its path {0}")]
    Path(&'static str),
    /// What the archive says of it in two places is not the same.
    #[error("its two headers differ in the {0}")]
    Headers(&'static str),
    /// It is neither a regular file nor a folder.
    #[error("it is a symbolic link or a device")]
    Special,
    /// It can be read with a password only.
    #[error("it is encrypted")]
    Encrypted,
    /// It is compressed in a way that wheels are not.
    #[error("it is compressed with the unknown method {0}")]
    Method(u16),
    /// Two entries have one path.
    #[error("it is there twice")]
    Twice,
    /// Two entries have paths that some file systems take for one.
    #[error("another entry's path differs in case alone")]
    Case,
    /// A file lies below it.
    #[error("it is a file, and the folder of another one")]
    FileAndFolder,
    /// Its content is not what its header says.
    #[error("its content is damaged: {0}")]
    Damaged(&'static str),
    /// The name of the wheel's file says nothing of it.
    #[error("its name is not that of a wheel")]
    FileName,
    /// It has not one folder `*.dist-info`.
    #[error("it has {0} `.dist-info` folder")]
    DistInfo(&'static str),
    /// It is another package or version than its name says.
    #[error("it is `{0}`, which is not what the wheel's name says")]
    Another(String),
    /// A file that every wheel has is not there.
    #[error("it is not in the wheel")]
    Missing,
    /// A file that describes the wheel cannot be understood.
    #[error("it is not well-formed: {0}")]
    Malformed(&'static str),
    /// The wheel is of a later kind.
    #[error("it is of the unknown version `{0}`")]
    Version(String),
    /// `RECORD` does not tell the file's content.
    #[error("`RECORD` has no hash of it")]
    Unrecorded,
    /// `RECORD` tells it with a hash that proves nothing.
    #[error("`RECORD` has no SHA-256, SHA-384 or SHA-512 of it but `{0}`")]
    Weak(String),
    /// `RECORD` tells another content.
    #[error("its {0} is not the one in `RECORD`")]
    Recorded(&'static str),
    /// An entry point cannot become a program.
    #[error("its entry point `{}` is none: {why}", .name.escape_debug())]
    EntryPoint {
        /// Its name.
        name: String,
        /// Why not.
        why: &'static str,
    },
    /// There is no such folder of data.
    #[error("it is for no known folder of an environment")]
    Scheme,
    /// It would replace something that is not the wheel's.
    #[error("it would be installed as `{0}`, which belongs to the environment")]
    Owned(String),
    /// It would be written by us.
    #[error("an installer writes it, not a wheel")]
    Installers,
    /// Two files would be installed at one place.
    #[error("two of its files would be installed as `{0}`")]
    Collision(String),
    /// Reading fails.
    #[error("it cannot be read")]
    Read(#[source] io::Error),
    /// Writing fails.
    #[error("its content cannot be written")]
    Write(#[source] io::Error),
}

impl Refusal {
    /// Names the entry.
    pub(super) fn of(self, entry: &str) -> Fault {
        Fault { entry: Some(entry.to_owned()), refusal: self }
    }
}

/// A refusal of an entry, or of the whole.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) entry: Option<String>,
    pub(super) refusal: Refusal,
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        Self { entry: None, refusal }
    }
}

impl Fault {
    /// Names the wheel.
    pub(super) fn in_wheel(self, wheel: &str) -> WheelError {
        WheelError { wheel: wheel.to_owned(), entry: self.entry, refusal: self.refusal }
    }
}

impl WheelError {
    /// The refusal of a wheel.
    #[must_use]
    pub fn diagnostic(&self) -> Diagnostic {
        let what = Diagnostic::new(format!("cannot take the wheel `{}`", self.wheel));
        let why = format!("{}{}", place(self.entry.as_deref()), self.refusal);
        match &self.refusal {
            Refusal::Read(error) | Refusal::Write(error) => what
                .why(format!("{why}: {error}"))
                .advice("see that the disk is well and has space, and try again"),
            Refusal::FileName => what.why(why).advice("give it the name that it was built with"),
            _ => what.why(why).advice("take another version of the package, or tell those who publish it"),
        }
    }
}
