//! What is known to be secret, kept out of everything that is told.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use crate::harmless::harmless;

/// Values that nobody may see: of the environment, as they are and as programs write them.
#[derive(Debug, Default)]
pub struct Redaction {
    /// The longest first, so that none is hidden in part.
    values: Vec<String>,
}

/// Shorter values would hide words that have nothing to do with them.
const SHORTEST: usize = 4;

impl Redaction {
    /// Of addresses with a user and a password in them, such as those of proxies.
    pub fn of_addresses<'a>(addresses: impl IntoIterator<Item = &'a str>) -> Self {
        let mut values = Vec::new();
        for address in addresses {
            let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
            let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
            // A password may hold any of these unescaped.
            let Some((user_info, _)) = authority.rsplit_once('@').or_else(|| rest.rsplit_once('@')) else {
                continue;
            };
            let decoded = percent_decoded(user_info);
            for written in [user_info, &decoded] {
                let password = written.split_once(':').map_or(written, |(_, password)| password);
                values.extend([written.to_owned(), password.to_owned(), BASE64_STANDARD.encode(written)]);
            }
        }
        values.retain(|value| value.len() >= SHORTEST);
        values.sort_by_key(|value| std::cmp::Reverse(value.len()));
        values.dedup();
        Self { values }
    }

    /// A text without these values, without other credentials, and without what steers a terminal.
    #[must_use]
    pub fn apply(&self, text: &str) -> String {
        let clean = harmless(text);
        self.values.iter().fold(clean, |text, value| {
            if text.contains(value) { text.replace(value, &"*".repeat(8)) } else { text }
        })
    }
}

/// A text with `%41` and its like as what they stand for.
///
/// Rule: RFC 3986, "Percent-Encoding".
fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, behind @ ..] = rest {
        let digits = behind.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()).filter(|_| *first == b'%') {
            Some(byte) => {
                bytes.push(byte);
                rest = &behind[2..];
            }
            None => {
                bytes.push(*first);
                rest = behind;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_of_the_environment_are_hidden_in_every_spelling() {
        let redaction = Redaction::of_addresses([
            "http://me:s3%40cret@127.0.0.1:9",
            "http://plain.invalid",
            "http://a:b@h",
        ]);
        for told in [
            "HTTPS_PROXY=http://me:s3%40cret@127.0.0.1:9",
            "password s3@cret",
            "the word s3%40cret alone",
            &format!("Proxy-Authorization: Basic {}", BASE64_STANDARD.encode("me:s3@cret")),
        ] {
            let shown = redaction.apply(told);
            assert!(!shown.contains("cret") && shown.contains("***"), "{shown}");
        }
        assert_eq!(redaction.apply("a b http://plain.invalid"), "a b http://plain.invalid");
    }
}
