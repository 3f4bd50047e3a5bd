"""Prints "NAME STATE" for daemons of Ceph, asked over their admin sockets: states.py FOLDER NAME..."""

import json
import socket
import struct
import sys

TIMEOUT_S = 3


def ask(path, command):
    """The answer to a command, which takes no arguments."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(TIMEOUT_S)
        connection.connect(path)
        connection.sendall(json.dumps({"prefix": command}).encode() + b"\0")
        with connection.makefile("rb") as answer:
            (length,) = struct.unpack(">I", answer.read(4))
            return json.loads(answer.read(length))


def state(folder, name):
    path = f"{folder}/{name}.asok"
    kind = name.split(".")[0]
    if kind == "mon":
        return ask(path, "mon_status")["state"]
    if kind == "mgr":
        return "active" if ask(path, "mgr_status")["initialized"] else "starting"
    return ask(path, "status")["state"]


def main(folder, *names):
    for name in names:
        try:
            print(name, state(folder, name))
        except (OSError, ValueError, KeyError, TypeError, struct.error):
            print(name, "no answer")


main(*sys.argv[1:])
