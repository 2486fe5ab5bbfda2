//! Programs of wheels: those that entry points become, and those that name no interpreter yet.
//!
//! Rule: Python packaging guide, "Entry points specification" and "Binary distribution format", Recommended installer features;
//! written as uv does.

use std::collections::BTreeMap;

use super::error::Refusal;

/// What a script begins with that is for whichever interpreter it is installed for.
pub(super) const PLACEHOLDER: &[u8] = b"#!python";

/// The most bytes of a first line that Linux and others read, with its end.
const LONGEST_LINE: usize = 127;

/// The first line of a script, or the first ones where a program must not be named in one.
pub(super) fn first_line(interpreter: &str) -> String {
    if "#!\n".len() + interpreter.len() <= LONGEST_LINE && !interpreter.contains(' ') {
        return format!("#!{interpreter}\n");
    }
    // A shell and Python each read it as something else.
    let quoted = interpreter.replace('\'', "'\"'\"'");
    format!("#!/bin/sh\n'''exec' '{quoted}' \"$0\" \"$@\"\n' '''\n")
}

/// A function that becomes a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EntryPoint {
    module: String,
    attribute: String,
}

/// The programs that entry points become, by their names.
pub(super) type EntryPoints = BTreeMap<String, EntryPoint>;

/// Reads `entry_points.txt`, for Python 3.`minor`.
pub(super) fn entry_points(text: &str, minor: &str) -> Result<EntryPoints, Refusal> {
    let mut sections = sections(text).map_err(Refusal::Malformed)?;
    let mut points = EntryPoints::new();
    for section in ["console_scripts", "gui_scripts"] {
        let mut of_section = EntryPoints::new();
        for (name, value) in sections.remove(section).unwrap_or_default() {
            let wrong = |why| Refusal::EntryPoint { name: name.clone(), why };
            check_name(&name).map_err(wrong)?;
            let point = EntryPoint::read(&value).ok_or_else(|| wrong("it does not say `module:function`"))?;
            of_section.insert(name, point);
        }
        if section == "console_scripts" {
            name_pip(&mut of_section, minor);
        }
        for (name, point) in of_section {
            if points.contains_key(&name) {
                return Err(Refusal::EntryPoint { name, why: "it is there twice" });
            }
            points.insert(name, point);
        }
    }
    Ok(points)
}

/// The options of a text's sections.
///
/// Rule: Python documentation, `configparser`, Supported INI File Structure; as the entry points specification has it, with `=`
/// alone behind a name.
fn sections(text: &str) -> Result<BTreeMap<String, BTreeMap<String, String>>, &'static str> {
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let mut sections = BTreeMap::<_, BTreeMap<String, String>>::new();
    let mut section: Option<String> = None;
    let mut option: Option<String> = None;
    let mut indent = 0;
    for line in text.split('\n') {
        let stripped = line.trim();
        if stripped.is_empty() || stripped.starts_with(['#', ';']) {
            continue;
        }
        let depth = line.chars().take_while(|next| next.is_whitespace()).count();
        let options = section.as_ref().and_then(|section| sections.get_mut(section));
        if let Some(value) = option.as_ref().filter(|_| depth > indent) {
            let value = options.and_then(|options| options.get_mut(value)).expect("it was begun");
            *value = format!("{value}\n{stripped}");
            continue;
        }
        indent = depth;
        let header = stripped.strip_prefix('[').and_then(|rest| rest.rsplit_once(']'));
        if let Some((header, _)) = header.filter(|(header, _)| !header.is_empty()) {
            // Its options would be those of all others.
            if header == "DEFAULT" {
                return Err("it has a section `DEFAULT`");
            }
            if sections.insert(header.to_owned(), BTreeMap::new()).is_some() {
                return Err("a section is there twice");
            }
            (section, option) = (Some(header.to_owned()), None);
            continue;
        }
        let options = options.ok_or("a line is in no section")?;
        let (name, value) = stripped.split_once('=').ok_or("a line is neither a section nor an option")?;
        let name = name.trim_end();
        if name.is_empty() {
            return Err("an option has no name");
        }
        if options.insert(name.to_owned(), value.trim().to_owned()).is_some() {
            return Err("an option is there twice");
        }
        option = Some(name.to_owned());
    }
    Ok(sections)
}

fn check_name(name: &str) -> Result<(), &'static str> {
    match name {
        "" | "." | ".." => Err("it has no name"),
        name if name.contains(['/', '\\']) => Err("its name has a slash"),
        name if name.chars().any(char::is_control) => Err("its name has control characters"),
        name if name.len() > 255 => Err("its name is too long"),
        _ => Ok(()),
    }
}

/// Names pip for the version of the interpreter, not for the one that its wheel was built with.
fn name_pip(points: &mut EntryPoints, minor: &str) {
    let is_of_a_version =
        |name: &str| name.strip_prefix("pip3.").is_some_and(|minor| minor.parse::<u8>().is_ok());
    points.retain(|name, _| !is_of_a_version(name));
    if let Some(pip) = points.get("pip3").cloned() {
        points.insert(format!("pip3.{minor}"), pip);
    }
}

impl EntryPoint {
    /// Reads `module:function`, and extras behind it that change nothing.
    fn read(value: &str) -> Option<Self> {
        let is_name = |name: &str| {
            let is_part = |next: char| next.is_alphanumeric() || matches!(next, '_' | '-' | '.');
            name.split('.').all(|part| !part.is_empty()) && name.chars().all(is_part)
        };
        let (module, rest) = value.split_once(':')?;
        let (attribute, extras) = match rest.trim_end().strip_suffix(']') {
            Some(rest) => rest.split_once('[').map(|(attribute, extras)| (attribute, Some(extras)))?,
            None => (rest, None),
        };
        let (module, attribute) = (module.trim_end(), attribute.trim());
        let are_extras = |extras: &str| {
            !extras.is_empty()
                && extras.strip_suffix(',').unwrap_or(extras).split(',').all(|extra| !extra.is_empty())
        };
        let is_one = is_name(module) && is_name(attribute) && extras.is_none_or(are_extras);
        is_one.then(|| Self { module: module.to_owned(), attribute: attribute.to_owned() })
    }

