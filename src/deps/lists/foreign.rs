//! Lists of other tools, and texts that are no list at all.

use super::form::{is_poetry_line, is_project_table};
use super::script;
use crate::diagnostic::Diagnostic;

/// What gives a text away.
struct Sign {
    /// Beginnings of a line.
    lines: &'static [&'static str],
    /// Whether that line must be the first that says something.
    first: bool,
    what: &'static str,
    why: &'static str,
    advice: &'static str,
}

const SIGNS: [Sign; 10] = [
    Sign {
        lines: &["<<<<<<< ", ">>>>>>> "],
        first: false,
        what: "this list holds a merge that is not finished",
        why: "git left its marks here",
        advice: "keep one side, and remove the marks",
    },
    Sign {
        lines: &["from setuptools import", "from distutils", "import setuptools", "setup("],
        first: true,
        what: "this is a `setup.py`",
        why: "it is a program, not a list",
        advice: "copy the entries of `install_requires` to a list of their own, with commas between them",
    },
    Sign {
        lines: &["[packages]", "[dev-packages]", "[requires]"],
        first: false,
        what: "this is a `Pipfile`",
        why: "its tables are read by pipenv alone",
        advice: "copy the lines below `[packages]` to a list of their own",
    },
    Sign {
        lines: &["[dependencies]"],
        first: false,
        what: "a list of dependencies has no tables",
        why: "the lines below are enough",
        advice: "remove `[dependencies]`, or write `[tool.poetry.dependencies]`",
    },
    Sign {
        lines: &["```"],
        first: true,
        what: "this list stands in a fence of Markdown",
        why: "the lines inside are enough",
        advice: "remove the fence",
    },
    Sign {
        lines: &[
            "pip install ",
            "pip3 install ",
            "python -m pip install",
            "poetry add ",
            "uv add ",
            "uv pip install ",
        ],
        first: false,
        what: "this is a command, not a list",
        why: "expected the names of distributions",
        advice: "write one requirement per line, such as `numpy>=2`",
    },
    Sign {
        lines: &["[\"", "['", "[ \"", "[{", "{\"", "[\n", "{\n"],
        first: true,
        what: "this is JSON, not a list of dependencies",
        why: "expected entries without brackets around them",
        advice: "remove the brackets; quoted requirements with commas between them are enough",
    },
    Sign {
        lines: &["install_requires"],
        first: false,
        what: "this is a part of a `setup.py`",
        why: "expected the entries alone",
        advice: "keep what is between the brackets",
    },
    Sign {
        lines: &["dependencies:", "channels:"],
        first: false,
        what: "this is an environment of conda",
        why: "conda's packages are not those of the Python package index",
        advice: "write the distributions' names on the index, one requirement per line",
    },
    Sign {
        lines: &["import ", "from ", "#!"],
        first: true,
        what: "this is a script without metadata",
        why: "expected a block that begins with `# /// script`",
        advice: "begin it with `# /// script`, `# dependencies = [\"…\"]` and `# ///`",
    },
];

/// Whether a line is `name=version=build`.
fn is_conda_export(line: &str) -> bool {
    let is_word = |word: &str| {
        !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-+!".contains(&byte))
    };
    let parts: Vec<&str> = line.split('=').collect();
    line == "@EXPLICIT" || parts.len() == 3 && parts.into_iter().all(is_word)
}

/// What is wrong with a text that is no list of ours. One that begins as Poetry's lines do, or has a table
/// of a project or a script's metadata, is ours whatever follows.
pub(in crate::deps) fn refusal(text: &str) -> Option<Diagnostic> {
    let mut start = 0;
    let mut first = true;
    for raw in text.split_inclusive('\n') {
        let line = raw.trim_start();
        let at = start + raw.len() - line.len();
        start += raw.len();
        let written = line.trim_end();
        if written == script::START || is_project_table(written) {
            return None;
        }
        if written.is_empty() || written.starts_with('#') {
            continue;
        }
        // One of conda's environments may begin with its name.
        if first && line.starts_with("name:") {
            continue;
        }
        if first && is_conda_export(written) {
            return Some(
                Diagnostic::new("this is an export of conda")
                    .at(at..at + written.len())
                    .why("conda's packages are not those of the Python package index, and neither are its builds")
                    .advice("write the distributions' names on the index, such as `numpy==2.2.0`"),
            );
        }
        // A distribution may be called `from` or `import`.
        let is_entry = is_poetry_line(written);
        let is_named = is_entry && written.starts_with(|letter: char| letter.is_ascii_alphanumeric());
        let sign = SIGNS.iter().find(|sign| {
            (!sign.first || first && !is_named)
                && sign.lines.iter().any(|beginning| line.starts_with(beginning))
        });
        if let Some(Sign { what, why, advice, .. }) = sign {
            return Some(Diagnostic::new(*what).at(at..at + written.len()).why(*why).advice(*advice));
        }
        if std::mem::take(&mut first) && is_entry {
            return None;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_python_may_name_an_entry() {
        for list in ["from = \"*\"\n", "import = { version = \"1\" }\nnumpy = \"2\"\n", "from ^1\n"] {
            assert!(refusal(list).is_none(), "{list}");
        }
        for script in ["from x import y\nz = 1\n", "import numpy\n", "import a, b\n"] {
            assert!(refusal(script).is_some(), "{script}");
        }
    }
}
