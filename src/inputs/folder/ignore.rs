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
    match (pattern.split_first(), path.split_first()) {
        (None, None) => true,
        (Some((first, rest)), _) if first == "**" => {
            path_matches(rest, path) || !path.is_empty() && path_matches(pattern, &path[1..])
        }
        (Some((first, rest)), Some((name, behind))) => {
            let (first, name): (Vec<char>, Vec<char>) = (first.chars().collect(), name.chars().collect());
            name_matches(&first, &name) && path_matches(rest, behind)
        }
        _ => false,
    }
}

fn name_matches(pattern: &[char], name: &[char]) -> bool {
    let Some((&first, rest)) = pattern.split_first() else { return name.is_empty() };
    if first == '*' {
        return name_matches(rest, name) || !name.is_empty() && name_matches(pattern, &name[1..]);
    }
    let Some((&next, behind)) = name.split_first() else { return false };
    match first {
        '?' => name_matches(rest, behind),
        '[' => match class(rest) {
            Some((ranges, is_negated, after)) => {
                let is_in = ranges.iter().any(|&(low, high)| (low..=high).contains(&next));
                is_in != is_negated && name_matches(after, behind)
            }
            None => false,
        },
        '\\' if !rest.is_empty() => rest[0] == next && name_matches(&rest[1..], behind),
        first => first == next && name_matches(rest, behind),
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
