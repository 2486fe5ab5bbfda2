//! Every spelling of a version constraint, with the rule it comes from.

use std::cmp::Ordering;
use std::fmt;
use std::ops::Range;
use std::str::FromStr;
use std::sync::Arc;

use pep440_rs::{Operator, Version, VersionSpecifier, VersionSpecifiers};

use super::range::{self, Range as Versions};

/// A set of versions, as Poetry's constraint language describes it: a union of PEP 440 specifier
/// sets, oldest versions first. Poetry's own operators are already lowered to PEP 440.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Constraint {
    alternatives: Arc<[VersionSpecifiers]>,
}

/// Why a text is no constraint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct ConstraintError {
    /// Bytes of the text given to the parser.
    pub at: Range<usize>,
    /// A phrase such as "expected a version".
    pub why: String,
    /// What the refused part was surely meant to be.
    pub instead: Option<String>,
}

impl Constraint {
    /// Any version: `*`.
    #[must_use]
    pub fn any() -> Self {
        Self::from(VersionSpecifiers::empty())
    }

    /// One specifier set per alternative; the constraint holds where one of them does.
    #[must_use]
    pub fn alternatives(&self) -> &[VersionSpecifiers] {
        &self.alternatives
    }

    /// As few specifier sets as say the same of all versions but pre-releases: `<2 || >=3` is `!=2.*`,
    /// which leaves out what lies between but for pre-releases of 3.
    #[must_use]
    pub fn but_for_prereleases(&self) -> Vec<VersionSpecifiers> {
        let mut sets: Vec<VersionSpecifiers> = Vec::with_capacity(self.alternatives.len());
        for set in self.alternatives.iter() {
            match sets.last().and_then(|last| range::close_gap(last, set)) {
                Some(closed) => *sets.last_mut().expect("there is a last one") = closed,
                None => sets.push(set.clone()),
            }
        }
        sets
    }

    /// Whether `version` is in the set, by the rules of PEP 440, "Version specifiers".
    #[must_use]
    pub fn contains(&self, version: &Version) -> bool {
        let meets_all = |set: &VersionSpecifiers| set.iter().all(|one| range::meets(one, version));
        self.alternatives.iter().any(meets_all)
    }

    /// Whether every version is in the set.
    #[must_use]
    pub fn is_any(&self) -> bool {
        self.alternatives.iter().any(VersionSpecifiers::is_empty)
    }

    /// Whether no version is in the set, as of `>=3,<2`.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.alternatives.iter().all(|set| range::intersection(set).is_none())
    }

    /// Parses Poetry's constraint language: comparators joined by `,` or a space (all must hold) and
    /// by `||` or `|` (one must hold).
    ///
    /// Rule: Poetry, "Dependency specification", "Version constraints". `^` lets everything change
    /// but the leftmost non-zero release segment, `~` the last of at most two segments given;
    /// a bare version means exactly that version, and `.*` any continuation.
    ///
    /// # Errors
    ///
    /// [`ConstraintError`] for the first part that is not a comparator.
    pub fn parse(text: &str) -> Result<Self, ConstraintError> {
        if text.is_empty() {
            let why = "expected a version constraint; `*` means any version".into();
            return Err(ConstraintError { at: 0..0, why, instead: Some("*".into()) });
        }
        if !text.contains([',', '|', ' '])
            && let Some(alone) = only_comparator(text)
        {
            return Ok(alone);
        }
        let mut alternatives = Vec::new();
        let mut start = 0;
        let separators = text.bytes().filter(|byte| b"|, ".contains(byte)).take(2 * MAX_COMPARATORS + 1);
        if separators.count() > 2 * MAX_COMPARATORS {
            let why = format!("more than {MAX_COMPARATORS} comparators are too many to mean anything");
            return Err(ConstraintError { at: 0..text.len(), why, instead: None });
        }
        loop {
            let rest = &text[start..];
            let length = rest.find('|').unwrap_or(rest.len());
            alternatives.extend(conjunctions(&rest[..length]).map_err(|mut error| {
                error.at = error.at.start + start..error.at.end + start;
                error
            })?);
            start += length;
            if start == text.len() {
                return Ok(Self::union(alternatives));
            }
            start += if text[start..].starts_with("||") { 2 } else { 1 };
        }
    }

    /// Joins what touches, as poetry-core does: `^1 || ^2` is `>=1,<3`, and `<2 || >2` is `!=2`.
    fn union(mut parts: Vec<Conjunction>) -> Self {
        if let [only] = parts.as_slice() {
            return only.specifiers().into();
        }
        parts.sort_by(|one, other| one.min().cmp(&other.min()));
        let mut joined: Vec<Conjunction> = Vec::with_capacity(parts.len());
        for part in parts {
            let both = joined.last().and_then(|last| last.join(&part));
            match (both, joined.last_mut()) {
                (Some(both), Some(last)) => *last = both,
                _ => joined.push(part),
            }
        }
        Self { alternatives: joined.iter().map(Conjunction::specifiers).collect() }
    }
}

