//! What earlier builds of a plan have taught, kept on this host, so that it is not found out by failing again.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::archive::hexadecimal;
use crate::kept::keep;
use crate::plan::{Plan, Wheelless};

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

    /// What was learnt; nothing where there is nothing that can be read.
    pub(super) fn recall(&self) -> Wheelless {
        let modified = fs::metadata(&self.0).and_then(|metadata| metadata.modified()).ok();
        let age = modified.and_then(|time| time.elapsed().ok());
        let kept = age.filter(|age| *age < LONGEST).and_then(|_| fs::read(&self.0).ok());
        kept.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
    }

    /// Keeps it. Where that fails, the next build finds it out again.
    pub(super) fn keep(&self, learnt: &Wheelless) {
        let _ = keep(&self.0, learnt);
    }
}
