"""Calls tools of MCP servers; generated functions end up here. Works with mcp 1.9 and later, and 2."""

import inspect
import json
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TextIO, TypeVar

import anyio
from anyio.from_thread import start_blocking_portal
from mcp import ClientSession, StdioServerParameters
from mcp.client.sse import sse_client
from mcp.client.stdio import stdio_client

CONNECT_TIMEOUT = 30.0
"""Seconds a server has to get ready; some fetch their packages first."""

T = TypeVar("T")


class ToolError(Exception):
    """A tool reports an error, or its server cannot be used."""


def run_sync(
    tool_name: str,
    params: dict[str, Any],
    server_params: dict[str, Any],
    connect_timeout: float = CONNECT_TIMEOUT,
) -> str:
    """Call a tool and wait for its text, inside a running event loop or without one."""
    # The portal's own thread runs the call. An interrupt of this thread cancels it.
    with start_blocking_portal() as portal:
        text: str = portal.call(run_async, tool_name, params, server_params, connect_timeout)
        return text


async def run_async(
    tool_name: str,
    params: dict[str, Any],
    server_params: dict[str, Any],
    connect_timeout: float = CONNECT_TIMEOUT,
) -> str:
    async def call(session: ClientSession) -> dict[str, Any]:
        result = await session.call_tool(tool_name, arguments=params)
        return result.model_dump(mode="json", by_alias=True, exclude_none=True)

    result = await with_session(server_params, call, connect_timeout)
    text = text_of(result)
    if result.get("isError"):
        raise ToolError(text)
    return text


async def list_tools(
    server_params: dict[str, Any], connect_timeout: float = CONNECT_TIMEOUT
) -> list[dict[str, Any]]:
    """Name, description and input schema of each tool, in the server's order."""

    async def pages(session: ClientSession) -> list[dict[str, Any]]:
        tools: list[dict[str, Any]] = []
        arguments: dict[str, Any] = {}
        while True:
            page = await session.list_tools(**arguments)
            answer = page.model_dump(mode="json", by_alias=True)
            tools += answer["tools"]
            if not answer.get("nextCursor"):
                return tools
            arguments = page_after(session, answer["nextCursor"])

    tools = await with_session(server_params, pages, connect_timeout)
    return [
        {"name": tool["name"], "description": tool["description"] or "", "inputSchema": tool["inputSchema"]}
        for tool in tools
    ]


def page_after(session: ClientSession, cursor: str) -> dict[str, Any]:
    if "cursor" in inspect.signature(session.list_tools).parameters:
        return {"cursor": cursor}
    from mcp.types import PaginatedRequestParams

    return {"params": PaginatedRequestParams(cursor=cursor)}


async def with_session(
    server_params: dict[str, Any],
    action: Callable[[ClientSession], Awaitable[T]],
    connect_timeout: float,
) -> T:
    """The outcome of an action, or its error itself instead of the groups that anyio wraps it in."""
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        try:
            async with (
                transport(server_params, log) as (read, write, *_),
                ClientSession(read, write) as session,
            ):
                with anyio.move_on_after(connect_timeout) as scope:
                    await session.initialize()
                if scope.cancelled_caught:
                    raise ToolError(f"MCP server was not ready after {connect_timeout:g} s")
                return await action(session)
        except Exception as error:
            raise ToolError(reason(error, log)) from None


def transport(server_params: dict[str, Any], log: TextIO) -> AbstractAsyncContextManager[Any]:
    if "command" in server_params:
        return stdio_client(StdioServerParameters(**server_params), errlog=log)
    if "url" not in server_params:
        raise ValueError('MCP server parameters need a "command" or a "url"')
    url, headers = server_params["url"], server_params.get("headers")
    kind = server_params.get("type") or ("sse" if "/sse" in url and "/mcp" not in url else "streamable_http")
    if kind == "sse":
        return sse_client(url, headers=headers)
    if kind in ("streamable_http", "streamable-http", "http"):
        return streamable_http(url, headers)
    raise ValueError(f'MCP server type {kind!r} is neither "streamable_http" nor "sse"')


@asynccontextmanager
async def streamable_http(url: str, headers: dict[str, str] | None) -> AsyncIterator[Any]:
    from mcp.client import streamable_http as module

    if hasattr(module, "streamablehttp_client"):  # mcp 1
        async with module.streamablehttp_client(url, headers=headers) as streams:
            yield streams
    else:
        from mcp.shared._httpx_utils import create_mcp_http_client

        async with (
            create_mcp_http_client(headers=headers) as client,
            module.streamable_http_client(url, http_client=client) as streams,
        ):
            yield streams


def text_of(result: dict[str, Any]) -> str:
    """The texts of a result, one below the other; JSON stands for what is not text."""
    blocks = result.get("content") or []
    if not blocks and "structuredContent" in result:
        return json.dumps(result["structuredContent"], ensure_ascii=False)
    return "\n".join(
        block["text"] if block.get("type") == "text" else json.dumps(block, ensure_ascii=False)
        for block in blocks
    )


def reason(error: BaseException, log: TextIO) -> str:
    """What went wrong, with the last words of a server that went away."""
    while getattr(error, "exceptions", None):
        error = error.exceptions[0]  # type: ignore[attr-defined]
    text = str(error) or type(error).__name__
    if "onnection closed" not in text:
        return text
    log.flush()
    log.seek(0)
    return "\n".join([text, *log.read().splitlines()[-20:]])
