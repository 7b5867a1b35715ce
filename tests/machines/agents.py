"""The agent's and the target's end of a client's streams: a test reads requests there and sends answers."""

import socket
import time
from concurrent.futures import ThreadPoolExecutor

import msgpack

from uffdlab import errors
from uffdlab.machines.rpc import client

HELLO = {
    "protocol": 1,
    "pid": 1,
    "uid": 0,
    "release": "6.1",
    "version": "#1 SMP",
    "machine": "x86_64",
    "python": "3.11.2",
    "page_size": 4096,
    "cpus": 1,
    "monotonic_ns": 10**9,
}


class Agent:
    """The agent's end of the stream."""

    def __init__(self):
        client_end, self.stream = socket.socketpair()
        self.stream.settimeout(5)
        self._unpacker = msgpack.Unpacker()
        self.client = client.Client(
            client_end,
            make_lost_error=errors.MachineLost,
            make_late_error=errors.MachineTimeout,
            make_malformed_error=errors.ProtocolError,
        )

    def send(self, *frames):
        for frame in frames:
            self.stream.sendall(frame if isinstance(frame, bytes) else msgpack.packb(frame))

    def receive(self):
        while True:
            for frame in self._unpacker:
                return frame
            data = self.stream.recv(1 << 16)
            assert data
            self._unpacker.feed(data)

    def hello(self):
        self.send([2, "hello", [HELLO]])
        return self.client.hello(5)

    def close(self):
        self.client.close(errors.LabClosed("closed"))
        self.stream.close()


class AgentAndTarget(Agent):
    """The agent's end of one stream, and the target's end of the other."""

    def __init__(self):
        client_end, self.stream = socket.socketpair()
        target_end, self.target = socket.socketpair()
        for end in (self.stream, self.target):
            end.settimeout(5)
        self._unpacker = msgpack.Unpacker()
        self._target_unpacker = msgpack.Unpacker()
        self.client = client.Client(
            client_end,
            make_lost_error=errors.MachineLost,
            make_late_error=errors.MachineTimeout,
            make_malformed_error=errors.ProtocolError,
            target=target_end,
        )

    def spawn(self, marker):
        with ThreadPoolExecutor(1) as pool:
            pending = pool.submit(self.client.call, "agent.spawn", (marker, 0), 5)
            self.send([1, self.receive()[1], None, {"pid": 7}])
            pending.result(5)
        while marker not in (data := self.target.recv(4096)):
            assert data
        self.target.sendall(b"earlier bytes" + marker)
        until = time.monotonic() + 5
        while not self.client._target.marker_returned:
            assert time.monotonic() < until
            time.sleep(0.001)

    def receive_from_target(self):
        while True:
            for frame in self._target_unpacker:
                return frame
            self._target_unpacker.feed(self.target.recv(1 << 16))

    def lose_target(self, marker, kind="target-lost"):
        self.send([2, "target-lost", [7, "it ended", kind, 9, marker]])

    def close(self):
        super().close()
        self.target.close()


def in_thread(function, *args):
    pool = ThreadPoolExecutor(1)
    future = pool.submit(function, *args)
    pool.shutdown(wait=False)
    return future
