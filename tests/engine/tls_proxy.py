"""Stand before an engine's socket with TLS, and ask clients for certificates.

    tls_proxy.py FOLDER SOCKET

FOLDER gets `ca.pem`, `cert.pem` and `key.pem` of a client, the names Docker's own client knows. The port is printed, then a line
for each connection: `whole` or `resumed` after its handshake. Ends with its stdin.
"""

import asyncio
import functools
import os
import ssl
import sys
from pathlib import Path

from certificates import make_certificates


served: set[asyncio.Task[None] | None] = set()


async def pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(65536):
            target.write(data)
            await target.drain()
    except OSError:
        pass
    # TLS of this module knows no half of a connection.
    if target.can_write_eof():
        target.write_eof()
    else:
        target.close()


async def serve(engine: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    served.add(asyncio.current_task())  # the loop itself may forget it
    print("resumed" if writer.get_extra_info("ssl_object").session_reused else "whole", flush=True)
    up, down = await asyncio.open_unix_connection(engine)
    await asyncio.gather(pump(reader, down), pump(up, writer))
    down.close()


async def main(folder: Path, engine: str) -> None:
    make_certificates(folder, "DNS:localhost", "IP:127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem", folder / "server.key")
    context.load_verify_locations(folder / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    server = await asyncio.start_server(functools.partial(serve, engine), "127.0.0.1", 0, ssl=context)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
