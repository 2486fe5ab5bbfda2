//! Distributions, as `importlib.metadata` finds them.

use std::collections::HashSet;
use std::io::Read;

use super::{Contents, MOST_TEXT, keep};
use crate::base::Distribution;
use crate::stored::{File, Refusal, StoredError};

/// What is read of a distribution.
#[derive(Debug, Default, Clone)]
struct Described {
    /// The first of its files that describe it and are not empty.
    described: Option<Description>,
    installer: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Description {
    Understood(Metadata),
    /// It is no text.
    Nonsense,
}

/// The fields of a distribution's metadata that count here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Metadata {
    name: Option<String>,
    version: Option<String>,
    requires: Vec<String>,
    extras: Vec<String>,
}

/// The files that describe a distribution, those before others that count where both are there.
const DESCRIPTIONS: [&str; 3] = ["METADATA", "PKG-INFO", ""];

const INSTALLER: &str = "INSTALLER";

/// Installers that are the system's own.
const OF_SYSTEM: [&str; 3] = ["debian", "rpm", "apk"];

/// The distributions on each of these lists of folders. Of several of one name the first counts.
pub(super) fn distributions(
    contents: &mut Contents<'_>,
    paths: &[Vec<String>],
) -> Result<Vec<Vec<Distribution>>, StoredError> {
    let files = contents.files;
    let mut folders: Vec<&String> = paths.iter().flatten().collect();
    folders.sort();
    folders.dedup();
    // Each by its folder.
    let mut found: Vec<(&str, Described)> = Vec::new();
    let mut wanted = Vec::new();
    for folder in folders {
        let names = files.find(folder).into_iter().flat_map(File::names);
        for name in names.filter(|name| is_distribution(folder, name)) {
            for (rank, file) in DESCRIPTIONS.iter().chain([&INSTALLER]).enumerate() {
                let path = format!("{folder}/{name}/{file}");
                if let Some(file) = files.find(path.trim_end_matches('/')).filter(|file| file.is_file()) {
                    wanted.push((found.len(), rank, file));
                }
            }
            found.push((folder, Described::default()));
        }
    }
    let mut descriptions: Vec<[Option<Description>; DESCRIPTIONS.len()]> =
        vec![const { [None, None, None] }; found.len()];
    let numbered = wanted.iter().enumerate().map(|(index, (_, _, file))| (index, *file));
    let kept = &mut contents.kept;
    files.visit(numbered, |indexes, content| {
        let mut bytes = Vec::new();
        content.take(MOST_TEXT).read_to_end(&mut bytes)?;
        for index in indexes {
            let (number, rank, _) = wanted[*index];
            match descriptions[number].get_mut(rank) {
                Some(_) if bytes.is_empty() => {}
                Some(description) => {
                    let metadata = std::str::from_utf8(&bytes).map(Metadata::parse);
                    let size = metadata.as_ref().map_or(0, Metadata::size);
                    keep(kept, size)?;
                    *description = Some(metadata.map_or(Description::Nonsense, Description::Understood));
                }
                None => {
                    let installer = String::from_utf8_lossy(&bytes);
                    // Whoever has a longer name is none of the system's.
                    found[number].1.installer = installer.trim().chars().take(99).collect();
                }
            }
        }
        Ok(())
    })?;
    for ((_, read), described) in found.iter_mut().zip(descriptions) {
        read.described = described.into_iter().flatten().next();
    }
    let mut all = Vec::new();
    for path in paths {
        all.push(first_of_each_name(path, &found, kept).map_err(|refusal| files.refuse(refusal))?);
    }
    Ok(all)
}

/// Whether a file of a folder describes a distribution.
fn is_distribution(folder: &str, name: &str) -> bool {
    let name = name.to_lowercase();
    let is_egg = || folder.to_lowercase().ends_with(".egg");
    name.ends_with(".dist-info") || name.ends_with(".egg-info") || name == "egg-info" && is_egg()
}

fn first_of_each_name(
    path: &[String],
    found: &[(&str, Described)],
    kept: &mut usize,
) -> Result<Vec<Distribution>, Refusal> {
    let mut names = HashSet::new();
    let mut distributions = Vec::new();
    for folder in path {
        let start = found.partition_point(|(other, _)| *other < folder.as_str());
        for (_, read) in found[start..].iter().take_while(|(other, _)| other == folder) {
            let Some(Description::Understood(metadata)) = &read.described else { continue };
            let (Some(name), Some(version)) = (&metadata.name, &metadata.version) else { continue };
            if !normal(name).is_empty() && names.insert(normal(name)) {
                keep(kept, metadata.size())?;
                let is_systems =
                    || ["/usr/lib/python3", "/usr/lib64/python3"].iter().any(|of| folder.starts_with(of));
                distributions.push(Distribution {
                    name: name.clone(),
                    version: version.clone(),
                    requires: metadata.requires.clone(),
                    extras: metadata.extras.clone(),
                    of_system: OF_SYSTEM.contains(&read.installer.as_str())
                        || read.installer.is_empty() && is_systems(),
                });
            }
        }
    }
    Ok(distributions)
}

