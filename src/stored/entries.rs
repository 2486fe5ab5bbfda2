//! Entries of a tar stream of somebody who is not trusted, in constant memory.

use std::io::{self, Read};

use super::Refusal;

/// An entry, and where its content is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// As it is written.
    pub(super) path: Vec<u8>,
    pub(super) kind: Kind,
    pub(super) about: About,
    /// Of its content, in bytes.
    pub(super) size: u64,
    /// Whether it is written in the one way that all readers understand, and that engines write.
    pub(super) is_plain: bool,
    /// Where its content begins in the stream, in bytes.
    pub(super) at: u64,
}

/// What is said of a file beside its content.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct About {
    /// Permissions, with set-id and sticky bits.
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// When it was changed, in whole seconds since 1970; 0 where nothing that can be read says so.
    pub(super) time: i64,
    /// Its extended attributes, as PAX records and sorted.
    pub(super) attributes: Box<[Box<[u8]>]>,
}

impl About {
    /// How much its attributes take, in bytes.
    pub(super) fn weight(&self) -> usize {
        self.attributes.iter().map(|attribute| attribute.len() + size_of::<[usize; 4]>()).sum()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Folder,
    /// A symbolic link, and where it leads.
    Link(Vec<u8>),
    /// Another name of an entry that came before.
    HardLink(Vec<u8>),
    /// A device or a FIFO, and what its header says of its numbers.
    Device(Numbers),
}

/// Which kind of device, and its two numbers, as they stand in a header.
pub(super) type Numbers = [u8; 17];

/// The size of a header, and what the size of every content is rounded up to.
pub(super) const BLOCK: usize = 512;

/// The largest extension of a header that is read, in bytes.
const MOST_EXTENSION: u64 = 1 << 20;

/// The longest path, in bytes: Linux's `PATH_MAX`.
pub(super) const MOST_PATH: usize = 4096;

/// Passes over so many bytes of a stream, all of which are there.
pub(super) type Pass<R> = fn(&mut R, u64) -> io::Result<()>;

/// Passes over bytes by reading them.
pub(super) fn read_over<R: Read>(from: &mut R, bytes: u64) -> io::Result<()> {
    match io::copy(&mut from.take(bytes), &mut io::sink())? {
        read if read == bytes => Ok(()),
        _ => Err(cut().into()),
    }
}

fn cut() -> Refusal {
    Refusal::Tar("it is cut off")
}

/// Reads entries one by one.
///
/// Rules: POSIX "pax Interchange Format"; GNU's long paths and large numbers. Whatever two readers may understand in two
/// ways is refused.
pub(super) struct Entries<R> {
    from: R,
    pass: Pass<R>,
    /// How much was read or passed over, in bytes.
    at: u64,
    /// What is left of an entry, in bytes.
    left: u64,
    /// What follows it up to the next block, in bytes.
    padding: u64,
}

/// What comes before a header and adds to it.
#[derive(Default)]
struct Extension {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    time: Option<i64>,
    attributes: Vec<Box<[u8]>>,
    /// Whether readers may differ in what it says.
    is_odd: bool,
}

impl Extension {
    /// What both say. Readers differ in which of two paths counts.
    fn and(self, other: Self) -> Result<Self, Refusal> {
        if self.path.is_some() && other.path.is_some() || self.link.is_some() && other.link.is_some() {
            return Err(Refusal::Tar("an entry is extended twice"));
        }
        Ok(Self {
            path: self.path.or(other.path),
            link: self.link.or(other.link),
            size: self.size.or(other.size),
            uid: self.uid.or(other.uid),
            gid: self.gid.or(other.gid),
            time: self.time.or(other.time),
            attributes: [self.attributes, other.attributes].concat(),
            is_odd: self.is_odd || other.is_odd,
        })
    }
}

impl<R: Read> Entries<R> {
    pub(super) fn new(from: R, pass: Pass<R>) -> Self {
        Self { from, pass, at: 0, left: 0, padding: 0 }
    }

