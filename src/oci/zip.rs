//! A zip archive that all read alike, or none.
//!
//! Rule: APPNOTE.TXT 6.3.10, "General Format of a .ZIP file"; of what it leaves open, the one reading in which every byte of the
//! file belongs to one entry, to the central directory or to its end.

use std::collections::BTreeSet;
use std::io::{self, Read, Seek, SeekFrom};

use flate2::Crc;

use super::error::{Fault, Refusal};
use super::inflate::{Inflate, Inflating};

/// The most entries of an archive.
pub(super) const ENTRIES: u64 = 200_000;

/// The most bytes that all files of an archive have together.
pub(super) const TOTAL: u64 = 16 << 30;

/// The most bytes of a central directory.
const DIRECTORY: u64 = 64 << 20;

/// Above how many bytes a file must not be compressed too well, and what is too well.
const BOMB: (u64, u64) = (100_000_000, 1_000);

/// Size of one piece of content, in bytes.
const PIECE: usize = 64 << 10;

/// The longest name of a file, in bytes.
const NAME: usize = 255;

/// Flags of an entry: encrypted, sizes behind the content, and a name in UTF-8.
const ENCRYPTED: u16 = 1 | 1 << 6 | 1 << 13;
const DESCRIBED_BEHIND: u16 = 1 << 3;
const UTF8: u16 = 1 << 11;

/// Flags that change nothing: how hard it was to compress.
const EFFORT: u16 = 1 << 1 | 1 << 2;

/// An archive whose headers agree with each other.
pub(super) struct Archive<R> {
    reader: R,
    entries: Vec<Entry>,
    inflate: Inflate,
}

/// A file or folder of an archive.
pub(super) struct Entry {
    /// Its path, without a slash at the end.
    pub(super) path: String,
    pub(super) is_folder: bool,
    pub(super) is_executable: bool,
    /// Bytes of its content.
    pub(super) size: u64,
    header: Header,
    mode: u16,
    /// Where its local header begins, and where its content.
    offset: u64,
    start: u64,
}

/// What both headers of an entry tell.
struct Header {
    flags: u16,
    method: u16,
    crc: u32,
    packed: u64,
    size: u64,
    name: Vec<u8>,
}

impl<R: Read + Seek> Archive<R> {
    /// Reads all headers, and no content.
    pub(super) fn open(mut reader: R) -> Result<Self, Fault> {
        let end = End::find(&mut reader)?;
        let mut directory =
            vec![0; usize::try_from(end.size).map_err(|_| Refusal::Limit("64 MiB of headers"))?];
        exactly(&mut reader, end.offset, &mut directory)?;
        let mut bytes = Bytes(&directory);
        let mut entries = Vec::new();
        while !bytes.0.is_empty() {
            entries.push(Entry::central(&mut bytes)?);
        }
        if entries.len() as u64 != end.entries {
            return Err(Refusal::Archive("the number of its entries is another one").into());
        }
        check_paths(&entries)?;
        check_sizes(&entries)?;
        let mut archive = Self { reader, entries, inflate: Inflate::new() };
        archive.check_local_headers(end.offset)?;
        Ok(archive)
    }

    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Compares each entry's local header with the central directory. Together with their contents they leave no byte out
    /// before the directory.
    fn check_local_headers(&mut self, directory: u64) -> Result<(), Fault> {
        let mut order: Vec<usize> = (0..self.entries.len()).collect();
        order.sort_unstable_by_key(|index| self.entries[*index].offset);
        if order.first().map_or(directory, |first| self.entries[*first].offset) != 0 {
            return Err(Refusal::Archive("something precedes its entries").into());
        }
        for (place, &index) in order.iter().enumerate() {
            let next = order.get(place + 1).map_or(directory, |next| self.entries[*next].offset);
            let entry = &mut self.entries[index];
            entry.start = entry.check_local(&mut self.reader).map_err(|refusal| refusal.of(&entry.path))?;
            let end = entry.start.checked_add(entry.header.packed).filter(|end| *end <= next);
            let behind = end.map(|end| (end, next - end));
            let (end, behind) =
                behind.ok_or_else(|| Refusal::Archive("its entries overlap").of(&entry.path))?;
            let described = entry.header.flags & DESCRIBED_BEHIND != 0;
            let fits = match behind {
                0 => !described,
                12 | 16 | 20 | 24 if described => entry.is_described(&mut self.reader, end, behind)?,
                _ => false,
            };
            if !fits {
                return Err(Refusal::Archive("something lies between its entries").of(&entry.path));
            }
        }
        Ok(())
    }

