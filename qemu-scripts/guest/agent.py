"""Runs commands in the guest for the test harness, over a virtio-serial port.

Both directions carry frames: a header (kind, id, length; little endian) and `length`
bytes. Commands run side by side; the id tells their frames apart.

host -> guest  R run    timeout_ms u32, command length u32, command, the rest is its stdin
               K kill   (empty)
guest -> host  H hello  kernel release; sent once, when commands can be run
               O stdout bytes as they come
               E stderr bytes as they come
               X exit   status i32 (exit code, or minus the signal), timed out u8
"""

import os
import selectors
import signal
import struct
import sys
import time

HEADER = struct.Struct("<cII")
RUN = struct.Struct("<II")
EXIT = struct.Struct("<iB")
READ_SIZE = 256 * 1024
# How long a killed command may take to die before it is reported anyway: a task
# that hangs inside a file system cannot be killed, and the host must hear of it.
KILL_GRACE_SECONDS = 2


class Command:
    def __init__(self, agent, ident, payload):
        timeout_ms, length = RUN.unpack_from(payload)
        shell = payload[RUN.size : RUN.size + length]
        stdin = os.memfd_create("stdin")
        write_all(stdin, payload[RUN.size + length :])
        os.lseek(stdin, 0, os.SEEK_SET)
        out, out_child = os.pipe()
        err, err_child = os.pipe()
        dup2 = os.POSIX_SPAWN_DUP2
        self.agent, self.ident = agent, ident
        self.pid = os.posix_spawn(
            "/bin/sh",
            ["sh", "-c", shell],
            os.environ,
            file_actions=[(dup2, stdin, 0), (dup2, out_child, 1), (dup2, err_child, 2)],
            setsid=True,
            setsigdef=[signal.SIGPIPE],
        )
        for fd in (stdin, out_child, err_child):
            os.close(fd)
        self.deadline = time.monotonic() + timeout_ms / 1000
        self.timed_out = False
        self.streams = {out: b"O", err: b"E"}
        for fd in self.streams:
            os.set_blocking(fd, False)
            agent.selector.register(fd, selectors.EVENT_READ, lambda fd=fd: self.forward(fd))
        self.pidfd = os.pidfd_open(self.pid)
        agent.selector.register(self.pidfd, selectors.EVENT_READ, self.exited)

    def forward(self, fd):
        """Sends on what a stream has now; True if there was something."""
        try:
            data = os.read(fd, READ_SIZE)
        except BlockingIOError:
            return False
        if data:
            self.agent.send(self.streams[fd], self.ident, data)
        else:
            self.close(fd)
        return bool(data)

    def close(self, fd):
        self.agent.selector.unregister(fd)
        self.streams.pop(fd, None)
        os.close(fd)

    def exited(self):
        _, status = os.waitpid(self.pid, 0)
        self.finish(os.waitstatus_to_exitcode(status))

    def finish(self, code):
        # Not until end of file: a background process may hold the pipes open.
        for fd in list(self.streams):
            while fd in self.streams and self.forward(fd):
                pass
            if fd in self.streams:
                self.close(fd)
        self.close(self.pidfd)
        del self.agent.commands[self.ident]
        self.agent.send(b"X", self.ident, EXIT.pack(code, self.timed_out))

    def kill(self):
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass

    def check_deadline(self, now):
        if now < self.deadline:
            return
        if self.timed_out:
            self.finish(-signal.SIGKILL)
        else:
            self.timed_out = True
            self.deadline = now + KILL_GRACE_SECONDS
            self.kill()


class Agent:
    def __init__(self, path):
        self.port = os.open(path, os.O_RDWR)
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.port, selectors.EVENT_READ, self.receive)
        self.commands = {}
        self.buffer = bytearray()

    def send(self, kind, ident, payload):
        write_all(self.port, HEADER.pack(kind, ident, len(payload)) + payload)

    def receive(self):
        data = os.read(self.port, READ_SIZE)
        if not data:
            sys.exit("agent: the host closed the port")
        self.buffer += data
        while len(self.buffer) >= HEADER.size:
            kind, ident, length = HEADER.unpack_from(self.buffer)
            end = HEADER.size + length
            if len(self.buffer) < end:
                return
            payload = bytes(self.buffer[HEADER.size : end])
            del self.buffer[:end]
            if kind == b"R":
                self.commands[ident] = Command(self, ident, payload)
            elif kind == b"K" and ident in self.commands:
                self.commands[ident].kill()

    def serve(self):
        self.send(b"H", 0, os.uname().release.encode())
        while True:
            now = time.monotonic()
            for command in list(self.commands.values()):
                command.check_deadline(now)
            ends = [command.deadline for command in self.commands.values()]
            wait = max(0, min(ends) - time.monotonic()) if ends else None
            for key, _ in self.selector.select(wait):
                # An earlier event of this round may have closed this one's descriptor.
                if key.fd in self.selector.get_map():
                    key.data()


def write_all(fd, data):
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


Agent(sys.argv[1]).serve()
