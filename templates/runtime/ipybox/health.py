"""Tell whether servers of this container answer.

    python -I -m ipybox.health [VARIABLE=]PORT...

A variable of the environment, where it is set, names another port. The exit status is 0 when each answers over HTTP within `LIMIT` seconds with a status below 500.
"""

import http.client
import os
import sys
from concurrent.futures import ThreadPoolExecutor

LIMIT = 3.0

QUESTION = "OPTIONS", "/api"
"""What a kernel gateway answers whoever asks; others may call it wrong."""


def problem(port: str) -> str | None:
    try:
        connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=LIMIT)
        try:
            connection.request(*QUESTION)
            status = connection.getresponse().status
        finally:
            connection.close()
    except (OSError, OverflowError, ValueError, http.client.HTTPException) as error:
        text = " ".join(str(error).split()) or type(error).__name__
        return f"port {port}: {text}"
    return f"port {port}: status {status}" if status >= 500 else None


def named(argument: str) -> str:
    variable, _, port = argument.rpartition("=")
    return os.environ.get(variable) or port


def problems(arguments: list[str]) -> list[str]:
    """What is wrong, port by port; they are asked at the same time."""
    ports = [named(argument) for argument in arguments]
    with ThreadPoolExecutor(max(len(ports), 1)) as pool:
        return [text for text in pool.map(problem, ports) if text]


def main(arguments: list[str]) -> int:
    if not arguments:
        print("no port given")
        return 1
    if found := problems(arguments):
        print("; ".join(found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
