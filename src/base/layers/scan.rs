//! What a program's own text tells of it.

use std::collections::BTreeSet;
use std::io::{self, Read};

/// What is found in a program or a library.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Scan {
    /// Whether it is one, and no script.
    pub(super) is_elf: bool,
    /// Its texts that are versions `X.Y.Z`.
    pub(super) versions: BTreeSet<[u32; 3]>,
    /// The loaders that it speaks of, the first of which it asks for: a part of its C library.
    pub(super) loaders: Vec<String>,
    /// The library that Python is in, where it has none of its own.
    pub(super) library: Option<String>,
    /// The version of the GNU C library, where it is that.
    pub(super) glibc: Option<String>,
}

/// The longest text that is looked at, in bytes.
const MOST: usize = 512;

/// How many loaders are told.
const MOST_LOADERS: usize = 4;

/// How much is read at once, in bytes.
const CHUNK: usize = 1 << 16;

impl Scan {
    /// Looks through all of a file, in constant memory.
    pub(super) fn read(from: &mut dyn Read) -> io::Result<Self> {
        let mut scan = Self::default();
        let mut buffer = vec![0; CHUNK];
        let mut text = Vec::with_capacity(MOST);
        let mut is_first = true;
        loop {
            let read = from.read(&mut buffer)?;
            if read == 0 {
                return Ok(scan);
            }
            if std::mem::take(&mut is_first) {
                scan.is_elf = buffer[..read].starts_with(b"\x7fELF");
            }
            for &byte in &buffer[..read] {
                if matches!(byte, b' '..=b'~') {
                    // Of what is longer, nothing is of use.
                    if text.len() < MOST {
                        text.push(byte);
                    }
                } else {
                    if !text.is_empty() {
                        scan.see(&text, byte == 0);
                    }
                    text.clear();
                }
            }
        }
    }

    fn see(&mut self, text: &[u8], is_ended: bool) {
        let Ok(text) = std::str::from_utf8(text) else { return };
        if let Some((before, version)) = text.split_once(" release version ")
            && before.contains("GNU C Library")
        {
            self.glibc = Some(version.trim_end_matches('.').to_owned());
        }
        if !is_ended {
            return;
        }
        self.versions.extend(version(text));
        // What comes before is no text, though it may look like one.
        let path = text.find('/').map_or("", |at| &text[at..]);
        let name = path.rsplit_once('/').map_or("", |(_, name)| name);
        let is_loader = ["ld-", "ld64."].iter().any(|begin| name.starts_with(begin)) && name.contains(".so");
        if is_loader && self.loaders.len() < MOST_LOADERS {
            self.loaders.push(path.to_owned());
        }
        if text.starts_with("libpython3.") && text.contains(".so") && !text.contains('/') {
            self.library.get_or_insert_with(|| text.to_owned());
        }
    }
}

/// The version `X.Y.Z` that a text ends with, without what Python adds between releases.
pub(super) fn version(text: &str) -> Option<[u32; 3]> {
    // Linkers join texts of which one ends as the other.
    let text = text.rsplit_once(' ').map_or(text, |(_, last)| last);
    let text = text.strip_suffix('+').unwrap_or(text);
    let is_digit = |character: char| character.is_ascii_digit();
    let mut parts = text.splitn(3, '.');
    let (major, minor, patch) = (parts.next()?, parts.next()?, parts.next()?);
    let digits = patch.len() - patch.trim_start_matches(is_digit).len();
    let (patch, rest) = patch.split_at(digits);
    let of_serial = |serial: &str| !serial.is_empty() && serial.chars().all(is_digit);
    let is_release = rest.is_empty()
        || ["a", "b", "rc"].iter().any(|stage| rest.strip_prefix(stage).is_some_and(of_serial));
    let number = |digits: &str| {
        let is_short = (1..=2).contains(&digits.len()) && digits.chars().all(is_digit);
        digits.parse().ok().filter(|_| is_short)
    };
    is_release.then_some([number(major)?, number(minor)?, number(patch)?])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn versions_loaders_and_libraries_are_found_wherever_they_lie() {
        let texts = [
            "\x7fELF",
            "8/lib64/ld-linux-x86-64.so.2",
            "libpython3.12.so.1.0",
            "3.12.8",
            "Python 3.11.2+",
            "3.14.0rc2",
            "1.2.3.4",
            "lib-3.9.1",
            "3.9.1/lib",
            "3.1234.1",
            "GLIBC_2.34",
        ];
        for gap in [0, 1, CHUNK - 30, CHUNK] {
            let mut bytes = texts.join("\0").into_bytes();
            bytes.extend(b"\0GNU C Library (Debian GLIBC 2.36-9) stable release version 2.36.\nCopyright");
            bytes.splice(4..4, vec![0; gap]);
            let scan = Scan::read(&mut bytes.as_slice()).unwrap();
            assert!(scan.is_elf);
            assert_eq!(scan.versions, BTreeSet::from([[3, 12, 8], [3, 11, 2], [3, 14, 0]]));
            assert_eq!(scan.loaders, ["/lib64/ld-linux-x86-64.so.2"]);
            assert_eq!(scan.library.as_deref(), Some("libpython3.12.so.1.0"));
            assert_eq!(scan.glibc.as_deref(), Some("2.36"));
        }
        assert_eq!(Scan::read(&mut &b"#!/bin/sh\nexec x\n"[..]).unwrap(), Scan::default());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000), text in "[ -~\0]{0,200}") {
            Scan::read(&mut bytes.as_slice()).unwrap();
            Scan::read(&mut text.as_bytes()).unwrap();
        }
    }
}
