//! PEP 508 markers, and Poetry's `python` and `platform` keys lowered to them.

use std::fmt;
use std::ops::Range;

use pep440_rs::{Operator as VersionOperator, Version, VersionSpecifier};

use super::constraint::Constraint;
use super::range;

/// A condition on the environment a dependency is installed in.
///
/// Rule: PEP 508, "Environment Markers".
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Marker {
    /// All of these hold.
    And(Vec<Marker>),
    /// One of these holds.
    Or(Vec<Marker>),
    /// The two sides compare as stated.
    Compare(Operand, &'static str, Operand),
}

/// One side of a comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operand {
    /// One of [`VARIABLES`].
    Variable(&'static str),
    /// A quoted text.
    Text(String),
}

/// Why a text is no marker.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct MarkerError {
    /// Bytes of the text given to the parser.
    pub at: Range<usize>,
    /// A phrase such as "expected `and`, `or` or the end".
    pub why: String,
    /// What the refused part was surely meant to be.
    pub instead: Option<String>,
}

/// The names PEP 508 defines for the environment, and `extra`.
pub const VARIABLES: [&str; 12] = [
    "os_name",
    "sys_platform",
    "platform_machine",
    "platform_python_implementation",
    "platform_release",
    "platform_system",
    "platform_version",
    "python_version",
    "python_full_version",
    "implementation_name",
    "implementation_version",
    "extra",
];

/// Spellings from before PEP 508 that installers still read.
const OLD_SPELLINGS: [(&str, &str); 6] = [
    ("os.name", "os_name"),
    ("sys.platform", "sys_platform"),
    ("platform.machine", "platform_machine"),
    ("platform.version", "platform_version"),
    ("platform.python_implementation", "platform_python_implementation"),
    ("python_implementation", "platform_python_implementation"),
];

const OPERATORS: [&str; 10] = ["===", "~=", "==", "!=", "<=", ">=", "<", ">", "not in", "in"];

/// Parentheses inside one another that are read; more is refused, so that no text exhausts the stack.
const MAX_DEPTH: usize = 64;

/// Whether a text begins with the word `in`.
fn is_in(text: &str) -> bool {
    text.strip_prefix("in")
        .is_some_and(|rest| !rest.starts_with(|next: char| next.is_alphanumeric() || next == '_'))
}

impl Marker {
    /// Parses a marker.
    ///
    /// # Errors
    ///
    /// [`MarkerError`] for the first thing that PEP 508's grammar does not allow.
    pub fn parse(text: &str) -> Result<Self, MarkerError> {
        let mut parser = Parser { text, position: 0, depth: 0 };
        let marker = parser.or()?;
        match parser.peek() {
            "" => Ok(marker),
            rest if rest.starts_with("&&") => Err(parser.meant(2, "and")),
            rest if rest.starts_with("||") => Err(parser.meant(2, "or")),
            _ => Err(parser.refuse("expected `and`, `or` or the end of the marker")),
        }
    }

    /// The marker for Poetry's `python` key; `None` where any interpreter will do.
    ///
    /// Rule: poetry-core, nested markers: versions of at most two segments compare with
    /// `python_version`, others with `python_full_version`; since `python_version` has two segments,
    /// `<=3.9` and `>3.9` speak of 3.9.0.
    #[must_use]
    pub fn of_python(constraint: &Constraint) -> Option<Self> {
        let mut alternatives = Vec::new();
        for specifiers in constraint.alternatives() {
            let mut all: Vec<_> = specifiers.iter().map(of_python_specifier).collect();
            match all.len() {
                0 => return None,
                1 => alternatives.append(&mut all),
                _ => alternatives.push(Self::And(all)),
            }
        }
        Some(match alternatives.len() {
            1 => alternatives.remove(0),
            _ => Self::Or(alternatives),
        })
    }

