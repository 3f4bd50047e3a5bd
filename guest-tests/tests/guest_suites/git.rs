//! git: clone, work, collect garbage and check a repository of many files and commits.

use crate::support::{put, Bench, Config, MINUTES_15, SECONDS_30};
use guest_tests::vm::Engine;

on_every_volume! {
    #[ignore = "takes minutes"]
    clone_gc_fsck,
}

/// 4000 files in 200 folders, then 300 commits of 20 files each, as `git fast-import` takes them.
const HISTORY: &str = r#"
import random, sys
random.seed(1)
out = sys.stdout
def text(path, generation):
    line = "%s of generation %d: %d\n"
    return "".join(line % (path, generation, random.randrange(1 << 40)) for _ in range(random.randrange(1, 60)))
paths = ["dir%03d/sub%d/file%04d.txt" % (i % 200, i % 3, i) for i in range(4000)]
for commit in range(301):
    out.write("commit refs/heads/main\ncommitter A <a@example.org> %d +0000\ndata 7\ncommit\n\n" % (1700000000 + commit))
    for path in paths if commit == 0 else random.sample(paths, 20):
        data = text(path, commit)
        mode = "100755" if path.endswith("7.txt") else "100644"
        out.write("M %s inline %s\ndata %d\n%s\n" % (mode, path, len(data), data))
"#;
const ORIGIN: &str = "\
cd /tmp && git init --quiet --bare --initial-branch=main origin.git &&
python3 history.py | git -C origin.git fast-import --quiet &&
git config --global user.name A && git config --global user.email a@example.org &&
git config --global --add safe.directory '*' &&
git -C origin.git rev-parse main
";
/// Of the work tree alone, so that it is the same for every clone.
const TREE: &str =
    "git ls-files -s | sha256sum && git ls-files -z | xargs -0 sha256sum | sha256sum";

fn clone_gc_fsck(engine: Engine) {
    let Some(bench) = Bench::start(&Config::with_programs(engine)) else {
        return;
    };
    bench
        .steps
        .step("prepare", || put(&bench.guest, "/tmp/history.py", HISTORY));
    bench.run("a history on the guest's tmpfs", ORIGIN, MINUTES_15);
    bench.run(
        "clone",
        "cd /mnt && git clone --quiet file:///tmp/origin.git work && cd work &&
        test -z \"$(git status --porcelain)\" && test \"$(git ls-files | wc -l)\" = 4000",
        MINUTES_15,
    );
    bench.run(
        "work: commits, a branch, a merge, a rebase",
        "cd /mnt/work && git checkout --quiet -b side HEAD~50 &&
        for i in 1 2 3; do echo $i > new$i && git add new$i && git commit --quiet -m $i; done &&
        git checkout --quiet main && git mv dir001 moved && git commit --quiet -a -m moved &&
        git merge --quiet --no-edit side && git checkout --quiet side && git rebase --quiet main &&
        git stash list && test -z \"$(git status --porcelain)\"",
        MINUTES_15,
    );
    let before = bench.run(
        "what is there",
        &format!("cd /mnt/work && {TREE}"),
        MINUTES_15,
    );
    bench.run(
        "gc and fsck",
        "cd /mnt/work && git gc --quiet --prune=now && git fsck --full --strict --no-progress &&
        git count-objects -v | grep -qx 'count: 0'",
        MINUTES_15,
    );
    bench.run(
        "a clone with hard links",
        "cd /mnt && git clone --quiet --branch side work second &&
        git -C second fsck --full --strict --no-progress &&
        test \"$(stat -c %h second/.git/objects/pack/*.pack)\" = 2",
        MINUTES_15,
    );
    bench.run(
        "remount",
        "umount /mnt && mount -t virtiofs data /mnt",
        SECONDS_30,
    );
    for clone in ["work", "second"] {
        let after = bench.run(
            &format!("the same after a remount: {clone}"),
            &format!("cd /mnt/{clone} && test -z \"$(git status --porcelain)\" && {TREE}"),
            MINUTES_15,
        );
        assert_eq!(after, before);
    }
    bench.run("remove", "rm -r /mnt/work /mnt/second", MINUTES_15);
    bench.finish();
}
