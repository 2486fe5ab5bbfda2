//! An image once more, with one time for all of it in its configuration: equal layers then make an equal image.

use serde_json::{Map, Value, json};

use std::io::{self, Write};

use bollard::errors::Error as Api;
use bollard::query_parameters::ImportImageOptions;
use futures_util::{StreamExt, TryStreamExt};

use super::build::session::streamed;
use super::images::PATIENCE;
use super::{Builder, Engine, EngineError, PutError, transport};
use crate::archive::rfc3339;
use crate::reference::ImageId;

/// Instructions that add a layer, whatever is in it.
const WITH_LAYER: [&str; 4] = ["RUN", "COPY", "ADD", "WORKDIR"];

impl Engine {
    /// The image whose configuration has `seconds` since 1970 for every time in it since the base, and which is the same
    /// otherwise; `None` where the engine makes no such image. Its layers stay where they are, and none is sent.
    ///
    /// Rule: OCI image specification, "Image Configuration"; an engine finds layers by their digests.
    ///
    /// # Errors
    ///
    /// [`EngineError`].
    pub async fn with_time(
        &self,
        image: &ImageId,
        base: &ImageId,
        seconds: u64,
    ) -> Result<Option<ImageId>, EngineError> {
        if self.builder == Builder::Classic {
            return Ok(None);
        }
        let (of_image, of_base) = tokio::try_join!(self.told(image), self.told(base))?;
        if of_image.inspected["Created"].as_str().is_some_and(|time| time == rfc3339(seconds)) {
            return Ok(Some(image.clone()));
        }
        let Some(config) = config(&of_image, &of_base, seconds) else { return Ok(None) };
        match self.of_layers(&config, image, &of_image.layers(), &[], &[]).await {
            Ok(image) => Ok(Some(image)),
            Err(PutError::Engine(EngineError::Interrupted)) => Err(EngineError::Interrupted),
            Err(_) => Ok(None),
        }
    }

    /// Has the engine read images from an archive, as `docker load` does, and returns what it says. What comes of that is to
    /// be looked at.
    pub(super) async fn load(
        &self,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()> + Send + 'static,
    ) -> Result<Result<String, Api>, EngineError> {
        let body = streamed(&self.dialer.host, write).map_ok(bytes::Bytes::from);
        let docker = self.docker.clone().with_timeout(PATIENCE);
        let options = ImportImageOptions::default();
        let mut loaded = docker.import_image(options, bollard::body_try_stream(body), None);
        let read = async {
            let mut said = String::new();
            while let Some(message) = loaded.next().await {
                said = message?.stream.unwrap_or(said);
            }
            Ok(said)
        };
        self.unless_interrupted(read).await
    }

    /// What the engine says of an image, in its own words.
    pub(super) async fn told(&self, image: &ImageId) -> Result<Told, EngineError> {
        let ask = async |what: &str| {
            let body = transport::get(&self.dialer, &format!("/images/{image}/{what}")).await;
            let read = body.and_then(|body| Ok(serde_json::from_slice::<Value>(&body)?));
            read.map_err(|err| EngineError::api("inspect an image")(bollard::errors::Error::IOError { err }))
        };
        Ok(Told { inspected: ask("json").await?, history: ask("history").await? })
    }
}

/// What an engine says of an image.
pub(super) struct Told {
    inspected: Value,
    /// The newest first.
    history: Value,
}

impl Told {
    pub(super) fn layers(&self) -> Vec<String> {
        let layers = self.inspected["RootFS"]["Layers"].as_array();
        layers.into_iter().flatten().filter_map(|layer| layer.as_str().map(str::to_owned)).collect()
    }

    /// The oldest first.
    fn steps(&self) -> Vec<&Value> {
        self.history.as_array().into_iter().flatten().rev().collect()
    }
}

/// The configuration of an image with one time; `None` where it cannot be told which steps made its layers.
pub(super) fn config(image: &Told, base: &Told, seconds: u64) -> Option<Value> {
    let (layers, of_base) = (image.layers(), base.layers());
    let (steps, base_steps) = (image.steps(), base.steps().len());
    if !layers.starts_with(&of_base) || steps.len() < base_steps {
        return None;
    }
    let time = rfc3339(seconds);
    let (old, new) = steps.split_at(base_steps);
    let mut history = entries(old, of_base.len(), None)?;
    history.extend(entries(new, layers.len() - of_base.len(), Some(&time))?);
    let mut settings = image.inspected["Config"].as_object().cloned().unwrap_or_default();
    // What a container had that this was made of.
    for name in ["Image", "Hostname", "Domainname"] {
        settings.remove(name);
    }
    let mut config = Map::new();
    for (key, name) in [("architecture", "Architecture"), ("os", "Os"), ("variant", "Variant")] {
        if let Some(value) = image.inspected[name].as_str().filter(|value| !value.is_empty()) {
            config.insert(key.to_owned(), value.into());
        }
    }
    config.insert("created".to_owned(), time.into());
    config.insert("config".to_owned(), settings.into());
    config.insert("history".to_owned(), history.into());
    config.insert("rootfs".to_owned(), json!({ "type": "layers", "diff_ids": layers }));
    Some(config.into())
}

