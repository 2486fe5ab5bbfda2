//! Entries of a tar stream, byte by byte: segments are kept, and equal files have to give equal bytes for ever.

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};

/// Who files belong to, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ids {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

/// The size of a header, and what the size of every content is rounded up to.
const BLOCK: usize = 512;

/// The longest path that a header holds.
const MOST: usize = 100;

/// What ends a stream.
pub const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

const FILE: u8 = b'0';
const FOLDER: u8 = b'5';
const LONG_PATH: u8 = b'L';

/// Writes the entry of a folder, whose path from the root has no slash at its end.
///
/// # Errors
///
/// Of writing.
pub fn folder(to: &mut impl Write, path: &str, mode: u32, ids: Ids, seconds: u64) -> io::Result<()> {
    header(to, &format!("{path}/"), FOLDER, mode, ids, seconds, 0)
}

/// Writes the entry of a file of this size.
///
/// # Errors
///
/// Of reading and writing, and where the content has another size.
pub fn file(
    to: &mut impl Write,
    path: &str,
    mode: u32,
    ids: Ids,
    seconds: u64,
    size: u64,
    content: &mut impl Read,
) -> io::Result<()> {
    written_file(to, path, mode, ids, seconds, size, |to| {
        // One byte more, so that a content that is longer is found out.
        io::copy(&mut content.take(size.saturating_add(1)), to).map(drop)
    })
}

/// The same of a content that is written.
///
/// # Errors
///
/// Of writing, and where the content has another size.
pub fn written_file<W: Write>(
    to: &mut W,
    path: &str,
    mode: u32,
    ids: Ids,
    seconds: u64,
    size: u64,
    content: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    header(to, path, FILE, mode, ids, seconds, size)?;
    let mut exact = Exact { to, left: size };
    content(&mut exact)?;
    if exact.left > 0 {
        let what = format!("`{path}` is shorter than it was said");
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, what));
    }
    to.write_all(&END[..padding(size)])
}

/// A writer that takes no more than it is to take.
struct Exact<'a, W> {
    to: &'a mut W,
    left: u64,
}

impl<W: Write> Write for Exact<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() as u64 > self.left {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a file is longer than it was said"));
        }
        let written = self.to.write(bytes)?;
        self.left -= written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// What follows a content of this size, in bytes.
#[must_use]
pub fn padding(size: u64) -> usize {
    let rest = usize::try_from(size % BLOCK as u64).unwrap_or_default();
    (BLOCK - rest) % BLOCK
}

/// Rule: POSIX "ustar Interchange Format", with GNU's entry for longer paths.
fn header(
    to: &mut impl Write,
    path: &str,
    kind: u8,
    mode: u32,
    ids: Ids,
    seconds: u64,
    size: u64,
) -> io::Result<()> {
    if path.len() > MOST {
        let root = Ids { uid: 0, gid: 0 };
        to.write_all(&block("././@LongLink", LONG_PATH, 0o644, root, 0, path.len() as u64 + 1))?;
        to.write_all(path.as_bytes())?;
        // A zero ends it.
        to.write_all(&END[..=padding(path.len() as u64 + 1)])?;
    }
    to.write_all(&block(path, kind, mode, ids, seconds, size))
}

fn block(path: &str, kind: u8, mode: u32, ids: Ids, seconds: u64, size: u64) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let name = &path.as_bytes()[..path.len().min(MOST)];
    block[..name.len()].copy_from_slice(name);
    number(&mut block[100..108], u64::from(mode));
    number(&mut block[108..116], ids.uid.into());
    number(&mut block[116..124], ids.gid.into());
    number(&mut block[124..136], size);
    number(&mut block[136..148], seconds);
    block[156] = kind;
    block[257..265].copy_from_slice(b"ustar  \0");
    // The sum is made with blanks in its own place.
    block[148..156].fill(b' ');
    let sum: u64 = block.iter().map(|&byte| u64::from(byte)).sum();
    number(&mut block[148..155], sum);
    block
}

/// A number in octal digits and a zero; one that is too large in binary, as GNU does.
fn number(field: &mut [u8], number: u64) {
    let digits = field.len() - 1;
    let text = format!("{number:0digits$o}");
    if text.len() <= digits {
        field[..digits].copy_from_slice(text.as_bytes());
    } else {
        let bytes = number.to_be_bytes();
        let start = field.len() - bytes.len();
        field[start..].copy_from_slice(&bytes);
        field[0] |= 0x80;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_of_others_find_what_was_written() {
        let ids = Ids { uid: 1000, gid: 0 };
        let long = format!("opt/{}", "deep/".repeat(60) + "file.py");
        let exact = "a".repeat(100);
        let mut tar = Vec::new();
        folder(&mut tar, "opt", 0o755, Ids { uid: 0, gid: 0 }, 315_532_800).unwrap();
        for (path, content) in [("opt/a", "text"), (&long, ""), (&exact, "x")] {
            let size = content.len() as u64;
            file(&mut tar, path, 0o664, ids, 315_532_800, size, &mut content.as_bytes()).unwrap();
        }
        tar.extend(END);
        assert_eq!(tar.len() % BLOCK, 0);
        let mut read = tar::Archive::new(tar.as_slice());
        let entries: Vec<_> = read
            .entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                let mut text = String::new();
                entry.read_to_string(&mut text).unwrap();
                let header = entry.header();
                let numbers = (
                    header.mode().unwrap(),
                    header.uid().unwrap(),
                    header.gid().unwrap(),
                    header.mtime().unwrap(),
                );
                (entry.path().unwrap().display().to_string(), numbers, text)
            })
            .collect();
        let of_user = (0o664, 1000, 0, 315_532_800);
        assert_eq!(
            entries,
            [
                ("opt/".to_owned(), (0o755, 0, 0, 315_532_800), String::new()),
                ("opt/a".to_owned(), of_user, "text".to_owned()),
                (long, of_user, String::new()),
                (exact, of_user, "x".to_owned()),
            ]
        );
        for content in ["1", "123"] {
            assert!(file(&mut io::sink(), "x", 0o644, ids, 0, 2, &mut content.as_bytes()).is_err());
        }
        let mut field = [0; 12];
        number(&mut field, 1 << 40);
        assert_eq!(field[0], 0x80);
    }
}