/// Comparators that must all hold.
struct Conjunction {
    /// Where the ranges of all comparators overlap; `None` where they do not.
    versions: Option<Versions>,
    /// Of each comparator but exclusions, the range.
    ranges: Vec<Versions>,
    /// `!=V` and `!=V.*`.
    exclusions: Vec<VersionSpecifier>,
}

impl Conjunction {
    fn min(&self) -> Option<&Version> {
        Some(&self.versions.as_ref()?.min.as_ref()?.version)
    }

    /// The union of both, where it is a conjunction, too.
    fn join(&self, other: &Self) -> Option<Self> {
        let (versions, others) = (self.versions.as_ref()?, other.versions.as_ref()?);
        if !(self.exclusions.is_empty() && other.exclusions.is_empty()) {
            return (versions == others && self.exclusions == other.exclusions).then(|| Self {
                versions: Some(versions.clone()),
                ranges: Vec::new(),
                exclusions: self.exclusions.clone(),
            });
        }
        let (versions, exclusions) = match versions.join(others) {
            Some(joined) => (joined, Vec::new()),
            None => {
                let gap = versions.gap(others)?;
                (Versions { min: versions.min.clone(), max: others.max.clone() }, vec![gap])
            }
        };
        Some(Self { versions: Some(versions), ranges: Vec::new(), exclusions })
    }

    /// What of it lies before and behind a hole.
    fn around(&self, hole: &Versions) -> impl Iterator<Item = Self> {
        let sides =
            [Versions { min: None, max: hole.min.clone() }, Versions { min: hole.max.clone(), max: None }];
        let [mut before, mut behind] = sides;
        // A hole holds its lower bound, and not its upper one.
        for (bound, included) in [(&mut before.max, false), (&mut behind.min, true)] {
            if let Some(bound) = bound {
                bound.included = included;
            }
        }
        let side = |range: Versions| {
            let versions = self.versions.as_ref()?.intersect(&range)?;
            let mut ranges = self.ranges.clone();
            ranges.push(range);
            Some(Self { versions: Some(versions), ranges, exclusions: self.exclusions.clone() })
        };
        [side(before), side(behind)].into_iter().flatten()
    }

    /// The same, without any version.
    fn never(self) -> Self {
        Self { versions: None, ..self }
    }

    fn specifiers(&self) -> VersionSpecifiers {
        let spelled = |range: &Versions| range.specifiers().expect("bounds were checked when they were read");
        let ranges = match &self.versions {
            Some(versions) => spelled(versions).iter().cloned().collect(),
            None => self
                .ranges
                .iter()
                .flat_map(|range| spelled(range).iter().cloned().collect::<Vec<_>>())
                .collect::<Vec<_>>(),
        };
        ranges.into_iter().chain(self.exclusions.iter().cloned()).collect()
    }
}

impl From<VersionSpecifiers> for Constraint {
    fn from(specifiers: VersionSpecifiers) -> Self {
        Self { alternatives: Arc::new([specifiers]) }
    }
}

