//! Meaning compared with the recorded answers of poetry-core, packaging and pip.
//!
//! `tests/poetry/record.py` and `tests/pip/record.py` recorded them. Where we differ, the difference
//! is one that `docs/dependencies.md` lists, and told here by a predicate.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stderr, reason = "how many differences there are of each kind")]
#![expect(clippy::too_many_lines, reason = "a comparison goes through all parts of an answer")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use ipybox::deps::{Constraint, Marker, Priority, Selection, Source, Spec, Surroundings, pep508};
use ipybox::diagnostic::{Document, Documents};
use pep440_rs::Version;
use serde::Deserialize;

/// The recorded answers, one per line.
fn lines<T: for<'de> Deserialize<'de>>(text: &'static str) -> Vec<T> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}")))
        .collect()
}

/// Disagreements by kind; those of no documented kind fail.
#[derive(Default)]
struct Differences {
    documented: BTreeMap<&'static str, usize>,
    others: Vec<String>,
}

impl Differences {
    fn add(&mut self, kind: Option<&'static str>, what: String) {
        match kind {
            Some(kind) => *self.documented.entry(kind).or_default() += 1,
            None => self.others.push(what),
        }
    }

    fn check(self, cases: usize) {
        eprintln!("{cases} cases; documented differences: {:?}", self.documented);
        for kind in self.documented.keys() {
            let page = include_str!("../docs/dependencies.md");
            assert!(page.contains(kind), "docs/dependencies.md does not say: {kind}");
        }
        let shown: Vec<_> = self.others.iter().take(60).map(String::as_str).collect();
        assert!(
            shown.is_empty(),
            "{} differences of no documented kind:\n{}",
            self.others.len(),
            shown.join("\n")
        );
    }
}

fn versions(list: &str) -> impl Iterator<Item = Version> {
    list.split_whitespace().map(|version| version.parse().unwrap())
}

/// The documented reason why a constraint that both read is not the same set.
fn kind_of_difference(text: &str, only_poetry: &[Version], only_ours: &[Version]) -> Option<&'static str> {
    let behind = |operator: &str| -> Vec<Version> {
        let rest = text.split(operator).skip(1).map(str::trim_start);
        rest.filter_map(|rest| rest.split([',', ' ', '|', '"']).next()?.parse().ok()).collect()
    };
    // `<2 || >2` is `!=2`, too.
    let above = behind(">");
    let mut excluded = behind("!=");
    excluded.extend(behind("<").into_iter().filter(|version| above.contains(version)));
    let beside = |version: &Version| {
        excluded
            .iter()
            .any(|one| one.only_release() == version.only_release() && one.epoch() == version.epoch())
    };
    if text.contains("C1") {
        Some("poetry-core sorts an upper case `C` before `rc`")
    } else if only_poetry.is_empty() && only_ours.iter().all(beside) {
        Some("poetry-core leaves out what belongs to an excluded version")
    } else if only_ours.is_empty()
        && only_poetry.iter().all(|version| version.is_local() && excluded.contains(version))
    {
        Some("poetry-core forgets an excluded local version beside another range")
    } else {
        None
    }
}

/// The documented reason why we refuse a constraint that poetry-core reads.
fn kind_of_refusal(text: &str, why: &str) -> Option<&'static str> {
    if text.contains("<>") {
        Some("`<>` is refused; poetry-core takes it for `==`")
    } else if why.contains("a local label") {
        Some("PEP 440 has no orderings of local labels")
    } else {
        None
    }
}

#[derive(Deserialize)]
struct ConstraintCase {
    text: String,
    #[serde(default)]
    refused: bool,
    #[serde(default, rename = "in")]
    inside: String,
    #[serde(default, rename = "out")]
    outside: String,
}

