//! `docs/fuse-opcodes.md` says what the tables say.

use std::fmt::Write;
use std::path::Path;

use pfs_core::fs::Errno;

use crate::fuse::flags::{Taken, FLAGS};
use crate::fuse::opcodes::{Op, Opcode, Replay};
use crate::fuse::served::By;

const HOW: &str = "docs/fuse-opcodes.md is not what the tables say. Write it anew with:\n\
                   PFS_WRITE_DOCS=1 cargo test -p pfs-virtiofsd fuse::tests::doc";

const HEAD: &str = "\
# FUSE, opcode by opcode

What the daemon does with each request of `linux/fuse.h` (7.41, Linux 6.12), and what it says to
each flag of FUSE_INIT. Written from the tables in `daemon/src/fuse/`; a test compares.

**Replay** is what happens to a request that was in flight when the daemon died: an *idempotent*
one runs again; one *with intent* runs again and knows from a record what it had done before; one
*at most once* is marked done before it runs. **Changes** are refused with EROFS by `--readonly`.
An opcode that is not in the table is answered ENOSYS.
";

fn table() -> String {
    let mut text = String::from(HEAD);
    text += "\n## Opcodes\n\n| code | opcode | served by | replay | changes | |\n";
    text += "| --: | --- | --- | --- | --- | --- |\n";
    for code in Opcode::ALL {
        let op = Op::of(*code);
        let (served, replay) = match op.refused {
            Some(refused) => (format!("refused: {}", errno(refused.errno)), ""),
            None => (served_by(*code), replay(op.replay)),
        };
        let why = op.refused.map(|refused| refused.why).into_iter();
        let notes: Vec<&str> = why
            .chain([code.note()])
            .filter(|note| !note.is_empty())
            .collect();
        let (name, changes) = (code.name(), if op.mutates { "yes" } else { "" });
        let (code, notes) = (*code as u32, notes.join("; "));
        writeln!(
            text,
            "| {code} | {name} | {served} | {replay} | {changes} | {notes} |"
        )
        .unwrap();
    }
    text += "\n## Flags of FUSE_INIT\n\n| bit | flag | taken | why |\n| --: | --- | --- | --- |\n";
    for flag in FLAGS {
        let taken = match flag.taken {
            Taken::Always => "yes".to_owned(),
            Taken::With { options, .. } => format!("with {options}"),
            Taken::Never => "no".to_owned(),
        };
        let (bit, name, why) = (flag.bits.trailing_zeros(), flag.name, flag.why);
        writeln!(text, "| {bit} | {name} | {taken} | {why} |").unwrap();
    }
    text
}

fn served_by(code: Opcode) -> String {
    match code.served_by() {
        By::Engine(method) => format!("engine: `{method}`"),
        By::Session => "the session".to_owned(),
    }
}

fn errno(errno: Errno) -> &'static str {
    match errno {
        Errno::NOSYS => "ENOSYS",
        Errno::NOTTY => "ENOTTY",
        other => panic!("{other} has no name here"),
    }
}

fn replay(replay: Replay) -> &'static str {
    match replay {
        Replay::Idempotent => "idempotent",
        Replay::AtMostOnce => "at most once",
        Replay::Intent => "with intent",
    }
}

#[test]
fn the_document_says_what_the_tables_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/fuse-opcodes.md");
    let wanted = table();
    if std::env::var_os("PFS_WRITE_DOCS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &wanted).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == wanted, "{HOW}");
}
