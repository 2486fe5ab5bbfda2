//! The configuration of an image whose foundation no step makes, from that of its base.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::archive::rfc3339;
use crate::base::Platform;
use crate::diagnostic::Diagnostic;
use crate::freshness::newest_step;
use crate::plan::{Plan, WORKDIR};

/// A layer above those of the base.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Above {
    /// SHA-256 over its tar stream, with `sha256:` before it.
    pub diff_id: String,
    /// What it is, for whoever asks for the history of the image.
    pub title: String,
}

/// Why there is no configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A part of the base's is not what the specification says.
    #[error("the configuration of the base has `{part}`, and that is not {expected}")]
    Unfit {
        /// The part, by its path.
        part: String,
        /// What it should be.
        expected: &'static str,
    },
    /// It is that of an image for another platform.
    #[error("the base is for {found}, and the plan is for {planned}")]
    OtherPlatform {
        /// What the configuration says.
        found: String,
        /// What the plan says.
        planned: Platform,
    },
    /// A layer above has no proper diff ID.
    #[error("`{0}` is no diff ID of a layer")]
    DiffId(String),
}

impl ConfigError {
    /// The refusal.
    #[must_use]
    pub fn diagnostic(&self) -> Diagnostic {
        let what = Diagnostic::new("there is no image on this base");
        let advice = match self {
            Self::Unfit { .. } => "export the base anew, or choose another one",
            Self::OtherPlatform { .. } => "plan anew with this base",
            Self::DiffId(_) => "build with another `--cache-dir`",
        };
        what.why(self.to_string()).advice(advice)
    }
}

/// The configuration of a plan's image: that of its base as the steps of a Dockerfile would change it, with `layers` above
/// those of the base, and with one time, in seconds since 1970, for all of it that the base does not say.
///
/// Rule: OCI image specification, "Image Configuration"; `Healthcheck` and `Shell` as Docker writes them. Of what else Docker
/// once knew, builds keep nothing.
///
/// # Errors
///
/// [`ConfigError`].
pub fn config(
    base: &Value,
    plan: &Plan,
    layers: &[Above],
    labels: &BTreeMap<String, String>,
    seconds: u64,
) -> Result<Value, ConfigError> {
    let base = Part::of(base, "")?;
    let time = rfc3339(seconds);
    let mut config = Map::new();
    let planned = &plan.foundation.base.platform;
    let required = |name| base.text(name)?.ok_or_else(|| base.unfit(name, TEXT));
    let (architecture, os) = (required("architecture")?, required("os")?);
    if (architecture, os) != (&planned.architecture, &planned.os) {
        let found = format!("{os}/{architecture}").escape_debug().to_string();
        return Err(ConfigError::OtherPlatform { found, planned: planned.clone() });
    }
    for name in ["architecture", "os", "variant", "os.version", "author"] {
        if let Some(value) = base.text(name)?.filter(|value| !value.is_empty()) {
            config.insert(name.to_owned(), value.into());
        }
    }
    let features = base.texts("os.features")?;
    if !features.is_empty() {
        config.insert("os.features".to_owned(), json!(features));
    }
    config.insert("created".to_owned(), time.as_str().into());
    config.insert("config".to_owned(), settings(&base.part("config")?, plan, labels)?);
    let mut diff_ids = base.part("rootfs")?.texts("diff_ids")?;
    if !diff_ids.iter().all(|id| is_diff_id(id)) {
        return Err(base.unfit("rootfs.diff_ids", "a list of SHA-256 digests"));
    }
    let mut history = history(&base, diff_ids.len(), &time)?;
    for Above { diff_id, title } in layers {
        if !is_diff_id(diff_id) {
            return Err(ConfigError::DiffId(diff_id.escape_debug().to_string()));
        }
        diff_ids.push(diff_id);
        history.push(json!({ "created": time, "created_by": title }));
    }
    history.push(json!({ "created": time, "created_by": newest_step(labels), "empty_layer": true }));
    config.insert("history".to_owned(), history.into());
    config.insert("rootfs".to_owned(), json!({ "type": "layers", "diff_ids": diff_ids }));
    Ok(config.into())
}

