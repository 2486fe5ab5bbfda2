//! Which packages share a layer. Pure: equal packages give equal layers, on every machine.
//!
//! Over a year of fortnightly locks of basic, nine tenths of the bytes are in ten packages, of which few change at a
//! time, and of the many small ones some change every time (`benches/churn`). So the largest lie alone, whenever they came;
//! the small ones lie together, those of the lock's first generation below those that came later, so that one more package
//! is one small layer. A layer is known by all that lies below it: what came last lies on top.

use std::cmp::Reverse;

use sha2::{Digest, Sha256};

/// A package, as far as its place counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Weighed<'a> {
    /// Its normalized name.
    pub name: &'a str,
    /// What its files take in a layer, in bytes.
    pub size: u64,
    /// The generation of the lock in which exactly this wheel came.
    pub generation: u32,
}

/// Layers that hold one package each, at most: engines take 40 ms for each layer.
const ALONE: usize = 10;

/// What is smaller than this lies with others.
const SMALL: u64 = 4 << 20;

/// Layers of the others, at most, unless they are very large.
const TOGETHER: usize = 2;

/// No layer of several packages is larger than this: proxies cut uploads there.
const LARGEST: u64 = 1 << 30;

/// A later layer joins the one below it once it has reached this part of its size.
const FOLD: u64 = 3;

