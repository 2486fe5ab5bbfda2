//! Contiguous ranges of versions, compared and joined as poetry-core does.

use pep440_rs::{Operator, Version, VersionSpecifier, VersionSpecifiers};

/// The versions between two bounds. A single version is a range whose bounds are equal and included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) min: Option<Bound>,
    pub(super) max: Option<Bound>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bound {
    pub(super) version: Version,
    pub(super) included: bool,
}

impl Bound {
    fn included(version: Version) -> Self {
        Self { version, included: true }
    }

    fn excluded(version: Version) -> Self {
        Self { version, included: false }
    }
}

impl Range {
    pub(super) fn any() -> Self {
        Self { min: None, max: None }
    }

    pub(super) fn only(version: Version) -> Self {
        Self { min: Some(Bound::included(version.clone())), max: Some(Bound::included(version)) }
    }

    /// From `min`, included, to `max`, excluded.
    pub(super) fn between(min: Version, max: Version) -> Self {
        Self { min: Some(Bound::included(min)), max: Some(Bound::excluded(max)) }
    }

    /// The versions that begin with `version`: PEP 440's `.*`.
    pub(super) fn starting_with(version: &Version) -> Self {
        let end = next(version);
        Self::between(first_dev_release(version), if end.is_dev() { end } else { first_dev_release(&end) })
    }

    /// The range of an ordering: `<`, `<=`, `>` or `>=`.
    pub(super) fn ordered(operator: Operator, version: Version) -> Self {
        let any = Self::any();
        match operator {
            Operator::LessThan => Self { max: Some(Bound::excluded(version)), ..any },
            Operator::LessThanEqual => Self { max: Some(Bound::included(version)), ..any },
            Operator::GreaterThan => Self { min: Some(Bound::excluded(version)), ..any },
            _ => Self { min: Some(Bound::included(version)), ..any },
        }
    }

    fn as_version(&self) -> Option<&Version> {
        match (&self.min, &self.max) {
            (Some(min), Some(max)) if min.included && max.included && min.version == max.version => {
                Some(&min.version)
            }
            _ => None,
        }
    }

    /// Whether `version` lies in the range.
    ///
    /// Rule: PEP 440, "Inclusive ordered comparison" and "Exclusive ordered comparison": local labels
    /// count only beside a bound that has one, `<V` leaves out V's pre-releases, `>V` its
    /// post-releases.
    pub(super) fn contains(&self, version: &Version) -> bool {
        let comparable = |bound: &Version, version: &Version| {
            if bound.is_local() { version.clone() } else { version.clone().without_local() }
        };
        let above = self.min.as_ref().is_none_or(|min| {
            let mut other = comparable(&min.version, version);
            if !min.included && !min.version.is_post() && other.is_post() {
                other = other.with_post(None).with_dev(None);
            }
            other > min.version || min.included && other == min.version
        });
        let below = self.max.as_ref().is_none_or(|max| {
            let other = comparable(&max.version, version);
            if max.included { other <= max.version } else { other < self.end().unwrap_or(other.clone()) }
        });
        above && below
    }

    /// The first version behind the range, or its last one where that is included.
    fn end(&self) -> Option<Version> {
        let max = self.max.as_ref()?;
        let plain = max.included || max.version.any_prerelease();
        let empty = self.min.as_ref().is_some_and(|min| min.version == max.version && min.included);
        Some(if plain || empty { max.version.clone() } else { first_dev_release(&max.version) })
    }

    /// Whether it begins before `other`.
    fn begins_before(&self, other: &Self) -> bool {
        match (&self.min, &other.min) {
            (None, other) => other.is_some(),
            (Some(_), None) => false,
            (Some(one), Some(other)) => {
                one.version < other.version || one.version == other.version && one.included && !other.included
            }
        }
    }

    /// Whether it ends behind `other`.
    fn ends_behind(&self, other: &Self) -> bool {
        match (self.end(), other.end()) {
            (None, other) => other.is_some(),
            (Some(_), None) => false,
            (Some(one), Some(end)) => {
                let included = |range: &Self| range.max.as_ref().is_some_and(|max| max.included);
                one > end || one == end && included(self) && !included(other)
            }
        }
    }

    /// Whether all of it lies before all of `other`.
    fn lies_before(&self, other: &Self) -> bool {
        match (self.end(), &self.max, &other.min) {
            (Some(end), Some(max), Some(min)) => {
                end < min.version || end == min.version && !(max.included && min.included)
            }
            _ => false,
        }
    }

    fn is_any(&self) -> bool {
        self.min.is_none() && self.max.is_none()
    }

    pub(super) fn intersect(&self, other: &Self) -> Option<Self> {
        if self.is_any() {
            return Some(other.clone());
        }
        for (range, single) in [(self, other), (other, self)] {
            if single.as_version().is_some_and(|version| range.contains(version)) {
                return Some(single.clone());
            }
        }
        if self.as_version().or(other.as_version()).is_some() {
            return None;
        }
        if self.lies_before(other) || other.lies_before(self) {
            return None;
        }
        let min = if self.begins_before(other) { &other.min } else { &self.min };
        let max = if self.ends_behind(other) { &other.max } else { &self.max };
        Some(Self { min: min.clone(), max: max.clone() })
    }

