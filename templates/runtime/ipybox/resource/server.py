"""The resource server of a container.

    python -I -m ipybox.resource.server [--host HOST] [--port PORT] [--root FOLDER] [--python PYTHON]
"""

import argparse
import logging
from pathlib import Path


def main() -> None:
    # Not above: kernels, which clients let import this module, have no web server.
    import uvicorn

    from ipybox.resource.app import Settings, create_app

    parser = argparse.ArgumentParser(prog="ipybox.resource.server")
    parser.add_argument("--host", default="0.0.0.0")
    parser.add_argument("--port", type=int, default=8900)
    parser.add_argument("--root", type=Path, default=Path("/app"))
    parser.add_argument("--python", default=Settings.python, help="interpreter of user code")
    parser.add_argument("--module-limit", type=float, default=Settings.module_limit, metavar="SECONDS")
    parser.add_argument("--mcp-limit", type=float, default=Settings.mcp_limit, metavar="SECONDS")
    options = vars(parser.parse_args())
    host, port = options.pop("host"), options.pop("port")
    # At the end requests are cut off, on purpose.
    logging.getLogger("uvicorn.error").addFilter(lambda record: not str(record.msg).startswith("Cancel "))
    uvicorn.run(
        create_app(Settings(**options)),
        host=host,
        port=port,
        log_level="warning",
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=0,
    )


if __name__ == "__main__":
    main()
