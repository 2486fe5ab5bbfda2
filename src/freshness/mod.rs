//! Whether an image is what a plan asks for, and if not, why.

mod change;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::archive::hexadecimal;
use crate::plan::Plan;
pub use change::{Change, between};

/// The label with the fingerprint of the plan that an image was built from.
pub const FINGERPRINT_LABEL: &str = "ipybox.fingerprint";

/// What the newest step of an image begins with whose layers no step made.
pub const NEWEST_STEP: &str = "LABEL of ipybox";

/// The label with that plan, as far as an image may tell it; `ipybox.plan.2` and so on go on where one is full.
const PLAN_LABEL: &str = "ipybox.plan";

/// Most characters of one label: a line of a Dockerfile holds 64 kB.
const MOST: usize = 48_000;

/// The largest plan that is read, in bytes.
const MOST_PLAN: u64 = 16 << 20;

/// What a fingerprint is of; counted up where that changes.
const FORMAT: &str = "ipybox-plan-1";

/// What an image says of the plan it was built from: with digests in place of values that it should not tell.
#[derive(Debug, Clone, PartialEq)]
pub struct Stamp {
    plan: Value,
}

/// The newest step of an image whose layers no step made, with these labels. It tells their fingerprint: whoever has the image
/// alone sees by it that these labels are its own, and not those of one that it was built on.
#[must_use]
pub fn newest_step(labels: &BTreeMap<String, String>) -> String {
    let fingerprint = labels.get(FINGERPRINT_LABEL);
    fingerprint.map_or_else(
        || NEWEST_STEP.to_owned(),
        |fingerprint| format!("{NEWEST_STEP} {FINGERPRINT_LABEL}={fingerprint}"),
    )
}

/// Values that are told by their digest alone, by their paths; `*` stands for any name.
const KEPT_BACK: [&str; 6] = [
    "foundation.env.*",
    "finish.args.*",
    "finish.labels.*",
    "foundation.steps.*.run",
    "finish.steps.*.run",
    "packages.sources.*.from",
];

impl Stamp {
    /// That of a plan.
    #[must_use]
    pub fn of(plan: &Plan) -> Self {
        let mut plan = serde_json::to_value(plan).expect("a plan is JSON");
        for path in KEPT_BACK {
            keep_back(&mut plan, path);
        }
        Self { plan }
    }