    /// Gives an entry's content piece by piece, and no byte more than its size; whether it is the one that its header tells is
    /// known at the end.
    pub(super) fn read(
        &mut self,
        index: usize,
        mut take: impl FnMut(&[u8]) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let Entry { header, size, .. } = &self.entries[index];
        let mut content = self.entries[index].content(&mut self.reader, &mut self.inflate)?;
        let mut piece = vec![0; PIECE];
        let mut crc = Crc::new();
        let mut left = *size;
        loop {
            let read = match content.read(&mut piece) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(of_content(error)),
            };
            left = left.checked_sub(read as u64).ok_or(Refusal::Damaged("it is longer than it says"))?;
            crc.update(&piece[..read]);
            take(&piece[..read])?;
        }
        if left > 0 || !content.is_used_up(header.packed) {
            return Err(Refusal::Damaged("it is shorter than it says"));
        }
        if crc.sum() != header.crc {
            return Err(Refusal::Damaged("its checksum is another one"));
        }
        Ok(())
    }

    /// Whether an entry's content begins with some bytes.
    pub(super) fn begins_with(&mut self, index: usize, bytes: &[u8]) -> Result<bool, Refusal> {
        let mut beginning = Vec::new();
        let content = self.entries[index].content(&mut self.reader, &mut self.inflate)?;
        content.take(bytes.len() as u64).read_to_end(&mut beginning).map_err(of_content)?;
        Ok(beginning == bytes)
    }
}

/// The bytes of an entry.
enum Content<'a, R> {
    Stored(io::Take<&'a mut R>),
    Deflated(Inflating<'a, io::Take<&'a mut R>>),
}

impl<R: Read> Read for Content<'_, R> {
    fn read(&mut self, piece: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Stored(content) => content.read(piece),
            Self::Deflated(content) => content.read(piece),
        }
    }
}

impl<R: Read> Content<'_, R> {
    /// Whether nothing of the packed bytes is left.
    fn is_used_up(&self, packed: u64) -> bool {
        match self {
            Self::Stored(content) => content.limit() == 0,
            Self::Deflated(content) => content.used() == packed,
        }
    }
}

fn of_content(error: io::Error) -> Refusal {
    use io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
    match error.kind() {
        InvalidData | InvalidInput | UnexpectedEof => Refusal::Damaged("it cannot be decompressed"),
        _ => Refusal::Read(error),
    }
}

/// Fills `bytes` from a place of the file.
fn exactly(reader: &mut (impl Read + Seek), offset: u64, bytes: &mut [u8]) -> Result<(), Refusal> {
    reader.seek(SeekFrom::Start(offset)).map_err(Refusal::Read)?;
    reader.read_exact(bytes).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => Refusal::Archive("it is cut off"),
        _ => Refusal::Read(error),
    })
}

/// Where the central directory is.
struct End {
    entries: u64,
    offset: u64,
    size: u64,
}

