//! Distribution and extra names.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A distribution name or an extra in its normalized form: lower case, with runs of `-`, `_` and
/// `.` written as one `-`.
///
/// Rule: PEP 503, "Normalized Names"; PEP 685 applies the same to extras.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl TryFrom<String> for Name {
    type Error = &'static str;

    fn try_from(written: String) -> Result<Self, Self::Error> {
        Self::parse(&written).ok_or("expected a name: letters, digits, `.`, `-` and `_`")
    }
}

impl Name {
    /// Reads a name as PEP 508, "Names", has it: ASCII letters, digits, `.`, `-` and `_`, beginning
    /// and ending with a letter or a digit. `None` for anything else.
    #[must_use]
    pub fn parse(written: &str) -> Option<Self> {
        let outer = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
        let bytes = written.as_bytes();
        if !(outer(bytes.first()) && outer(bytes.last())) {
            return None;
        }
        let plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        if bytes.iter().zip(&bytes[1..]).all(|(one, next)| plain(one) || *one == b'-' && *next != b'-') {
            return Some(Self(written.to_ascii_lowercase()));
        }
        let mut name = String::with_capacity(written.len());
        let mut after_hyphen = false;
        for &byte in bytes {
            let hyphen = matches!(byte, b'.' | b'_' | b'-');
            if !hyphen {
                byte.is_ascii_alphanumeric().then(|| name.push(char::from(byte.to_ascii_lowercase())))?;
            } else if !after_hyphen {
                name.push('-');
            }
            after_hyphen = hyphen;
        }
        Some(Self(name))
    }

    /// The normalized text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What may be a name at the beginning of a line, and what follows it and its extras in brackets.
pub(super) fn split(line: &str) -> (&str, &str) {
    let inner = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let end = line.bytes().position(|byte| !inner(&byte));
    let (name, rest) = line.split_at(end.unwrap_or(line.len()));
    let rest = rest.trim_start();
    let rest = match rest.strip_prefix('[') {
        Some(extras) => extras.split_once(']').map_or("", |(_, rest)| rest.trim_start()),
        None => rest,
    };
    (name, rest)
}

#[cfg(test)]
mod tests {
    use super::Name;

    #[test]
    fn names_are_normalized_as_in_pep_503() {
        for (written, normalized) in [
            ("numpy", "numpy"),
            ("Friendly-Bard", "friendly-bard"),
            ("FRIENDLY_BARD", "friendly-bard"),
            ("friendly--bard", "friendly-bard"),
            ("FrIeNdLy-._.-bArD", "friendly-bard"),
            ("zope.interface", "zope-interface"),
            ("A", "a"),
        ] {
            assert_eq!(Name::parse(written).unwrap().as_str(), normalized);
        }
    }

    #[test]
    fn anything_else_is_no_name() {
        for written in ["", "-a", "a-", "_", "a b", "a\nb", "a;b", "$(id)", "naïve", "a\0"] {
            assert_eq!(Name::parse(written), None, "for `{written}`");
        }
    }
}
