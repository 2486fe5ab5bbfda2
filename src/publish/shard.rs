//! One part of a fleet, for several machines that publish it together.

use std::num::NonZero;
use std::str::FromStr;

use sha2::{Digest, Sha256};

use crate::archive::hexadecimal;
use crate::platform::Platform;

/// The part of a fleet that one machine publishes, as `I/N`: the first of three is `1/3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    index: u32,
    count: NonZero<u32>,
}

impl Shard {
    /// Which of several trees of images are its own: those that stand at its number, and at every `N`th behind it. Trees are
    /// given by the place of the image that each begins with, so that what is built on another is on the same machine.
    #[must_use]
    pub fn has(self, tree: usize) -> bool {
        tree % self.count.get() as usize == self.index as usize - 1
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not `I/N` with a number from 1 to N, such as `1/3`");
        let (index, count) = text.split_once('/').ok_or_else(wrong)?;
        let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok());
        let (index, count): (u32, NonZero<u32>) = match (number(index), number(count)) {
            (Some(Some(index)), Some(Some(count))) => (index, NonZero::new(count).ok_or_else(wrong)?),
            _ => return Err(wrong()),
        };
        if index == 0 || index > count.get() { Err(wrong()) } else { Ok(Self { index, count }) }
    }
}

/// The tag under which one machine leaves an image for the one that merges: of the release, which is everything that says what
/// is to be published, and of the platform, where it is for
/// certain ones.
#[must_use]
pub fn staging_tag(release: &[u8], platform: Option<&Platform>) -> String {
    let digest = hexadecimal(&Sha256::digest(release));
    let platform = platform.map_or(String::new(), |platform| format!("-{platform}").replace('/', "-"));
    format!("ipybox-{}{platform}", &digest[..16])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tree_is_of_one_shard() {
        let shards: Vec<Shard> = ["1/3", "2/3", "3/3"].map(|text| text.parse().unwrap()).into();
        for tree in 0..20 {
            assert_eq!(shards.iter().filter(|shard| shard.has(tree)).count(), 1, "{tree}");
        }
        let whole: Shard = "1/1".parse().unwrap();
        assert!((0..20).all(|tree| whole.has(tree)));
    }

    #[test]
    fn what_is_no_part_is_refused() {
        for text in
            ["", "1", "0/3", "4/3", "1/0", "-1/3", "+1/3", "1/", "/3", "1/3/3", " 1/3", "1/99999999999"]
        {
            assert!(text.parse::<Shard>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_staging_tag_is_a_tag() {
        let platform = "linux/arm64".parse().unwrap();
        let tag = staging_tag(b"release", Some(&platform));
        assert!(tag.starts_with("ipybox-") && tag.ends_with("-linux-arm64"), "{tag}");
        assert!(format!("x:{tag}").parse::<crate::reference::Reference>().is_ok());
        assert_ne!(tag, staging_tag(b"other", Some(&platform)));
        assert_ne!(tag, staging_tag(b"release", None));
    }
}
