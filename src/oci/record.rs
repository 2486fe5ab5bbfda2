//! `RECORD`: what a wheel, and what is installed of it, consists of.
//!
//! Rule: Python packaging guide, "Recording installed projects", The RECORD file; written as uv does.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256, Sha384, Sha512};

use super::error::Refusal;

/// A line of `RECORD`. They are written in their order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Line {
    pub(super) path: String,
    pub(super) hash: Option<String>,
    pub(super) size: Option<u64>,
}

impl Line {
    /// The line of a content that is known.
    pub(super) fn of(path: String, content: &[u8]) -> Self {
        Self { path, hash: Some(written(&Sha256::digest(content))), size: Some(content.len() as u64) }
    }

    /// The file that is meant, whichever way it is spelled.
    pub(super) fn file(&self) -> String {
        let parts = self.path.split('/').filter(|part| !matches!(*part, "" | "."));
        parts.collect::<Vec<_>>().join("/")
    }
}

/// SHA-256 as it is written.
pub(super) fn written(digest: &[u8]) -> String {
    format!("sha256={}", URL_SAFE_NO_PAD.encode(digest))
}

/// Reads the lines of a wheel's `RECORD`.
pub(super) fn read(text: &str) -> Result<Vec<Line>, Refusal> {
    rows(text)?.into_iter().map(line).collect()
}

fn line(row: Vec<String>) -> Result<Line, Refusal> {
    let fields: Result<[String; 3], _> = row.try_into();
    let [path, hash, size] = fields.map_err(|_| Refusal::Malformed("a line has not three fields"))?;
    let size = match size.as_str() {
        "" => None,
        digits => Some(digits.parse().map_err(|_| Refusal::Malformed("a size is no number"))?),
    };
    // Some begin at the root, and mean the folder.
    let path = path.trim_start_matches('/').to_owned();
    if path.contains(['\n', '\r', '\0']) {
        return Err(Refusal::Malformed("a path has control characters"));
    }
    Ok(Line { path, hash: Some(hash).filter(|hash| !hash.is_empty()), size })
}

/// Lines of comma-separated values.
///
/// Rule: RFC 4180; lines end as they like, and empty ones are none.
fn rows(text: &str) -> Result<Vec<Vec<String>>, Refusal> {
    let mut rows = Vec::new();
    let mut row = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let field;
        (field, rest) = one_field(rest)?;
        row.push(field);
        match rest.chars().next() {
            Some(',') => {
                rest = &rest[1..];
                if !rest.is_empty() {
                    continue;
                }
                row.push(String::new());
            }
            Some(_) => rest = &rest[1..],
            None => {}
        }
        if row != [""] {
            rows.push(std::mem::take(&mut row));
        }
        row.clear();
    }
    Ok(rows)
}

/// The field that a text begins with, and the text from the comma or the end of the line behind it.
fn one_field(text: &str) -> Result<(String, &str), Refusal> {
    let ends = |next: char| matches!(next, ',' | '\n' | '\r');
    let Some(quoted) = text.strip_prefix('"') else {
        let (field, rest) = text.split_at(text.find(ends).unwrap_or(text.len()));
        if field.contains('"') {
            return Err(Refusal::Malformed("a quote is where none may be"));
        }
        return Ok((field.to_owned(), rest));
    };
    let mut field = String::new();
    let mut rest = quoted;
    loop {
        let (part, behind) = rest.split_once('"').ok_or(Refusal::Malformed("a quote is not closed"))?;
        field.push_str(part);
        match behind.chars().next() {
            Some('"') => field.push('"'),
            Some(next) if !ends(next) => return Err(Refusal::Malformed("a quote is where none may be")),
            _ => return Ok((field, behind)),
        }
        rest = &behind[1..];
    }
}

/// The text of an installed `RECORD`.
pub(super) fn write(mut lines: Vec<Line>) -> String {
    lines.sort();
    let line = |Line { path, hash, size }: Line| {
        let size = size.map(|size| size.to_string()).unwrap_or_default();
        format!("{},{},{size}\n", quoted(&path), quoted(&hash.unwrap_or_default()))
    };
    lines.into_iter().map(line).collect()
}

fn quoted(field: &str) -> String {
    if field.contains([',', '"', '\n', '\r']) {
        return format!("\"{}\"", field.replace('"', "\"\""));
    }
    field.to_owned()
}

/// What a `RECORD` tells of a wheel's files.
pub(super) struct Record {
    lines: BTreeMap<String, Line>,
}