    /// Both ranges as one, where they overlap or touch.
    pub(super) fn join(&self, other: &Self) -> Option<Self> {
        for (range, single) in [(self, other), (other, self)] {
            if single.as_version().is_some_and(|version| range.contains(version)) {
                return Some(range.clone());
            }
        }
        // An ordering cannot have a local label.
        if [self, other].iter().any(|one| one.as_version().is_some_and(Version::is_local)) {
            return None;
        }
        let touch = |one: &Self, other: &Self| match (&one.max, &other.min) {
            (Some(max), Some(min)) => max.version == min.version && max.included != min.included,
            _ => false,
        };
        if !(touch(self, other) || touch(other, self) || self.intersect(other).is_some()) {
            return None;
        }
        let min = if self.begins_before(other) { &self.min } else { &other.min };
        let max = if self.ends_behind(other) { &self.max } else { &other.max };
        Some(Self { min: min.clone(), max: max.clone() })
    }

    /// How PEP 440 writes everything but the versions between `self` and the later `other`, where it
    /// can: `<2` and `>2` leave out `!=2`, `<2.dev0` and `>=3.dev0` leave out `!=2.*`.
    pub(super) fn gap(&self, other: &Self) -> Option<VersionSpecifier> {
        let (before, behind) = (self.max.as_ref()?, other.min.as_ref()?);
        if before.included {
            return None;
        }
        if before.version == behind.version && !behind.included {
            return Some(VersionSpecifier::not_equals_version(before.version.clone()));
        }
        let hole = Self::between(before.version.clone(), behind.version.clone());
        let version = hole.common_start().filter(|_| behind.included)?;
        Some(VersionSpecifier::not_equals_star_version(version))
    }

    /// V, where the range is that of PEP 440's `V.*`.
    fn common_start(&self) -> Option<Version> {
        let version = &self.min.as_ref().filter(|min| min.version.dev() == Some(0))?.version;
        let version = release(version);
        (*self == Self::starting_with(&version)).then_some(version)
    }

    /// Whether PEP 440 can write the range: orderings cannot have a local label.
    pub(super) fn can_be_spelled(&self) -> bool {
        let is_local = |bound: &Option<Bound>| bound.as_ref().is_some_and(|bound| bound.version.is_local());
        self.as_version().is_some() || !is_local(&self.min) && !is_local(&self.max)
    }

    /// The range as PEP 440 writes it; `None` where a bound has a local label, which orderings
    /// cannot have.
    pub(super) fn specifiers(&self) -> Option<VersionSpecifiers> {
        if let Some(version) = self.as_version() {
            return Some(std::iter::once(VersionSpecifier::equals_version(version.clone())).collect());
        }
        if let Some(version) = self.common_start() {
            return Some(std::iter::once(VersionSpecifier::equals_star_version(version)).collect());
        }
        let written = |bound: &Option<Bound>, included, excluded| {
            let bound = bound.as_ref()?;
            let operator = if bound.included { included } else { excluded };
            Some(VersionSpecifier::from_version(operator, bound.version.clone()))
        };
        let bounds = [
            written(&self.min, Operator::GreaterThanEqual, Operator::GreaterThan),
            written(&self.max, Operator::LessThanEqual, Operator::LessThan),
        ];
        bounds.into_iter().flatten().collect::<Result<VersionSpecifiers, _>>().ok()
    }
}

/// Whether `version` meets a specifier.
///
/// Rule: PEP 440, "Version specifiers".
pub(super) fn meets(specifier: &VersionSpecifier, version: &Version) -> bool {
    let wanted = specifier.version();
    let ordered = |operator| Range::ordered(operator, wanted.clone()).contains(version);
    match *specifier.operator() {
        Operator::Equal => Range::only(wanted.clone()).contains(version),
        Operator::NotEqual => !Range::only(wanted.clone()).contains(version),
        Operator::EqualStar => Range::starting_with(wanted).contains(version),
        Operator::NotEqualStar => !Range::starting_with(wanted).contains(version),
        Operator::ExactEqual => wanted.to_string() == version.to_string(),
        Operator::TildeEqual => {
            let release = wanted.release();
            let start = Version::new(&release[..release.len() - 1]).with_epoch(wanted.epoch());
            ordered(Operator::GreaterThanEqual) && Range::starting_with(&start).contains(version)
        }
        operator => ordered(operator),
    }
}

/// Where all specifiers of a set but its exclusions overlap; `None` where they do not.
pub(super) fn intersection(set: &VersionSpecifiers) -> Option<Range> {
    let range = |specifier: &VersionSpecifier| {
        let version = specifier.version().clone();
        match *specifier.operator() {
            Operator::NotEqual | Operator::NotEqualStar => Range::any(),
            Operator::Equal | Operator::ExactEqual => Range::only(version),
            Operator::EqualStar => Range::starting_with(&version),
            Operator::TildeEqual => Range::ordered(Operator::GreaterThanEqual, version),
            operator => Range::ordered(operator, version),
        }
    };
    set.iter().map(range).try_fold(Range::any(), |all, one| all.intersect(&one))
}

