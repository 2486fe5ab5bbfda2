"""The resource server. Runs inside an image, as its user."""

import gzip
import hashlib
import io
import os
import signal
import socket
import stat
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

LIB = Path(os.environ.get("IPYBOX_LIB", "/opt/ipybox/lib"))
SERVER_PYTHON = os.environ.get("IPYBOX_SERVER_PYTHON", "/opt/ipybox/server/bin/python")
PYTHON = os.environ.get("IPYBOX_VENV_PYTHON", "/opt/venv/bin/python")

MCP_SERVER = """
try:
    from mcp.server.fastmcp import FastMCP
except ImportError:  # mcp 2
    from mcp.server.mcpserver import MCPServer as FastMCP
server = FastMCP("test")
server.add_tool(lambda s: s, name="tool-1", description="First.")
server.add_tool(lambda s: s, name="tool_2", description="Second.")
server.run()
"""


@contextmanager
def serving(root: Path, **env: str) -> Iterator[tuple[httpx.Client, subprocess.Popen[bytes]]]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    limits = ["--module-limit", "4", "--mcp-limit", "20"]
    process = subprocess.Popen(
        [SERVER_PYTHON, "-I", "-m", "ipybox.resource.server", "--host", "127.0.0.1", "--port", str(port)]
        + ["--root", str(root), "--python", PYTHON, *limits],
        env={**os.environ, **env},
        cwd=root,
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            for _ in range(100):
                try:
                    client.get("/status")
                    break
                except httpx.TransportError:
                    time.sleep(0.1)
            yield client, process
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[httpx.Client, Path, int]]:
    root = tmp_path_factory.mktemp("root") / "app"
    (root / "shared").mkdir(parents=True)
    with serving(root, PYTHONPATH=f".:{root}/shared") as (client, process):
        yield client, root, process.pid


@pytest.fixture
def client(server: tuple[httpx.Client, Path, int]) -> httpx.Client:
    return server[0]


@pytest.fixture
def root(server: tuple[httpx.Client, Path, int]) -> Path:
    return server[1]


@pytest.fixture
def outside(root: Path) -> Iterator[Path]:
    """A folder beside the root with a secret, which no test may change."""
    folder = root.parent / "outside"
    folder.mkdir(exist_ok=True)
    (folder / "secret").write_text("secret")
    yield folder
    assert [file.name for file in folder.iterdir()] == ["secret"]
    assert (folder / "secret").read_text() == "secret"


def status_of(client: httpx.Client, method: str, path: str, **options: object) -> int:
    """The status of a request whose path is sent as it is."""
    with socket.create_connection(
        (client.base_url.host, client.base_url.port or 80), timeout=20
    ) as connection:
        body = options.get("content", b"")
        assert isinstance(body, bytes)
        lines = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n"
        connection.sendall(lines.encode() + b"Content-Type: application/json\r\n\r\n" + body)
        return int(connection.makefile("rb").readline().split()[1])


def archive(fill: Callable[[tarfile.TarFile], None]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        fill(tar)
    return buffer.getvalue()


def add(tar: tarfile.TarFile, name: str, content: bytes = b"x", mode: int = 0o644, **fields: object) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), mode
    for key, value in fields.items():
        setattr(member, key, value)
    tar.addfile(member, io.BytesIO(content))


