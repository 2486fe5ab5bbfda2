"""A package index whose answers are wrong in one way.

    python serve.py [--login VARIABLE] [--tls FOLDER] [--newer VERSION] [--log FILE] [--elsewhere ADDRESS]

Prints its port, and serves until its standard input ends. `/FAULT/simple/` is an index with the distributions `ours`
(1.0, and 2.0 which the fault is about), `needs-ours`, `built`, which is a source, and `curious`, which looks for logins; `/none/simple/` has no fault. With
`--login` it asks who wants to know, and a variable has what it wants to hear; with `--tls` it has the certificate of a folder; with `--newer` there is a further
version of `ours`, and `built` is a wheel of it. Requests are logged with the credentials that came along. `elsewhere` is
the fault that files are at another address.
"""

import argparse
import base64
import hashlib
import http.server
import io
import os
import ssl
import sys
import tarfile
import threading
import zipfile
from collections.abc import Callable

Answer = tuple[int, str, bytes]


def wheel(name: str, version: str, *requires: str) -> bytes:
    """A wheel with nothing but a module that knows its version."""
    archive = io.BytesIO()
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    metadata += "".join(f"Requires-Dist: {requirement}\n" for requirement in requires)
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr(zipfile.ZipInfo(f"{name}.py"), f"version = {version!r}\n")
        file.writestr(zipfile.ZipInfo(f"{info}/METADATA"), metadata)
        tags = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        file.writestr(zipfile.ZipInfo(f"{info}/WHEEL"), tags)
        file.writestr(zipfile.ZipInfo(f"{info}/RECORD"), "")
    return archive.getvalue()


def curious() -> bytes:
    """A wheel whose code runs in each start of its interpreter, and keeps the logins that it can read."""
    look = "import os, shutil; [shutil.copy(path, '/opt/taken') for path in ('/dev/ipybox/.netrc',) if os.path.exists(path)]"
    archive = io.BytesIO()
    info = "curious-1.0.dist-info"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr(zipfile.ZipInfo("curious.pth"), look + "\n")
        file.writestr(zipfile.ZipInfo(f"{info}/METADATA"), "Metadata-Version: 2.1\nName: curious\nVersion: 1.0\n")
        tags = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        file.writestr(zipfile.ZipInfo(f"{info}/WHEEL"), tags)
        file.writestr(zipfile.ZipInfo(f"{info}/RECORD"), "")
    return archive.getvalue()