    /// SHA-256 over everything that decides the image, in hexadecimal digits.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        // The maps of this value are sorted.
        let digest = Sha256::new().chain_update(FORMAT).chain_update([0]).chain_update(self.plan.to_string());
        hexadecimal(&digest.finalize())
    }

    /// The labels of an image with it.
    ///
    /// # Panics
    ///
    /// Never: nothing is written but memory.
    #[must_use]
    pub fn labels(&self) -> BTreeMap<String, String> {
        let mut packed = ZlibEncoder::new(Vec::new(), Compression::best());
        packed.write_all(self.plan.to_string().as_bytes()).expect("memory can be written");
        let packed = BASE64_STANDARD_NO_PAD.encode(packed.finish().expect("memory can be written"));
        let mut labels = BTreeMap::from([(FINGERPRINT_LABEL.to_owned(), self.fingerprint())]);
        for number in 0..=packed.len() / MOST {
            let part = &packed[number * MOST..packed.len().min((number + 1) * MOST)];
            labels.insert(plan_label(number), part.to_owned());
        }
        labels
    }

    /// What an image's labels say; `None` where they say nothing, or what no build of this program has written.
    #[must_use]
    pub fn read(labels: &BTreeMap<String, String>) -> Option<Self> {
        let fingerprint = labels.get(FINGERPRINT_LABEL)?;
        let mut packed = String::new();
        // One that is not full is the last: an image built on another may have more of that one's.
        for number in 0.. {
            let part = labels.get(&plan_label(number))?;
            packed += part;
            if part.len() < MOST {
                break;
            }
        }
        let packed = BASE64_STANDARD_NO_PAD.decode(packed).ok()?;
        let mut text = Vec::new();
        ZlibDecoder::new(packed.as_slice()).take(MOST_PLAN).read_to_end(&mut text).ok()?;
        let stamp = Self { plan: serde_json::from_slice(&text).ok()? };
        (stamp.fingerprint() == *fingerprint).then_some(stamp)
    }

    /// The names of all labels that a build with it writes: its own, and those of its plan.
    #[must_use]
    pub fn written(&self) -> BTreeSet<String> {
        let of_plan = self.plan.pointer("/finish/labels").and_then(Value::as_object);
        of_plan.into_iter().flatten().map(|(name, _)| name.clone()).chain(self.labels().into_keys()).collect()
    }

    /// Some parts of it, by their paths.
    #[must_use]
    pub fn parts(&self, paths: &[&str]) -> Value {
        let mut parts = Value::Object(serde_json::Map::new());
        for path in paths {
            let names: Vec<&str> = path.split('.').collect();
            let part = names.iter().try_fold(&self.plan, |value, name| value.get(name));
            let place = names.iter().fold(&mut parts, |value, name| &mut value[*name]);
            *place = part.cloned().unwrap_or_default();
        }
        parts
    }

    /// The plan, with what it keeps back taken from the image's configuration.
    ///
    /// # Errors
    ///
    /// The parts that neither of them tells: files, secrets and commands of whoever built it.
    pub fn restored(
        &self,
        env: &BTreeMap<String, String>,
        labels: &BTreeMap<String, String>,
    ) -> Result<Plan, Vec<&'static str>> {
        let mut plan = self.plan.clone();
        let mut lacking = Vec::new();
        for (pointer, known, what) in
            [("/foundation/env", env, "values of the environment"), ("/finish/labels", labels, "labels")]
        {
            for (name, value) in
                plan.pointer_mut(pointer).and_then(Value::as_object_mut).into_iter().flatten()
            {
                match known.get(name).map(|text| Value::from(text.as_str())) {
                    Some(text) if value.as_str() == Some(&short_digest(&text)) => *value = text,
                    _ => lacking.push(what),
                }
            }
        }
        for (pointer, what) in [
            ("/finish/args", "build arguments"),
            ("/foundation/steps", "own steps"),
            ("/finish/steps", "own steps"),
            ("/foundation/copies", "copied files"),
            ("/finish/copies", "copied files"),
            ("/packages/sources", "sources of this or another host"),
        ] {
            let is_empty = |value: &Value| match value {
                Value::Array(list) => list.is_empty(),
                Value::Object(map) => map.is_empty(),
                _ => true,
            };
            lacking.extend(plan.pointer(pointer).filter(|value| !is_empty(value)).map(|_| what));
        }
        lacking.dedup();
        match serde_json::from_value::<Plan>(plan) {
            Ok(plan)
                if plan.foundation.python_archive.is_some()
                    || plan.packages.locked.iter().flatten().any(|(_, pin)| pin.url.is_none()) =>
            {
                lacking.push("files of this host");
                Err(lacking)
            }
            Ok(plan) if lacking.is_empty() => Ok(plan),
            Ok(_) => Err(lacking),
            Err(_) => Err(vec!["what another version of this program wrote"]),
        }
    }

    /// What a later one has otherwise, roots before what follows from them.
    #[must_use]
    pub fn changes(&self, later: &Self) -> Vec<Change> {
        change::between(&self.plan, &later.plan)
    }
}

/// The label of a part of a plan, counted from 0.
fn plan_label(number: usize) -> String {
    match number {
        0 => PLAN_LABEL.to_owned(),
        _ => format!("{PLAN_LABEL}.{}", number + 1),
    }
}

fn keep_back(value: &mut Value, path: &str) {
    let (first, rest) = path.split_once('.').map_or((path, None), |(first, rest)| (first, Some(rest)));
    let entries: Vec<&mut Value> = match value {
        Value::Object(map) if first == "*" => map.values_mut().collect(),
        Value::Object(map) => map.get_mut(first).into_iter().collect(),
        Value::Array(list) if first == "*" => list.iter_mut().collect(),
        _ => Vec::new(),
    };
    for entry in entries {
        match rest {
            Some(rest) => keep_back(entry, rest),
            None => *entry = short_digest(entry).into(),
        }
    }
}

fn short_digest(value: &Value) -> String {
    format!("sha256:{}", hexadecimal(&Sha256::digest(value.to_string())[..8]))
}

#[cfg(test)]
mod tests {
    use super::change::is_hash;
    use super::*;

