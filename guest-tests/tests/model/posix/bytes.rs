//! The bytes of a file that may be sparse and large.

use std::collections::BTreeMap;
use std::ops::Range;

/// Bytes of one chunk: what is kept where anything is.
const CHUNK: u64 = 4096;

/// The content of a file; what was never written reads as zeros.
#[derive(Clone, Default)]
pub struct Bytes {
    len: u64,
    chunks: BTreeMap<u64, Vec<u8>>,
}

impl Bytes {
    /// The size of the file.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Up to `len` bytes from `offset`, fewer at the end.
    pub fn read(&self, offset: u64, len: u64) -> Vec<u8> {
        let end = self.len.min(offset.saturating_add(len)).max(offset);
        let mut bytes = vec![0; (end - offset) as usize];
        for (piece, chunk) in self.pieces(offset..end) {
            let from = (piece.start % CHUNK) as usize;
            let part = &chunk[from..from + (piece.end - piece.start) as usize];
            bytes[(piece.start - offset) as usize..][..part.len()].copy_from_slice(part);
        }
        bytes
    }

    /// Writes, and extends the file where `bytes` end beyond it.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) {
        let mut at = offset;
        let end = offset + bytes.len() as u64;
        while at < end {
            let next = (at - at % CHUNK + CHUNK).min(end);
            let chunk = self.chunks.entry(at / CHUNK);
            let chunk = chunk.or_insert_with(|| vec![0; CHUNK as usize]);
            let part = &bytes[(at - offset) as usize..(next - offset) as usize];
            chunk[(at % CHUNK) as usize..][..part.len()].copy_from_slice(part);
            at = next;
        }
        self.len = self.len.max(end);
    }

    /// Sets the size.
    pub fn truncate(&mut self, len: u64) {
        if len < self.len {
            self.zero(len..self.len);
        }
        self.len = len;
    }

    /// Makes a range read as zeros; the size stays.
    pub fn zero(&mut self, range: Range<u64>) {
        let touched = self.touched(&range);
        for (&index, chunk) in self.chunks.range_mut(touched) {
            let piece = piece_of(index, &range);
            chunk[(piece.start % CHUNK) as usize..][..(piece.end - piece.start) as usize].fill(0);
        }
        self.chunks
            .retain(|_, chunk| chunk.iter().any(|byte| *byte != 0));
    }

    /// Whether any byte in the range is not zero.
    pub fn has_data(&self, range: Range<u64>) -> bool {
        self.pieces(range).any(|(piece, chunk)| {
            let from = (piece.start % CHUNK) as usize;
            let to = from + (piece.end - piece.start) as usize;
            chunk[from..to].iter().any(|byte| *byte != 0)
        })
    }

    /// Where there is data: ranges that hold all of it, in order.
    pub fn extents(&self) -> Vec<Range<u64>> {
        let mut extents: Vec<Range<u64>> = Vec::new();
        for index in self.chunks.keys() {
            let chunk = index * CHUNK..(index + 1) * CHUNK;
            match extents.last_mut() {
                Some(last) if last.end == chunk.start => last.end = chunk.end,
                _ => extents.push(chunk),
            }
        }
        extents
    }

    fn touched(&self, range: &Range<u64>) -> Range<u64> {
        match range.is_empty() {
            true => 0..0,
            false => range.start / CHUNK..range.end.div_ceil(CHUNK),
        }
    }

    /// The parts of `range` that are in chunks, and those.
    fn pieces(&self, range: Range<u64>) -> impl Iterator<Item = (Range<u64>, &Vec<u8>)> {
        self.chunks
            .range(self.touched(&range))
            .map(move |(&index, chunk)| (piece_of(index, &range), chunk))
    }
}

fn piece_of(index: u64, range: &Range<u64>) -> Range<u64> {
    (index * CHUNK).max(range.start)..((index + 1) * CHUNK).min(range.end)
}

#[test]
fn bytes_are_a_sparse_vector() {
    let mut noise = guest_tests::fixture::Noise::new(1);
    let (mut bytes, mut flat) = (Bytes::default(), Vec::new());
    for _ in 0..2000 {
        let (at, len) = (noise.below(30_000) as usize, noise.below(9_000) as usize);
        match noise.below(4) {
            0 => {
                bytes.truncate(at as u64);
                flat.resize(at, 0);
            }
            1 => {
                let end = flat.len().min(at + len).max(at);
                bytes.zero(at as u64..end as u64);
                if let Some(part) = flat.get_mut(at..end) {
                    part.fill(0);
                }
            }
            _ => {
                let part = noise.bytes(len);
                bytes.write(at as u64, &part);
                flat.resize(flat.len().max(at + len), 0);
                flat[at..at + len].copy_from_slice(&part);
            }
        }
        assert_eq!(bytes.len(), flat.len() as u64);
        assert!(bytes.read(0, u64::MAX) == flat);
        let part = &flat[at.min(flat.len())..(at + len).min(flat.len())];
        assert!(bytes.read(at as u64, len as u64) == part);
        let nonzero = part.iter().any(|byte| *byte != 0);
        assert_eq!(bytes.has_data(at as u64..(at + len) as u64), nonzero);
    }
}
