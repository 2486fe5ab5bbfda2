//! The images that a Dockerfile names.

use std::collections::{BTreeMap, BTreeSet};

/// The images that a Dockerfile is built on or copies from, with the defaults of its arguments; what only the build knows is
/// left out.
///
/// Rule: Dockerfile reference, "FROM", "COPY --from" and "Understand how ARG and FROM interact".
pub(super) fn images(dockerfile: &str) -> BTreeSet<String> {
    let mut arguments: BTreeMap<&str, &str> = BTreeMap::new();
    let mut stages = BTreeSet::new();
    let mut images = BTreeSet::new();
    for line in dockerfile.lines() {
        let mut words = line.split_whitespace();
        let instruction = words.next().unwrap_or_default().to_ascii_uppercase();
        match instruction.as_str() {
            "ARG" if stages.is_empty() && images.is_empty() => {
                arguments.extend(words.filter_map(|word| word.split_once('=')));
            }
            "FROM" => {
                let words: Vec<&str> = words.skip_while(|word| word.starts_with("--")).collect();
                if let Some(image) = words.first().and_then(|word| expanded(word, &arguments)) {
                    images.insert(image);
                }
                if let [_, word, stage, ..] = words.as_slice()
                    && word.eq_ignore_ascii_case("as")
                {
                    stages.insert(stage.to_ascii_lowercase());
                }
            }
            "COPY" => images.extend(words.filter_map(|word| Some(word.strip_prefix("--from=")?.to_owned()))),
            _ => {}
        }
    }
    images.retain(|image| {
        let is_stage =
            stages.contains(&image.to_ascii_lowercase()) || image.bytes().all(|byte| byte.is_ascii_digit());
        image != "scratch" && !is_stage && !image.contains('$')
    });
    images
}

/// A word with `$NAME`, `${NAME}` and `${NAME:-DEFAULT}` replaced; `None` where one has no value.
fn expanded(word: &str, arguments: &BTreeMap<&str, &str>) -> Option<String> {
    let word = word.trim_matches(['"', '\'']);
    let Some((before, rest)) = word.split_once('$') else { return Some(word.to_owned()) };
    let (name, default, behind) = if let Some(braced) = rest.strip_prefix('{') {
        let (inside, behind) = braced.split_once('}')?;
        let (name, default) = inside.split_once(":-").map_or((inside, None), |(name, or)| (name, Some(or)));
        (name, default, behind)
    } else {
        let end = rest.find(|next: char| !next.is_ascii_alphanumeric() && next != '_').unwrap_or(rest.len());
        (&rest[..end], None, &rest[end..])
    };
    let value = arguments.get(name).copied().or(default)?.trim_matches(['"', '\'']);
    Some(format!("{before}{value}{}", expanded(behind, arguments)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_found_with_the_defaults_of_arguments() {
        for (dockerfile, found) in [
            ("FROM a:1\nRUN x\n", "a:1"),
            (
                "# syntax=x\nfrom --platform=linux/amd64 a AS b\nFROM B\nCOPY --from=b / /\nCOPY --from=c:2 /x /\n",
                "a c:2",
            ),
            ("ARG V=3 W=\"x\"\nFROM p:$V-${W}\nFROM q:${U:-5}\nFROM r:${U}\n", "p:3-x q:5"),
            ("FROM scratch\nCOPY --from=0 / /\n", ""),
        ] {
            assert_eq!(images(dockerfile).into_iter().collect::<Vec<_>>().join(" "), found, "{dockerfile}");
        }
    }
}
