//! Memory lent to a request: guest memory in the daemon, a buffer in a tool.

use libc::iovec;

/// Scattered memory that an engine reads into or writes from, in place.
///
/// A copy of the list is not taken: both the list and the memory stay valid until the request's
/// [`Reply`](super::Reply) is answered, and not longer. The memory may be shared with a guest,
/// which may change it at any time: no reference to it is ever made.
#[derive(Clone, Copy)]
pub struct Slices {
    list: *const iovec,
    count: usize,
    len: u64,
}

// SAFETY: Slices only carries addresses; `new` demands memory that any thread may access until
// the reply is given.
unsafe impl Send for Slices {}

impl Slices {
    /// Describes `list`.
    ///
    /// # Safety
    ///
    /// `list` and all memory that it names must stay mapped, and the list unchanged, until the
    /// reply of the request that gets these slices has been answered or dropped. The memory must
    /// be writable where the request reads into it.
    pub unsafe fn new(list: &[iovec]) -> Slices {
        Slices {
            list: list.as_ptr(),
            count: list.len(),
            len: list.iter().map(|iov| iov.iov_len as u64).sum(),
        }
    }

    /// All bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is no byte.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn list(&self) -> &[iovec] {
        // SAFETY: the promise of `new`: the list is valid until the reply, which outlives the
        // engine's use of these slices.
        unsafe { std::slice::from_raw_parts(self.list, self.count) }
    }

    /// The parts that hold the bytes `[start, start + len)`, clipped to what is there.
    pub fn parts(&self, start: u64, len: u64) -> impl Iterator<Item = iovec> + '_ {
        let end = start.saturating_add(len).min(self.len);
        let mut at = 0u64;
        self.list().iter().filter_map(move |iov| {
            let (from, to) = (at, at + iov.iov_len as u64);
            at = to;
            let (from, to) = (from.max(start), to.min(end));
            (from < to).then(|| {
                let skip = (from - (at - iov.iov_len as u64)) as usize;
                iovec {
                    iov_base: iov.iov_base.cast::<u8>().wrapping_add(skip).cast(),
                    iov_len: (to - from) as usize,
                }
            })
        })
    }

    /// Sets the bytes `[start, start + len)` to zero.
    pub fn fill_zero(&self, start: u64, len: u64) {
        for part in self.parts(start, len) {
            // SAFETY: `parts` stays inside the memory that `new` promised to be mapped.
            unsafe { std::ptr::write_bytes(part.iov_base.cast::<u8>(), 0, part.iov_len) };
        }
    }

    /// Whether the memory holds `data`, and nothing after it.
    pub fn holds(&self, data: &[u8]) -> bool {
        self.is_like(data, |here, there| here == there)
    }

    /// Whether the memory is as long as `data`, and `alike` says so of each byte of it and of `data`.
    pub fn is_like(&self, data: &[u8], alike: impl Fn(u8, u8) -> bool) -> bool {
        let mut rest = data;
        let parts_alike = self.parts(0, self.len).all(|part| {
            let Some((head, tail)) = rest.split_at_checked(part.iov_len) else {
                return false;
            };
            rest = tail;
            let at = part.iov_base.cast::<u8>();
            // SAFETY: `parts` stays inside the promised memory. It is read byte by byte and no
            // reference to it is made, since a guest may change it meanwhile.
            let byte = |index: usize| unsafe { at.add(index).read_volatile() };
            head.iter()
                .enumerate()
                .all(|(index, &there)| alike(byte(index), there))
        });
        parts_alike && rest.is_empty()
    }

    /// Copies the start of the memory to `data`, as far as both go.
    pub fn copy_to(&self, data: &mut [u8]) {
        let mut at = 0;
        for part in self.parts(0, data.len() as u64) {
            // SAFETY: as for `copy_from`, the other way around.
            unsafe {
                std::ptr::copy_nonoverlapping(
                    part.iov_base.cast::<u8>(),
                    data[at..].as_mut_ptr(),
                    part.iov_len,
                )
            };
            at += part.iov_len;
        }
    }

    /// Copies `data` to the start of the memory, as far as both go; answers how much.
    pub fn copy_from(&self, data: &[u8]) -> usize {
        let mut at = 0;
        for part in self.parts(0, data.len() as u64) {
            // SAFETY: `parts` stays inside the promised memory, which cannot overlap `data`: a
            // Rust slice is never guest memory.
            unsafe {
                std::ptr::copy_nonoverlapping(
                    data[at..].as_ptr(),
                    part.iov_base.cast(),
                    part.iov_len,
                )
            };
            at += part.iov_len;
        }
        at
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
    fn parts_cover_exactly_the_range() {
        let (mut a, mut b, mut c) = ([1u8; 3], [2u8; 4], [3u8; 5]);
        let list = [iov(&mut a), iov(&mut b), iov(&mut c)];
        // SAFETY: the arrays outlive the slices.
        let slices = unsafe { Slices::new(&list) };
        assert_eq!(slices.len(), 12);
        let lens = |start, len| {
            slices
                .parts(start, len)
                .map(|p| p.iov_len)
                .collect::<Vec<_>>()
        };
        assert_eq!(lens(0, 12), [3, 4, 5]);
        assert_eq!(lens(2, 6), [1, 4, 1]);
        assert_eq!(lens(3, 4), [4]);
        assert_eq!(lens(11, 100), [1]);
        assert!(lens(12, 1).is_empty() && lens(4, 0).is_empty());
        slices.fill_zero(2, 6);
        assert_eq!((a, b, c), ([1, 1, 0], [0; 4], [0, 3, 3, 3, 3]));
        assert_eq!(slices.copy_from(&[7; 5]), 5);
        assert_eq!((a, b[..2].to_vec(), b[2]), ([7; 3], vec![7, 7], 0));
        let all = [&a[..], &b, &c].concat();
        assert!(slices.holds(&all));
        assert!(!slices.holds(&all[..11]) && !slices.holds(&[&all[..], &[0]].concat()));
        assert!(!slices.holds(&[&all[..11], &[9]].concat()));
        let mut copy = [9; 14];
        slices.copy_to(&mut copy);
        assert_eq!((&copy[..12], &copy[12..]), (&all[..], &[9; 2][..]));
    }
}
