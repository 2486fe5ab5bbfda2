//! How long is waited for a registry, and how often it is asked again.

use std::time::{Duration, Instant, SystemTime};

use super::error::{Fault, RegistryError};

/// How long is waited for a registry, and how often it is asked again.
///
/// The pause before each further try is a random part ("full jitter") of a time that doubles with each, or what the
/// registry asks for with `Retry-After`.
#[derive(Debug, Clone)]
pub struct Patience {
    /// How long a connection may be silent.
    pub silence: Duration,
    /// How long the end of an upload may take, when registries count and move what they got.
    pub closing: Duration,
    /// The most that is waited before the second try.
    pub pause: Duration,
    /// The most that is waited before any try, whatever the registry asks for.
    pub longest: Duration,
    /// For how long nothing may get on before it is given up.
    pub total: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            silence: Duration::from_secs(60),
            closing: Duration::from_secs(300),
            pause: Duration::from_secs(1),
            longest: Duration::from_secs(60),
            total: Duration::from_secs(300),
        }
    }
}

/// How often it is tried to reach a host that does not take connections.
const CONNECTIONS: u32 = 4;

/// The tries of one piece of work.
pub(super) struct Tries<'a> {
    patience: &'a Patience,
    since: Instant,
    failed: u32,
    unreached: u32,
}

impl Patience {
    /// The tries of a piece of work that begins now.
    pub(super) fn begin(&self) -> Tries<'_> {
        Tries { patience: self, since: Instant::now(), failed: 0, unreached: 0 }
    }

    /// Does something until it is done, or fails in a way that does not pass.
    pub(super) async fn insist<T>(
        &self,
        work: impl AsyncFn() -> Result<T, Fault>,
    ) -> Result<T, RegistryError> {
        let mut tries = self.begin();
        loop {
            match work().await {
                Ok(done) => return Ok(done),
                Err(fault) => tries.after(fault).await?,
            }
        }
    }
}

impl Tries<'_> {
    /// Something got on: the next failure counts as the first.
    pub(super) fn got_on(&mut self) {
        *self = self.patience.begin();
    }

    /// Waits for the next try after one that failed.
    ///
    /// # Errors
    ///
    /// The one that failed, where it is not tried again.
    pub(super) async fn after(&mut self, fault: Fault) -> Result<(), RegistryError> {
        let (error, asked) = match fault {
            Fault::Lasting(error) => return Err(error),
            Fault::Passing { error, wait } => (error, wait),
            Fault::Unreached(error) => {
                self.unreached += 1;
                if self.unreached == CONNECTIONS {
                    return Err(error);
                }
                (error, None)
            }
        };
        let Patience { pause, longest, total, .. } = *self.patience;
        let most = pause.saturating_mul(2_u32.saturating_pow(self.failed)).min(longest);
        let jitter = most.mul_f64(rand::random());
        let wait = asked.map_or(jitter, |asked| asked.saturating_add(pause.mul_f64(rand::random())));
        let wait = wait.min(longest);
        if self.since.elapsed() + wait > total {
            return Err(error);
        }
        self.failed += 1;
        tokio::time::sleep(wait).await;
        Ok(())
    }
}

/// How long a registry asks to wait: seconds, or a date.
///
/// Rule: RFC 9110, "Retry-After".
pub(super) fn retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More seconds than fit are as good as for ever.
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_registry_says_how_long_in_seconds_or_by_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        for (text, seconds) in [
            ("0", Some(0)),
            (" 120 ", Some(120)),
            ("99999999999999999999999", Some(u64::MAX)),
            ("Sun, 06 Nov 1994 08:49:47 GMT", Some(10)),
            ("Sun, 06 Nov 1994 08:49:27 GMT", Some(0)),
            ("Sunday, 06-Nov-94 08:49:47 GMT", Some(10)),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(retry_after(text, now), seconds.map(Duration::from_secs), "{text}");
        }
    }

    proptest! {
        #[test]
        fn whatever_it_says_is_read(text in ".{0,40}") {
            let _ = retry_after(&text, SystemTime::now());
        }
    }

    fn busy() -> RegistryError {
        RegistryError::Busy { registry: String::new(), why: String::new() }
    }

    #[tokio::test]
    async fn it_is_given_up_after_the_total_and_no_pause_is_longer_than_the_longest() {
        let longest = Duration::from_millis(20);
        let patience = Patience { longest, total: Duration::from_millis(200), ..Patience::default() };
        let (mut tries, begun, mut count) = (patience.begin(), Instant::now(), 0);
        while tries.after(Fault::Passing { error: busy(), wait: Some(Duration::MAX) }).await.is_ok() {
            count += 1;
        }
        assert!((2..=10).contains(&count), "{count}");
        assert!(begun.elapsed() < Duration::from_secs(2));
    }

    #[tokio::test]
    async fn what_does_not_pass_is_not_tried_again() {
        let patience = Patience { pause: Duration::from_millis(1), ..Patience::default() };
        let count = std::cell::Cell::new(0);
        let work = async |fault: fn() -> Fault| {
            count.set(0);
            let _ = patience
                .insist::<()>(async || {
                    count.set(count.get() + 1);
                    if count.get() == 10 { Err(Fault::Lasting(busy())) } else { Err(fault()) }
                })
                .await;
            count.get()
        };
        assert_eq!(work(|| Fault::Lasting(busy())).await, 1);
        assert_eq!(work(|| Fault::Unreached(busy())).await, 4);
        assert_eq!(work(|| Fault::passing(busy())).await, 10);
    }
}
