//! Values of keys, each with what is wrong with it.

use std::ops::Range;
use std::path::{Path, PathBuf};

use super::keys::Key;
use crate::deps::value::{Table, Value};
use crate::deps::{in_backticks, nearest};
use crate::diagnostic::{Diagnostic, Fix};

/// A text, and where it is.
pub(super) type Placed<'v> = (&'v str, Range<usize>);

/// What is read, and what is wrong with it so far.
pub(super) struct Reader<'a> {
    /// Where paths begin.
    pub(super) folder: &'a Path,
    pub(super) mistakes: Vec<Diagnostic>,
}

impl Reader<'_> {
    pub(super) fn refuse(&mut self, mistake: Diagnostic) {
        self.mistakes.push(mistake);
    }

    /// Refuses the keys that a table does not have.
    pub(super) fn known(&mut self, table: &Table<'_>, owner: &str, keys: &[Key]) {
        let names = || keys.iter().map(|(name, ..)| *name);
        for (key, _) in table.entries() {
            if names().any(|name| name == key.name) {
                continue;
            }
            let what = format!("{owner} has no key `{}`", key.name.escape_debug());
            let what = Diagnostic::new(what).at(key.at.clone());
            let known = in_backticks(names());
            self.refuse(match nearest(&key.name, names()) {
                Some(near) => what.why("it is none of those there are").replace(near),
                None => what.why(format!("there are {known}")).advice("correct the key, or leave it out"),
            });
        }
    }

    fn wrong_kind(&mut self, key: &str, value: &Value<'_>, expected: &str, fix: Fix) {
        let what = Diagnostic::new(format!("`{key}` has a value of the wrong kind"));
        let mistake = what.at(value.at.clone()).why(format!("expected {expected}, found {}", value.kind()));
        self.refuse(Diagnostic { fix: Some(fix), ..mistake });
    }

    pub(super) fn text<'v>(&mut self, table: &'v Table<'_>, key: &str) -> Option<Placed<'v>> {
        let value = table.get(key)?;
        let Some(text) = value.as_str() else {
            let fix = Fix::Advice(format!("write it in quotes, such as `{key} = \"…\"`"));
            self.wrong_kind(key, value, "a text", fix);
            return None;
        };
        Some((text, value.at.clone()))
    }

    pub(super) fn flag(&mut self, table: &Table<'_>, key: &str) -> Option<bool> {
        let value = table.get(key)?;
        let flag = value.as_bool();
        if flag.is_none() {
            let fix = Fix::Advice("write `true` or `false`, without quotes".to_owned());
            self.wrong_kind(key, value, "`true` or `false`", fix);
        }
        flag
    }

    /// A number that is at least `least`, and an id that Linux has.
    pub(super) fn id(&mut self, table: &Table<'_>, key: &str, least: u32) -> Option<u32> {
        let value = table.get(key)?;
        let number = value.as_integer().and_then(|number| u32::try_from(number).ok());
        let number = number.filter(|number| (least..u32::MAX).contains(number));
        if number.is_none() {
            let what = Diagnostic::new(format!("`{key}` is no id")).at(value.at.clone());
            let why = format!("expected a number from {least} to {}", u32::MAX - 1);
            self.refuse(what.why(why).advice(format!("write such as `{key} = 1000`, without quotes")));
        }
        number
    }

    /// The texts of a list; `None` where the key is not there.
    pub(super) fn texts<'v>(&mut self, table: &'v Table<'_>, key: &str) -> Option<Vec<Placed<'v>>> {
        let value = table.get(key)?;
        let advice = || Fix::Advice(format!("write `{key} = [\"first\", \"second\"]`"));
        let Some(array) = value.as_array() else {
            let fix = match value.as_str() {
                Some(text) if !text.contains(['"', '\\']) && !text.contains(char::is_control) => {
                    Fix::Replace(format!("[\"{text}\"]"))
                }
                _ => advice(),
            };
            self.wrong_kind(key, value, "a list of texts", fix);
            return Some(Vec::new());
        };
        let mut texts = Vec::with_capacity(array.len());
        for value in array {
            match value.as_str() {
                Some(text) => texts.push((text, value.at.clone())),
                None => self.wrong_kind(key, value, "a text", advice()),
            }
        }
        Some(texts)
    }

    /// The same, where one text needs no brackets.
    pub(super) fn one_or_more<'v>(&mut self, table: &'v Table<'_>, key: &str) -> Option<Vec<Placed<'v>>> {
        match table.get(key)?.as_str() {
            Some(_) => self.text(table, key).map(|text| vec![text]),
            None => self.texts(table, key),
        }
    }

    /// What `read` makes of a text, where it takes that.
    pub(super) fn checked<T, E: ToString>(
        &mut self,
        key: &str,
        (text, at): &Placed<'_>,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let refused = match read(text) {
            Ok(value) => return Some(value),
            Err(why) => why.to_string(),
        };
        let what = Diagnostic::new(format!("`{}` does not fit `{key}`", text.escape_debug()));
        self.refuse(what.at(at.clone()).why(refused).advice("correct it, or leave it out"));
        None
    }

    /// What `read` makes of the texts of a list.
    pub(super) fn all<T, E: ToString>(
        &mut self,
        table: &Table<'_>,
        key: &str,
        read: impl Fn(&str) -> Result<T, E>,
    ) -> Vec<T> {
        let texts = self.texts(table, key).unwrap_or_default();
        texts.iter().filter_map(|text| self.checked(key, text, &read)).collect()
    }

    /// Texts by names, each with the name's place and its own.
    pub(super) fn settings<'v>(&mut self, table: &'v Table<'_>, key: &str) -> Vec<(Placed<'v>, Placed<'v>)> {
        let Some(value) = table.get(key) else { return Vec::new() };
        let advice = || Fix::Advice(format!("write `{key} = {{ NAME = \"value\" }}`"));
        let Some(inner) = value.as_table() else {
            self.wrong_kind(key, value, "a table", advice());
            return Vec::new();
        };
        let mut settings = Vec::new();
        for (name, value) in inner.entries() {
            match value.as_str() {
                Some(text) => settings.push(((&*name.name, name.at.clone()), (text, value.at.clone()))),
                None => self.wrong_kind(&name.name.escape_debug().to_string(), value, "a text", advice()),
            }
        }
        settings
    }

    /// A file or folder of this host.
    pub(super) fn path(&mut self, key: &str, placed: &Placed<'_>) -> Option<PathBuf> {
        let folder = self.folder;
        self.checked(key, placed, |text| match text {
            "" => Err("expected the path of a file or folder"),
            "-" => Err("a fleet is built without anybody's standard input"),
            text if text.contains('\0') => Err("no path has a NUL"),
            text => Ok(folder.join(text)),
        })
    }

    pub(super) fn paths(&mut self, key: &str, placed: &[Placed<'_>]) -> Vec<PathBuf> {
        placed.iter().filter_map(|placed| self.path(key, placed)).collect()
    }
}