/// What containers of the image run with.
fn settings(base: &Part<'_>, plan: &Plan, labels: &BTreeMap<String, String>) -> Result<Value, ConfigError> {
    let (uid, gid) = plan.foundation.user.ids();
    let test: Vec<String> = std::iter::once("CMD".to_owned()).chain(plan.foundation.health()).collect();
    let mut ports = base.names("ExposedPorts")?;
    ports.extend(plan.finish.ports.iter().map(|port| (format!("{port}/tcp"), json!({}))));
    let mut all_labels = base.object("Labels")?;
    if !all_labels.values().all(Value::is_string) {
        return Err(base.unfit("Labels", "an object of texts"));
    }
    all_labels.extend(labels.iter().map(|(name, value)| (name.clone(), value.as_str().into())));
    let mut settings = json!({
        "User": format!("{uid}:{gid}"),
        "Env": env(base.texts("Env")?, &plan.foundation.env),
        "Cmd": plan.foundation.command(),
        "WorkingDir": WORKDIR,
        "StopSignal": "SIGTERM",
        "Shell": ["/bin/sh", "-c"],
        "Healthcheck": {
            "Test": test,
            "Interval": 2 * SECOND, "Timeout": 10 * SECOND, "StartPeriod": 30 * SECOND, "Retries": 10,
        },
    });
    for (name, object) in
        [("ExposedPorts", ports), ("Volumes", base.names("Volumes")?), ("Labels", all_labels)]
    {
        if !object.is_empty() {
            settings[name] = object.into();
        }
    }
    Ok(settings)
}

/// In the nanoseconds that Docker counts in.
const SECOND: u64 = 1_000_000_000;

/// The variables of a base with further ones, each in the place of one that has its name.
///
/// Rule: Dockerfile reference, "ENV". Where a base has several of one name, only one of them gives way in builds, and
/// whichever is left may count; here all do.
fn env(base: Vec<&str>, own: &BTreeMap<String, String>) -> Vec<String> {
    let variable = |(name, value): (&String, &String)| format!("{name}={value}");
    let mut placed = BTreeSet::new();
    let mut variables = Vec::new();
    for one in base {
        match own.get_key_value(one.split('=').next().unwrap_or_default()) {
            None => variables.push(one.to_owned()),
            Some(set) => {
                if placed.insert(set.0) {
                    variables.push(variable(set));
                }
            }
        }
    }
    // Builds give each image a `PATH` before anything else is set.
    let (first, rest): (Vec<_>, Vec<_>) =
        own.iter().filter(|(name, _)| !placed.contains(name)).partition(|(name, _)| *name == "PATH");
    variables.extend(first.into_iter().chain(rest).map(variable));
    variables
}

/// The steps of a base, of which as many have made a layer as there are.
///
/// Rule: OCI image specification, "history"; where it does not fit, as in BuildKit, `normalizeLayersAndHistory`.
fn history(base: &Part<'_>, layers: usize, time: &str) -> Result<Vec<Value>, ConfigError> {
    let mut left = layers;
    let mut steps = Vec::new();
    for (number, step) in base.list("history")?.iter().enumerate() {
        let step = Part::of(step, &format!("history.{number}"))?;
        let mut entry = Map::new();
        for name in ["created", "created_by", "author", "comment"] {
            let is_time = |text: &str| OffsetDateTime::parse(text, &Rfc3339).is_ok();
            if let Some(text) = step.text(name)?.filter(|text| name != "created" || is_time(text)) {
                entry.insert(name.to_owned(), text.into());
            }
        }
        let is_empty = match step.get("empty_layer") {
            None => false,
            Some(value) => value.as_bool().ok_or_else(|| step.unfit("empty_layer", "true or false"))?,
        };
        if is_empty || left == 0 {
            entry.insert("empty_layer".to_owned(), true.into());
        } else {
            left -= 1;
        }
        steps.push(entry.into());
    }
    steps.extend((0..left).map(|_| json!({ "created": time, "created_by": "a layer of the base" })));
    Ok(steps)
}

fn is_diff_id(text: &str) -> bool {
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    text.strip_prefix("sha256:").is_some_and(|digits| digits.len() == 64 && digits.bytes().all(is_digit))
}

const TEXT: &str = "a text";

/// An object of the base's configuration, which anybody may have written.
struct Part<'a> {
    object: Option<&'a Map<String, Value>>,
    path: String,
}

impl<'a> Part<'a> {
    fn of(value: &'a Value, path: &str) -> Result<Self, ConfigError> {
        let object = value.as_object();
        if object.is_none() {
            let part = if path.is_empty() { "no object".to_owned() } else { path.to_owned() };
            return Err(ConfigError::Unfit { part, expected: "an object" });
        }
        Ok(Self { object, path: path.to_owned() })
    }