/// Versions that only the recorded answer has, and those that only we have.
fn set_difference(constraint: &Constraint, inside: &str, outside: &str) -> (Vec<Version>, Vec<Version>) {
    let only_theirs = versions(inside).filter(|version| !constraint.contains(version)).collect();
    (only_theirs, versions(outside).filter(|version| constraint.contains(version)).collect())
}

fn joined(versions: &[Version]) -> String {
    versions.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

#[test]
fn constraints_mean_what_poetry_core_says() {
    let mut differences = Differences::default();
    let cases: Vec<ConstraintCase> = lines(include_str!("poetry/constraints.jsonl"));
    for case in &cases {
        let parsed = Constraint::parse(&case.text);
        let Ok(constraint) = parsed else {
            if !case.refused {
                let why = parsed.unwrap_err().to_string();
                differences
                    .add(kind_of_refusal(&case.text, &why), format!("{:?}: we refuse: {why}", case.text));
            }
            continue;
        };
        if case.refused {
            differences.add(None, format!("{:?}: Poetry refuses, we say {constraint}", case.text));
            continue;
        }
        let (only_poetry, only_ours) = set_difference(&constraint, &case.inside, &case.outside);
        if !(only_poetry.is_empty() && only_ours.is_empty()) {
            let kind = kind_of_difference(&case.text, &only_poetry, &only_ours);
            differences.add(
                kind,
                format!(
                    "{:?} = {constraint}: only Poetry has {}, only we have {}",
                    case.text,
                    joined(&only_poetry),
                    joined(&only_ours)
                ),
            );
        }
    }
    differences.check(cases.len());
}

/// What each operator means in front of one version, as a digit for each probe; `None` where it is refused.
#[derive(Deserialize)]
struct ShapeCase {
    version: String,
    probes: String,
    poetry: BTreeMap<String, Option<String>>,
    packaging: BTreeMap<String, Option<String>>,
}

/// Whether PEP 440 has a specifier: `.*` only behind a release, local labels and both only with `==` and `!=`, and
/// `~=` with two segments.
fn is_specifier(text: &str) -> bool {
    let operator = text.find(|next: char| !"~=!<>".contains(next)).unwrap_or(text.len());
    let (operator, written) = text.split_at(operator);
    let (version, wildcard) = written.strip_suffix(".*").map_or((written, false), |version| (version, true));
    let Ok(version) = version.parse::<Version>() else { return false };
    let equality = ["==", "!="].contains(&operator);
    let plain = !(version.any_prerelease() || version.is_post() || version.is_local());
    ["==", "!=", "<", "<=", ">", ">=", "~="].contains(&operator)
        && (!wildcard || equality && plain)
        && (!version.is_local() || equality)
        && (operator != "~=" || version.release().len() > 1)
}

#[test]
fn every_operator_with_every_shape_of_version_means_what_pep_440_says_or_else_poetry() {
    let mut differences = Differences::default();
    let cases: Vec<ShapeCase> = lines(include_str!("poetry/shapes.jsonl"));
    for ShapeCase { version, probes, poetry, packaging } in &cases {
        for (operator, poetry) in poetry {
            let (text, packaging) = (format!("{operator}{version}"), &packaging[operator]);
            assert_eq!(is_specifier(&text), packaging.is_some(), "{text}");
            let ours = Constraint::parse(&text);
            let Ok(constraint) = &ours else {
                if packaging.is_some() || poetry.is_some() {
                    let why = ours.unwrap_err().to_string();
                    differences.add(kind_of_refusal(&text, &why), format!("{text:?}: we refuse: {why}"));
                }
                continue;
            };
            for set in constraint.alternatives().iter().chain(&constraint.but_for_prereleases()) {
                for specifier in set.iter().map(ToString::to_string) {
                    assert!(is_specifier(&specifier), "{text:?} is printed as {specifier:?}");
                }
            }
            let meant: String =
                versions(probes).map(|probe| if constraint.contains(&probe) { '1' } else { '0' }).collect();
            let wrong = |theirs: &str| {
                let differ = versions(probes).zip(meant.chars().zip(theirs.chars()));
                let differ = differ.filter(|(_, (one, other))| one != other).map(|(probe, _)| probe);
                format!("{text:?} = {constraint}: {}", joined(&differ.collect::<Vec<_>>()))
            };
            match (packaging, poetry) {
                // PEP 440 counts where it has the specifier.
                // It says "of the given version", and packaging reads that as of its release.
                (Some(packaging), Some(poetry)) if *packaging != meant && *poetry == meant => {
                    let given: Version = version.parse().unwrap();
                    let beside =
                        operator == ">" && given.any_prerelease() || operator == "<" && given.is_post();
                    let kind =
                        "packaging takes what belongs to the release for what belongs to its suffix, too";
                    differences
                        .add(beside.then_some(kind), format!("packaging differs: {}", wrong(packaging)));
                }
                (Some(packaging), _) if *packaging != meant => {
                    differences.add(None, format!("packaging differs: {}", wrong(packaging)));
                }
                (Some(_), Some(poetry)) if *poetry != meant => {
                    let kind = if operator == "~=" {
                        "`~=` keeps all segments but the last, as PEP 440 has it"
                    } else if operator == "!=" {
                        "poetry-core leaves out what belongs to an excluded version"
                    } else {
                        "orderings are those of PEP 440"
                    };
                    differences.add(Some(kind), wrong(poetry));
                }
                (None, Some(poetry)) if *poetry != meant => {
                    let of_development = version.contains(".dev") && version.ends_with(".*");
                    let kind = "`.*` behind a development release means that release";
                    differences
                        .add(of_development.then_some(kind), format!("Poetry differs: {}", wrong(poetry)));
                }
                (None, None) => differences.add(None, format!("{text:?}: all refuse, we say {constraint}")),
                _ => {}
            }
        }
    }
    differences.check(cases.len());
}

#[derive(Deserialize)]
struct MarkerCase {
    text: String,
    truth: Option<String>,
    /// Of what poetry-core refuses: whether packaging accepts it.
    #[serde(default)]
    pep508: bool,
}

type Environment = BTreeMap<String, String>;

/// `0`, `1` or `?` for each environment.
fn truth(marker: Option<&Marker>, environments: &[Environment]) -> String {
    let holds = |environment: &Environment| match marker {
        None => '1',
        Some(marker) => match marker.holds(&|name| environment.get(name).cloned()) {
            Some(true) => '1',
            Some(false) => '0',
            None => '?',
        },
    };
    environments.iter().map(holds).collect()
}

fn same_truth(one: &str, other: &str) -> bool {
    one.chars().zip(other.chars()).all(|(one, other)| one == other || one == '?' || other == '?')
}

/// The documented reason why a marker that both read does not hold in the same environments.
fn kind_of_marker_difference(text: &str) -> Option<&'static str> {
    let values: Vec<&str> = text.split(['"', '\'']).skip(1).step_by(2).collect();
    let listed = |value: &&str| value.contains([',', ' ']);
    if text.contains("platform_release") || text.contains("platform_version") {
        Some("the kernel a container will run on is not known")
    } else if text.is_empty() || values.contains(&"") {
        Some("an empty text is a text, not any value")
    } else if ["' in python", "' not in python", "\" in python", "\" not in python"]
        .iter()
        .any(|reversed| text.contains(reversed))
    {
        Some("behind `in`, a variable is a text, not a list of versions")
    } else if values.iter().any(listed) {
        Some("only `in` and `not in` take lists")
    } else if text.contains("implementation_version") {
        Some("`implementation_version` is a version")
    } else if text.contains("~=") {
        Some("poetry-core takes `~=3.9` of a full version for `3.9.*`")
    } else if text.contains("in \"linux2\"") {
        Some("`in` for other variables looks for a part of the text, as PEP 508 has it")
    } else if text.contains("python_full_version !=") || text.contains("python_full_version not in") {
        Some("poetry-core leaves out what belongs to an excluded version")
    } else {
        None
    }
}

