"""Locks on files, released by the kernel when their holder ends, however it ends: short ones, and claims."""

import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path

from store.errors import StoreError

POLL_SECONDS = 0.003


@contextmanager
def file_lock(path: Path, *, timeout_seconds: float = 300.0) -> Iterator[None]:
    """Hold an exclusive lock on `path`, between threads and between processes.

    The lock belongs to the open file, not to the file's existence: a killed process leaves nothing to clean up, so
    there are no stale locks to recognise. On NFS Linux turns it into a server-side lock (NFSv4, or v3 with lockd).

    Args:
        path: Made if absent, with its folder, and left in place.
        timeout_seconds: How long to wait for another holder.

    Raises:
        StoreError: Another process kept the lock for `timeout_seconds`.
    """
    deadline = time.monotonic() + timeout_seconds
    while (descriptor := _try_lock(path)) is None:
        if time.monotonic() > deadline:
            raise StoreError(
                f"{path} has been locked by another process for {timeout_seconds:.0f} s, expected a moment: "
                f"is one suspended? End it (`fuser {path}` names it) and run again"
            )
        time.sleep(POLL_SECONDS)
    try:
        yield
    finally:
        _unlock(descriptor)
        os.close(descriptor)


class Claims:
    """Which content keys this process works on, told to other processes by a locked byte for each key.

    The file stays empty: a byte's place is the start of its key. Claims are a courtesy that saves work done twice;
    nothing depends on them. Within one process they exclude nobody.

    Args:
        path: Made if absent, with its folder, and left in place. Open while anything is claimed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._held: set[str] = set()
        self._file: FileIO | None = None

    def take(self, keys: Sequence[str]) -> list[str]:
        """Claim what no other process has claimed, and return it."""
        self._path.parent.mkdir(parents=True, exist_ok=True)  # gone when its space was dropped meanwhile
        self._file = file = self._file or FileIO(self._path, "ab")
        taken = [key for key in keys if _lock_byte(file.fileno(), _place(key))]
        self._held.update(taken)
        return taken

    def free(self, keys: Iterable[str]) -> None:
        """Give claims back."""
        if self._file is None:
            return
        for key in self._held.intersection(keys):
            _unlock_byte(self._file.fileno(), _place(key))
            self._held.remove(key)
        if not self._held:
            self._file.close()
            self._file = None


def _place(key: str) -> int:
    return int(key[:7], 16)  # 28 bits, which every file system can address


def _try_lock(path: Path) -> int | None:
    """Return a locked descriptor, or None when it is held elsewhere or the file was deleted meanwhile."""
    path.parent.mkdir(parents=True, exist_ok=True)  # gone when its space was dropped meanwhile
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    locked = False
    try:
        locked = _lock(descriptor) and _is_at(descriptor, path)
    finally:
        if not locked:
            os.close(descriptor)
    return descriptor if locked else None


def _is_at(descriptor: int, path: Path) -> bool:
    """Tell whether the open file is still the one at `path`: a dropped space takes its lock file with it."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> bool:
        with suppress(OSError):
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            return True
        return False

    def _unlock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)

    def _lock_byte(descriptor: int, place: int) -> bool:
        os.lseek(descriptor, place, os.SEEK_SET)
        return _lock(descriptor)

    def _unlock_byte(descriptor: int, place: int) -> None:
        os.lseek(descriptor, place, os.SEEK_SET)
        with suppress(OSError):
            _unlock(descriptor)
else:
    import fcntl

    def _lock(descriptor: int) -> bool:
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        return False

    def _unlock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # not only closed: a forked child may hold the descriptor too

    def _lock_byte(descriptor: int, place: int) -> bool:
        with suppress(BlockingIOError, PermissionError):  # EAGAIN or EACCES, as POSIX has it
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
            return True
        return False

    def _unlock_byte(descriptor: int, place: int) -> None:
        fcntl.lockf(descriptor, fcntl.LOCK_UN, 1, place)
