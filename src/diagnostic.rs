//! A refusal's what, where, why and fix, as plain data.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// One mistake and everything a person needs to repair it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// What is refused: a lower-case phrase without a final period.
    pub what: String,
    /// Bytes of the user's text, or of all [`Documents`] end to end; `None` if the cause lies outside.
    pub at: Option<Range<usize>>,
    /// Why it is refused; shown under the underlined bytes. May be empty.
    pub why: String,
    /// How to repair it.
    pub fix: Option<Fix>,
    /// Other places that have to do with it, and how.
    pub also: Box<[(Range<usize>, String)]>,
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
    /// Moves a place in one text to where that text begins.
    pub(crate) fn shift(&mut self, start: usize) {
        if let Some(at) = &mut self.at {
            *at = at.start + start..at.end + start;
        }
    }

    /// A mistake whose cause lies outside the user's text.
    pub fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), at: None, why: String::new(), fix: None, also: Box::default() }
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
    pub path: PathBuf,
    /// The whole text.
    pub text: String,
}

/// The name of a text that comes from standard input.
pub const STDIN: &str = "<stdin>";

impl Document {
    /// A text that was read, or never was in a file.
    pub fn new(path: impl Into<PathBuf>, text: impl Into<String>) -> Self {
        Self { path: path.into(), text: text.into() }
    }

    /// What it is called in what is said of it; bytes of the path that are not UTF-8 are replaced there.
    #[must_use]
    pub fn name(&self) -> Cow<'_, str> {
        self.path.to_string_lossy()
    }

    /// Where paths in it begin.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new(""))
    }

    /// Reads a text of at most `limit` bytes. A byte order mark at its beginning is left out.
    ///
    /// # Errors
    ///
    /// Of the file system, and where the file is larger or not UTF-8.
    pub fn read(path: &Path, limit: u64) -> io::Result<Self> {
        Self::read_from(File::open(path)?, path, limit)
    }

    /// Reads a text of at most `limit` bytes from wherever it comes.
    ///
    /// # Errors
    ///
    /// As [`Document::read`].
    pub fn read_from(reader: impl Read, path: impl Into<PathBuf>, limit: u64) -> io::Result<Self> {
        let mut bytes = Vec::new();
        reader.take(limit + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > limit {
            return Err(io::Error::other(format!("it is larger than {} MB", limit / 1_000_000)));
        }
        if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
            return Err(io::Error::other(
                "it is UTF-16; save it as UTF-8, in PowerShell by `Out-File -Encoding utf8`",
            ));
        }
        let text = String::from_utf8(bytes).map_err(|error| {
            let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = valid.iter().filter(|&&byte| byte == b'\n').count() + 1;
            io::Error::other(format!("line {line} is not UTF-8"))
        })?;
        let text = match text.strip_prefix('\u{feff}') {
            Some(rest) => rest.to_owned(),
            None => text,
        };
        Ok(Self::new(path, text))
    }
}

/// The texts of one run, end to end: a range of bytes names a place in one of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Documents {
    documents: Vec<Placed>,
}

/// A document, where it begins, and where its lines end.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Placed {
    start: usize,
    document: Document,
    line_ends: Vec<usize>,
}

/// A place in one document, for people and programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place<'a> {
    /// The document.
    pub document: &'a Document,
    /// Bytes of its text.
    pub at: Range<usize>,
    line_ends: &'a [usize],
}

impl Documents {
    /// Adds a document; its text begins at the offset returned.
    pub fn add(&mut self, document: Document) -> usize {
        // One byte lies between two documents, so that the end of one is not the start of the next.
        let start = self.documents.last().map_or(0, |last| last.start + last.document.text.len() + 1);
        let line_ends = document.text.match_indices('\n').map(|(end, _)| end).collect();
        self.documents.push(Placed { start, document, line_ends });
        start
    }

    /// The documents, in the order they were added.
    pub fn iter(&self) -> impl Iterator<Item = &Document> {
        self.documents.iter().map(|placed| &placed.document)
    }

    /// Where each document begins.
    pub fn starts(&self) -> impl Iterator<Item = usize> {
        self.documents.iter().map(|placed| placed.start)
    }

    /// The document that holds a place; `None` for a place in none of them.
    #[must_use]
    pub fn find(&self, at: &Range<usize>) -> Option<Place<'_>> {
        let index = self.documents.partition_point(|placed| placed.start <= at.start).checked_sub(1)?;
        let Placed { start, document, line_ends } = &self.documents[index];
        let at = at.start - start..at.end - start;
        (at.end <= document.text.len()).then_some(Place { document, at, line_ends })
    }
}

impl From<Document> for Documents {
    fn from(document: Document) -> Self {
        let mut documents = Self::default();
        documents.add(document);
        documents
    }
}

impl Place<'_> {
    /// The line it begins in, counted from 1.
    #[must_use]
    pub fn line(&self) -> usize {
        self.line_of(self.at.start).0
    }

    /// Line and column of its first byte and of the byte behind its last, in characters from 1.
    #[must_use]
    pub fn span(&self) -> [(usize, usize); 2] {
        [self.at.start, self.at.end].map(|position| {
            let (line, start) = self.line_of(position);
            (line, self.document.text[start..position].chars().count() + 1)
        })
    }

    /// The number of a byte's line, and where that begins.
    fn line_of(&self, position: usize) -> (usize, usize) {
        let before = self.line_ends.partition_point(|&end| end < position);
        (before + 1, before.checked_sub(1).map_or(0, |last| self.line_ends[last] + 1))
    }
}
