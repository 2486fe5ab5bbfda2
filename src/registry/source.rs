//! The bytes of a blob on their way: in pieces, from any place on, checked against its digest.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http_body_util::StreamBody;
use hyper::body::Frame;
use reqwest::Body;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::{Blob, RegistryError};
use crate::archive::hexadecimal;

/// Size of a piece, in bytes, and how many of them are ready before they are asked for.
const PIECE: usize = 256 << 10;
const AHEAD: usize = 8;

/// Pieces of a blob. The last comes only where all of it was what its digest says; else the reason comes in its place.
pub(super) type Pieces = mpsc::Receiver<Result<Bytes, String>>;

/// Reads a blob from a byte on.
pub(super) fn open(blob: &Blob, skip: u64) -> Pieces {
    let (sender, pieces) = mpsc::channel(AHEAD);
    let blob = blob.clone();
    tokio::task::spawn_blocking(move || {
        let piece = BytesMut::with_capacity(PIECE);
        let mut cut = Cut { sender, piece, skip, size: blob.size, seen: 0, hash: Sha256::new() };
        let written = (blob.content)(&mut cut).map_err(|error| error.to_string());
        if let Err(why) = written.and_then(|()| cut.finish(&blob.digest)) {
            // Nobody hears it who has gone.
            let _ = cut.sender.blocking_send(Err(why));
        }
    });
    pieces
}

/// Cuts what is written to it into pieces.
struct Cut {
    sender: mpsc::Sender<Result<Bytes, String>>,
    piece: BytesMut,
    /// Bytes that still are left out.
    skip: u64,
    size: u64,
    seen: u64,
    hash: Sha256,
}

