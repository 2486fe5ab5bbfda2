//! What registries say of how far an upload has come.

/// How many bytes a registry has by its `Range`, where `sent` would be all.
///
/// Rule: OCI distribution specification 1.1, "Pushing a blob in chunks": `0-LAST`. The distribution project's registry says
/// `0-0` of no bytes as of one.
pub(super) fn taken(range: &str, sent: u64) -> Option<u64> {
    let range = range.trim();
    let range = range.strip_prefix("bytes").map_or(range, |range| range.trim_start_matches(['=', ' ']));
    let (first, last) = range.split_once('-')?;
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if first != "0" || !digits(last) {
        return None;
    }
    match last.parse::<u64>().ok()? {
        0 if sent != 1 => Some(0),
        last => last.checked_add(1),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_registry_says_how_much_it_has() {
        for (range, sent, expected) in [
            ("0-1023", 1024, Some(1024)),
            (" bytes=0-1023", 9, Some(1024)),
            ("bytes 0-1023", 9, Some(1024)),
            ("0-0", 1024, Some(0)),
            ("0-0", 1, Some(1)),
            ("0-18446744073709551615", 1, None),
            ("0-99999999999999999999", 1, None),
            ("1-5", 1, None),
            ("0--1", 1, None),
            ("0-", 1, None),
            ("0-+5", 1, None),
            ("0", 1, None),
            ("", 1, None),
        ] {
            assert_eq!(taken(range, sent), expected, "{range}");
        }
    }

    proptest! {
        #[test]
        fn whatever_it_says_is_read(range in "(bytes)?[ =]?[0-9-]{0,24}|\\PC{0,20}", sent: u64) {
            let _ = taken(&range, sent);
        }

        #[test]
        fn what_it_has_is_one_more_than_the_last(last in 1..u64::MAX) {
            prop_assert_eq!(taken(&format!("0-{last}"), 0), Some(last + 1));
        }
    }
}
