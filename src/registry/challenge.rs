//! What a registry wants to know before it answers.

use std::collections::BTreeMap;

use reqwest::Url;

/// What a registry wants to know before it answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    /// User name and password.
    Basic,
    /// A token of a service.
    ///
    /// Rule: distribution, "Token Authentication Specification".
    Bearer {
        /// The address of the service.
        realm: Url,
        /// What the service knows the registry by.
        service: Option<String>,
        /// What the registry thinks is needed.
        scope: Option<String>,
    },
}

/// The best of the challenges in the `WWW-Authenticate` headers of an answer: a token before a password.
pub(super) fn best<'a>(headers: impl Iterator<Item = &'a str>) -> Option<Challenge> {
    let mut basic = None;
    for (scheme, mut parameters) in headers.flat_map(challenges) {
        if scheme == "bearer" {
            let realm = parameters.remove("realm").and_then(|realm| Url::parse(&realm).ok());
            // An address with a password in it is nobody's to use.
            if let Some(realm) = realm.filter(|realm| realm.has_host() && realm.username().is_empty()) {
                let [service, scope] = ["service", "scope"].map(|name| parameters.remove(name));
                return Some(Challenge::Bearer { realm, service, scope });
            }
        } else if scheme == "basic" {
            basic = Some(Challenge::Basic);
        }
    }
    basic
}

/// The challenges of one header: scheme and parameters, their names in lower case. What is none is passed over.
///
/// Rule: RFC 9110, "WWW-Authenticate" and "Challenge and Response".
fn challenges(header: &str) -> Vec<(String, BTreeMap<String, String>)> {
    let mut found: Vec<(String, BTreeMap<String, String>)> = Vec::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([',', ' ', '\t']);
        let end = rest.find(|next| !is_of_token(next)).unwrap_or(rest.len());
        let (word, behind) = rest.split_at(end);
        if word.is_empty() {
            // Nothing that a challenge can have here.
            let mut characters = rest.chars();
            rest = match characters.next() {
                None => return found,
                Some('"') => value(rest).1,
                Some(_) => characters.as_str(),
            };
            continue;
        }
        let word = word.to_ascii_lowercase();
        match (behind.trim_start_matches([' ', '\t']).strip_prefix('='), found.last_mut()) {
            (Some(behind), Some((_, parameters))) => {
                let (value, behind) = value(behind.trim_start_matches([' ', '\t']));
                parameters.entry(word).or_insert(value);
                rest = behind;
            }
            (Some(behind), None) => rest = behind,
            (None, _) => {
                found.push((word, BTreeMap::new()));
                rest = behind;
            }
        }
    }
}

/// A parameter's value, quoted or not, and what follows it.
fn value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let (value, rest) = text.split_at(text.find([',', ' ', '\t']).unwrap_or(text.len()));
        return (value.to_owned(), rest);
    };
    let mut value = String::new();
    let mut characters = quoted.chars();
    while let Some(next) = characters.next() {
        match next {
            '"' => break,
            '\\' => value.extend(characters.next()),
            next => value.push(next),
        }
    }
    (value, characters.as_str())
}

/// Rule: RFC 9110, "Tokens".
fn is_of_token(character: char) -> bool {
    character.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(character)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        let [service, scope] = [service, scope].map(|text| text.map(str::to_owned));
        Challenge::Bearer { realm: realm.parse().unwrap(), service, scope }
    }

    #[test]
    fn a_challenge_is_found_among_others() {
        let token = "https://auth.invalid/token";
        for (header, expected) in [
            ("Basic realm=\"x\"", Some(Challenge::Basic)),
            ("basic", Some(Challenge::Basic)),
            (
                "Bearer realm=\"https://auth.invalid/token\",service=\"r\",scope=\"repository:a/b:pull,push\"",
                Some(bearer(token, Some("r"), Some("repository:a/b:pull,push"))),
            ),
            (
                "BEARER  Realm = https://auth.invalid/token , Service=r , error=\"invalid_token\"",
                Some(bearer(token, Some("r"), None)),
            ),
            (
                "Negotiate YWJj==, Basic realm=\"a, Bearer realm=\\\"b\\\"\", Bearer realm=\"https://auth.invalid/token\"",
                Some(bearer(token, None, None)),
            ),
            ("Basic, Bearer realm=\"no address\"", Some(Challenge::Basic)),
            ("Bearer realm=\"https://me:secret@auth.invalid/token\"", None),
            ("Bearer", None),
            ("Bearer realm=\"https://auth.invalid/token", Some(bearer(token, None, None))),
            ("=\"Basic\", ,,= x", None),
            ("", None),
        ] {
            assert_eq!(best([header].into_iter()), expected, "{header}");
        }
        let two = ["Basic realm=\"x\"", "Bearer realm=\"https://auth.invalid/token\""];
        assert_eq!(best(two.into_iter()), Some(bearer(token, None, None)));
    }

    proptest! {
        #[test]
        fn whatever_it_says_is_read(header in "([bB](asic|earer)|realm|[ -~]|\\PC){0,60}") {
            let _ = best([header.as_str()].into_iter());
        }

        #[test]
        fn what_is_quoted_is_read_as_it_was(scope in "[ -~]{0,40}") {
            let quoted = scope.replace('\\', "\\\\").replace('"', "\\\"");
            let header = format!("Bearer realm=\"https://a.invalid/\", scope=\"{quoted}\", service=s");
            prop_assert_eq!(best([header.as_str()].into_iter()), Some(bearer("https://a.invalid/", Some("s"), Some(&scope))));
        }
    }
}
