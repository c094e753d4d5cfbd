"""Serve the dashboard on this machine: Streamlit as a child process that ends with this one."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import FrameType

ADDRESS = "127.0.0.1"
"""Only this machine: the dashboard has no accounts. From elsewhere: ``ssh -L 8501:127.0.0.1:8501 host``."""

APP = Path(__file__).parent / "app.py"
PORT_TAKEN = 2


def command(store: Path, port: int) -> list[str]:
    """The server's command line. Options stand here, not in a config file: the package works wherever it lies."""
    options = {
        "server.address": ADDRESS,
        "server.port": str(port),
        "server.headless": "true",
        "server.fileWatcherType": "none",
        "browser.gatherUsageStats": "false",
        "browser.serverAddress": ADDRESS,
        "client.toolbarMode": "minimal",
        "client.showErrorDetails": "none",
        "theme.base": "light",
        "theme.primaryColor": "#0072B2",
        "theme.secondaryBackgroundColor": "#f4f6f8",
        "theme.textColor": "#1f2933",
        "theme.baseRadius": "small",
    }
    flags = [part for name, value in options.items() for part in (f"--{name}", value)]
    return [sys.executable, "-m", "streamlit", "run", str(APP), *flags, "--", "--store", str(store)]


def serve(store: Path, port: int = 8501) -> int:
    """Run the dashboard over ``store`` until it is interrupted.

    Prints the address. SIGINT and SIGTERM are passed on to the server, whose end is waited for.

    Returns:
        The exit code: 0 when it was ended by a signal, 2 when the port is taken, else the server's own.
    """
    if not _is_free(port):
        print(f"port {port} is taken: choose another with --port, or end what uses it", file=sys.stderr)
        return PORT_TAKEN
    environment = {**os.environ, "RIDGELINE_STORE": str(store.absolute())}
    # Its own session: Ctrl-C then reaches the server once, through the handler, and not twice.
    child = subprocess.Popen(
        command(store.absolute(), port), env=environment, start_new_session=True, stdout=subprocess.DEVNULL
    )
    asked_to_end = False

    def pass_on(number: int, _frame: FrameType | None) -> None:
        nonlocal asked_to_end
        asked_to_end = True
        child.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        print(f"Ridgeline dashboard: http://{ADDRESS}:{port}  (store {store}; Ctrl-C ends it)", flush=True)
        code = child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if child.poll() is None:
            child.terminate()
            child.wait()
    return 0 if asked_to_end else code


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As the server does: a port whose last connections are still closing is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((ADDRESS, port))
        except OSError:
            return False
    return True


if __name__ == "__main__":
    raise SystemExit(serve(Path(sys.argv[1]), int(sys.argv[2])))
