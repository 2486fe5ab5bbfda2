//! What was published: for programs as JSON, and for people as pages in Markdown.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;
use serde_json::Value;

use crate::freshness::Change;
use crate::inside::Inside;
use crate::platform::Platform;
use crate::reference::Reference;
use crate::report::size;

/// What `publish.json` is; counted up where that changes.
const VERSION: u32 = 1;

/// Characters of a digest that people are shown, behind `sha256:`.
const SHORT: usize = 12;

/// What one run published.
#[derive(Debug, Serialize)]
pub struct Record {
    version: u32,
    ipybox: &'static str,
    /// The images, in the order in which they are built.
    pub images: Vec<Recorded>,
}

/// One image of the fleet.
#[derive(Debug, Serialize)]
pub struct Recorded {
    /// The name of its table, and which of its matrix.
    pub image: String,
    /// Where it is, as `REGISTRY/REPOSITORY`.
    pub repository: String,
    /// What its tags name: the manifest of the image, or an index of several platforms.
    pub digest: String,
    /// Its tags; none, where another machine moves them.
    pub tags: Vec<TagMoved>,
    /// What is said in the registry about an index of several platforms.
    pub about: Vec<About>,
    /// The image for each platform.
    pub platforms: Vec<Part>,
}

/// What became of a tag.
#[derive(Debug, Serialize)]
pub struct TagMoved {
    /// Its whole name.
    pub name: Reference,
    /// What it named before.
    pub before: Option<String>,
}

/// An image for one platform.
#[derive(Debug, Serialize)]
pub struct Part {
    /// What it runs on, where that is known.
    pub platform: Option<Platform>,
    /// The digest of its manifest.
    pub digest: String,
    /// The digest of its configuration, by which engines know it.
    pub config: String,
    /// Bytes that a registry holds of it.
    pub bytes: u64,
    /// Bytes of blobs that were sent.
    pub sent: u64,
    /// How this run has proved that it runs, where it has.
    pub verified: Option<String>,
    /// What is said about it in the registry.
    pub about: Vec<About>,
    /// Its Python packages and their versions; of what others have pushed as its bill says, and nothing where nobody asks.
    pub packages: BTreeMap<String, String>,
    /// What is inside; nothing, where it was there already and nobody asks.
    pub inside: Option<Inside>,
    /// What it was built from otherwise than the one before, with what follows from what.
    pub changes: Vec<Change>,
}

/// Something that is said about an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct About {
    /// What it is, as a media type.
    pub artifact_type: String,
    /// The digest of its manifest.
    pub digest: String,
}

impl Record {
    /// What one run published.
    #[must_use]
    pub fn new(images: Vec<Recorded>) -> Self {
        Self { version: VERSION, ipybox: env!("CARGO_PKG_VERSION"), images }
    }

    /// Whether a record that is there says of all these images where they are, and what they are called.
    #[must_use]
    pub fn is_told_by(&self, text: &str) -> bool {
        let told: Value = serde_json::from_str(text).unwrap_or_default();
        let is_told = |image: &Recorded| {
            let known = told["images"].as_array().into_iter().flatten();
            let mut known = known.filter(|known| known["image"] == image.image.as_str());
            known.any(|known| {
                let names = |tag: &TagMoved| {
                    let mut tags = known["tags"].as_array().into_iter().flatten();
                    tags.any(|known| known["name"] == tag.name.to_string())
                };
                known["repository"] == image.repository.as_str()
                    && known["digest"] == image.digest.as_str()
                    && image.tags.iter().all(names)
            })
        };
        self.images.iter().all(is_told)
    }
}

impl Recorded {
    /// Whether a page that is there says where it is, and what it is called.
    #[must_use]
    pub fn is_told_by(&self, text: &str) -> bool {
        text.starts_with(&head(self))
    }
}

impl TagMoved {
    /// Whether it names something else now.
    #[must_use]
    pub fn is_moved(&self, digest: &str) -> bool {
        self.before.as_deref() != Some(digest)
    }
}

/// The first characters of a digest.
fn short(digest: &str) -> &str {
    let digits = digest.split_once(':').map_or(digest, |(_, digits)| digits);
    &digits[..digits.len().min(SHORT)]
}

