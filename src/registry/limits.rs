//! How large the bodies are that a registry takes.

use std::sync::atomic::{AtomicU64, Ordering};

/// Largest body that is sent, in bytes: proxies cut those over 100 MB. A blob that is larger goes in parts.
pub(super) const WHOLE: u64 = 64_000_000;

/// Largest part where a registry asks for parts, or found a body too large, in bytes: some take no more in a PATCH. Such a
/// part is held in memory.
pub(super) const PART: u64 = 4 << 20;

/// The smallest body that is tried with registries that find others too large, in bytes.
pub(super) const SMALLEST: u64 = 64 << 10;

/// What was learnt of a registry, and of what stands before it: uploads that begin later need not learn it again.
pub(super) struct Limits {
    whole: AtomicU64,
    part: AtomicU64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { whole: WHOLE.into(), part: WHOLE.into() }
    }
}

impl Limits {
    /// Whether a blob of this size goes as a whole.
    pub(super) fn is_whole(&self, size: u64) -> bool {
        size < self.whole.load(Ordering::Relaxed)
    }

    /// The most that a part has, in bytes.
    pub(super) fn part(&self) -> u64 {
        self.part.load(Ordering::Relaxed)
    }

    /// A whole of this size was too large. Returns the size of parts to go on with.
    pub(super) fn whole_is_too_large(&self, size: u64) -> u64 {
        self.whole.fetch_min(size, Ordering::Relaxed);
        self.part().min(smaller(size))
    }

    /// A part of this size was too large. Returns the size to go on with.
    pub(super) fn part_is_too_large(&self, size: u64) -> u64 {
        self.part.fetch_min(smaller(size), Ordering::Relaxed).min(smaller(size))
    }
}

/// A size to go on with behind one that was too large.
fn smaller(size: u64) -> u64 {
    (size / 2).clamp(SMALLEST, PART)
}

/// A size to go on with behind one that was turned down without a word of its size: three of them go through all sizes.
pub(super) fn much_smaller(size: u64) -> u64 {
    (size / 8).clamp(SMALLEST, PART)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_large_is_learnt_once() {
        let limits = Limits::default();
        assert!(limits.is_whole(WHOLE - 1) && !limits.is_whole(WHOLE));
        assert_eq!(limits.whole_is_too_large(50_000_000), PART);
        assert!(limits.is_whole(49_999_999) && !limits.is_whole(50_000_000));
        // A PUT that is too large says nothing of a PATCH.
        assert_eq!(limits.part(), WHOLE);
        assert_eq!(limits.part_is_too_large(WHOLE), PART);
        assert_eq!(limits.part_is_too_large(PART), PART / 2);
        // What another upload learns later of larger ones is known.
        assert_eq!(limits.part_is_too_large(WHOLE), PART / 2);
        assert_eq!(limits.part(), PART / 2);
        for _ in 0..9 {
            limits.part_is_too_large(limits.part());
        }
        assert_eq!(limits.part(), SMALLEST);
    }

    #[test]
    fn what_is_turned_down_becomes_small_within_three_tries() {
        for size in [WHOLE, PART, 1, SMALLEST] {
            let sizes = [much_smaller(size), much_smaller(much_smaller(size))];
            assert!(sizes[0] <= PART && sizes[0] >= sizes[1]);
            assert_eq!(much_smaller(sizes[1]), SMALLEST);
        }
    }
}