    /// The program.
    pub(super) fn program(&self, interpreter: &str) -> String {
        let Self { module, attribute } = self;
        let first = first_line(interpreter);
        let imported = attribute.split('.').next().unwrap_or_default();
        format!(
            r#"{first}# -*- coding: utf-8 -*-
import sys
from {module} import {imported}
if __name__ == "__main__":
    if sys.argv[0].endswith("-script.pyw"):
        sys.argv[0] = sys.argv[0][:-11]
    elif sys.argv[0].endswith(".exe"):
        sys.argv[0] = sys.argv[0][:-4]
    sys.exit({attribute}())
"#
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_name_a_function_of_a_module() {
        for (value, is_one) in [
            ("a:b", true),
            ("a.b : c.d", true),
            ("a:b [x]", true),
            ("a:b[x, y,] ", true),
            ("a", false),
            ("", false),
            (":b", false),
            ("a:", false),
            ("a:b[", false),
            ("a:b[]", false),
            ("a:b[x", false),
            ("a:b;c", false),
            ("a b:c", false),
            ("a:b()", false),
            ("a/b:c", false),
            ("a:b\nimport os", false),
            (".:.", false),
            ("a..b:c", false),
        ] {
            assert_eq!(EntryPoint::read(value).is_some(), is_one, "for `{value}`");
        }
    }

    #[test]
    fn names_are_names_of_files() {
        for name in ["a/b", "../a", "a\\b", "a\tb", "..", "."] {
            let text = format!("[console_scripts]\n{name} = a:b\n");
            assert!(
                matches!(entry_points(&text, "12"), Err(Refusal::EntryPoint { .. })),
                "`{name}` was taken"
            );
        }
    }

    #[test]
    fn texts_are_read_as_uv_reads_them() {
        for (text, names) in [
            ("[console_scripts]\nX = a:b\nx = a:c\n", Some("X x")),
            ("[console_scripts]\n  x = a:b\n", Some("x")),
            ("  [console_scripts]\n  x = a:b\n y = a:b\n", Some("x y")),
            ("[console_scripts]\r\nx\t=\ta:b\t\r\n", Some("x")),
            ("[console_scripts]\rx = a:b\r", Some("x")),
            ("[console_scripts]\nx = a:b [\n  c]\n", Some("x")),
            ("[console_scripts]\nx=a:b\n ; c\n  # d\ny=a:b\n", Some("x y")),
            ("[console_scripts]\nx = a:b\n [gui_scripts]\ny = a:c\n", Some("x y")),
            ("[console_scripts] # c\nx = a:b\n", Some("x")),
            ("[console_scripts]\nx#y = a:b\n", Some("x#y")),
            ("[odd]\nx = 1\n y\n z = 2\n[console_scripts]\nx = a:b\n", Some("x")),
            ("[console_scripts]]\nx=a:b\n", Some("")),
            ("[ console_scripts ]\nx = a:b\n", Some("")),
            ("[Console_Scripts]\nx = a:b\n", Some("")),
            ("", Some("")),
            ("[console_scripts]\nx = a:b ; c\n", None),
            ("[console_scripts]\nx = a:b # c\n", None),
            ("[console_scripts]\nx =\n  a:b\n", None),
            ("[console_scripts]\nx = a:b\n\ty = a:c\n", None),
            ("[console_scripts]\nx = a:b\nx = a:c\n", None),
            ("[console_scripts]\n= a:b\n", None),
            ("[console_scripts]\nx\n", None),
            ("[console_scripts\nx = a:b\n", None),
            ("[]\nx = a:b\n", None),
            ("\u{feff}[console_scripts]\nx = a:b\n", None),
            ("x = a:b\n[console_scripts]\n", None),
            ("[a]\nx=1\n[a]\ny=2\n", None),
            ("[odd]\nx : 1\n", None),
        ] {
            let read = entry_points(text, "12").ok();
            let read = read.map(|points| points.into_keys().collect::<Vec<_>>().join(" "));
            assert_eq!(read.as_deref(), names, "for {text:?}");
        }
    }

    #[test]
    fn pip_has_the_version_of_the_interpreter() {
        let text = "[console_scripts]\npip = a:b\npip3 = a:b\npip3.9 = a:b\npip3.x = a:b\n[gui_scripts]\nG = a:b\n[other]\nx = y\n";
        let names: Vec<_> = entry_points(text, "12").unwrap().into_keys().collect();
        assert_eq!(names, ["G", "pip", "pip3", "pip3.12", "pip3.x"]);
    }

    #[test]
    fn a_long_line_is_left_to_a_shell() {
        let long = "x".repeat(125);
        for (interpreter, line) in [
            ("/opt/venv/bin/python", "#!/opt/venv/bin/python\n".to_owned()),
            ("/a b/python", "#!/bin/sh\n'''exec' '/a b/python' \"$0\" \"$@\"\n' '''\n".to_owned()),
            (&long[..124], format!("#!{}\n", &long[..124])),
            (&long, format!("#!/bin/sh\n'''exec' '{long}' \"$0\" \"$@\"\n' '''\n")),
        ] {
            assert_eq!(first_line(interpreter), line);
        }
    }
}