impl FromStr for Constraint {
    type Err = ConstraintError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, specifiers) in self.alternatives.iter().enumerate() {
            if index > 0 {
                f.write_str(" || ")?;
            }
            if specifiers.is_empty() {
                f.write_str("*")?;
            }
            for (index, specifier) in specifiers.iter().enumerate() {
                if index > 0 {
                    f.write_str(",")?;
                }
                write!(f, "{specifier}")?;
            }
        }
        Ok(())
    }
}

/// Comparators that one constraint may have, at most.
const MAX_COMPARATORS: usize = 500;

const OPERATORS: &str = "`^ ~ >= <= > < == != ~=`";

/// A constraint that is one comparator, as most are; `None` for one that is more, or wrong.
fn only_comparator(text: &str) -> Option<Constraint> {
    let operator = text.bytes().take_while(|byte| b"^~=!<>".contains(byte)).count();
    let (operator, version) = text.split_at(operator);
    let plain = version.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".*+-_".contains(&byte));
    match comparator(operator, version).ok().filter(|_| plain)? {
        Comparator::Within(range) => Some(range.specifiers()?.into()),
        Comparator::Without(exclusion) => Some(VersionSpecifiers::from(exclusion).into()),
        Comparator::Outside(_) => None,
    }
}

/// Parses comparators that must all hold. They make more than one conjunction where one of them leaves a hole that PEP
/// 440 cannot spell.
fn conjunctions(text: &str) -> Result<Vec<Conjunction>, ConstraintError> {
    let separator = |character: char| character == ',' || character.is_whitespace();
    let mut found =
        Conjunction { versions: Some(Versions::any()), ranges: Vec::new(), exclusions: Vec::new() };
    let mut holes = Vec::new();
    let mut comparators = 0;
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let start = text.len() - rest.len();
        let operator_length = rest.find(|character| !"^~=!<>".contains(character)).unwrap_or(rest.len());
        let after_operator = &rest[operator_length..];
        let version_text = after_operator.trim_start();
        // A `!` inside a version ends its epoch.
        let version_length = version_text
            .char_indices()
            .find(|&(at, character)| {
                separator(character) || "^~=<>".contains(character) || version_text[at..].starts_with("!=")
            })
            .map_or(version_text.len(), |(at, _)| at);
        let end = text.len() - version_text.len() + version_length;
        let comparator =
            comparator(&rest[..operator_length], &version_text[..version_length]).map_err(|refused| {
                ConstraintError {
                    at: start..end.max(start + 1).min(text.len()),
                    why: refused.why,
                    instead: refused.instead,
                }
            })?;
        match comparator {
            Comparator::Within(range) => {
                found.versions = found.versions.and_then(|versions| versions.intersect(&range));
                found.ranges.push(range);
            }
            Comparator::Without(exclusion) => found.exclusions.push(exclusion),
            Comparator::Outside(hole) => holes.push(hole),
        }
        comparators += 1;
        let behind = &version_text[version_length..];
        if behind.starts_with(['^', '~', '=', '<', '>', '!']) {
            return Err(ConstraintError {
                at: end..end + 1,
                why: "expected a comma before the next operator".into(),
                instead: Some(format!(",{}", &behind[..1])),
            });
        }
        let next = behind.trim_start();
        let after_comma = next.strip_prefix(',').map_or(next, str::trim_start);
        if after_comma.starts_with(',') {
            let at = text.len() - after_comma.len();
            return Err(ConstraintError {
                at: at..at + 1,
                why: "expected a version after the comma".into(),
                instead: None,
            });
        }
        rest = after_comma;
    }
    if comparators == 0 {
        return Err(ConstraintError {
            at: 0..text.len(),
            why: "expected a version constraint on this side".into(),
            instead: None,
        });
    }
    let mut parts = vec![found];
    for hole in &holes {
        let split = parts.iter().flat_map(|part| part.around(hole)).collect::<Vec<_>>();
        // What nothing is left of says so by what was written.
        parts = if split.is_empty() { vec![parts.swap_remove(0).never()] } else { split };
    }
    Ok(parts)
}

