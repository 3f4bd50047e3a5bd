//! The byte ranges that one owner has locked in one inode, as the kernel counts them.

use std::collections::BTreeMap;

/// Bytes from `first` to `last`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub first: u64,
    pub last: u64,
}

impl Span {
    /// Every byte that a lock can be on.
    pub const ALL: Span = Span {
        first: 0,
        last: i64::MAX as u64,
    };

    fn overlaps(self, other: Span) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    fn union(self, other: Span) -> Span {
        Span {
            first: self.first.min(other.first),
            last: self.last.max(other.last),
        }
    }
}

/// A locked range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub span: Span,
    pub exclusive: bool,
    /// Who asked for it, in the requester's own numbers.
    pub pid: u32,
    /// Its record in the session.
    pub record: u64,
}

/// What a range becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hold {
    pub exclusive: bool,
    pub pid: u32,
}

/// Locked ranges; none overlaps another.
#[derive(Debug, Default)]
pub(super) struct Ranges(BTreeMap<u64, Held>);

impl Ranges {
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first range that keeps another owner from such a lock on `span`.
    pub fn conflict(&self, span: Span, exclusive: bool) -> Option<&Held> {
        let before = self.0.range(..span.first).next_back();
        let from = before.filter(|(_, held)| held.span.overlaps(span));
        let rest = self.0.range(span.first..=span.last);
        let mut all = from.into_iter().chain(rest).map(|(_, held)| held);
        all.find(|held| held.exclusive || exclusive)
    }

    /// Whether `set(span, None)` would leave two ranges of one.
    pub fn splits(&self, span: Span) -> bool {
        let before = self.0.range(..span.first).next_back();
        before.is_some_and(|(_, held)| held.span.last > span.last)
    }

    /// Makes `span` what `hold` says, or unlocks it. Ranges alike that touch become one, as they
    /// do in the kernel. Each new range is given its record by `record`; the ranges that are no
    /// more are answered.
    pub fn set(
        &mut self,
        span: Span,
        hold: Option<Hold>,
        mut record: impl FnMut(&Held) -> u64,
    ) -> Vec<Held> {
        let (mut whole, mut pieces, mut gone) = (span, Vec::new(), Vec::new());
        for held in self.touching(span) {
            let was = Hold {
                exclusive: held.exclusive,
                pid: held.pid,
            };
            if hold == Some(was) {
                if whole == span && held.span == whole.union(held.span) {
                    return Vec::new(); // It is so already.
                }
                whole = whole.union(held.span);
                gone.push(held);
            } else if held.span.overlaps(span) {
                pieces.extend(around(held.span, span).map(|span| Held { span, ..held }));
                gone.push(held);
            }
        }
        pieces.extend(hold.map(|Hold { exclusive, pid }| Held {
            span: whole,
            exclusive,
            pid,
            record: 0,
        }));
        for held in &gone {
            self.0.remove(&held.span.first);
        }
        for mut piece in pieces {
            piece.record = record(&piece);
            self.0.insert(piece.span.first, piece);
        }
        gone
    }

    /// Ranges with a byte in `span` or next to it.
    fn touching(&self, span: Span) -> Vec<Held> {
        let up_to = self.0.range(..=span.last.saturating_add(1)).rev();
        let held = up_to.map(|(_, held)| *held);
        held.take_while(|held| held.span.last.saturating_add(1) >= span.first)
            .collect()
    }
}

/// What is left of `whole` before and after `part`.
fn around(whole: Span, part: Span) -> impl Iterator<Item = Span> {
    let before = (whole.first < part.first).then(|| Span {
        first: whole.first,
        last: part.first - 1,
    });
    let after = (whole.last > part.last).then(|| Span {
        first: part.last + 1,
        last: whole.last,
    });
    before.into_iter().chain(after)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hold(exclusive: bool, pid: u32) -> Option<Hold> {
        Some(Hold { exclusive, pid })
    }

    fn span(first: u64, last: u64) -> Span {
        Span { first, last }
    }

    fn spans(ranges: &Ranges) -> Vec<(u64, u64, bool)> {
        let each = ranges.0.values();
        each.map(|held| (held.span.first, held.span.last, held.exclusive))
            .collect()
    }

    #[test]
    fn locks_split_and_join_as_in_the_kernel() {
        let mut ranges = Ranges::default();
        let mut records = 0;
        let mut set = |ranges: &mut Ranges, first, last, hold| {
            ranges.set(span(first, last), hold, |_| {
                records += 1;
                records
            })
        };
        set(&mut ranges, 0, 99, hold(true, 1));
        set(&mut ranges, 40, 49, None);
        assert_eq!(spans(&ranges), [(0, 39, true), (50, 99, true)]);
        set(&mut ranges, 30, 59, hold(false, 1));
        assert_eq!(
            spans(&ranges),
            [(0, 29, true), (30, 59, false), (60, 99, true)]
        );
        assert!(ranges.splits(span(35, 40)) && !ranges.splits(span(30, 40)));
        set(&mut ranges, 25, 60, hold(true, 1));
        assert_eq!(spans(&ranges), [(0, 99, true)]);
        assert!(set(&mut ranges, 10, 20, hold(true, 1)).is_empty(), "is so");
        set(&mut ranges, 100, i64::MAX as u64, hold(true, 1));
        assert_eq!(spans(&ranges), [(0, i64::MAX as u64, true)]);
        assert_eq!(set(&mut ranges, 0, i64::MAX as u64, None).len(), 1);
        assert!(ranges.is_empty());
    }

    #[test]
    fn conflicts() {
        let mut ranges = Ranges::default();
        ranges.set(span(10, 19), hold(false, 1), |_| 1);
        ranges.set(span(30, 39), hold(true, 2), |_| 2);
        let first = |first, last, exclusive| {
            let found = ranges.conflict(span(first, last), exclusive);
            found.map(|held| held.span.first)
        };
        assert_eq!(first(0, 9, true), None);
        assert_eq!(first(0, 10, true), Some(10));
        assert_eq!(first(19, 100, true), Some(10));
        assert_eq!(first(19, 29, false), None);
        assert_eq!(first(12, 100, false), Some(30));
        assert_eq!(first(39, 39, false), Some(30));
        assert_eq!(first(40, 100, true), None);
    }

    proptest! {
        /// Byte by byte, the ranges are what a plain array says.
        #[test]
        fn same_as_bytes(ops in prop::collection::vec((0u64..24, 0u64..24, 0u8..5), 1..60)) {
            let mut ranges = Ranges::default();
            let mut bytes = [None; 24];
            let mut live = std::collections::HashSet::new();
            let mut next = 0;
            for (a, b, kind) in ops {
                let span = span(a.min(b), a.max(b));
                let hold = match kind {
                    0 => None,
                    kind => hold(kind & 1 == 0, u32::from(kind) / 3),
                };
                let gone = ranges.set(span, hold, |_| {
                    next += 1;
                    live.insert(next);
                    next
                });
                for held in gone {
                    prop_assert!(live.remove(&held.record));
                }
                bytes[span.first as usize..=span.last as usize].fill(hold);
                let mut seen = [None; 24];
                for held in ranges.0.values() {
                    prop_assert!(live.contains(&held.record));
                    let part = &mut seen[held.span.first as usize..=held.span.last as usize];
                    prop_assert!(part.iter().all(Option::is_none), "they overlap");
                    part.fill(Some(Hold { exclusive: held.exclusive, pid: held.pid }));
                }
                prop_assert_eq!(seen, bytes);
                prop_assert_eq!(live.len(), ranges.len());
            }
        }
    }
}
