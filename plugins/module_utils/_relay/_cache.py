# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where do secrets rest between two processes, and which of many processes asks for them?

One small JSON file each for relay credentials and logins, 0600 in a directory 0700 of the same user, replaced
atomically; whoever holds the lock of a name asks Azure, the others wait and find the answer. The directory is opened
once and all work goes through that handle, so that nobody can put another one in its place. Private to arcfleet.ssh.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

# A file of credentials is some 4 KB; anything much larger is not ours.
_LARGEST = 256 * 1024


def default_directory(environ: Mapping[str, str] | None = None) -> str:
    """`$XDG_CACHE_HOME/arcfleet/relay`; a relative XDG_CACHE_HOME does not count (XDG Base Directory Specification)."""
    base = (os.environ if environ is None else environ).get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):
        base = os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(base, "arcfleet", "relay")


class Cache:
    """The files of one directory. Safe between processes and threads; raises InputError for a directory that is not
    private."""

    def __init__(self, directory: str | None = None) -> None:
        self.directory = os.path.abspath(os.path.expanduser(directory)) if directory else default_directory()
        self._handle = _open_directory(self.directory)

    def close(self) -> None:
        """Let go of the directory."""
        os.close(self._handle)

    def read(self, name: str) -> dict[str, Any] | None:
        """What `write` left under `name`; `None` for a file that is missing, damaged, or of another owner or mode."""
        try:
            content = json.loads(self.read_bytes(name) or b"")
        except (ValueError, RecursionError):
            return None
        return content if isinstance(content, dict) else None

    def read_bytes(self, name: str, *, largest: int = _LARGEST) -> bytes | None:
        """The file's content, its first `largest` bytes at most; `None` for one that is missing, or of another owner or mode."""
        try:
            handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self._handle)
        except OSError:
            return None
        try:
            if not _is_private(os.fstat(handle), stat.S_ISREG):
                return None
            with open(handle, "rb", closefd=False) as file:
                return file.read(largest)
        except OSError:
            return None
        finally:
            os.close(handle)

    def write(self, name: str, content: Mapping[str, Any]) -> None:
        """Replace `name`. A reader sees the old file or the new one, even if this process dies here."""
        self.write_bytes(name, json.dumps(content).encode())

    def write_bytes(self, name: str, data: bytes, *, mode: int = 0o600) -> None:
        """Replace `name` by a file with this content, as `write` does; `mode` for one that is no secret but a program."""
        draft = f".{name}.{os.getpid()}.{os.urandom(4).hex()}"
        try:
            handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode, dir_fd=self._handle)
            try:
                with open(handle, "wb") as file:
                    file.write(data)
                os.replace(draft, name, src_dir_fd=self._handle, dst_dir_fd=self._handle)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(draft, dir_fd=self._handle)
                raise
        except OSError as exc:
            raise _refused(self.directory, f"cannot be written ({exc.strerror})") from exc

    def remove(self, name: str) -> None:
        """Forget `name`, if it is there."""
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=self._handle)

    @contextlib.contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Only one process and thread at a time works on `name`. The kernel frees the lock of a process that dies."""
        try:
            handle = os.open(
                f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=self._handle
            )
        except OSError as exc:
            raise _refused(self.directory, f"cannot be written ({exc.strerror})") from exc
        try:
            # A file system without locks costs requests, not correctness: writing is atomic anyway.
            with contextlib.suppress(OSError):
                fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)


def _open_directory(path: str) -> int:
    try:
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as exc:
        what = "is a symbolic link" if os.path.islink(path) else f"cannot be used ({exc.strerror})"
        raise _refused(path, what) from exc
    status = os.fstat(handle)
    if _is_private(status, stat.S_ISDIR):
        return handle
    os.close(handle)
    if status.st_uid != os.geteuid():
        raise _refused(path, "belongs to another user")
    raise _refused(path, f"is open to others (mode {stat.S_IMODE(status.st_mode):04o}; chmod 0700 mends that)")


def _is_private(status: os.stat_result, kind: Any) -> bool:
    return bool(kind(status.st_mode)) and status.st_uid == os.geteuid() and not status.st_mode & 0o077


def _refused(path: str, why: str) -> Exception:
    from .._errors import InputError

    return InputError(
        f"The directory {path} for relay credentials {why}.",
        hint="It has to be a directory of the user who connects, with mode 0700; or name another one with --cache-dir.",
    )
