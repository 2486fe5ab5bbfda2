//! What uv, pip and apt mean by what they say. Their words are recorded in the tests below; whoever raises
//! the version of one records them anew.

use super::debian::Missing;
use crate::deps::Name;

/// What uv says of requirements that cannot be met together.
pub const NO_SOLUTION: &str = "No solution found";

/// What uv says of a file that is no package, and goes on with an older version.
pub const SPOILT: &str = "has an invalid package format";

/// What uv says of an index that answers, and gives nothing.
pub const REFUSING_INDEX: &str = "hint: An index";

/// Why an installer failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// The requirements cannot be met together; what uv knows of that, in its order.
    NoSolution(Vec<Fact>),
    /// The file of a distribution is not the one that was promised.
    HashMismatch {
        /// The distribution, with its version where that is told.
        what: String,
    },
    /// The file of a distribution is no package.
    Spoilt {
        /// The distribution and its version.
        what: String,
    },
    /// A file that an index names is not there.
    Missing {
        /// Its address.
        address: String,
    },
    /// An index wants to know who asks.
    Denied {
        /// Its address, or that of a file.
        address: String,
    },
    /// A wheel cannot be built of a source.
    Unbuilt {
        /// The distribution.
        name: String,
        /// What came of it, in the words of `templates/build/wheel.py`.
        why: String,
        /// What the build misses, where it says so.
        missing: Option<Box<Missing>>,
    },
    /// There is no such Debian package, or no such version of it.
    NoDebianPackage {
        /// The package.
        name: String,
    },
    /// The other side's certificate is not trusted.
    Certificate,
    /// A proxy does not let anybody through.
    Proxy,
    /// No memory is left.
    OutOfMemory,
    /// A program is for another kind of machine.
    WrongArchitecture,
    /// A program needs a library that is not there.
    MissingLibrary {
        /// The library's file.
        file: String,
    },
    /// No space is left.
    DiskFull,
    /// A host does not answer, answers that it cannot now, or stops in the middle.
    Unreachable {
        /// What was asked for, where that is told.
        address: Option<String>,
    },
}

/// A distribution and some of its versions, such as `numpy>=2,<3`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Term {
    /// The distribution.
    pub name: Name,
    /// Specifiers; empty for every version.
    pub versions: String,
}

/// A clause of uv's reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// The user's list, or the image itself, asks for these.
    Asked(Vec<Term>),
    /// A distribution needs others.
    Needs(Term, Vec<Term>),
    /// No index has the distribution.
    Unknown(Name),
    /// There is no such version.
    NoVersion(Term),
    /// There are only these.
    Only(Term),
    /// Of these there is no wheel that fits.
    NoWheel(Term),
}

impl Fact {
    /// What the list asks for, where that is said.
    #[must_use]
    pub fn asked(&self) -> Option<&[Term]> {
        match self {
            Self::Asked(what) => Some(what),
            _ => None,
        }
    }

    /// All that it speaks of with a version.
    pub fn terms(&self) -> impl Iterator<Item = &Term> {
        let (one, more): (Option<&Term>, &[Term]) = match self {
            Self::Asked(what) => (None, what),
            Self::Needs(who, what) => (Some(who), what),
            Self::Unknown(_) => (None, &[]),
            Self::NoVersion(one) | Self::Only(one) | Self::NoWheel(one) => (Some(one), &[]),
        };
        one.into_iter().chain(more)
    }
}

/// Signs of hosts that cannot be reached, or cannot answer now.
const UNREACHABLE: [&str; 26] = [
    "error sending request",
    "dns error",
    "operation timed out",
    "tcp connect error",
    "error decoding response body",
    "end of file before message length reached",
    "(429 Too Many Requests)",
    "(500 Internal Server Error)",
    "(502 Bad Gateway)",
    "(503 Service Unavailable)",
    "(504 Gateway Timeout)",
    "NewConnectionError",
    "ConnectTimeoutError",
    "ReadTimeoutError",
    "IncompleteRead",
    "Max retries exceeded",
    "Temporary failure in name resolution",
    "Temporary failure resolving",
    "Could not connect to",
    "Unable to connect to",
    "Connection timed out",
    "Connection failed",
    "429  Too Many Requests",
    "500  Internal Server Error",
    "502  Bad Gateway",
    "503  Service Unavailable",
];

