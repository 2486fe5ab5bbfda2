"""What the health check of a container says. Runs inside an image, as its user."""

import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

SERVER_PYTHON = os.environ.get("IPYBOX_SERVER_PYTHON", "/opt/ipybox/server/bin/python")


@contextmanager
def answering(answer: bytes | None) -> Iterator[str]:
    """The port of a server that sends these bytes to each client, or never says a thing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        clients = []

        def serve() -> None:
            while True:
                try:
                    client, _ = server.accept()
                except OSError:
                    return
                clients.append(client)
                if answer is not None:
                    client.recv(65536)
                    client.sendall(answer)
                    client.close()

        threading.Thread(target=serve, daemon=True).start()
        yield str(server.getsockname()[1])
        for client in clients:
            client.close()
        server.shutdown(socket.SHUT_RDWR)


def health(*ports: str) -> tuple[int, str]:
    command = [SERVER_PYTHON, "-I", "-m", "ipybox.health", *ports]
    result = subprocess.run(command, text=True, capture_output=True, timeout=20)
    assert result.stderr == ""
    return result.returncode, result.stdout


def test_servers_that_answer_are_healthy() -> None:
    found, missing = b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 404 Not Found\r\n\r\n"
    with answering(found) as one, answering(missing) as other:
        assert health(one, other) == (0, "")


def test_one_unhealthy_server_is_enough() -> None:
    with answering(b"HTTP/1.1 200 OK\r\n\r\n") as one, answering(b"HTTP/1.1 503 No\r\n\r\n") as other:
        assert health(one, other) == (1, f"port {other}: status 503\n")


def test_nobody_there() -> None:
    with answering(None) as port:
        pass
    status, text = health(port)
    assert status == 1
    assert text.startswith(f"port {port}: ") and text.count("\n") == 1


def test_silent_servers_are_given_up_together() -> None:
    began = time.monotonic()
    with answering(None) as one, answering(None) as other:
        status, text = health(one, other)
    assert (status, text.count("timed out"), text.count("\n")) == (1, 2, 1)
    assert time.monotonic() - began < 5


def script(*ports: str) -> tuple[int, str]:
    result = subprocess.run(["sh", "/opt/ipybox/health.sh", *ports], text=True, capture_output=True, timeout=20)
    return result.returncode, result.stdout


def test_the_supervisor_answers_readers_of_its_pipe() -> None:
    """The first process of this container is a supervisor whose servers answer."""
    for _ in range(3):
        assert script("8888", "8900") == (0, "")


def test_readers_of_one_moment_do_not_take_each_others_answers() -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: script("8888", "8900"), range(64)))
    assert answers == [(0, "")] * 64


def test_an_answer_costs_next_to_nothing() -> None:
    script()
    before = os.times()
    for _ in range(20):
        assert script() == (0, "")
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    assert used / 20 < 0.01


def test_not_http_and_not_a_port() -> None:
    with answering(b"hello\r\n") as port:
        for wrong in [port, "x", "70000", "-1", "0"]:
            status, text = health(wrong)
            assert (status, text.count("\n")) == (1, 1)
    assert health() == (1, "no port given\n")