impl Cut {
    fn send(&mut self) -> io::Result<()> {
        let next = BytesMut::with_capacity(PIECE);
        let piece = std::mem::replace(&mut self.piece, next).freeze();
        self.sender.blocking_send(Ok(piece)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn finish(&mut self, digest: &str) -> Result<(), String> {
        if self.seen != self.size {
            return Err(format!("it has {} bytes, where {} were to come", self.seen, self.size));
        }
        let found = format!("sha256:{}", hexadecimal(&std::mem::take(&mut self.hash).finalize()));
        if found != digest {
            return Err(format!("its bytes are those of `{found}`"));
        }
        if self.piece.is_empty() { Ok(()) } else { self.send().map_err(|error| error.to_string()) }
    }
}

impl Write for Cut {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.seen += bytes.len() as u64;
        if self.seen > self.size {
            return Err(io::Error::other(format!("it has more than {} bytes", self.size)));
        }
        self.hash.update(bytes);
        let skipped = usize::try_from(self.skip).map_or(bytes.len(), |skip| skip.min(bytes.len()));
        self.skip -= skipped as u64;
        let mut rest = &bytes[skipped..];
        while !rest.is_empty() {
            // A full one waits for the next byte, since it could be the last.
            if self.piece.len() == PIECE {
                self.send()?;
            }
            let (now, later) = rest.split_at(rest.len().min(PIECE - self.piece.len()));
            self.piece.extend_from_slice(now);
            rest = later;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Where a blob is read: bytes that are held, so that they can be sent again without being read again, and those behind them.
#[derive(Default)]
pub(super) struct Window {
    pieces: Option<Pieces>,
    /// Where the first byte that is held lies, and where the next that comes.
    start: u64,
    end: u64,
    held: VecDeque<Bytes>,
}

impl Window {
    /// The bytes from `start` to `end`, held until others are asked for. What lies before them is no longer held.
    pub(super) async fn part(
        &mut self,
        blob: &Blob,
        start: u64,
        end: u64,
    ) -> Result<Vec<Bytes>, RegistryError> {
        self.go_to(blob, start);
        self.fill(blob, end).await?;
        let mut left = usize::try_from(end - start).expect("a part is held in memory");
        let mut part = Vec::new();
        for piece in &self.held {
            let taken = piece.len().min(left);
            if taken == 0 {
                break;
            }
            part.push(piece.slice(..taken));
            left -= taken;
        }
        Ok(part)
    }

    /// The bytes from `start` to `end`, of which the first are there: a small blob that is not what it should be is not even
    /// announced. The window has nothing until the flow comes back.
    pub(super) async fn flow(&mut self, blob: &Blob, start: u64, end: u64) -> Result<Flow, RegistryError> {
        self.go_to(blob, start);
        self.fill(blob, end.min(start + 1)).await?;
        let Self { pieces, held, .. } = std::mem::take(self);
        let current = Current { held, pieces, left: end - start, fault: None };
        Ok(Flow {
            blob: blob.clone(),
            start,
            end,
            gone: Arc::default(),
            current: Mutex::new((false, Arc::new(Mutex::new(current)))),
        })
    }

    /// Goes on behind a flow, where all of it has gone.
    ///
    /// # Errors
    ///
    /// Where the blob was not what it should be.
    pub(super) fn take_back(&mut self, flow: Flow) -> Result<(), RegistryError> {
        let (_, current) = flow.current.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut current = current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(why) = current.fault.take() {
            return Err(wrong(&flow.blob, why));
        }
        if current.left == 0 {
            let held = std::mem::take(&mut current.held);
            let end = flow.end + held.iter().map(|piece| piece.len() as u64).sum::<u64>();
            *self = Self { pieces: current.pieces.take(), start: flow.end, end, held };
        }
        Ok(())
    }

    /// Begins at a byte, with what is held where that is among it.
    fn go_to(&mut self, blob: &Blob, start: u64) {
        if self.pieces.is_none() || start < self.start || start > self.end {
            *self = Self { pieces: Some(open(blob, start)), start, end: start, held: VecDeque::new() };
        }
        while let Some(first) = self.held.front_mut() {
            let Ok(before) = usize::try_from(start - self.start) else { break };
            if before < first.len() {
                let _ = first.split_to(before);
                self.start = start;
                break;
            }
            self.start += first.len() as u64;
            self.held.pop_front();
        }
    }

    /// Holds what lies before a byte.
    async fn fill(&mut self, blob: &Blob, end: u64) -> Result<(), RegistryError> {
        let pieces = self.pieces.as_mut().expect("whoever fills it has opened it");
        while self.end < end {
            let piece = pieces.recv().await.ok_or_else(|| wrong(blob, TOO_EARLY.to_owned()))?;
            let piece = piece.map_err(|why| wrong(blob, why))?;
            self.end += piece.len() as u64;
            self.held.push_back(piece);
        }
        Ok(())
    }
}

const TOO_EARLY: &str = "it ended too early";

fn wrong(blob: &Blob, why: String) -> RegistryError {
    RegistryError::Content { digest: blob.digest.clone(), why }
}

/// Bytes of a blob that are read as they go.
pub(super) struct Flow {
    blob: Blob,
    start: u64,
    end: u64,
    /// How many of the last body's have gone.
    pub(super) gone: Arc<AtomicU64>,
    /// Whether there was a body, and where it is.
    current: Mutex<(bool, Arc<Mutex<Current>>)>,
}

/// How far a body has come.
struct Current {
    held: VecDeque<Bytes>,
    pieces: Option<Pieces>,
    /// How many bytes still have to go.
    left: u64,
    fault: Option<String>,
}

impl Flow {
    /// A body of them. Each further one reads them again.
    pub(super) fn body(&self) -> Body {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.0 {
            let pieces = Some(open(&self.blob, self.start));
            let (held, left) = (VecDeque::new(), self.end - self.start);
            current.1 = Arc::new(Mutex::new(Current { held, pieces, left, fault: None }));
        }
        current.0 = true;
        let (current, gone) = (current.1.clone(), self.gone.clone());
        Body::wrap(StreamBody::new(stream::poll_fn(move |context| {
            let mut current = current.lock().unwrap_or_else(PoisonError::into_inner);
            let piece = ready!(current.next(context));
            Poll::Ready(piece.map(|piece| match piece {
                Ok(piece) => {
                    gone.fetch_add(piece.len() as u64, Ordering::Relaxed);
                    Ok(Frame::data(piece))
                }
                Err(why) => Err(io::Error::other(why)),
            }))
        })))
    }
}

impl Current {
    fn next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, String>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let piece = match (self.held.pop_front(), &mut self.pieces) {
            (Some(piece), _) => Ok(piece),
            (None, Some(pieces)) => match ready!(pieces.poll_recv(context)) {
                Some(piece) => piece,
                None => Err(TOO_EARLY.to_owned()),
            },
            (None, None) => Err(TOO_EARLY.to_owned()),
        };
        Poll::Ready(Some(match piece {
            Ok(mut piece) => {
                let most = usize::try_from(self.left).unwrap_or(usize::MAX);
                if piece.len() > most {
                    self.held.push_front(piece.split_off(most));
                }
                self.left -= piece.len() as u64;
                Ok(piece)
            }
            Err(why) => {
                self.fault = Some(why.clone());
                Err(why)
            }
        }))
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use proptest::prelude::*;

    use super::*;

    fn blob(bytes: Vec<u8>) -> Blob {
        let digest = format!("sha256:{}", hexadecimal(&Sha256::digest(&bytes)));
        let size = bytes.len() as u64;
        let content = Arc::new(move |to: &mut dyn Write| to.write_all(&bytes));
        Blob { digest, size, media_type: String::new(), content, mount_from: None }
    }

    fn bytes(size: usize) -> Vec<u8> {
        (0..size).map(|at| u8::try_from(at * 31 % 251).unwrap()).collect()
    }

    #[tokio::test]
    async fn what_is_not_what_its_digest_says_never_ends() {
        let good = blob(bytes(PIECE));
        for (wrong, why) in [
            (Blob { digest: format!("sha256:{}", "0".repeat(64)), ..good.clone() }, "its bytes are those of"),
            (Blob { size: 7, ..good.clone() }, "it has more than 7 bytes"),
            (Blob { size: PIECE as u64 + 1, ..good.clone() }, "where 262145 were to come"),
            (
                Blob { content: Arc::new(|_: &mut dyn Write| Err(io::Error::other("gone"))), ..good.clone() },
                "gone",
            ),
        ] {
            let mut pieces = open(&wrong, 0);
            let first = pieces.recv().await.unwrap();
            assert!(first.unwrap_err().contains(why), "{why}");
        }
        assert_eq!(open(&good, 0).recv().await.unwrap().unwrap().len(), PIECE);
    }

    #[tokio::test]
    async fn a_flow_goes_on_where_the_last_ended_and_can_be_begun_again() {
        let whole = bytes(3 * PIECE + 5);
        let blob = blob(whole.clone());
        let mut window = Window::default();
        for (start, end) in [(0, 10), (10, PIECE + 7), (PIECE + 7, 2 * PIECE), (7, 8), (8, whole.len())] {
            let flow = window.flow(&blob, start as u64, end as u64).await.unwrap();
            for _ in 0..2 {
                flow.gone.store(0, Ordering::Relaxed);
                let sent = flow.body().collect().await.unwrap().to_bytes();
                assert!(sent == whole[start..end], "{start} {end}");
                assert_eq!(flow.gone.load(Ordering::Relaxed), (end - start) as u64);
            }
            window.take_back(flow).unwrap();
            // Small parts and flows take turns.
            let part = window.part(&blob, end as u64, whole.len().min(end + 3) as u64).await.unwrap();
            assert!(part.concat() == whole[end..whole.len().min(end + 3)]);
        }
        let wrong = Blob { digest: format!("sha256:{}", "0".repeat(64)), ..blob };
        let flow = Window::default().flow(&wrong, 0, wrong.size).await.unwrap();
        assert!(flow.body().collect().await.is_err());
        assert!(
            Window::default().take_back(flow).unwrap_err().to_string().contains("its bytes are those of")
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn any_part_can_be_had_in_any_order(
            size in 0..3 * PIECE,
            parts in prop::collection::vec((0.0..1.0_f64, 0.0..1.0_f64), 1..6),
        ) {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
            let place = |part: f64| (part * size as f64) as usize;
            let whole = bytes(size);
            let blob = blob(whole.clone());
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let mut window = Window::default();
                for (one, other) in parts {
                    let (start, end) = (place(one.min(other)), place(one.max(other)));
                    let part = window.part(&blob, start as u64, end as u64).await.unwrap();
                    assert_eq!(part.concat(), &whole[start..end]);
                }
            });
        }
    }
}
