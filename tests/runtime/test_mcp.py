"""Tools of MCP servers as Python functions. Runs inside an image, as its user."""

import ast
import json
import os
import subprocess
import tempfile
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

SERVER_PYTHON = os.environ.get("IPYBOX_SERVER_PYTHON", "/opt/ipybox/server/bin/python")
PYTHON = os.environ.get("IPYBOX_VENV_PYTHON", "/opt/venv/bin/python")

SERVER = '''
try:
    from mcp.server.fastmcp import FastMCP, Image
except ImportError:  # mcp 2
    from mcp.server.mcpserver import MCPServer as FastMCP, Image
import sys
import time

server = FastMCP("test")


@server.tool(name="say-it")
def say(text: str, times: int = 1) -> str:
    """Say it."""
    return " ".join([text] * times)


@server.tool()
def fail() -> str:
    raise RuntimeError("the real text")


@server.tool()
def several() -> list[str]:
    return ["one", "two"]


@server.tool()
def picture() -> Image:
    return Image(data=b"x", format="png")


@server.tool()
def wait(seconds: float) -> str:
    time.sleep(seconds)
    return "done"


if __name__ == "__main__":
    port = sys.argv[1:]
    if port:
        import uvicorn

        app = server.sse_app() if port[1] == "sse" else server.streamable_http_app()
        uvicorn.run(app, host="127.0.0.1", port=int(port[0]), log_level="error")
    else:
        server.run()
'''


