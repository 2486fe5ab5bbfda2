"""Be the one package index of a build: ask others in order, with credentials that the build does not see.

    python -I -B index.py INDEXES

INDEXES is a JSON object with `asked` (addresses, in their order), `own` (whether the index that pip has by itself comes
last) and `alone` (distributions that come from one index and no other). The first index that has a distribution is the
only one asked for it. Credentials are those of $NETRC or ~/.netrc. Prints its port, and serves until its input ends.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import html
import json
import os
import posixpath
import re
import shlex
import shutil
import sys
import threading
from collections.abc import Iterator
from email.message import Message
from html.parser import HTMLParser
from http.client import HTTPException, HTTPResponse, responses
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, TypedDict
from urllib.error import HTTPError
from urllib.parse import quote, unquote, urljoin, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from pip._internal.models.index import PyPI

ACCEPT = "application/vnd.pypi.simple.v1+json;q=1.0, text/html;q=0.5"
LIMIT = float(os.environ.get("PIP_DEFAULT_TIMEOUT") or 60)
"""Seconds in which a host has to go on."""


class Order(TypedDict):
    asked: list[str]
    own: bool
    alone: dict[str, str]


def bare(address: str) -> str:
    """An address as a request has it, without user and password."""
    parts = urlsplit(quote(address, safe="%/:?#[]@!$&'()*+,;=~"))
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def logins(text: str) -> dict[str, str]:
    """`USER:PASSWORD` by host, as a netrc has them; its `default` is meant for no host of its own.

    Python's own reader knows no quotes before 3.11.
    """
    lines = (line for line in text.splitlines() if not line.lstrip().startswith("#"))
    words = iter(shlex.split("\n".join(lines)))
    found: dict[str, dict[str, str]] = {}
    host = ""
    for word in words:
        if word == "machine":
            host = next(words).lower().strip("[]")
        elif word == "default":
            host = ""
        elif word in ("login", "user", "password", "account"):
            found.setdefault(host, {})[word.replace("user", "login")] = next(words)
        else:
            raise ValueError
    return {host: f"{parts.get('login', '')}:{parts.get('password', '')}" for host, parts in found.items() if host}


def credentials(addresses: list[str]) -> dict[str, str]:
    """What hosts want to hear, as the user's netrc has it, or an address itself."""
    path = Path(os.environ.get("NETRC") or os.path.expanduser("~/.netrc"))
    try:
        known = logins(path.read_text()) if path.exists() else {}
    except (OSError, StopIteration, ValueError) as error:  # whose text may hold a password
        sys.exit(f"`{path}` cannot be read: {type(error).__name__}")
    for parts in map(urlsplit, addresses):
        if parts.hostname and parts.username is not None:
            known[parts.hostname] = unquote(f"{parts.username}:{parts.password or ''}")
    return {host: "Basic " + base64.b64encode(login.encode()).decode() for host, login in known.items()}


class Unanswered(Exception):
    """The end of a question with a status."""

    def __init__(self, status: int, address: str, why: str) -> None:
        # What follows a question mark may be a signature.
        super().__init__(f"cannot ask {bare(address).partition('?')[0]} ({why})")
        self.status = status


class Hosts(HTTPRedirectHandler):
    """The servers of others, each of which gets its own credentials and no other's."""

    http_error_308 = HTTPRedirectHandler.http_error_302

    def __init__(self, addresses: list[str]) -> None:
        self.credentials = credentials(addresses)
        self.plain = {parts.hostname for parts in map(urlsplit, addresses) if parts.scheme == "http"}
        self.opener = build_opener(self)

    def credential(self, address: str) -> str | None:
        """What the host of an address gets to hear: without encryption only where an index is asked so."""
        parts = urlsplit(address)
        may = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in self.plain)
        return self.credentials.get(parts.hostname or "") if may else None

    def request(self, address: str, accept: str) -> Request:
        request = Request(address, headers={"Accept": accept, "User-Agent": "ipybox"})
        if credential := self.credential(address):
            request.add_unredirected_header("Authorization", credential)
        return request

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> Request:
        return self.request(bare(newurl), req.headers["Accept"])

    @contextlib.contextmanager
    def asked(self, address: str, accept: str) -> Iterator[HTTPResponse]:
        """The answer of an address; a failure of the connection is the answer of a gateway."""
        try:
            with self.opener.open(self.request(address, accept), timeout=LIMIT) as answer:
                yield answer
        except HTTPError as error:
            status = error.code if error.code >= 400 else 502
            raise Unanswered(status, error.filename, f"{error.code} {responses.get(error.code, 'unknown')}") from None
        except (HTTPException, OSError, ValueError) as error:
            # Texts of others than the system may hold parts of an address.
            why = getattr(error, "reason", error) if isinstance(error, OSError) else type(error).__name__
            raise Unanswered(502, address, f"Connection failed: {why}") from None


