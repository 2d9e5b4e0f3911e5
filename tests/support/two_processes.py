"""A command run as torchrun runs it in two processes on one machine."""

import os
import socket
import subprocess
from collections.abc import Sequence


def two_processes(command: Sequence[str]) -> list[tuple[str, str]]:
    """What each process wrote on stdout and on stderr, the first first; both end well, on one thread each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    ranks = [{"RANK": rank, "LOCAL_RANK": rank} for rank in "01"]
    processes = [
        subprocess.Popen(command, stdout=-1, stderr=-1, text=True, env={**os.environ, **shared, **rank})
        for rank in ranks
    ]
    try:
        ends = [process.communicate(timeout=300) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], ends
    return ends
