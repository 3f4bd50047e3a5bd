//! One request's guest memory, and how it is read and written.
//!
//! Guest memory is shared with a guest that may change it at any moment. So nothing here makes a
//! reference to it: bytes are copied once, by raw pointers, into private memory before anybody
//! looks at them, and payload is passed on as addresses, uncopied.

use std::mem::MaybeUninit;

use libc::iovec;

/// One request's guest memory: its device-readable and then its device-writable parts as host
/// iovecs, already translated and bounds-checked. Reused: cleared for each request.
///
/// Whoever fills a chain promises that all memory named in it stays mapped, and in `writable`
/// writable, from [`Service::submit`](crate::fuse::Service::submit) until the request's reply is
/// written. All copying here relies on that.
#[derive(Default)]
pub struct Chain {
    /// What the guest sends.
    pub readable: Vec<iovec>,
    /// Where the reply goes.
    pub writable: Vec<iovec>,
}

// SAFETY: a chain only carries addresses; the promise above holds for every thread.
unsafe impl Send for Chain {}

impl Chain {
    /// Forgets the request, keeping the lists' memory.
    pub fn clear(&mut self) {
        self.readable.clear();
        self.writable.clear();
    }

    /// Bytes that the guest sends.
    pub fn readable_len(&self) -> u64 {
        total(&self.readable)
    }

    /// Bytes that a reply may have.
    pub fn writable_len(&self) -> u64 {
        total(&self.writable)
    }

    /// Goes through the readable part from its start.
    pub fn reader(&self) -> Cursor<'_> {
        Cursor::new(&self.readable)
    }

    /// Goes through the writable part from its start.
    pub fn writer(&self) -> Writer<'_> {
        Writer(Cursor::new(&self.writable))
    }
}

fn total(list: &[iovec]) -> u64 {
    list.iter()
        .fold(0u64, |sum, iov| sum.saturating_add(iov.iov_len as u64))
}

/// A place in a list of iovecs.
pub struct Cursor<'a> {
    list: &'a [iovec],
    /// Bytes of the first iovec already passed; less than it has, unless the list is at its end.
    passed: usize,
}

impl<'a> Cursor<'a> {
    fn new(list: &'a [iovec]) -> Self {
        let mut cursor = Cursor { list, passed: 0 };
        cursor.settle();
        cursor
    }

    /// Copies the next bytes into `into`, as far as both go; answers how many.
    pub fn read(&mut self, into: &mut [u8]) -> usize {
        let want = into.len();
        // SAFETY: the pointer is good for the writes of `want` bytes that `copy_out` makes.
        unsafe { self.copy_out(into.as_mut_ptr(), want) }
    }

    /// Copies the next bytes into `into`, as far as both go; answers them.
    pub fn read_uninit<'m>(&mut self, into: &'m mut [MaybeUninit<u8>]) -> &'m [u8] {
        let want = into.len();
        // SAFETY: the pointer is good for the writes of `want` bytes that `copy_out` makes.
        let got = unsafe { self.copy_out(into.as_mut_ptr().cast(), want) };
        // SAFETY: the first `got` bytes, no more than `want`, have just been written.
        unsafe { std::slice::from_raw_parts(into.as_ptr().cast(), got) }
    }

    /// Copies up to `len` bytes to the end of `into`; answers how many.
    pub fn read_to_vec(&mut self, into: &mut Vec<u8>, len: usize) -> usize {
        into.reserve(len);
        let start = into.len();
        // SAFETY: `reserve` made room for `len` more bytes after `start`.
        let got = unsafe { self.copy_out(into.as_mut_ptr().add(start), len) };
        // SAFETY: these bytes have just been written.
        unsafe { into.set_len(start + got) };
        got
    }

    /// Passes over `len` bytes, or all there are.
    pub fn skip(&mut self, len: u64) {
        let mut left = len;
        while let Some((_, here)) = self.front() {
            let step = left.min(here as u64) as usize;
            if step == 0 {
                return;
            }
            self.pass(step);
            left -= step as u64;
        }
    }

    /// Lists where the next `len` bytes are, without copying one, neighbours joined; answers how
    /// many there are, at most `len`.
    pub fn list(&mut self, len: u64, into: &mut Vec<iovec>) -> u64 {
        let mut left = len;
        while let Some((base, here)) = self.front() {
            let step = left.min(here as u64) as usize;
            if step == 0 {
                break;
            }
            match into.last_mut() {
                Some(last) if last.iov_base as usize + last.iov_len == base as usize => {
                    last.iov_len += step;
                }
                _ => into.push(iovec {
                    iov_base: base.cast(),
                    iov_len: step,
                }),
            }
            self.pass(step);
            left -= step as u64;
        }
        len - left
    }

    /// Copies up to `len` next bytes to `to`; answers how many.
    ///
    /// # Safety
    ///
    /// `to` must be private memory, good for writes of `len` bytes.
    unsafe fn copy_out(&mut self, to: *mut u8, len: usize) -> usize {
        let mut done = 0;
        while let Some((base, here)) = self.front() {
            let step = here.min(len - done);
            if step == 0 {
                break;
            }
            // SAFETY: the source is `step` bytes of a chain's memory, which is mapped; the target
            // is the caller's, is private, and has `len - done >= step` bytes left.
            unsafe { std::ptr::copy_nonoverlapping(base.cast_const(), to.add(done), step) };
            self.pass(step);
            done += step;
        }
        done
    }

    /// The address of the next byte, and how many are there in one piece.
    fn front(&self) -> Option<(*mut u8, usize)> {
        let iov = self.list.first()?;
        let base = iov.iov_base.cast::<u8>().wrapping_add(self.passed);
        Some((base, iov.iov_len - self.passed))
    }

    /// Passes `step` bytes, no more than `front` has.
    fn pass(&mut self, step: usize) {
        self.passed += step;
        self.settle();
    }

    /// Leaves iovecs that are used up or empty behind.
    fn settle(&mut self) {
        while let Some((first, rest)) = self.list.split_first() {
            if self.passed < first.iov_len {
                return;
            }
            self.list = rest;
            self.passed = 0;
        }
    }
}

