//! Files and directories as ordinary work makes them: many, deep, sparse, and renamed or
//! removed while open. One guest for all; every step has a directory of its own.

use guest_tests::vm::{Guest, Share, Steps, Volume};
use std::time::Duration;

const SECONDS_30: Duration = Duration::from_secs(30);
const SECONDS_120: Duration = Duration::from_secs(120);

/// Sizes around pages, stripe units and the file's head in its inode.
const SMALL_FILES: &str = r#"
head -c 300000 /dev/urandom > /tmp/random
for size in 0 1 511 4095 4096 4097 65535 65536 65537 131071 131072 131073 262144 299999; do
    for copy in 1 2 3 4 5; do head -c $size /tmp/random > size-$size-$copy; done
done
for n in $(seq 200); do echo "small file $n" > small-$n; done
sha256sum * > /tmp/sums
"#;

const DEEP_TREE: &str = r#"
dir=.
for level in $(seq 100); do dir=$dir/a-directory-of-level-$level; done
mkdir -p $dir
echo bottom > $dir/file
test "$(cat $dir/file)" = bottom
test "$(find . -type d | wc -l)" = 101
mv a-directory-of-level-1/a-directory-of-level-2 moved
test "$(cat "$(find moved -name file)")" = bottom
rmdir a-directory-of-level-1
"#;

const MANY_FILES: &str = r#"
set +x
i=0
while [ $i -lt 10000 ]; do : > file-$i; i=$((i + 1)); done
set -x
echo 3 > /proc/sys/vm/drop_caches
test "$(ls -U | wc -l)" = 10000
test "$(ls -U | sort -u | wc -l)" = 10000
test "$(find . -name 'file-*7' -type f | wc -l)" = 1000
rm file-123 && test ! -e file-123 && test -e file-9999
find . -name 'file-*' -delete
test -z "$(ls -A)"
"#;

/// Data at 512 MiB of a file of 1 GiB; the rest is a hole, on disk too.
const SPARSE: &str = r#"
import os
fd = os.open("sparse", os.O_RDWR | os.O_CREAT)
os.ftruncate(fd, 1 << 30)
os.pwrite(fd, b"data" * 1024, 512 << 20)
os.fsync(fd)
os.close(fd)
open("/proc/sys/vm/drop_caches", "w").write("3")
fd = os.open("sparse", os.O_RDWR)
status = os.fstat(fd)
assert status.st_size == 1 << 30, status
assert status.st_blocks * 512 < 1 << 20, status
assert os.pread(fd, 8192, (512 << 20) - 4096) == bytes(4096) + b"data" * 1024
assert os.pread(fd, 1 << 20, 0) == bytes(1 << 20)
assert os.pread(fd, 4096, (1 << 30) - 100) == bytes(100)
data = os.lseek(fd, 0, os.SEEK_DATA)
assert 0 < data <= 512 << 20, data
hole = os.lseek(fd, 512 << 20, os.SEEK_HOLE)
assert (512 << 20) + 4096 <= hole < 1 << 30, hole
os.ftruncate(fd, 512 << 20)
os.ftruncate(fd, 1 << 30)
assert os.pread(fd, 4096, 512 << 20) == bytes(4096), "cut off data came back"
"#;

const RENAME_OVER_OPEN: &str = r#"
echo old > target; echo new > source
exec 3< target
mv source target
test "$(cat target)" = new
test "$(cat <&3)" = old
test ! -e source
test "$(ls)" = target
"#;

/// With data beyond the file's head, so that it has objects on the targets.
const UNLINK_OF_OPEN: &str = r#"
import os
data = os.urandom(1 << 20)
fd = os.open("file", os.O_RDWR | os.O_CREAT)
assert os.write(fd, data[: 512 << 10]) == 512 << 10
os.unlink("file")
assert os.listdir(".") == []
assert os.write(fd, data[512 << 10 :]) == 512 << 10
os.fsync(fd)
open("/proc/sys/vm/drop_caches", "w").write("3")
assert os.pread(fd, 1 << 20, 0) == data
assert os.fstat(fd).st_nlink == 0
os.ftruncate(fd, 10)
assert os.fstat(fd).st_size == 10
"#;

