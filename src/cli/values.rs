//! Values of options.

use std::time::Duration;

use crate::deps::Name;
use crate::reference::{Reference, ReferenceError};

/// A number of bytes, with or without a unit in powers of 1000 or, as `GiB`, of 1024.
pub(super) fn size(text: &str) -> Result<u64, &'static str> {
    const EXPECTED: &str = "expected a size, such as 800MB or 1.5GB";
    let digits = text.find(|next: char| !next.is_ascii_digit() && next != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "k" | "kb" => 1e3,
        "m" | "mb" => 1e6,
        "g" | "gb" => 1e9,
        "kib" => 1024.0,
        "mib" => 1024.0 * 1024.0,
        "gib" => 1024.0 * 1024.0 * 1024.0,
        _ => return Err(EXPECTED),
    };
    let number: f64 = number.parse().map_err(|_| EXPECTED)?;
    let bytes = number * unit;
    // Sizes of images are far below what a double holds exactly.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked to be small and positive"
    )]
    if bytes.is_finite() && (0.0..1e15).contains(&bytes) { Ok(bytes as u64) } else { Err(EXPECTED) }
}

/// A number of processors, in thousandths of one.
pub(super) fn processors(text: &str) -> Result<u32, &'static str> {
    const EXPECTED: &str = "expected a number of processors, such as 2 or 0.5";
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(part) || part.len() > 3 {
        return Err(EXPECTED);
    }
    let number = |text: &str| text.parse::<u32>().ok();
    let thousandths =
        number(whole).and_then(|whole| whole.checked_mul(1000)?.checked_add(number(&format!("{part:0<3}"))?));
    thousandths.filter(|thousandths| *thousandths > 0).ok_or(EXPECTED)
}

/// A name of a package, normalized.
pub(super) fn package_name(text: &str) -> Result<String, &'static str> {
    Name::parse(text).map(String::from).ok_or("expected the name of a package")
}

/// A name that an image can be given.
pub(super) fn image_name(text: &str) -> Result<Reference, String> {
    let reference: Reference = text.parse().map_err(|error: ReferenceError| error.to_string())?;
    match reference.digest() {
        Some(_) => Err("an image gets its digest from what is in it; give a name and a tag".to_owned()),
        None if reference.looks_like_an_id() => {
            Err("Docker would take this name for the id of an image; give another".to_owned())
        }
        None => Ok(reference),
    }
}

/// A time with a unit: seconds, minutes, hours or days.
pub(super) fn duration(text: &str) -> Result<Duration, &'static str> {
    let digits = text.find(|next: char| !next.is_ascii_digit() && next != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = match unit {
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 86400.0,
        _ => return Err("expected a time with its unit, such as 90s, 30m, 1h or 2d"),
    };
    let seconds = number.parse::<f64>().ok().map(|number| number * unit);
    seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or("expected a time with its unit, such as 90s, 30m, 1h or 2d")
}