impl End {
    /// Reads the end of the file, which is that of the archive.
    fn find(reader: &mut (impl Read + Seek)) -> Result<Self, Refusal> {
        const END: &[u8] = b"PK\x05\x06";
        const SIZE: u64 = 22;
        let length = reader.seek(SeekFrom::End(0)).map_err(Refusal::Read)?;
        let from = length.saturating_sub(SIZE + u64::from(u16::MAX));
        let mut tail = vec![0; usize::try_from(length - from).expect("it has at most 64 KiB")];
        exactly(reader, from, &mut tail)?;
        let ends_there = |at: &usize| {
            let comment = tail.get(at + 20..at + 22).map(|size| u16::from_le_bytes([size[0], size[1]]));
            tail[*at..].starts_with(END)
                && comment.is_some_and(|comment| at + 22 + usize::from(comment) == tail.len())
        };
        let mut found = (0..tail.len().saturating_sub(21)).filter(ends_there);
        let at = found.next().ok_or(Refusal::Archive("its end is not that of an archive"))?;
        if found.next().is_some() {
            return Err(Refusal::Archive("it has several ends"));
        }
        // All marks of an archive have such bytes.
        if tail[at + 22..].iter().any(|byte| matches!(byte, 1..=8)) {
            return Err(Refusal::Archive("its comment is no text"));
        }
        let mut bytes = Bytes(&tail[at + 4..]);
        let disks = (bytes.u16()?, bytes.u16()?);
        let (here, entries) = (bytes.u16()?, bytes.u16()?);
        let (size, offset) = (bytes.u32()?, bytes.u32()?);
        let at = from + at as u64;
        let short = Self { entries: entries.into(), offset: offset.into(), size: size.into() };
        let (end, at) = match Self::find_long(reader, at)? {
            Some((long, at)) if long.is_long_form_of(&short) => (long, at),
            Some(_) => return Err(Refusal::Archive("it has two ends that differ")),
            None => (short, at),
        };
        if disks != (0, 0) || here != entries {
            return Err(Refusal::Archive("it is a part of one"));
        }
        if end.entries > ENTRIES {
            return Err(Refusal::Limit("200,000 entries"));
        }
        if end.size > DIRECTORY {
            return Err(Refusal::Limit("64 MiB of headers"));
        }
        if end.offset.checked_add(end.size) != Some(at) {
            return Err(Refusal::Archive("something lies before its end"));
        }
        Ok(end)
    }

    /// The end of a large archive, and where it begins: it precedes the other one.
    fn find_long(reader: &mut (impl Read + Seek), end: u64) -> Result<Option<(Self, u64)>, Refusal> {
        let Some(at) = end.checked_sub(20 + 56) else { return Ok(None) };
        let mut bytes = [0; 20 + 56];
        exactly(reader, at, &mut bytes)?;
        let (long, locator) = bytes.split_at(56);
        let Some(locator) = locator.strip_prefix(b"PK\x06\x07") else { return Ok(None) };
        let mut locator = Bytes(locator);
        let place = (locator.u32()?, locator.u64()?, locator.u32()?);
        let wrong = Refusal::Archive("the end of a large one is not there");
        let Some(long) = long.strip_prefix(b"PK\x06\x06") else { return Err(wrong) };
        let mut long = Bytes(long);
        let size = long.u64()?;
        let _versions = long.u32()?;
        let disks = (long.u32()?, long.u32()?);
        let (here, entries) = (long.u64()?, long.u64()?);
        if place != (0, at, 1) || size != 44 || disks != (0, 0) || here != entries {
            return Err(wrong);
        }
        let (size, offset) = (long.u64()?, long.u64()?);
        Ok(Some((Self { entries, offset, size }, at)))
    }

    /// Whether another one tells the same as far as it has room.
    fn is_long_form_of(&self, short: &Self) -> bool {
        let same = |long: u64, short: u64, most: u64| short == most || short == long;
        same(self.entries, short.entries, u16::MAX.into())
            && same(self.offset, short.offset, u32::MAX.into())
            && same(self.size, short.size, u32::MAX.into())
    }
}

impl Entry {
    /// Reads one of the central directory.
    fn central(bytes: &mut Bytes) -> Result<Self, Fault> {
        if bytes.take(4)? != b"PK\x01\x02" {
            return Err(Refusal::Archive("its directory is damaged").into());
        }
        let [_, system] = bytes.u16()?.to_le_bytes();
        let _needed = bytes.u16()?;
        let (flags, method) = (bytes.u16()?, bytes.u16()?);
        let _time = bytes.u32()?;
        let (crc, packed, size) = (bytes.u32()?, bytes.u32()?, bytes.u32()?);
        let lengths = (bytes.u16()?, bytes.u16()?, bytes.u16()?);
        let (disk, _internal, attributes) = (bytes.u16()?, bytes.u16()?, bytes.u32()?);
        let offset = bytes.u32()?;
        let name = bytes.take(lengths.0.into())?;
        let mut extra = Extra::of(bytes.take(lengths.1.into())?)?;
        let _comment = bytes.take(lengths.2.into())?;
        let (size, packed, offset) =
            (extra.long_form(size)?, extra.long_form(packed)?, extra.long_form(offset)?);
        let path =
            path(name, flags & UTF8 != 0).map_err(|refusal| refusal.of(&String::from_utf8_lossy(name)))?;
        if disk != 0 {
            return Err(Refusal::Archive("it is a part of one").into());
        }
        let is_folder = name.ends_with(b"/");
        let mode = u16::try_from(attributes >> 16).expect("half of it is left");
        let header = Header { flags, method, crc, packed, size, name: name.to_owned() };
        // Only Unix has modes.
        let is_executable = !is_folder && system == 3 && mode & 0o111 != 0;
        let entry = Self { path, is_folder, is_executable, size, header, mode, offset, start: 0 };
        entry.check().map_err(|refusal| refusal.of(&entry.path))?;
        Ok(entry)
    }

