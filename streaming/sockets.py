"""ZeroMQ sockets as Cartoseq uses them: nothing left at a default that loses or hangs.

``LINGER`` is set (the default waits for ever at exit), ``IMMEDIATE`` (else messages queue up for an absent peer),
``MAXMSGSIZE`` (the default is none), heartbeats (else a stopped peer goes unnoticed). Queue lengths are unlimited where
the protocol's credit is the limit. Only endpoints on this machine are served.
"""

from __future__ import annotations

import ctypes
import functools
import ipaddress
import os
from pathlib import Path

import zmq

from cartoseq.streaming.errors import InputError

MAX_MESSAGE_BYTES = 512 << 20
_HEARTBEAT_MS = 1000
_HEARTBEAT_TIMEOUT_MS = 5000
_RECONNECT_MS = 20
_RECONNECT_MAX_MS = 500
_HANDSHAKE_MS = 5000
_IPC_PATH_BYTES = 107
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3


def check_endpoint(endpoint: str) -> None:
    """Refuse an endpoint that is not on this machine.

    Raises:
        InputError: it is not, or its notation is wrong.
    """
    transport, separator, address = endpoint.partition("://")
    if separator and transport == "ipc" and address:
        if len(os.fsencode(address)) > _IPC_PATH_BYTES:
            raise InputError(
                endpoint,
                f"the socket's path has {len(os.fsencode(address))} bytes, the system takes {_IPC_PATH_BYTES}",
                remedy="Use a folder with a shorter path.",
            )
        return
    host, colon, port = address.rpartition(":")
    if not (separator and transport == "tcp" and colon and host and (port == "*" or port.isdecimal())):
        raise InputError(endpoint, "not an endpoint", remedy="Write ipc:///a/path or tcp://127.0.0.1:PORT.")
    if not _is_loopback(host.strip("[]")):
        raise InputError(
            endpoint,
            "this address can be reached from other machines, and encrypted, authorised connections (CURVE keys) "
            "are not there yet",
            remedy="Use ipc:///a/path or tcp://127.0.0.1:PORT, and an SSH tunnel from elsewhere.",
        )


def open_socket(context: zmq.Context[zmq.Socket[bytes]], kind: int, *, linger_ms: int) -> zmq.Socket[bytes]:
    """Make a socket with everything set that must not stay at its default."""
    socket = context.socket(kind)
    socket.setsockopt(zmq.LINGER, linger_ms)
    socket.setsockopt(zmq.IMMEDIATE, 1)
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
    socket.setsockopt(zmq.HEARTBEAT_IVL, _HEARTBEAT_MS)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, _HEARTBEAT_TIMEOUT_MS)
    socket.setsockopt(zmq.HANDSHAKE_IVL, _HANDSHAKE_MS)
    socket.setsockopt(zmq.RECONNECT_IVL, _RECONNECT_MS)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, _RECONNECT_MAX_MS)
    socket.setsockopt(zmq.SNDHWM, 0)
    socket.setsockopt(zmq.RCVHWM, 0)
    return socket


def bind(socket: zmq.Socket[bytes], endpoint: str) -> str:
    """Bind to an endpoint on this machine; a socket file is made private to the user.

    Returns:
        The endpoint, with the port that was chosen for ``*``.

    Raises:
        InputError: the endpoint is not on this machine, or is taken.
    """
    check_endpoint(endpoint)
    try:
        socket.bind(endpoint)
    except zmq.ZMQError as error:
        raise InputError(
            endpoint, f"cannot listen here ({error.strerror})", remedy="Is another run using this endpoint?"
        ) from error
    if endpoint.startswith("ipc://") and not endpoint.startswith("ipc://@"):
        Path(endpoint.removeprefix("ipc://")).chmod(0o600)
    bound = socket.getsockopt(zmq.LAST_ENDPOINT)
    return bound.rstrip(b"\0").decode() if isinstance(bound, bytes) else endpoint


@functools.cache
def reuse_memory() -> None:
    """Let the C library keep freed blocks of a few MB instead of handing each back to the kernel.

    Every message is one such block; clearing fresh pages for each costs more than all copies together (measured: 2 to 3
    times the kernel's time). Elsewhere than with glibc nothing is done.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_MMAP_THRESHOLD, 32 << 20)
    mallopt(_M_TRIM_THRESHOLD, 256 << 20)
    mallopt(_M_TOP_PAD, 16 << 20)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
