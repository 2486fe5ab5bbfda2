//! Whose a sandbox is.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use sha2::{Digest, Sha256};

use crate::archive::hexadecimal;
use crate::deps::percent_encoded;

/// The label with the project of a sandbox, percent-encoded.
pub const PROJECT_LABEL: &str = "ipybox.sandbox.project";

/// The label with the user of a sandbox, percent-encoded.
pub const USER_LABEL: &str = "ipybox.sandbox.user";

/// A user of a project. Names are any bytes but none at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The project's name.
    pub project: OsString,
    /// The user's name.
    pub user: OsString,
}

/// Most characters of a name that a container's name shows.
const SHOWN: usize = 20;

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
        let digest = hexadecimal(&digest.finalize()[..6]);
        let words = ["ipybox", &readable(&self.project), &readable(&self.user), &digest];
        words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join("-")
    }

    /// The name of the private volume for a folder.
    #[must_use]
    pub fn volume(&self, place: &str) -> String {
        format!("{}-{}", self.container(), hexadecimal(&Sha256::digest(place)[..6]))
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

/// A name as a label has it, to be read by people; what is no UTF-8 is replaced.
#[must_use]
pub fn name_in(label: &str) -> String {
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
    OsString::from_vec(bytes).to_string_lossy().into_owned()
}

/// The image that is built for a project, as a name that engines take.
#[must_use]
pub fn image_of(project: &OsStr) -> String {
    let digest = hexadecimal(&Sha256::digest(project.as_bytes())[..6]);
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
            prop_assert_eq!(name_in(&labels[0].1), owner.project.to_string_lossy());
        }
    }
}
