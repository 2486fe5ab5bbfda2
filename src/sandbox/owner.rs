//! Whose a sandbox is.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::settings::SETTINGS_LABEL;
use crate::archive::hexadecimal;
use crate::deps::percent_encoded;
use crate::engine::LastingContainer;

/// The label with the project of a sandbox, percent-encoded.
const PROJECT_LABEL: &str = "ipybox.sandbox.project";

/// The label with the user of a sandbox, percent-encoded.
const USER_LABEL: &str = "ipybox.sandbox.user";

/// A user of a project. Names are any bytes but none at all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Owner {
    /// The project's name.
    pub project: OsString,
    /// The user's name.
    pub user: OsString,
}

/// Most characters of a name that a container's name shows.
const SHOWN: usize = 20;

/// What follows in the name of a container that is to replace another.
const NEXT: &str = ".next-";

/// Bytes of a digest that stands in a name: nobody finds two names with the same.
const DIGEST: usize = 12;

impl Owner {
    /// The name of the one container: what people can read of the two names, and a digest of all of them, so that no
    /// others get the same.
    #[must_use]
    pub fn container(&self) -> String {
        let mut digest = Sha256::new();
        for name in [&self.project, &self.user] {
            digest.update((name.len() as u64).to_le_bytes());
            digest.update(name.as_bytes());
        }
        let digest = hexadecimal(&digest.finalize()[..DIGEST]);
        let words = ["ipybox", &readable(&self.project), &readable(&self.user), &digest];
        words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join("-")
    }

    /// The name of a container that is to replace it, with these settings, until it is ready.
    #[must_use]
    pub fn next_container(&self, settings: &Value) -> String {
        let digest = Sha256::digest(settings.to_string());
        format!("{}{NEXT}{}", self.container(), hexadecimal(&digest[..DIGEST / 2]))
    }

    /// Whose a container says it is; `None` where it is no sandbox. Labels alone prove nothing, since images hand theirs on.
    #[must_use]
    pub fn of(container: &LastingContainer) -> Option<Self> {
        let LastingContainer { name, labels, .. } = container;
        let owner =
            Self { project: name_in(labels.get(PROJECT_LABEL)?), user: name_in(labels.get(USER_LABEL)?) };
        let is_named = name
            .strip_prefix(&owner.container())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(NEXT));
        (is_named && labels.contains_key(SETTINGS_LABEL)).then_some(owner)
    }

    /// The name of the private volume for a folder.
    #[must_use]
    pub fn volume(&self, place: &str) -> String {
        format!("{}-{}", self.container(), hexadecimal(&Sha256::digest(place)[..DIGEST]))
    }

    /// The labels of what is theirs.
    #[must_use]
    pub fn labels(&self) -> [(String, String); 2] {
        [(PROJECT_LABEL, &self.project), (USER_LABEL, &self.user)]
            .map(|(label, name)| (label.to_owned(), percent_encoded(name)))
    }
}

/// What selects the sandboxes of a project, of a user, of both, or all.
#[must_use]
pub fn filter(project: Option<&OsStr>, user: Option<&OsStr>) -> Vec<String> {
    let exact = |label: &str, name: Option<&OsStr>| match name {
        Some(name) => format!("{label}={}", percent_encoded(name)),
        None => label.to_owned(),
    };
    vec![exact(PROJECT_LABEL, project), exact(USER_LABEL, user)]
}

/// A name as a label has it.
fn name_in(label: &str) -> OsString {
    let mut bytes = Vec::with_capacity(label.len());
    let mut rest = label.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        let digits = behind.get(..2).filter(|_| byte == b'%').and_then(|two| std::str::from_utf8(two).ok());
        match digits.and_then(|two| u8::from_str_radix(two, 16).ok()) {
            Some(encoded) => {
                bytes.push(encoded);
                rest = &behind[2..];
            }
            None => {
                bytes.push(byte);
                rest = behind;
            }
        }
    }
    OsString::from_vec(bytes)
}

/// The image that is built for a project, as a name that engines take.
#[must_use]
pub fn image_of(project: &OsStr) -> String {
    let digest = hexadecimal(&Sha256::digest(project.as_bytes())[..DIGEST]);
    let words = [&readable(project), &digest];
    format!(
        "ipybox-sandbox/{}",
        words.into_iter().filter(|word| !word.is_empty()).cloned().collect::<Vec<_>>().join("-")
    )
}

/// What of a name engines allow anywhere, in lower case.
fn readable(name: &OsStr) -> String {
    let plain =
        |byte: &u8| if byte.is_ascii_alphanumeric() { char::from(byte.to_ascii_lowercase()) } else { '-' };
    let text: String = name.as_bytes().iter().map(plain).collect();
    let words: Vec<&str> = text.split('-').filter(|word| !word.is_empty()).collect();
    words.join("-").chars().take(SHOWN).collect::<String>().trim_end_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn owner(project: &[u8], user: &[u8]) -> Owner {
        let name = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
        Owner { project: name(project), user: name(user) }
    }

    #[test]
    fn no_two_owners_share_a_name() {
        let pairs = [
            ("bot", "a@b.c"),
            ("bot", "a_b_c"),
            ("a", "b-c"),
            ("a-b", "c"),
            ("A", "b-c"),
            ("", "bot"),
            ("bot", ""),
        ];
        let names = pairs.map(|(project, user)| owner(project.as_bytes(), user.as_bytes()).container());
        let different: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(different.len(), names.len(), "{names:?}");
        assert!(names[0].starts_with("ipybox-bot-a-b-c-"), "{}", names[0]);
    }

    proptest! {
        #[test]
        fn names_are_valid_whatever_they_are_made_of(
            project in prop::collection::vec(any::<u8>(), 0..300),
            user in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let owner = owner(&project, &user);
            for name in [owner.container(), owner.volume("/data"), image_of(&owner.project)] {
                let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-/".contains(&byte);
                prop_assert!(name.bytes().all(is_plain) && name.len() < 120, "{}", name);
                prop_assert!(!name.contains("--") && !name.ends_with('-') && !name.contains("/-"), "{}", name);
            }
            let labels = owner.labels();
            let settings = (SETTINGS_LABEL.to_owned(), "{}".to_owned());
            let labels = labels.into_iter().chain([settings]).collect();
            let mut container = LastingContainer { name: owner.container(), labels, ..LastingContainer::default() };
            prop_assert_eq!(Owner::of(&container), Some(owner));
            container.name.push('x');
            prop_assert_eq!(Owner::of(&container), None);
        }
    }
}