const CERTIFICATE: [&str; 4] = [
    "invalid peer certificate",
    "CERTIFICATE_VERIFY_FAILED",
    "Certificate verification failed",
    "SSL certificate problem",
];

const PROXY: [&str; 4] = [
    "407 Proxy Authentication Required",
    "proxy authentication required",
    "Tunnel connection failed",
    "unsuccessful tunnel",
];

const OUT_OF_MEMORY: [&str; 3] = ["MemoryError", "Cannot allocate memory", "std::bad_alloc"];

const WRONG_ARCHITECTURE: [&str; 2] = ["exec format error", "Exec format error"];

/// What the dynamic linker says before the name of a library.
const MISSING_LIBRARY: &str = "error while loading shared libraries: ";

/// The exit code of a program that was killed, as the kernel kills where no memory is left.
const KILLED: i32 = 128 + 9;

const DISK_FULL: [&str; 2] = ["No space left on device", "You don't have enough free space"];

/// Signs of hosts that want to know who asks.
const DENIED: [&str; 6] = [
    "(401 Unauthorized)",
    "(403 Forbidden)",
    "401 Client Error",
    "403 Client Error",
    "401  Unauthorized",
    "403  Forbidden",
];

impl Cause {
    /// The cause of a failed step; `None` where nothing of it is known.
    #[must_use]
    pub fn of_step(output: &[String], exit_code: Option<i32>) -> Option<Self> {
        Self::of(output).or_else(|| (exit_code == Some(KILLED)).then_some(Self::OutOfMemory))
    }

    /// The cause of a failure, from what was printed; `None` where nothing of it is known.
    #[must_use]
    pub fn of(output: &[String]) -> Option<Self> {
        let line_with =
            |signs: &[&str]| output.iter().find(|line| signs.iter().any(|sign| line.contains(sign)));
        if line_with(&DISK_FULL).is_some() {
            return Some(Self::DiskFull);
        }
        if line_with(&CERTIFICATE).is_some() {
            return Some(Self::Certificate);
        }
        if line_with(&PROXY).is_some() {
            return Some(Self::Proxy);
        }
        if let Some((name, why)) = output.iter().rev().find_map(|line| unbuilt(line)) {
            let missing = Missing::of(output).map(Box::new);
            let of_index = line_with(&UNREACHABLE).or_else(|| line_with(&DENIED));
            if missing.is_some() || of_index.is_none() {
                return Some(Self::Unbuilt { name, why, missing });
            }
        }
        if let Some(line) = line_with(&[SPOILT]) {
            return Some(Self::Spoilt { what: quoted(line).unwrap_or_default() });
        }
        if let Some(line) = line_with(&["Hash mismatch for", "has a hash of the list"]) {
            let what = quoted(line).or_else(|| line.split_once(':').map(|(name, _)| name.trim().to_owned()));
            return Some(Self::HashMismatch { what: what.unwrap_or_default() });
        }
        if let Some(at) = output.iter().position(|line| line.contains("DO NOT MATCH THE HASHES")) {
            let what = output.get(at + 1).and_then(|line| line.split_whitespace().next());
            return Some(Self::HashMismatch { what: what.unwrap_or_default().to_owned() });
        }
        if let Some(line) = line_with(&DENIED).or_else(|| line_with(&[REFUSING_INDEX])) {
            return Some(Self::Denied { address: address(line).unwrap_or_default() });
        }
        if let Some(line) = line_with(&["(404 Not Found)", "HTTP error 404", "404  Not Found"]) {
            return Some(Self::Missing { address: address(line).unwrap_or_default() });
        }
        if output.iter().any(|line| line.contains(NO_SOLUTION)) {
            return Some(Self::NoSolution(facts(output)));
        }
        if let Some(line) = line_with(&UNREACHABLE) {
            let address = address(line).or_else(|| output.iter().find_map(|line| address(line)));
            return Some(Self::Unreachable { address });
        }
        if let Some(name) = output.iter().find_map(|line| debian_package(line)) {
            return Some(Self::NoDebianPackage { name });
        }
        if line_with(&OUT_OF_MEMORY).is_some() {
            return Some(Self::OutOfMemory);
        }
        if line_with(&WRONG_ARCHITECTURE).is_some() {
            return Some(Self::WrongArchitecture);
        }
        let behind =
            |line: &String| Some(line.split_once(MISSING_LIBRARY)?.1.split(':').next()?.trim().to_owned());
        output.iter().find_map(behind).map(|file| Self::MissingLibrary { file })
    }
}

