//! `.dockerignore`: which files of a folder no build gets.

use std::str::Chars;

/// The patterns of a `.dockerignore`; of several that match a path the last counts.
///
/// Source: moby's patternmatcher, which reads and matches them; fsutil, `filter.go`, by which Docker's clients walk
/// through a folder.
#[derive(Debug, Clone, Default)]
pub(super) struct Ignored(Vec<Pattern>);

#[derive(Debug, Clone)]
struct Pattern {
    /// Whether it is an exception to those before it.
    keeps: bool,
    text: String,
    tokens: Vec<Token>,
}

/// A line of a `.dockerignore` that is refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadLine {
    /// Its number, from 1.
    pub(super) line: usize,
    pub(super) mistake: Mistake,
}

/// What is wrong with a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mistake {
    pub(super) why: &'static str,
    pub(super) fix: &'static str,
}

const KEEPS_NOTHING: Mistake =
    Mistake { why: "nothing follows its `!`", fix: "write what is kept behind the `!`, or delete the line" };
const OPEN: Mistake = Mistake {
    why: "its `[` is not closed",
    fix: "close it with `]`, or write `\\[` for the character itself",
};
const NO_CHARACTER: Mistake = Mistake {
    why: "a `]` or `-` in its brackets is where a character should be",
    fix: "write `\\]` or `\\-` for the character itself",
};
const BACKWARDS: Mistake =
    Mistake { why: "a range in its brackets ends before it begins", fix: "write the lower end first" };
const ESCAPES_NOTHING: Mistake =
    Mistake { why: "nothing follows its `\\`", fix: "delete it, or write `\\\\` for the character itself" };
// Docker accepts some of these for what its regular expressions make of them, which is nothing that its docs say.
const NO_ESCAPE: Mistake = Mistake {
    why: "Docker does not take the letter or digit behind its `\\` for itself",
    fix: "write `/` between the parts of a path, and no `\\` before letters and digits",
};
const BESIDE_WILDCARD: Mistake = Mistake {
    why: "Docker does not take a `^`, `|` or `{1` beside wildcards for itself",
    fix: "write `\\^`, `\\|` or `\\{` for the character itself",
};
const WILDCARD_IN_CLASS: Mistake = Mistake {
    why: "Docker does not take a `*` or `?` in brackets for itself",
    fix: "write `\\*` or `\\?` for the character itself",
};
const NAMED_CLASS: Mistake = Mistake {
    why: "`[:` is in its brackets",
    fix: "write a range, such as `a-z`, or `\\[` for the character itself",
};

/// What is known of a path; of a folder, what is in it needs to know.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    /// Whether it is left out.
    pub(super) is_out: bool,
    /// For each pattern, whether it matches the path or a folder it is in.
    matches: Vec<bool>,
}

impl Ignored {
    pub(super) fn parse(text: &str) -> Result<Self, BadLine> {
        let lines = (1..).zip(text.strip_prefix('\u{feff}').unwrap_or(text).lines());
        let patterns = lines.filter(|(_, line)| !line.starts_with('#') && !line.trim().is_empty());
        let parsed = patterns.map(|(number, line)| {
            Pattern::parse(line.trim()).map_err(|mistake| BadLine { line: number, mistake })
        });
        parsed.collect::<Result<_, _>>().map(Self)
    }

    /// Looks at a path, its parts separated by `/`, in a folder that was looked at; [`Seen::default`] is the root.
    pub(super) fn look(&self, path: &str, folder: &Seen) -> Seen {
        let path: Vec<char> = path.chars().collect();
        let mut is_out = false;
        let matches = self.0.iter().enumerate().map(|(index, pattern)| {
            // One that changes nothing is not tried, and so does not count for what is in a folder, either.
            let matches =
                folder.matches.get(index) == Some(&true) || pattern.keeps == is_out && pattern.matches(&path);
            if matches {
                is_out = !pattern.keeps;
            }
            matches
        });
        let matches = matches.collect();
        Seen { is_out, matches }
    }

    /// Whether a folder that is left out is searched for what is kept all the same.
    pub(super) fn may_keep_below(&self, folder: &str) -> bool {
        let mut exceptions = self.0.iter().filter(|pattern| pattern.keeps).map(Pattern::stem);
        let folder = format!("{folder}/");
        if exceptions.clone().any(|stem| stem.contains(['*', '?', '[', ']', '^', '\\'])) {
            return true;
        }
        exceptions.any(|stem| format!("{stem}/").starts_with(&folder))
    }
}

