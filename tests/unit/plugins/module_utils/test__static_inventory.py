# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does YAML read from a static inventory what was written into it, and is it replaced or left alone as it should be?"""

from __future__ import annotations

import math
import pathlib
import random
import stat
from typing import Any

import pytest
import yaml

from ansible_collections.arcfleet.ssh.plugins.module_utils._errors import InputError
from ansible_collections.arcfleet.ssh.plugins.module_utils._static_inventory import TITLE, render, write

NASTY = [
    "",
    " ",
    "yes",
    "0123",
    "1e3",
    "12:30:45",
    "2026-01-01",
    "null",
    "~",
    "!!python/object/apply:os.system ['true']",
    "!unsafe x",
    "&a *a",
    'it\'s "quoted" \\ \\n',
    "two\nlines\r\n\ttab \x00\x07\x1b\x7f\x85\xa0\u2028\u2029\ufeff\ufffe end ",
    "# no comment",
    "a: b, {c: [d]}",
    "- ? :",
    "\u00fcml\u00e4ut \u65e5\u672c \U0001f600",
    "%TAG ! x",
    "---",
    "x" * 5000,
]
TEMPLATES = ["{{ lookup('pipe', 'id') }}", "{% if x %}", "{# x #}", "\u00fc\n{{ x }}", '"{{']
NUMBERS: list[Any] = [0, -1, 2**70, 1.0, 1e-7, 1e16, -2.5e300, 0.1, math.inf, -math.inf, True, False, None]


def load(text: str, loader: Any = None) -> Any:
    """What YAML says, and the texts that are marked as data."""
    marked: list[str] = []

    class Loader(loader or yaml.SafeLoader):  # type: ignore[misc]
        pass

    def unsafe(reader: Any, node: Any) -> str:
        marked.append(reader.construct_scalar(node))
        return marked[-1]

    Loader.add_constructor("!unsafe", unsafe)
    return yaml.load(text, Loader), marked


LOADERS = [yaml.SafeLoader, *([yaml.CSafeLoader] if yaml.__with_libyaml__ else [])]


@pytest.mark.parametrize("loader", LOADERS)
def test_every_value_is_read_as_it_was(loader: Any) -> None:
    variables = {
        "texts": NASTY + TEMPLATES,
        "numbers": NUMBERS,
        "keys": {key: [{key: {}}] for key in NASTY + TEMPLATES},
        "empty": [{}, []],
        "whole": "{{ x }}",
        **{f"v{number}": text for number, text in enumerate(NASTY)},
    }
    read, marked = load(render({"web01": variables}, {}), loader)
    assert read == {"all": {"hosts": {"web01": variables}}}
    assert [type(one) for one in read["all"]["hosts"]["web01"]["numbers"]] == [type(one) for one in NUMBERS]
    assert sorted(marked) == sorted([*TEMPLATES, "{{ x }}"])


def test_whatever_text_there_is_is_read_as_it_was() -> None:
    source = random.Random(6)
    alphabet = [chr(code) for code in range(0x180)] + list(
        "\u2027\u2028\u2029\u202a\ud7ff\ue000\ufeff\uffff\U0010ffff{}%#"
    )
    texts = ["".join(source.choices(alphabet, k=source.randrange(40))) for _number in range(400)]
    for loader in LOADERS:
        read, _marked = load(render({"web01": {"texts": texts, "keys": {text: 1 for text in texts}}}, {}), loader)
        assert read["all"]["hosts"]["web01"] == {"texts": texts, "keys": {text: 1 for text in texts}}


def test_groups_have_the_hosts_that_there_are_and_no_others() -> None:
    groups = {
        "all": ["web01", "db01"],
        "ungrouped": ["db01"],
        "web": ["web01", "gone", "web01"],
        "hosts": ["db01", "web01"],
        "empty": [],
        "not-a-name": ["gone"],
    }
    read, _marked = load(render({"web01": {}, "db01": {"a": 1}}, groups))
    assert read["all"]["children"] == {
        "hosts": {"hosts": {"db01": None, "web01": None}},
        "web": {"hosts": {"web01": None}},
    }
    assert load(render({}, groups))[0] == {"all": {"hosts": {}}}


@pytest.mark.parametrize("name", ["web[01:10]", "web01:22", "two words", "", "{{ x }}", "a\nb", "a,b"])
def test_names_that_mean_more_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="host's name"):
        render({"web01": {}, name: {}}, {})
    with pytest.raises(InputError, match="group's name"):
        render({"web01": {}}, {name: ["web01"]})


@pytest.mark.parametrize(
    "name",
    "ansible_password ansible_become_pass ansible_ssh_pass ansible_become_password ansible_ssh_private_key vault_db "
    "ansible_vault_x db_secret API_TOKEN ansible_ssh_private_key_passphrase arc_auth".split(),
)
def test_secrets_are_refused_by_their_names_and_not_shown(name: str) -> None:
    with pytest.raises(InputError) as caught:
        render({"web01": {"ansible_ssh_private_key_file": "x"}, "db01": {name: "hunter2"}}, {})
    assert name in str(caught.value)
    assert "db01" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(InputError, match="web01"):
        render({"web01": {"a": "\udc80"}}, {})


@pytest.fixture
def path(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "inventory"
    folder.mkdir(mode=0o755)
    return folder / "arc.yml"


def test_a_file_is_written_told_and_removed(path: pathlib.Path) -> None:
    text = render({"web01": {"a": 1}, "db01": {}}, {"web": ["web01"]})
    predicted = write(str(path), text, check_mode=True)
    assert not path.exists()
    done = write(str(path), text, check_mode=False)
    assert done == predicted
    assert (done.changed, done.counts["created"]) == (True, 2)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not write(str(path), text, check_mode=False).changed

    done = write(str(path), render({"web01": {"a": 1}, "new01": {}}, {"db": ["web01"]}), check_mode=False)
    assert done.counts == {"created": 1, "updated": 1, "deleted": 1, "unchanged": 0}
    assert done.before == {"web01": ['{"a": 1}', "in web"], "db01": ["{}"]}
    assert done.after == {"web01": ['{"a": 1}', "in db"], "new01": ["{}"]}

    assert write(str(path), None, check_mode=True).counts["deleted"] == 2
    assert path.exists()
    assert write(str(path), None, check_mode=False).changed
    assert not path.exists()
    assert not write(str(path), None, check_mode=False).changed


def test_what_is_somebody_else_s_is_left_alone(path: pathlib.Path) -> None:
    path.write_text("all: {}\n", encoding="utf-8")
    for text in (f"{TITLE}\n", None):
        with pytest.raises(InputError, match="not written by"):
            write(str(path), text, check_mode=False)
    assert path.read_text(encoding="utf-8") == "all: {}\n"
    with pytest.raises(InputError, match=r"\.yml"):
        write(str(path.with_suffix(".txt")), None, check_mode=False)
    # Whoever may write to a directory may put a link there.
    path.unlink()
    path.parent.chmod(0o777)
    with pytest.raises(InputError, match="others may write"):
        write(str(path), f"{TITLE}\n", check_mode=False)
