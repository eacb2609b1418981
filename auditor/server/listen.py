"""A socket that listens, or one line that says why it cannot."""

from __future__ import annotations

import errno
import socket

from auditor.errors import UsageError


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises UsageError if the address cannot be used."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        advice = {
            errno.EADDRINUSE: "another program listens there, perhaps a second server; give another --port",
            errno.EACCES: "not allowed to this user; give a --port of 1024 or more",
        }.get(error.errno or 0, f"{error.strerror}; give an address of this machine as --host")
        raise UsageError(f"cannot listen at {host}, port {port}: {advice}") from error
