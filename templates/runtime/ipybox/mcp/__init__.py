"""Tools of MCP servers as Python functions."""
