//! A refusal's what, where, why and fix, as plain data.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::path::Path;

/// One mistake and everything a person needs to repair it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// What is refused: a lower-case phrase without a final period.
    pub what: String,
    /// Bytes of the user's text; `None` if the cause lies outside it.
    pub at: Option<Range<usize>>,
    /// Why it is refused; shown under the underlined bytes. May be empty.
    pub why: String,
    /// How to repair it.
    pub fix: Option<Fix>,
}

/// How a mistake is repaired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fix {
    /// An imperative sentence.
    Advice(String),
    /// The text to write in place of [`Diagnostic::at`]: the one surely right answer.
    Replace(String),
}

impl Diagnostic {
    /// A mistake whose cause lies outside the user's text.
    pub fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), at: None, why: String::new(), fix: None }
    }

    /// Says where in the user's text the mistake is, in bytes.
    #[must_use]
    pub fn at(mut self, at: Range<usize>) -> Self {
        self.at = Some(at);
        self
    }

    /// Says why it is a mistake.
    #[must_use]
    pub fn why(mut self, why: impl Into<String>) -> Self {
        self.why = why.into();
        self
    }

    /// Says what to do.
    #[must_use]
    pub fn advice(mut self, advice: impl Into<String>) -> Self {
        self.fix = Some(Fix::Advice(advice.into()));
        self
    }

    /// Says what to write instead.
    #[must_use]
    pub fn replace(mut self, text: impl Into<String>) -> Self {
        self.fix = Some(Fix::Replace(text.into()));
        self
    }
}

/// A text somebody wrote, with the name they know it by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// The path as it was given, or another name when the text is in no file.
    pub name: String,
    /// The whole text.
    pub text: String,
}

impl Document {
    /// Reads a text of at most `limit` bytes.
    ///
    /// # Errors
    ///
    /// Of the file system, and where the file is larger or not UTF-8.
    pub fn read(path: &Path, limit: u64) -> io::Result<Self> {
        let mut bytes = Vec::new();
        File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > limit {
            return Err(io::Error::other(format!("it is larger than {} MB", limit / 1_000_000)));
        }
        let text = String::from_utf8(bytes).map_err(|error| {
            let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = valid.iter().filter(|&&byte| byte == b'\n').count() + 1;
            io::Error::other(format!("line {line} is not UTF-8"))
        })?;
        Ok(Self { name: path.display().to_string(), text })
    }
}
