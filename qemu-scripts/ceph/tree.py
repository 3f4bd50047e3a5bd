"""Makes and removes directories of a CephFS: tree.py CONF FS mkdir PATH MODE | rm PATH"""

import stat
import sys

import cephfs


def remove(fs, path):
    """A directory with all that is in it; symbolic links are not followed."""
    entries = []
    with fs.opendir(path) as handle:
        while entry := fs.readdir(handle):
            if entry.d_name not in (b".", b".."):
                entries.append(path + b"/" + entry.d_name)
    for entry in entries:
        if stat.S_ISDIR(fs.lstat(entry).st_mode):
            remove(fs, entry)
        else:
            fs.unlink(entry)
    fs.rmdir(path)


def make(fs, path, mode):
    """A directory; its parents are everybody's to enter."""
    *parents, name = [part for part in path.split(b"/") if part] or [b""]
    place = b""
    for parent in parents:
        place += b"/" + parent
        try_mkdir(fs, place, 0o755)
    if name:
        try_mkdir(fs, place + b"/" + name, mode)


def try_mkdir(fs, path, mode):
    try:
        fs.mkdir(path, mode)
        # mkdir obeys a umask.
        fs.chmod(path, mode)
    except cephfs.ObjectExists:
        pass


def main(conf, name, command, path, mode="755"):
    fs = cephfs.LibCephFS(conffile=conf, auth_id="admin")
    # An ordinary user's administrator is not held up by who owns the root.
    fs.conf_set("client_permissions", "false")
    fs.mount(filesystem_name=name.encode())
    try:
        path = path.encode(errors="surrogateescape")
        if command == "mkdir":
            make(fs, path, int(mode, 8))
        else:
            remove(fs, path.rstrip(b"/"))
    finally:
        fs.shutdown()


try:
    main(*sys.argv[1:])
except (cephfs.Error, ValueError) as error:
    sys.exit(f"error: {' '.join(sys.argv[3:])}: {error}")