#[test]
fn markers_mean_what_poetry_core_says() {
    let environments: Vec<Environment> =
        serde_json::from_str(include_str!("poetry/environments.json")).unwrap();
    let mut differences = Differences::default();
    let cases: Vec<MarkerCase> = lines(include_str!("poetry/markers.jsonl"));
    for case in &cases {
        match (Marker::parse(&case.text), &case.truth) {
            (Err(_), None) => {}
            (Err(error), Some(_)) => {
                let kind = if error.why.contains("no escapes") {
                    Some("PEP 508 has no escapes in texts")
                } else {
                    case.text.is_empty().then_some("an empty marker is refused where one must stand")
                };
                differences.add(kind, format!("{:?}: we refuse: {error}", case.text));
            }
            (Ok(_), None) if case.pep508 => {
                differences.add(Some("PEP 508 has it, poetry-core refuses it"), String::new());
            }
            (Ok(marker), None) => {
                differences.add(None, format!("{:?}: Poetry refuses, we say {marker}", case.text));
            }
            (Ok(marker), Some(truth_of_poetry)) => {
                let ours = truth(Some(&marker), &environments);
                if !same_truth(&ours, truth_of_poetry) {
                    let kind = kind_of_marker_difference(&case.text);
                    differences
                        .add(kind, format!("{:?}\n   Poetry {truth_of_poetry}\n   ours   {ours}", case.text));
                }
            }
        }
    }
    differences.check(cases.len());
}

