//! Builds through the API before BuildKit, as podman answers it.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bollard::models::BuildInfoAux;
use bollard::query_parameters::BuildImageOptionsBuilder;
use futures_util::StreamExt;

use super::progress::{MAX_LINE, Progress};
use super::session::chunks;
use super::{Build, BuildEvent, PATIENCE};
use crate::engine::images::image_id;
use crate::engine::{Engine, EngineError, error};
use crate::reference::ImageId;

impl Engine {
    /// Builds with the context in the request.
    pub(super) async fn build_classic(
        &self,
        build: Build,
        mut report: impl FnMut(BuildEvent),
    ) -> Result<ImageId, EngineError> {
        let Build { context, dockerfile, labels, no_cache, secrets, build_args, platform, network, titles } =
            build;
        debug_assert!(secrets.is_empty() && network.is_none(), "the engine has neither");
        let options = BuildImageOptionsBuilder::default()
            .dockerfile(&dockerfile)
            .labels(&labels)
            .nocache(no_cache)
            .rm(true)
            .forcerm(true)
            .platform(platform.as_deref().unwrap_or_default())
            .buildargs(&build_args)
            .build();
        let mut steps = Steps { progress: Progress::new(titles), running: None, unfinished: String::new() };
        let mut image = None;
        let docker = self.docker.clone().with_timeout(PATIENCE);
        let sent = Arc::new(AtomicU64::new(0));
        let spoilt = Arc::<Mutex<Option<io::Error>>>::default();
        let read = async {
            let (counted, kept) = (sent.clone(), spoilt.clone());
            let body = chunks(context, &self.dialer.host).map(move |chunk| match chunk {
                Ok(chunk) => {
                    counted.fetch_add(chunk.len() as u64, Ordering::Relaxed);
                    Ok(bytes::Bytes::from(chunk))
                }
                Err(error) => {
                    let told = io::Error::new(error.kind(), error.to_string());
                    *kept.lock().expect("no panic while it is held") = Some(error);
                    Err(told)
                }
            });
            let mut messages = docker.build_image(options, None, Some(bollard::body_try_stream(body)));
            while let Some(message) = messages.next().await {
                let message = message?;
                if let Some(text) = message.stream {
                    steps.read(&text, &mut report);
                }
                if let Some(BuildInfoAux::Default(id)) = message.aux {
                    image = id.id;
                }
            }
            Ok(())
        };
        let built = match self.unless_interrupted(read).await? {
            Err(error) if image.is_some() && error::is_of_last_line_break(&error) => Ok(()),
            built => built,
        };
        if built.is_ok() {
            steps.end(&mut report);
        }
        if let Some(error) = spoilt.lock().expect("no panic while it is held").take() {
            return Err(EngineError::Context(error));
        }
        report(BuildEvent::Sent { bytes: sent.load(Ordering::Relaxed) });
        match (built, image) {
            (Ok(()), image @ Some(_)) => image_id(image),
            (Ok(()), None) => Err(EngineError::NoImage),
            (Err(error), _) => Err(steps.failure(error)),
        }
    }
}

/// The steps of a build, as its text tells of them.
struct Steps {
    progress: Progress,
    running: Option<Running>,
    unfinished: String,
}

/// One step.
struct Running {
    number: String,
    begun: Instant,
    cached: bool,
}

impl Steps {
    fn read(&mut self, text: &str, report: &mut impl FnMut(BuildEvent)) {
        self.unfinished += text;
        while let Some(end) = self.unfinished.find('\n') {
            let line: String = self.unfinished.drain(..=end).collect();
            self.line(&line, report);
        }
        if self.unfinished.len() > MAX_LINE {
            let line = std::mem::take(&mut self.unfinished);
            self.line(&line, report);
        }
    }

    fn line(&mut self, line: &str, report: &mut impl FnMut(BuildEvent)) {
        if let Some((number, instruction)) = step(line.trim_end()) {
            self.end(report);
            self.progress.begin(&number, &format!("[{number}] {instruction}"), report);
            self.running = Some(Running { number, begun: Instant::now(), cached: false });
        } else if is_commit(line.trim_end()) {
            self.end(report);
        } else if let Some(running) = &mut self.running {
            if line.starts_with("--> ") {
                running.cached |= line.starts_with("--> Using cache ");
            } else if !running.cached {
                // What comes behind the last cached step is the id of the image.
                self.progress.output(&running.number, line.as_bytes(), report);
            }
        }
    }

    /// The running step is over.
    fn end(&mut self, report: &mut impl FnMut(BuildEvent)) {
        if let Some(Running { number, begun, cached }) = self.running.take() {
            self.progress.finish(&number, cached, begun.elapsed().as_secs_f64(), report);
        }
    }

    fn failure(mut self, error: bollard::errors::Error) -> EngineError {
        if let Some(running) = &self.running {
            self.progress.output(&running.number, self.unfinished.as_bytes(), &mut |_| ());
            self.progress.fail(&running.number);
        }
        self.progress.failure(error)
    }
}

/// The number and the instruction of `STEP 3/20: RUN x` or `[1/2] STEP 3/20: RUN x`.
///
/// Source: buildah, `imagebuildah`.
fn step(line: &str) -> Option<(String, &str)> {
    let (before, rest) = line.split_once("STEP ")?;
    let (number, instruction) = rest.split_once(": ")?;
    let is_count = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'/');
    let stage = before.trim_end().trim_start_matches('[').trim_end_matches(']');
    let stage = if stage.is_empty() { String::new() } else { format!("{stage} ") };
    (is_count(number) && is_count(stage.trim_end())).then(|| (format!("{stage}{number}"), instruction))
}

/// Whether a line says `COMMIT` or `[2/2] COMMIT NAME`: what comes behind it is the id of a stage's image.
fn is_commit(line: &str) -> bool {
    let stage = line.strip_prefix('[').and_then(|rest| rest.split_once("] "));
    let is_count = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'/');
    let rest = match stage {
        Some((number, rest)) if is_count(number) => rest,
        _ => line,
    };
    rest == "COMMIT" || rest.starts_with("COMMIT ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_told_from_what_they_print() {
        assert_eq!(step("STEP 3/20: RUN x"), Some(("3/20".to_owned(), "RUN x")));
        assert_eq!(step("[2/2] STEP 1/5: FROM a: b"), Some(("2/2 1/5".to_owned(), "FROM a: b")));
        for output in ["a STEP 1/2: x", "STEP one: x", "--> 1234", "STEP 1/2"] {
            assert_eq!(step(output), None, "{output}");
        }
    }
}
