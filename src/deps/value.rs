//! TOML as the readers of lists and fleets see it: tables, keys and values with their places.

use std::borrow::Cow;
use std::ops::Range;

use toml_edit::{Item, TableLike};

/// Keys and values, in the order written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Table<'t> {
    entries: Vec<(Key<'t>, Value<'t>)>,
}

/// A key, with the quotes it may have in its place.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Key<'t> {
    pub(crate) name: Cow<'t, str>,
    pub(crate) at: Range<usize>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Value<'t> {
    pub(crate) at: Range<usize>,
    data: Data<'t>,
}

#[derive(Debug, Clone, PartialEq)]
enum Data<'t> {
    Text(Cow<'t, str>),
    Boolean(bool),
    Integer(i64),
    Array(Vec<Value<'t>>),
    /// In braces.
    Inline(Table<'t>),
    /// Below a header, or made by dots.
    Table(Table<'t>),
    /// Below headers in double brackets.
    Tables(Vec<Value<'t>>),
    /// A kind that no list has, by its name.
    Other(&'static str),
}

impl<'t> Table<'t> {
    pub(crate) fn entries(&self) -> impl ExactSizeIterator<Item = (&Key<'t>, &Value<'t>)> {
        self.entries.iter().map(|(key, value)| (key, value))
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Value<'t>> {
        self.entries.iter().find(|(key, _)| key.name == name).map(|(_, value)| value)
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Takes over what the full parser found. Places that it does not tell are those of the key.
    pub(crate) fn of(table: &dyn TableLike) -> Table<'static> {
        let entry = |(name, _): (&str, &Item)| {
            let (key, item) = table.get_key_value(name).expect("the name comes from this table");
            let at = key.span().unwrap_or_default();
            let value = Value::of_item(item, &at);
            (Key { name: Cow::Owned(name.to_owned()), at }, value)
        };
        Table { entries: table.iter().map(entry).collect() }
    }

    /// Reads what dependency lists mostly are, without the full parser: lines with one key and a value of
    /// texts, booleans, arrays and inline tables. `None` for anything else, be it
    /// right or wrong, and for a table in which a key stands twice; keys of the whole are not compared.
    ///
    /// Rule: TOML 1.0.
    pub(crate) fn plain(text: &'t str) -> Option<Self> {
        let mut reader = Reader { text, at: 0 };
        // Few lines are shorter.
        let mut entries = Vec::with_capacity(text.len() / 24);
        loop {
            reader.skip_lines()?;
            if reader.next().is_none() {
                return Some(Table { entries });
            }
            entries.push(reader.entry(0)?);
            reader.skip_blanks();
            reader.end_of_line()?;
        }
    }
}

impl<'t> Value<'t> {
    fn of_item(item: &Item, otherwise: &Range<usize>) -> Value<'static> {
        let at = item.span().unwrap_or_else(|| otherwise.clone());
        let data = match item {
            Item::Value(value) => return Value::of_value(value, otherwise),
            Item::Table(table) => Data::Table(Table::of(table)),
            Item::ArrayOfTables(tables) => {
                let table = |table: &toml_edit::Table| Value {
                    at: table.span().unwrap_or_else(|| at.clone()),
                    data: Data::Table(Table::of(table)),
                };
                Data::Tables(tables.iter().map(table).collect())
            }
            Item::None => Data::Other(item.type_name()),
        };
        Value { at, data }
    }

    fn of_value(value: &toml_edit::Value, otherwise: &Range<usize>) -> Value<'static> {
        let at = value.span().unwrap_or_else(|| otherwise.clone());
        let data = match value {
            toml_edit::Value::String(text) => Data::Text(Cow::Owned(text.value().clone())),
            toml_edit::Value::Boolean(boolean) => Data::Boolean(*boolean.value()),
            toml_edit::Value::Integer(number) => Data::Integer(*number.value()),
            toml_edit::Value::Array(array) => {
                Data::Array(array.iter().map(|value| Value::of_value(value, &at)).collect())
            }
            toml_edit::Value::InlineTable(table) => Data::Inline(Table::of(table)),
            other => Data::Other(other.type_name()),
        };
        Value { at, data }
    }

    pub(crate) fn as_str(&self) -> Option<&str> {
        if let Data::Text(text) = &self.data { Some(text) } else { None }
    }

    pub(crate) fn as_bool(&self) -> Option<bool> {
        if let Data::Boolean(boolean) = self.data { Some(boolean) } else { None }
    }

    pub(crate) fn as_integer(&self) -> Option<i64> {
        if let Data::Integer(number) = self.data { Some(number) } else { None }
    }

    pub(crate) fn as_array(&self) -> Option<&[Value<'t>]> {
        if let Data::Array(values) = &self.data { Some(values) } else { None }
    }

    /// A table, however it is written.
    pub(crate) fn as_table(&self) -> Option<&Table<'t>> {
        if let Data::Inline(table) | Data::Table(table) = &self.data { Some(table) } else { None }
    }

    /// Tables below headers in double brackets.
    pub(crate) fn as_tables(&self) -> Option<&[Value<'t>]> {
        if let Data::Tables(tables) = &self.data { Some(tables) } else { None }
    }

    /// Whether it stands behind `=`, and not below a header.
    pub(crate) fn is_behind_key(&self) -> bool {
        !matches!(self.data, Data::Table(_) | Data::Tables(_))
    }

    /// What TOML calls its kind.
    pub(crate) fn kind(&self) -> &'static str {
        match self.data {
            Data::Text(_) => "string",
            Data::Boolean(_) => "boolean",
            Data::Integer(_) => "integer",
            Data::Array(_) => "array",
            Data::Inline(_) => "inline table",
            Data::Table(_) => "table",
            Data::Tables(_) => "array of tables",
            Data::Other(kind) => kind,
        }
    }
}

/// Arrays and tables inside one another that are read without the full parser, at most.
const MAX_DEPTH: usize = 4;

/// A text being read, and how far. `None` from any of its functions hands it to the full parser.
struct Reader<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Reader<'t> {
    fn next(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        (self.next()? == byte).then(|| self.at += 1)
    }

    fn skip_blanks(&mut self) {
        while let Some(b' ' | b'\t') = self.next() {
            self.at += 1;
        }
    }

    /// Skips a comment, where there is one, and the end of its line.
    fn end_of_line(&mut self) -> Option<()> {
        if self.next() == Some(b'#') {
            let rest = &self.text.as_bytes()[self.at..];
            // A script's metadata may follow, which is a comment only to TOML.
            if rest.starts_with(b"# ///") {
                return None;
            }
            let length = rest.iter().position(|byte| is_control(*byte)).unwrap_or(rest.len());
            self.at += length;
        }
        match self.next() {
            None => Some(()),
            Some(b'\r') => {
                self.at += 1;
                self.take(b'\n')
            }
            Some(_) => self.take(b'\n'),
        }
    }

    /// Skips empty lines and those with nothing but a comment, up to the first other character.
    fn skip_lines(&mut self) -> Option<()> {
        loop {
            self.skip_blanks();
            match self.next() {
                Some(b'\n' | b'\r' | b'#') => self.end_of_line()?,
                _ => return Some(()),
            }
        }
    }

    fn entry(&mut self, depth: usize) -> Option<(Key<'t>, Value<'t>)> {
        let start = self.at;
        let name = match self.next()? {
            b'"' | b'\'' => self.text()?,
            _ => {
                let rest = &self.text.as_bytes()[start..];
                let bare = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
                let length = rest.iter().position(|byte| !bare(byte)).filter(|length| *length > 0)?;
                self.at += length;
                Cow::Borrowed(&self.text[start..self.at])
            }
        };
        let key = Key { name, at: start..self.at };
        self.skip_blanks();
        self.take(b'=')?;
        self.skip_blanks();
        Some((key, self.value(depth)?))
    }

    fn value(&mut self, depth: usize) -> Option<Value<'t>> {
        let start = self.at;
        let data = match self.next()? {
            b'"' | b'\'' => Data::Text(self.text()?),
            b'[' if depth < MAX_DEPTH => Data::Array(self.array(depth + 1)?),
            b'{' if depth < MAX_DEPTH => Data::Inline(self.inline_table(depth + 1)?),
            b't' | b'f' => {
                let rest = &self.text[self.at..];
                let length = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
                self.at += length;
                Data::Boolean(rest[..length].parse().ok()?)
            }
            _ => return None,
        };
        Some(Value { at: start..self.at, data })
    }

    /// A text of one line.
    fn text(&mut self) -> Option<Cow<'t, str>> {
        let quote = self.next()?;
        let start = self.at + 1;
        let bytes = self.text.as_bytes();
        let mut escapes = false;
        let mut end = start;
        loop {
            match *bytes.get(end)? {
                byte if byte == quote => break,
                b'\\' if quote == b'"' => {
                    escapes = true;
                    matches!(bytes.get(end + 1), Some(b'"' | b'\\')).then_some(())?;
                    end += 1;
                }
                byte if is_control(byte) => return None,
                _ => {}
            }
            end += 1;
        }
        // A second quote may be the beginning of a text of several lines.
        if end == start && bytes.get(end + 1) == Some(&quote) {
            return None;
        }
        self.at = end + 1;
        let text = &self.text[start..end];
        Some(if escapes { Cow::Owned(unescaped(text)) } else { Cow::Borrowed(text) })
    }

    fn array(&mut self, depth: usize) -> Option<Vec<Value<'t>>> {
        self.take(b'[')?;
        let mut values = Vec::new();
        loop {
            self.skip_lines()?;
            if self.take(b']').is_some() {
                return Some(values);
            }
            values.push(self.value(depth)?);
            self.skip_lines()?;
            if self.next()? != b']' {
                self.take(b',')?;
            }
        }
    }

    fn inline_table(&mut self, depth: usize) -> Option<Table<'t>> {
        self.take(b'{')?;
        let mut table = Table { entries: Vec::with_capacity(4) };
        self.skip_blanks();
        if self.take(b'}').is_some() {
            return Some(table);
        }
        loop {
            self.skip_blanks();
            let (key, value) = self.entry(depth)?;
            if table.contains(&key.name) {
                return None;
            }
            table.entries.push((key, value));
            self.skip_blanks();
            if self.take(b'}').is_some() {
                return Some(table);
            }
            self.take(b',')?;
        }
    }
}

