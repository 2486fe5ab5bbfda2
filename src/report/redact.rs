//! What is known to be secret, kept out of everything that is told.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use crate::deps::{percent_decoded, percent_encoded};
use crate::harmless::harmless;

/// Values that nobody may see: of the environment, as they are and as programs write them.
#[derive(Debug, Clone, Default)]
pub struct Redaction {
    /// The longest first, so that none is hidden in part.
    values: Vec<String>,
}

/// Shorter values would hide words that have nothing to do with them.
const SHORTEST: usize = 4;

impl Redaction {
    /// Of addresses with a user and a password in them, such as those of proxies.
    pub fn of_addresses<'a>(addresses: impl IntoIterator<Item = &'a str>) -> Self {
        let mut redaction = Self::default();
        redaction.hide_addresses(addresses);
        redaction
    }

    /// Hides users and passwords of further addresses as well.
    pub fn hide_addresses<'a>(&mut self, addresses: impl IntoIterator<Item = &'a str>) {
        for address in addresses {
            let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
            let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
            // A password may hold any of these unescaped.
            let Some((user_info, _)) = authority.rsplit_once('@').or_else(|| rest.rsplit_once('@')) else {
                continue;
            };
            for written in [user_info.to_owned(), percent_decoded(user_info).unwrap_or_default()] {
                let password = written.split_once(':').map_or(&*written, |(_, password)| password).to_owned();
                self.hide([BASE64_STANDARD.encode(&written), password, written]);
            }
        }
    }

    /// Hides the password of a login as well, alone and as HTTP carries it.
    pub fn hide_login(&mut self, user: &str, password: &str) {
        let basic = BASE64_STANDARD.encode(format!("{user}:{password}"));
        // A token may stand in the place of a name.
        let secret = if password.is_empty() { user } else { password };
        let encoded = percent_encoded(secret);
        self.hide([secret.to_owned(), encoded.replace('/', "%2F"), encoded, basic]);
    }

    /// Hides the lines of a secret as well, and their longer words.
    pub fn hide_secret(&mut self, content: &[u8]) {
        const LONG: usize = 8;
        let text = String::from_utf8_lossy(content);
        let words = text.split_whitespace().filter(|word| word.len() >= LONG);
        self.hide(text.lines().map(str::trim).chain(words).map(str::to_owned));
    }

    fn hide(&mut self, values: impl IntoIterator<Item = String>) {
        self.values.extend(values.into_iter().filter(|value| value.len() >= SHORTEST));
        self.values.sort_by_key(|value| std::cmp::Reverse(value.len()));
        self.values.dedup();
    }

    /// A text without these values, without other credentials, and without what steers a terminal.
    #[must_use]
    pub fn apply(&self, text: &str) -> String {
        // What makes a text harmless changes it, and may hide a part of a value.
        self.without_values(harmless(&self.without_values(text.to_owned())))
    }

    fn without_values(&self, text: String) -> String {
        self.values.iter().fold(text, |text, value| {
            if text.contains(value) { text.replace(value, &"*".repeat(8)) } else { text }
        })
    }
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
        let mut redaction = Redaction::of_addresses(["http://me:a:b@cdefgh99@host:1"]);
        redaction.hide_secret(b"Authorization: Bearer 0123456789\n");
        redaction.hide_login("a-token-alone", "");
        redaction.hide_login("me", "pass/word");
        for told in [
            "no variant `a:b@cdefgh99`",
            "authorization: bearer 0123456789",
            "of a-token-alone",
            "x pass%2Fword",
        ] {
            let shown = redaction.apply(told);
            let secrets = ["cdefgh99", "0123456789", "a-token", "pass%2F"];
            assert!(secrets.iter().all(|secret| !shown.contains(secret)), "{shown}");
        }
    }
}
