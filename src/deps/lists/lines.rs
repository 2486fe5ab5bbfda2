//! Lines of a requirements file as pip sees them, with the places they come from.

use std::ops::Range;

/// A line as pip sees it: continuation lines joined, comments gone, variables replaced.
///
/// Rule: pip, `req_file.py`: a line continues if a backslash is its very last character, a comment
/// begins with `#` at the start or behind white space, and a line that is only a comment ends what
/// it continues.
#[derive(Default)]
pub(in crate::deps) struct Line {
    pub(in crate::deps) text: String,
    pub(in crate::deps) pieces: Vec<Piece>,
}

/// Bytes of a line and where in the file they come from.
pub(in crate::deps) struct Piece {
    /// Where in the line they begin.
    pub(in crate::deps) start: usize,
    /// Where in the file they are, or what they stand for.
    pub(in crate::deps) at: Range<usize>,
    pub(in crate::deps) verbatim: bool,
}

impl Line {
    pub(in crate::deps) fn push(&mut self, text: &str, at: Range<usize>, verbatim: bool) {
        if !text.is_empty() {
            self.pieces.push(Piece { start: self.text.len(), at, verbatim });
            self.text.push_str(text);
        }
    }

    /// Adds bytes of another line, piece by piece.
    pub(in crate::deps) fn push_part(&mut self, line: &Self, bytes: Range<usize>) {
        for (index, piece) in line.pieces.iter().enumerate() {
            let end = line.pieces.get(index + 1).map_or(line.text.len(), |next| next.start);
            let part = piece.start.max(bytes.start)..end.min(bytes.end);
            if !part.is_empty() {
                self.push(&line.text[part.clone()], line.place(part), piece.verbatim);
            }
        }
    }

    /// The place in the file of bytes of the line.
    pub(in crate::deps) fn place(&self, bytes: Range<usize>) -> Range<usize> {
        let piece = |position: usize| {
            let index = self.pieces.partition_point(|piece| piece.start <= position);
            self.pieces.get(index.saturating_sub(1))
        };
        let start = piece(bytes.start).map_or(0, |piece| {
            if piece.verbatim { piece.at.start + bytes.start - piece.start } else { piece.at.start }
        });
        if bytes.is_empty() {
            return start..start;
        }
        let end = piece(bytes.end - 1).map_or(0, |piece| {
            if piece.verbatim { piece.at.start + bytes.end - piece.start } else { piece.at.end }
        });
        start..end.max(start)
    }

    pub(in crate::deps) fn place_of(&self, part: &str) -> Range<usize> {
        let start = part.as_ptr() as usize - self.text.as_ptr() as usize;
        self.place(start..start + part.len())
    }

    /// Whether the bytes are in the file as they are in the line.
    pub(in crate::deps) fn is_verbatim(&self, bytes: &Range<usize>) -> bool {
        let index = self.pieces.partition_point(|piece| piece.start <= bytes.start);
        let Some(piece) = self.pieces.get(index.saturating_sub(1)) else { return false };
        piece.verbatim && bytes.end <= piece.start + piece.at.len()
    }
}

pub(in crate::deps) fn logical_lines(text: &str) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut line = Line::default();
    let mut start = 0;
    for raw in text.split_inclusive('\n') {
        let written = raw.trim_end_matches(['\n', '\r']);
        let comment = written.trim_start().starts_with('#');
        let continues = !comment && written.ends_with('\\');
        if !comment {
            let piece = if continues { written.trim_matches('\\') } else { written };
            let offset = start + (piece.as_ptr() as usize - raw.as_ptr() as usize);
            line.push(piece, offset..offset + piece.len(), true);
        }
        if !continues {
            lines.push(std::mem::take(&mut line));
        }
        start += raw.len();
    }
    lines.push(line);
    for line in &mut lines {
        let comment = line.text.match_indices('#').map(|(at, _)| at);
        let end = comment
            .into_iter()
            .find(|&at| line.text[..at].chars().next_back().is_none_or(char::is_whitespace));
        line.text.truncate(end.unwrap_or(line.text.len()));
        let length = line.text.trim_end().len();
        line.text.truncate(length);
    }
    lines.retain(|line| !line.text.trim().is_empty());
    lines
}

/// Where in the file `inner`, bytes of `text`, lies.
pub(in crate::deps) fn place(line: &Line, text: &str, inner: &Range<usize>) -> Range<usize> {
    let start = text.as_ptr() as usize - line.text.as_ptr() as usize;
    line.place(start + inner.start..start + inner.end)
}

/// Splits a line where its options begin: at the first word outside quotes that begins with `-`.
pub(in crate::deps) fn split_options(text: &str) -> (&str, &str) {
    let mut quote = None;
    let mut previous = ' ';
    for (at, character) in text.char_indices() {
        match (quote, character) {
            (None, '-') if previous.is_whitespace() => return text.split_at(at),
            (None, '"' | '\'') => quote = Some(character),
            (Some(open), _) if open == character => quote = None,
            _ => {}
        }
        previous = character;
    }
    (text, "")
}

/// Words as a shell splits them, each with the bytes it was written in; the rest behind an open
/// quote if there is one.
pub(in crate::deps) fn words(text: &str) -> Result<Vec<(String, &str)>, &str> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let mut word = String::new();
        let mut quote = None;
        let mut length = rest.len();
        let mut characters = rest.char_indices();
        while let Some((at, character)) = characters.next() {
            match (quote, character) {
                (None, space) if space.is_whitespace() => {
                    length = at;
                    break;
                }
                (None, '"' | '\'') => quote = Some(character),
                (Some(open), _) if open == character => quote = None,
                (None | Some('"'), '\\') => word.extend(characters.next().map(|(_, escaped)| escaped)),
                _ => word.push(character),
            }
        }
        if quote.is_some() {
            return Err(rest);
        }
        words.push((word, &rest[..length]));
        rest = rest[length..].trim_start();
    }
    Ok(words)
}
