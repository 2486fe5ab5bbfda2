//! `.dockerignore`: which files of a folder no build gets.

/// The patterns of a `.dockerignore`; of several that match a path the last counts.
///
/// Rule: Docker docs, "`.dockerignore` files"; patterns are those of Go's `filepath.Match`, and `**`.
#[derive(Debug, Clone, Default)]
pub(super) struct Ignored(Vec<Pattern>);

#[derive(Debug, Clone)]
struct Pattern {
    /// Whether it is an exception to those before it.
    keeps: bool,
    parts: Vec<String>,
}

impl Ignored {
    pub(super) fn parse(text: &str) -> Self {
        let pattern = |line: &str| {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                return None;
            }
            let (keeps, rest) = match line.strip_prefix('!') {
                Some(rest) => (true, rest.trim()),
                None => (false, line),
            };
            let mut parts: Vec<String> = Vec::new();
            for part in rest.split('/') {
                match part {
                    "" | "." => {}
                    ".." => drop(parts.pop()),
                    part => parts.push(part.to_owned()),
                }
            }
            (!parts.is_empty()).then_some(Pattern { keeps, parts })
        };
        Self(text.trim_start_matches('\u{feff}').lines().filter_map(pattern).collect())
    }

    /// Whether a path, its parts separated by `/`, is left out.
    pub(super) fn leaves_out(&self, path: &str) -> bool {
        let parts: Vec<&str> = path.split('/').collect();
        // What matches a folder matches all that is in it.
        let matches =
            |pattern: &Pattern| (1..=parts.len()).any(|count| path_matches(&pattern.parts, &parts[..count]));
        self.0.iter().rev().find(|pattern| matches(pattern)).is_some_and(|pattern| !pattern.keeps)
    }

    /// Whether something in a folder that is left out may be kept all the same.
    pub(super) fn has_exceptions(&self) -> bool {
        self.0.iter().any(|pattern| pattern.keeps)
    }
}

fn path_matches(pattern: &[String], path: &[&str]) -> bool {
    let chars = |text: &str| text.chars().collect::<Vec<_>>();
    let one =
        |pattern: &[String], name: &&str| name_matches(&chars(pattern.first()?), &chars(name)).then_some(1);
    matches(pattern, path, |part| part == "**", one)
}

fn name_matches(pattern: &[char], name: &[char]) -> bool {
    matches(pattern, name, |&next| next == '*', |pattern, &next| one_matches(pattern, next))
}

/// How much of a pattern matches this one character at its beginning.
fn one_matches(pattern: &[char], next: char) -> Option<usize> {
    let (&first, rest) = pattern.split_first()?;
    match first {
        '?' => Some(1),
        '[' => {
            let (ranges, is_negated, after) = class(rest)?;
            let is_in = ranges.iter().any(|(low, high)| (low..=high).contains(&&next));
            (is_in != is_negated).then_some(pattern.len() - after.len())
        }
        '\\' if !rest.is_empty() => (rest[0] == next).then_some(2),
        first => (first == next).then_some(1),
    }
}

/// Whether a pattern matches all of a text, in steps that are at most the product of their lengths: `is_star` tells parts
/// that match any number of them, `one` how much of a pattern matches one.
fn matches<P, T>(
    pattern: &[P],
    text: &[T],
    is_star: impl Fn(&P) -> bool,
    one: impl Fn(&[P], &T) -> Option<usize>,
) -> bool {
    let (mut at, mut seen) = (0, 0);
    // Behind the last star, and how much of the text it has taken: only that may turn out to be too little.
    let mut star = None;
    loop {
        if pattern.get(at).is_some_and(&is_star) {
            at += 1;
            star = Some((at, seen));
            continue;
        }
        let step = text.get(seen).and_then(|next| one(&pattern[at..], next));
        match (step, star) {
            (Some(length), _) => {
                at += length;
                seen += 1;
            }
            (None, _) if at == pattern.len() && seen == text.len() => return true,
            (None, Some((behind, taken))) if taken < text.len() => {
                star = Some((behind, taken + 1));
                (at, seen) = (behind, taken + 1);
            }
            (None, _) => return false,
        }
    }
}

/// The ranges of a class of characters behind its `[`, whether it is negated, and what follows it.
type Class<'a> = (Vec<(char, char)>, bool, &'a [char]);

fn class(pattern: &[char]) -> Option<Class<'_>> {
    let is_negated = pattern.first() == Some(&'^');
    let mut rest = if is_negated { &pattern[1..] } else { pattern };
    let mut ranges = Vec::new();
    let one = |rest: &mut &[char]| {
        let at = usize::from(rest.first() == Some(&'\\'));
        let found = *rest.get(at)?;
        *rest = &rest[at + 1..];
        Some(found)
    };
    while *rest.first()? != ']' || ranges.is_empty() {
        let low = one(&mut rest)?;
        let high = if rest.first() == Some(&'-') {
            rest = &rest[1..];
            one(&mut rest)?
        } else {
            low
        };
        ranges.push((low, high));
    }
    Some((ranges, is_negated, &rest[1..]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn patterns_mean_what_docker_says() {
        let left_out = |patterns: &str, path: &str| Ignored::parse(patterns).leaves_out(path);
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
            ("[a-c].txt", "b.txt", true),
            ("[^a-c].txt", "b.txt", false),
            ("# comment\n\n", "# comment", false),
            ("*\n!src", "src/a.py", false),
            ("*\n!src", "x/src", true),
            ("a/**", "a/b/c", true),
            ("a/**/z", "a/z", true),
            ("a\\*b", "a*b", true),
            ("[", "[", false),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("**/a/**/b", "x/a/y/a/z/b", true),
            (&"*a".repeat(40), &"a".repeat(200), true),
            (&"*a".repeat(40), &format!("{}b", "a".repeat(200)), false),
        ] {
            assert_eq!(left_out(patterns, path), is_out, "{patterns:?} {path}");
        }
    }

    proptest! {
        #[test]
        fn no_pattern_panics(patterns in "[a\\[\\]*?!\\\\/\\-^.\n]{0,24}", path in "[a\\[*/.\\-]{1,12}") {
            let _ = Ignored::parse(&patterns).leaves_out(&path);
        }
    }
}