def source(name: str, version: str) -> bytes:
    """A source that setuptools builds."""
    archive = io.BytesIO()
    project = f'[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
    project += f'[project]\nname = "{name}"\nversion = "{version}"\n[tool.setuptools]\npy-modules = ["{name}"]\n'
    # What runs while it is built looks for what it must not see.
    setup = "import setuptools, subprocess\n"
    setup += "assert subprocess.run(['cat', '/dev/ipybox/.netrc'], capture_output=True).returncode != 0\nsetuptools.setup()\n"
    files = {"pyproject.toml": project, "setup.py": setup, f"{name}.py": f"version = {version!r}\n"}
    files["PKG-INFO"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    with tarfile.open(fileobj=archive, mode="w:gz") as file:
        for path, text in files.items():
            entry = tarfile.TarInfo(f"{name}-{version}/{path}")
            entry.size = len(text)
            file.addfile(entry, io.BytesIO(text.encode()))
    return archive.getvalue()


FILES = {
    "ours-1.0-py3-none-any.whl": wheel("ours", "1.0"),
    "ours-2.0-py3-none-any.whl": wheel("ours", "2.0"),
    "needs_ours-1.0-py3-none-any.whl": wheel("needs_ours", "1.0", "ours<2"),
    "built-1.0.tar.gz": source("built", "1.0"),
    "curious-1.0-py3-none-any.whl": curious(),
}
NEWEST = "ours-2.0-py3-none-any.whl"


def page(name: str, fault: str) -> bytes:
    """The page of a distribution: links with hashes (PEP 503)."""
    links = []
    for file, content in FILES.items():
        if file.split("-")[0].replace("_", "-") == name:
            digest = hashlib.sha256(b"another" if fault == "hash" and file == NEWEST else content).hexdigest()
            links.append(f'<a href="/{fault}/files/{file}#sha256={digest}">{file}</a>')
    return "\n".join(links).encode()


def status(code: int) -> Callable[[str, bytes], Answer]:
    return lambda _kind, _content: (code, "text/plain", b"refused\n")


# What becomes of an answer: `kind` is `page` or `file`; only the newest file is spoilt.
FAULTS: dict[str, Callable[[str, bytes], Answer]] = {
    "none": lambda _kind, content: (200, "", content),
    "hash": lambda _kind, content: (200, "", content),
    "cut": lambda _kind, content: (200, "cut", content),
    "html": lambda kind, content: (200, "", content if kind == "page" else b"<html>log in</html>\n"),
    "login": lambda _kind, _content: (200, "", b"<html><body>log in first</body></html>\n"),
    "empty": lambda _kind, _content: (200, "", b""),
    **{f"file-{code}": lambda kind, content, code=code: status(code)(kind, content) for code in (401, 403, 404, 429, 500, 503)},
    **{f"page-{code}": lambda kind, content, code=code: status(code)(kind, content) for code in (401, 403, 404, 429, 500, 503)},
}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    options: argparse.Namespace

    def do_GET(self) -> None:
        given = self.headers.get("Authorization", "-")
        if self.options.log:
            with open(self.options.log, "a") as log:
                log.write(f"{self.path} {given}\n")
        login = os.environ[self.options.login] if self.options.login else ""
        if login and given != "Basic " + base64.b64encode(login.encode()).decode():
            return self.answer(401, b"who are you?\n", {"WWW-Authenticate": "Basic"})
        parts = self.path.split("?")[0].strip("/").split("/")
        fault, kind, name = (*parts, "", "", "")[:3]
        if kind == "files" and fault == "elsewhere":
            return self.answer(302, b"", {"Location": f"{self.options.elsewhere}/none/files/{name}"})
        if kind == "files" and name in FILES:
            of_file, content = True, FILES[name]
        elif kind == "simple" and (content := page(name, fault)):
            of_file = False
        else:
            return self.answer(404, b"there is no such thing\n")
        if fault == "elsewhere":
            fault = "none"
        spoils_page = fault.startswith("page-") or fault == "login"
        if fault not in FAULTS or (of_file and (name != NEWEST or spoils_page)) or (not of_file and not spoils_page):
            return self.answer(200, content)
        code, how, content = FAULTS[fault]("file" if of_file else "page", content)
        self.answer(code, content, cut=how == "cut")

    do_HEAD = do_GET

    def answer(self, code: int, content: bytes, headers: dict[str, str] = {}, cut: bool = False) -> None:
        self.send_response(code)
        for header in headers.items():
            self.send_header(*header)
        self.send_header("Content-Type", "text/html" if self.path.endswith("/") else "application/octet-stream")
        self.send_header("Content-Length", str(len(content)))
        if cut:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content[: len(content) // 2] if cut else content)
        self.close_connection = cut

    def log_message(self, *_arguments: object) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser()
    for option in ("login", "tls", "newer", "log", "elsewhere"):
        parser.add_argument(f"--{option}")
    Handler.options = options = parser.parse_args()
    if options.newer:
        FILES[f"ours-{options.newer}-py3-none-any.whl"] = wheel("ours", options.newer)
        FILES[f"built-{options.newer}-py3-none-any.whl"] = wheel("built", options.newer)
    server = http.server.ThreadingHTTPServer(("0.0.0.0", 0), Handler)
    server.daemon_threads = True
    if options.tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(f"{options.tls}/server.pem", f"{options.tls}/server.key")
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_port, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
