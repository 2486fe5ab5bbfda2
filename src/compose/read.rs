//! A YAML document with the places of its parts. It alone knows the parser.
//!
//! That is saphyr-parser, which tells what is written, event by event: styles, anchors, keys that are there twice and places, all of
//! which readers of values hide. It is Rust alone, the successor of yaml-rust, and brings one crate more.

use std::collections::BTreeSet;
use std::ops::Range;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle};

use super::CompositionError;

/// A part of a document.
#[derive(Debug, Clone)]
pub(super) struct Tree {
    /// What it is.
    pub(super) kind: Kind,
    /// The number of its anchor; 0 is none.
    anchor: usize,
    /// Its tag; may be empty.
    tag: String,
    /// Bytes of the text. Only where it begins is sure; where scalars end that are on one line is, too.
    pub(super) at: Range<usize>,
}

/// What a part of a document is.
#[derive(Debug, Clone)]
pub(super) enum Kind {
    /// What stands for another part, by the number of its anchor.
    Alias(usize),
    /// A text.
    Scalar(String, ScalarStyle),
    /// A list, and whether it is in brackets.
    List(Vec<Tree>, bool),
    /// A map, and whether it is in braces.
    Map(Vec<(Tree, Tree)>, bool),
}

/// How deep a document may be nested; Compose needs about ten.
const DEEPEST: usize = 64;

impl Tree {
    /// The text of a scalar.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Scalar(text, _) => Some(text),
            _ => None,
        }
    }

    /// Whether nothing is written.
    pub(super) fn is_null(&self) -> bool {
        let is_plain = matches!(&self.kind, Kind::Scalar(text, ScalarStyle::Plain)
            if ["", "~", "null", "Null", "NULL"].contains(&text.as_str()));
        is_plain && self.tag.is_empty()
    }

    /// Whether another part may stand for it, or it says what kind of value it is.
    pub(super) fn is_marked(&self) -> bool {
        self.anchor != 0 || !self.tag.is_empty() || matches!(self.kind, Kind::Alias(_))
    }

    /// Whether anything in it is shared with other parts.
    pub(super) fn shares(&self) -> bool {
        self.anchor != 0
            || match &self.kind {
                Kind::Alias(_) => true,
                Kind::Scalar(..) => false,
                Kind::List(items, _) => items.iter().any(Self::shares),
                Kind::Map(entries, _) => entries.iter().any(|(key, value)| key.shares() || value.shares()),
            }
    }

    /// The entries of a map.
    pub(super) fn entries(&self) -> &[(Tree, Tree)] {
        match &self.kind {
            Kind::Map(entries, _) => entries,
            _ => &[],
        }
    }

    /// The items of a list.
    pub(super) fn items(&self) -> &[Tree] {
        match &self.kind {
            Kind::List(items, _) => items,
            _ => &[],
        }
    }

    /// Where an entry of a map is.
    pub(super) fn position(&self, key: &str) -> Option<usize> {
        self.entries().iter().position(|(name, _)| name.text() == Some(key))
    }

    /// The value of an entry of a map.
    pub(super) fn get(&self, key: &str) -> Option<&Tree> {
        self.position(key).map(|position| &self.entries()[position].1)
    }

    /// Whether both say the same in the same words, wherever they are.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.anchor == other.anchor
            && self.tag == other.tag
            && match (&self.kind, &other.kind) {
                (Kind::Alias(one), Kind::Alias(other)) => one == other,
                (Kind::Scalar(one, style), Kind::Scalar(other, other_style)) => {
                    one == other && style == other_style
                }
                (Kind::List(ones, flow), Kind::List(others, other_flow)) => {
                    flow == other_flow
                        && ones.len() == others.len()
                        && ones.iter().zip(others).all(|(one, other)| one.is_same(other))
                }
                (Kind::Map(ones, flow), Kind::Map(others, other_flow)) => {
                    let same = |(one, other): (&(Self, Self), &(Self, Self))| {
                        one.0.is_same(&other.0) && one.1.is_same(&other.1)
                    };
                    flow == other_flow && ones.len() == others.len() && ones.iter().zip(others).all(same)
                }
                _ => false,
            }
    }
}

/// Where a parser's characters are in bytes.
struct Places(Vec<usize>);

impl Places {
    fn of(text: &str) -> Self {
        Self(text.char_indices().map(|(place, _)| place).chain([text.len()]).collect())
    }

    fn byte(&self, marker: Marker) -> usize {
        self.0[marker.index().min(self.0.len() - 1)]
    }
}

/// A list or a map that is being read.
struct Open {
    tree: Tree,
    key: Option<Tree>,
    keys: BTreeSet<String>,
}

impl Open {
    fn new(tree: Tree) -> Self {
        Self { tree, key: None, keys: BTreeSet::new() }
    }
}

/// Reads the one document of a text; `None` where it has none.
pub(super) fn read(text: &str) -> Result<Option<Tree>, CompositionError> {
    let places = Places::of(text);
    let mut open: Vec<Open> = Vec::new();
    let mut root = None;
    let mut documents = 0;
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| {
            let at = places.byte(*error.marker());
            CompositionError::Syntax { at: at..at, why: error.info().to_owned() }
        })?;
        let start = places.byte(span.start);
        let at = start..places.byte(span.end).max(start);
        let tagged = |tag: Option<std::borrow::Cow<'_, saphyr_parser::Tag>>| {
            tag.map(|tag| tag.to_string()).unwrap_or_default()
        };
        let part = |kind, anchor, tag| Tree { kind, anchor, tag, at: at.clone() };
        let done = match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => None,
            Event::DocumentStart(_) => {
                documents += 1;
                if documents > 1 {
                    return Err(CompositionError::SeveralDocuments { at });
                }
                None
            }
            Event::Alias(number) => Some(part(Kind::Alias(number), 0, String::new())),
            Event::Scalar(value, style, anchor, tag) => {
                Some(part(Kind::Scalar(value.into_owned(), style), anchor, tagged(tag)))
            }
            Event::SequenceStart(anchor, tag) => {
                let kind = Kind::List(Vec::new(), text[start..].starts_with('['));
                open.push(Open::new(part(kind, anchor, tagged(tag))));
                None
            }
            Event::MappingStart(anchor, tag) => {
                let kind = Kind::Map(Vec::new(), text[start..].starts_with('{'));
                open.push(Open::new(part(kind, anchor, tagged(tag))));
                None
            }
            Event::SequenceEnd | Event::MappingEnd => open.pop().map(|open| open.tree),
        };
        if open.len() > DEEPEST {
            return Err(CompositionError::TooDeep { at });
        }
        let Some(done) = done else { continue };
        match open.last_mut() {
            None => root = Some(done),
            Some(Open { tree: Tree { kind: Kind::List(items, _), .. }, .. }) => items.push(done),
            Some(Open { tree: Tree { kind: Kind::Map(entries, _), .. }, key, keys }) => match key.take() {
                None => {
                    if let Some(name) = done.text()
                        && !keys.insert(name.to_owned())
                    {
                        return Err(CompositionError::DuplicateKey { key: name.to_owned(), at: done.at });
                    }
                    *key = Some(done);
                }
                Some(name) => entries.push((name, done)),
            },
            Some(_) => unreachable!("only lists and maps are opened"),
        }
    }
    Ok(root)
}
