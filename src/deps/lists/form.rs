//! Tells the forms of dependency lists apart by their content.

use std::path::Path;

use super::{Parsed, Selection, Spec, Surroundings, name, poetry, project, quoted, requirements, script};
use crate::diagnostic::{Diagnostic, Document};

/// A form that dependency lists are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Poetry's lines: `numpy = "^2.2"`.
    Poetry,
    /// Quoted PEP 508 requirements with commas between them.
    Quoted,
    /// pip's requirements file.
    Requirements,
    /// `pyproject.toml`.
    Project,
    /// A Python script with inline metadata (PEP 723).
    Script,
}

impl Form {
    /// The form of a text. A script has a block `# /// script`, a project a table of its own, and a
    /// quoted list begins with a quote; of the two forms of lines, it is the one that more lines
    /// look like, and Poetry's where there is none.
    #[must_use]
    pub fn of(text: &str) -> Self {
        let mut poetry_lines = 0_usize;
        let mut requirement_lines = 0_usize;
        let mut first = true;
        let mut quoted = false;
        let mut has_options = false;
        for line in text.lines().map(str::trim_ascii) {
            if line == script::START {
                return Self::Script;
            }
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if is_project_table(line) {
                return Self::Project;
            }
            if std::mem::take(&mut first) {
                quoted = is_quoted_requirement(line);
            }
            // No other form has options.
            if line.starts_with("--") || line.starts_with("-r ") || line.starts_with("-e ") {
                has_options = true;
            }
            match looks_like(line) {
                Some(Self::Poetry) => poetry_lines += 1,
                Some(_) => requirement_lines += 1,
                None => {}
            }
        }
        if quoted {
            Self::Quoted
        } else if has_options || requirement_lines > poetry_lines {
            Self::Requirements
        } else {
            Self::Poetry
        }
    }

    /// Reads a list of this form that names nothing outside itself.
    ///
    /// # Errors
    ///
    /// Every mistake of the text, in the order of their places; of very many, the first.
    pub fn read(self, text: &str) -> Result<Spec, Vec<Diagnostic>> {
        let document = Document::new("", text);
        Spec::read_as(Some(self), &mut document.into(), &Selection::default(), Surroundings::none())
    }

    pub(in crate::deps) fn parse(
        self,
        text: &str,
        folder: &Path,
        selection: &Selection,
        surroundings: Surroundings<'_>,
        parsed: &mut Parsed,
    ) {
        match self {
            Self::Poetry => poetry::parse(text, parsed),
            Self::Quoted => quoted::parse(text, parsed),
            Self::Requirements => requirements::parse(text, folder, surroundings, parsed),
            Self::Project => project::parse(text, selection, parsed),
            Self::Script => script::parse(text, parsed),
        }
    }
}

/// Whether a line is the header of a table that `pyproject.toml` has.
pub(in crate::deps) fn is_project_table(line: &str) -> bool {
    let Some(header) = line.strip_prefix('[') else { return false };
    let name = header.trim_start_matches('[').trim_start();
    ["project]", "project.", "build-system]", "dependency-groups]", "tool."]
        .iter()
        .any(|table| name.starts_with(table))
}

/// Whether a line begins with a quoted requirement: a string that no `=` or `.` follows, as one
/// would follow a quoted key of TOML.
fn is_quoted_requirement(line: &str) -> bool {
    let Some(quote @ ('"' | '\'')) = line.chars().next() else { return false };
    match line[1..].find(quote) {
        Some(end) => !line[end + 2..].trim_start().starts_with(['=', '.', ':']),
        None => !line.contains(" = "),
    }
}

/// Whether a line can only be one of Poetry's.
pub(in crate::deps) fn is_poetry_line(line: &str) -> bool {
    looks_like(line) == Some(Form::Poetry)
}

/// The form of lines that one line belongs to, where it can be told.
fn looks_like(line: &str) -> Option<Form> {
    if line.starts_with(['-', '.', '/']) {
        return Some(Form::Requirements);
    }
    if line.starts_with(['"', '\'', '{', '[', ']', '}']) {
        return Some(Form::Poetry);
    }
    let (name, rest) = name::split(line);
    match rest.as_bytes() {
        _ if name.is_empty() => None,
        [b'=', b'=' | b'>' | b'<', rest @ ..] if !rest.trim_ascii_start().starts_with(b"\"") => {
            Some(Form::Requirements)
        }
        [b'=' | b'^', ..] => Some(Form::Poetry),
        [b':', rest @ ..] if !rest.starts_with(b"//") => Some(Form::Poetry),
        [b'~', next, ..] if *next != b'=' => None,
        _ => Some(Form::Requirements),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_told_by_content() {
        for (text, form) in [
            ("", Form::Poetry),
            ("# nothing\n", Form::Poetry),
            ("numpy = \"^2\"\n", Form::Poetry),
            ("numpy = \"^2\"\nrequests==2\nscipy = \"1\"\n", Form::Poetry),
            ("numpy ^2", Form::Poetry),
            ("numpy = [\n  {version = \"1\"},\n]\n", Form::Poetry),
            ("\"numpy\" = \"1\"", Form::Poetry),
            ("\"numpy>=2\",\n", Form::Quoted),
            ("numpy\n", Form::Requirements),
            ("numpy==2.2\npandas\nscipy = \"1\"\n", Form::Requirements),
            ("-r base.txt", Form::Requirements),
            ("https://host.invalid/a.whl", Form::Requirements),
            ("git+https://host.invalid/a", Form::Requirements),
            ("rich[jupyter]>=13", Form::Requirements),
            ("# x\n[project]\nname = \"a\"\n", Form::Project),
            ("[tool.poetry.dependencies]\nnumpy = \"1\"\n", Form::Project),
            ("[[tool.poetry.source]]\n", Form::Project),
            ("# /// script\n# dependencies = []\n# ///\nprint()\n", Form::Script),
        ] {
            assert_eq!(Form::of(text), form, "for {text:?}");
        }
    }
}
