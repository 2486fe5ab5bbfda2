//! What values of `variant.toml`, and of the options that say the same, must look like.

use std::path::Path;

/// Most bytes of a value of the environment or of a label.
const MAX_VALUE: usize = 30_000;

/// What an executor may call itself: it becomes part of host names.
///
/// # Errors
///
/// Why a text is no such name.
pub fn executor_name(text: &str) -> Result<String, &'static str> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
    let ends = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    if (1..=63).contains(&bytes.len()) && text.bytes().all(plain) && ends(bytes.first()) && ends(bytes.last())
    {
        Ok(text.to_owned())
    } else {
        Err(
            "expected up to 63 lower-case letters, digits, `-` and `_`, which begins and ends with a letter or digit",
        )
    }
}

/// A name of an environment variable that shells accept.
///
/// # Errors
///
/// Why a text is no such name.
pub fn variable_name(text: &str) -> Result<(), &'static str> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if !text.is_empty() && text.bytes().all(plain) && !text.starts_with(|first: char| first.is_ascii_digit())
    {
        Ok(())
    } else {
        Err("expected the name of a variable: letters, digits and `_`, and no digit in front")
    }
}

/// A name of a label.
///
/// Rule: Docker docs, "Docker object labels", "Key format recommendations".
///
/// # Errors
///
/// Why a text is no such name.
pub fn label_name(text: &str) -> Result<(), &'static str> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._/-".contains(&byte);
    if text.starts_with("ipybox.") {
        Err("labels that begin with `ipybox.` are the image's own")
    } else if text.is_empty() || !text.bytes().all(plain) {
        Err("expected the name of a label: letters, digits, `.`, `_`, `/` and `-`")
    } else {
        Ok(())
    }
}

/// An id of a secret: it becomes the name of a file.
///
/// # Errors
///
/// Why a text is no such id.
pub fn secret_id(text: &str) -> Result<(), &'static str> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if text.starts_with("ipybox-") {
        Err("secrets that begin with `ipybox-` are the build's own")
    } else if text.is_empty() || text.starts_with('.') || !text.bytes().all(plain) {
        Err("expected the id of a secret: letters, digits, `.`, `_` and `-`, and no `.` in front")
    } else {
        Ok(())
    }
}

/// A value of the environment or of a label.
///
/// # Errors
///
/// Why a text is none.
pub fn value(text: &str) -> Result<(), &'static str> {
    if text.chars().any(char::is_control) {
        Err("a Dockerfile ends its instructions with line breaks: the value must hold no control character")
    } else if text.len() > MAX_VALUE {
        Err("the value is longer than 30,000 bytes")
    } else {
        Ok(())
    }
}

/// A place for copied files: absolute, and none that the image needs for itself.
///
/// # Errors
///
/// Why a text is no such place.
pub fn destination(text: &str) -> Result<(), &'static str> {
    let path = text.trim_end_matches('/');
    let clean = |part: &str| !matches!(part, "" | "." | "..") && !part.chars().any(char::is_control);
    let Some(relative) = path.strip_prefix('/').filter(|path| path.split('/').all(clean)) else {
        return Err("expected an absolute path below `/`, without `.` and `..`");
    };
    let top = |folders: &[&str]| folders.iter().any(|top| Path::new(relative).starts_with(top));
    if top(&["dev", "proc", "sys", "opt/ipybox", "opt/venv"]) {
        return Err("nothing can be copied to /dev, /proc, /sys, /opt/ipybox and /opt/venv");
    }
    Ok(())
}

/// Whether a Debian package is the one that the firewall's script needs, in whatever version.
#[must_use]
pub fn is_of_firewall(package: &str) -> bool {
    package.split(['=', ':']).next() == Some("iptables")
}

/// A Debian package, with a version or an architecture if need be.
///
/// Rule: Debian Policy, 5.6.1 and 5.6.12.
///
/// # Errors
///
/// Why a text is no such name.
pub fn package(name: &str) -> Result<String, &'static str> {
    let rest = |byte: u8| byte.is_ascii_alphanumeric() || b".+-:~=".contains(&byte);
    let first = name.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric);
    // Behind a name a hyphen asks for its removal.
    if first && name.bytes().all(rest) && !name.ends_with('-') {
        Ok(name.to_owned())
    } else {
        Err("expected the name of a Debian package")
    }
}
