//! Values to YAML that every reader takes for the same values.
//!
//! Rule: YAML 1.2.2, "Double-Quoted Style" and "Plain Style"; what YAML 1.1 takes for something else than text is quoted, since
//! Compose before 2 reads that.

/// A value that is written as YAML.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// Nothing, as Compose has it for volumes and networks without settings.
    Null,
    /// A text, whatever is in it.
    Text(String),
    /// A number.
    Number(String),
    /// A truth.
    Truth(bool),
    /// A list.
    List(Vec<Node>),
    /// A map, in the order it is written in.
    Map(Vec<(String, Node)>),
}

impl Node {
    /// A text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// A whole number.
    pub fn number(number: impl Into<u64>) -> Self {
        Self::Number(number.into().to_string())
    }

    /// A list of texts.
    pub fn texts<Text: Into<String>>(texts: impl IntoIterator<Item = Text>) -> Self {
        Self::List(texts.into_iter().map(Self::text).collect())
    }

    /// A map with keys of this program.
    #[must_use]
    pub fn map<const COUNT: usize>(entries: [(&str, Self); COUNT]) -> Self {
        Self::Map(entries.map(|(key, value)| (key.to_owned(), value)).into())
    }

    /// Adds an entry to a map; anything else stays as it is.
    pub fn set(&mut self, key: &str, value: Self) {
        if let Self::Map(entries) = self {
            entries.push((key.to_owned(), value));
        }
    }

    /// Its lines, each with so many blanks before it; what is inside gets `step` more.
    #[must_use]
    pub fn lines(&self, indent: usize, step: usize) -> Vec<String> {
        let blanks = " ".repeat(indent);
        match self {
            Self::List(items) if !items.is_empty() => {
                let items = items.iter().flat_map(|item| {
                    let mut lines = item.lines(indent + 2, step);
                    lines[0].replace_range(..indent + 2, &format!("{blanks}- "));
                    lines
                });
                items.collect()
            }
            Self::Map(entries) if !entries.is_empty() => {
                entries.iter().flat_map(|(key, value)| entry(key, value, indent, step)).collect()
            }
            value => vec![format!("{blanks}{}", value.on_a_line())],
        }
    }

    /// As a document.
    #[must_use]
    pub fn document(&self) -> String {
        self.lines(0, 2).join("\n") + "\n"
    }

    fn on_a_line(&self) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Text(text) => scalar(text),
            Self::Number(number) => number.clone(),
            Self::Truth(is) => is.to_string(),
            Self::List(_) => "[]".to_owned(),
            Self::Map(_) => "{}".to_owned(),
        }
    }
}

/// The lines of an entry of a map.
#[must_use]
pub(super) fn entry(key: &str, value: &Node, indent: usize, step: usize) -> Vec<String> {
    let key = format!("{}{}:", " ".repeat(indent), scalar(key));
    match value {
        Node::Null => vec![key],
        Node::List(items) if !items.is_empty() => [vec![key], value.lines(indent + step, step)].concat(),
        Node::Map(entries) if !entries.is_empty() => [vec![key], value.lines(indent + step, step)].concat(),
        value => vec![format!("{key} {}", value.on_a_line())],
    }
}

/// A text as YAML: the one place where texts become syntax. What is no plain word is quoted, with everything that is not
/// printable ASCII as an escape.
#[must_use]
pub fn scalar(text: &str) -> String {
    if is_plain(text) {
        return text.to_owned();
    }
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            ' '..='~' => quoted.push(character),
            '\n' => quoted += "\\n",
            '\t' => quoted += "\\t",
            other if u32::from(other) > 0xffff => quoted += &format!("\\U{:08x}", u32::from(other)),
            other => quoted += &format!("\\u{:04x}", u32::from(other)),
        }
    }
    quoted + "\""
}

/// Whether every reader takes a text as it stands for that text: no number, no truth, no syntax.
fn is_plain(text: &str) -> bool {
    const OTHERS: [&str; 9] = ["y", "yes", "n", "no", "true", "false", "on", "off", "null"];
    let begins = text.starts_with(|first: char| first.is_ascii_alphabetic() || "/_".contains(first));
    let inside = |byte: u8| byte.is_ascii_alphanumeric() || b"_./:@=-".contains(&byte);
    begins
        && text.bytes().all(inside)
        && !text.ends_with(':')
        && !OTHERS.contains(&text.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_readers_may_take_for_something_else_is_quoted() {
        for (text, written) in [
            ("a", "a"),
            ("skills-executor-a:1", "skills-executor-a:1"),
            ("http://a:62680", "http://a:62680"),
            ("/app/skills:/app/skills:ro", "/app/skills:/app/skills:ro"),
            ("", "\"\""),
            ("No", "\"No\""),
            ("~", "\"~\""),
            ("1:30", "\"1:30\""),
            ("1e3", "\"1e3\""),
            (".inf", "\".inf\""),
            ("=", "\"=\""),
            ("<<", "\"<<\""),
            ("a: b", "\"a: b\""),
            ("a:", "\"a:\""),
            ("a #b", "\"a #b\""),
            ("- a", "\"- a\""),
            ("{a}", "\"{a}\""),
            ("*a", "\"*a\""),
            ("a\"\\\n\t", "\"a\\\"\\\\\\n\\t\""),
            ("\u{feff}é\u{2028}\u{0}😀", "\"\\ufeff\\u00e9\\u2028\\u0000\\U0001f600\""),
        ] {
            assert_eq!(scalar(text), written);
        }
    }

    #[test]
    fn values_are_written_in_blocks() {
        let inner = Node::map([("name", Node::text("x")), ("list", Node::texts(["a"]))]);
        let node = Node::map([
            ("none", Node::Null),
            ("empty", Node::Map(Vec::new())),
            ("number", Node::number(7_u16)),
            ("maps", Node::List(vec![inner, Node::Truth(true), Node::List(vec![Node::texts(["b"])])])),
        ]);
        let written =
            "none:\nempty: {}\nnumber: 7\nmaps:\n  - name: x\n    list:\n      - a\n  - true\n  - - - b\n";
        assert_eq!(node.document(), written);
    }
}
