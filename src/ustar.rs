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

/// The longest path that is read.
///
/// Rule: Linux, `PATH_MAX`.
const LONGEST: u64 = 4096;

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

/// What the entry of a file says beside what all of a stream have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Its path from the root.
    pub path: String,
    /// Its permissions.
    pub mode: u32,
    /// Size of its content, in bytes.
    pub size: u64,
}

/// Reads the head of a file's entry, of a stream with nothing but files of these ids and this time; `None` at its end.
///
/// # Errors
///
/// Of reading; one of [`io::ErrorKind::InvalidData`] where one byte of it is another than [`file`] writes.
pub fn read_head(from: &mut impl Read, ids: Ids, seconds: u64) -> io::Result<Option<Head>> {
    let mut bytes = Vec::with_capacity(BLOCK);
    from.take(BLOCK as u64).read_to_end(&mut bytes)?;
    if bytes.is_empty() {
        return Ok(None);
    }
    let mut at = 0;
    let mut path = None;
    if bytes.get(156) == Some(&LONG_PATH) {
        let size = octal(bytes.get(124..136)).filter(|size| *size <= LONGEST).ok_or_else(odd)?;
        at = BLOCK + usize::try_from(size).unwrap_or_default() + padding(size);
        from.take((at + BLOCK - bytes.len()) as u64).read_to_end(&mut bytes)?;
        path = bytes.get(BLOCK..at);
    }
    let block = bytes.get(at..at + BLOCK).ok_or(io::ErrorKind::UnexpectedEof)?;
    let path = path.unwrap_or(&block[..MOST]).split(|&byte| byte == 0).next().unwrap_or_default();
    let path = std::str::from_utf8(path).map_err(|_| odd())?;
    let number = |field: &[u8]| octal(Some(field)).ok_or_else(odd);
    let mode = u32::try_from(number(&block[100..108])?).map_err(|_| odd())?;
    let size = number(&block[124..136])?;
    let mut written = Vec::with_capacity(bytes.len());
    header(&mut written, path, FILE, mode, ids, seconds, size)?;
    if written != bytes {
        return Err(odd());
    }
    Ok(Some(Head { path: path.to_owned(), mode, size }))
}

/// Reads what follows a content of this size.
///
/// # Errors
///
/// As [`read_head`].
pub fn read_padding(from: &mut impl Read, size: u64) -> io::Result<()> {
    let mut rest = [0; BLOCK];
    let rest = &mut rest[..padding(size)];
    from.read_exact(rest)?;
    if rest.iter().all(|&byte| byte == 0) { Ok(()) } else { Err(odd()) }
}

fn odd() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "an entry is not that of a plain file with its owner and time")
}

/// A number in octal digits and a zero.
fn octal(field: Option<&[u8]>) -> Option<u64> {
    let (zero, digits) = field?.split_last()?;
    let digits = std::str::from_utf8(digits).ok().filter(|_| *zero == 0)?;
    u64::from_str_radix(digits, 8).ok()
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

    const IDS: Ids = Ids { uid: 1000, gid: 0 };
    const TIME: u64 = 315_532_800;

    /// The paths and contents of a stream of files.
    fn read(mut stream: &[u8]) -> io::Result<Vec<(Head, Vec<u8>)>> {
        let mut files = Vec::new();
        while let Some(head) = read_head(&mut stream, IDS, TIME)? {
            let mut content = Vec::new();
            (&mut stream).take(head.size).read_to_end(&mut content)?;
            read_padding(&mut stream, head.size)?;
            files.push((head, content));
        }
        Ok(files)
    }

    fn head(path: &str, size: u64) -> Head {
        Head { path: path.to_owned(), mode: 0o664, size }
    }

    #[test]
    fn what_is_written_is_read_and_nothing_that_differs_in_a_byte() {
        let long = format!("opt/{}", "deep/".repeat(60) + "file.py");
        let exact = "a".repeat(100);
        let (mut tar, mut heads) = (Vec::new(), Vec::new());
        for (path, content) in [("opt/a", "text"), (&long, ""), (&exact, "x")] {
            let size = content.len() as u64;
            file(&mut tar, path, 0o664, IDS, TIME, size, &mut content.as_bytes()).unwrap();
            heads.push((head(path, size), content.as_bytes().to_vec()));
        }
        assert_eq!(read(&tar).unwrap(), heads);
        for at in 0..tar.len() {
            let mut changed = tar.clone();
            changed[at] ^= 1;
            // Contents may be others, and so may a path, which is in its header up to here alone.
            let is_content = (512..516).contains(&at) || at == tar.len() - 512;
            let is_path = (1536 + MOST..1536 + long.len()).contains(&at);
            assert_eq!(read(&changed).is_ok(), is_content || is_path, "byte {at}");
        }
        for end in (1..tar.len()).filter(|end| ![1024, 2560].contains(end)) {
            assert!(read(&tar[..end]).is_err(), "cut at {end}");
        }
        // What others write, and what is no file.
        let block = |kind, ids| block("opt/a", kind, 0o664, ids, TIME, 0);
        for odd in [
            block(b'2', IDS),
            block(b'1', IDS),
            block(FOLDER, IDS),
            block(b'\0', IDS),
            block(b'x', IDS),
            block(FILE, Ids { uid: 0, gid: 0 }),
            super::block("opt/a", LONG_PATH, 0o644, IDS, TIME, 1 << 30),
            [0; BLOCK],
        ] {
            assert!(read(&odd).is_err());
        }
        assert!(read(&block(FILE, IDS)).is_ok());
    }
}
