# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What do all forms of a drift report do alike?

Pure. Texts come from Azure and from machines. Which characters XML 1.0 allows is said in its section 2.2; those that turn the direction of
text around are taken out as well, because they make a line read as what it is not. Private to arcfleet.ssh.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

_UNFIT = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)


def fit(text: str) -> str:
    """The text with every character replaced that XML cannot hold or that deceives its reader."""
    return _UNFIT.sub("\ufffd", text)


def state(value: Any) -> str:
    """The state of a resource, or one property of it, in one line."""
    if value is None:
        return "nothing"
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {_compact(value[name])}" for name in sorted(value, key=str))
    return _compact(value)


def _compact(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)


def sides(step: Mapping[str, Any]) -> tuple[str, str]:
    """What a resource is, and what it shall be; of an update, the properties that differ."""
    before, after = step["before"], step["after"]
    if isinstance(before, Mapping) and isinstance(after, Mapping) and before != after:
        differing = [name for name in {**before, **after} if before.get(name) != after.get(name)]
        before, after = ({name: side.get(name) for name in differing} for side in (before, after))
    return state(before), state(after)


def moment(text: str) -> float:
    """An ISO 8601 time of a report, in seconds since 1970."""
    return datetime.fromisoformat(text).timestamp()


def duration(reported: Mapping[str, Any]) -> float:
    """How long the run took, in seconds; 0 where the clock was set back meanwhile."""
    return max(0.0, moment(reported["ended"]) - moment(reported["begun"]))
