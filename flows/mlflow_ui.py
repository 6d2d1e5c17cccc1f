"""MLflow's own UI as a process of ours: started, waited for, ended with us."""

import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO

from cohort.errors import CampaignError
from flows.tracking import server_command


def serve(root: Path, host: str, port: int, served: Callable[[str], None]) -> None:
    """Serve the store of the campaigns below a root until Ctrl-C.

    Args:
        root: folder that holds the campaigns.
        host: address to serve on.
        port: wanted; a free one is taken where it is 0 or taken.
        served: is told the server's address once it answers.

    Raises:
        CampaignError: if no port is free, or the server ends or does not answer.
        KeyboardInterrupt: for Ctrl-C, after the server was ended.
    """
    port = free_port(host, port)
    address = f"http://{host}:{port}"
    command = [sys.executable, *server_command(root, host, port)]
    with tempfile.TemporaryFile() as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)  # noqa: S603
        try:
            _wait_until_served(address, server, log)
            served(address)
            server.wait()
        finally:
            server.terminate()
            server.wait(timeout=20)


def free_port(host: str, port: int) -> int:
    """The wanted port, or a free one where it is taken.

    Raises:
        CampaignError: for a host that is not this machine.
    """
    for candidate in (port, 0):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, candidate))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise CampaignError(f"No port is free on {host}; name another address with --host")


def _wait_until_served(address: str, server: "subprocess.Popen[bytes]", log: IO[bytes]) -> None:
    for _ in range(240):
        if server.poll() is not None:
            log.seek(0)
            said = log.read().decode(errors="replace")
            raise CampaignError(f"MLflow's server ended at once: {said.strip()[-500:]}")
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=2):  # noqa: S310
                return
        except OSError:
            time.sleep(0.5)
    raise CampaignError(f"MLflow's server did not answer at {address} within two minutes")