/// A text in which a backslash stands before each quote and backslash, and nowhere else.
fn unescaped(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        plain.extend(if character == '\\' { characters.next() } else { Some(character) });
    }
    plain
}

/// Whether TOML forbids a byte in texts of one line and in comments.
fn is_control(byte: u8) -> bool {
    byte < b' ' && byte != b'\t' || byte == 0x7f
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use toml_edit::Document;

    use super::*;

    const PIECES: &[&str] = &[
        "a",
        "b-1",
        "\"a\"",
        "'b'",
        " = ",
        "=",
        "{",
        "}",
        "[",
        "]",
        ",",
        ".",
        "\"^1\"",
        "''",
        "\"",
        "'",
        "\\",
        "\\\"",
        "\n",
        "\r\n",
        "\r",
        " ",
        "\t",
        "# x",
        "true",
        "false",
        "1",
        "ü",
        "\u{7f}",
        "a = \"1\"\n",
        "a = {b = '1', c = [true]}\n",
    ];

    proptest! {
        #[test]
        fn what_is_read_without_the_full_parser_is_what_that_reads(
            pieces in prop::collection::vec(prop::sample::select(PIECES), 0..12),
        ) {
            let text = pieces.concat();
            let Some(plain) = Table::plain(&text) else { return Ok(()) };
            match Document::parse(text.as_str()) {
                Ok(document) => prop_assert_eq!(plain, Table::of(document.as_table())),
                Err(error) => prop_assert!(error.message().contains("duplicate key"), "{}: {}", text, error),
            }
        }
    }

    #[test]
    fn plain_lines_are_read_as_the_full_parser_reads_them() {
        for (text, is_plain) in [
            ("", true),
            ("\n # only a comment \n\n", true),
            ("numpy = \"^2\"", true),
            ("numpy=\"^2\"#x\r\n\"a.b\" = '~1' # y\r\n", true),
            ("a = { version = \"1\", optional = true, extras = [\"x\", 'y'] }\n", true),
            ("a = {}\nb = []\nc = [ # x\n  \"1\",\n\n  {path=\"ü\"}, # y\n]\n", true),
            ("-_ = \"\"\n1 = ''", true),
            ("a = \"x \\\"y\\\" \\\\\"\nb = 'x\\'", true),
            ("a = \"\\u0031\"", false),
            ("a = \"\"\"1\"\"\"", false),
            ("a = ''''''", false),
            ("a.b = \"1\"", false),
            ("a = 1", false),
            ("[table]\na = \"1\"", false),
            ("a = [[[[[\"1\"]]]]]", false),
            ("a = {version = \"1\", version = \"2\"}", false),
            ("a = {version = \"1\",}", false),
            ("a = \"1\" b = \"2\"", false),
            ("a = \"1\"\"", false),
            ("a = \"1", false),
            ("a = [\"1\" \"2\"]", false),
            ("a = trueish", false),
            ("a = \"1\"\rb = \"2\"", false),
            ("a = \"1\" # \u{7}", false),
            ("# /// script\n# dependencies = []\n# ///\n", false),
            ("= \"1\"", false),
            ("\u{feff}a = \"1\"", false),
        ] {
            let plain = Table::plain(text);
            assert_eq!(plain.is_some(), is_plain, "for {text:?}");
            if let Some(plain) = plain {
                assert_eq!(plain, Table::of(Document::parse(text).unwrap().as_table()), "for {text:?}");
            }
        }
    }
}
