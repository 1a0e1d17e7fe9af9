# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Do secrets rest where only their owner can read them, whole, and asked for once?"""

from __future__ import annotations

import multiprocessing
import os
import pathlib
import stat
import threading

import pytest

from ansible_collections.arcfleet.ssh.plugins.module_utils._errors import InputError
from ansible_collections.arcfleet.ssh.plugins.module_utils._relay._cache import Cache, default_directory


@pytest.fixture
def cache(tmp_path: pathlib.Path) -> Cache:
    return Cache(str(tmp_path / "deep" / "relay"))


def test_default_directory_follows_xdg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert default_directory({"XDG_CACHE_HOME": "/c"}) == "/c/arcfleet/relay"
    assert default_directory({"XDG_CACHE_HOME": "relative"}) == "/home/me/.cache/arcfleet/relay"
    assert default_directory({}) == "/home/me/.cache/arcfleet/relay"


def test_files_are_private_whatever_the_umask(cache: Cache) -> None:
    before = os.umask(0)
    try:
        cache.write("a.json", {"x": 1})
        with cache.lock("a.json"):
            pass
    finally:
        os.umask(before)
    directory = pathlib.Path(cache.directory)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in directory.iterdir()} == {0o600}
    assert cache.read("a.json") == {"x": 1}


def test_write_replaces_and_leaves_nothing_behind(cache: Cache) -> None:
    cache.write("a.json", {"x": 1})
    cache.write("a.json", {"x": 2})
    assert cache.read("a.json") == {"x": 2}
    assert os.listdir(cache.directory) == ["a.json"]
    cache.remove("a.json")
    cache.remove("a.json")
    assert cache.read("a.json") is None


def test_a_write_that_fails_keeps_the_old_file(cache: Cache) -> None:
    cache.write("a.json", {"x": 1})
    with pytest.raises(InputError, match="cannot be written"):
        cache.write("a.json/b", {})
    with pytest.raises(TypeError):
        cache.write("a.json", {"x": object()})
    assert os.listdir(cache.directory) == ["a.json"]
    assert cache.read("a.json") == {"x": 1}


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[1]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"x": 1}' + b" " * 300_000]
)
def test_damaged_files_are_as_good_as_missing(cache: Cache, content: bytes) -> None:
    file = pathlib.Path(cache.directory, "a.json")
    file.touch(0o600)
    file.write_bytes(content)
    assert cache.read("a.json") is None or content.startswith(b'{"x"')
    cache.write("a.json", {"x": 2})
    assert cache.read("a.json") == {"x": 2}


def test_foreign_files_are_ignored_and_replaced(cache: Cache, tmp_path: pathlib.Path) -> None:
    cache.write("a.json", {"x": 1})
    file = pathlib.Path(cache.directory, "a.json")
    file.chmod(0o640)
    assert cache.read("a.json") is None
    cache.write("a.json", {"x": 2})
    assert cache.read("a.json") == {"x": 2}
    elsewhere = tmp_path / "elsewhere"
    file.rename(elsewhere)
    file.symlink_to(elsewhere)
    assert cache.read("a.json") is None
    cache.write("a.json", {"x": 3})
    assert not file.is_symlink()
    assert elsewhere.read_text() == '{"x": 2}'
    file.unlink()
    os.mkfifo(file, 0o600)
    assert cache.read("a.json") is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_files_and_directories_of_others_are_refused(cache: Cache) -> None:
    cache.write("a.json", {"x": 1})
    os.chown(os.path.join(cache.directory, "a.json"), 65534, 65534)
    assert cache.read("a.json") is None
    os.chown(cache.directory, 65534, 65534)
    with pytest.raises(InputError, match="another user"):
        Cache(cache.directory)


def test_directory_must_be_private(tmp_path: pathlib.Path) -> None:
    tmp_path.chmod(0o755)
    with pytest.raises(InputError, match=r"mode 0755.*--cache-dir"):
        Cache(str(tmp_path))
    tmp_path.chmod(0o700)
    Cache(str(tmp_path)).close()
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(InputError, match="symbolic link"):
        Cache(str(tmp_path / "link"))
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be used"):
        Cache(str(tmp_path / "file"))
    with pytest.raises(InputError, match="cannot be used"):
        Cache(str(tmp_path / "file" / "below"))


def test_the_directory_cannot_be_exchanged(cache: Cache, tmp_path: pathlib.Path) -> None:
    os.rename(cache.directory, tmp_path / "moved")
    (tmp_path / "deep" / "relay").mkdir(mode=0o777)
    cache.write("a.json", {"x": 1})
    assert os.listdir(tmp_path / "deep" / "relay") == []
    assert os.listdir(tmp_path / "moved") == ["a.json"]


def test_lock_holds_between_threads(cache: Cache) -> None:
    inside, most = 0, 0

    def work() -> None:
        nonlocal inside, most
        for _dummy in range(20):
            with cache.lock("a.json"):
                inside += 1
                most = max(most, inside)
                cache.write("a.json", {"x": (cache.read("a.json") or {"x": 0})["x"] + 1})
                inside -= 1

    threads = [threading.Thread(target=work) for _dummy in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert cache.read("a.json") == {"x": 120}


def _die_with_the_lock(directory: str, ready: multiprocessing.synchronize.Event) -> None:
    with Cache(directory).lock("a.json"):
        ready.set()
        os._exit(1)


def test_a_process_that_dies_frees_its_lock(cache: Cache) -> None:
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    process = context.Process(target=_die_with_the_lock, args=(cache.directory, ready))
    process.start()
    process.join(10)
    assert ready.is_set()
    with cache.lock("a.json"):
        pass
