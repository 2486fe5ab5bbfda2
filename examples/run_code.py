"""Run code in a kernel of an ipybox container, cell by cell, and print what it prints.

    python run_code.py ws://127.0.0.1:8888 'x = 20' 'print(x + 1)'

Needs tornado, which every image has.
"""

import asyncio
import json
import sys
import uuid
from urllib.parse import urlsplit

from tornado.httpclient import AsyncHTTPClient, HTTPRequest
from tornado.websocket import WebSocketClientConnection, websocket_connect


async def start_kernel(gateway: str) -> str:
    """Start a kernel as soon as the gateway answers, and return its id."""
    for attempt in range(100):
        try:
            response = await AsyncHTTPClient().fetch(f"{gateway}/api/kernels", method="POST", body="{}")
            return json.loads(response.body)["id"]
        except OSError:
            await asyncio.sleep(0.1)
    raise SystemExit(f"no kernel gateway answers at {gateway}")


async def run_cell(socket: WebSocketClientConnection, code: str) -> bool:
    """Run one cell, print its output, and return whether it went well."""
    message_id = uuid.uuid4().hex
    request = {
        "header": {"msg_id": message_id, "msg_type": "execute_request", "session": "", "username": "", "version": "5.3"},
        "parent_header": {},
        "metadata": {},
        "content": {"code": code, "silent": False, "store_history": True, "allow_stdin": False},
        "channel": "shell",
    }
    await socket.write_message(json.dumps(request))
    went_well = True
    while True:
        text = await socket.read_message()
        if text is None:
            raise SystemExit("the gateway closed the connection")
        message = json.loads(text)
        if message["parent_header"].get("msg_id") != message_id:
            continue
        content = message["content"]
        match message["msg_type"]:
            case "stream":
                print(content["text"], end="")
            case "execute_result":
                print(content["data"]["text/plain"])
            case "error":
                print("\n".join(content["traceback"]))
                went_well = False
            case "status" if content["execution_state"] == "idle":
                return went_well


async def main(url: str, cells: list[str]) -> int:
    host = urlsplit(url).netloc
    kernel = await start_kernel(f"http://{host}")
    address = f"http://{host}/api/kernels/{kernel}"
    socket = await websocket_connect(f"ws://{host}/api/kernels/{kernel}/channels")
    try:
        results = [await run_cell(socket, cell) for cell in cells]
    finally:
        await AsyncHTTPClient().fetch(HTTPRequest(address, method="DELETE"))
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1], sys.argv[2:])))