    /// What is there under a name; what is `null` is not there.
    fn get(&self, name: &str) -> Option<&'a Value> {
        self.object?.get(name).filter(|value| !value.is_null())
    }

    fn unfit(&self, name: &str, expected: &'static str) -> ConfigError {
        let dot = if self.path.is_empty() { "" } else { "." };
        ConfigError::Unfit { part: format!("{}{dot}{name}", self.path), expected }
    }

    fn part(&self, name: &str) -> Result<Self, ConfigError> {
        let path = if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) };
        match self.get(name) {
            None => Ok(Self { object: None, path }),
            Some(value) => Self::of(value, &path),
        }
    }

    fn text(&self, name: &str) -> Result<Option<&'a str>, ConfigError> {
        let text = |value: &'a Value| value.as_str().ok_or_else(|| self.unfit(name, TEXT));
        self.get(name).map(text).transpose()
    }

    fn list(&self, name: &str) -> Result<&'a [Value], ConfigError> {
        match self.get(name) {
            None => Ok(&[]),
            Some(value) => value.as_array().map(Vec::as_slice).ok_or_else(|| self.unfit(name, "a list")),
        }
    }

    fn texts(&self, name: &str) -> Result<Vec<&'a str>, ConfigError> {
        let text = |value: &'a Value| value.as_str().ok_or_else(|| self.unfit(name, "a list of texts"));
        self.list(name)?.iter().map(text).collect()
    }

    /// An object that says something by its names alone.
    fn names(&self, name: &str) -> Result<Map<String, Value>, ConfigError> {
        Ok(self.object(name)?.into_iter().map(|(name, _)| (name, json!({}))).collect())
    }

    fn object(&self, name: &str) -> Result<Map<String, Value>, ConfigError> {
        match self.get(name) {
            None => Ok(Map::new()),
            Some(value) => value.as_object().cloned().ok_or_else(|| self.unfit(name, "an object")),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::archive::EPOCH;
    use crate::freshness::FINGERPRINT_LABEL;
    use crate::image::tests::planned;

    fn id(digit: char) -> String {
        format!("sha256:{}", digit.to_string().repeat(64))
    }

    fn above() -> [Above; 2] {
        [('8', "the foundation"), ('9', "2 packages: a b")]
            .map(|(digit, title)| Above { diff_id: id(digit), title: title.to_owned() })
    }

    fn made(base: &Value) -> Result<Value, ConfigError> {
        let labels = [("own", "new"), (FINGERPRINT_LABEL, "abc")];
        let labels = BTreeMap::from(labels.map(|(name, value)| (name.to_owned(), value.to_owned())));
        config(base, &planned("kernel").0, &above(), &labels, EPOCH)
    }

    fn platform() -> Value {
        json!({ "architecture": "amd64", "os": "linux" })
    }

    #[test]
    fn a_base_is_changed_as_steps_would() {
        let base = json!({
            "architecture": "amd64", "os": "linux", "variant": "v2", "author": "a", "container": "gone",
            "created": "2020-01-01T00:00:00Z",
            "config": {
                "Hostname": "gone", "User": "nobody", "Env": ["A=1", "HOME=/x", "A=2", "HOME=/y"], "Entrypoint": ["gone"], "Cmd": ["gone"],
                "ExposedPorts": { "53/udp": {} }, "Volumes": { "/kept": {} }, "WorkingDir": "/gone", "OnBuild": ["RUN gone"],
                "Labels": { "own": "old", "kept": "1" }, "StopSignal": "SIGINT", "ArgsEscaped": true, "Shell": null,
            },
            "history": [
                { "created": "2020-01-01T00:00:00.123Z", "created_by": "ADD x", "comment": "c", "unknown": 1 },
                { "created": "no time", "created_by": "CMD x", "empty_layer": true },
            ],
            "rootfs": { "type": "layers", "diff_ids": [id('1')] },
        });
        let time = "1980-01-01T00:00:00Z";
        let expected = json!({
            "architecture": "amd64", "os": "linux", "variant": "v2", "author": "a", "created": time,
            "config": {
                "User": "1000:1000",
                "Env": [
                    "A=1", "HOME=/home/ipybox", "A=2",
                    "PATH=/opt/venv/bin:/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin",
                    "USER=ipybox", "VIRTUAL_ENV=/opt/venv",
                ],
                "Cmd": [
                    "/opt/ipybox/server/bin/python", "-I", "-m", "ipybox.supervisor", "--health", "8888", "--",
                    "kernel_gateway", "--ip=0.0.0.0", "--port=8888",
                ],
                "Healthcheck": {
                    "Test": [
                        "CMD", "/usr/bin/env", "-u", "EXECUTOR_TOKEN", "-u", "KG_AUTH_TOKEN", "/bin/sh",
                        "/opt/ipybox/health.sh", "8888",
                    ],
                    "Interval": 2_000_000_000_u64, "Timeout": 10_000_000_000_u64, "StartPeriod": 30_000_000_000_u64, "Retries": 10,
                },
                "ExposedPorts": { "53/udp": {}, "8888/tcp": {} }, "Volumes": { "/kept": {} }, "WorkingDir": "/app",
                "Labels": { "own": "new", "ipybox.fingerprint": "abc", "kept": "1" }, "StopSignal": "SIGTERM", "Shell": ["/bin/sh", "-c"],
            },
            "history": [
                { "created": "2020-01-01T00:00:00.123Z", "created_by": "ADD x", "comment": "c" },
                { "created_by": "CMD x", "empty_layer": true },
                { "created": time, "created_by": "the foundation" },
                { "created": time, "created_by": "2 packages: a b" },
                { "created": time, "created_by": "LABEL of ipybox ipybox.fingerprint=abc", "empty_layer": true },
            ],
            "rootfs": { "type": "layers", "diff_ids": [id('1'), id('8'), id('9')] },
        });
        assert_eq!(made(&base).unwrap(), expected);
    }

    #[test]
    fn a_history_has_as_many_layers_as_there_are() {
        let step = |is_empty: bool| json!({ "created_by": "x", "empty_layer": is_empty });
        for (steps, layers, empty) in [
            (vec![], 2, vec![false, false]),
            (vec![true, false], 3, vec![true, false, false, false]),
            (vec![false, true, false], 1, vec![false, true, true]),
            (vec![false], 0, vec![true]),
        ] {
            let mut base = platform();
            base["history"] = steps.iter().map(|&is_empty| step(is_empty)).collect();
            base["rootfs"] = json!({ "diff_ids": vec![id('1'); layers] });
            let made = made(&base).unwrap();
            let history = made["history"].as_array().unwrap();
            let found: Vec<bool> = history.iter().map(|step| step["empty_layer"] == true).collect();
            assert_eq!(found, [empty, vec![false, false, true]].concat());
        }
    }

    #[test]
    fn what_is_no_configuration_is_refused_by_its_place() {
        let with = |pointer: &str, value: Value| {
            let mut base = json!({ "architecture": "amd64", "os": "linux", "config": {}, "rootfs": {}, "history": [{}] });
            let (parent, name) = pointer.rsplit_once('/').unwrap();
            base.pointer_mut(parent).unwrap()[name] = value;
            made(&base).unwrap_err().to_string()
        };
        for (pointer, value, part) in [
            ("/config", json!([]), "`config`"),
            ("/config/Env", json!("A=1"), "`config.Env`"),
            ("/config/Env", json!([1]), "`config.Env`"),
            ("/config/Labels", json!({ "a": 1 }), "`config.Labels`"),
            ("/config/Volumes", json!([]), "`config.Volumes`"),
            ("/history", json!({}), "`history`"),
            ("/history", json!([1]), "`history.0`"),
            ("/history", json!([{ "created_by": 1 }]), "`history.0.created_by`"),
            ("/rootfs/diff_ids", json!(["sha256:0"]), "`rootfs.diff_ids`"),
            ("/rootfs/diff_ids", json!([1]), "`rootfs.diff_ids`"),
            ("/os", json!(null), "`os`"),
            ("/architecture", json!("arm64"), "linux/arm64"),
        ] {
            let told = with(pointer, value);
            assert!(told.contains(part), "{told}");
        }
        assert!(made(&json!([])).is_err());
        let none = [Above { diff_id: "sha256:no".to_owned(), title: String::new() }];
        let refused = config(&platform(), &planned("kernel").0, &none, &BTreeMap::new(), EPOCH);
        assert_eq!(refused.unwrap_err(), ConfigError::DiffId("sha256:no".to_owned()));
    }

    fn value() -> impl Strategy<Value = Value> {
        let digest = "[0-9a-f]{64}".prop_map(|digits| json!(format!("sha256:{digits}")));
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".{0,8}".prop_map(Value::from),
            digest,
        ];
        let names =
            "config|rootfs|history|diff_ids|Env|Labels|Volumes|ExposedPorts|created|empty_layer|os|.{0,4}";
        leaf.prop_recursive(4, 40, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map(names, inner, 0..6).prop_map(|map| json!(map)),
            ]
        })
    }

    proptest! {
        #[test]
        fn whatever_a_base_says_layers_and_history_agree(
            config in value(), rootfs in prop::collection::vec("[0-9a-f]{64}", 0..4), history in value(), whole in value(),
        ) {
            let _ = made(&whole);
            let mut base = platform();
            base["config"] = config;
            base["history"] = history;
            base["rootfs"] = json!({ "diff_ids": rootfs.iter().map(|digits| format!("sha256:{digits}")).collect::<Vec<_>>() });
            if let Ok(made) = made(&base) {
                let history = made["history"].as_array().unwrap();
                let layers = history.iter().filter(|step| step["empty_layer"] != true).count();
                prop_assert_eq!(layers, rootfs.len() + 2);
                prop_assert_eq!(made["rootfs"]["diff_ids"].as_array().unwrap().len(), layers);
            }
        }
    }
}
