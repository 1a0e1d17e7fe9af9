# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does the cloud describe itself in the shape of each version?"""

from __future__ import annotations

import pytest

from arclab.http import ArmFailure
from arclab.metadata import endpoints

URL = "https://127.0.0.1:4711"


@pytest.mark.parametrize("version", ["2019-05-01", "2020-06-01"])
def test_the_middle_versions_are_lists_of_clouds(version: str) -> None:
    body = endpoints(URL, version).body
    assert [cloud["resourceManager"] for cloud in body] == [URL + "/"]
    assert body[0]["authentication"]["loginEndpoint"] == URL + "/"


@pytest.mark.parametrize("version", ["2022-09-01", "latest"])
def test_the_newest_version_is_one_cloud(version: str) -> None:
    body = endpoints(URL, version).body
    assert body["resourceManager"] == URL + "/"
    assert URL + "/" in body["authentication"]["audiences"]
    assert "suffixes" in body


def test_the_oldest_version_has_the_old_names() -> None:
    body = endpoints(URL, "2015-01-01").body
    assert set(body) == {"galleryEndpoint", "graphEndpoint", "portalEndpoint", "authentication"}
    assert set(body["authentication"]) == {"loginEndpoint", "audiences"}


@pytest.mark.parametrize(
    ("version", "code"), [(None, "MissingApiVersionParameter"), ("1999-01-01", "InvalidApiVersionParameter")]
)
def test_other_versions_are_refused(version: str | None, code: str) -> None:
    with pytest.raises(ArmFailure) as refused:
        endpoints(URL, version)
    assert (refused.value.status, refused.value.code) == (400, code)
