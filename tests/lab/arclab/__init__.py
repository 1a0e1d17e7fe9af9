# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is arclab?

A stand-in for Azure, the relay and the agents of Arc machines, as strict as they are; see README.md.
"""
