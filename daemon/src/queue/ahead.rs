//! Fetching what of a request will be read soon: hints to the processor, which change nothing, and
//! mean nothing where the guest gave it something strange.

use super::descriptor::{indirect_table, Table};
use super::memory::Snapshot;

/// Bytes of a cache line.
const LINE_BYTES: usize = 64;
/// Lines of an indirect table that are worth it: requests without data have no more.
const LIST_LINES: usize = 2;

/// Fetches the first descriptor of the request at `head`.
pub(super) fn descriptor(table: &Table, head: u16) {
    if let Some(at) = table.host_of(head) {
        fetch(at.cast());
    }
}

/// Fetches the list of its buffers.
pub(super) fn list(memory: &Snapshot, table: &Table, head: u16) {
    let Some(list) = indirect(memory, table, head).and_then(|list| list.host_of(0)) else {
        return;
    };
    for line in 0..LIST_LINES {
        fetch(list.cast::<u8>().wrapping_add(line * LINE_BYTES));
    }
}

/// Fetches the header that it begins with.
pub(super) fn header(memory: &Snapshot, table: &Table, head: u16) {
    let first = match indirect(memory, table, head) {
        Some(list) => list.checked(memory, 0),
        None => table.checked(memory, head),
    };
    if let Some(at) = first.and_then(|first| memory.contiguous(first.addr, 1)) {
        fetch(at);
    }
}

/// The list of buffers of the request at `head`, if it is apart.
fn indirect(memory: &Snapshot, table: &Table, head: u16) -> Option<Table> {
    let descriptor = table.checked(memory, head)?;
    match descriptor.is_indirect() {
        true => indirect_table(memory, &descriptor).ok(),
        false => None,
    }
}

/// Has the processor fetch the line at `at`, mapped or not.
#[inline(always)]
fn fetch(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 processor has the instruction, which accesses nothing.
    unsafe {
        use std::arch::x86_64::{_mm_prefetch, _MM_HINT_T0};
        _mm_prefetch::<_MM_HINT_T0>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}