    /// Refuses what no wheel needs.
    fn check(&self) -> Result<(), Refusal> {
        const KIND: u16 = 0o170_000;
        const FILE: u16 = 0o100_000;
        const FOLDER: u16 = 0o040_000;
        let Header { flags, method, packed, size, .. } = self.header;
        match self.mode & KIND {
            0 | FILE => {}
            FOLDER if self.is_folder => {}
            _ => return Err(Refusal::Special),
        }
        if flags & ENCRYPTED != 0 {
            return Err(Refusal::Encrypted);
        }
        if flags & !(DESCRIBED_BEHIND | UTF8 | EFFORT) != 0 {
            return Err(Refusal::Archive("it has unknown flags"));
        }
        if !matches!(method, 0 | 8) {
            return Err(Refusal::Method(method));
        }
        if method == 0 && packed != size {
            return Err(Refusal::Damaged("its two sizes differ, though it is not compressed"));
        }
        if self.is_folder && size != 0 {
            return Err(Refusal::Damaged("it is a folder"));
        }
        if size > BOMB.0 && size / BOMB.1 > packed {
            return Err(Refusal::Limit("1,000 bytes for each compressed one"));
        }
        Ok(())
    }

    /// Its content, from the beginning.
    fn content<'a, R: Read + Seek>(
        &self,
        reader: &'a mut R,
        inflate: &'a mut Inflate,
    ) -> Result<Content<'a, R>, Refusal> {
        reader.seek(SeekFrom::Start(self.start)).map_err(Refusal::Read)?;
        let packed = reader.take(self.header.packed);
        Ok(match self.header.method {
            0 => Content::Stored(packed),
            _ => Content::Deflated(inflate.of(packed)),
        })
    }

    /// Compares it with its local header, and returns where its content begins.
    fn check_local(&self, reader: &mut (impl Read + Seek)) -> Result<u64, Refusal> {
        let mut fixed = [0; 30];
        exactly(reader, self.offset, &mut fixed)?;
        let mut bytes = Bytes(&fixed);
        if bytes.take(4)? != b"PK\x03\x04" {
            return Err(Refusal::Archive("its directory leads to no entry"));
        }
        let _needed = bytes.u16()?;
        let (flags, method) = (bytes.u16()?, bytes.u16()?);
        let _time = bytes.u32()?;
        let (crc, packed, size) = (bytes.u32()?, bytes.u32()?, bytes.u32()?);
        let (name, extra) = (usize::from(bytes.u16()?), usize::from(bytes.u16()?));
        let mut rest = vec![0; name + extra];
        let start = self.offset + fixed.len() as u64;
        exactly(reader, start, &mut rest)?;
        let (name, extra) = rest.split_at(name);
        let mut extra = Extra::of(extra)?;
        let (size, packed) = (extra.long_form(size)?, extra.long_form(packed)?);
        let header = &self.header;
        let described = header.flags & DESCRIBED_BEHIND != 0;
        let same = |here: u64, there: u64| here == there || described && here == 0;
        for (what, is_same) in [
            ("name", name == header.name),
            ("flags", flags == header.flags),
            ("method", method == header.method),
            ("checksum", same(crc.into(), header.crc.into())),
            ("compressed size", same(packed, header.packed)),
            ("size", same(size, header.size)),
        ] {
            if !is_same {
                return Err(Refusal::Headers(what));
            }
        }
        Ok(start + rest.len() as u64)
    }

    /// Whether what lies behind the content tells the checksum and the sizes, with four or eight bytes for each of these, and
    /// with or without a mark before them.
    fn is_described(&self, reader: &mut (impl Read + Seek), at: u64, length: u64) -> Result<bool, Refusal> {
        let Header { crc, packed, size, .. } = self.header;
        let mut there = vec![0; usize::try_from(length).expect("it is short")];
        exactly(reader, at, &mut there)?;
        let mut expected = if length.is_multiple_of(8) { b"PK\x07\x08".to_vec() } else { Vec::new() };
        expected.extend(crc.to_le_bytes());
        for size in [packed, size] {
            let bytes = size.to_le_bytes();
            expected.extend(if length < 20 { &bytes[..4] } else { &bytes[..] });
        }
        Ok(there == expected)
    }
}

