"""A store's files at an fsspec URL: an object store, a web server's folder, memory."""

import errno
import io
import logging
import os
import socket
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from store.errors import InputError, StoreError
from store.vectors.files import Readable, Stamp

WAIT_SECONDS = 300.0
LEFT_SECONDS = 60.0  # a commit takes seconds
POLL_SECONDS = 0.2


class RemoteFiles:
    """Files below an fsspec URL. Objects are replaced in one step.

    A lock is an object that is made only where there is none, and deleted when it is given back. A server that cannot
    make objects on that condition (Amazon's S3 and most like it can) has no lock: one writer at a time, of which the
    first commit warns.
    """

    n_threads = 8  # latency, not bandwidth, is what costs

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        from fsspec.core import url_to_fs  # type: ignore[import-untyped]

        self.url = url
        self._is_tried = False
        try:
            self._fs, self._root = url_to_fs(url, **options)
        except (ImportError, ValueError) as error:
            extra = ". Install it: pip install 'embedonce[s3]'" if url.startswith("s3") else ""
            raise InputError(f"store {url!r} cannot be opened: {error}{extra}") from error

    def open(self, name: str) -> Readable:
        """Fetch a whole object. Raises FileNotFoundError."""
        with self._asking(f"read {name} of"):
            return io.BytesIO(self._fs.cat_file(self._path(name)))

    def write(self, name: str, *parts: Any, sync: bool = False) -> None:  # noqa: ARG002 - an object store always syncs
        """Replace or make an object of these parts."""
        with self._asking("write to"), self._needing_its_bucket():
            self._fs.pipe_file(self._path(name), b"".join(bytes(part) for part in parts))

    def delete(self, name: str) -> None:
        """Delete an object, or all below a prefix; nothing happens if there is none."""
        self._fs.invalidate_cache()
        with self._asking("delete from"), suppress(FileNotFoundError):
            self._fs.rm(self._path(name), recursive=True)

    def names(self, folder: str) -> list[str]:
        """Return the names of the objects and prefixes directly in `folder`, sorted; empty if there is none."""
        return sorted(_last(entry["name"]) for entry in self._entries(folder))

    def stamps(self, folder: str) -> dict[str, Stamp]:
        """Return name -> what the listing says about the object: size, entity tag, time."""
        return {
            _last(entry["name"]): tuple(str(entry[key]) for key in sorted(entry))
            for entry in self._entries(folder)
            if entry["type"] == "file"
        }

    def sizes(self, folder: str) -> dict[str, int | None]:
        """Return name -> size in bytes of the objects directly in `folder`; None where the listing does not say."""
        return {_last(entry["name"]): entry["size"] for entry in self._entries(folder) if entry["type"] == "file"}

    def n_bytes(self, folder: str) -> int:
        """Return the size of all objects below `folder`."""
        self._fs.invalidate_cache()
        with self._asking("list"), suppress(FileNotFoundError):
            return int(self._fs.du(self._path(folder)))
        return 0

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold an exclusive lock, for the moment of a commit.

        Raises:
            StoreError: Another process writes without a gap.
        """
        mine = f"{socket.gethostname()}, process {os.getpid()}, {uuid.uuid4().hex}".encode()
        self._wait_for(name, mine)
        try:
            self._warn_without_locks(name, mine)
            yield
        finally:
            if self._holder(name) == mine:
                self.delete(name)

    def _wait_for(self, name: str, mine: bytes) -> None:
        """Make the lock's object; one that stays the same for long was left by a killed process."""
        deadline, seen, since = time.monotonic() + WAIT_SECONDS, None, time.monotonic()
        while not self._make(name, mine):
            holder, now = self._holder(name), time.monotonic()
            if holder != seen:
                seen, since = holder, now
            elif now - since > LEFT_SECONDS and holder is not None:
                self.delete(name)
            if now > deadline:
                who = (holder or b"").decode().rpartition(", ")[0] or "another process"
                raise StoreError(
                    f"the store {self.url} is being written to by {who}, for {WAIT_SECONDS:.0f} s "
                    "without a gap: run again when it has finished"
                )
            time.sleep(POLL_SECONDS)

    def _make(self, name: str, data: bytes) -> bool:
        """Make an object, and tell whether that was possible because there was none."""
        try:
            with self._asking("write to"), self._needing_its_bucket():
                try:
                    self._fs.pipe_file(self._path(name), data, mode="create")
                except FileExistsError:
                    return False
                except (NotImplementedError, TypeError):  # no such mode: no lock
                    self._fs.pipe_file(self._path(name), data)
        except StoreError as error:
            if getattr(error.__cause__, "errno", None) != errno.ENOSYS:
                raise
        return True

    def _warn_without_locks(self, name: str, mine: bytes) -> None:
        """Try once whether the lock, which is held, could be made again; only a request tells what a server can do."""
        if self._is_tried:
            return
        self._is_tried = True
        if self._tests_before_it_writes() or self._make(name, mine):
            logging.getLogger(__name__).warning(
                "warning: %s cannot lock the store: let only one process at a time write to it, or rows may be lost",
                self.url,
            )

    def _tests_before_it_writes(self) -> bool:
        """Tell whether making an object only where there is none is two requests, between which others may come."""
        from fsspec.spec import AbstractFileSystem  # type: ignore[import-untyped]

        return getattr(self._fs.pipe_file, "__func__", None) is AbstractFileSystem.pipe_file

    def _holder(self, name: str) -> bytes | None:
        with suppress(FileNotFoundError):
            return self.open(name).read()
        return None

    def claims(self, name: str) -> None:
        """Return None."""

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}".rstrip("/")

    def _entries(self, folder: str) -> list[dict[str, Any]]:
        self._fs.invalidate_cache()  # others write, too
        with self._asking("list"):
            try:
                return list(self._fs.ls(self._path(folder), detail=True))
            except FileNotFoundError as error:
                if error.__cause__ is not None:  # the server's own word about the bucket, not an empty prefix
                    raise self._no_bucket(error) from error
                return []

    @contextmanager
    def _asking(self, what: str) -> Iterator[None]:
        """Turn whatever the server or the client library raises into a StoreError; bugs stay what they are."""
        try:
            yield
        except (FileNotFoundError, StoreError):
            raise
        except Exception as error:
            if not isinstance(error, OSError) and type(error).__module__ == "builtins":
                raise
            reason = " ".join(str(error).split()) or type(error).__name__
            raise StoreError(f"cannot {what} the store {self.url}: {reason}. {_remedy(error, self.url)}") from error

    @contextmanager
    def _needing_its_bucket(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise self._no_bucket(error) from error

    def _no_bucket(self, error: Exception) -> StoreError:
        return StoreError(f"the store {self.url} has no place: {error}. Make the bucket, or choose another --store")


def _remedy(error: Exception, url: str) -> str:
    """Return what to do; nothing that the store held is harmed by a request that failed."""
    s3 = url.startswith("s3")
    if isinstance(error, PermissionError) or "redential" in type(error).__name__:
        where = " (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile in ~/.aws)" if s3 else ""
        return f"Give credentials that may do it{where} and run again"
    where = " (AWS_ENDPOINT_URL for a server of your own)" if s3 else ""
    return f"Check its address{where} and the network, and run again"


def _last(path: str) -> str:
    return path.rstrip("/").rsplit("/", 1)[-1]
