//! Appends that a daemon which died had begun, executed again by the next.

use std::sync::Mutex;

use super::*;
use crate::fs::{Intent, IntentLog};

/// What an append remembers; with a place, that of the process that died.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Option<Intent>>>, Option<u64>);

impl IntentLog for Log {
    fn replayed(&self) -> Option<Intent> {
        self.1.map(|offset| Intent::AppendAt { offset })
    }

    fn record(&self, intent: Intent) {
        *self.0.lock().unwrap() = Some(intent);
    }

    fn keep(&self) -> Box<dyn IntentLog + Send> {
        Box::new(self.clone())
    }
}

/// Larger than what the inode holds: it lies on objects as well.
const LEN: u64 = 3 * MDT_SIZE;

fn piece(byte: u8) -> Vec<u8> {
    vec![byte; LEN as usize]
}

/// Executes again an append of `data` that recorded `place`; answers what it then recorded.
fn replay(mount: &mut Mount, file: Open, place: u64, data: &[u8]) -> Option<Intent> {
    let log = Log(Arc::default(), Some(place));
    mount.append_logged(file, data, &log);
    let recorded = *log.0.lock().unwrap();
    recorded
}

#[test]
fn what_was_done_stays_where_it_is() {
    let rig = Rig::new(3);
    let mut mount = rig.mount();
    let file = mount.create(c"f");
    mount.append(file, 0, &piece(1));
    mount.append(file, 0, &piece(2));
    assert_eq!(replay(&mut mount, file, 0, &piece(1)), None);
    assert!(mount.read(file, 0, 3 * LEN as usize) == [piece(1), piece(2)].concat());
}

#[test]
fn what_was_half_done_is_completed() {
    let rig = Rig::new(3);
    let mut mount = rig.mount();
    let file = mount.create(c"f");
    mount.append(file, 0, &piece(1));
    // The place is taken, and some of the data is there.
    mount.truncate(file, 2 * LEN);
    mount.write(file, LEN + 5000, &[2; 3000]);
    mount.append(file, 0, &piece(3));
    assert_eq!(replay(&mut mount, file, LEN, &piece(2)), None);
    assert!(mount.read(file, 0, 4 * LEN as usize) == [piece(1), piece(2), piece(3)].concat());
}

#[test]
fn a_place_that_another_took_is_the_others() {
    let rig = Rig::new(3);
    let (mut one, mut two) = (rig.mount(), rig.mount());
    let file = one.create(c"f");
    one.append(file, 0, &piece(1));
    // It died before it took the place that it had recorded.
    let there = two.open(c"f");
    two.append(there, 0, &piece(2));
    let recorded = replay(&mut one, file, LEN, &piece(3));
    assert_eq!(recorded, Some(Intent::AppendAt { offset: 2 * LEN }));
    assert!(one.read(file, 0, 4 * LEN as usize) == [piece(1), piece(2), piece(3)].concat());
}

#[test]
fn a_place_that_is_beyond_the_end_was_not_taken() {
    let rig = Rig::new(3);
    let mut mount = rig.mount();
    let file = mount.create(c"f");
    mount.append(file, 0, &piece(1));
    let recorded = replay(&mut mount, file, 5 * LEN, &piece(2));
    assert_eq!(recorded, Some(Intent::AppendAt { offset: LEN }));
    assert!(mount.read(file, 0, 3 * LEN as usize) == [piece(1), piece(2)].concat());
}