/// The layers of packages, the lowest first, as places in `packages`; in each the packages are sorted by name.
#[must_use]
pub fn layers(packages: &[Weighed<'_>]) -> Vec<Vec<usize>> {
    let mut rest: Vec<usize> = (0..packages.len()).collect();
    rest.sort_unstable_by_key(|&at| packages[at].name);
    let mut alone: Vec<usize> = rest.iter().copied().filter(|&at| packages[at].size >= SMALL).collect();
    // Of equal sizes this sort keeps the order of names.
    alone.sort_by_key(|&at| Reverse(packages[at].size));
    alone.truncate(ALONE);
    rest.retain(|at| !alone.contains(at));
    alone.sort_by_key(|&at| (packages[at].generation, Reverse(packages[at].size)));
    alone.into_iter().map(|at| vec![at]).chain(together(packages, &rest)).collect()
}

/// One layer of all packages, of those that change together, or several where it would be too large.
#[must_use]
pub fn one(packages: &[Weighed<'_>]) -> Vec<Vec<usize>> {
    let mut all: Vec<usize> = (0..packages.len()).collect();
    all.sort_unstable_by_key(|&at| packages[at].name);
    spread(packages, all)
}

/// Layers of packages that are sorted by name, by the generations in which they came.
fn together(packages: &[Weighed<'_>], rest: &[usize]) -> Vec<Vec<usize>> {
    let mut generations: Vec<u32> = rest.iter().map(|&at| packages[at].generation).collect();
    generations.sort_unstable();
    generations.dedup();
    let size = |layer: &[usize]| layer.iter().map(|&at| packages[at].size).sum::<u64>();
    let mut layers: Vec<Vec<usize>> = Vec::new();
    for generation in generations {
        layers.push(rest.iter().copied().filter(|&at| packages[at].generation == generation).collect());
        while let [.., below, top] = layers.as_slice() {
            if size(top).saturating_mul(FOLD) < size(below) && layers.len() <= TOGETHER {
                break;
            }
            let top = layers.pop().unwrap_or_default();
            if let Some(below) = layers.last_mut() {
                below.extend(top);
            }
        }
    }
    for layer in &mut layers {
        layer.sort_unstable_by_key(|&at| packages[at].name);
    }
    layers.into_iter().flat_map(|layer| spread(packages, layer)).collect()
}

/// One layer, or several of which none is too large.
fn spread(packages: &[Weighed<'_>], layer: Vec<usize>) -> Vec<Vec<usize>> {
    let total: u64 = layer.iter().map(|&at| packages[at].size).sum();
    if total <= LARGEST {
        return vec![layer];
    }
    let count = usize::try_from(total.div_ceil(LARGEST / 2)).unwrap_or(usize::MAX);
    let mut spread = vec![Vec::new(); count];
    for at in layer {
        spread[bucket(packages[at].name, count)].push(at);
    }
    spread.retain(|layer| !layer.is_empty());
    spread
}

/// Where a name belongs, whatever other names there are.
fn bucket(name: &str, count: usize) -> usize {
    let digest = Sha256::digest(name);
    let number = u64::from_le_bytes(digest[..8].try_into().unwrap_or_default());
    usize::try_from(number % count as u64).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn weighed<'a>(packages: &[(&'a str, u64, u32)]) -> Vec<Weighed<'a>> {
        packages.iter().map(|&(name, size, generation)| Weighed { name, size, generation }).collect()
    }

    fn named(packages: &[(&str, u64, u32)]) -> Vec<String> {
        let weighed = weighed(packages);
        let names =
            |layer: &Vec<usize>| layer.iter().map(|&at| weighed[at].name).collect::<Vec<_>>().join(" ");
        layers(&weighed).iter().map(names).collect()
    }

    #[test]
    fn what_is_large_lies_alone_and_what_is_new_on_top() {
        const MB: u64 = 1_000_000;
        let first = [("torch", 900 * MB, 0), ("numpy", 60 * MB, 0), ("a", MB, 0), ("b", MB, 0), ("c", MB, 0)];
        let layers = named(&first);
        assert_eq!(layers, ["torch", "numpy", "a b c"]);
        let with = |more: &[(&'static str, u64, u32)]| named(&[&first[..], more].concat());
        // One that is added is one layer more, and leaves the others; further ones join it.
        assert_eq!(with(&[("d", MB / 2, 1)])[layers.len()..], ["d"]);
        assert_eq!(with(&[("d", MB / 2, 1), ("e", MB / 3, 2)])[layers.len()..], ["d e"]);
        // Many small ones become one with those below.
        assert_eq!(with(&[("d", 3 * MB, 1)])[2..], ["a b c d"]);
        // What is large lies alone whenever it came, above what came before it.
        assert_eq!(with(&[("scipy", 90 * MB, 1)])[..3], ["torch", "numpy", "scipy"]);
        // What would be too large for one layer is spread.
        let huge: Vec<(String, u64)> = (0..40).map(|number| (format!("lib{number}"), 100 * MB)).collect();
        let huge: Vec<(&str, u64, u32)> = huge.iter().map(|(name, size)| (name.as_str(), *size, 0)).collect();
        let layers = named(&huge);
        assert!(
            layers.len() > ALONE + 3 && layers.iter().all(|layer| layer.split(' ').count() <= 10),
            "{layers:?}"
        );
    }

    proptest! {
        #[test]
        fn every_package_has_one_place_and_layers_are_few(
            packages in prop::collection::btree_map("[a-z]{1,6}", (0u64..2_000_000_000, 0u32..9), 0..60),
        ) {
            let weighed: Vec<Weighed<'_>> = packages
                .iter()
                .map(|(name, &(size, generation))| Weighed { name, size, generation })
                .collect();
            let layers = layers(&weighed);
            let mut all: Vec<usize> = layers.concat();
            all.sort_unstable();
            prop_assert_eq!(all, (0..weighed.len()).collect::<Vec<_>>());
            let total: u64 = weighed.iter().map(|one| one.size).sum();
            prop_assert!(layers.len() as u64 <= 13 + total / (LARGEST / 2));
            let mut turned = weighed.clone();
            turned.reverse();
            let names = |weighed: &[Weighed<'_>], layers: &[Vec<usize>]| -> Vec<Vec<String>> {
                layers.iter().map(|layer| layer.iter().map(|&at| weighed[at].name.to_owned()).collect()).collect()
            };
            prop_assert_eq!(names(&turned, &super::layers(&turned)), names(&weighed, &layers));
        }
    }
}
