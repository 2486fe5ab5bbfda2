"""The executor server. Runs inside an image, as its user."""

import http.client
import json
import os
import resource
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

SERVER_PYTHON = os.environ.get("IPYBOX_SERVER_PYTHON", "/opt/ipybox/server/bin/python")
LATE = "Execution timed out after 1 seconds"
STUBBORN = """
import time
print("begun", flush=True)
while True:
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        pass
"""


@dataclass
class Server:
    process: subprocess.Popen[str]
    port: int
    root: Path

    def request(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
            connection.request(method, path, content, {"Content-Type": "application/json", **(headers or {})})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def call(self, kind: str, **fields: Any) -> dict[str, Any]:
        status, answer = self.request("POST", f"/execute/{kind}", {"workspace_id": "main", **fields})
        assert status == 200, answer
        assert list(answer) == ["stdout", "stderr", "exit_code", "timed_out"]
        return answer

    def python(self, code: str, **fields: Any) -> dict[str, Any]:
        return self.call("python", code=code, **fields)

    def bash(self, command: str, **fields: Any) -> dict[str, Any]:
        return self.call("bash", command=command, **fields)

    def status(self, kind: str = "python", **fields: Any) -> int:
        body = {"workspace_id": "main", "code": "1", "command": ":", **fields}
        status, answer = self.request("POST", f"/execute/{kind}", body)
        assert status == 200 or "detail" in answer
        return status

    def shut_down(self, workspace: str) -> str:
        status, answer = self.request("POST", f"/kernel/shutdown?workspace_id={workspace}")
        assert status == 200 and answer["workspace_id"] == workspace
        return answer["status"]


@contextmanager
def serving(root: Path, **settings: str) -> Iterator[Server]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    variables = {"EXECUTOR_PORT": str(port), "WORKSPACES_DIR": str(root / "workspaces"), **settings}
    command = [SERVER_PYTHON, "-I", "-m", "ipybox.executor.server"]
    process = subprocess.Popen(command, env={**os.environ, **variables}, cwd=root, text=True)
    server = Server(process, port, root / "workspaces")
    try:
        for _ in range(200):
            try:
                server.request("GET", "/")
                break
            except OSError:
                assert process.poll() is None
                time.sleep(0.05)
        yield server
    finally:
        process.terminate()
        process.wait(5)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("executor")
    (root / "json.py").write_text("raise SystemExit('replaced')")  # in its working directory
    with serving(root, EXECUTOR_NAME="test") as server:
        yield server


def success(stdout: str) -> dict[str, Any]:
    return {"stdout": stdout, "stderr": "", "exit_code": 0, "timed_out": False}


def eventually(condition: Callable[[], Any], seconds: float = 5) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def running(process: int | str) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


def in_background(work: Callable[[], Any]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def memory(process: int | str) -> int:
    """The most that a process ever used, in MiB."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    [peak] = [line for line in lines if line.startswith("VmHWM")]
    return int(peak.split()[1]) // 1024


# The wire


def test_health_and_index(server: Server) -> None:
    status, answer = server.request("GET", "/health")
    assert status == 200
    assert list(answer) == ["status", "executor", "python_version", "package_count", "workspaces_dir"]
    assert (answer["status"], answer["executor"]) == ("ok", "test")
    version = server.python("import platform; print(platform.python_version())")["stdout"]
    assert answer["python_version"] == f"Python {version}"
    assert answer["package_count"] > 5
    assert answer["workspaces_dir"] == str(server.root)
    status, answer = server.request("GET", "/")
    assert status == 200 and "POST /execute/python" in answer["endpoints"]
    for path in ["/docs", "/openapi.json", "/redoc"]:
        assert server.request("GET", path)[0] == 404


def test_output_of_python(server: Server) -> None:
    code = "import sys\nprint('out')\nprint('err', file=sys.stderr)\ndisplay('shown')\n6 * 7"
    assert server.python(code) == success("out\n'shown'\n42\nerr")
    assert server.python("  \n") == success("")
    assert server.python("print('ä\\n\\n')") == success("ä")
    code = "from IPython.display import publish_display_data\npublish_display_data({'image/png': 'x'})"
    assert server.python(code) == success("<image/png>")
    assert server.python("!echo from a child") == success("from a child")
    assert server.python(r"print('\ud800')") == success(r"\ud800")


def test_output_of_bash(server: Server) -> None:
    answer = server.bash("echo ' out '; echo err >&2; exit 3")
    assert answer == {"stdout": " out \n", "stderr": "err\n", "exit_code": 3, "timed_out": False}
    assert server.bash(r"printf 'a\xffb'") == success("a\ufffdb")
    assert server.bash("cat") == success("")
    assert server.bash("kill -9 $$")["exit_code"] == 137
    assert server.bash(f": {'x' * 1_000_000}\necho long") == success("long\n")


def test_state_is_kept_for_each_workspace(server: Server) -> None:
    server.python("kept = 1", workspace_id="one")
    assert server.python("kept", workspace_id="one") == success("1")
    assert "NameError" in server.python("kept", workspace_id="two")["stderr"]
    assert server.bash("pwd", workspace_id="one") == success(f"{server.root}/one\n")
    assert server.python("import os; os.getcwd()", workspace_id="one") == success(f"'{server.root}/one'")
    assert server.shut_down("one") == "shutdown"
    assert server.shut_down("one") == "not_found"
    assert server.shut_down("two") == "shutdown"
    assert "NameError" in server.python("kept", workspace_id="one")["stderr"]


def test_errors_of_python(server: Server) -> None:
    answer = server.python("import sys\nsys.exit(3)")
    assert answer["exit_code"] == 1 and "SystemExit: 3" in answer["stderr"] and answer["stdout"] == ""
    answer = server.python("kept = 2\ndef broken(:")
    assert answer["exit_code"] == 1 and "SyntaxError" in answer["stderr"] and "\x1b" not in answer["stderr"]
    assert server.python("1 + 1") == success("2")


def test_a_workspace_that_was_removed(server: Server) -> None:
    server.python("1", workspace_id="removed")
    (server.root / "removed").rmdir()
    code = "open('file', 'w').write('x')"
    assert server.python(code, workspace_id="removed") == success("1")
    assert (server.root / "removed/file").exists()


def test_modules_of_the_working_directory_replace_nothing(server: Server) -> None:
    (server.root / "modules/ipybox").mkdir(parents=True)
    for name in ["json", "ipykernel", "ipybox/__init__"]:
        (server.root / f"modules/{name}.py").write_text("raise SystemExit('replaced')")
    assert server.python("1", workspace_id="modules") == success("1")


def test_large_requests(server: Server) -> None:
    code = "# " + "x" * 9_000_000 + "\n1"
    assert server.python(code) == success("1")
    assert server.status(code="#" * (10 * 1024 * 1024 + 1)) == 422
    before = memory(server.process.pid)
    assert server.status(code="#" * 40_000_000) == 413
    assert memory(server.process.pid) - before < 30


# The holes of the server that clients were written for, by their numbers


@pytest.mark.parametrize("name", ["", "..", "../../etc/x", "/tmp/abs", ".hidden", "a/b", "a\n", "x" * 129])
def test_1_workspaces_stay_inside(server: Server, name: str) -> None:
    before = sorted(server.root.parent.rglob("*"))
    for kind in ["python", "bash"]:
        assert server.status(kind, workspace_id=name) == 422
    assert sorted(server.root.parent.rglob("*")) == before


def test_1_links_are_not_followed(server: Server, tmp_path: Path) -> None:
    (server.root / "link").symlink_to(tmp_path)
    (server.root / "dangling").symlink_to(tmp_path / "new")
    (server.root / "file").write_text("")
    for name in ["link", "dangling", "file"]:
        for kind in ["python", "bash"]:
            assert server.status(kind, workspace_id=name) == 409
    assert list(tmp_path.iterdir()) == []


def test_2_a_limit_interrupts_python(server: Server) -> None:
    server.python("kept = 2", workspace_id="limits")
    answer = server.python("import time\ntime.sleep(60)", workspace_id="limits", timeout=1)
    assert answer == {"stdout": "", "stderr": LATE, "exit_code": -1, "timed_out": True}
    began = time.monotonic()
    assert server.python("kept", workspace_id="limits") == success("2")
    assert time.monotonic() - began < 1


def test_2_python_that_cannot_be_interrupted_is_killed(server: Server) -> None:
    server.python("1", workspace_id="stubborn")
    began = time.monotonic()
    answer = server.python(STUBBORN, workspace_id="stubborn", timeout=1)
    assert time.monotonic() - began < 6
    assert answer["stdout"] == "begun" and answer["timed_out"] and answer["stderr"].startswith(LATE)
    assert "state is lost" in answer["stderr"]
    assert server.python("1", workspace_id="stubborn") == success("1")


def test_3_and_4_each_call_has_its_own_limit(server: Server) -> None:
    server.python("import time", workspace_id="limits", timeout=300)
    began = time.monotonic()
    code = "for i in range(40):\n    print(i, flush=True)\n    time.sleep(0.2)"
    answer = server.python(code, workspace_id="limits", timeout=1)
    assert time.monotonic() - began < 1.8
    assert answer["timed_out"] and answer["stdout"].startswith("0\n1\n2")


def test_5_both_kinds_tell_a_timeout_alike(server: Server) -> None:
    server.python("1")
    for answer in [
        server.python("import time; print('x'); time.sleep(9)", timeout=1),
        server.bash("echo x; sleep 9", timeout=1),
    ]:
        answer["stdout"] = answer["stdout"].strip()
        assert answer == {"stdout": "x", "stderr": LATE, "exit_code": -1, "timed_out": True}


def test_6_calls_of_one_workspace_wait_in_line(server: Server) -> None:
    server.python("line = []", workspace_id="line")

    def call(number: int) -> bool:
        code = f"line.append({number})\nprint('for', {number})"
        return server.python(code, workspace_id="line") == success(f"for {number}")

    with ThreadPoolExecutor(50) as pool:
        assert all(pool.map(call, range(50)))
    assert server.python("len(line)", workspace_id="line") == success("50")


def test_7_calls_do_not_wait_for_other_workspaces(server: Server) -> None:
    server.python("1")
    sleeping = [
        in_background(lambda name=f"asleep{number}": server.bash("sleep 1.5", workspace_id=name))
        for number in range(50)
    ]
    time.sleep(0.5)
    began = time.monotonic()
    assert server.python("1") == success("1")
    assert server.bash("echo x") == success("x\n")
    assert time.monotonic() - began < 1
    for thread in sleeping:
        thread.join()


def test_8_and_9_the_server_answers_while_kernels_start(server: Server) -> None:
    server.request("GET", "/health")
    with ThreadPoolExecutor(6) as pool:
        names = [f"parallel{number}" for number in range(6)]
        answers = pool.map(lambda name: server.python("1", workspace_id=name), names)
        slowest = 0.0
        for _ in range(20):
            began = time.monotonic()
            assert server.request("GET", "/health")[0] == 200
            slowest = max(slowest, time.monotonic() - began)
            time.sleep(0.05)
        assert all(answer == success("1") for answer in answers)
    assert slowest < 0.5
    for name in names:
        server.shut_down(name)


@pytest.mark.parametrize(
    ("code", "reason"),
    [("os._exit(3)", "exit status 3"), ("os._exit(0)", "exit status 0"), ("os.abort()", "SIGABRT")],
)
def test_10_the_death_of_a_kernel_is_told_at_once(server: Server, code: str, reason: str) -> None:
    server.python("import os, time", workspace_id="dying")
    began = time.monotonic()
    code = f"print('last', flush=True); time.sleep(0.3); {code}"
    answer = server.python(code, workspace_id="dying", timeout=15)
    assert time.monotonic() - began < 1.2
    stderr = f"The kernel died ({reason}); its state is lost"
    assert answer == {"stdout": "last", "stderr": stderr, "exit_code": -1, "timed_out": False}
    assert "NameError" in server.python("os", workspace_id="dying")["stderr"]


def test_10_a_busy_kernel_that_is_shut_down(server: Server) -> None:
    server.python("1", workspace_id="busy")
    answers: list[dict[str, Any]] = []
    thread = in_background(
        lambda: answers.append(server.python("import time; time.sleep(30)", workspace_id="busy"))
    )
    time.sleep(0.3)
    assert server.shut_down("busy") == "shutdown"
    thread.join(2)
    assert answers[0]["exit_code"] == -1 and "state is lost" in answers[0]["stderr"]
    assert server.python("1", workspace_id="busy") == success("1")


def test_11_nobody_answers_input(server: Server) -> None:
    began = time.monotonic()
    answer = server.python("input()")
    assert answer["exit_code"] == 1 and "StdinNotImplementedError" in answer["stderr"]
    assert time.monotonic() - began < 2


def test_12_a_failed_start_marks_nothing(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        process, files = server.process.pid, resource.RLIMIT_NOFILE
        soft, hard = resource.prlimit(process, files)
        resource.prlimit(process, files, (12, hard))  # too few for one more process
        status, answer = server.request("POST", "/execute/python", {"workspace_id": "start", "code": "1"})
        assert status == 503 and "did not start" in answer["detail"]
        resource.prlimit(process, files, (soft, hard))
        assert server.python("1", workspace_id="start") == success("1")
        assert list((server.root / "start").iterdir()) == []


def test_13_a_limit_ends_the_children_of_bash(server: Server) -> None:
    command = "trap '' TERM; (trap '' TERM; echo $BASHPID > pid; sleep 1.8; touch late) & wait; sleep 9"
    assert server.bash(command, workspace_id="children", timeout=1)["timed_out"]
    assert not running((server.root / "children/pid").read_text().strip())
    time.sleep(1)
    assert not (server.root / "children/late").exists()


def test_14_children_in_the_background_are_not_waited_for(server: Server) -> None:
    began = time.monotonic()
    command = "(sleep 1; echo more; echo more >&2; touch done) & echo x"
    assert server.bash(command, workspace_id="background") == success("x\n")
    assert time.monotonic() - began < 0.9
    assert eventually((server.root / "background/done").exists)


@pytest.mark.skipif(not os.path.exists("/bin/bash"), reason="there is only sh")
def test_15_bash_is_bash(server: Server) -> None:
    assert server.bash('list=(a b); [[ ${list[1]} == b ]] && echo "${#list[@]}"') == success("2\n")


def test_16_output_before_an_error_is_kept(server: Server) -> None:
    answer = server.python("print('before')\n1 / 0")
    assert answer["stdout"] == "before" and answer["exit_code"] == 1
    assert "ZeroDivisionError: division by zero" in answer["stderr"]


def test_17_output_is_limited(server: Server) -> None:
    cut = success("x" * 100_000 + "\n... [OUTPUT TRUNCATED]")
    assert server.python("print('x' * 100_000_000)") == cut
    assert server.python("display({'text/plain': 'x' * 1_000_000}, raw=True)") == cut
    assert server.python("print('x' * 100_000)") == success("x" * 100_000)
    assert len(server.python("raise ValueError('x' * 10_000_000)")["stderr"]) <= 100_000
    answer = server.bash("head -c 400000000 /dev/zero | tr '\\0' x; echo; echo end")["stdout"]
    assert answer.startswith("x" * 50_000) and answer.endswith("x\nend\n")
    assert "\n... (truncated 399900005 characters) ...\n" in answer
    assert server.bash("printf %0100000d 0") == success("0" * 100_000)
    assert memory(server.process.pid) < 200
    kernel = server.python("import os; os.getpid()", workspace_id="flood")["stdout"]
    code = "for _ in range(400):\n    print('x' * 1_000_000, end='')"
    assert server.python(code, workspace_id="flood") == cut
    assert memory(kernel) < 150


def test_18_variables_are_those_of_one_call(server: Server) -> None:
    code = "import os; os.environ.get('KEY'), os.environ.get('HOME')"
    home = os.environ.get("HOME")
    env = {"KEY": "se\ncret'", "HOME": "/elsewhere"}
    assert server.python(code, env=env) == success("(\"se\\ncret'\", '/elsewhere')")
    assert server.python(code, env=None) == success(str((None, home)))
    change = "os.environ.update(KEY='changed', OTHER='kept'); del os.environ['HOME']; 1 / 0"
    assert server.python(change, env=env)["exit_code"] == 1
    assert server.python(f"{code}, os.environ['OTHER']") == success(str((None, home, "kept")))
    server.python("import time; time.sleep(9)", env=env, timeout=1)
    assert server.python(code) == success(str((None, home)))
    assert server.bash("echo $KEY$HOME", env={"KEY": "a", "HOME": "b"}) == success("ab\n")
    assert server.bash("echo $KEY") == success("\n")


def test_18_variables_leave_no_trace(server: Server) -> None:
    server.python("names = set(dir())", workspace_id="trace", env={"KEY": "hidden"})
    code = """
import linecache
kept = [In, _ih, Out, globals(), linecache.cache, list(get_ipython().history_manager.get_range())]
print("hid" + "den" in repr(kept), len(In), sorted(set(dir()) - names))
"""
    assert server.python(code, workspace_id="trace") == success(
        "False 3 ['_i2', 'kept', 'linecache', 'names']"
    )


@pytest.mark.parametrize(
    "env", [{"A": 1}, {"A": None}, {"A": True}, {"": "x"}, {"A=B": "x"}, {"A\0": "x"}, {"A": "\0"}, [], "A=B"]
)
def test_19_variables_are_text(server: Server, env: Any) -> None:
    for kind in ["python", "bash"]:
        assert server.status(kind, env=env) == 422


@pytest.mark.parametrize("timeout", [0, -1, 86401, True, 1.5, "5", None])
def test_20_limits_are_numbers_of_seconds(server: Server, timeout: Any) -> None:
    for kind in ["python", "bash"]:
        assert server.status(kind, timeout=timeout) == 422


def test_20_the_workspace_is_a_variable(server: Server) -> None:
    assert server.python("import os; print(os.environ['WORKSPACE'])") == success(f"{server.root}/main")
    assert server.bash("echo $WORKSPACE") == success(f"{server.root}/main\n")


def test_missing_and_unknown_fields(server: Server) -> None:
    assert server.status(more="ignored") == 200
    for kind, body in [
        ("python", {"workspace_id": "w"}),
        ("python", {"code": "1"}),
        ("python", {"code": 1, "workspace_id": "w"}),
        ("python", {"code": "\ud800", "workspace_id": "w"}),
        ("bash", {"command": "a\0b", "workspace_id": "w"}),
        ("bash", {"code": "1", "workspace_id": "w"}),
        ("bash", b"{"),
    ]:
        status, answer = server.request("POST", f"/execute/{kind}", body)
        assert status == 422 and answer["detail"][0]["loc"][0] == "body"
    status, answer = server.request("POST", "/kernel/shutdown?workspace_id=..")
    assert status == 422 and answer["detail"]


def test_21_a_token(tmp_path: Path) -> None:
    with serving(tmp_path, EXECUTOR_TOKEN="sesame") as server:
        body = {"workspace_id": "w", "code": "import os; os.getppid(), os.environ.get('EXECUTOR_TOKEN')"}
        for path in ["/", "/health"]:
            assert server.request("GET", path)[0] == 200
        for headers in [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "sesame"}]:
            for path in ["/execute/python", "/execute/bash", "/kernel/shutdown", "/other"]:
                assert server.request("POST", path, body, headers)[0] == 401
        right = {"Authorization": "Bearer sesame"}
        status, answer = server.request("POST", "/execute/python", body, right)
        assert status == 200 and answer == success(f"({server.process.pid}, None)")
        body["command"] = "echo $EXECUTOR_TOKEN; cat /proc/$PPID/environ"
        answer = server.request("POST", "/execute/bash", body, right)[1]
        assert answer["stdout"].startswith("\n")
        if os.geteuid() != 0:
            assert answer["stdout"] == "\n" and answer["exit_code"] == 1


def test_21_an_idle_kernel_ends(tmp_path: Path) -> None:
    with serving(tmp_path, EXECUTOR_IDLE_SECONDS="1") as server:
        process = server.python("import os; os.getpid()")["stdout"]
        server.python("import time; time.sleep(1.5)")
        assert running(process)
        assert eventually(lambda: not running(process), 3)
        assert "NameError" in server.python("os")["stderr"]


def test_22_the_end_is_quick_and_leaves_nothing(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        processes = [server.python("import os; os.getpid()")["stdout"]]
        server.bash("sleep 60 > /dev/null 2>&1 & echo $! > background")
        busy = [lambda: server.python(STUBBORN), lambda: server.bash("echo $$ > pid; sleep 60")]
        threads = [in_background(lambda work=work: failing(work)) for work in busy]
        assert eventually((server.root / "main/pid").exists)
        time.sleep(0.2)
        processes += [(server.root / f"main/{name}").read_text().strip() for name in ["background", "pid"]]
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(5)
        assert time.monotonic() - began < 1
        assert not [process for process in processes if running(process)]
        for thread in threads:
            thread.join()


def failing(work: Callable[[], Any]) -> None:
    with pytest.raises((OSError, http.client.HTTPException, AssertionError, ValueError)):
        work()


def test_kernels_end_with_a_server_that_is_killed(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        process = server.python("import os; os.getpid()")["stdout"]
        server.process.kill()
        server.process.wait()
        assert eventually(lambda: not running(process))


@pytest.mark.parametrize(
    ("name", "value"), [("EXECUTOR_PORT", "65536"), ("EXECUTOR_IDLE_SECONDS", "-1")]
)
def test_settings_that_make_no_sense(tmp_path: Path, name: str, value: str) -> None:
    command = [SERVER_PYTHON, "-I", "-m", "ipybox.executor.server"]
    env = {**os.environ, "WORKSPACES_DIR": str(tmp_path), name: value}
    result = subprocess.run(command, env=env, stderr=subprocess.PIPE, text=True, timeout=20)
    assert result.returncode == 1
    assert result.stderr.startswith(name) and repr(value) in result.stderr and result.stderr.count("\n") == 1