    /// The stream, at the end of what was read.
    pub(super) fn into_inner(self) -> R {
        self.from
    }

    /// The next entry; `None` where the archive ends.
    pub(super) fn next(&mut self) -> Result<Option<Entry>, Refusal> {
        let mut extension = Extension::default();
        let mut is_extended = false;
        let mut is_pax = false;
        loop {
            let left = std::mem::take(&mut self.left);
            (self.pass)(&mut self.from, left)?;
            self.at = self.at.checked_add(left).ok_or(Refusal::Tar("it is too large"))?;
            // There are writers that do not fill the last block, and readers that take what they write.
            let padding = std::mem::take(&mut self.padding);
            self.at += io::copy(&mut self.from.by_ref().take(padding), &mut io::sink())?;
            let Some(block) = self.block()? else {
                return if is_extended { Err(cut()) } else { Ok(None) };
            };
            if block == [0; BLOCK] {
                let is_end = self.block()?.is_none_or(|block| block == [0; BLOCK]);
                return if is_end && !is_extended { Ok(None) } else { Err(Refusal::Tar("a block is empty")) };
            }
            check_sum(&block)?;
            let size = number(&block[124..136])?;
            match block[156] {
                b'x' if is_pax => return Err(Refusal::Tar("an entry is extended twice")),
                b'x' => {
                    is_pax = true;
                    extension = extension.and(pax(&self.content(size)?)?)?;
                }
                // What it says of all entries is nothing that counts here: engines pass over it, too, and forget what came before.
                b'g' if is_extended => return Err(Refusal::Tar("an entry is extended by halves")),
                b'g' => {
                    extension.is_odd = true;
                    self.expect(size)?;
                }
                b'L' => {
                    let path = Some(ended(self.content(size)?));
                    extension = extension.and(Extension { path, is_odd: true, ..Extension::default() })?;
                }
                b'K' => {
                    let link = Some(ended(self.content(size)?));
                    extension = extension.and(Extension { link, is_odd: true, ..Extension::default() })?;
                }
                kind => {
                    let size = extension.size.unwrap_or(size);
                    return self.entry(&block, kind, size, extension).map(Some);
                }
            }
            is_extended |= block[156] != b'g';
        }
    }

    fn entry(
        &mut self,
        block: &[u8; BLOCK],
        kind: u8,
        size: u64,
        extension: Extension,
    ) -> Result<Entry, Refusal> {
        let path = extension.path.unwrap_or_else(|| own_path(block));
        let link = extension.link.unwrap_or_else(|| text(&block[157..257]).to_vec());
        let is_folder = kind == 0 && path.ends_with(b"/");
        let kind = match kind {
            b'5' => Kind::Folder,
            _ if is_folder => Kind::Folder,
            b'0' if path.ends_with(b"/") => return Err(Refusal::Tar("a file's path ends with a slash")),
            b'0' | b'7' | 0 => Kind::File,
            b'1' => Kind::HardLink(link),
            b'2' => Kind::Link(link),
            b'3' | b'4' | b'6' => {
                let mut numbers = [kind; 17];
                numbers[1..].copy_from_slice(&block[329..345]);
                Kind::Device(numbers)
            }
            b'S' => return Err(Refusal::Tar("it holds a sparse file")),
            _ => return Err(Refusal::Tar("it holds an entry of an unknown kind")),
        };
        if kind != Kind::File && size > 0 {
            return Err(Refusal::Tar("what is no file has a content"));
        }
        let mode = number(&block[100..108])? & 0o7777;
        let uid = extension.uid.map_or_else(|| number(&block[108..116]), Ok)?;
        let gid = extension.gid.map_or_else(|| number(&block[116..124]), Ok)?;
        let id = |id: u64| u32::try_from(id).map_err(|_| Refusal::Tar("an owner's number is too large"));
        if let Kind::Link(target) | Kind::HardLink(target) = &kind
            && (target.len() > MOST_PATH || target.contains(&0))
        {
            return Err(Refusal::Tar("a link leads to what is no path"));
        }
        self.expect(size)?;
        let own_time = || number(&block[136..148]).ok().and_then(|time| i64::try_from(time).ok());
        let mut attributes = extension.attributes;
        attributes.sort_unstable();
        let about = About {
            mode: u32::try_from(mode).expect("it has twelve bits"),
            uid: id(uid)?,
            gid: id(gid)?,
            time: extension.time.or_else(own_time).unwrap_or_default(),
            attributes: attributes.into(),
        };
        let is_plain = !extension.is_odd && is_plain(block);
        Ok(Entry { path, kind, about, size, is_plain, at: self.at })
    }

