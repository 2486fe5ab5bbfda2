//! Python scripts with inline metadata.

use super::{Parsed, project};
use crate::diagnostic::Diagnostic;

/// The line that begins the metadata.
///
/// Rule: PEP 723, "script" blocks: comment lines up to one that is `# ///`.
pub(in crate::deps) const START: &str = "# /// script";

/// Reads the metadata of a script.
pub(in crate::deps) fn parse(text: &str, parsed: &mut Parsed) {
    let Some(metadata) = metadata(text, parsed) else { return };
    project::parse_script(&metadata, parsed);
}

/// The TOML of a script's metadata, with every byte where it is in the script: `#` in front of a
/// line, and everything outside, is blank.
fn metadata(text: &str, parsed: &mut Parsed) -> Option<String> {
    let mut blank = String::with_capacity(text.len());
    let mut block = None;
    let mut indented = 0..0;
    let mut found: Option<std::ops::Range<usize>> = None;
    for raw in text.split_inclusive('\n') {
        let start = blank.len();
        let line = raw.trim_end();
        let content = match block {
            None if line != START && line.trim_start() == START && indented.is_empty() => {
                indented = start + line.len() - START.len()..start + line.len();
                ""
            }
            None if line == START => {
                if found.is_some() {
                    return parsed.refuse(
                        Diagnostic::new("the script has two blocks of metadata")
                            .at(start..start + line.len())
                            .why("the first one is above")
                            .advice("keep one"),
                    );
                }
                (block, found) = (Some(start), Some(start..start + line.len()));
                ""
            }
            Some(_) if line == "# ///" => {
                block = None;
                ""
            }
            Some(_) if line == "#" => "",
            Some(_) if line.starts_with("# ") => &raw[1..],
            Some(_) if line.starts_with('#') => {
                return parsed.refuse(
                    Diagnostic::new("a line of the script's metadata has no blank behind `#`")
                        .at(start..start + 1)
                        .why("expected `# ` in front of every line")
                        .replace("# "),
                );
            }
            Some(_) => {
                return parsed.refuse(
                    Diagnostic::new("the script's metadata has no end")
                        .at(found.unwrap_or_default())
                        .why("expected comment lines up to one that is `# ///`")
                        .advice("write `# ///` behind the metadata"),
                );
            }
            None => "",
        };
        let hidden = raw.len() - content.len();
        blank.extend(raw[..hidden].bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }));
        blank.push_str(content);
    }
    match (block, found) {
        (Some(_), at) => parsed.refuse(
            Diagnostic::new("the script's metadata has no end")
                .at(at.unwrap_or_default())
                .why("expected comment lines up to one that is `# ///`")
                .advice("write `# ///` behind the metadata"),
        ),
        (None, None) => parsed.refuse(
            Diagnostic::new("the script's metadata is indented")
                .at(indented)
                .why("only lines that begin with `#` are metadata")
                .advice("move the block to the beginning of its lines"),
        ),
        (None, Some(_)) => Some(blank),
    }
}