#[derive(Deserialize)]
struct TableCase {
    toml: String,
    #[serde(default)]
    refused: bool,
    python: Option<String>,
    #[serde(default)]
    dependencies: Vec<TableDependency>,
}

#[derive(Deserialize)]
struct TableDependency {
    name: String,
    extras: Vec<String>,
    optional: bool,
    allow_prereleases: Option<bool>,
    #[serde(rename = "in")]
    inside: String,
    #[serde(rename = "out")]
    outside: String,
    marker: String,
    source: serde_json::Value,
}

fn source_json(source: &Source) -> serde_json::Value {
    match source {
        Source::Registry { index } => serde_json::json!({"type": "registry", "index": index}),
        Source::Git { url, reference, subdirectory, develop } => {
            serde_json::json!({"type": "git", "url": url, "ref": reference, "subdirectory": subdirectory, "develop": develop})
        }
        Source::Url { url, subdirectory, .. } => {
            serde_json::json!({"type": "url", "url": url, "subdirectory": subdirectory})
        }
        Source::Path { path, subdirectory, develop } => {
            serde_json::json!({"type": "path", "path": path, "subdirectory": subdirectory, "develop": develop})
        }
    }
}

#[test]
fn tables_mean_what_poetry_core_says() {
    let environments: Vec<Environment> =
        serde_json::from_str(include_str!("poetry/environments.json")).unwrap();
    let mut differences = Differences::default();
    let cases: Vec<TableCase> = lines(include_str!("poetry/tables.jsonl"));
    for case in &cases {
        let text = format!("[tool.poetry.dependencies]\n{}", case.toml);
        if case.toml.is_empty() {
            continue;
        }
        let spec = match (Spec::parse(&text), case.refused) {
            (Err(_), true) => continue,
            (Err(mistakes), false) => {
                let why: Vec<_> = mistakes.iter().map(|one| format!("{}: {}", one.what, one.why)).collect();
                let why = why.join("; ");
                let kind = match why.as_str() {
                    why if why.contains("no distribution name") || why.contains("invalid extra") => {
                        Some("names and extras must be ones that PEP 508 allows")
                    }
                    why if why.contains("invalid platform") => {
                        Some("a platform that there cannot be is refused")
                    }
                    why if why.contains("admits no version of Python") => {
                        Some("a list no Python can meet is refused")
                    }
                    why if why.contains("invalid address") || why.contains("outside of it") => {
                        Some("an address or subdirectory must be one that there can be")
                    }
                    why if why.contains("holds credentials") => Some("credentials are refused"),
                    why if why.contains("`allows-prereleases`, and means nothing") => {
                        Some("`allows-prereleases` is refused; poetry-core takes it and does nothing")
                    }
                    why if why.contains("has an empty") => Some("an empty address or path is refused"),
                    why if why.contains("`python` has a value of the wrong type") => {
                        Some("`python` must be a constraint; poetry-core ignores tables")
                    }
                    why => kind_of_refusal(&case.toml, why),
                };
                differences.add(kind, format!("{}: we refuse: {why}", case.toml));
                continue;
            }
            (Ok(_), true) => {
                let trailing_comma =
                    case.toml.ends_with(",}").then_some("TOML 1.1 has trailing commas in inline tables");
                differences.add(trailing_comma, format!("{}: only Poetry refuses", case.toml));
                continue;
            }
            (Ok(spec), false) => spec,
        };
        if let Some(python) = &case.python {
            let wanted = Constraint::parse(python).unwrap();
            if spec.python.last().map(|(python, _)| python) != Some(&wanted) {
                differences.add(None, format!("{}: python is {:?}", case.toml, spec.python));
            }
        }
        if spec.dependencies.len() != case.dependencies.len() {
            differences.add(
                None,
                format!(
                    "{}: {} dependencies, not {}",
                    case.toml,
                    spec.dependencies.len(),
                    case.dependencies.len()
                ),
            );
            continue;
        }
        for (ours, theirs) in spec.dependencies.iter().zip(&case.dependencies) {
            let mut wrong = Vec::new();
            let mut extras: Vec<_> = ours.extras.iter().map(ToString::to_string).collect();
            extras.sort();
            extras.dedup();
            if ours.optional && !theirs.optional && case.toml.contains("file") {
                differences.add(Some("poetry-core forgets `optional` beside `file`"), String::new());
            } else if ours.optional != theirs.optional {
                wrong.push(format!("optional {}", ours.optional));
            }
            if ours.name.as_str() != theirs.name || extras != theirs.extras {
                wrong.push(format!("{} {extras:?}", ours.name));
            }
            if theirs.allow_prereleases.is_some_and(|allowed| allowed != ours.allow_prereleases) {
                wrong.push("pre-releases".to_owned());
            }
            if source_json(&ours.source) != theirs.source {
                wrong.push(format!("source {} not {}", source_json(&ours.source), theirs.source));
            }
            if ours.source == Source::default() {
                let (only_poetry, only_ours) =
                    set_difference(&ours.constraint, &theirs.inside, &theirs.outside);
                if !(only_poetry.is_empty() && only_ours.is_empty()) {
                    match kind_of_difference(&case.toml, &only_poetry, &only_ours) {
                        Some(known) => differences.add(Some(known), String::new()),
                        None => wrong.push(format!(
                            "{}: only Poetry has {}, only we have {}",
                            ours.constraint,
                            joined(&only_poetry),
                            joined(&only_ours)
                        )),
                    }
                }
            }
            let truth = truth(ours.marker.as_ref(), &environments);
            if !same_truth(&truth, &theirs.marker) {
                wrong.push(format!("marker {} {truth} not {}", ours.marker.as_ref().unwrap(), theirs.marker));
            }
            if !wrong.is_empty() {
                differences.add(None, format!("{}: {}", case.toml, wrong.join("; ")));
            }
        }
    }
    differences.check(cases.len());
}