const LINKS_AND_ATTRIBUTES: &str = r#"
echo text > file
ln file hard; ln -s file soft
test "$(cat hard soft)" = "$(printf 'text\ntext')"
test "$(stat -c %h file)" = 2
test "$(readlink soft)" = file
chmod 640 file; chown 12:34 file; touch -d @1234567890 file
test "$(stat -c '%a %u %g %Y' hard)" = "640 12 34 1234567890"
mkfifo fifo; test -p fifo
rm file; test "$(cat hard)" = text
test "$(stat -c %h hard)" = 1
"#;

/// Two descriptors append and overwrite; sizes and bytes agree at once and after a remount.
const APPEND_AND_OVERWRITE: &str = r#"
for n in $(seq 50); do echo "line $n" >> log & done; wait
test "$(sort -u log | wc -l)" = 50
head -c 1000000 /dev/zero | tr '\0' a > big
printf 'middle' | dd of=big bs=1 seek=500000 conv=notrunc status=none
test "$(stat -c %s big)" = 1000000
test "$(dd if=big bs=1 skip=499999 count=8 status=none)" = amiddlea
truncate -s 70000 big
test "$(stat -c %s big)" = 70000
: > big; test "$(stat -c %s big)" = 0
"#;

/// Runs a script in a fresh directory of the mount.
fn shell(steps: &Steps, guest: &Guest, name: &str, script: &str) {
    steps.step(name, || {
        let dir = name.replace(|c: char| !c.is_alphanumeric(), "-");
        let command = format!("set -e; mkdir /mnt/{dir}; cd /mnt/{dir}\n{script}");
        // -x: a failing script shows its last command.
        let traced = format!("sh -xc '{}'", command.replace('\'', r"'\''"));
        guest.check(&traced, SECONDS_120)?;
        Ok(())
    });
}

fn python(steps: &Steps, guest: &Guest, name: &str, script: &str) {
    let script = script.replace('\'', "\"");
    shell(steps, guest, name, &format!("python3 -ISB -c '{script}'"));
}

#[test]
fn files_behave() {
    let steps = Steps::new();
    let volume = steps.step("create a volume", || Ok(Volume::create(4, "64K")?));
    let daemon = steps.step("start a daemon", || Ok(volume.serve("data")?));
    let guest = steps.step("boot a guest", || {
        let guest = Guest::builder()
            .share(Share::new(daemon.socket(), "data"))
            .boot()?;
        guest.mount("data", "/mnt")?;
        Ok(guest)
    });
    shell(&steps, &guest, "small files", SMALL_FILES);
    steps.step("small files after a remount", || {
        guest.unmount("/mnt")?;
        guest.mount("data", "/mnt")?;
        let check = "cd /mnt/small-files && sha256sum --quiet -c /tmp/sums";
        guest.check(check, SECONDS_30)?;
        let local = guest.run("cat /mnt/small-files/size-131073-1", SECONDS_30)?;
        assert!(volume.read("/small-files/size-131073-1")? == local.stdout);
        Ok(())
    });
    shell(&steps, &guest, "deep trees", DEEP_TREE);
    shell(&steps, &guest, "10,000 files in one directory", MANY_FILES);
    python(&steps, &guest, "sparse files", SPARSE);
    shell(&steps, &guest, "rename over an open file", RENAME_OVER_OPEN);
    python(&steps, &guest, "unlink of an open file", UNLINK_OF_OPEN);
    shell(&steps, &guest, "links and attributes", LINKS_AND_ATTRIBUTES);
    shell(
        &steps,
        &guest,
        "append, overwrite, truncate",
        APPEND_AND_OVERWRITE,
    );
    steps.step("the kernel has nothing to complain of", || {
        assert_eq!(guest.kernel_complaints(), Vec::<String>::new());
        Ok(())
    });
    steps.step("remove all and power off", || {
        guest.check("rm -rf /mnt/*", SECONDS_120)?;
        assert_eq!(guest.check("ls -A /mnt", SECONDS_30)?, "");
        Ok(guest.poweroff()?)
    });
}