/// The distribution that `templates/build/wheel.py` cannot build, and why.
fn unbuilt(line: &str) -> Option<(String, String)> {
    let (name, why) = line.split_once("cannot build `")?.1.split_once("`: ")?;
    Some((name.to_owned(), why.to_owned()))
}

/// The first text between backticks.
fn quoted(line: &str) -> Option<String> {
    line.split('`').nth(1).map(str::to_owned)
}

/// The first address of a line.
fn address(line: &str) -> Option<String> {
    let begin = line.find("http://").or_else(|| line.find("https://"))?;
    let rest = &line[begin..];
    let end = rest.find(|next: char| next.is_whitespace() || matches!(next, ')' | '#' | '\'' | '"'));
    Some(rest[..end.unwrap_or(rest.len())].trim_end_matches([':', ',', '.']).to_owned())
}

/// The package that apt does not know, or not in this version.
fn debian_package(line: &str) -> Option<String> {
    let line = line.trim().strip_prefix("E: ")?;
    if let Some(name) = line.strip_prefix("Unable to locate package ") {
        return Some(name.trim().to_owned());
    }
    let mut quotes = line.split('\'');
    if line.starts_with("Version '") {
        let (version, name) = (quotes.nth(1)?, quotes.nth(1)?);
        return Some(format!("{name}={version}"));
    }
    (line.starts_with("Package '") && line.ends_with("no installation candidate"))
        .then(|| quotes.nth(1).map(str::to_owned))?
}

/// The clauses of uv's reason, in its order. What uv concludes from others is one as well, so that the last on a
/// distribution says most of it.
fn facts(output: &[String]) -> Vec<Fact> {
    let begin = output.iter().rposition(|line| line.contains(NO_SOLUTION)).map_or(0, |at| at + 1);
    let lines = output[begin..].iter().map(|line| line.trim()).take_while(|line| !line.starts_with("hint:"));
    // Conclusions that are used later have numbers in parentheses.
    let words =
        lines.flat_map(str::split_whitespace).filter(|word| !(word.starts_with('(') && word.ends_with(')')));
    let reason = without_markers(&words.collect::<Vec<_>>().join(" "));
    let mut facts = Vec::new();
    for sentence in reason.split("ecause ") {
        let sentence = sentence.trim_end_matches(['B', 'b']).trim_end();
        let sentence = sentence
            .strip_suffix(" And")
            .unwrap_or(sentence)
            .trim_start_matches("cause: ")
            .trim_end_matches('.');
        let (premises, conclusion) = sentence.split_once("we can conclude that ").unwrap_or((sentence, ""));
        clauses(premises, true, &mut facts);
        clauses(conclusion, false, &mut facts);
    }
    facts
}

/// A text without what stands in braces: markers, with blanks in them.
fn without_markers(text: &str) -> String {
    let mut depth = 0_usize;
    let outside = text.chars().filter(|&character| {
        match character {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => return depth == 0,
        }
        false
    });
    outside.collect()
}