class Links(HTMLParser):
    """The links of a page, and what they are relative to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.base = ""
        self.found: list[dict[str, str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        if tag == "a" and attributes.get("href"):
            self.found.append(attributes)
        elif tag == "base":
            self.base = self.base or attributes.get("href", "")


class Index(ThreadingHTTPServer):
    """The index of a build, and the files behind credentials that its pages have named."""

    def __init__(self, order: Order) -> None:
        asked = order["asked"] + ([os.environ.get("PIP_INDEX_URL") or PyPI.simple_url] if order["own"] else [])
        self.hosts = Hosts([*asked, *order["alone"].values()])
        self.asked = [bare(address) for address in asked]
        self.alone = {name: [bare(address)] for name, address in order["alone"].items()}
        self.files: dict[str, str] = {}
        super().__init__(("127.0.0.1", 0), Handler)

    def link(self, base: str, link: str) -> str:
        """A link that leads to the same from here, through here where credentials are asked for."""
        try:
            address, mark, fragment = urljoin(base, link).partition("#")
            if not self.hosts.credential(address):
                return address + mark + fragment
            address = bare(address)
        except ValueError:
            return link
        token = hashlib.sha256(address.encode()).hexdigest()
        self.files[token] = address
        return f"/files/{token}/{posixpath.basename(urlsplit(address).path)}{mark}{fragment}"

    def linked(self, address: str, kind: str, content: bytes) -> bytes:
        """A page with such links; what has none stays as it is."""
        try:
            if kind.endswith("json"):
                listed = json.loads(content)
                for file in listed["files"]:
                    file["url"] = self.link(address, file["url"])
                return json.dumps(listed).encode()
            links = Links(content.decode(errors="surrogateescape"))
        except (AssertionError, LookupError, TypeError, ValueError):
            return content
        lines = ["<!DOCTYPE html>"] if links.found else []
        for link in links.found:
            link["href"] = self.link(urljoin(address, links.base), link["href"])
            lines.append("<a " + " ".join(f'{name}="{html.escape(value)}"' for name, value in link.items()) + "></a>")
        return "\n".join(lines).encode(errors="surrogateescape") or content

    def page(self, name: str) -> tuple[str, bytes] | None:
        """What the first index that has a distribution says of it, and of which type that is."""
        for index in self.alone.get(name, self.asked):
            try:
                with self.hosts.asked(f"{index.rstrip('/')}/{name}/", ACCEPT) as answer:
                    page = self.linked(answer.url, answer.headers.get_content_type(), answer.read())
                    return answer.headers.get("Content-Type", "text/html"), page
            except Unanswered as error:
                if error.status not in (404, 410):
                    raise
        return None

    def file(self, token: str, name: str) -> str | None:
        """The address of a file that a page named, or of its metadata."""
        parts = urlsplit(self.files.get(token, ""))
        for path in (parts.path, f"{parts.path}.metadata"):
            if parts.netloc and unquote(posixpath.basename(path)) == unquote(name):
                return parts._replace(path=path).geturl()
        return None


class Handler(BaseHTTPRequestHandler):
    server: Index

    def do_GET(self) -> None:
        page = re.fullmatch("/simple/([A-Za-z0-9._-]+)/?", self.path)
        file = re.fullmatch("/files/([0-9a-f]+)/([^/?]+)", self.path)
        try:
            if page and (found := self.server.page(re.sub("[-_.]+", "-", page[1]).lower())):
                self.answer(200, *found)
            elif file and (address := self.server.file(file[1], file[2])):
                self.pass_on(address)
            else:
                self.answer(404, "text/plain", b"there is no such thing\n")
        except Unanswered as error:
            sys.stderr.write(f"{error}\n")
            self.answer(error.status, "text/plain", f"{error}\n".encode())

    def answer(self, status: int, kind: str, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def pass_on(self, address: str) -> None:
        """Answer with a file as it comes; who asked sees by its length where it is cut."""
        with self.server.hosts.asked(address, "*/*") as answer, contextlib.suppress(HTTPException, OSError):
            self.send_response(200)
            for name in ("Content-Type", "Content-Length"):
                if value := answer.headers.get(name):
                    self.send_header(name, value)
            self.end_headers()
            shutil.copyfileobj(answer, self.wfile)

    def log_message(self, *_arguments: object) -> None:
        pass


def main(described: str) -> None:
    index = Index(json.loads(Path(described).read_text()))
    threading.Thread(target=index.serve_forever, daemon=True).start()
    print(index.server_port, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