    /// Says how long the content is that follows.
    fn expect(&mut self, size: u64) -> Result<(), Refusal> {
        if i64::try_from(size).is_err() {
            return Err(Refusal::Tar("it is too large"));
        }
        (self.left, self.padding) = (size, rounded(size)? - size);
        Ok(())
    }

    /// The next block; `None` where the stream ends before it.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, Refusal> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.from.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(cut()),
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.at += BLOCK as u64;
        Ok(Some(block))
    }

    /// The whole content of an extension.
    fn content(&mut self, size: u64) -> Result<Vec<u8>, Refusal> {
        if size > MOST_EXTENSION {
            return Err(Refusal::Tar("a header's extension is larger than 1 MiB"));
        }
        let rounded = rounded(size)?;
        let mut content = Vec::new();
        self.from.by_ref().take(rounded).read_to_end(&mut content)?;
        if content.len() as u64 != rounded {
            return Err(cut());
        }
        self.at += rounded;
        content.truncate(usize::try_from(size).expect("it is small"));
        Ok(content)
    }
}

fn rounded(size: u64) -> Result<u64, Refusal> {
    size.checked_next_multiple_of(BLOCK as u64).ok_or(Refusal::Tar("it is too large"))
}

fn check_sum(block: &[u8; BLOCK]) -> Result<(), Refusal> {
    // The sum is made with blanks in its own place; there are writers that sum signed bytes.
    let bytes = || block[..148].iter().chain(&[b' '; 8]).chain(&block[156..]);
    let unsigned: i64 = bytes().map(|&byte| i64::from(byte)).sum();
    let signed: i64 = bytes().map(|&byte| i64::from(byte.cast_signed())).sum();
    match number(&block[148..156]).map(i64::try_from) {
        Ok(Ok(sum)) if sum == unsigned || sum == signed => Ok(()),
        _ => Err(Refusal::Tar("a header is damaged")),
    }
}

/// A number in octal digits, or in binary as GNU does.
fn number(field: &[u8]) -> Result<u64, Refusal> {
    let wrong = || Refusal::Tar("a header has a number that is none");
    if field[0] & 0x80 != 0 {
        // A bit more says that it is negative.
        let mut bytes = field.iter().copied();
        let first = u64::from(bytes.next().unwrap_or_default() & 0x7f);
        return bytes.try_fold(first, |sum, byte| {
            sum.checked_mul(256).map(|sum| sum | u64::from(byte)).ok_or_else(wrong)
        });
    }
    // There are readers that pass over what others end at.
    if field[0] == 0 && field.iter().any(|byte| !matches!(byte, 0 | b' ')) {
        return Err(wrong());
    }
    let digits = text(field).trim_ascii();
    let is_octal = digits.iter().all(|byte| matches!(byte, b'0'..=b'7'));
    let digits = std::str::from_utf8(digits).ok().filter(|_| is_octal).ok_or_else(wrong)?;
    if digits.is_empty() { Ok(0) } else { u64::from_str_radix(digits, 8).map_err(|_| wrong()) }
}

/// What comes before the first zero.
fn text(field: &[u8]) -> &[u8] {
    field.split(|&byte| byte == 0).next().unwrap_or_default()
}