/// What a header has beside its fixed fields: the long forms of those that are too short.
struct Extra<'a>(Bytes<'a>);

impl<'a> Extra<'a> {
    fn of(bytes: &'a [u8]) -> Result<Self, Refusal> {
        const LONG_FORMS: u16 = 0x0001;
        const OTHER_NAME: u16 = 0x7075;
        let mut bytes = Bytes(bytes);
        let mut long_forms = None;
        while !bytes.0.is_empty() {
            let (kind, size) = (bytes.u16()?, bytes.u16()?);
            let field = bytes.take(size.into())?;
            match kind {
                LONG_FORMS if long_forms.is_none() => long_forms = Some(field),
                LONG_FORMS | OTHER_NAME => return Err(Refusal::Archive("a header tells something twice")),
                _ => {}
            }
        }
        Ok(Self(Bytes(long_forms.unwrap_or_default())))
    }

    /// A field of four bytes, or the eight that are told in its place. Fields are asked in their order.
    fn long_form(&mut self, field: u32) -> Result<u64, Refusal> {
        if field == u32::MAX { self.0.u64() } else { Ok(field.into()) }
    }
}

/// Bytes that are read from the left.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Refusal> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Refusal::Archive("a header is cut off"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Refusal> {
        Ok(self.take(N)?.try_into().expect("it was asked for as many"))
    }

    fn u16(&mut self) -> Result<u16, Refusal> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, Refusal> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Refusal> {
        self.array().map(u64::from_le_bytes)
    }
}

/// The path that a name is, if it is one below the root in its shortest form.
fn path(name: &[u8], is_utf8: bool) -> Result<String, Refusal> {
    if !is_utf8 && !name.is_ascii() {
        return Err(Refusal::Path("is in an unknown encoding"));
    }
    let name = std::str::from_utf8(name).map_err(|_| Refusal::Path("is no UTF-8"))?;
    let path = name.strip_suffix('/').unwrap_or(name);
    check_path(path)?;
    Ok(path.to_owned())
}

/// Refuses a path that does not name one place below where it begins, or that lines of text cannot hold.
pub(super) fn check_path(name: &str) -> Result<(), Refusal> {
    if name.chars().any(char::is_control) {
        return Err(Refusal::Path("has control characters"));
    }
    if name.contains('\\') {
        return Err(Refusal::Path("has a backslash"));
    }
    if name.starts_with('/') {
        return Err(Refusal::Path("is absolute"));
    }
    if let [drive, b':', ..] = name.as_bytes()
        && drive.is_ascii_alphabetic()
    {
        return Err(Refusal::Path("begins with a drive"));
    }
    for part in name.split('/') {
        match part {
            ".." => return Err(Refusal::Path("leaves its folder")),
            "" | "." => return Err(Refusal::Path("is not in its shortest form")),
            part if part.len() > NAME => return Err(Refusal::Path("has a name that is too long")),
            _ => {}
        }
    }
    Ok(())
}

/// No path is there twice, and none is a file and a folder.
fn check_paths(entries: &[Entry]) -> Result<(), Fault> {
    let mut paths = BTreeSet::new();
    let mut in_lower_case = BTreeSet::new();
    for Entry { path, .. } in entries {
        if !paths.insert(path.as_str()) {
            return Err(Refusal::Twice.of(path));
        }
        if !in_lower_case.insert(path.to_lowercase()) {
            return Err(Refusal::Case.of(path));
        }
    }
    let files: BTreeSet<_> =
        entries.iter().filter(|entry| !entry.is_folder).map(|entry| entry.path.as_str()).collect();
    match entries.iter().find_map(|entry| file_above(&entry.path, |above| files.contains(above))) {
        Some(path) => Err(Refusal::FileAndFolder.of(path)),
        None => Ok(()),
    }
}