/// A text that is nothing but text in Markdown, in one line.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for next in text.chars() {
        match next {
            next if next.is_control() => plain.push(' '),
            '\\' | '`' | '*' | '_' | '{' | '}' | '[' | ']' | '<' | '>' | '(' | ')' | '#' | '|' | '!'
            | '&' | '~' => {
                plain.push('\\');
                plain.push(next);
            }
            next => plain.push(next),
        }
    }
    plain
}

/// A text as code in Markdown, also in a table.
fn code(text: &str) -> String {
    let clean: String = text.chars().filter(|next| !next.is_control() && *next != '`').collect();
    format!("`{}`", clean.replace('|', "\\|"))
}

/// A table of what was published, in Markdown.
#[must_use]
pub fn summary(record: &Record) -> String {
    let mut text = "| image | tags | digest | size | sent |\n|---|---|---|---:|---:|\n".to_owned();
    for image in &record.images {
        let tags: Vec<String> = image.tags.iter().map(|tag| code(&tag.name.to_string())).collect();
        let (bytes, sent) =
            image.platforms.iter().fold((0, 0), |(bytes, sent), part| (bytes + part.bytes, sent + part.sent));
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} |",
            code(&image.image),
            tags.join("<br>"),
            code(short(&image.digest)),
            size(bytes),
            if sent == 0 { "nothing".to_owned() } else { size(sent) },
        );
    }
    text
}

/// The page of an image, in Markdown: what it is called, what it has, how it was proved, and what changed.
#[must_use]
pub fn page(image: &Recorded) -> String {
    let mut text = head(image);
    for part in &image.platforms {
        of_part(&mut text, part, image.platforms.len() > 1);
    }
    text
}

/// What it is called, and what that names.
fn head(image: &Recorded) -> String {
    let mut text = format!("# {}\n\n", plain(&image.image));
    let _ = writeln!(text, "| | |\n|---|---|");
    let tags: Vec<String> = image.tags.iter().map(|tag| code(&tag.name.to_string())).collect();
    let _ = writeln!(text, "| tags | {} |", tags.join("<br>"));
    let _ = writeln!(text, "| digest | {} |", code(&image.digest));
    text
}

