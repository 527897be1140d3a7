"""A collection as a server of the Model Context Protocol: tools with which a language model's host asks it; needs `mcp`."""

from twinrank.mcp.server import create_server, run_http, run_stdio

__all__ = ["create_server", "run_http", "run_stdio"]