impl Pattern {
    /// Reads a line without the white space around it.
    fn parse(line: &str) -> Result<Self, Mistake> {
        let (mark, rest) = match line.strip_prefix('!') {
            Some(rest) => ("!", rest.trim()),
            None => ("", line),
        };
        if rest.is_empty() {
            return Err(KEEPS_NOTHING);
        }
        let path = clean(rest);
        let path = path.strip_prefix('/').filter(|path| !path.is_empty()).unwrap_or(&path);
        // Once more, so that `/!a` is an exception, and `!/` is a lone `!`.
        let cleaned = clean(format!("{mark}{path}").trim());
        let (keeps, text) = match cleaned.strip_prefix('!') {
            Some("") => return Err(KEEPS_NOTHING),
            Some(text) => (true, text),
            None => (false, cleaned.as_str()),
        };
        Ok(Self { keeps, text: text.to_owned(), tokens: tokens(text)? })
    }

    fn matches(&self, path: &[char]) -> bool {
        let mut reached = vec![false; path.len() + 1];
        reached[0] = true;
        self.tokens.iter().all(|token| token.advance(path, &mut reached)) && reached[path.len()]
    }

    /// The pattern without what ends it in any depth.
    fn stem(&self) -> &str {
        let stem = self.text.strip_suffix("/**").unwrap_or(&self.text);
        stem.strip_suffix("/*").unwrap_or(stem)
    }
}

/// The shortest path that means the same.
///
/// Source: Go, `filepath.Clean`.
fn clean(path: &str) -> String {
    let root = if path.starts_with('/') { "/" } else { "" };
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|&last| last != "..") => drop(parts.pop()),
            ".." if !root.is_empty() => {}
            part => parts.push(part),
        }
    }
    let cleaned = format!("{root}{}", parts.join("/"));
    if cleaned.is_empty() { ".".to_owned() } else { cleaned }
}

/// A part of a pattern, by what it matches.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Char(char),
    /// `?`: any character but `/`.
    One,
    /// `[a-z]`: a character in one of these ranges, or in none of them; it may be `/`.
    Class {
        ranges: Vec<(char, char)>,
        is_negated: bool,
    },
    /// `*`: any number of characters but `/`.
    Star,
    /// `**` at the end, or alone before what is literal: any number of characters.
    All,
    /// Any other `**`, with a `/` that follows: nothing, or any number of characters and a `/`.
    Folders,
}

impl Token {
    /// Goes on from the places in the path that were reached to those behind what it matches; says whether there are any.
    fn advance(&self, path: &[char], reached: &mut [bool]) -> bool {
        match self {
            Self::Star => spread(path, reached, |next| next != '/', |_| true),
            Self::All => spread(path, reached, |_| true, |_| true),
            Self::Folders => spread(path, reached, |_| true, |last| last == '/'),
            Self::Char(_) | Self::One | Self::Class { .. } => {
                for at in (0..path.len()).rev() {
                    reached[at + 1] = reached[at] && self.is_one(path[at]);
                }
                reached[0] = false;
            }
        }
        reached.contains(&true)
    }

    /// Whether it matches this one character.
    fn is_one(&self, next: char) -> bool {
        match self {
            Self::Char(char) => *char == next,
            Self::One => next != '/',
            Self::Class { ranges, is_negated } => {
                ranges.iter().any(|(low, high)| (low..=high).contains(&&next)) != *is_negated
            }
            Self::Star | Self::All | Self::Folders => false,
        }
    }
}

/// Adds to the places that were reached all behind them that are `passes` away, where the last character `ends` it.
fn spread(path: &[char], reached: &mut [bool], passes: impl Fn(char) -> bool, ends: impl Fn(char) -> bool) {
    let mut is_running = false;
    for (at, &next) in path.iter().enumerate() {
        is_running = (is_running || reached[at]) && passes(next);
        reached[at + 1] |= is_running && ends(next);
    }
}

