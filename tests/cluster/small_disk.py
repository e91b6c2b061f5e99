"""A disk of a few megabytes that only chosen processes see: a tmpfs in a mount namespace of its own (Linux)."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import suppress
from pathlib import Path


class NotPermittedError(RuntimeError):
    """This machine gives no mount namespace; the message says why."""


class SmallDisk:
    """``with SmallDisk(folder, megabytes=100) as disk``: commands begun with ``disk.prefix`` find it at ``folder``.

    Other processes see the empty folder below the mount; they look in through ``disk.seen``. As root a mount
    namespace does; without root a user namespace comes with it, where the kernel allows one.
    """

    def __init__(self, folder: Path, megabytes: int) -> None:
        self._folder = folder
        self._megabytes = megabytes

    def __enter__(self) -> SmallDisk:
        if shutil.which("unshare") is None or shutil.which("nsenter") is None:
            raise NotPermittedError("unshare and nsenter (util-linux) are not there")
        self._folder.mkdir(parents=True, exist_ok=True)
        for unshare, enter in ((["-m"], ["-m"]), (["-U", "-r", "-m"], ["-U", "-m", "--preserve-credentials"])):
            if self._opened(unshare, enter):
                return self
        raise NotPermittedError(f"no mount namespace here: {self._said}")

    def _opened(self, unshare: list[str], enter: list[str]) -> bool:
        mount = f"mount -t tmpfs -o size={self._megabytes}m small '{self._folder}' && echo mounted && exec cat"
        # cat ends with its standard input, so the namespace ends with this process at the latest
        self._holder = subprocess.Popen(
            ["unshare", *unshare, "--propagation", "private", "sh", "-c", mount],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self._holder.stdout is not None
        self._said = self._holder.stdout.readline().strip()
        if self._said != "mounted":
            self.__exit__()
            return False
        self.prefix = ["nsenter", "-t", str(self._holder.pid), *enter, "--"]
        return True

    def __exit__(self, *exception: object) -> None:
        with suppress(BrokenPipeError):
            self._holder.communicate(timeout=10)

    @property
    def seen(self) -> Path:
        """The folder of the disk, from outside."""
        return Path(f"/proc/{self._holder.pid}/root{self._folder}")

    def grow(self, megabytes: int) -> None:
        """Make space."""
        remount = ["mount", "-o", f"remount,size={megabytes}m", str(self._folder)]
        subprocess.run([*self.prefix, *remount], check=True)