/// Reads clauses with `and` or a comma between them. What the list is concluded to depend on, it does not say.
fn clauses(text: &str, premises: bool, facts: &mut Vec<Fact>) {
    const FEW: &str = "only the following versions of ";
    for clause in text.split(" and ").flat_map(|part| part.split(", ")) {
        let clause = clause.trim().trim_end_matches(',');
        let verb = ["depends on ", "depend on "].into_iter().find_map(|verb| clause.split_once(verb));
        if let Some((who, what)) = verb {
            let what = terms(what.trim_start_matches("one of:"));
            if who.trim() == super::request::PROJECT {
                facts.extend(premises.then_some(Fact::Asked(what)));
            } else if let Some(who) = terms(who.trim_start_matches("all of:")).into_iter().next() {
                facts.push(Fact::Needs(who, what));
            }
        } else if let Some((who, _)) = clause.split_once(" was not found in the ") {
            facts.extend(Name::parse(who.trim()).map(Fact::Unknown));
        } else if let Some(what) = ["there is no version of ", "there are no versions of "]
            .iter()
            .find_map(|begin| clause.strip_prefix(begin))
        {
            facts.extend(term(what).map(Fact::NoVersion));
        } else if let Some(what) = clause.strip_prefix(FEW) {
            facts.extend(terms(what).into_iter().rev().find(|one| !one.versions.is_empty()).map(Fact::Only));
        } else if let Some(what) =
            clause.strip_prefix("only ").and_then(|rest| rest.strip_suffix(" is available"))
        {
            facts.extend(term(what).map(Fact::Only));
        } else if clause.contains("no usable wheels") || clause.contains("no wheels with a matching") {
            facts.extend(terms(clause).into_iter().next().map(Fact::NoWheel));
        } else if let (Some(Fact::Asked(last) | Fact::Needs(_, last)), [one]) =
            (facts.last_mut(), &terms(clause)[..])
            && clause.split_whitespace().count() == 1
        {
            last.push(one.clone());
        }
    }
}

/// The distributions in a text. `all versions of NAME` is one of them, and so is `NAME>=1,<2`.
fn terms(text: &str) -> Vec<Term> {
    const WORDS: [&str; 12] = [
        "all",
        "of",
        "versions",
        "version",
        "has",
        "have",
        "no",
        "are",
        "available",
        "usable",
        "wheels",
        "with",
    ];
    let words = text.split_whitespace().map(|word| word.trim_end_matches(':'));
    words.filter(|word| !WORDS.contains(word)).map_while(term).collect()
}

fn term(word: &str) -> Option<Term> {
    let word = word.trim_end_matches([',', ':', '.']);
    let end =
        word.find(|next: char| !next.is_ascii_alphanumeric() && !"._-".contains(next)).unwrap_or(word.len());
    let versions = word[end..].rsplit(']').next().unwrap_or_default();
    let is_specifier = versions.is_empty() || versions.starts_with(['<', '>', '=', '!', '~']);
    let name = Name::parse(&word[..end]).filter(|_| is_specifier)?;
    Some(Term { name, versions: versions.to_owned() })
}