fn tokens(pattern: &str) -> Result<Vec<Token>, Mistake> {
    let is_literal = |part: &str| !part.contains(['*', '?', '[', ']', '\\']);
    let around = [Some(pattern), pattern.strip_prefix("**"), pattern.strip_suffix("**")];
    // Docker compares such a one with the path, and makes a regular expression of any other.
    let is_plain = around.into_iter().flatten().any(is_literal);
    let mut tokens = Vec::new();
    let mut rest = pattern.chars();
    while let Some(next) = rest.next() {
        tokens.push(match next {
            '*' if take(&mut rest, '*') => {
                let is_whole_part = take(&mut rest, '/');
                let is_last = rest.as_str().is_empty();
                if is_last || is_plain && !is_whole_part { Token::All } else { Token::Folders }
            }
            '*' => Token::Star,
            '?' => Token::One,
            '[' => class(&mut rest)?,
            '\\' => Token::Char(escaped(&mut rest)?),
            '^' | '|' if !is_plain => return Err(BESIDE_WILDCARD),
            '{' if !is_plain && rest.as_str().starts_with(|next: char| next.is_ascii_digit()) => {
                return Err(BESIDE_WILDCARD);
            }
            next => Token::Char(next),
        });
    }
    Ok(tokens)
}

/// Takes this character off the beginning, if it is there.
fn take(rest: &mut Chars, char: char) -> bool {
    let behind = rest.as_str().strip_prefix(char).map(str::chars);
    behind.map(|behind| *rest = behind).is_some()
}

/// The class whose `[` was taken.
fn class(rest: &mut Chars) -> Result<Token, Mistake> {
    let is_negated = take(rest, '^');
    let mut ranges = Vec::new();
    while ranges.is_empty() || !take(rest, ']') {
        let low = in_class(rest)?;
        let high = if take(rest, '-') { in_class(rest)? } else { low };
        if high < low {
            return Err(BACKWARDS);
        }
        ranges.push((low, high));
    }
    Ok(Token::Class { ranges, is_negated })
}

fn in_class(rest: &mut Chars) -> Result<char, Mistake> {
    match rest.next().ok_or(OPEN)? {
        ']' | '-' => Err(NO_CHARACTER),
        '*' | '?' => Err(WILDCARD_IN_CLASS),
        '[' if rest.as_str().starts_with(':') => Err(NAMED_CLASS),
        '\\' => escaped(rest),
        next => Ok(next),
    }
}