struct Refused {
    why: String,
    instead: Option<String>,
}

impl Refused {
    fn new(why: impl Into<String>) -> Self {
        Self { why: why.into(), instead: None }
    }
}

/// What one comparator asks for.
enum Comparator {
    Within(Versions),
    /// A `!=`.
    Without(VersionSpecifier),
    /// A `!=` that PEP 440 cannot spell: everything but this.
    Outside(Versions),
}

/// Lowers one comparator.
fn comparator(operator: &str, written: &str) -> Result<Comparator, Refused> {
    if written.is_empty() {
        return Err(Refused::new(format!("expected a version, or one of {OPERATORS}")));
    }
    if operator.is_empty() && is_any(written) {
        return Ok(Comparator::Within(Versions::any()));
    }
    let wildcard = if written.contains('*') { written.find(".*") } else { None };
    let (version_text, wildcard) = match wildcard {
        // Only `==` and `!=` take more than one.
        Some(index)
            if written[index..].split(".*").all(str::is_empty)
                && (written[index..].len() == 2 || matches!(operator, "" | "==" | "!=")) =>
        {
            (&written[..index], true)
        }
        _ => (written, false),
    };
    let compatible = matches!(operator, "^" | "~" | "~=");
    let version = if version_text == "dev" && !compatible {
        Ok(development())
    } else {
        Version::from_str(version_text)
    };
    let version = version.map_err(|_| almost(operator, written))?;
    if wildcard && compatible {
        return Err(Refused {
            why: format!("`{operator}` takes a plain version, without `.*`"),
            instead: Some(format!("{operator}{version_text}")),
        });
    }
    let range = match operator {
        "^" => Versions::between(version.clone(), next_breaking(&version)),
        "~" => Versions::between(version.clone(), bump(&version, version.release().len().min(2) - 1)),
        // PEP 440, "Compatible release": all but the last segment stay, so `~=1.2.3.4` is `<1.2.4`. It has no
        // `~=1`, which is `>=1,<1.1` to Poetry.
        "~=" => {
            let last_but_one = version.release().len().checked_sub(2);
            Versions::between(version.clone(), bump(&version, last_but_one.unwrap_or(1)))
        }
        "" | "=" | "==" if wildcard => Versions::starting_with(&version),
        "" | "=" | "==" => Versions::only(version),
        "!=" if wildcard => {
            // PEP 440, "Version matching": only a release has continuations.
            return Ok(if version == range::release(&version) {
                Comparator::Without(VersionSpecifier::not_equals_star_version(version))
            } else {
                Comparator::Outside(Versions::starting_with(&version))
            });
        }
        "!=" => return Ok(Comparator::Without(VersionSpecifier::not_equals_version(version))),
        // Poetry ignores `.*` behind an ordering, as pip once did.
        ">=" => Versions::ordered(Operator::GreaterThanEqual, version),
        "<=" => Versions::ordered(Operator::LessThanEqual, version),
        ">" => Versions::ordered(Operator::GreaterThan, version),
        "<" => Versions::ordered(Operator::LessThan, version),
        other => {
            let meant = match other {
                "=>" => Some(">="),
                "=<" => Some("<="),
                // Where others have `~>`, 1.2 leads to 2, and 1.2.3 to 1.3.
                "~>" if version.release().len() > 1 => Some("~="),
                // poetry-core takes Python 2's `<>` for `==`, which nobody means.
                "=!" | "<>" => Some("!="),
                "===" => Some("=="),
                "^=" => Some("^"),
                _ => None,
            };
            return Err(Refused {
                why: format!("`{other}` is not an operator; expected one of {OPERATORS}"),
                instead: meant.map(|meant| format!("{meant}{written}")),
            });
        }
    };
    if !range.can_be_spelled() {
        return Err(Refused::new("a local label, the part behind `+`, can only follow `==` and `!=`"));
    }
    Ok(Comparator::Within(range))
}