#[derive(Deserialize)]
struct RequirementCase {
    text: String,
    #[serde(default)]
    refused: bool,
    name: Option<String>,
    #[serde(default)]
    extras: Vec<String>,
    #[serde(default, rename = "in")]
    inside: String,
    #[serde(default, rename = "out")]
    outside: String,
    marker: Option<String>,
    url: Option<String>,
}

#[test]
fn requirements_mean_what_packaging_says() {
    let environments: Vec<Environment> = serde_json::from_str(include_str!("pip/environments.json")).unwrap();
    let mut differences = Differences::default();
    let cases: Vec<RequirementCase> = lines(include_str!("pip/requirements.jsonl"));
    for case in &cases {
        let ours = match (pep508::parse(&case.text), case.refused) {
            (Err(_), true) => continue,
            (Err(mistake), false) => {
                let kind = match mistake.what.as_str() {
                    what if what.contains("holds credentials") => Some("credentials are refused"),
                    what if what.contains("invalid address") => {
                        Some("an address must be one; packaging takes any word")
                    }
                    _ if mistake.why.contains("distribution name") && case.text.contains('_') => {
                        Some("names end with a letter or digit")
                    }
                    _ if case.text.contains("extras") || case.text.contains("dependency_groups") => {
                        Some("variables of lock files are none of requirements")
                    }
                    _ if mistake.why.contains("on one side") => Some("a comparison has a variable"),
                    _ if mistake.why.contains("no escapes") => Some("PEP 508 has no escapes in texts"),
                    _ if case.text.contains('\n') || mistake.why.starts_with("U+") => {
                        Some("white space is spaces and tabs")
                    }
                    _ if mistake.why.contains("less than or equal to") => {
                        Some("numbers in versions fit into 64 bits")
                    }
                    _ if case.text.contains("===") => Some("`===` compares versions, not their spelling"),
                    _ => None,
                };
                differences
                    .add(kind, format!("{:?}: we refuse: {}: {}", case.text, mistake.what, mistake.why));
                continue;
            }
            (Ok(_), true) => {
                differences.add(None, format!("{:?}: only packaging refuses", case.text));
                continue;
            }
            (Ok(dependency), false) => dependency,
        };
        let mut wrong = Vec::new();
        let mut extras: Vec<_> = ours.extras.iter().map(ToString::to_string).collect();
        extras.sort();
        extras.dedup();
        if Some(ours.name.as_str()) != case.name.as_deref() || extras != case.extras {
            wrong.push(format!("{} {extras:?}", ours.name));
        }
        if case.url.is_some() == (ours.source == Source::default()) {
            wrong.push(format!("source {:?}", ours.source));
        }
        let (only_theirs, only_ours) = set_difference(&ours.constraint, &case.inside, &case.outside);
        if !(only_theirs.is_empty() && only_ours.is_empty()) {
            let bounds: Vec<Version> = ours
                .constraint
                .alternatives()
                .iter()
                .flat_map(|set| set.iter().map(|one| one.version().clone()))
                .collect();
            let beside =
                |version: &Version| bounds.iter().any(|bound| bound.only_release() == version.only_release());
            let kind = if case.text.contains("===") {
                Some("`===` compares versions, not their spelling")
            } else if only_theirs.is_empty() && only_ours.iter().all(beside) {
                Some("packaging takes a bound's suffixes off before it leaves out what belongs to it")
            } else if only_theirs.is_empty() && case.text.contains("~=") {
                Some("packaging mistakes an odd spelling of a suffix behind `~=` for a segment")
            } else {
                None
            };
            match kind {
                Some(kind) => differences.add(Some(kind), String::new()),
                None => wrong.push(format!(
                    "{}: only packaging has {}, only we have {}",
                    ours.constraint,
                    joined(&only_theirs),
                    joined(&only_ours)
                )),
            }
        }
        if let Some(marker) = &case.marker {
            let truth = truth(ours.marker.as_ref(), &environments);
            if !same_truth(&truth, marker) {
                let marker_text = ours.marker.as_ref().map(ToString::to_string).unwrap_or_default();
                if marker_text.contains("in \"3") {
                    differences.add(Some("`in` for a version lists versions"), String::new());
                } else if marker_text == "python_version == python_version" {
                    differences.add(
                        Some("packaging compares a second variable's name, not its value"),
                        String::new(),
                    );
                } else {
                    wrong.push(format!("marker {truth} not {marker}"));
                }
            }
        }
        if !wrong.is_empty() {
            differences.add(None, format!("{:?}: {}", case.text, wrong.join("; ")));
        }
    }
    differences.check(cases.len());
}

