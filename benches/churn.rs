//! How much of an image stays as it is from lock to lock, for several ways to put packages into layers.
//!
//! `IPYBOX_LOCKS=FOLDER cargo bench --bench churn`, with locks of one list whose names sort by their dates; `benches/churn`
//! makes them.

#![expect(clippy::print_stdout, reason = "it is run for what it prints")]
#![expect(clippy::cast_precision_loss, reason = "shares are told with one digit")]
#![expect(clippy::disallowed_methods, reason = "it is configured through the environment")]

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::error::Error;
use std::path::PathBuf;

use ipybox::lock::Lock;
use ipybox::oci::rule::{self, Weighed};

/// A wheel of one lock.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Wheel {
    name: String,
    sha256: String,
    size: u64,
    generation: u32,
}

/// Layers, the lowest first.
type Layout = fn(&[Wheel]) -> Vec<Vec<Wheel>>;

/// How much more files take than their wheel, with bytecode, on the average of basic.
const UNPACKED: u64 = 4;

/// Layers of the ways that have a fixed number of them.
const LAYERS: usize = 12;

fn ours(wheels: &[Wheel]) -> Vec<Vec<Wheel>> {
    let weighed: Vec<Weighed<'_>> = wheels
        .iter()
        .map(|wheel| Weighed { name: &wheel.name, size: wheel.size, generation: wheel.generation })
        .collect();
    let layers = rule::layers(&weighed);
    layers.iter().map(|layer| layer.iter().map(|&at| wheels[at].clone()).collect()).collect()
}

fn one(wheels: &[Wheel]) -> Vec<Vec<Wheel>> {
    vec![wheels.to_vec()]
}

fn alphabetical(wheels: &[Wheel]) -> Vec<Vec<Wheel>> {
    wheels.chunks(wheels.len().div_ceil(LAYERS)).map(<[Wheel]>::to_vec).collect()
}

/// The largest alone, and the rest above them.
fn largest(wheels: &[Wheel]) -> Vec<Vec<Wheel>> {
    let mut sorted = wheels.to_vec();
    sorted.sort_by_key(|wheel| Reverse(wheel.size));
    let mut rest = sorted.split_off(sorted.len().min(LAYERS - 1));
    rest.sort();
    sorted.into_iter().map(|wheel| vec![wheel]).chain([rest]).collect()
}

fn size<'a>(wheels: impl IntoIterator<Item = &'a Wheel>) -> u64 {
    wheels.into_iter().map(|wheel| wheel.size).sum()
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(std::env::var("IPYBOX_LOCKS")?)?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_, std::io::Error>>()?;
    files.sort();
    let mut locks: Vec<Vec<Wheel>> = Vec::new();
    for file in &files {
        let lock = Lock::parse(&std::fs::read_to_string(file)?)?;
        let wheel = |(name, pin): (&ipybox::deps::Name, ipybox::plan::Pin)| Wheel {
            name: name.as_str().to_owned(),
            sha256: pin.sha256,
            size: pin.size.unwrap_or_default() * UNPACKED,
            generation: pin.generation,
        };
        locks.push(lock.pins().iter().map(|(name, pin)| wheel((name, pin.clone()))).collect());
    }
    println!("{} locks, {} packages in the last", locks.len(), locks.last().map_or(0, Vec::len));
    println!("{:14} {:>7} {:>9} {:>9} {:>9}", "layers", "most", "reused", "sent", "applied");
    let ways: [(&str, Layout); 4] =
        [("ours", ours), ("one", one), ("alphabetical", alphabetical), ("largest alone", largest)];
    for (name, layout) in ways {
        let images: Vec<Vec<Vec<Wheel>>> = locks.iter().map(|lock| layout(lock)).collect();
        let (mut all, mut reused, mut sent, mut applied, mut changed) = (0, 0, 0, 0, 0);
        for (before, after) in images.iter().zip(&images[1..]) {
            let known: BTreeSet<&Vec<Wheel>> = before.iter().collect();
            let same = before.iter().zip(after).take_while(|(one, other)| one == other).count();
            let packages: BTreeSet<&str> =
                before.iter().flatten().map(|wheel| wheel.sha256.as_str()).collect();
            all += size(after.iter().flatten());
            reused += size(after.iter().filter(|layer| known.contains(layer)).flatten());
            sent += size(after.iter().filter(|layer| !known.contains(layer)).flatten());
            applied += size(after[same..].iter().flatten());
            changed += size(after.iter().flatten().filter(|wheel| !packages.contains(wheel.sha256.as_str())));
        }
        let most = images.iter().map(Vec::len).max().unwrap_or_default();
        let share = |part: u64, whole: u64| part as f64 / whole.max(1) as f64;
        println!(
            "{name:14} {most:>7} {:>8.1}% {:>8.1}x {:>8.1}x",
            100.0 * share(reused, all),
            share(sent, changed),
            share(applied, changed)
        );
    }
    println!(
        "reused: of an image's bytes, those in layers of the one before; sent and applied: against the bytes of changed packages"
    );
    Ok(())
}