impl Record {
    /// The lines by file. Of two that tell the same, one is left.
    pub(super) fn of(lines: Vec<Line>) -> Result<Self, (String, Refusal)> {
        let mut of_files = BTreeMap::<String, Line>::new();
        for line in lines {
            let file = line.file();
            match of_files.get(&file) {
                Some(other) if other.hash != line.hash => return Err((file, Refusal::Twice)),
                Some(_) => {}
                None => {
                    of_files.insert(file, line);
                }
            }
        }
        Ok(Self { lines: of_files })
    }

    /// Takes a file's line out.
    pub(super) fn take(&mut self, file: &str) -> Option<Line> {
        self.lines.remove(file)
    }
}

/// A hash of a content, and what it should be.
#[derive(Debug, Clone)]
pub(super) struct Expected {
    digest: Vec<u8>,
}

impl Expected {
    /// Reads `sha256=…`, `sha384=…` or `sha512=…`.
    pub(super) fn read(written: &str) -> Result<Self, Refusal> {
        let (kind, digits) = written.split_once('=').ok_or(Refusal::Malformed("a hash has no kind"))?;
        let size = match kind {
            "sha256" => 32,
            "sha384" => 48,
            "sha512" => 64,
            kind => return Err(Refusal::Weak(kind.to_owned())),
        };
        let digest = URL_SAFE_NO_PAD.decode(digits.trim_end_matches('=')).ok();
        let digest = digest.filter(|digest| digest.len() == size);
        Ok(Self { digest: digest.ok_or(Refusal::Malformed("a hash is none"))? })
    }

    /// Begins to hash what should have it.
    pub(super) fn hash(&self) -> Hash {
        match self.digest.len() {
            32 => Hash::Sha256(Sha256::new()),
            48 => Hash::Sha384(Sha384::new()),
            _ => Hash::Sha512(Sha512::new()),
        }
    }

    pub(super) fn is(&self, hash: Hash) -> bool {
        let digest = match hash {
            Hash::Sha256(hash) => hash.finalize().to_vec(),
            Hash::Sha384(hash) => hash.finalize().to_vec(),
            Hash::Sha512(hash) => hash.finalize().to_vec(),
        };
        digest == self.digest
    }
}

/// The kinds of hashes that prove something.
pub(super) enum Hash {
    Sha256(Sha256),
    Sha384(Sha384),
    Sha512(Sha512),
}

impl Hash {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hash) => hash.update(bytes),
            Self::Sha384(hash) => hash.update(bytes),
            Self::Sha512(hash) => hash.update(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_they_are_written() {
        let line = |path: &str, hash: Option<&str>, size| Line {
            path: path.to_owned(),
            hash: hash.map(str::to_owned),
            size,
        };
        for (text, lines) in [
            ("", vec![]),
            ("a,sha256=x,1", vec![line("a", Some("sha256=x"), Some(1))]),
            ("a,,\r\n\r\nb,,2\n", vec![line("a", None, None), line("b", None, Some(2))]),
            ("\"a,\"\"b\"\"\",,\n", vec![line("a,\"b\"", None, None)]),
            ("//a,,", vec![line("a", None, None)]),
        ] {
            let read = read(text).unwrap();
            assert_eq!(read, lines, "for {text:?}");
            assert_eq!(super::read(&write(read)).unwrap(), lines, "for {text:?}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in
            ["a", "a,b", "a,,,", "a,,x", "a,,-1", "\"a,,", "a\"b,,", "\"a\"b,,", "\"a\nb\",,", ",", "a,,\n,"]
        {
            assert!(read(text).is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn hashes_that_prove_something_are_taken() {
        let digits = |size: usize| URL_SAFE_NO_PAD.encode(vec![7; size]);
        for (written, why) in [
            (format!("sha256={}", digits(32)), None),
            (format!("sha256={}=", digits(32)), None),
            (format!("sha384={}", digits(48)), None),
            (format!("sha512={}", digits(64)), None),
            (format!("md5={}", digits(16)), Some("but `md5`")),
            (format!("sha1={}", digits(20)), Some("but `sha1`")),
            (format!("sha256={}", digits(31)), Some("a hash is none")),
            ("sha256=!".to_owned(), Some("a hash is none")),
            ("abc".to_owned(), Some("a hash has no kind")),
        ] {
            let refused = Expected::read(&written).err().map(|refusal| refusal.to_string());
            assert_eq!(refused.is_some(), why.is_some(), "{written}");
            assert!(refused.unwrap_or_default().contains(why.unwrap_or_default()), "{written}");
        }
    }
}
