//! Texts of others, made harmless: they do nothing to a terminal but appear, and tell no credentials.

/// A text without control characters but line breaks, without what turns the direction of writing, and without
/// credentials.
#[must_use]
pub fn harmless(text: &str) -> String {
    without_credentials(text).chars().filter(|&character| character == '\n' || !steers(character)).collect()
}

/// One line of a program's output. Of a progress bar that rewrites its line, the last state.
#[must_use]
pub fn line(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let shown = text.trim_end().rsplit('\r').next().unwrap_or_default().replace('\t', " ");
    shown.chars().filter(|&character| !steers(character)).collect()
}

/// Whether a character does something to a terminal, or to the order in which others appear.
///
/// Rule: Unicode, "Control codes"; Unicode Standard Annex 9, "Explicit Directional Formatting Characters".
fn steers(character: char) -> bool {
    character.is_control() || matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A text in which what stands before the `@` of an address is stars, byte for byte.
#[must_use]
pub fn without_credentials(text: &str) -> String {
    let mut masked = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, behind) = rest.split_at(at + 3);
        masked.push_str(before);
        // A password may hold anything but white space and quotes.
        let end =
            behind.find(|end: char| end.is_whitespace() || "\"',".contains(end)).unwrap_or(behind.len());
        let authority = behind.find(['/', '?', '#']).unwrap_or(behind.len()).min(end);
        let user_info = match behind[..authority].rfind('@') {
            Some(at) => at,
            // With a `/` in it, an `@` behind a `:` that no port follows.
            None => match (behind[..authority].rfind(':'), behind[..end].rfind('@')) {
                (Some(colon), Some(at))
                    if !behind[colon + 1..authority].bytes().all(|byte| byte.is_ascii_digit()) =>
                {
                    at
                }
                _ => 0,
            },
        };
        masked.extend(std::iter::repeat_n('*', user_info));
        rest = &behind[user_info..];
    }
    masked.push_str(rest);
    // Without a scheme, as in `name:password@host`.
    let token = |at: usize| {
        masked[..at].rfind(|end: char| end.is_whitespace() || "\"'=,".contains(end)).map_or(0, |end| end + 1)
    };
    let found = masked.match_indices('@').filter(|(at, _)| !is_digest(&masked[at + 1..]));
    let found = found.map(|(at, _)| token(at)..at);
    let bare: Vec<_> = found
        .filter(|part| masked[part.clone()].contains(':') && !masked[part.clone()].contains("://"))
        .collect();
    for part in bare {
        let stars = "*".repeat(part.len());
        masked.replace_range(part, &stars);
    }
    masked
}

/// Whether a text begins with the digest of an image, whose name may hold a port.
fn is_digest(text: &str) -> bool {
    let digits = text.strip_prefix("sha256:").and_then(|digits| digits.get(..64));
    digits.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_become_stars() {
        let image = format!("`host:80/a@sha256:{}`", "0a".repeat(32));
        for (text, shown) in [
            ("a @ https://me:secret@host.invalid/x@y", "a @ https://*********@host.invalid/x@y"),
            ("-i https://é@h/ https://t@h", "-i https://**@h/ https://*@h"),
            ("https://host.invalid/@", "https://host.invalid/@"),
            ("https://host.invalid:80/a@b", "https://host.invalid:80/a@b"),
            ("https://me:pa/ss@host/", "https://********@host/"),
            ("git = \"me:secret@host.invalid:a/b\"", "git = \"*********@host.invalid:a/b\""),
            ("git@host.invalid:a", "git@host.invalid:a"),
            ("no address", "no address"),
            ("`host:80/a@sha256:1`", "**********@sha256:1`"),
            (&image, &image),
        ] {
            assert_eq!(without_credentials(text), shown);
            assert_eq!(without_credentials(text).len(), text.len());
        }
    }

    #[test]
    fn lines_cannot_steer_a_terminal() {
        assert_eq!(line(b"a\x1b]0;title\x07b\tc \xff\n"), "a]0;titleb c \u{fffd}");
        assert_eq!(line(b"10%\r50%\r100%\n"), "100%");
        assert_eq!(line("a\u{9b}31mb\u{202e}c\u{2066}d".as_bytes()), "a31mbcd");
        assert_eq!(harmless("a\u{1b}[1m\nb\u{202e}"), "a[1m\nb");
    }
}
