"""The server for files, module sources and MCP tools of a container."""