/// A distribution's name as it is compared.
///
/// Rule: Python packaging, "Names and normalization".
fn normal(name: &str) -> String {
    let mut normal = String::new();
    for character in name.chars() {
        if !matches!(character, '-' | '_' | '.') {
            normal.extend(character.to_lowercase());
        } else if !normal.ends_with('-') {
            normal.push('-');
        }
    }
    normal
}

impl Metadata {
    /// Reads the header of a text as Python's `email` does.
    fn parse(text: &str) -> Self {
        let text = text.replace("\r\n", "\n").replace('\r', "\n");
        let mut fields: Vec<(String, String)> = Vec::new();
        let mut is_continued = false;
        for (number, line) in text.split_inclusive('\n').enumerate() {
            if line.starts_with([' ', '\t']) {
                if let Some((_, value)) = fields.last_mut().filter(|_| is_continued) {
                    value.push_str(line);
                }
                continue;
            }
            let is_name = |name: &str| name.bytes().all(|byte| matches!(byte, 0x21..=0x7e));
            match line.split_once(':') {
                _ if line.starts_with("From ") => is_continued &= number > 0,
                Some(("", _)) => is_continued = false,
                Some((name, value)) if is_name(name) => {
                    fields.push((name.to_lowercase(), value.trim_start_matches([' ', '\t']).to_owned()));
                    is_continued = true;
                }
                _ => break,
            }
        }
        let mut metadata = Self::default();
        for (name, value) in fields {
            let value = without_indent(value.trim_end_matches(['\r', '\n']));
            match name.as_str() {
                "name" => drop(metadata.name.get_or_insert(value)),
                "version" => drop(metadata.version.get_or_insert(value)),
                "requires-dist" => metadata.requires.push(value),
                "provides-extra" => metadata.extras.push(value),
                _ => {}
            }
        }
        metadata
    }

    /// How much it takes, in bytes.
    fn size(&self) -> usize {
        let texts = self.name.iter().chain(&self.version).chain(&self.requires).chain(&self.extras);
        texts.map(|text| text.len() + size_of::<String>()).sum()
    }
}

/// A value whose further lines are indented, as `importlib.metadata` tells it.
fn without_indent(value: &str) -> String {
    if !value.contains('\n') {
        return value.to_owned();
    }
    let value = format!("{:8}{value}", "");
    let indent = |line: &&str| line.len() - line.trim_start_matches(' ').len();
    let least = value.lines().filter(|line| !line.trim().is_empty()).map(|line| indent(&line)).min();
    let lines = value.lines().map(|line| line.get(least.unwrap_or_default()..).unwrap_or_default());
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn metadata_is_read_as_python_reads_mail() {
        let parsed = |text: &str| Metadata::parse(text);
        let metadata = parsed(
            "Metadata-Version: 2.1\r\nNAME:  A.b\r\nVersion: 1.0 \nName: other\nRequires-Dist: x>1\nRequires-Dist:\ty; extra == 'z'\n\
             Provides-Extra: z\nSummary: a\n  b\n c: d\n\nName: not this\nRequires-Dist: nor this\n",
        );
        assert_eq!(metadata.name.as_deref(), Some("A.b"));
        assert_eq!(metadata.version.as_deref(), Some("1.0 "));
        assert_eq!(metadata.requires, ["x>1", "y; extra == 'z'"]);
        assert_eq!(metadata.extras, ["z"]);
        // What is no field ends the header.
        assert_eq!(parsed("Name: a\nno field\nVersion: 1\n").version, None);
        assert_eq!(parsed("\nName: a\n").name, None);
        assert_eq!(parsed("Name: a\n: x\n y\nVersion: 1").version.as_deref(), Some("1"));
        assert_eq!(parsed("Requires-Dist: a\n        ; b\n").requires, ["a\n; b"]);
        assert_eq!(normal("A__b.-c"), "a-b-c");
        assert!(is_distribution("/x", "a-1.dist-info") && is_distribution("/x", "A.EGG-INFO"));
        assert!(is_distribution("/x/a.egg", "EGG-INFO") && !is_distribution("/x", "EGG-INFO"));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "((Name|Version|Requires-Dist|From|€)?[: \t]?[a-z€ ]{0,3}[\r\n]{0,2}){0,20}") {
            Metadata::parse(&text);
        }
    }
}
