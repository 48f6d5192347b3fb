#!/usr/local/bin/python3 -I
"""Exits 0 when the process of this container answers `/livez` (or the path given) with 200, else 1."""

import http.client
import os
import sys

TIMEOUT_SECONDS = 3.0


def answers(port: str, path: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", f"/{path}")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    wanted = sys.argv[1] if len(sys.argv) > 1 else "livez"
    # A container runs one role: the edge listens on the first port, any other role on the second.
    ports = (os.environ.get("CODEAGENT_HTTP_PORT", "8080"), os.environ.get("CODEAGENT_MONITOR_PORT", "9100"))
    sys.exit(0 if any(answers(port, wanted) for port in ports) else 1)
