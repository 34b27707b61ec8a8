"""One child process in a process group of its own, signalled by identity and never by name."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

# Our death closes the pipe, and the child must not outlive us: not even SIGKILL leaves it behind.
_GUARD = 'read _; [ "$(cut -d" " -f22 "/proc/$1/stat")" = "$2" ] && kill -s KILL -- "-$1"'
_TAIL = 2_000
# Below the range from which Linux takes ports for outgoing connections: a client that keeps reconnecting to a
# server that is down would otherwise, sooner or later, be given the server's own port and talk to itself.
_PORTS = range(20_000, 32_000)


def free_port() -> int:
    """Return a loopback port on which nothing listens.

    Raises:
        OSError: None of a hundred was free.
    """
    # Not the shared generator: tests seed it, and would then all try the same ports.
    for port in random.SystemRandom().sample(_PORTS, 100):
        if _is_free(port):
            return port
    raise OSError(f"none of 100 ports from {_PORTS.start} to {_PORTS.stop - 1} is free")


def _is_free(port: int) -> bool:
    with socket.socket() as trial:
        try:
            trial.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def born(pid: int) -> str:
    """Return when a process started, in clock ticks since boot (proc(5), field 22); empty if it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    return text.rpartition(")")[2].split()[19]


class Process:
    """A started program, its output in a file; whoever starts one ends it.

    Args:
        argv: The program and its arguments.
        folder: The working directory; ``output.log`` is written there.
        environment: What is added to the environment of this process.
    """

    def __init__(self, argv: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None) -> None:
        self._log = folder / "output.log"
        with self._log.open("wb") as log:
            self._child = subprocess.Popen(
                argv,
                cwd=folder,
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.pid = self._child.pid
        self._born = born(self.pid)
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", _GUARD, "guard", str(self.pid), self._born],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    @property
    def running(self) -> bool:
        """Whether the process has not exited; a paused one is running."""
        return self._child.poll() is None

    @property
    def exit_code(self) -> int | None:
        """The exit code, negative for a signal's number; None while it runs."""
        return self._child.poll()

    def output(self) -> str:
        """Return the last 2,000 bytes the process wrote."""
        return self._log.read_bytes()[-_TAIL:].decode(errors="replace") if self._log.exists() else ""

    def send(self, number: signal.Signals) -> None:
        """Signal the process group; does nothing once the process is gone or its id is another's."""
        if self.running and born(self.pid) == self._born:
            os.killpg(self.pid, number)

    def end(self, *, patience: float = 5.0) -> None:
        """Ask the process to exit, and kill it if it has not done so after ``patience`` seconds."""
        self.send(signal.SIGCONT)  # a stopped process would keep SIGTERM pending
        self.send(signal.SIGTERM)
        try:
            self._child.wait(patience)
        except subprocess.TimeoutExpired:
            self.kill()
        self._dismiss()

    def kill(self) -> None:
        """Kill the process group at once and wait until the kernel has taken the process away."""
        self.send(signal.SIGKILL)
        self._child.wait()
        self._dismiss()

    def _dismiss(self) -> None:
        if self._guard.stdin:
            self._guard.stdin.close()
        self._guard.wait()
