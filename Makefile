# Copyright: (c) 2026, arcfleet.ssh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# What can be done in this checkout? `make help` lists it. Needs git, make and Python 3.11 or later; brings the rest itself.

.DEFAULT_GOAL := help
export LC_ALL := C.UTF-8

in_venv := PATH="$(CURDIR)/.venv/bin:$$PATH"
gates := $(in_venv) python tests/tools/gates.py

.PHONY: help
help: ## list what can be made
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | while IFS='	' read -r target what; do printf '%-15s %s\n' "$$target" "$$what"; done

.PHONY: setup
setup: ## make the virtual environment and install what `make demo` needs
	@bash tests/tools/setup.sh lab

.PHONY: setup-all
setup-all: ## the same for `make test` and everything else
	@bash tests/tools/setup.sh lint

.PHONY: setup-machines
setup-machines: ## the same for `make test-machines`; as root also the Debian packages that it needs
	@bash tests/tools/setup.sh machines

.PHONY: demo
demo: setup ## enable, list and ping a fleet of lab machines; nothing outside this machine is touched
	@$(in_venv) bash tests/demo/run.sh

.PHONY: test
test: setup-all ## every check there is; what cannot run here is named with its reason
	@$(gates)

.PHONY: lint
lint: setup-all ## style, types, documentation, changelog, rules of the house
	@$(gates) lint

.PHONY: units
units: setup-all ## the unit tests
	@$(gates) units

.PHONY: integration
integration: setup-all ## the tests on the lab
	@$(gates) integration

.PHONY: test-machines
test-machines: setup-machines ## the tests on Debian machines with systemd and sshd of their own; root only
	@$(gates) machines

.PHONY: sanity
sanity: setup-all ## ansible-test sanity
	@$(gates) sanity

.PHONY: bench
bench: setup-all ## measure beside other tools and write docs/benchmarks.md; takes over an hour, alone on the machine
	@$(in_venv) python tests/bench

.PHONY: soak
soak: setup-all ## thirty days of drift in a fleet of a hundred, and what the reports tell of it; a part of `make bench`
	@$(in_venv) python tests/bench soak

.PHONY: build
build: setup-all ## the collection's artifact, in build/, checked
	@$(gates) build
	@ls build/*.tar.gz

.PHONY: docs
docs: setup-all ## the documentation of modules, plugins and roles as HTML, in build/docs/html
	@$(in_venv) bash tests/tools/docs.sh

.PHONY: clean
clean: ## remove everything that was made here, the virtual environments too
	@awk -v below="$(CURDIR)/.cache/" 'index($$2, below) == 1 { print $$2 }' /proc/self/mounts 2>/dev/null | sort -r | xargs -r umount --lazy
	rm -rf build .cache .venv .venv-* .ansible .lab .mypy_cache .pytest_cache .ruff_cache tests/output
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