#[derive(Deserialize)]
struct FileCase {
    files: BTreeMap<String, String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    answer: FileAnswer,
}

#[derive(Deserialize)]
struct FileAnswer {
    #[serde(default)]
    refused: bool,
    #[serde(default)]
    requirements: Vec<FileRequirement>,
    index_url: Option<String>,
    #[serde(default)]
    extra_index_urls: Vec<String>,
    #[serde(default)]
    pre: bool,
}

#[derive(Deserialize)]
struct FileRequirement {
    requirement: String,
    editable: bool,
    constraint: bool,
    #[serde(default)]
    hashes: BTreeMap<String, Vec<String>>,
}

/// The documented reason why we refuse a line that pip's first look at a file lets pass.
fn kind_of_refused_line(why: &str, readable: bool) -> Option<&'static str> {
    Some(match why {
        why if why.contains("only projects can be editable") => "pip reads a requirement's text only later",
        why if why.contains("cannot be told") => "a file or folder needs a name that can be told",
        why if why.contains("no option") => "options are written out",
        why if why.contains("behind an option") || why.contains("stands behind the requirement") => {
            "pip drops what stands where it does not belong"
        }
        why if why.contains("invalid hash")
            || why.contains("leaves its version open")
            || why.contains("has no hash") =>
        {
            "hashes are checked when they are read"
        }
        why if why.contains("belongs to no requirement") => "pip drops a hash without a requirement",
        why if why.contains("is not supported")
            || why.contains("--trusted-host")
            || why.contains("--no-binary") =>
        {
            "options that images cannot heed are refused"
        }
        why if why.contains("holds credentials") => "credentials are refused",
        why if why.contains("no address of a package index") => "an index has an address",
        why if why.contains("is not set") => "an unset variable is a mistake",
        why if why.contains("more than which versions") => {
            "pip refuses extras and addresses of constraints only later"
        }
        why if why.contains("from the network") => "no file is included from the network",
        why if why.contains("the interpreter is no") => "`python` is no distribution",
        why if !readable || why.contains("U+") => "pip reads a requirement's text only later",
        _ => return None,
    })
}

