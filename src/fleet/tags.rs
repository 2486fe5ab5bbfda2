//! Tags with placeholders, and what those stand for.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use super::Image;
use crate::deps::{in_backticks, nearest};
use crate::diagnostic::Diagnostic;

/// A word in braces that a tag may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Placeholder {
    /// The version of the fleet.
    Version,
    /// The day, such as `2026-01-31`.
    Date,
    /// The commit of the folder, shortened.
    Git,
    /// The digest of the image's lock, shortened.
    Lock,
    /// The image's Python, such as `3.12`.
    Python,
    /// The name of its base in a matrix.
    Base,
    /// The image's name.
    Image,
}

impl Placeholder {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Version, Self::Date, Self::Git, Self::Lock, Self::Python, Self::Base, Self::Image];

    /// The word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Version => "version",
            Self::Date => "date",
            Self::Git => "git.short",
            Self::Lock => "lock.short",
            Self::Python => "python",
            Self::Base => "base",
            Self::Image => "image",
        }
    }

    /// Where its value would come from, and there is none.
    fn lacking(self) -> (&'static str, &'static str) {
        match self {
            Self::Version => (
                "the fleet has no `version`, and this commit has no tag in git",
                "write `version = \"1.0.0\"` below `[fleet]`, or tag the commit",
            ),
            Self::Date => ("the day is not known", "set the clock of this host"),
            Self::Git => ("this folder is no checkout of git with a commit", "commit it, or leave it out"),
            Self::Lock => ("the image has no lock", "make one with `ipybox lock`, or leave it out"),
            Self::Python => ("the image does not say which Python it has", "write `python = \"3.12\"`"),
            Self::Base => ("the image has no matrix of bases", "leave it out, or write `matrix.base`"),
            Self::Image => ("the image has no name", "leave it out"),
        }
    }
}

/// What placeholders stand for that the fleet does not say itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Values {
    /// The version, where `[fleet]` has none.
    pub version: Option<String>,
    /// The day, as `YYYY-MM-DD`.
    pub date: Option<String>,
    /// The commit, shortened.
    pub git: Option<String>,
    /// The digests of locks, shortened, by [`Image::id`].
    pub locks: BTreeMap<String, String>,
}

/// A tag as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
    /// Where it is, in bytes of the file.
    pub at: Range<usize>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Placeholder(Placeholder),
}

impl Template {
    /// Reads a tag that is written at a place.
    ///
    /// Rule: the distribution project's reference grammar for what is not a placeholder.
    pub(super) fn parse(text: &str, at: Range<usize>) -> Result<Self, Diagnostic> {
        let mut parts = Vec::new();
        let mut rest = text;
        let refused = |why: String, advice: String| {
            let what = Diagnostic::new(format!("`{}` is no tag", text.escape_debug()));
            Err(what.at(at.clone()).why(why).advice(advice))
        };
        while !rest.is_empty() {
            let plain = rest.find(['{', '}']).unwrap_or(rest.len());
            let (before, behind) = rest.split_at(plain);
            let is_first = parts.is_empty();
            if !before.is_empty() {
                let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
                if !before.bytes().all(allowed) || is_first && before.starts_with(['.', '-']) {
                    let why =
                        "a tag has letters, digits, `_`, `.` and `-`, and none of the last two in front";
                    return refused(why.to_owned(), "write such as `latest` or `{version}-slim`".to_owned());
                }
                parts.push(Part::Text(before.to_owned()));
            }
            if behind.is_empty() {
                break;
            }
            let Some((word, after)) = behind.strip_prefix('{').and_then(|inside| inside.split_once('}'))
            else {
                return refused("a brace has no other".to_owned(), "write such as `{version}`".to_owned());
            };
            let words = Placeholder::ALL.map(Placeholder::word);
            let Some(found) = Placeholder::ALL.into_iter().find(|known| known.word() == word) else {
                let why = format!("there is nothing that `{{{}}}` stands for", word.escape_debug());
                let near = nearest(word, words).map(|near| format!("write `{{{near}}}`"));
                let all = words.map(|word| format!("{{{word}}}"));
                let known = || format!("choose among {}", in_backticks(all.iter().map(String::as_str)));
                return refused(why, near.unwrap_or_else(known));
            };
            parts.push(Part::Placeholder(found));
            rest = after;
        }
        if parts.is_empty() {
            return refused("it is empty".to_owned(), "write such as `latest`".to_owned());
        }
        Ok(Self { parts, at })
    }

    /// The tag of an image that has none.
    pub(super) fn latest(at: Range<usize>) -> Self {
        Self { parts: vec![Part::Text("latest".to_owned())], at }
    }

    /// The placeholders it holds.
    pub fn placeholders(&self) -> impl Iterator<Item = Placeholder> {
        self.parts.iter().filter_map(|part| match part {
            Part::Placeholder(placeholder) => Some(*placeholder),
            Part::Text(_) => None,
        })
    }

    /// The tag that `value` makes of it, or the placeholders that have none.
    pub(super) fn filled(
        &self,
        mut value: impl FnMut(Placeholder) -> Option<String>,
    ) -> Result<String, Vec<Placeholder>> {
        let (mut tag, mut lacking) = (String::new(), Vec::new());
        for part in &self.parts {
            match part {
                Part::Text(text) => tag += text,
                Part::Placeholder(placeholder) => match value(*placeholder) {
                    Some(text) => tag += &text,
                    None => lacking.push(*placeholder),
                },
            }
        }
        if lacking.is_empty() { Ok(tag) } else { Err(lacking) }
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.parts {
            match part {
                Part::Text(text) => f.write_str(text)?,
                Part::Placeholder(placeholder) => write!(f, "{{{}}}", placeholder.word())?,
            }
        }
        Ok(())
    }
}

impl Image {
    /// What a placeholder stands for in a tag of this image.
    pub(super) fn value(
        &self,
        placeholder: Placeholder,
        version: Option<&str>,
        values: &Values,
    ) -> Option<String> {
        match placeholder {
            Placeholder::Version => version.map(str::to_owned).or_else(|| values.version.clone()),
            Placeholder::Date => values.date.clone(),
            Placeholder::Git => values.git.clone(),
            Placeholder::Lock => values.locks.get(&self.id).cloned(),
            Placeholder::Python => self.python.clone(),
            Placeholder::Base => self.base_name.clone(),
            Placeholder::Image => Some(self.name.rsplit('/').next().unwrap_or_default().to_owned()),
        }
    }
}

/// A placeholder without a value, in the tag of an image.
pub(super) fn valueless(image: &Image, template: &Template, placeholder: Placeholder) -> Diagnostic {
    let (why, advice) = placeholder.lacking();
    let what = format!("`{{{}}}` has no value in a tag of `{}`", placeholder.word(), image.id);
    Diagnostic::new(what).at(template.at.clone()).why(why).advice(advice)
}
