"""Tell whether servers of this container answer.

    python -I -m ipybox.health [VARIABLE=]PORT...

A variable of the environment, where it is set, names another port. The exit status is 0 when each answers over HTTP within `LIMIT` seconds with a status below 500.
"""

import http.client
import os
import sys
from concurrent.futures import ThreadPoolExecutor

LIMIT = 3.0


def problem(port: str) -> str | None:
    try:
        connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=LIMIT)
        try:
            connection.request("GET", "/")
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


def main(arguments: list[str]) -> int:
    ports = [named(argument) for argument in arguments]
    if not ports:
        print("no port given")
        return 1
    with ThreadPoolExecutor(len(ports)) as pool:
        problems = [text for text in pool.map(problem, ports) if text]
    if problems:
        print("; ".join(problems))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