@pytest.fixture(scope="module")
def params(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("server") / "server.py"
    path.write_text(SERVER)
    return {"command": PYTHON, "args": [str(path)]}


def short_lived(python: str, module: str, request: Any) -> dict[str, Any]:
    with tempfile.TemporaryFile() as file:
        command = [python, "-I", "-m", module, str(file.fileno())]
        subprocess.run(
            command, input=json.dumps(request), text=True, pass_fds=[file.fileno()], timeout=50, check=True
        )
        file.seek(0)
        return json.load(file)


def call(name: str, arguments: dict[str, Any], params: dict[str, Any], within_loop: bool = False) -> str:
    """Call a tool in a process of the kernels' environment: its text, or the error's type and text."""
    code = f"""
        import asyncio
        from ipybox.mcp.run import run_sync

        async def main():
            return run_sync({name!r}, {arguments!r}, {params!r})

        try:
            print(asyncio.run(main()) if {within_loop} else run_sync({name!r}, {arguments!r}, {params!r}))
        except Exception as error:
            print(type(error).__name__, error, sep=": ")
        """
    command = [PYTHON, "-c", textwrap.dedent(code)]
    return subprocess.run(command, text=True, stdout=subprocess.PIPE, timeout=50, check=True).stdout.strip()


@pytest.mark.parametrize("within_loop", [False, True])
def test_a_tool_is_called(params: dict[str, Any], within_loop: bool) -> None:
    assert call("say-it", {"text": "hi", "times": 2}, params, within_loop) == "hi hi"


@pytest.mark.parametrize("within_loop", [False, True])
def test_the_error_is_that_of_the_tool(params: dict[str, Any], within_loop: bool) -> None:
    text = call("fail", {}, params, within_loop)
    assert text.startswith("ToolError: ") and "Group" not in text
    # mcp 2 keeps the text of unexpected errors from its clients.
    assert "the real text" in text or "fail" in text


def test_other_errors(params: dict[str, Any], tmp_path: Path) -> None:
    assert "no_such" in call("no_such", {}, params)
    assert "no-such-program" in call("x", {}, {"command": "no-such-program", "args": []})
    assert '"command"' in call("x", {}, {})
    assert "'carrier_pigeon'" in call("x", {}, {"url": "http://127.0.0.1:1/", "type": "carrier_pigeon"})
    for kind in ["sse", "streamable_http"]:
        text = call("x", {}, {"url": "http://127.0.0.1:1/", "type": kind})
        assert text.startswith("ToolError: ") and "Group" not in text
    broken = tmp_path / "broken.py"
    broken.write_text("raise SystemExit('this server needs a key')")
    assert "this server needs a key" in call("x", {}, {"command": PYTHON, "args": [str(broken)]})


def test_results_of_several_parts(params: dict[str, Any]) -> None:
    assert call("several", {}, params) == "one\ntwo"
    assert json.loads(call("picture", {}, params)) == {
        "type": "image",
        "data": "eA==",
        "mimeType": "image/png",
    }


@pytest.mark.parametrize("kind", ["sse", "streamable_http"])
@pytest.mark.parametrize("named", [True, False])
def test_servers_with_an_address(params: dict[str, Any], kind: str, named: bool, free_port: int) -> None:
    server = subprocess.Popen([PYTHON, *params["args"], str(free_port), kind])
    try:
        url = f"http://127.0.0.1:{free_port}/{'sse' if kind == 'sse' else 'mcp'}"
        address = {"url": url, "headers": {"X-Key": "1"}, **({"type": kind} if named else {})}
        for _ in range(20):
            answer = short_lived(PYTHON, "ipybox.mcp.tools", address)
            if "tools" in answer:
                break
            time.sleep(0.5)
        assert answer["tools"][0]["name"] == "say-it"
        assert call("say-it", {"text": "hi"}, address) == "hi"
    finally:
        server.kill()
        server.wait()


@pytest.fixture
def free_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_an_interrupt_ends_a_call(params: dict[str, Any]) -> None:
    code = f"""
        import signal, time
        from ipybox.mcp.run import run_sync

        signal.signal(signal.SIGALRM, signal.default_int_handler)
        signal.setitimer(signal.ITIMER_REAL, 3)
        try:
            run_sync("wait", {{"seconds": 40}}, {params!r})
        except KeyboardInterrupt:
            print("interrupted")
        """
    began = time.monotonic()
    command = [PYTHON, "-c", textwrap.dedent(code)]
    result = subprocess.run(command, text=True, stdout=subprocess.PIPE, timeout=30)
    assert result.stdout == "interrupted\n"
    assert time.monotonic() - began < 15


def test_tools_are_listed(params: dict[str, Any]) -> None:
    tools = short_lived(PYTHON, "ipybox.mcp.tools", params)["tools"]
    assert [tool["name"] for tool in tools] == ["say-it", "fail", "several", "picture", "wait"]
    assert tools[0]["description"] == "Say it."
    assert set(tools[0]["inputSchema"]["properties"]) == {"text", "times"}


def test_an_error_while_listing(tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("import no_such_module")
    answer = short_lived(PYTHON, "ipybox.mcp.tools", {"command": PYTHON, "args": [str(broken)]})
    assert "No module named 'no_such_module'" in answer["error"]


def generate(tools: list[dict[str, Any]], **server_params: Any) -> dict[str, str]:
    tools = [{"description": "", "inputSchema": {}, **tool} for tool in tools]
    request = {"server_params": server_params, "tools": tools}
    return short_lived(SERVER_PYTHON, "ipybox.mcp.generate", request)["sources"]


def instantiate(source: str, tmp_path: Path, arguments: dict[str, Any]) -> list[Any]:
    """What `run_sync` would get from a generated function, in the kernels' environment."""
    package = tmp_path / "generated"
    package.mkdir(exist_ok=True)
    (package / "__init__.py").write_text("SERVER_PARAMS = {}")
    (package / "tool.py").write_text(source, encoding="utf-8")
    code = f"""
        import inspect, json
        import ipybox.mcp.run
        ipybox.mcp.run.run_sync = lambda *arguments: arguments
        from generated import tool
        function = next(
            f for _, f in inspect.getmembers(tool, inspect.isfunction) if f.__module__ == tool.__name__
        )
        print(json.dumps([*function(tool.Params(**{arguments!r})), function.__doc__]))
        """
    command = [PYTHON, "-c", textwrap.dedent(code)]
    return json.loads(subprocess.check_output(command, cwd=tmp_path, text=True, timeout=50))


def test_generated_sources() -> None:
    schema = {
        "type": "object",
        "properties": {
            "s": {"type": "string", "description": "A text: é😀."},
            "n": {"type": "number"},
            "e": {"enum": ["ü", "😀", "\x7f"]},
            "b": {"type": "boolean", "title": "B"},
        },
        "required": ["s", "n"],
    }
    tool = {"name": "Tool-1", "description": "Does it.\n\n  Well.", "inputSchema": schema}
    sources = generate([tool, {"name": "b"}, {"name": "a"}], command="python", args=["x.py"])
    assert list(sources) == ["__init__", "tool_1", "b", "a"]
    assert sources["__init__"] == "SERVER_PARAMS = {'command': 'python', 'args': ['x.py']}\n"
    for text in [
        "class Params(BaseModel):",
        "    s: str\n",
        "    n: float\n",
        "    b: Optional[bool] = None\n",
        "A text: é😀.",
        '    e: Optional[Literal["ü", "😀", "\\x7f"]] = None\n',
        "from . import SERVER_PARAMS",
        "def tool_1(params: Params) -> str:",
        "Does it.\n\n",
        'run_sync("Tool-1", ',
    ]:
        assert text in sources["tool_1"]


def test_names_of_tools() -> None:
    names = ["a-b", "a_b", "A.b", "class", "None", "2x", "", "größe", "run_sync", "__init__", "__debug__",
             "../../x", 'x"\n;import os', "y" * 300]  # fmt: skip
    sources = generate([{"name": name} for name in names])
    assert list(sources)[1:] == [
        "a_b", "a_b_2", "a_b_3", "class_", "none", "_2x", "_", "gr__e", "run_sync_", "__init___",
        "__debug___", "______x", "x___import_os", "y" * 100,
    ]  # fmt: skip
    for name, (stem, source) in zip(names, list(sources.items())[1:], strict=True):
        function = ast.parse(source).body[-1]
        assert isinstance(function, ast.FunctionDef) and function.name == stem
        call = function.body[-1].value
        assert ast.literal_eval(call.args[0]) == name


HOSTILE = [
    'quote " and """ end',
    'x"""\nimport os\nos.abort()\n"""',
    "x\\",
    'x\\"""\nimport os; os.abort()\n"""',
    '"""',
    '""""',
    "{tool} {function} %s {{}}",
    "line\rimport os; os.abort()\x00\x0c",
    "\ud800 \U0001f600 \u2028",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_what_a_server_says_does_not_become_code(text: str, tmp_path: Path) -> None:
    schema = {
        "title": text,
        "description": text,
        "type": "object",
        "properties": {
            "a": {"type": "string", "title": text, "description": text, "default": text, "$comment": text},
            "b": {"enum": [text, "b"], "description": text},
            "c": {"$ref": "#/$defs/C", "customTypePath": "os.abort"},
            "d": {"type": "string", "pattern": text, "format": text},
            "e": {"$ref": "file:///etc/passwd"},
        },
        "$defs": {"C": {"type": "object", "description": text, "properties": {"x": {"const": text}}}},
    }
    tool = {"name": text, "description": text, "inputSchema": schema}
    source = list(generate([tool], command=text).values())[1]
    imports = {node.module for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)}
    assert imports <= {"__future__", "typing", "pydantic", "ipybox.mcp.run", None}
    assert not any(isinstance(node, ast.Import) for node in ast.walk(ast.parse(source)))
    name, arguments, _, documentation = instantiate(source, tmp_path, {"b": "b"})
    assert (name, arguments["b"]) == (text, "b")
    if "\r" not in text:
        assert documentation.split() == text.replace("\ud800", "?").split()


def test_server_parameters_are_data() -> None:
    server_params = {"command": "x", "env": {"K": '\'"""\\\n'}, "args": HOSTILE}
    module = ast.parse(generate([], **server_params)["__init__"])
    assert ast.literal_eval(module.body[0].value) == server_params


@pytest.mark.parametrize(
    ("schema", "arguments"),
    [
        ({}, {}),
        ({"type": "object"}, {}),
        ({"type": "object", "properties": {"class": {"type": "string"}}}, {"class": "x"}),
        ({"type": "object", "properties": {"a-b": {"type": "string"}}}, {"a-b": "x"}),
        ({"type": "object", "properties": {"_a": {"type": "string"}}}, {"_a": "x"}),
        ({"type": "object", "properties": {"": {"type": "string"}}}, {"": "x"}),
        ({"type": "object", "properties": {"model_config": {"type": "object"}}}, {"model_config": {"x": 1}}),
        ({"type": "object", "properties": {"schema": {"type": "string"}}}, {"schema": "x"}),
        ({"type": "object", "properties": {"p": {"type": "string", "pattern": "^(?!x)"}}}, {"p": "y"}),
        ({"type": "object", "properties": {"p": {"type": "string", "pattern": "("}}}, {"p": "y"}),
        ({"type": "object", "properties": {"u": {"type": "string", "format": "uri"}}}, {"u": "http://x"}),
        ({"type": "object", "properties": {"e": {"type": "string", "format": "email"}}}, {"e": "a@b"}),
        ({"type": "object", "properties": {"t": {"type": "string", "format": "date-time"}}}, {"t": "2020"}),
        ({"type": "object", "properties": {"x": {"enum": ["a", 1, None]}}}, {"x": 1}),
        ({"type": "object", "properties": {"x": 5}}, {"x": 1}),
        ({"type": "no such type", "properties": []}, {}),
        ({"type": "object", "properties": {"x": {"type": "no such type"}}}, {"x": 1}),
        ({"anyOf": [{"type": "object", "properties": {"a": {"type": "string"}}}]}, {"a": "x"}),
        ({"$ref": "#/$defs/T", "$defs": {"T": {"properties": {"a": {"type": "string"}}}}}, {"a": "x"}),
        (
            {
                "type": "object",
                "properties": {"params": {"$ref": "#/$defs/Params"}, "n": {"$ref": "#/$defs/N"}},
                "$defs": {
                    "Params": {"type": "object", "properties": {"q": {"type": "string"}}},
                    "N": {"type": "object", "properties": {"n": {"$ref": "#/$defs/N"}}},
                },
            },
            {"params": {"q": "x"}, "n": {"n": {}}},
        ),
    ],
)
def test_schemas(schema: dict[str, Any], arguments: dict[str, Any], tmp_path: Path) -> None:
    source = generate([{"name": "tool", "inputSchema": schema}])["tool"]
    assert instantiate(source, tmp_path, arguments)[1] == arguments


def test_a_deep_schema_is_survived() -> None:
    schema: dict[str, Any] = {}
    for _ in range(400):
        schema = {"type": "object", "properties": {"x": schema}}
    assert "class Params(" in generate([{"name": "tool", "inputSchema": schema}])["tool"]