/// Whether a header is one of POSIX alone, with octal digits for all numbers.
fn is_plain(block: &[u8; BLOCK]) -> bool {
    let is_octal = |field: &[u8]| {
        let digits = field.iter().take_while(|byte| matches!(byte, b'0'..=b'7')).count();
        digits > 0 && field[digits..].iter().all(|byte| matches!(byte, 0 | b' '))
    };
    let numbers = [100..108, 108..116, 116..124, 124..136, 136..148, 148..156];
    // What follows the prefix is some writers' own.
    block[257..265] == *b"ustar\x0000"
        && block[500..].iter().all(|&byte| byte == 0)
        && numbers.into_iter().all(|field| is_octal(&block[field]))
}

fn ended(mut text: Vec<u8>) -> Vec<u8> {
    text.truncate(self::text(&text).len());
    text
}

fn own_path(block: &[u8; BLOCK]) -> Vec<u8> {
    let (name, prefix) = (text(&block[..100]), text(&block[345..500]));
    // GNU has other things there.
    if &block[257..263] == b"ustar\0" && !prefix.is_empty() {
        [prefix, b"/", name].concat()
    } else {
        name.to_vec()
    }
}

/// Records of `LENGTH KEY=VALUE` and a line end.
fn pax(mut records: &[u8]) -> Result<Extension, Refusal> {
    let mut to = Extension::default();
    let wrong = || Refusal::Tar("a header's extension is not well-formed");
    while !records.is_empty() {
        let blank = records.iter().take(20).position(|&byte| byte == b' ').ok_or_else(wrong)?;
        let is_decimal = records[..blank].iter().all(u8::is_ascii_digit);
        let length = std::str::from_utf8(&records[..blank]).ok().filter(|_| is_decimal);
        let length: usize = length.and_then(|length| length.parse().ok()).ok_or_else(wrong)?;
        let record = records.get(blank + 1..length).and_then(|record| record.strip_suffix(b"\n"));
        let record = record.ok_or_else(wrong)?;
        records = &records[length..];
        let equals = record.iter().position(|&byte| byte == b'=').ok_or_else(wrong)?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        let path = || if value.contains(&0) { Err(wrong()) } else { Ok(value.to_vec()) };
        let number = || {
            let is_decimal = value.iter().all(u8::is_ascii_digit);
            let digits = std::str::from_utf8(value).ok().filter(|_| is_decimal);
            digits.and_then(|digits| digits.parse().ok()).ok_or_else(wrong)
        };
        // Nothing takes back what was said before.
        let is_said = !value.is_empty();
        match key {
            b"path" => to.path = is_said.then(path).transpose()?,
            b"linkpath" => to.link = is_said.then(path).transpose()?,
            b"size" => to.size = is_said.then(number).transpose()?,
            b"uid" => to.uid = is_said.then(number).transpose()?,
            b"gid" => to.gid = is_said.then(number).transpose()?,
            b"mtime" => {
                to.time = seconds(value);
                to.is_odd |= !value.iter().all(u8::is_ascii_digit);
            }
            key if key.starts_with(b"SCHILY.xattr.") => to.attributes.push(record.into()),
            key if key.starts_with(b"GNU.sparse.") => return Err(Refusal::Tar("it holds a sparse file")),
            _ => to.is_odd = true,
        }
    }
    Ok(to)
}

/// The whole seconds of a time that may have a fraction.
fn seconds(value: &[u8]) -> Option<i64> {
    std::str::from_utf8(value.split(|&byte| byte == b'.').next()?).ok()?.parse().ok()
}