/// Writes a reply, piece by piece.
pub struct Writer<'a>(Cursor<'a>);

impl Writer<'_> {
    /// Copies `data` to the guest; answers how many bytes there was room for.
    pub fn write(&mut self, data: &[u8]) -> usize {
        let mut done = 0;
        while let Some((base, here)) = self.0.front() {
            let rest = data.get(done..).unwrap_or_default();
            let step = here.min(rest.len());
            if step == 0 {
                break;
            }
            // SAFETY: the target is `step` bytes of a chain's writable memory, which is mapped;
            // the source is private memory, so the two do not overlap.
            unsafe { std::ptr::copy_nonoverlapping(rest.as_ptr(), base, step) };
            self.0.pass(step);
            done += step;
        }
        done
    }

    /// Leaves `len` bytes as they are.
    pub fn skip(&mut self, len: u64) {
        self.0.skip(len);
    }

    /// Lists where the next bytes go: see [`Cursor::list`].
    pub fn list(&mut self, len: u64, into: &mut Vec<iovec>) -> u64 {
        self.0.list(len, into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn iov(part: &mut [u8]) -> iovec {
        iovec {
            iov_base: part.as_mut_ptr().cast(),
            iov_len: part.len(),
        }
    }

    #[test]
    fn reads_across_pieces_and_stops_at_the_end() {
        let (mut a, mut b, mut c) = (*b"ab", *b"", *b"cdefg");
        let chain = Chain {
            readable: vec![iov(&mut a), iov(&mut b), iov(&mut c)],
            writable: vec![],
        };
        assert_eq!((chain.readable_len(), chain.writable_len()), (7, 0));
        let mut reader = chain.reader();
        let mut three = [0; 3];
        assert_eq!((reader.read(&mut three), &three), (3, b"abc"));
        let mut rest = b"-".to_vec();
        assert_eq!(reader.read_to_vec(&mut rest, 100), 4);
        assert_eq!(rest, b"-defg");
        assert_eq!(reader.read(&mut three), 0);
        reader.skip(1);
        let mut ten = [const { MaybeUninit::uninit() }; 10];
        assert_eq!(reader.read_uninit(&mut ten), b"");
        assert_eq!(chain.reader().read_uninit(&mut ten[..5]), b"abcde");
        assert_eq!(chain.reader().read_uninit(&mut ten), b"abcdefg");
    }

    #[test]
    fn lists_what_is_asked_for_and_joins_neighbours() {
        let mut memory = [0u8; 32];
        let base = memory.as_ptr() as usize;
        let (a, rest) = memory.split_at_mut(8);
        let (b, rest) = rest.split_at_mut(8);
        let chain = Chain {
            readable: vec![iov(a), iov(b), iov(&mut rest[8..])],
            writable: vec![],
        };
        let listed = |skip, len| {
            let (mut reader, mut list) = (chain.reader(), Vec::new());
            reader.skip(skip);
            let count = reader.list(len, &mut list);
            let parts: Vec<_> = list
                .iter()
                .map(|iov| (iov.iov_base as usize - base, iov.iov_len))
                .collect();
            (count, parts)
        };
        assert_eq!(listed(0, 100), (24, vec![(0, 16), (24, 8)]));
        assert_eq!(listed(3, 6), (6, vec![(3, 6)]));
        assert_eq!(listed(17, 2), (2, vec![(25, 2)]));
        assert_eq!(listed(0, 0), (0, vec![]));
        assert_eq!(listed(24, 1), (0, vec![]));
    }

    #[test]
    fn writes_as_far_as_there_is_room() {
        let (mut a, mut b) = ([0u8; 2], [0u8; 3]);
        let mut chain = Chain {
            readable: vec![],
            writable: vec![iov(&mut a), iov(&mut b)],
        };
        let mut writer = chain.writer();
        writer.skip(1);
        assert_eq!(writer.write(b"xy"), 2);
        assert_eq!(writer.write(b"zzz"), 2);
        assert_eq!(writer.write(b"z"), 0);
        chain.clear();
        assert_eq!((chain.writable_len(), chain.writer().write(b"z")), (0, 0));
        assert_eq!((a, b), ([0, b'x'], *b"yzz"));
    }
}