    fn plan() -> Value {
        serde_json::json!({
            "format": 1, "ipybox": "0.1.0", "variant": "basic",
            "foundation": {
                "base": {
                    "reference": "python:3.12-slim-bookworm", "id": format!("sha256:{}", "0a".repeat(32)),
                    "platform": { "os": "linux", "architecture": "amd64" },
                },
                "interpreter": {
                    "path": "/usr/local/bin/python3", "version": "3.12.8", "implementation": "cpython", "libc": "glibc 2.36",
                },
                "provenance": "base",
                "python_archive": { "folder": "python", "version": "3.12.1", "sha256": "ab".repeat(32) },
                "placement": "isolated", "user": { "unprivileged": { "uid": 1000, "gid": 1000 } },
                "template": "server.tera", "templates": "cd".repeat(32),
                "servers": [
                    { "port": 8888, "command": ["kernel_gateway", "--port=8888"], "interface": "gateway" },
                    { "port": 8900, "command": ["ipybox.resource.server"], "interface": "resources" },
                ],
                "servers_lock": "server.txt", "apt": ["iptables", "procps"], "wishes": ["curl"], "workspaces": "/app/workspaces",
                "env": { "HOME": "/home/ipybox", "MODE": "fast" },
                "copies": [{ "to": "/srv/", "is_folder": true, "owner": [0, 0], "digest": "ef".repeat(32) }],
                "steps": [{ "run": "echo 1", "as": "root", "at": "foundation", "secrets": ["token"] }],
                "bytecode": true,
                "installer": { "version": "0.13.8", "architecture": "amd64", "sha256": "01".repeat(32) },
            },
            "packages": {
                "requirements": ["numpy>=2.1,<3.0", ["pandas>=2", "pandas<1"], { "requirement": ["pip>=25.3"], "hashes": ["sha256:aa"] }],
                "bounds": ["idna>=3"],
                "indexes": [{ "url": "https://a.test/simple/", "priority": "extra", "only": ["ours"] }],
                "sources": { "mine": { "from": "../mine", "subdirectory": null, "digest": "23".repeat(32), "sha256": null, "file": null } },
                "unbuilt": { "docopt": ">=0.6" }, "build_apt": ["gcc"],
                "held": { "torch": { "version": "2.3.0", "requires": ["numpy"], "extras": [] } },
                "folders": ["/opt/conda/lib"],
                "locked": { "numpy": {
                    "version": "2.1.0", "file": "numpy-2.1.0-py3-none-any.whl", "url": "https://f.test/numpy", "is_direct": false,
                    "sha256": "67".repeat(32), "size": 7,
                } },
            },
            "finish": {
                "copies": [{ "to": "/late", "is_folder": false, "owner": [0, 0], "digest": "45".repeat(32) }],
                "steps": [{ "run": "echo 2", "as": "user", "at": "end" }],
                "args": { "MODEL": "small" }, "ports": [8888, 8900],
                "labels": { "ipybox.dependencies": "numpy pandas", "ipybox.version": "0.1.0" },
            },
        })
    }

    fn stamp(mut plan: Value) -> Stamp {
        for path in KEPT_BACK {
            keep_back(&mut plan, path);
        }
        Stamp { plan }
    }

    /// The pointers of all leaves, empty lists and maps among them.
    fn leaves(value: &Value, at: &str, found: &mut Vec<String>) {
        let below = |name: &str| format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
        match value {
            Value::Object(map) if !map.is_empty() => {
                map.iter().for_each(|(name, value)| leaves(value, &below(name), found));
            }
            Value::Array(list) if !list.is_empty() => {
                list.iter()
                    .enumerate()
                    .for_each(|(number, value)| leaves(value, &below(&number.to_string()), found));
            }
            _ => found.push(at.to_owned()),
        }
    }

    /// Another value of the same kind.
    fn other(value: &Value) -> Value {
        match value {
            Value::Null => "something".into(),
            Value::Bool(is) => (!is).into(),
            Value::Number(number) => (number.as_u64().unwrap() + 1).into(),
            Value::String(text) if is_hash(text.trim_start_matches("sha256:")) => {
                text.replacen(&text[text.len() - 2..], "99", 1).into()
            }
            Value::String(text) => format!("{text}9").into(),
            Value::Array(_) => serde_json::json!(["new"]),
            Value::Object(_) => serde_json::json!({ "new": "new" }),
        }
    }

