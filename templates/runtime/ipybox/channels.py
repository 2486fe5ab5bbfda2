"""The kernel gateway's connections, which tell that a cell has ended after everything it wrote.

A kernel sends output and replies over two sockets, so that a reply may overtake output, and clients stop
reading at the reply. Here a reply waits until the kernel is idle again: that is told on the socket of the
output, behind all of it.
"""

from collections import deque
from typing import Any

from jupyter_server.services.kernels.connection.channels import ZMQChannelsWebsocketConnection
from tornado.ioloop import IOLoop

PATIENCE = 10.0
"""Seconds after which a reply goes out in any case."""


class Channels(ZMQChannelsWebsocketConnection):
    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.held: dict[str, tuple[Any, list[Any]]] = {}
        self.done: deque[str] = deque(maxlen=100)

    def handle_outgoing_message(self, stream: Any, outgoing_msg: list[Any]) -> None:
        _, parts = self.session.feed_identities(outgoing_msg)
        header, parent = self.session.unpack(parts[1]), self.session.unpack(parts[2])
        channel = stream if isinstance(stream, str) else stream.channel
        request = parent.get("msg_id", "")
        if channel == "shell" and header["msg_type"] == "execute_reply" and request not in self.done:
            self.held[request] = (stream, outgoing_msg)
            IOLoop.current().call_later(PATIENCE, self.release, request)
            return
        super().handle_outgoing_message(stream, outgoing_msg)
        is_status = channel == "iopub" and header["msg_type"] == "status"
        if is_status and self.session.unpack(parts[4])["execution_state"] == "idle":
            self.done.append(request)
            self.release(request)

    def release(self, request: str) -> None:
        if held := self.held.pop(request, None):
            super().handle_outgoing_message(*held)