fn of_part(text: &mut String, part: &Part, is_one_of_several: bool) {
    match &part.platform {
        Some(platform) if is_one_of_several => {
            let _ = writeln!(text, "\n## {platform}\n\n| | |\n|---|---|");
            let _ = writeln!(text, "| digest | {} |", code(&part.digest));
        }
        Some(platform) => {
            let _ = writeln!(text, "| platform | {platform} |");
        }
        None => {}
    }
    let _ = writeln!(text, "| in the registry | {} |", size(part.bytes));
    if let Some(inside) = &part.inside {
        let _ = writeln!(text, "| unpacked | {} |", size(inside.bytes));
        let _ = writeln!(text, "| Python | {} |", plain(&inside.python));
        if let Some(base) = &inside.base {
            let _ = writeln!(text, "| base | {} |", code(base));
        }
        if let Some(variant) = &inside.variant {
            let _ = writeln!(text, "| variant | {} |", code(variant));
        }
        let locked = if inside.locked { "by a lock" } else { "at the time of the build" };
        let _ = writeln!(text, "| versions | {locked} |");
    }
    let verified = part.verified.as_deref().unwrap_or("not by this run");
    let _ = writeln!(text, "| verified | {} |", plain(verified));
    for about in &part.about {
        let _ = writeln!(text, "| {} | {} |", code(&about.artifact_type), code(&about.digest));
    }
    if !part.changes.is_empty() {
        let _ = writeln!(text, "\n### Changed\n");
        for change in &part.changes {
            let _ = writeln!(text, "{}- {}", if change.follows { "  " } else { "" }, plain(&change.what));
        }
    }
    let Some(inside) = &part.inside else {
        if !part.packages.is_empty() {
            let _ = writeln!(text, "\n### Packages\n\nAs its unsigned bill of materials says.\n");
            let _ = writeln!(text, "| package | version |\n|---|---|");
        }
        for (name, version) in &part.packages {
            let _ = writeln!(text, "| {} | {} |", plain(name), plain(version));
        }
        return;
    };
    let _ = writeln!(text, "\n### Packages\n\n| package | version | unpacked |\n|---|---|---:|");
    for (name, package) in &inside.packages {
        let _ = writeln!(
            text,
            "| {} | {} | {} |",
            plain(name.as_str()),
            plain(&package.version),
            size(package.bytes)
        );
    }
    if !inside.debian.is_empty() {
        let _ = writeln!(text, "\n### Debian packages\n\n| package | version |\n|---|---|");
        for (name, package) in &inside.debian {
            let _ = writeln!(text, "| {} | {} |", plain(name), plain(&package.version));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn recorded() -> Recorded {
        let change = |what: &str, follows| Change {
            path: "packages".to_owned(),
            what: what.to_owned(),
            follows,
            entry: None,
        };
        let part = Part {
            platform: Some("linux/amd64".parse().unwrap()),
            digest: format!("sha256:{}", "0a".repeat(32)),
            config: format!("sha256:{}", "0b".repeat(32)),
            bytes: 12_000_000,
            sent: 3_000_000,
            verified: Some("by 24 checks".to_owned()),
            about: vec![About {
                artifact_type: "application/vnd.cyclonedx+json".to_owned(),
                digest: format!("sha256:{}", "0c".repeat(32)),
            }],
            packages: BTreeMap::from([("six".to_owned(), "1.17.0".to_owned())]),
            inside: None,
            changes: vec![change("the list asks for `six`", false), change("so it has `six`", true)],
        };
        Recorded {
            image: "minimal".to_owned(),
            repository: "registry.example/team/minimal".to_owned(),
            digest: part.digest.clone(),
            tags: vec![TagMoved {
                name: "registry.example/team/minimal:latest".parse().unwrap(),
                before: None,
            }],
            about: Vec::new(),
            platforms: vec![part],
        }
    }

    #[test]
    fn a_page_tells_what_people_ask() {
        insta::assert_snapshot!(page(&recorded()));
        let record = Record::new(vec![recorded()]);
        insta::assert_snapshot!(summary(&record));
        insta::assert_snapshot!(format!("{:#}", serde_json::json!(record)));
    }

    #[test]
    fn what_was_written_before_counts_where_it_is_still_so() {
        let (record, text) =
            (Record::new(vec![recorded()]), serde_json::json!(Record::new(vec![recorded()])));
        assert!(record.is_told_by(&text.to_string()) && recorded().is_told_by(&page(&recorded())));
        let more = TagMoved { name: "registry.example/team/minimal:1".parse().unwrap(), before: None };
        let before = Some(recorded().digest);
        for other in [
            Recorded { digest: format!("sha256:{}", "0d".repeat(32)), ..recorded() },
            Recorded { tags: vec![more, TagMoved { before, ..recorded().tags.remove(0) }], ..recorded() },
        ] {
            assert!(!other.is_told_by(&page(&recorded())));
            let other = Record::new(vec![other]);
            assert!(!other.is_told_by(&text.to_string()) && !other.is_told_by(""));
        }
        let moved = Recorded { repository: "other.example/team/minimal".to_owned(), ..recorded() };
        assert!(!Record::new(vec![moved]).is_told_by(&text.to_string()));
        // One of more images says it of each.
        let both = Record::new(vec![Recorded { image: "other".to_owned(), ..recorded() }, recorded()]);
        assert!(record.is_told_by(&serde_json::json!(both).to_string()));
        assert!(!both.is_told_by(&text.to_string()));
    }

    proptest! {
        #[test]
        fn what_an_image_says_is_text_in_a_page(text in ".{0,40}") {
            let shown = plain(&text);
            prop_assert!(!shown.contains('\n'));
            let mut before = ' ';
            for next in shown.chars() {
                prop_assert!(!matches!(next, '<' | '|' | '[' | '`') || before == '\\', "{shown}");
                before = if before == '\\' { ' ' } else { next };
            }
            prop_assert!(!code(&text)[1..code(&text).len() - 1].contains('`'));
        }
    }
}