/// The folder of a path that is a file.
#[must_use]
pub fn file_above(path: &str, is_file: impl Fn(&str) -> bool) -> Option<&str> {
    path.match_indices('/').map(|(slash, _)| &path[..slash]).find(|above| is_file(above))
}

fn check_sizes(entries: &[Entry]) -> Result<(), Refusal> {
    let total = entries.iter().try_fold(0_u64, |total, entry| total.checked_add(entry.size));
    match total {
        Some(0..=TOTAL) => Ok(()),
        _ => Err(Refusal::Limit("16 GiB")),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write};

    use zip::write::SimpleFileOptions;
    use zip::{CompressionMethod, ZipWriter};

    use super::*;

    const STORED: SimpleFileOptions =
        SimpleFileOptions::DEFAULT.compression_method(CompressionMethod::Stored);

    const DEFLATED: SimpleFileOptions =
        SimpleFileOptions::DEFAULT.compression_method(CompressionMethod::Deflated);

    fn packed(files: &[(&str, &[u8])], options: SimpleFileOptions) -> Vec<u8> {
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        for (path, content) in files {
            zip.start_file(*path, options).unwrap();
            zip.write_all(content).unwrap();
        }
        zip.finish().unwrap().into_inner()
    }

    /// Two small files.
    fn small() -> Vec<u8> {
        packed(&[("one", b"1"), ("two/three", &[b'x'; 1000])], DEFLATED)
    }

    fn find(bytes: &[u8], what: &[u8]) -> usize {
        bytes.windows(what.len()).position(|window| window == what).unwrap()
    }

    fn replaced(bytes: &[u8], what: &[u8], with: &[u8]) -> Vec<u8> {
        assert_eq!(what.len(), with.len());
        let mut bytes = bytes.to_vec();
        for at in 0..bytes.len() {
            if bytes[at..].starts_with(what) {
                bytes[at..at + with.len()].copy_from_slice(with);
            }
        }
        bytes
    }

    /// With other bytes in the first local header and in the first one of the directory.
    fn changed(local: &[(usize, &[u8])], central: &[(usize, &[u8])]) -> Vec<u8> {
        let mut bytes = small();
        let directory = find(&bytes, b"PK\x01\x02");
        let places = local.iter().map(|(at, with)| (*at, with));
        for (at, with) in places.chain(central.iter().map(|(at, with)| (directory + at, with))) {
            bytes[at..at + with.len()].copy_from_slice(with);
        }
        bytes
    }

    fn refused(bytes: Vec<u8>) -> String {
        match Archive::open(Cursor::new(bytes)) {
            Ok(_) => "it was taken".to_owned(),
            Err(Fault { entry, refusal }) => format!("{}: {refusal}", entry.unwrap_or_default()),
        }
    }

    fn contents(bytes: Vec<u8>) -> Result<Vec<Vec<u8>>, Refusal> {
        let mut archive = Archive::open(Cursor::new(bytes)).unwrap();
        (0..archive.entries().len())
            .map(|index| {
                let mut content = Vec::new();
                archive.read(index, |piece| content.write_all(piece).map_err(Refusal::Write))?;
                Ok(content)
            })
            .collect()
    }

    #[test]
    fn contents_are_what_was_packed() {
        let large: Vec<u8> = (0..200_000_u32).map(|number| (number % 251) as u8).collect();
        let files: [(&str, &[u8]); 3] = [("a", b""), ("b/c", b"text"), ("d", &large)];
        for options in [STORED, DEFLATED, DEFLATED.large_file(true), STORED.large_file(true)] {
            let contents = contents(packed(&files, options)).unwrap();
            assert_eq!(contents, files.map(|(_, content)| content.to_vec()));
        }
        let mut streamed = ZipWriter::new_stream(Vec::new());
        for (path, content) in files {
            streamed.start_file(path, DEFLATED).unwrap();
            streamed.write_all(content).unwrap();
        }
        let bytes = streamed.finish().unwrap().into_inner();
        assert!(bytes.windows(4).any(|window| window == b"PK\x07\x08"));
        assert_eq!(contents(bytes.clone()).unwrap(), files.map(|(_, content)| content.to_vec()));
        let described = replaced(&bytes, b"PK\x07\x08", b"PK\x07\x09");
        assert!(refused(described).contains("something lies between its entries"));
    }

    #[test]
    fn paths_stay_below_the_root() {
        for (name, why) in [
            ("../x", "leaves its folder"),
            ("a/../../x", "leaves its folder"),
            ("a/..", "leaves its folder"),
            ("/etc/passwd", "is absolute"),
            ("a\\b", "has a backslash"),
            ("a\0b", "has control characters"),
            ("a\nb", "has control characters"),
            ("C:x", "begins with a drive"),
            ("c:/x", "begins with a drive"),
            ("./x", "is not in its shortest form"),
            ("a//b", "is not in its shortest form"),
            ("a//", "is not in its shortest form"),
            ("a/./b", "is not in its shortest form"),
            ("ä", "is in an unknown encoding"),
            (&"x".repeat(256), "has a name that is too long"),
        ] {
            let place = "#".repeat(name.len());
            let bytes =
                replaced(&packed(&[("a.b", b""), (&place, b"")], STORED), place.as_bytes(), name.as_bytes());
            let refused = refused(bytes);
            assert!(refused.contains(why) && refused.contains(name), "{name:?}: {refused}");
        }
    }

    #[test]
    fn no_two_entries_are_one() {
        for (one, other, name, why) in [
            ("same", "####", "same", "same: it is there twice"),
            ("same", "Same", "Same", "Same: another entry's path differs in case alone"),
            ("a", "a/b", "a/b", "a: it is a file, and the folder of another one"),
            ("a", "##", "a/", "a: it is there twice"),
            ("a", "####", "a/b/", "a: it is a file, and the folder of another one"),
        ] {
            let bytes =
                replaced(&packed(&[(one, b""), (other, b"")], STORED), other.as_bytes(), name.as_bytes());
            assert_eq!(refused(bytes), why);
        }
    }

    #[test]
    fn headers_agree_and_are_harmless() {
        let link = (0o120_777_u32 << 16).to_le_bytes();
        let device = (0o020_777_u32 << 16).to_le_bytes();
        let two_gigabytes = 0x8000_0000_u32.to_le_bytes();
        let unknown = |method: u8| [method, 0];
        for (local, central, why) in [
            (vec![(6, &[4][..])], vec![], "one: its two headers differ in the flags"),
            (vec![(8, &[0])], vec![], "one: its two headers differ in the method"),
            (vec![(14, &[0])], vec![], "one: its two headers differ in the checksum"),
            (vec![(18, &[9])], vec![], "one: its two headers differ in the compressed size"),
            (vec![(22, &[9])], vec![], "one: its two headers differ in the size"),
            (vec![(30, b"ONE")], vec![], "one: its two headers differ in the name"),
            (vec![(26, &[2])], vec![], "one: its two headers differ in the name"),
            (vec![], vec![(46, &b"ONE"[..])], "ONE: its two headers differ in the name"),
            (vec![], vec![(42, &[1])], "something precedes its entries"),
            (
                vec![(0, b"X")],
                vec![],
                "one: it is no zip archive that all read alike: its directory leads to no entry",
            ),
            (vec![], vec![(38, &link)], "one: it is a symbolic link or a device"),
            (vec![], vec![(38, &device)], "one: it is a symbolic link or a device"),
            (vec![(6, &[1])], vec![(8, &[1])], "one: it is encrypted"),
            (vec![(6, &[64])], vec![(8, &[64])], "one: it is encrypted"),
            (vec![(6, &[16])], vec![(8, &[16])], "it has unknown flags"),
            (
                vec![(8, &unknown(12))],
                vec![(10, &unknown(12))],
                "one: it is compressed with the unknown method 12",
            ),
            (
                vec![(8, &unknown(99))],
                vec![(10, &unknown(99))],
                "one: it is compressed with the unknown method 99",
            ),
            (
                vec![(8, &unknown(0))],
                vec![(10, &unknown(0))],
                "its two sizes differ, though it is not compressed",
            ),
            (vec![(18, &[2])], vec![(20, &[2])], "something lies between its entries"),
            (vec![(18, &[9, 9])], vec![(20, &[9, 9])], "its entries overlap"),
            (
                vec![(22, &two_gigabytes)],
                vec![(24, &two_gigabytes)],
                "one: it has more than 1,000 bytes for each",
            ),
            (vec![], vec![(34, &[1])], "it is a part of one"),
        ] {
            let refused = refused(changed(&local, &central));
            assert!(refused.contains(why), "{why}: {refused}");
        }
    }

    #[test]
    fn there_is_one_archive_from_beginning_to_end() {
        let bytes = small();
        let end = find(&bytes, b"PK\x05\x06");
        let with_comment = |comment: &[u8]| {
            let mut bytes = bytes.clone();
            bytes[end + 20] = u8::try_from(comment.len()).unwrap();
            bytes.extend(comment);
            bytes
        };
        assert_eq!(contents(with_comment(b"made by hand")).unwrap().len(), 2);
        let small_end = bytes[end..].to_vec();
        let end_changed = |at: usize, with: u8| {
            let mut bytes = bytes.clone();
            bytes[end + at] = with;
            bytes
        };
        for (bytes, why) in [
            (vec![], "its end is not that of an archive"),
            ([b"x", &bytes[..]].concat(), "something lies before its end"),
            ([&bytes[..], b"x"].concat(), "its end is not that of an archive"),
            ([&bytes[..], b"\0"].concat(), "its end is not that of an archive"),
            ([&bytes[..], &bytes[..]].concat(), "something lies before its end"),
            (with_comment(&small_end), "it has several ends"),
            (with_comment(&bytes[..end][..40]), "its comment is no text"),
            ([&bytes[..end], b"x", &bytes[end..]].concat(), "something lies before its end"),
            (end_changed(4, 1), "it is a part of one"),
            (end_changed(8, 3), "it is a part of one"),
            (end_changed(12, 1), "something lies before its end"),
            (replaced(&end_changed(8, 1), b"\x01\0\x02\0", b"\x01\0\x01\0"), "the number of its entries"),
        ] {
            let refused = refused(bytes);
            assert!(refused.contains(why), "{why}: {refused}");
        }
        for end in 0..bytes.len() {
            assert_ne!(refused(bytes[..end].to_vec()), "it was taken", "{end}");
        }
    }

    #[test]
    fn there_are_limits() {
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        for number in 0..=ENTRIES {
            zip.start_file(number.to_string(), STORED).unwrap();
        }
        assert_eq!(refused(zip.finish().unwrap().into_inner()), ": it has more than 200,000 entries");

        let mut state = 1_u32;
        let mut noise = vec![0; 4_400_000];
        for byte in &mut noise {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            *byte = state.to_le_bytes()[1];
        }
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        for number in 0..5 {
            zip.start_file(number.to_string(), DEFLATED).unwrap();
            zip.write_all(&noise).unwrap();
        }
        let bytes = zip.finish().unwrap().into_inner();
        let size = u32::try_from(noise.len()).unwrap().to_le_bytes();
        let bytes = replaced(&bytes, &size, &(u32::MAX - 1).to_le_bytes());
        assert_eq!(refused(bytes), ": it has more than 16 GiB");
    }

    #[test]
    fn contents_are_what_their_headers_say() {
        let crc = small()[14..18].to_vec();
        let other = [crc[0] ^ 1, crc[1], crc[2], crc[3]];
        let content = find(&small(), b"one") + 3;
        for (local, central, why) in [
            (vec![(22, &[0][..])], vec![(24, &[0][..])], "it is longer than it says"),
            (vec![(22, &[9])], vec![(24, &[9])], "it is shorter than it says"),
            (vec![(14, &other)], vec![(16, &other)], "its checksum is another one"),
            (vec![(content, &[7])], vec![], "it cannot be decompressed"),
        ] {
            let refused = contents(changed(&local, &central)).unwrap_err().to_string();
            assert!(refused.contains(why), "{why}: {refused}");
        }
    }
}
