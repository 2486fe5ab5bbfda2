//! A text by its lines: where they begin, how they end, and which belong together.

use super::CompositionError;
use super::read::Tree;

/// The lines of a text.
pub(super) struct Lines<'a> {
    pub(super) text: &'a str,
    /// Where each begins.
    pub(super) starts: Vec<usize>,
    /// How the first ends.
    pub(super) ending: &'static str,
}

impl<'a> Lines<'a> {
    pub(super) fn of(text: &'a str) -> Result<Self, CompositionError> {
        let starts: Vec<usize> = std::iter::once(0)
            .chain(text.match_indices('\n').map(|(at, _)| at + 1))
            .filter(|&start| start < text.len() || start == 0)
            .collect();
        let ending = match text.find('\n') {
            Some(end) if text[..end].ends_with('\r') => "\r\n",
            _ => "\n",
        };
        let lines = Self { text, starts, ending };
        for number in 0..lines.starts.len() {
            let (start, line) = (lines.starts[number], lines.line(number));
            if let Some(place) = line.find('\r') {
                return Err(CompositionError::CarriageReturn { at: start + place..start + place + 1 });
            }
            let indent = line.len() - line.trim_start_matches([' ', '\t']).len();
            if let Some(place) = line[..indent].find('\t') {
                return Err(CompositionError::Tab { at: start + place..start + place + 1 });
            }
            if line == "..." || line.starts_with("... ") {
                return Err(CompositionError::SeveralDocuments { at: start..start + 3 });
            }
        }
        Ok(lines)
    }

    /// A line without its end.
    fn line(&self, number: usize) -> &'a str {
        let end = self.starts.get(number + 1).copied().unwrap_or(self.text.len());
        let line = &self.text[self.starts[number]..end];
        line.strip_suffix('\n').map_or(line, |line| line.strip_suffix('\r').unwrap_or(line))
    }

    /// The line that a byte is in.
    pub(super) fn number(&self, at: usize) -> usize {
        self.starts.partition_point(|&start| start <= at) - 1
    }

    pub(super) fn indent(&self, number: usize) -> usize {
        let line = self.line(number);
        line.len() - line.trim_start_matches(' ').len()
    }

    pub(super) fn end(&self, number: usize) -> usize {
        self.starts[number] + self.line(number).len()
    }

    /// How a line ends; as the first does, where it is the last and does not.
    pub(super) fn ending_of(&self, number: usize) -> &'static str {
        match &self.text[self.end(number)..] {
            rest if rest.starts_with("\r\n") => "\r\n",
            rest if rest.starts_with('\n') => "\n",
            _ => self.ending,
        }
    }

    fn is_blank(&self, number: usize) -> bool {
        self.line(number).trim().is_empty()
    }

    fn is_comment(&self, number: usize) -> bool {
        self.line(number).trim_start().starts_with('#')
    }

    /// The last line of what begins in line `first` and ends before line `next`: without blank lines, and without comments
    /// that are indented less than `column`, which belong to what follows.
    pub(super) fn last(&self, first: usize, next: usize, column: usize) -> usize {
        let is_theirs =
            |line: usize| self.is_blank(line) || (self.is_comment(line) && self.indent(line) < column);
        (first + 1..next).rev().find(|&line| !is_theirs(line)).unwrap_or(first)
    }

    /// Whether there is a blank line before a line and the comments above it.
    pub(super) fn is_apart(&self, number: usize) -> bool {
        let above = (0..number).rev().find(|&line| !self.is_comment(line));
        above.is_some_and(|line| self.is_blank(line))
    }

    /// The column of a map's keys, each of which must begin a line.
    pub(super) fn column(&self, map: &Tree) -> Result<usize, CompositionError> {
        let mut column = None;
        for (key, _) in map.entries() {
            let number = self.number(key.at.start);
            let own = key.at.start - self.starts[number];
            let begins = self.indent(number) == own && key.text().is_some();
            if !begins || column.is_some_and(|column| column != own) {
                return Err(CompositionError::Layout { at: key.at.start..key.at.start });
            }
            column = Some(own);
        }
        Ok(column.unwrap_or_default())
    }
}