    /// The marker for Poetry's `platform` key: names of `sys.platform` joined by `||`, where one must
    /// hold, and by commas, where all must; each possibly negated with `!=`. `None` for `*`.
    ///
    /// # Errors
    ///
    /// [`MarkerError`] where a name is missing, or no platform could have all of them.
    pub fn of_platform(text: &str) -> Result<Option<Self>, MarkerError> {
        if text.trim() == "*" {
            return Ok(None);
        }
        let refused = |why: &str| MarkerError { at: 0..text.len(), why: why.into(), instead: None };
        let mut any = Vec::new();
        let mut parts = text.split('|').peekable();
        while let Some(part) = parts.next() {
            // The empty text between two bars.
            if part.is_empty() && !any.is_empty() && parts.peek().is_some() {
                continue;
            }
            let mut all = Vec::new();
            let mut names = Vec::new();
            for word in part.split(',').map(str::trim) {
                let (operator, name) = match word.strip_prefix("!=") {
                    Some(name) => ("!=", name.trim_start()),
                    None => ("==", word.trim_start_matches('=').trim_start()),
                };
                if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
                    return Err(refused("expected the name of a platform, such as `linux` or `win32`"));
                }
                names.extend((operator == "==").then_some(name));
                all.push(Self::Compare(
                    Operand::Variable("sys_platform"),
                    operator,
                    Operand::Text(name.to_owned()),
                ));
            }
            if names.windows(2).any(|pair| pair[0] != pair[1]) {
                return Err(refused("no platform has two names; where one of them will do, write `||`"));
            }
            any.extend(Self::all(all));
        }
        Ok(if any.len() == 1 { any.pop() } else { Some(Self::Or(any)) })
    }

    /// Whether the marker holds where variables have the values that `environment` tells; `None` where
    /// that depends on a variable it does not know.
    ///
    /// Rule: PEP 508, "Environment Markers": versions compare as versions, other texts as texts. As
    /// for Poetry, a list behind `in` for a version holds versions, not parts of their text.
    #[must_use]
    pub fn holds(&self, environment: &dyn Fn(&str) -> Option<String>) -> Option<bool> {
        let all = |parts: &[Self], stop: bool| {
            let mut known = true;
            for part in parts {
                match part.holds(environment) {
                    Some(holds) if holds == stop => return Some(stop),
                    Some(_) => {}
                    None => known = false,
                }
            }
            known.then_some(!stop)
        };
        match self {
            Self::And(parts) => all(parts, false),
            Self::Or(parts) => all(parts, true),
            Self::Compare(left, operator, right) => {
                let value = |operand: &Operand| match operand {
                    Operand::Variable(name) => environment(name),
                    Operand::Text(text) => Some(text.clone()),
                };
                let segments = match left {
                    Operand::Variable("python_version") => 2,
                    Operand::Variable("python_full_version") => 3,
                    _ => 0,
                };
                Some(compare(&value(left)?, operator, &value(right)?, segments))
            }
        }
    }

    /// Whether the marker speaks of a variable.
    #[must_use]
    pub fn mentions(&self, variable: &str) -> bool {
        match self {
            Self::And(parts) | Self::Or(parts) => parts.iter().any(|part| part.mentions(variable)),
            Self::Compare(left, _, right) => [left, right]
                .into_iter()
                .any(|operand| matches!(operand, Operand::Variable(found) if *found == variable)),
        }
    }

    /// The marker that holds where all of `markers` do; `None` for none.
    #[must_use]
    pub fn all(markers: impl IntoIterator<Item = Self>) -> Option<Self> {
        let mut markers: Vec<_> = markers.into_iter().collect();
        match markers.len() {
            0 | 1 => markers.pop(),
            _ => Some(Self::And(markers)),
        }
    }
}

/// Compares two values; the left one is a version of so many segments, or a text where that is 0.
fn compare(left: &str, operator: &str, right: &str, segments: usize) -> bool {
    if matches!(operator, "in" | "not in") && segments > 0 {
        let mut listed = right.split([' ', ',', '|']).filter(|word| !word.is_empty());
        let same = |word: &str| {
            let short = word.split('.').count() < segments && !word.ends_with('*');
            compare(left, "==", &if short { format!("{word}.*") } else { word.to_owned() }, segments)
        };
        return listed.any(same) == (operator == "in");
    }
    // As in constraints, Poetry ignores `.*` behind an ordering.
    let right = match operator {
        "<" | "<=" | ">" | ">=" if segments > 0 => right.trim_end_matches(".*"),
        _ => right,
    };
    if !matches!(operator, "in" | "not in")
        && let Ok(version) = left.parse::<Version>()
        && let Ok(specifier) = format!("{operator}{right}").parse::<VersionSpecifier>()
    {
        return range::meets(&specifier, &version);
    }
    match operator {
        "==" | "===" => left == right,
        "!=" => left != right,
        "<" => left < right,
        "<=" => left <= right,
        ">" => left > right,
        ">=" => left >= right,
        "in" => right.contains(left),
        "not in" => !right.contains(left),
        _ => false,
    }
}