/// What is told of a text that is no version: where it is nearly one, with what mends it.
fn almost(operator: &str, written: &str) -> Refused {
    let is_version = |text: &str| Version::from_str(text.strip_suffix(".*").unwrap_or(text)).is_ok();
    let refused = |why: &str, instead: String| Refused { why: why.to_owned(), instead: Some(instead) };
    if let Some((version, extras)) = written.strip_suffix(']').and_then(|written| written.split_once('['))
        && is_version(version)
    {
        let extras: Vec<_> = extras.split(',').map(|extra| format!("\"{}\"", extra.trim())).collect();
        let table = format!("{{ version = \"{operator}{version}\", extras = [{}] }}", extras.join(", "));
        return Refused::new(format!("extras stand in a table: `{table}`"));
    }
    let word = written.trim_start_matches('@').to_ascii_lowercase();
    if operator.is_empty() && ["latest", "newest", "any", "all"].contains(&word.as_str()) {
        return refused("`*` takes any version, the newest first", "*".to_owned());
    }
    if operator.is_empty() && ["and", "&", "&&", ";"].contains(&word.as_str()) {
        return refused("comparators that must all hold are joined by a comma", ",".to_owned());
    }
    for (sign, meant) in
        [("\u{2265}", ">="), ("\u{2264}", "<="), ("\u{2260}", "!="), ("@", "=="), ("~>", "~=")]
    {
        if let Some(version) = written.strip_prefix(sign).map(str::trim_start)
            && operator.is_empty()
            && is_version(version)
        {
            return refused(&format!("`{sign}` is no operator"), format!("{meant}{version}"));
        }
    }
    let bare = written.trim_end_matches([';', '&']);
    if bare.len() < written.len() && is_version(bare) {
        return refused("comparators that must all hold are joined by a comma", format!("{operator}{bare},"));
    }
    let bare = written.trim_matches(['"', '\'', '`', '\u{201c}', '\u{201d}', '\u{2018}', '\u{2019}']);
    if bare.len() < written.len() && is_version(bare) {
        return refused("quotes stand around the whole constraint", format!("{operator}{bare}"));
    }
    Refused::new(format!("`{}` is not a version as PEP 440 has them", written.escape_debug()))
}

/// What Poetry's `dev` stands for.
fn development() -> Version {
    Version::new([0, 0]).with_dev(Some(0))
}

/// `*`, `x`, `X`, also as `v*` and `*.*`.
fn is_any(text: &str) -> bool {
    let text = text.strip_prefix(['v', 'V']).unwrap_or(text);
    text.split('.').all(|part| matches!(part, "*" | "x" | "X"))
}

/// The release of `version` with the segment at `index` raised by one and zeros behind it.
fn bump(version: &Version, index: usize) -> Version {
    let length = version.release().len().max(index + 1);
    let release = (0..length).map(|at| match at.cmp(&index) {
        Ordering::Less => version.release().get(at).copied().unwrap_or(0),
        Ordering::Equal => version.release().get(at).copied().unwrap_or(0).saturating_add(1),
        Ordering::Greater => 0,
    });
    Version::new(release).with_epoch(version.epoch())
}

