"""Connect stdin and stdout to a port of this container."""

import os
import socket
import sys
import threading

try:
    server = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
except OSError as error:
    sys.exit(str(error))


def send() -> None:
    while data := os.read(0, 65536):
        server.sendall(data)
    server.shutdown(socket.SHUT_WR)


threading.Thread(target=send, daemon=True).start()
while data := server.recv(65536):
    while data:
        data = data[os.write(1, data) :]