impl std::fmt::Display for Term {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", self.name, self.versions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cause(output: &str) -> Option<Cause> {
        Cause::of(&output.lines().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn causes_are_known_by_the_words_of_each_installer() {
        let address = |text: &str| text.to_owned();
        let unreachable = |text: &str| Cause::Unreachable { address: Some(text.to_owned()) };
        for (said, expected) in [
            // uv 0.13.8
            (
                "error: Failed to download `ours==2.0`\n  cause: Hash mismatch for `ours==2.0`\n\n         Expected:\n           sha256:ae44\n",
                Cause::HashMismatch { what: "ours==2.0".to_owned() },
            ),
            (
                "error: Failed to fetch: http://host.invalid/files/ours-2.0-py3-none-any.whl\n  cause: HTTP status client error (404 Not Found) for url (http://host.invalid/files/ours-2.0-py3-none-any.whl)",
                Cause::Missing { address: address("http://host.invalid/files/ours-2.0-py3-none-any.whl") },
            ),
            (
                "error: Failed to fetch: http://host.invalid/files/ours-2.0-py3-none-any.whl\n  cause: HTTP status client error (401 Unauthorized) for url (http://host.invalid/files/ours-2.0-py3-none-any.whl)",
                Cause::Denied { address: address("http://host.invalid/files/ours-2.0-py3-none-any.whl") },
            ),
            (
                "error: No solution found when resolving dependencies\n  cause: Because ours was not found in the package registry and your-list depends on ours>=1, we can conclude that your requirements are unsatisfiable.\n\nhint: An index URL (http://host.invalid/simple/) could not be queried due to a lack of valid authentication credentials (401 Unauthorized)",
                Cause::Denied { address: address("http://host.invalid/simple/") },
            ),
            (
                "hint: An index (http://host.invalid/simple/) returned a 403 Forbidden error. Check that the index URL is correct and the credentials are valid.",
                Cause::Denied { address: address("http://host.invalid/simple/") },
            ),
            (
                "error: Failed to fetch: http://host.invalid/simple/ours/\n  cause: HTTP status client error (429 Too Many Requests) for url (http://host.invalid/simple/ours/)",
                unreachable("http://host.invalid/simple/ours/"),
            ),
            (
                "  cause: HTTP status server error (503 Service Unavailable) for url (http://host.invalid/simple/ours/)",
                unreachable("http://host.invalid/simple/ours/"),
            ),
            (
                "error: Failed to download `ours==2.0`\n  cause: Failed to write to the distribution cache\n  cause: error decoding response body\n  cause: request or response body error\n  cause: error reading a body from connection\n  cause: end of file before message length reached",
                Cause::Unreachable { address: None },
            ),
            (
                "error: Request failed after 3 retries in 6.4s\n  cause: Failed to fetch: http://host.invalid:9/simple/ours/\n  cause: error sending request for url (http://host.invalid:9/simple/ours/)\n  cause: client error (Connect)\n  cause: tcp connect error\n  cause: Connection refused (os error 111)",
                unreachable("http://host.invalid:9/simple/ours/"),
            ),
            (
                "WARN `ours==2.0` has an invalid package format: Failed to read from zip file\nWARN ours has an invalid package format: Failed to read from zip file",
                Cause::Spoilt { what: "ours==2.0".to_owned() },
            ),
            (
                "error: Failed to fetch: https://host.invalid/simple/six/\n  cause: error sending request for url (https://host.invalid/simple/six/)\n  cause: client error (Connect)\n  cause: invalid peer certificate: UnknownIssuer",
                Cause::Certificate,
            ),
            (
                "error: Failed to install: six-1.17.0-py2.py3-none-any.whl (six==1.17.0)\n  cause: failed to copy file from /a to /b: No space left on device (os error 28)",
                Cause::DiskFull,
            ),
            // pip 23 to 25
            (
                "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE. If you have updated\n    ours>=2 from http://host.invalid/files/ours-2.0.whl#sha256=ae44:\n        Expected sha256 ae44",
                Cause::HashMismatch { what: "ours>=2".to_owned() },
            ),
            (
                "  ERROR: HTTP error 404 while getting http://host.invalid/files/none.tar.gz",
                Cause::Missing { address: address("http://host.invalid/files/none.tar.gz") },
            ),
            (
                "ERROR: Could not install packages due to an OSError: HTTPConnectionPool(host='host.invalid', port=80): Max retries exceeded with url: /files/ours.whl (Caused by ResponseError('too many 503 error responses'))",
                Cause::Unreachable { address: None },
            ),
            (
                "WARNING: Retrying (Retry(total=4)) after connection broken by 'NewConnectionError('<x>: Failed to establish a new connection: [Errno 111] Connection refused')': /simple/ours/",
                Cause::Unreachable { address: None },
            ),
            // apt 2.6
            (
                "E: Failed to fetch http://host.invalid/debian/dists/bookworm/InRelease  Temporary failure resolving 'host.invalid'\nE: Some index files failed to download. They have been ignored, or old ones used instead.",
                unreachable("http://host.invalid/debian/dists/bookworm/InRelease"),
            ),
            (
                "E: Failed to fetch http://host.invalid/debian/dists/bookworm/InRelease  Could not connect to 127.0.0.1:9 (127.0.0.1). - connect (111: Connection refused)",
                unreachable("http://host.invalid/debian/dists/bookworm/InRelease"),
            ),
            ("E: Unable to locate package no-such", Cause::NoDebianPackage { name: "no-such".to_owned() }),
            (
                "E: Package 'awk' has no installation candidate",
                Cause::NoDebianPackage { name: "awk".to_owned() },
            ),
            (
                "E: Version '9' for 'iptables' was not found",
                Cause::NoDebianPackage { name: "iptables=9".to_owned() },
            ),
        ] {
            assert_eq!(cause(said), Some(expected), "{said}");
        }
        assert_eq!(cause("hello\nE: Sub-process returned an error code"), None);
    }

    fn said(reason: &str) -> String {
        let output =
            format!("error: No solution found when resolving dependencies\n  cause: {reason}\n\nhint: more");
        let Some(Cause::NoSolution(facts)) = cause(&output) else { panic!("{reason}") };
        let list = |terms: &[Term]| terms.iter().map(ToString::to_string).collect::<Vec<_>>().join(" & ");
        let fact = |fact: &Fact| match fact {
            Fact::Asked(what) => format!("asked {}", list(what)),
            Fact::Needs(who, what) => format!("{who} needs {}", list(what)),
            Fact::Unknown(name) => format!("unknown {name}"),
            Fact::NoVersion(what) => format!("no {what}"),
            Fact::Only(what) => format!("only {what}"),
            Fact::NoWheel(what) => format!("no wheel {what}"),
        };
        facts.iter().map(fact).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn reasons_of_uv_become_facts() {
        for (reason, expected) in [
            (
                "Because nothing-there was not found in the package registry and your-list depends on nothing-there, we can conclude that your requirements are unsatisfiable.",
                "unknown nothing-there; asked nothing-there",
            ),
            (
                "Because only ours<=2.0 is available and your-list depends on ours>=9, we can conclude that your requirements are unsatisfiable.",
                "only ours<=2.0; asked ours>=9",
            ),
            (
                "Because there is no version of requests==2.99 and your-list depends on requests==2.99, we can conclude that your requirements are unsatisfiable.",
                "no requests==2.99; asked requests==2.99",
            ),
            ("your-list depends on ours<0.5 and ours>=1, which are incompatible", "asked ours<0.5 & ours>=1"),
            (
                "Because all versions of needs-ours depend on ours<2 and your-list depends on needs-ours, we can conclude that your-list depends on ours<2.\n         And because your-list depends on ours>=2, we can conclude that your requirements are unsatisfiable.",
                "needs-ours needs ours<2; asked needs-ours; asked ours>=2",
            ),
            (
                "Because all versions of docopt have no usable wheels and your-list depends on docopt, we can conclude that your requirements are unsatisfiable.",
                "no wheel docopt; asked docopt",
            ),
            (
                "Because torch==2.0.0 has no wheels with a matching Python ABI tag (e.g., `cp313`) and your-list depends on torch==2.0.0, we can conclude that your requirements are unsatisfiable.",
                "no wheel torch==2.0.0; asked torch==2.0.0",
            ),
            (
                "Because matplotlib<=3.5.3 has no usable wheels and only the following versions of matplotlib are available:\n             matplotlib<=3.5.3\n             matplotlib>=3.6\n         we can conclude that matplotlib<3.6 cannot be used.\n         And because your-list depends on matplotlib<3.6, we can conclude that your requirements are unsatisfiable.",
                "no wheel matplotlib<=3.5.3; only matplotlib>=3.6; asked matplotlib<3.6",
            ),
            (
                "Because mcp>=2.0.0a1 depends on pydantic>=2.12.0 and mcp>=1.28.0,<=1.30.0 depends on pydantic{python_full_version < '3.14'}>=2.11.0,<3.0.0, we can conclude that mcp>=1.9.0 depends on pydantic>=2.7.2.\n         And because your-list depends on mcp>=1.9 and pydantic>=1.10,<2, we can conclude that your requirements are unsatisfiable.",
                "mcp>=2.0.0a1 needs pydantic>=2.12.0; mcp>=1.28.0,<=1.30.0 needs pydantic>=2.11.0,<3.0.0; mcp>=1.9.0 needs pydantic>=2.7.2; asked mcp>=1.9 & pydantic>=1.10,<2",
            ),
            (
                "Because opencv==4.12.0.88 depends on numpy>=2,<2.3.0 and opencv>=4.12.0.88 depends on numpy==1.26.4, we can conclude that opencv==4.12.0.88 cannot be used.\n       And because only the following versions of opencv are available:\n           opencv<=4.12.0.88\n           opencv>=4.13.0.90\n       we can conclude that opencv>=4.12.0.88,<4.13.0.90 cannot be used. (1)\n\n       Because opencv>=4.13.0.90 depends on numpy>=2 and numpy==1.26.4, we can conclude that opencv>=4.13.0.90 cannot be used.\n       And because we know from (1) that opencv>=4.12.0.88,<4.13.0.90 cannot be used, we can conclude that opencv>=4.12.0.88 cannot be used.\n       And because only the following versions of opencv are available:\n           opencv<4.12\n           opencv>=4.12.0.88\n       and your-list depends on opencv>=4.12, we can conclude that your requirements are unsatisfiable.",
                "opencv==4.12.0.88 needs numpy>=2,<2.3.0; opencv>=4.12.0.88 needs numpy==1.26.4; only opencv>=4.13.0.90; opencv>=4.13.0.90 needs numpy>=2 & numpy==1.26.4; only opencv>=4.12.0.88; asked opencv>=4.12",
            ),
            (
                "Because pandas>=2.2.2 depends on numpy{python_full_version < '3.12'}>=1.23.2 and all of:\n       pandas>=3.0.0,<=3.0.3\n       pandas>=3.0.5\n    depend on numpy>=1.26.0 and pandas==3.0.4 has no usable wheels, we can conclude that pandas>=2.2.0 depends on numpy>=1.23.2.\n   And because your-list depends on pandas>=2.2 and numpy<1.20, we can conclude that your requirements are unsatisfiable.",
                "pandas>=2.2.2 needs numpy>=1.23.2; pandas>=3.0.0,<=3.0.3 needs numpy>=1.26.0; no wheel pandas==3.0.4; pandas>=2.2.0 needs numpy>=1.23.2; asked pandas>=2.2 & numpy<1.20",
            ),
            (
                "Because prefect>=3.0.0 depends on one of:\n             pydantic>=2.7,<2.10.0\n             pydantic>2.10.0,<3.0.0\n         we can conclude that prefect>=3.0.0 depends on pydantic>=2.7,<3.0.0.\n         And because your-list depends on prefect>=3 and pydantic<2.5, we can conclude that your requirements are unsatisfiable.",
                "prefect>=3.0.0 needs pydantic>=2.7,<2.10.0 & pydantic>2.10.0,<3.0.0; prefect>=3.0.0 needs pydantic>=2.7,<3.0.0; asked prefect>=3 & pydantic<2.5",
            ),
        ] {
            assert_eq!(said(reason), expected);
        }
    }
}
