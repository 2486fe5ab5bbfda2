//! What earlier builds of a plan have taught, kept on this host, so that it is not found out by failing again.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::archive::hexadecimal;
use crate::kept::keep;
use crate::plan::{Learnt, Plan};

/// How long it counts: indexes get wheels.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Where it is kept for one list on one base.
#[derive(Debug, Clone)]
pub(super) struct Memory(PathBuf);

impl Memory {
    /// That of a plan before anything was learnt.
    pub(super) fn of(plan: &Plan, cache: &Path) -> Self {
        let key = format!("{} {}", plan.foundation.digest(), plan.packages.digest());
        Self(cache.join("wheelless").join(hexadecimal(&Sha256::digest(key)[..16])).with_extension("json"))
    }

    /// What was learnt; nothing where there is nothing that can be read. What indexes lack counts for a day.
    pub(super) fn recall(&self) -> Learnt {
        let modified = fs::metadata(&self.0).and_then(|metadata| metadata.modified()).ok();
        let is_young = modified.and_then(|time| time.elapsed().ok()).is_some_and(|age| age < LONGEST);
        let kept = fs::read(&self.0).ok().and_then(|text| serde_json::from_slice::<Learnt>(&text).ok());
        let Learnt { libraries, .. } = kept.clone().unwrap_or_default();
        kept.filter(|_| is_young).unwrap_or(Learnt { libraries, ..Learnt::default() })
    }

    /// Keeps it. Where that fails, the next build finds it out again.
    pub(super) fn keep(&self, learnt: &Learnt) {
        let _ = keep(&self.0, learnt);
    }
}
