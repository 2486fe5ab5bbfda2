//! Contents that were compressed, one after the other by one state: allocators of several systems never give back what each
//! would have of its own.

use std::io::{self, Read};
use std::ops::Range;

use flate2::{Decompress, FlushDecompress, Status};

/// How much of what is compressed is read at a time, in bytes.
const INPUT: usize = 32 << 10;

/// The state of a decompressor, and its input.
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
    /// As [`Read::read`]; what ends before its stream does is an error of [`io::ErrorKind::UnexpectedEof`].
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
            if given > 0 || piece.is_empty() || status == Status::StreamEnd {
                return Ok(given);
            }
            if is_over {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use flate2::read::DeflateDecoder;
    use proptest::prelude::*;

    use super::*;

    /// What two readers make of the same bytes.
    fn both(inflate: &mut Inflate, packed: &[u8]) -> [Result<Vec<u8>, ()>; 2] {
        let all = |from: &mut dyn Read| {
            let mut bytes = Vec::new();
            from.take(1 << 20).read_to_end(&mut bytes).map(|_| bytes).map_err(drop)
        };
        [all(&mut inflate.of(packed)), all(&mut DeflateDecoder::new(packed))]
    }

    #[test]
    fn what_does_not_end_is_no_content() {
        let mut inflate = Inflate::new();
        // An unfinished stored block, a block without its last code, and nothing at all.
        for packed in [&[0, 1, 0, 0xfe, 0xff, b'1'][..], &[0x33, 4], &[]] {
            let kind = inflate.of(packed).read_to_end(&mut Vec::new()).unwrap_err().kind();
            assert_eq!(kind, io::ErrorKind::UnexpectedEof, "{packed:x?}");
            assert_eq!(both(&mut inflate, packed), [Err(()), Err(())]);
        }
        assert_eq!(both(&mut inflate, &[3, 0]), [Ok(Vec::new()), Ok(Vec::new())]);
    }

    proptest! {
        #[test]
        fn one_state_reads_as_new_ones_do(
            contents in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..3000), any::<(usize, u8)>()), 1..4),
        ) {
            let mut inflate = Inflate::new();
            for (content, (place, other)) in contents {
                let mut packed = Vec::new();
                let level = flate2::Compression::new(u32::from(other % 10));
                flate2::read::DeflateEncoder::new(content.as_slice(), level).read_to_end(&mut packed).unwrap();
                prop_assert_eq!(&both(&mut inflate, &packed)[0], &Ok(content));
                let [one, new] = both(&mut inflate, &packed[..place % packed.len()]);
                prop_assert_eq!(one, new);
                let place = place % packed.len();
                packed[place] ^= other;
                let [one, new] = both(&mut inflate, &packed);
                prop_assert_eq!(one, new);
            }
        }
    }
}
