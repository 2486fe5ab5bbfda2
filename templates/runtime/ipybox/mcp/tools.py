"""List the tools of an MCP server.

    python -I -m ipybox.mcp.tools FD < PARAMETERS

The parameters of the server are JSON; `{"tools": [...]}` or `{"error": TEXT}` is written as JSON to the
file descriptor FD. SIGTERM ends the server as well.
"""

import asyncio
import json
import os
import signal
import sys
from typing import Any


async def answer(server_params: dict[str, Any]) -> dict[str, Any]:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        from ipybox.mcp.run import list_tools

        return {"tools": await list_tools(server_params)}
    except Exception as error:
        return {"error": str(error) or type(error).__name__}


def main(arguments: list[str]) -> None:
    descriptor = int(arguments[0])
    os.set_inheritable(descriptor, False)
    try:
        result = asyncio.run(answer(json.load(sys.stdin)))
    except asyncio.CancelledError:
        sys.exit(128 + signal.SIGTERM)
    with open(descriptor, "w", encoding="utf-8") as file:
        json.dump(result, file)


if __name__ == "__main__":
    main(sys.argv[1:])
