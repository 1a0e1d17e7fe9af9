# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Are the results of several passes joined by kind?"""

from __future__ import annotations

from ansible_collections.arcfleet.ssh.plugins.filter.findings import findings


def test_results_of_the_passes_that_were_made_are_joined():
    found = {
        "looked": {"service_configuration": [{"machines": {"a": 1}}]},
        "canaries": {"service_configuration": [{"machines": {"b": 2}}], "extension": []},
        "rest": {"service_configuration": [{"machines": {"c": 3}}, {"failed": True}], "extension": [{"machines": {}}]},
    }
    assert findings(found, ["canaries", "rest", "visit_rest"]) == {
        "service_configuration": [{"machines": {"b": 2}}, {"machines": {"c": 3}}, {"failed": True}],
        "extension": [{"machines": {}}],
    }
    assert len(found["canaries"]["service_configuration"]) == 1, "what was found is not changed"
