"""What calls print, collected with a limit. Kernels import this module, too."""

import codecs
from dataclasses import dataclass
from typing import Any

LIMIT = 100_000
"""Characters of an output that a caller gets to see."""


@dataclass
class Result:
    """The answer to a call."""

    stdout: str
    stderr: str = ""
    exit_code: int = 0
    timed_out: bool = False


def late(seconds: int) -> str:
    return f"Execution timed out after {seconds} seconds"


class Ends:
    """The beginning and the end of a text that comes in pieces of UTF-8."""

    def __init__(self) -> None:
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.head = self.tail = ""
        self.length = 0

    def add(self, data: bytes, final: bool = False) -> None:
        text = self.decoder.decode(data, final)
        self.length += len(text)
        room = LIMIT // 2 - len(self.head)
        self.head += text[:room]
        self.tail = (self.tail + text[room:])[-LIMIT // 2 :]

    def text(self) -> str:
        self.add(b"", final=True)
        if self.length <= LIMIT:
            return self.head + self.tail
        return f"{self.head}\n... (truncated {self.length - LIMIT} characters) ...\n{self.tail}"


class Head:
    """The beginning of a text, and one character more when there was more."""

    def __init__(self) -> None:
        self.room = LIMIT + 1
        self.parts: list[str] = []

    def add(self, text: str) -> None:
        if self.room > 0:
            self.parts.append(text[: self.room])
            self.room -= len(text)


class Output:
    """What a call in a kernel prints and displays."""

    def __init__(self) -> None:
        self.heads = {"stdout": Head(), "displays": Head(), "stderr": Head()}

    def receive(self, kind: str, content: dict[str, Any]) -> None:
        """Take a message of the kernel."""
        if kind == "stream":
            self.heads[content["name"]].add(content["text"])
        elif kind in ("execute_result", "display_data"):
            data = content["data"]
            text = data.get("text/plain") or "".join(f"<{name}>" for name in list(data)[:1])
            self.heads["displays"].add(f"{text}\n")

    def text(self) -> str:
        parts = ["".join(head.parts).strip("\n") for head in self.heads.values()]
        text = "\n".join(filter(None, parts)).strip()
        return text if len(text) <= LIMIT else f"{text[:LIMIT]}\n... [OUTPUT TRUNCATED]"