/// The first version that `^` excludes: the leftmost non-zero of the first three segments is raised,
/// or the last one given when all are zero.
fn next_breaking(version: &Version) -> Version {
    let release = version.release();
    let given = release.len().min(3);
    let leftmost = release[..given].iter().position(|&segment| segment > 0);
    bump(version, leftmost.unwrap_or(given - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operator_means_what_poetry_documents() {
        for (written, means) in [
            ("*", "*"),
            ("x", "*"),
            ("1.2.3", "==1.2.3"),
            ("=1.2", "==1.2"),
            ("==1.2", "==1.2"),
            ("^1.2.3", ">=1.2.3,<2.0.0"),
            ("^1.2", ">=1.2,<2.0"),
            ("~=4.8.0.74", ">=4.8.0.74,<4.8.1.0"),
            ("~=1.2.3.4.5", ">=1.2.3.4.5,<1.2.3.5.0"),
            ("==1!2.3.*", "==1!2.3.*"),
            ("==2.0.post1.*", ">=2.0.post1.dev0,<2.0.post2.dev0"),
            ("!=2.0.post1.*", "<2.0.post1.dev0 || >=2.0.post2.dev0"),
            ("!=1.0.dev1.*", "<1.0.dev1 || >=1.0.dev2"),
            (">=1,!=2.0.post1.*,<3", ">=1,<2.0.post1.dev0 || >=2.0.post2.dev0,<3"),
            (">3,!=2.0.post1.*", ">3"),
            ("^1", ">=1,<2"),
            ("^0.2.3", ">=0.2.3,<0.3.0"),
            ("^0.0.3", ">=0.0.3,<0.0.4"),
            ("^0.0", ">=0.0,<0.1"),
            ("^0", ">=0,<1"),
            ("^ 2.2", ">=2.2,<3.0"),
            ("^1.0b2", ">=1.0b2,<2.0"),
            ("^1!2.3", ">=1!2.3,<1!3.0"),
            ("~1.2.3", ">=1.2.3,<1.3.0"),
            ("~1.2", ">=1.2,<1.3"),
            ("~1", ">=1,<2"),
            ("~=2.2", ">=2.2,<3.0"),
            ("~=1.4.5", ">=1.4.5,<1.5.0"),
            ("1.2.*", "==1.2.*"),
            ("==1.*", "==1.*"),
            ("!=1.2.*", "!=1.2.*"),
            (">=1.2,<2", ">=1.2,<2"),
            (">= 1.2, < 2,", ">=1.2,<2"),
            (">=1.2 <2", ">=1.2,<2"),
            ("<1.5 || >=2.1", "<1.5 || >=2.1"),
            ("^1|^2 , !=2.3", ">=1,<2 || >=2,!=2.3,<3"),
            ("^1 || ^2.0", ">=1,<3.0"),
            ("<2 || >2", "!=2"),
            ("<2.dev0 || >=3.dev0", "!=2.*"),
            ("<2 || >=3", "<2 || >=3"),
            ("^1.2,<1.5", ">=1.2,<1.5"),
            ("1.2.*,1.2.3", "==1.2.3"),
            (">=3,<2", ">=3,<2"),
            ("^0.0.0", ">=0.0.0,<0.0.1"),
            ("dev", "==0.0.dev0"),
        ] {
            let constraint = Constraint::parse(written).unwrap();
            let mut found: Vec<_> = constraint.to_string().split(" || ").map(sorted).collect();
            let mut expected: Vec<_> = means.split(" || ").map(sorted).collect();
            found.sort();
            expected.sort();
            assert_eq!(found, expected, "for `{written}`");
        }
    }

    fn sorted(set: &str) -> Vec<String> {
        let mut parts: Vec<_> = set.split(',').map(str::to_owned).collect();
        parts.sort();
        parts
    }

    #[test]
    fn a_refused_part_is_named_by_its_bytes() {
        for (written, at, instead) in [
            (">>2.2", 0..5, None),
            ("=>1", 0..3, Some(">=1")),
            ("<>1", 0..3, Some("!=1")),
            ("~>1.0", 0..5, Some("~=1.0")),
            ("~>1", 0..3, None),
            (">1.14<2", 5..6, Some(",<")),
            (">=1,<two", 4..8, None),
            ("^1 || oops", 6..10, None),
            ("^", 0..1, None),
            ("", 0..0, Some("*")),
            ("1,,2", 2..3, None),
            ("^1.*", 0..4, Some("^1")),
            ("1 ||", 4..4, None),
        ] {
            let error = Constraint::parse(written).unwrap_err();
            assert_eq!(error.at, at, "for `{written}`: {error}");
            assert_eq!(error.instead.as_deref(), instead, "for `{written}`");
        }
    }
}
