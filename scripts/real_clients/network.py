"""A network between clients and a server that are all on loopback: a proxy of TCP that passes on
what it gets after a while, ends and resets included, in their order.

On loopback itself a client hands a megabyte to the kernel at once, and often does not notice that
the server has reset the connection. Over a network it still has something to send.
"""

import asyncio
import contextlib
import fcntl
import socket
import struct
import termios
import threading

# One way, in seconds. A round trip takes twice as long.
DELAY = 0.01
# What Ethernet carries at once. With the 64 kB of loopback, kernels would give clients send buffers
# of megabytes.
SEGMENT = 1460
# What is under way before the first of it is acknowledged, and at most. Each acknowledged byte
# makes room for two, as in the slow start of TCP. The first window is that of RFC 3390 and not the
# larger one of RFC 6928, because a client's kernel gets its own acknowledgements at once here, and
# makes the client's send buffer larger by them.
FIRST_WINDOW, LARGEST_WINDOW = 3 * SEGMENT, 1 << 20
# So that a client's bytes wait at the client, and not in the buffers of this process.
BUFFER = 4096

RESET = object()


class Way:
    """What goes from one socket to the other."""

    def __init__(self, source, target, over, windowed):
        self.source, self.target, self.over = source, target, over
        self.queue = asyncio.Queue()
        self.finished = False
        # Whether the source has reset the connection. The kernel says so once, to a read or to a
        # write, and then only that this is the end.
        self.was_reset = False
        self.window = FIRST_WINDOW if windowed else float("inf")
        self.unacknowledged, self.acknowledged = 0, asyncio.Event()
        self.back = None

    def put(self, what):
        self.queue.put_nowait((asyncio.get_running_loop().time() + DELAY, what))

    async def read(self):
        loop = asyncio.get_running_loop()
        ended = False
        while not ended:
            while self.unacknowledged >= self.window:
                self.acknowledged.clear()
                await self.acknowledged.wait()
            room = min(BUFFER, self.window - self.unacknowledged)
            try:
                data = await loop.sock_recv(self.source, room)
            except OSError:
                return self.put(RESET)
            if not data and self.was_reset:
                return self.put(RESET)
            ended = not data
            self.unacknowledged += len(data)
            self.put(data)
        # A reset can still follow the end.
        while not self.was_reset:
            self.was_reset = self.source.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0
            await asyncio.sleep(0.001)
        self.put(RESET)

    async def write(self):
        loop = asyncio.get_running_loop()
        while True:
            due, what = await self.queue.get()
            await asyncio.sleep(due - loop.time())
            if what is RESET:
                return self.end(self.target)
            try:
                if what:
                    await loop.sock_sendall(self.target, what)
                else:
                    self.target.shutdown(socket.SHUT_WR)
            except OSError:
                # What the target sent before it reset the connection is still to be read.
                self.back.was_reset = True
                return
            if what:
                loop.call_later(DELAY, self.acknowledge, len(what))
            else:
                self.finished = True
                if self.back.finished:
                    self.end(None)

    def end(self, target):
        """The connection is over, with a reset for the target if there is one."""
        if not self.over.done():
            self.over.set_result(target)

    def acknowledge(self, count):
        self.unacknowledged -= count
        self.window = min(self.window + count, max(self.window, LARGEST_WINDOW))
        self.acknowledged.set()


async def reset(sock):
    """Resets a connection, once the other side's kernel has all that was sent over it before."""
    for _ in range(1000):
        unsent = struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, b"\0" * 4))[0]
        if not unsent:
            break
        await asyncio.sleep(0.001)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def connect(client, port):
    loop = asyncio.get_running_loop()
    over = loop.create_future()
    with client, socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
        server.setblocking(False)
        await loop.sock_connect(server, ("127.0.0.1", port))
        for sock in client, server:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        there, back = Way(client, server, over, True), Way(server, client, over, False)
        there.back, back.back = back, there
        tasks = [loop.create_task(it) for way in (there, back) for it in (way.read(), way.write())]
        try:
            target = await over
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if target:
            with contextlib.suppress(OSError):
                await reset(target)


class Network:
    """Listens on a port of its own for as long as this process lives, and counts connections."""

    def __init__(self, port):
        self.connections = 0
        self.server_port = port
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        self.listener.setblocking(False)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=asyncio.run, args=[self.accept()], daemon=True).start()

    async def accept(self):
        loop, tasks = asyncio.get_running_loop(), set()
        while True:
            client, _ = await loop.sock_accept(self.listener)
            client.setblocking(False)
            self.connections += 1
            task = loop.create_task(connect(client, self.server_port))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