def link(tar: tarfile.TarFile, name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> None:
    add(tar, name, b"", type=kind, linkname=target)


def memory(process: int) -> int:
    """The most memory that a process has used so far, in MB."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) // 1024
    raise AssertionError("no VmHWM")


@pytest.mark.parametrize("path", ["/status", "/status/"])
def test_status(client: httpx.Client, path: str) -> None:
    answer = client.get(path)
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


# Modules


def test_module_sources(client: httpx.Client, root: Path) -> None:
    (root / "mine.py").write_text("print('loud')\nx = 'ä'\n")
    (root / "shared/ours").mkdir(exist_ok=True)
    (root / "shared/ours/__init__.py").write_text("")
    answer = client.get("/modules", params={"q": ["mine", "ours", "sys"]})
    assert answer.json() == {"mine": "print('loud')\nx = 'ä'\n", "ours": "", "sys": ""}
    (root / "mine.py").write_text("x = 2\n")
    assert client.get("/modules", params={"q": "mine"}).json() == {"mine": "x = 2\n"}


@pytest.mark.parametrize("name", ["no_such", "a/b", "", ".x", "-c", "x;y", "x\0", "ipybox.no_such"])
def test_a_module_that_is_not_there(client: httpx.Client, name: str) -> None:
    assert client.get("/modules", params={"q": ["os", name]}).status_code == 404


@pytest.mark.parametrize(
    "code",
    ["raise SystemExit(0)", "1 / 0", "import os; os._exit(0)", "import os; os.kill(os.getpid(), 11)"],
)
def test_a_module_that_ends_its_process(client: httpx.Client, root: Path, code: str) -> None:
    (root / "ends.py").write_text(code)
    assert client.get("/modules", params={"q": "ends"}).status_code == 404
    assert client.get("/status").status_code == 200


def test_a_module_that_hangs(client: httpx.Client, root: Path) -> None:
    (root / "hangs.py").write_text(
        "import os, signal, subprocess, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_DFL)\n"
        "child = subprocess.Popen(['sleep', '600'])\n"
        "open('hangs.pids', 'w').write(f'{os.getpid()} {child.pid}')\n"
        "time.sleep(600)\n"
    )
    statuses = []
    request = threading.Thread(
        target=lambda: statuses.append(client.get("/modules", params={"q": "hangs"}).status_code)
    )
    request.start()
    for _ in range(10):
        began = time.monotonic()
        assert httpx.get(client.base_url.join("/status")).status_code == 200
        assert time.monotonic() - began < 1
    request.join()
    assert statuses == [504]
    for process in (root / "hangs.pids").read_text().split():
        assert not running(process)


def running(process: str) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


# MCP


def test_mcp_sources(client: httpx.Client, root: Path) -> None:
    (root / "server.py").write_text(MCP_SERVER)
    parameters = {"command": PYTHON, "args": [str(root / "server.py")]}
    for _ in range(2):  # a second time replaces the first
        answer = client.put("/mcp/deep/gen/MyServer", json=parameters)
        assert (answer.status_code, answer.json()) == (200, ["tool_1", "tool_2"])
        (root / "deep/gen/MyServer/old.py").write_text("")
        (root / "deep/gen/MyServer/__pycache__").mkdir()
    (root / "deep/gen/MyServer/old.py").unlink()
    assert sorted(file.name for file in (root / "deep/gen").iterdir()) == ["MyServer"]
    sources = client.get("/mcp/deep/gen", params={"server_name": "MyServer"}).json()
    assert sorted(sources) == ["tool_1", "tool_2"]
    assert "def tool_1(params: Params) -> str:" in sources["tool_1"]
    modules = client.get("/modules", params={"q": "deep.gen.MyServer.tool_1"})
    assert modules.json() == {"deep.gen.MyServer.tool_1": sources["tool_1"]}
    init = (root / "deep/gen/MyServer/__init__.py").read_text()
    assert init == f"SERVER_PARAMS = {parameters!r}\n"


def test_no_mcp_sources(client: httpx.Client, root: Path) -> None:
    assert client.get("/mcp/gen", params={"server_name": "none"}).status_code == 404
    (root / "gen/empty").mkdir(parents=True)
    (root / "gen/empty/__init__.py").write_text("# empty")
    answer = client.get("/mcp/gen", params={"server_name": "empty"})
    assert (answer.status_code, answer.json()) == (200, {})


def test_an_mcp_server_that_does_not_work(client: httpx.Client, root: Path) -> None:
    (root / "broken.py").write_text("raise SystemExit('this server needs a key')")
    answer = client.put("/mcp/gen/broken", json={"command": PYTHON, "args": ["broken.py"]})
    assert answer.status_code == 502
    assert "this server needs a key" in answer.json()["detail"]
    assert client.put("/mcp/gen/broken", json={}).status_code == 502
    assert client.put("/mcp/gen/broken", json=[]).status_code == 422
    assert not (root / "gen/broken").exists()


def test_an_mcp_server_that_hangs(client: httpx.Client, root: Path) -> None:
    code = "import os, time; open('mcp.pid', 'w').write(str(os.getpid())); time.sleep(600)"
    (root / "hanging.py").write_text(code)
    answer = client.put("/mcp/gen/hanging", json={"command": PYTHON, "args": [str(root / "hanging.py")]})
    assert answer.status_code == 504
    assert not running((root / "mcp.pid").read_text())


def test_generated_code_replaces_nothing_else(client: httpx.Client, root: Path) -> None:
    (root / "work").mkdir()
    (root / "work/data").write_text("data")
    for path in ["work", "work/data"]:
        assert client.put(f"/mcp/{path}", json={"command": PYTHON, "args": []}).status_code == 409
    assert status_of(client, "PUT", "/mcp/", content=b"{}") == 400
    assert (root / "work/data").read_text() == "data"


# Paths


OUTSIDE = [
    "../outside/secret",
    "%2e%2e/outside/secret",
    "..%2foutside%2fsecret",
    "a/../../outside/secret",
    "/etc/passwd",
    "%2fetc%2fpasswd",
    "folder-link/secret",
    "link",
    "x%00y",
]


@pytest.mark.parametrize("path", OUTSIDE)
@pytest.mark.parametrize(
    ("method", "kind"),
    [("GET", "files"), ("POST", "files"), ("DELETE", "files"), ("GET", "directories"),
     ("POST", "directories"), ("PUT", "mcp"), ("GET", "mcp")],
)  # fmt: skip
def test_paths_stay_inside(
    client: httpx.Client, root: Path, outside: Path, method: str, kind: str, path: str
) -> None:
    for name, target in [("folder-link", "../outside"), ("link", "../outside/secret")]:
        if not (root / name).is_symlink():
            (root / name).symlink_to(target)
    query = "?server_name=x" if (method, kind) == ("GET", "mcp") else ""
    content = archive(lambda tar: add(tar, "x")) if kind == "directories" else b"{}"
    assert status_of(client, method, f"/{kind}/{path}{query}", content=content) == 400


def test_server_names_stay_inside(client: httpx.Client, outside: Path) -> None:
    assert client.get("/mcp/x", params={"server_name": "../../outside"}).status_code == 400


# Files


def test_a_file_there_and_back(client: httpx.Client, root: Path) -> None:
    content = bytes(range(256))
    assert client.post("/files/new/folder/ä b.bin", content=content).status_code == 200
    assert (root / "new/folder/ä b.bin").read_bytes() == content
    answer = client.get("/files/new/folder/ä b.bin")
    assert answer.content == content
    assert answer.headers["content-type"] == "application/octet-stream"
    assert "attachment" in answer.headers["content-disposition"]
    assert "%C3%A4%20b.bin" in answer.headers["content-disposition"]
    assert client.delete("/files/new/folder/ä b.bin").status_code == 200
    assert client.delete("/files/new/folder/ä b.bin").status_code == 404
    assert client.get("/files/new/folder/ä b.bin").status_code == 404


def test_types_of_files(client: httpx.Client) -> None:
    for name, kind in [("a.json", "application/json"), ("a.png", "image/png"), ("a.csv", "text/csv")]:
        client.post(f"/files/{name}", content=b"")
        answer = client.get(f"/files/{name}")
        assert answer.headers["content-type"].split(";")[0] == kind
        assert answer.content == b""


def test_modes_of_uploaded_files(client: httpx.Client, root: Path) -> None:
    mask = os.umask(0o022)
    os.umask(mask)
    client.post("/files/mode", content=b"1")
    assert stat.S_IMODE((root / "mode").stat().st_mode) == 0o666 & ~mask
    (root / "mode").chmod(0o750)
    client.post("/files/mode", content=b"2")
    assert stat.S_IMODE((root / "mode").stat().st_mode) == 0o750


def test_what_is_not_a_file(client: httpx.Client, root: Path) -> None:
    (root / "directory").mkdir()
    client.post("/files/regular", content=b"")
    os.mkfifo(root / "fifo")
    assert client.get("/files/directory").status_code == 404
    assert client.get("/files/fifo").status_code == 404
    assert client.delete("/files/directory").status_code == 404
    assert client.post("/files/directory", content=b"").status_code == 400
    assert client.post("/files/", content=b"").status_code == 400
    assert client.post("/files/regular/below", content=b"").status_code == 400
    assert client.post(f"/files/{'x' * 300}", content=b"").status_code == 400
    assert client.get("/directories/regular").status_code == 404


def test_links_inside_are_followed_but_deleted_themselves(client: httpx.Client, root: Path) -> None:
    client.post("/files/target", content=b"1")
    (root / "inner-link").symlink_to("target")
    assert client.get("/files/inner-link").content == b"1"
    client.post("/files/inner-link", content=b"2")
    assert (root / "target").read_bytes() == b"2" and (root / "inner-link").is_symlink()
    assert client.delete("/files/inner-link").status_code == 200
    assert (root / "target").read_bytes() == b"2" and not (root / "inner-link").is_symlink()


def test_an_upload_that_breaks_off_changes_nothing(client: httpx.Client, root: Path) -> None:
    folder = root / "broken-off"
    folder.mkdir()
    (folder / "file").write_text("old")
    for kind in ["files/broken-off/file", "directories/broken-off"]:
        address = (client.base_url.host, client.base_url.port or 80)
        with socket.create_connection(address) as connection:
            head = f"POST /{kind} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
            connection.sendall(head.encode() + b"x" * 100000)
            time.sleep(0.3)
        time.sleep(0.5)
    assert [file.name for file in folder.iterdir()] == ["file"]
    assert (folder / "file").read_text() == "old"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may do anything")
def test_what_the_user_may_not_do(client: httpx.Client, root: Path) -> None:
    client.post("/files/closed/file", content=b"x")
    (root / "closed/file").chmod(0)
    (root / "closed").chmod(0o555)
    assert client.get("/files/closed/file").status_code == 403
    assert client.post("/files/closed/other", content=b"x").status_code == 403
    assert client.delete("/files/closed/file").status_code == 403
    assert client.post("/directories/closed", content=archive(lambda tar: add(tar, "x"))).status_code == 403
    (root / "closed").chmod(0o755)


# Directories


def extracted(content: bytes, path: Path) -> dict[str, str]:
    """What is in an archive: the text of a file, `/` for a folder, the target of a link."""
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        tar.extractall(path)
        names = {member.name for member in tar}
    result = {}
    for file in path.rglob("*"):
        name = str(file.relative_to(path))
        names.discard(name)
        if file.is_symlink():
            result[name] = f"-> {os.readlink(file)}"
        else:
            result[name] = "/" if file.is_dir() else file.read_text()
    assert not names
    return result


def test_a_directory_there_and_back(client: httpx.Client, root: Path, tmp_path: Path) -> None:
    def fill(tar: tarfile.TarFile) -> None:
        add(tar, "./", b"", type=tarfile.DIRTYPE)
        add(tar, "run", b"#!", mode=0o777)
        add(tar, "empty", b"", type=tarfile.DIRTYPE)
        add(tar, "sub/ä", b"ae")
        add(tar, f"sub/{'long' * 50}", b"long")
        link(tar, "sub/link", "../run")
        link(tar, "dangling", "nowhere")
        link(tar, "folder", "sub")
        link(tar, "hard", "run", tarfile.LNKTYPE)

    assert client.post("/directories/tree/of", content=archive(fill)).status_code == 200
    assert stat.S_IMODE((root / "tree/of/run").stat().st_mode) == 0o755
    (root / "tree/outside").write_text("beside")
    (root / "tree/of/up").symlink_to("../outside")
    (root / "tree/of/absolute").symlink_to(root / "tree/of/run")
    os.mkfifo(root / "tree/of/fifo")
    answer = client.get("/directories/tree/of")
    assert answer.headers["content-type"] == "application/x-gzip"
    assert extracted(answer.content, tmp_path) == {
        "run": "#!",
        "empty": "/",
        "sub": "/",
        "sub/ä": "ae",
        f"sub/{'long' * 50}": "long",
        "sub/link": "-> ../run",
        "dangling": "-> nowhere",
        "folder": "-> sub",
        "hard": "#!",
        "absolute": "-> run",
    }
    assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == 0o755


def test_a_directory_is_merged_into_one_that_exists(client: httpx.Client, root: Path) -> None:
    client.post("/files/merge/old", content=b"old")
    client.post("/files/merge/both", content=b"old")
    client.post("/directories/merge", content=archive(lambda tar: add(tar, "both", b"new")))
    files = {file.name: file.read_text() for file in (root / "merge").iterdir()}
    assert files == {"old": "old", "both": "new"}


def test_no_directory(client: httpx.Client, root: Path, tmp_path: Path) -> None:
    assert client.get("/directories/no-such").status_code == 404
    assert client.post("/directories/nothing-in-it", content=archive(lambda tar: None)).status_code == 200
    assert list((root / "nothing-in-it").iterdir()) == []
    assert extracted(client.get("/directories/nothing-in-it").content, tmp_path) == {}


@pytest.mark.parametrize(
    "fill",
    [
        lambda tar: add(tar, "../x"),
        lambda tar: add(tar, "a/../../x"),
        lambda tar: add(tar, "/etc/x"),
        lambda tar: link(tar, "l", "/etc/passwd"),
        lambda tar: link(tar, "l", "../x"),
        lambda tar: link(tar, "a/l", "../../x"),
        lambda tar: link(tar, "l", "../../outside/secret", tarfile.LNKTYPE),
        lambda tar: link(tar, "l", "/etc/passwd", tarfile.LNKTYPE),
        lambda tar: add(tar, "fifo", b"", type=tarfile.FIFOTYPE),
        lambda tar: add(tar, "device", b"", type=tarfile.CHRTYPE, devmajor=1, devminor=3),
        lambda tar: add(tar, "out/x"),
        lambda tar: add(tar, "out/secret", b"", type=tarfile.DIRTYPE),
    ],
)
def test_members_that_lead_outside(
    client: httpx.Client, root: Path, outside: Path, fill: Callable[[tarfile.TarFile], None]
) -> None:
    folder = root / "members"
    folder.mkdir(exist_ok=True)
    if not (folder / "out").is_symlink():
        (folder / "out").symlink_to("../../outside")

    def with_others(tar: tarfile.TarFile) -> None:
        add(tar, "good")
        fill(tar)

    assert client.post("/directories/members", content=archive(with_others)).status_code == 400
    assert [file.name for file in folder.iterdir()] == ["out"]


def test_links_of_an_archive_do_not_lead_outside(client: httpx.Client, root: Path, outside: Path) -> None:
    def chain(tar: tarfile.TarFile) -> None:
        add(tar, "a/b/c/x")
        link(tar, "deep", "a/b/c")
        link(tar, "up", "deep/../../../..")  # the text stays inside, what it means does not
        add(tar, "up/outside/x")

    assert client.post("/directories/chain", content=archive(chain)).status_code == 400


def test_a_link_in_the_way_is_replaced(client: httpx.Client, root: Path, outside: Path) -> None:
    (root / "in-the-way").mkdir()
    (root / "in-the-way/l").symlink_to("../../outside/secret")
    client.post("/directories/in-the-way", content=archive(lambda tar: add(tar, "l", b"mine")))
    assert (root / "in-the-way/l").read_bytes() == b"mine" and not (root / "in-the-way/l").is_symlink()


def test_damaged_archives(client: httpx.Client, root: Path) -> None:
    good = archive(lambda tar: add(tar, "x", os.urandom(100000)))
    flipped = bytearray(good)
    flipped[-6] ^= 1  # in the checksum
    plain = gzip.decompress(good)
    for content in [
        b"",
        b"x" * 2000,
        good[:-50000],
        good[:-1],
        bytes(flipped),
        plain,
        gzip.compress(plain[:9999]),
    ]:
        assert client.post("/directories/damaged", content=content).status_code == 400
    assert not (root / "damaged").exists()


# Size and end


@pytest.mark.parametrize("kind", ["files", "directories"])
def test_large_content_is_not_held_in_memory(tmp_path: Path, kind: str) -> None:
    size = 200 * 1024 * 1024
    block = os.urandom(1024 * 1024)
    whole = tmp_path / "content"
    with open(whole, "wb") as file:
        if kind == "files":
            for _ in range(200):
                file.write(block)
        else:
            with tarfile.open(fileobj=file, mode="w:gz", compresslevel=1) as tar:
                tar.addfile(sized("large", size), Noise())
    root = tmp_path / "root"
    root.mkdir()
    with serving(root) as (client, process):
        before = memory(process.pid)
        with open(whole, "rb") as file:
            assert (
                client.post(f"/{kind}/target", content=iter(lambda: file.read(1 << 20), b"")).status_code
                == 200
            )
        target = root / ("target" if kind == "files" else "target/large")
        assert target.stat().st_size == size
        digest, received = hashlib.sha256(), 0
        with client.stream("GET", f"/{kind}/target") as answer:
            for chunk in answer.iter_raw():
                received += len(chunk)
                digest.update(chunk)
        assert received >= size
        if kind == "files":
            with open(whole, "rb") as file:
                assert digest.digest() == hashlib.sha256(file.read()).digest()
        assert memory(process.pid) - before < 50


def sized(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size = size
    return member


class Noise(io.RawIOBase):
    def read(self, size: int = -1) -> bytes:
        return os.urandom(size)


def test_a_download_that_breaks_off_leaves_the_server_alone(client: httpx.Client, root: Path) -> None:
    with open(root / "large", "wb") as file:
        file.truncate(100 * 1024 * 1024)
    for path in ["/files/large", "/directories/"]:
        for _ in range(3):
            with client.stream("GET", path) as answer:
                next(answer.iter_raw())
    (root / "large").unlink()
    assert client.get("/status").status_code == 200


@pytest.mark.parametrize("busy", [False, True])
def test_the_end_is_quick(tmp_path: Path, busy: bool) -> None:
    (tmp_path / "hangs.py").write_text("import time; time.sleep(600)")
    with open(tmp_path / "large", "wb") as file:
        file.truncate(1 << 30)
    with serving(tmp_path) as (client, process):
        requests = []
        if busy:
            for path in ["/modules?q=hangs", "/directories/", "/files/large"]:
                connection = socket.create_connection((client.base_url.host, client.base_url.port or 80))
                connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                requests.append(connection)
            time.sleep(0.5)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        process.wait(10)
        assert time.monotonic() - began < 0.6
        for connection in requests:
            connection.close()
