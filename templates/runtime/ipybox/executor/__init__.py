"""Runs Python and shell commands in workspaces, over HTTP."""