/// Steps as a configuration has them, of which so many have made a layer; with a time of their own where none is given.
fn entries(steps: &[&Value], layers: usize, time: Option<&str>) -> Option<Vec<Value>> {
    let command = |step: &Value| step["CreatedBy"].as_str().unwrap_or_default().to_owned();
    let is_large = |step: &&Value| step["Size"].as_i64().is_some_and(|size| size > 0);
    let adds = |step: &Value| {
        let command = command(step);
        let nop = command.split_once("#(nop)").map(|(_, rest)| rest.trim());
        let by_word = WITH_LAYER.iter().any(|word| nop.unwrap_or(&command).starts_with(word));
        by_word || nop.is_none() && command.starts_with("/bin/sh -c")
    };
    let large = steps.iter().filter(|step| is_large(step)).count();
    let by_command = steps.iter().filter(|step| is_large(step) || adds(step)).count();
    let has_layer: &dyn Fn(&Value) -> bool = match layers {
        count if count == large => &|step| is_large(&step),
        count if count == by_command => &|step| is_large(&step) || adds(step),
        _ => return None,
    };
    let entry = |step: &&Value| {
        let own = step["Created"].as_u64().unwrap_or_default();
        let mut entry = json!({ "created": time.map_or_else(|| rfc3339(own), str::to_owned), "created_by": command(step) });
        if let Some(comment) = step["Comment"].as_str().filter(|comment| !comment.is_empty()) {
            entry["comment"] = comment.into();
        }
        if !has_layer(step) {
            entry["empty_layer"] = true.into();
        }
        entry
    };
    Some(steps.iter().map(entry).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(layers: &[&str], history: Value) -> Told {
        let inspected = json!({
            "Architecture": "amd64", "Os": "linux", "Created": "2026-01-01T00:00:00Z",
            "Config": { "Cmd": ["x"], "Image": "sha256:0", "Labels": { "a": "b" } },
            "RootFS": { "Type": "layers", "Layers": layers },
        });
        Told { inspected, history }
    }

    fn step(command: &str, size: u64, created: u64) -> Value {
        json!({ "CreatedBy": command, "Size": size, "Created": created, "Comment": "" })
    }

    #[test]
    fn times_since_the_base_are_one_and_layers_are_those_of_their_steps() {
        let base = json!([
            step("/bin/sh -c #(nop)  CMD [\"sh\"]", 0, 60),
            step("/bin/sh -c #(nop) ADD file:1", 9, 60)
        ]);
        let mut steps = vec![
            step("LABEL a=b", 0, 99),
            step("RUN /bin/sh -c true # buildkit", 0, 99),
            step("WORKDIR /app", 0, 99),
            step("ENV A=1", 0, 99),
            step("ADD files.tar /", 7, 99),
        ];
        steps.extend(base.as_array().unwrap().iter().cloned());
        let (base, image) = (
            told(&["sha256:1"], base),
            told(&["sha256:1", "sha256:2", "sha256:3", "sha256:4"], steps.into()),
        );
        let config = config(&image, &base, 86_400).unwrap();
        assert_eq!(config["created"], "1970-01-02T00:00:00Z");
        assert_eq!(config["config"], json!({ "Cmd": ["x"], "Labels": { "a": "b" } }));
        let history = config["history"].as_array().unwrap();
        let empty: Vec<bool> = history.iter().map(|entry| entry["empty_layer"] == true).collect();
        assert_eq!(empty, [false, true, false, true, false, false, true]);
        assert_eq!(history[0]["created"], "1970-01-01T00:01:00Z");
        assert_eq!(history[6]["created"], "1970-01-02T00:00:00Z");
        assert!(super::config(&told(&["sha256:9"], json!([])), &base, 0).is_none());
        assert!(entries(&[&step("ENV A=1", 0, 0)], 1, None).is_none());
    }
}