/// The character whose `\` was taken.
fn escaped(rest: &mut Chars) -> Result<char, Mistake> {
    let next = rest.next().ok_or(ESCAPES_NOTHING)?;
    if next.is_ascii() && !next.is_ascii_alphanumeric() { Ok(next) } else { Err(NO_ESCAPE) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Looks at a path by way of all folders it is in.
    fn look(ignored: &Ignored, path: &str) -> Seen {
        let ends = path.match_indices('/').map(|(slash, _)| slash).chain([path.len()]);
        ends.fold(Seen::default(), |folder, end| ignored.look(&path[..end], &folder))
    }

    #[test]
    fn patterns_mean_what_docker_says() {
        for (patterns, path, is_out) in [
            ("node_modules", "node_modules/a/b.js", true),
            ("node_modules", "web/node_modules/a.js", false),
            ("**/node_modules", "web/node_modules/a.js", true),
            ("*.md", "README.md", true),
            ("*.md", "docs/README.md", false),
            ("**/*.md\n!README.md", "README.md", false),
            ("*.md\n!README*.md\nREADME-secret.md", "README-secret.md", true),
            ("/secret", "secret", true),
            ("./a/../secret/", "secret/key", true),
            ("*/temp*", "a/temporary/x", true),
            ("temp?", "tempa", true),
            ("temp?", "temp", false),
            ("temp?", "temp/a", false),
            ("[a-c].txt", "b.txt", true),
            ("[^a-c].txt", "b.txt", false),
            ("a[^b]c", "a/c", true),
            ("[a\\]]", "]", true),
            ("*\n!src", "src/a.py", false),
            ("*\n!src", "x/src", true),
            ("a\\*b", "a*b", true),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            (&"*a".repeat(40), &"a".repeat(200), true),
            (&"*a".repeat(40), &format!("{}b", "a".repeat(200)), false),
            // `**`, as a part of a path and elsewhere.
            ("a/**", "a/b/c", true),
            ("a/**", "a", false),
            ("a**", "ab/c", true),
            ("a/**/z", "a/z", true),
            ("a**/z", "ab/z", true),
            ("**/a/**/b", "x/a/y/a/z/b", true),
            ("**.pem", "key.pem", true),
            ("**.pem", "a/b/key.pem", true),
            ("**.p?m", "a/.pem", true),
            ("**.p?m", "a/key.pem", false),
            ("**/**", "a/b", true),
            ("***", "a/b", true),
            (&"**/a".repeat(40), &"a/".repeat(200), true),
            (&format!("{}b", "**/a".repeat(40)), &"a/".repeat(200), false),
            // Lines, and paths that are not the shortest.
            ("# comment\n\n", "# comment", false),
            (" #c", "#c", true),
            ("\u{feff}a\r\nb\r\n", "a", true),
            ("\t a \t", "a", true),
            ("../up", "up", false),
            ("/../up", "up", true),
            ("a/../../b", "b", false),
            (".", "a", false),
            ("/", "a", false),
            ("a\n! /a", "a", false),
            ("a\n/!a", "a", false),
            ("!!a", "!a", false),
            ("*\n!!a", "!a", false),
            // Characters that only regular expressions know.
            ("a.b", "aXb", false),
            ("a(b)+$", "a(b)+$", true),
            ("*.{js,ts}", "a.{js,ts}", true),
            ("a|b{2}^", "a|b{2}^", true),
            ("*\\|", "a|", true),
            // What a pattern says of a folder counts in it, unless it says nothing new there.
            ("a\n!a/b", "a/b/c", false),
            ("a\n!a/b\na/b/c", "a/b/c", true),
            ("a/b\n!a", "a/b/c", true),
            ("a/b\n!a/b", "a/b/c", false),
        ] {
            let ignored = Ignored::parse(patterns).unwrap();
            assert_eq!(look(&ignored, path).is_out, is_out, "{patterns:?} {path}");
        }
    }

    #[test]
    fn what_docker_refuses_is_refused() {
        for (patterns, line, mistake) in [
            ("a\n\n!\n", 3, KEEPS_NOTHING),
            ("! ", 1, KEEPS_NOTHING),
            ("!/", 1, KEEPS_NOTHING),
            ("#\n[", 2, OPEN),
            ("*[a-c", 1, OPEN),
            ("![^", 1, OPEN),
            ("[]", 1, NO_CHARACTER),
            ("[]a]", 1, NO_CHARACTER),
            ("[a-]", 1, NO_CHARACTER),
            ("[-a]", 1, NO_CHARACTER),
            ("[c-a]", 1, BACKWARDS),
            ("a\\", 1, ESCAPES_NOTHING),
            ("*.py\n!a\\", 2, ESCAPES_NOTHING),
            ("src\\build", 1, NO_ESCAPE),
            ("[\\d]", 1, NO_ESCAPE),
            ("\\é", 1, NO_ESCAPE),
            ("[*]", 1, WILDCARD_IN_CLASS),
            ("[[:alpha:]]", 1, NAMED_CLASS),
            ("a|*", 1, BESIDE_WILDCARD),
            ("?{2}", 1, BESIDE_WILDCARD),
            ("*^", 1, BESIDE_WILDCARD),
        ] {
            assert_eq!(Ignored::parse(patterns).unwrap_err(), BadLine { line, mistake }, "{patterns:?}");
        }
    }

    #[test]
    fn only_folders_that_exceptions_may_be_in_are_searched() {
        for (patterns, folder, is_searched) in [
            ("*", "a", false),
            ("*\n!a/b", "a", true),
            ("*\n!a/b", "b", false),
            ("*\n!a/b", "a/b/c", false),
            ("*\n!a/**", "a", true),
            ("*\n!a/*", "b", false),
            ("*\n!**/x", "b", true),
            ("*\n!a/x?", "b", true),
        ] {
            assert_eq!(
                Ignored::parse(patterns).unwrap().may_keep_below(folder),
                is_searched,
                "{patterns:?} {folder}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_pattern_panics(patterns in "[a\\[\\]*?!\\\\/\\-^.|{1\n]{0,24}", path in "[a\\[*/.\\-]{1,12}") {
            if let Ok(ignored) = Ignored::parse(&patterns) {
                let _ = look(&ignored, &path);
            }
        }
    }
}
