//! [Crash points](pfs_core::crash) of a worker: places where a test can let it die.

/// A place in the life of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(any(test, debug_assertions)), allow(dead_code))]
pub enum Point {
    /// `before_pop`: taken from the ring, and nothing recorded.
    BeforePop,
    /// `after_pop`: recorded as popped.
    AfterPop,
    /// `after_answer`: executed and its reply written, and that not recorded.
    AfterAnswer,
    /// `after_execute`: recorded as executed.
    AfterExecute,
    /// `before_add_used`: about to be published.
    BeforeAddUsed,
    /// `after_add_used`: published, and that not recorded.
    AfterAddUsed,
}

/// Dies here, if that was asked for.
#[cfg(not(any(test, debug_assertions)))]
#[inline(always)]
pub fn point(_at: Point) {}

#[cfg(any(test, debug_assertions))]
pub use debug::point;

#[cfg(any(test, debug_assertions))]
mod debug {
    use super::Point;

    impl Point {
        fn name(self) -> &'static str {
            match self {
                Point::BeforePop => "before_pop",
                Point::AfterPop => "after_pop",
                Point::AfterAnswer => "after_answer",
                Point::AfterExecute => "after_execute",
                Point::BeforeAddUsed => "before_add_used",
                Point::AfterAddUsed => "after_add_used",
            }
        }
    }

    pub fn point(at: Point) {
        #[cfg(test)]
        super::in_test::point(at);
        pfs_core::crash::point(at.name());
    }
}

/// In unit tests a thread unwinds instead.
#[cfg(test)]
pub(crate) mod in_test {
    use std::cell::Cell;

    use super::Point;

    /// What the thread unwinds with.
    pub(crate) struct Died;

    thread_local! {
        static ASKED: Cell<Option<(Point, u32)>> = const { Cell::new(None) };
    }

    /// Dies when `at` is passed for the `count`th time from now on.
    pub(crate) fn die_at(at: Point, count: u32) {
        ASKED.set(Some((at, count)));
    }

    pub(super) fn point(at: Point) {
        match ASKED.get() {
            Some((point, 1)) if point == at => {
                ASKED.set(None);
                std::panic::panic_any(Died);
            }
            Some((point, count)) if point == at => ASKED.set(Some((point, count - 1))),
            _ => {}
        }
    }
}
