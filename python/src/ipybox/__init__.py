"""Sandboxes for agents: long-lived containers, one for each user of a project."""

from ipybox.container import ExecutionContainer
from ipybox.program import SandboxError
from ipybox.sandbox import AsyncSandbox, Result, Sandbox, Up

__all__ = ["AsyncSandbox", "ExecutionContainer", "Result", "Sandbox", "SandboxError", "Up"]
