//! Sequences that once differed, as the search shrunk them.

use crate::step::{At, How, Op, Place, Step};

fn by(client: bool, op: Op) -> Step {
    Step {
        client,
        user: false,
        op,
    }
}

const A: At = At { dir: 0, name: 0 };
const RDWR: How = How {
    access: 2,
    truncate: false,
    append: false,
};

#[test]
fn times_that_were_set_stay_when_the_file_is_closed() {
    let steps = [
        Op::Create {
            at: A,
            mode: 0o600,
            how: RDWR,
            exclusive: false,
        },
        Op::Write {
            file: 0,
            place: Place::Start(0),
            len: 100_000,
        },
        Op::SetTimes {
            node: 1,
            access: None,
            modify: Some(7),
            now: false,
        },
        Op::Release(0),
    ];
    crate::check(&steps.map(|op| by(false, op)));
}
