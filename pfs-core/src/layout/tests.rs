use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

const UNIT: u64 = STRIPE_UNIT_STEP_BYTES;

fn layout(unit: u64, count: u32, object: u64) -> Layout {
    Layout::new(unit, count, object).unwrap()
}

#[test]
fn impossible_layouts_are_refused() {
    for unit in [0, 1, 4095, 4097, STRIPE_UNIT_MAX_BYTES + UNIT, u64::MAX] {
        assert_eq!(Layout::new(unit, 1, 0), Err(Error::StripeUnit(unit)));
    }
    for count in [0, STRIPE_COUNT_MAX + 1, u32::MAX] {
        assert_eq!(Layout::new(UNIT, count, 0), Err(Error::StripeCount(count)));
    }
    for object in [1, UNIT + 1, OBJECT_SIZE_MAX_BYTES + UNIT, u64::MAX] {
        let error = Layout::new(UNIT, 1, object).unwrap_err();
        assert!(matches!(error, Error::ObjectSize { .. }), "{object}");
    }
}

/// The picture in Ceph's documentation: unit 4 KiB, 3 columns, 2 units per object.
#[test]
fn objects_fill_as_ceph_documents() {
    let layout = layout(UNIT, 3, 2 * UNIT);
    let places: Vec<_> = (0..9).map(|block| layout.locate(block * UNIT)).collect();
    assert_eq!(
        places,
        [
            (0, 0),
            (1, 0),
            (2, 0),
            (0, UNIT),
            (1, UNIT),
            (2, UNIT),
            (3, 0),
            (4, 0),
            (5, 0)
        ]
    );
}

#[test]
fn one_column_is_one_piece() {
    let unbounded: Vec<_> = layout(UNIT, 1, 0).extents(5, 10 * UNIT).collect();
    assert_eq!(unbounded.len(), 1);
    let bounded: Vec<_> = layout(UNIT, 1, 4 * UNIT).extents(5, 10 * UNIT).collect();
    assert_eq!(bounded.len(), 3);
}

#[test]
fn empty_ranges_have_no_pieces() {
    let layout = layout(UNIT, 4, 0);
    assert_eq!(layout.extents(77, 0).next(), None);
    assert_eq!(layout.extents(OFFSET_MAX, 10).next(), None);
    assert!(layout.objects(5, 0).is_empty());
    assert!(layout.objects(OFFSET_MAX, 10).is_empty());
    assert_eq!(layout.object_end(0, 0), 0);
}

#[test]
fn objects_that_cannot_be_hold_nothing() {
    assert_eq!(layout(UNIT, 4, 0).object_end(u64::MAX, 4), 0);
    assert_eq!(layout(UNIT, 4, 0).file_offset(4, 0), None);
    assert_eq!(layout(UNIT, 4, UNIT).object_end(OFFSET_MAX, u64::MAX), 0);
    assert_eq!(layout(UNIT, 4, UNIT).file_offset(0, UNIT), None);
}

/// Every layout, small ones more often than not.
fn layouts() -> impl Strategy<Value = Layout> {
    let units = prop_oneof![1..=8u64, 1..=STRIPE_UNIT_MAX_BYTES / UNIT];
    let counts = prop_oneof![1..=6u32, 1..=STRIPE_COUNT_MAX];
    let per_object = prop_oneof![Just(0u64), 1..=4u64, 0..=1u64 << 20];
    (units, counts, per_object).prop_map(|(units, count, per_object)| {
        let unit = units * UNIT;
        let per_object = per_object.min(OBJECT_SIZE_MAX_BYTES / unit);
        layout(unit, count, per_object * unit)
    })
}

/// Any offset up to the last, near 0 and near the end more often than not.
fn offsets() -> impl Strategy<Value = u64> {
    prop_oneof![
        0..1u64 << 24,
        0..=OFFSET_MAX,
        (0..1u64 << 24).prop_map(|back| OFFSET_MAX - back)
    ]
}

/// A range that takes at most about a thousand units, so that its pieces can be walked.
fn ranges() -> impl Strategy<Value = (Layout, u64, u64)> {
    (layouts(), offsets(), any::<u64>()).prop_map(|(layout, offset, len)| {
        let len = len % (layout.stripe_unit_bytes() * 1000);
        (layout, offset, len.min(OFFSET_MAX - offset))
    })
}

proptest! {
    #[test]
    fn a_byte_has_one_place_and_the_place_one_byte(
        layout in layouts(),
        offset in offsets(),
    ) {
        let (object, at) = layout.locate(offset);
        prop_assert_eq!(layout.file_offset(object, at), Some(offset));
        prop_assert!(layout.object_size_bytes() == 0 || at < layout.object_size_bytes());
        prop_assert!(u64::from(layout.column(object)) < u64::from(layout.stripe_count()));
    }

    #[test]
    fn a_place_has_one_byte_and_the_byte_one_place(
        layout in layouts(),
        object in prop_oneof![0..16u64, any::<u64>()],
        at in offsets(),
    ) {
        if let Some(offset) = layout.file_offset(object, at) {
            prop_assert_eq!(layout.locate(offset), (object, at));
        }
    }

    #[test]
    fn extents_cover_the_range_in_order((layout, offset, len) in ranges()) {
        let mut at = 0;
        for extent in layout.extents(offset, len) {
            prop_assert!(extent.len > 0);
            prop_assert_eq!(extent.start, at);
            prop_assert_eq!(layout.locate(offset + at), (extent.object, extent.offset));
            let last = (extent.object, extent.offset + extent.len - 1);
            prop_assert_eq!(layout.locate(offset + at + extent.len - 1), last);
            at += extent.len;
        }
        prop_assert_eq!(at, len);
    }

    #[test]
    fn a_range_is_one_run_per_object((layout, offset, len) in ranges()) {
        // The pieces of each object, in order, are adjacent, and together its range.
        let mut runs: HashMap<u64, Range<u64>> = HashMap::new();
        for extent in layout.extents(offset, len) {
            let run = runs.entry(extent.object).or_insert(extent.offset..extent.offset);
            prop_assert_eq!(run.end, extent.offset, "no overlap, no gap");
            run.end += extent.len;
        }
        let objects = layout.objects(offset, len);
        for (object, run) in &runs {
            prop_assert!(objects.contains(object));
            prop_assert_eq!(&layout.object_range(*object, offset, len), run);
        }
        for object in objects.take(10_000) {
            if !runs.contains_key(&object) {
                prop_assert!(layout.object_range(object, offset, len).is_empty());
            }
        }
    }

    #[test]
    fn objects_of_a_file_add_up_to_it(
        layout in layouts(),
        file_size in 0..1u64 << 34,
    ) {
        let objects = layout.objects(0, file_size);
        if objects.end < 100_000 {
            let sum: u64 = objects.map(|object| layout.object_end(file_size, object)).sum();
            prop_assert_eq!(sum, file_size);
        }
    }

    #[test]
    fn an_object_ends_behind_its_last_byte(layout in layouts(), file_size in offsets()) {
        // The object of the file's last byte ends right behind it, and that of the next byte
        // right before it.
        if file_size > 0 {
            let (object, at) = layout.locate(file_size - 1);
            prop_assert_eq!(layout.object_end(file_size, object), at + 1);
        }
        let (object, at) = layout.locate(file_size);
        prop_assert_eq!(layout.object_end(file_size, object), at);
    }
}
