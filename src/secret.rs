//! What looks like a secret.

/// Whether a variable of this name most likely holds one.
#[must_use]
pub fn is_telling(name: &str) -> bool {
    const WORDS: [&str; 8] =
        ["TOKEN", "SECRET", "PASSWORD", "PASSWD", "APIKEY", "CREDENTIAL", "CREDENTIALS", "PASSPHRASE"];
    let upper = name.to_ascii_uppercase().replace('-', "_");
    upper.split('_').any(|part| WORDS.contains(&part)) || upper.contains("API_KEY")
}
