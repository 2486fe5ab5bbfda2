"""Run cells in one kernel with the client of ipybox 0.6.7 and print a JSON list of their outcomes.

    kernel.py PORT < cells.json

An outcome is the text of a cell's output, or {"error": ...} with the last line of its traceback.
"""

import asyncio
import json
import sys

from ipybox.executor import ExecutionClient, ExecutionError


async def main(port: int, cells: list[str]) -> list[str | dict[str, str] | None]:
    outcomes: list[str | dict[str, str] | None] = []
    async with ExecutionClient(port=port) as client:
        for cell in cells:
            try:
                outcomes.append((await client.execute(cell, timeout=120)).text)
            except ExecutionError as error:
                outcomes.append({"error": str(error).strip().splitlines()[-1]})
    return outcomes


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(int(sys.argv[1]), json.load(sys.stdin)))))