fn of_python_specifier(specifier: &VersionSpecifier) -> Marker {
    let version = specifier.version();
    let padded = |version: &Version| {
        let segment = |at: usize| version.release().get(at).copied().unwrap_or(0);
        format!("{}.{}.{}", segment(0), segment(1), segment(2))
    };
    let short = version.release().len() < 3;
    let is_exact = matches!(specifier.operator(), VersionOperator::Equal | VersionOperator::NotEqual);
    // poetry-core compares with the release a pre-release leads to.
    let stable = if is_exact { version.clone() } else { version.clone().with_pre(None).with_dev(None) };
    let version = &stable;
    let (variable, operator, text) = match specifier.operator() {
        VersionOperator::GreaterThan if short => ("python_full_version", ">", padded(version)),
        VersionOperator::LessThanEqual if short => ("python_full_version", "<=", padded(version)),
        operator => {
            let variable = if short { "python_version" } else { "python_full_version" };
            let (operator, star) = match operator {
                // `python_version` has two segments, so `3.9.*` is just 3.9.
                VersionOperator::EqualStar => ("==", ".*"),
                VersionOperator::NotEqualStar => ("!=", ".*"),
                VersionOperator::NotEqual => ("!=", ""),
                VersionOperator::GreaterThan => (">", ""),
                VersionOperator::GreaterThanEqual => (">=", ""),
                VersionOperator::LessThan => ("<", ""),
                VersionOperator::LessThanEqual => ("<=", ""),
                VersionOperator::TildeEqual => ("~=", ""),
                VersionOperator::Equal | VersionOperator::ExactEqual => ("==", ""),
            };
            let star = if variable == "python_version" && version.release().len() == 2 { "" } else { star };
            (variable, operator, format!("{version}{star}"))
        }
    };
    Marker::Compare(Operand::Variable(variable), operator, Operand::Text(text))
}

