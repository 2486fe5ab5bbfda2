//! A first `ipybox.toml` for a folder.

use std::collections::BTreeSet;

/// A dependency list that a folder has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The name of its file.
    pub file: String,
    /// The name of its lock, where that is there.
    pub lock: Option<String>,
}

/// What a folder's own list may be called.
const MAIN: [&str; 3] = ["dependencies", "requirements", "pyproject"];

/// The text of a first file: an image for each list, or one of the variant minimal, and what else can be said in comments.
#[must_use]
pub fn first(folder: &str, found: &[Found]) -> String {
    let main = plain(folder).unwrap_or_else(|| "sandbox".to_owned());
    let mut names = BTreeSet::new();
    let mut text = "\
# The images of this folder: `ipybox build` builds all that are not up to date, `ipybox build NAME` one of them and
# what it is built on. `ipybox init --schema` prints all keys, for editors.

[fleet]
# What {version} stands for; without it, the tag of this commit in git.
# version = \"1.0.0\"
# Tags of each image; others are {date}, {git.short}, {lock.short}, {python}, {base} and {image}.
# tags = [\"{version}\", \"latest\"]
# Where images are published: as REPOSITORY/NAME.
# repository = \"registry.example/team\"
# platforms = [\"linux/amd64\", \"linux/arm64\"]
"
    .to_owned();
    for Found { file, lock } in found {
        let stem = file.rsplit_once('.').map_or(file.as_str(), |(stem, _)| stem);
        let name = name(stem).filter(|name| !names.contains(name));
        let name = name.unwrap_or_else(|| main.clone());
        // Two lists of one name are one image's no more than two files are one.
        let mut numbered = name.clone();
        let mut number = 2;
        while !names.insert(numbered.clone()) {
            numbered = format!("{name}-{number}");
            number += 1;
        }
        text += &format!("\n[image.{}]\ndependencies = {}\n", quoted_key(&numbered), quoted(file));
        text += &match lock {
            Some(lock) => format!("# Versions are those of {}.\n", lock.escape_debug()),
            None => format!("# `ipybox lock -d {}` keeps versions from then on.\n", file.escape_debug()),
        };
    }
    let last = match names.first() {
        Some(first) => first.clone(),
        None => {
            text += &format!("\n[image.{}]\nvariant = \"minimal\"\n", quoted_key(&main));
            main
        }
    };
    text += &format!(
        "\n# Another image on top of it:\n# [image.more]\n# from = {}\n# dependencies = \"more.txt\"\n\n\
         # One for each of several Pythons:\n# [image.each]\n# matrix = {{ python = [\"3.12\", \"3.13\"] }}\n\
         # tags = [\"py{{python}}\"]\n",
        quoted(&last)
    );
    text
}

/// What the image of a list is called; nothing, where that is the folder's own.
fn name(stem: &str) -> Option<String> {
    let lower = stem.to_ascii_lowercase();
    let rest = MAIN.iter().find_map(|main| {
        let rest = lower.strip_prefix(main).or_else(|| lower.strip_suffix(main))?;
        Some(rest.trim_matches(['-', '_', '.']).to_owned())
    });
    plain(&rest.unwrap_or(lower))
}

/// A text as the name of an image: lower-case letters, digits and `-` between them.
fn plain(text: &str) -> Option<String> {
    const LONGEST: usize = 60;
    let lower = text.to_ascii_lowercase();
    let words = lower.split(|next: char| !next.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let name: String = words.collect::<Vec<_>>().join("-").chars().take(LONGEST).collect();
    let name = name.trim_matches('-').to_owned();
    (!name.is_empty()).then_some(name)
}

fn quoted(text: &str) -> String {
    toml_edit::Value::from(text).to_string()
}

/// A key of TOML; names of images need no quotes there.
fn quoted_key(name: &str) -> String {
    toml_edit::Key::new(name).to_string()
}