/// Both sets as one, where what lies between is just what `!=V.*` leaves out, pre-releases apart:
/// `>=1,<2` and `>=3` are `>=1,!=2.*`.
pub(super) fn close_gap(before: &VersionSpecifiers, behind: &VersionSpecifiers) -> Option<VersionSpecifiers> {
    let with =
        |set: &VersionSpecifiers, operator| set.iter().find(|one| *one.operator() == operator).cloned();
    let end = with(before, Operator::LessThan)?;
    let start = with(behind, Operator::GreaterThanEqual)?;
    let version = end.version();
    if version.any_prerelease() || version.is_post() || start.version().any_prerelease() {
        return None;
    }
    // `2.0` is 2, so that the next one may be 3 as well as 2.1: as long as `start` is without zeros.
    let significant = |version: &Version| {
        let release = version.release();
        release.len() - release.iter().rev().take_while(|&&part| part == 0).count()
    };
    let length = significant(start.version());
    if length < significant(version).max(1) || length > version.release().len() {
        return None;
    }
    let hole = Version::new(&version.release()[..length]).with_epoch(version.epoch());
    if next(&hole) != *start.version() {
        return None;
    }
    let excluded =
        |one: &&VersionSpecifier| matches!(one.operator(), Operator::NotEqual | Operator::NotEqualStar);
    let apart = before.iter().filter(excluded).all(|one| one.version() < version)
        && behind.iter().filter(excluded).all(|one| one.version() >= start.version());
    let rest = before.iter().filter(|one| **one != end).chain(behind.iter().filter(|one| **one != start));
    let hole = VersionSpecifier::not_equals_star_version(hole);
    apart.then(|| rest.cloned().chain(std::iter::once(hole)).collect())
}

/// A version without its suffixes.
pub(super) fn release(version: &Version) -> Version {
    version.only_release().with_epoch(version.epoch())
}

/// The first development release of `version`, before all of its pre-releases.
fn first_dev_release(version: &Version) -> Version {
    let version = version.clone().without_local();
    if version.is_dev() { version } else { version.with_dev(Some(0)) }
}

/// The next version of the same kind: the last number given is one higher.
fn next(version: &Version) -> Version {
    let version = version.clone().without_local();
    if let Some(dev) = version.dev() {
        return version.with_dev(Some(dev.saturating_add(1)));
    }
    if let Some(post) = version.post() {
        return version.with_post(Some(post.saturating_add(1))).with_dev(None);
    }
    if let Some(mut pre) = version.pre() {
        pre.number = pre.number.saturating_add(1);
        return version.with_pre(Some(pre)).with_dev(None);
    }
    let last = version.release().len() - 1;
    let release: Vec<u64> = version.release().to_vec();
    let raised = release.iter().enumerate().map(|(at, &part)| part.saturating_add(u64::from(at == last)));
    Version::new(raised).with_epoch(version.epoch())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        text.parse().unwrap()
    }

    #[test]
    fn single_versions_with_labels_join_what_contains_them() {
        let only = |text: &str| Range::only(version(text));
        let up_to = Range::ordered(Operator::LessThanEqual, version("1.0"));
        for (one, other, both) in [
            (only("1.0"), only("1.0+x"), Some(only("1.0"))),
            (up_to.clone(), only("1.0+x"), Some(up_to.clone())),
            (Range::ordered(Operator::LessThan, version("1.0")), only("1.0+x"), None),
            (only("1.0"), only("1.1"), None),
        ] {
            assert_eq!(one.join(&other), both);
            assert_eq!(other.join(&one), both);
        }
        assert_eq!(only("1.0+x").intersect(&only("1.0")), Some(only("1.0+x")));
        assert_eq!(only("1.0").intersect(&only("1.0+x")), Some(only("1.0+x")));
    }

    #[test]
    fn orderings_treat_suffixes_as_pep_440_says() {
        for (specifier, inside, outside) in [
            ("<2", "1.9 1.9+x", "2 2.dev0 2a1 2rc1"),
            ("<2b1", "2a1 2.dev0", "2b1 2b2 2"),
            ("<=2", "2 2+x 2a1", "2.post1"),
            (">2", "2.1 2.0.1.dev0", "2 2+x 2.post1"),
            (">2.post1", "2.post2", "2.post1 2"),
            ("==2", "2 2.0 2+x", "2.post1 2a1"),
            ("==2+x", "2+x", "2 2+y"),
            ("==1.2.*", "1.2 1.2.9 1.2.dev0 1.2.post1", "1 1.3.dev0 1.20"),
            ("!=1.2.*", "1 1.3a1", "1.2 1.2a1"),
            ("~=1.4.5", "1.4.5 1.4.9", "1.5.dev0 1.4.4"),
        ] {
            let specifier: VersionSpecifier = specifier.parse().unwrap();
            for text in inside.split(' ') {
                assert!(meets(&specifier, &version(text)), "{text} meets {specifier}");
            }
            for text in outside.split(' ') {
                assert!(!meets(&specifier, &version(text)), "{text} does not meet {specifier}");
            }
        }
    }
}