/// The parts of a path below a root.
pub(super) fn parts(path: &[u8]) -> Result<Vec<&[u8]>, Refusal> {
    if path.len() > MOST_PATH {
        return Err(Refusal::Path("is longer than 4096 bytes"));
    }
    let parts: Vec<_> =
        path.split(|&byte| byte == b'/').filter(|part| !part.is_empty() && *part != b".").collect();
    if path.is_empty() || parts.iter().any(|part| part.contains(&0)) {
        return Err(Refusal::Path("is none"));
    }
    if parts.contains(&b"..".as_slice()) {
        return Err(Refusal::Path("leads elsewhere"));
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(tar: &[u8]) -> Result<Vec<Entry>, Refusal> {
        let mut entries = Entries::new(tar, read_over);
        let mut found = Vec::new();
        while let Some(entry) = entries.next()? {
            found.push(entry);
        }
        Ok(found)
    }

    fn header(kind: u8, path: &str, link: &str, size: u64) -> tar::Header {
        let mut header = tar::Header::new_ustar();
        header.as_old_mut().linkflag = [kind];
        header.set_mode(0o4755);
        header.set_uid(7);
        header.set_gid(8);
        header.set_mtime(9);
        header.set_size(size);
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        header
    }

    fn tar(entries: &[(u8, &str, &str, &[u8])]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (kind, path, link, content) in entries {
            tar.append(&header(*kind, path, link, content.len() as u64), *content).unwrap();
        }
        tar.into_inner().unwrap()
    }

    #[test]
    fn entries_are_read_with_what_extends_them() {
        let long = "deep/".repeat(60) + "x";
        let record = |key: &str, value: &str| {
            let length = key.len() + value.len() + 3;
            let digits = (length + 2).to_string().len();
            format!("{} {key}={value}\n", length + digits)
        };
        let pax = record("path", &long) + &record("uid", "4000000") + &record("SCHILY.xattr.a", "b\nc");
        let pax = pax + &record("mtime", "-5.25");
        let pax_link = record("linkpath", &long) + &record("path", "l");
        let bytes = tar(&[
            (b'g', "pax_global_header", "", record("comment", "x").as_bytes()),
            (b'5', "d/", "", b""),
            (b'x', "x", "", pax.as_bytes()),
            (b'0', "short", "", b"content"),
            (b'L', "././@LongLink", "", format!("{long}\0").as_bytes()),
            (b'2', "short", "target", b""),
            (b'x', "x", "", pax_link.as_bytes()),
            (b'1', "short", "", b""),
            (b'6', "fifo", "", b""),
            (0, "old/", "", b""),
        ]);
        let entries = read(&bytes).unwrap();
        let told: Vec<_> =
            entries.iter().map(|entry| (std::str::from_utf8(&entry.path).unwrap(), &entry.kind)).collect();
        assert_eq!(
            told,
            [
                ("d/", &Kind::Folder),
                (&long, &Kind::File),
                (&long, &Kind::Link(b"target".to_vec())),
                ("l", &Kind::HardLink(long.clone().into_bytes())),
                ("fifo", &Kind::Device(*b"6\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0")),
                ("old/", &Kind::Folder),
            ]
        );
        let file = &entries[1];
        let About { mode, uid, gid, time, attributes } = &file.about;
        assert_eq!((*mode, *uid, *gid, *time, file.size), (0o4755, 4_000_000, 8, -5, 7));
        assert_eq!(**attributes, [b"SCHILY.xattr.a=b\nc".as_slice().into()]);
        let at = usize::try_from(file.at).unwrap();
        assert_eq!(&bytes[at..at + 7], b"content");
        let unfilled = tar(&[(b'0', "a", "", b"content")]);
        assert_eq!(read(&unfilled[..519]).unwrap().len(), 1);
        assert!(read(&unfilled[..518]).is_err());
        assert_eq!(entries[0].about.uid, 7);
    }

    #[test]
    fn what_readers_differ_in_is_refused() {
        let mut cut = tar(&[(b'0', "a", "", &[1; 700])]);
        cut.truncate(1200);
        let mut damaged = tar(&[(b'0', "a", "", b"")]);
        damaged[3] = b'b';
        let mut lone = tar(&[(b'0', "a", "", b""), (b'0', "b", "", b"")]);
        lone.splice(512..512, [0; 512]);
        let mut negative = header(b'0', "a", "", 0);
        negative.as_old_mut().size = [0xff; 12];
        negative.set_cksum();
        let mut led = header(b'0', "a", "", 0);
        led.as_old_mut().uid = *b"\x000001750";
        led.set_cksum();
        for (bytes, why) in [
            (led.as_bytes().to_vec(), "a number that is none"),
            (cut, "cut off"),
            (damaged, "damaged"),
            (lone, "a block is empty"),
            (negative.as_bytes().to_vec(), "a number that is none"),
            (tar(&[(b'S', "a", "", b"")]), "sparse"),
            (tar(&[(b'x', "x", "", b"22 GNU.sparse.major=1\n"), (b'0', "a", "", b"")]), "sparse"),
            (tar(&[(b'Z', "a", "", b"")]), "unknown kind"),
            (tar(&[(b'0', "a/", "", b"")]), "ends with a slash"),
            (tar(&[(b'2', "a", "b", b"content")]), "has a content"),
            (tar(&[(b'x', "x", "", b"99 path=a\n"), (b'0', "a", "", b"")]), "not well-formed"),
            (tar(&[(b'x', "x", "", b"+9 path=a\n"), (b'0', "a", "", b"")]), "not well-formed"),
            (tar(&[(b'x', "x", "", b"0 path=a\n"), (b'0', "a", "", b"")]), "not well-formed"),
            (tar(&[(b'x', "x", "", b"11 size=-1\n"), (b'0', "a", "", b"")]), "not well-formed"),
            (tar(&[(b'x', "x", "", b"9 path=a\n")]), "a block is empty"),
            (tar(&[(b'x', "x", "", b""), (b'x', "x", "", b""), (b'0', "a", "", b"")]), "extended twice"),
            (tar(&[(b'x', "x", "", b""), (b'g', "g", "", b""), (b'0', "a", "", b"")]), "by halves"),
            (tar(&[(b'x', "x", "", b"29 size=18446744073709551104\n"), (b'0', "a", "", b"")]), "too large"),
            (
                tar(&[(b'L', "x", "", b"b"), (b'x', "x", "", b"9 path=a\n"), (b'0', "a", "", b"")]),
                "extended twice",
            ),
            (tar(&[(b'K', "x", "", b"b"), (b'K', "x", "", b"c"), (b'2', "a", "", b"")]), "extended twice"),
            (tar(&[(b'L', "x", "", &vec![b'a'; (1 << 20) + 1])]), "larger than 1 MiB"),
        ] {
            let refused = read(&bytes).unwrap_err().to_string();
            assert!(refused.contains(why), "{why}: {refused}");
        }
        assert_eq!(parts(b"./a//b/").unwrap(), [b"a", b"b"]);
        assert_eq!(parts(b"/a").unwrap(), [b"a"]);
        assert!(parts(b"./").unwrap().is_empty());
        for path in [&b""[..], b"..", b"a/../b", b"a\0b", &[b'a'; 5000]] {
            assert!(parts(path).is_err());
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_read_outside(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..4096),
            changes in proptest::collection::vec((0_usize..6000, any::<u8>()), 0..12),
        ) {
            let _ = read(&bytes);
            let record = b"9 path=p\n";
            bytes.truncate(700);
            let mut whole = tar(&[(b'x', "x", "", record), (b'0', "a", "", &bytes), (b'2', "l", "a", b"")]);
            for (at, byte) in changes {
                let at = at % whole.len();
                whole[at] = byte;
                // Headers have to be right to be read on.
                for header in (0..whole.len() / 512).filter(|_| byte % 2 == 0) {
                    let block = &mut whole[header * 512..][..512];
                    block[148..156].fill(b' ');
                    let sum: u64 = block.iter().map(|&byte| u64::from(byte)).sum();
                    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
                }
            }
            let mut entries = Entries::new(whole.as_slice(), read_over);
            while let Ok(Some(entry)) = entries.next() {
                prop_assert!(entry.at <= whole.len() as u64);
                prop_assert!(entry.path.len() <= 1 << 20);
            }
        }
    }
}