impl fmt::Display for Marker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let joined = |f: &mut fmt::Formatter<'_>, parts: &[Self], glue: &str| {
            for (index, part) in parts.iter().enumerate() {
                if index > 0 {
                    f.write_str(glue)?;
                }
                match part {
                    Self::Compare(..) => write!(f, "{part}")?,
                    Self::And(_) | Self::Or(_) => write!(f, "({part})")?,
                }
            }
            Ok(())
        };
        match self {
            Self::And(parts) => joined(f, parts, " and "),
            Self::Or(parts) => joined(f, parts, " or "),
            Self::Compare(left, operator, right) => write!(f, "{left} {operator} {right}"),
        }
    }
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Variable(name) => f.write_str(name),
            Self::Text(text) if text.contains('"') => write!(f, "'{text}'"),
            Self::Text(text) => write!(f, "\"{text}\""),
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    position: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn peek(&mut self) -> &'a str {
        let rest = &self.text[self.position..];
        let trimmed = rest.trim_start_matches([' ', '\t']);
        self.position += rest.len() - trimmed.len();
        trimmed
    }

    fn refuse(&self, why: impl Into<String>) -> MarkerError {
        let rest = &self.text[self.position..];
        let length = rest.find(char::is_whitespace).unwrap_or(rest.len());
        MarkerError { at: self.position..self.position + length, why: why.into(), instead: None }
    }

    /// The refusal of so many bytes, which surely mean something else.
    fn meant(&self, length: usize, meant: &str) -> MarkerError {
        let at = self.position..self.position + length;
        let why = format!("`{}` means nothing in a marker; did you mean `{meant}`?", &self.text[at.clone()]);
        MarkerError { at, why, instead: Some(meant.to_owned()) }
    }

    fn keyword(&mut self, keyword: &str) -> bool {
        let found = self
            .peek()
            .strip_prefix(keyword)
            .is_some_and(|rest| !rest.starts_with(|next: char| next.is_alphanumeric() || next == '_'));
        if found {
            self.position += keyword.len();
        }
        found
    }

    fn or(&mut self) -> Result<Marker, MarkerError> {
        let mut parts = vec![self.and()?];
        while self.keyword("or") {
            parts.push(self.and()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Marker::Or(parts) })
    }

    fn and(&mut self) -> Result<Marker, MarkerError> {
        let mut parts = vec![self.term()?];
        while self.keyword("and") {
            parts.push(self.term()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Marker::And(parts) })
    }

    fn term(&mut self) -> Result<Marker, MarkerError> {
        if !self.peek().starts_with('(') {
            return self.comparison();
        }
        if self.depth == MAX_DEPTH {
            return Err(self.refuse("parentheses are nested too deeply"));
        }
        self.position += 1;
        self.depth += 1;
        let marker = self.or()?;
        self.depth -= 1;
        if !self.peek().starts_with(')') {
            return Err(self.refuse("expected `and`, `or` or `)`"));
        }
        self.position += 1;
        Ok(marker)
    }

    fn comparison(&mut self) -> Result<Marker, MarkerError> {
        let left = self.operand()?;
        let operator = self.operator()?;
        let before = self.position;
        let right = self.operand()?;
        if let (Operand::Text(_), Operand::Text(_)) = (&left, &right) {
            self.position = before;
            self.peek();
            return Err(self.refuse("expected a name such as `python_version` on one side"));
        }
        Ok(Marker::Compare(left, operator, right))
    }

    fn operator(&mut self) -> Result<&'static str, MarkerError> {
        let rest = self.peek();
        for operator in OPERATORS {
            let length = match operator {
                "not in" => rest.strip_prefix("not").and_then(|after| {
                    let word = after.trim_start_matches([' ', '\t']);
                    (word.len() < after.len() && is_in(word)).then(|| rest.len() - word.len() + 2)
                }),
                "in" => is_in(rest).then_some(2),
                _ => rest.starts_with(operator).then_some(operator.len()),
            };
            if let Some(length) = length {
                self.position += length;
                return Ok(operator);
            }
        }
        if rest.starts_with('=') {
            return Err(self.meant(1, "=="));
        }
        Err(self.refuse("expected a comparison: `== != < <= > >= ~= === in`, or `not in`"))
    }

    fn operand(&mut self) -> Result<Operand, MarkerError> {
        let rest = self.peek();
        if let Some(quote @ ('"' | '\'')) = rest.chars().next() {
            let Some(length) = rest[1..].find(quote) else {
                return Err(self.refuse(format!("expected a closing {quote}")));
            };
            let text = &rest[1..=length];
            if text.contains(char::is_control) {
                return Err(self.refuse("a marker's text stays on one line"));
            }
            if let Some(at) = text.find('\\') {
                self.position += 1 + at;
                return Err(self.refuse("a marker's text has no escapes"));
            }
            self.position += length + 2;
            return Ok(Operand::Text(text.to_owned()));
        }
        let word = |next: char| next.is_alphanumeric() || next == '_' || next == '.';
        let length = rest.find(|next| !word(next)).unwrap_or(rest.len());
        let name = &rest[..length];
        let known = VARIABLES.into_iter().find(|&variable| variable == name);
        let old = || OLD_SPELLINGS.into_iter().find(|(old, _)| *old == name).map(|(_, new)| new);
        match known.or_else(old) {
            Some(variable) => {
                self.position += length;
                Ok(Operand::Variable(variable))
            }
            None if name.is_empty() => {
                Err(self.refuse("expected a marker such as `python_version < \"3.12\"`"))
            }
            None => {
                let nearest = super::nearest(name, VARIABLES);
                Err(MarkerError {
                    at: self.position..self.position + length,
                    why: match nearest {
                        Some(nearest) => format!("`{name}` is no marker name; did you mean `{nearest}`?"),
                        None => format!("`{name}` is no marker name; texts need quotes"),
                    },
                    instead: nearest.map(str::to_owned),
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_print_as_pep_508_writes_them() {
        for (written, printed) in [
            ("python_version<'3.9'", "python_version < \"3.9\""),
            (
                "os_name=='nt' and (sys_platform == \"win32\" or python_version not  in '2.7 3.0')",
                "os_name == \"nt\" and (sys_platform == \"win32\" or python_version not in \"2.7 3.0\")",
            ),
            ("'linux' in sys.platform", "\"linux\" in sys_platform"),
            ("extra == 'a\"b'", "extra == 'a\"b'"),
        ] {
            let marker = Marker::parse(written).unwrap();
            assert_eq!(marker.to_string(), printed);
            assert_eq!(Marker::parse(printed).unwrap(), marker);
        }
    }

    #[test]
    fn a_refused_marker_is_named_by_its_bytes() {
        for (written, at) in [
            ("", 0..0),
            ("python_versoin > '3'", 0..14),
            ("python_version", 14..14),
            ("python_version > 3", 17..18),
            ("'a' == 'b'", 7..10),
            ("os_name == 'nt' xor os_name == 'x'", 16..19),
            ("os_name == 'nt' && os_name == 'x'", 16..18),
            ("os_name = 'nt'", 8..9),
            ("os_name insys_platform", 8..22),
            ("(os_name == 'nt'", 16..16),
            ("os_name == 'nt", 11..14),
        ] {
            assert_eq!(Marker::parse(written).unwrap_err().at, at, "for `{written}`");
        }
        assert!(Marker::parse(&"(".repeat(100_000)).is_err());
    }

    #[test]
    fn poetrys_python_key_becomes_a_marker() {
        for (python, marker) in [
            ("^3.9", "python_version >= \"3.9\" and python_version < \"4.0\""),
            ("<=3.9", "python_full_version <= \"3.9.0\""),
            (">3.9", "python_full_version > \"3.9.0\""),
            (">=3.9.2", "python_full_version >= \"3.9.2\""),
            ("3.11.*", "python_version == \"3.11\""),
            ("<3.9 || >=3.11", "python_version < \"3.9\" or python_version >= \"3.11\""),
        ] {
            let constraint = Constraint::parse(python).unwrap();
            assert_eq!(Marker::of_python(&constraint).unwrap().to_string(), marker);
        }
        assert_eq!(Marker::of_python(&Constraint::any()), None);
    }
}
