//! Contents that were compressed, one after the other by one state: allocators of several systems never give back what each
//! would have of its own.

use std::io::{self, Read};
use std::ops::Range;

use flate2::{Decompress, FlushDecompress, Status};

/// How much of what is compressed is read at a time, in bytes.
const INPUT: usize = 32 << 10;

/// A state.
pub(super) struct Inflate {
    state: Decompress,
    input: Box<[u8]>,
}

/// A content that is being decompressed.
///
/// Rule: RFC 1951.
pub(super) struct Inflating<'a, R> {
    packed: R,
    inflate: &'a mut Inflate,
    /// What of the input was read, and is not used yet.
    left: Range<usize>,
}

impl Inflate {
    pub(super) fn new() -> Self {
        Self { state: Decompress::new(false), input: vec![0; INPUT].into() }
    }

    /// Decompresses another content.
    pub(super) fn of<R: Read>(&mut self, packed: R) -> Inflating<'_, R> {
        self.state.reset(false);
        Inflating { packed, inflate: self, left: 0..0 }
    }
}

impl<R> Inflating<'_, R> {
    /// How many bytes of what is compressed were used.
    pub(super) fn used(&self) -> u64 {
        self.inflate.state.total_in()
    }
}

impl<R: Read> Read for Inflating<'_, R> {
    fn read(&mut self, piece: &mut [u8]) -> io::Result<usize> {
        let Inflate { state, input } = &mut *self.inflate;
        loop {
            if self.left.is_empty() {
                self.left = 0..self.packed.read(input)?;
            }
            let is_over = self.left.is_empty();
            let flush = if is_over { FlushDecompress::Finish } else { FlushDecompress::None };
            let (used, given) = (state.total_in(), state.total_out());
            let status = state.decompress(&input[self.left.clone()], piece, flush);
            let status = status.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            let count = |bytes: u64| usize::try_from(bytes).expect("no more than its buffer has");
            self.left.start += count(state.total_in() - used);
            let given = count(state.total_out() - given);
            if given > 0 || is_over || piece.is_empty() || status == Status::StreamEnd {
                return Ok(given);
            }
        }
    }
}