#[test]
fn requirements_files_mean_what_pip_says() {
    let mut differences = Differences::default();
    let cases: Vec<FileCase> = lines(include_str!("pip/files.jsonl"));
    for case in &cases {
        let read = |path: &Path| match case.files.get(path.to_str().unwrap()) {
            Some(text) => {
                let text = text.strip_prefix('\u{feff}').unwrap_or(text).to_owned();
                Ok(Document::new(path, text))
            }
            None => Err(std::io::ErrorKind::NotFound.into()),
        };
        let variable = |name: &str| case.env.get(name).cloned().filter(|value| !value.is_empty());
        let start = Document::new("start.txt", "-r requirements.txt\n");
        let mut documents = Documents::from(start);
        let surroundings = Surroundings { read: &read, variable: &variable };
        let ours = Spec::read(&mut documents, &Selection::default(), surroundings);
        let shown = serde_json::to_string(&case.files).unwrap();
        match (ours, case.answer.refused) {
            (Err(_), true) => {}
            (Ok(_), true) => {
                let kind = match shown.as_str() {
                    text if text.contains("coding:") => Some("files are UTF-8, whatever they say"),
                    text if text.contains("--use-feature") || text.contains("--config-settings") => {
                        Some("settings of pip itself mean nothing")
                    }
                    text if text.contains("' -") => Some("a quoted `-` begins no option"),
                    _ => None,
                };
                differences.add(kind, format!("{shown}: only pip refuses"));
            }
            (Err(mistakes), false) => {
                let why: Vec<_> = mistakes.iter().map(|one| format!("{}: {}", one.what, one.why)).collect();
                let readable =
                    case.answer.requirements.iter().all(|one| pep508::parse(one.requirement.trim()).is_ok());
                let kinds: Option<Vec<_>> =
                    why.iter().map(|why| kind_of_refused_line(why, readable)).collect();
                let kind = match kinds {
                    Some(kinds) => kinds.first().copied(),
                    None if case.env.values().any(|value| value.contains("${")) => {
                        Some("a variable's value is not expanded again")
                    }
                    None if shown.contains("\\u001c") => Some("only line feeds end lines"),
                    None => None,
                };
                differences.add(kind, format!("{shown}: we refuse: {}", why.join("; ")));
            }
            (Ok(spec), false) => {
                let describe =
                    |name: &str, constraint: String, hashes: usize| format!("{name} {constraint} {hashes}");
                let of = |list: &[ipybox::deps::Dependency]| -> Vec<String> {
                    list.iter()
                        .map(|one| describe(one.name.as_str(), one.constraint.to_string(), one.hashes.len()))
                        .collect()
                };
                // What pip takes apart only later: not to be told here.
                let unnamed = |one: &FileRequirement| {
                    one.editable || one.requirement.contains(['/', '\t']) || one.requirement.contains(".whl")
                };
                let theirs = |constraint: bool| -> Vec<Option<String>> {
                    let requirements =
                        case.answer.requirements.iter().filter(|one| one.constraint == constraint);
                    let described = |one: &FileRequirement| {
                        let parsed = pep508::parse(one.requirement.trim()).ok().filter(|_| !unnamed(one))?;
                        let hashes = one.hashes.values().map(Vec::len).sum();
                        Some(describe(parsed.name.as_str(), parsed.constraint.to_string(), hashes))
                    };
                    requirements.map(described).collect()
                };
                let indexes = |priority| -> Vec<String> {
                    spec.indexes
                        .iter()
                        .filter(|index| index.priority == priority)
                        .map(|index| index.url.clone())
                        .collect()
                };
                let mut wrong = Vec::new();
                for (ours, theirs) in
                    [(of(&spec.dependencies), theirs(false)), (of(&spec.bounds), theirs(true))]
                {
                    let set = |list: Vec<String>| list.into_iter().collect::<BTreeSet<_>>();
                    let named = set(theirs.iter().flatten().cloned().collect());
                    let rest = theirs.iter().filter(|one| one.is_none()).count();
                    let ours_named = set(ours.clone());
                    if !(ours_named.is_superset(&named) && ours_named.len() <= named.len() + rest) {
                        wrong.push(format!("{ours:?} not {theirs:?}"));
                    }
                }
                if indexes(Priority::Default).last() != case.answer.index_url.as_ref()
                    || indexes(Priority::Extra) != case.answer.extra_index_urls
                {
                    wrong.push(format!("indexes {:?}", spec.indexes));
                }
                if !spec.dependencies.is_empty()
                    && spec.dependencies.iter().all(|one| one.allow_prereleases) != case.answer.pre
                {
                    wrong.push("pre-releases".to_owned());
                }
                if !wrong.is_empty() {
                    let first = case.files["requirements.txt"].lines().next().unwrap_or_default();
                    let kind = if first.contains(" -r ")
                        || first.contains(" -c ")
                        || first.starts_with("-r ") && first.contains(" --")
                    {
                        Some("every option of a line counts; pip heeds one beside an include")
                    } else if first.starts_with("-c")
                        && case.files.values().any(|text| text.starts_with("-r "))
                    {
                        Some("what a constraints file includes only constrains")
                    } else {
                        None
                    };
                    differences.add(kind, format!("{shown}: {}", wrong.join("; ")));
                }
            }
        }
    }
    differences.check(cases.len());
}
