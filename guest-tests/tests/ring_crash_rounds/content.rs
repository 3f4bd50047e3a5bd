//! Bytes that say which file they are of, where in it, and by which of its writes.

use std::ops::{Range, RangeInclusive};

/// Bytes that say so much.
pub const WORD: usize = 8;

/// The generation of bytes that were never written, or no more: zeros.
pub const HOLE: u16 = 0;

const INDEX_BITS: u32 = 24;

/// A word of a file: `file` is never 0, nor is the generation of a write.
fn word(file: u32, generation: u16, index: usize) -> u64 {
    if generation == HOLE {
        return 0;
    }
    u64::from(file) << (16 + INDEX_BITS) | u64::from(generation) << INDEX_BITS | index as u64
}

/// The bytes of a write of these words.
pub fn bytes(file: u32, generation: u16, words: Range<usize>) -> Vec<u8> {
    words
        .flat_map(|index| word(file, generation, index).to_le_bytes())
        .collect()
}

/// What a file may be.
#[derive(Clone, Debug)]
pub struct Expected {
    pub file: u32,
    /// Of each word, the write that it is of.
    pub generations: Vec<u16>,
    /// Words of this range may be of this write instead.
    pub or: (Range<usize>, u16),
    /// Its size in words.
    pub size: RangeInclusive<usize>,
}

impl Expected {
    /// Exactly this.
    pub fn just(file: u32, generations: &[u16]) -> Expected {
        Expected {
            file,
            generations: generations.to_vec(),
            or: (0..0, HOLE),
            size: generations.len()..=generations.len(),
        }
    }

    /// The file that `bytes` are, or why they are not it.
    pub fn read(&self, bytes: &[u8]) -> Result<Vec<u16>, String> {
        let words = bytes.chunks_exact(WORD);
        let size = words.len();
        if !words.remainder().is_empty() || !self.size.contains(&size) {
            return Err(format!("{} bytes, not {:?} words", bytes.len(), self.size));
        }
        let read = |(index, word): (usize, &[u8])| self.word_at(index, word);
        words.enumerate().map(read).collect()
    }

    fn word_at(&self, index: usize, bytes: &[u8]) -> Result<u16, String> {
        let seen = bytes
            .iter()
            .rev()
            .fold(0, |seen, byte| seen << 8 | u64::from(*byte));
        let was = self.generations.get(index).copied().unwrap_or(HOLE);
        let or = match self.or.0.contains(&index) {
            true => self.or.1,
            false => was,
        };
        let is = |generation: &u16| word(self.file, *generation, index) == seen;
        [was, or].into_iter().find(is).ok_or_else(|| {
            let (file, generation) = (seen >> (16 + INDEX_BITS), (seen >> INDEX_BITS) & 0xffff);
            format!(
                "word {index} is word {} of write {generation} of file {file}, \
                 not of write {was} or {or} of file {}",
                seen & ((1 << INDEX_BITS) - 1),
                self.file
            )
        })
    }
}

#[test]
fn other_bytes_are_told_apart() {
    let expected = Expected::just(7, &[1, HOLE, 2]);
    let good = [bytes(7, 1, 0..1), vec![0; WORD], bytes(7, 2, 2..3)].concat();
    assert_eq!(expected.read(&good), Ok(vec![1, HOLE, 2]));
    let others = [bytes(8, 1, 0..1), bytes(7, 2, 0..1), bytes(7, 1, 1..2)];
    for other in others {
        let bad = [&other[..], &good[WORD..]].concat();
        assert!(expected.read(&bad).is_err());
    }
    assert!(expected.read(&good[WORD..]).is_err());
    assert!(expected.read(&good[..good.len() - 1]).is_err());
}