    #[test]
    fn whatever_changes_in_a_plan_is_told_by_its_name() {
        let plan = plan();
        let before = stamp(plan.clone());
        let mut found = Vec::new();
        leaves(&plan, "", &mut found);
        assert!(found.len() > 70, "{}", found.len());
        for pointer in found {
            let mut changed = plan.clone();
            let leaf = changed.pointer_mut(&pointer).unwrap();
            *leaf = other(leaf);
            let after = stamp(changed);
            assert_ne!(before.fingerprint(), after.fingerprint(), "{pointer}");
            let changes = before.changes(&after);
            assert!(!changes.is_empty(), "{pointer}");
            // The path of one of them is that of the leaf, as far as it goes through maps.
            let path = pointer.trim_start_matches('/').replace("~1", "/").replace('/', ".");
            let begins = changes.iter().any(|change| {
                let parts = path.split('.').zip(change.path.split('.'));
                parts.take_while(|(one, other)| one == other).count() >= 2.min(path.split('.').count())
            });
            assert!(begins, "{pointer}: {changes:?}");
            assert!(changes.iter().all(|change| !change.what.is_empty()), "{changes:?}");
        }
        assert_eq!(before.changes(&stamp(plan)), []);
    }

    #[test]
    fn changes_are_told_in_words_and_roots_first() {
        let before = plan();
        let mut after = before.clone();
        let set = |plan: &mut Value, pointer: &str, value: Value| *plan.pointer_mut(pointer).unwrap() = value;
        set(&mut after, "/foundation/base/id", format!("sha256:{}", "0b".repeat(32)).into());
        set(&mut after, "/foundation/interpreter/version", "3.12.9".into());
        set(&mut after, "/packages/requirements/0", "numpy>=2.2,<3.0".into());
        set(&mut after, "/foundation/apt", serde_json::json!(["iptables", "jq"]));
        set(&mut after, "/foundation/env/MODE", "slow".into());
        set(&mut after, "/finish/args/MODEL", "large".into());
        set(&mut after, "/finish/labels/ipybox.dependencies", "numpy".into());
        set(&mut after, "/foundation/copies/0/digest", "ee".repeat(32).into());
        set(&mut after, "/packages/locked/numpy/version", "2.2.0".into());
        set(&mut after, "/packages/locked/numpy/sha256", "68".repeat(32).into());
        after["packages"]["locked"]["rich"] =
            serde_json::json!({ "version": "13.1", "sha256": "69".repeat(32) });
        after["packages"]["requirements"].as_array_mut().unwrap().push("rich>=13".into());
        let changes = stamp(before).changes(&stamp(after));
        let told: Vec<_> = changes.iter().map(|change| (change.what.as_str(), change.follows)).collect();
        assert_eq!(
            told,
            [
                ("the base `python:3.12-slim-bookworm` moved: 0a0a0a0a0a0a → 0b0b0b0b0b0b", false),
                ("numpy: >=2.1,<3.0 → >=2.2,<3.0", false),
                ("rich is new: rich>=13", false),
                ("the Debian package `procps` is gone", false),
                ("the Debian package `jq` is new", false),
                ("what is copied to `/srv/` changed", false),
                ("the variable `MODE` changed", false),
                ("the build argument `MODEL` changed", false),
                ("Python: 3.12.8 → 3.12.9", true),
                ("numpy that is locked: 2.1.0 → 2.2.0", true),
                ("rich 13.1 that is locked is new", true),
                ("the label `ipybox.dependencies` changed", true),
            ]
        );
    }

    #[test]
    fn what_an_image_says_is_read_back_and_nothing_else_is_believed() {
        let mut large = plan();
        let noise: String = (0..4000).map(|number| short_digest(&number.into())).collect();
        large["packages"]["held"]["torch"]["requires"] = serde_json::json!([noise]);
        for plan in [plan(), large] {
            let stamp = stamp(plan);
            let labels = stamp.labels();
            assert!(labels.values().all(|value| value.len() <= MOST));
            assert_eq!(Stamp::read(&labels), Some(stamp.clone()));
            assert!(!format!("{stamp:?}").contains("fast") && !format!("{stamp:?}").contains("small"));
            let mut inherited = labels.clone();
            inherited.insert(plan_label(labels.len() - 1), "of the base".to_owned());
            assert_eq!(Stamp::read(&inherited), Some(stamp));
            for name in labels.keys() {
                let mut cut = labels.clone();
                let value = cut.get_mut(name).unwrap();
                value.truncate(value.len() - 3);
                assert_eq!(Stamp::read(&cut), None, "{name}");
                cut.remove(name);
                assert_eq!(Stamp::read(&cut), None, "{name}");
            }
        }
    }
}
