# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0

ifeq ($(wildcard requirements/bootstrap.sh),)
$(error start it in its own folder: make -C $(dir $(lastword $(MAKEFILE_LIST))))
endif

PYTHON ?= python3
INVENTORY ?= inventories/local
ARGS ?=
LINES ?= 40
LEVEL ?=
SINCE ?=
RAW ?=
BACKUP ?= newest
ACTION ?=
CONFIRM ?=
FORGET ?=
COVERED ?= tests
PART ?=
KEYS ?= all
FROM ?=
IMAGE ?= auto
MUTANTS ?= *
# A third of a test is waiting for others: one process more than the two cores of a small machine.
PROCESSES ?= 3
JOBS ?= 2

# What an interactive Python reads, one of another installation, or a developer's, is nothing for the tools. Without
# bytecode, as many an image of a container has it, a play takes an eighth longer.
unexport PYTHONHOME PYTHONPATH PYTHONSAFEPATH PYTHONSTARTUP PYTHONDEVMODE PYTHONINSPECT PYTHONWARNINGS
unexport PYTHONDONTWRITEBYTECODE

# Ansible starts in no other encoding.
ifneq ($(filter C POSIX,$(LC_ALL)),)
export LC_ALL := C.UTF-8
endif

VENV := .venv
TEST_VENV := .venv-test
COLLECTION := .ansible/collections/ansible_collections/hermes/workers
# What was typed, as one word of the shell's, whatever quotes are in it.
QUOTE := '
quoted = '$(subst $(QUOTE),$(QUOTE)\$(QUOTE)$(QUOTE),$(1))'
say = -e $(call quoted,$(1)="$(2)")
PLAY = $(VENV)/bin/python requirements/play.py -i $(call quoted,$(if $(strip $(INVENTORY)),$(INVENTORY),inventories/local))
BOOTSTRAP := sh requirements/bootstrap.sh $(PYTHON)
# The tests' own environment comes first; plays in tests run from $(VENV), like a user's.
WITH_TOOLS := PATH="$(CURDIR)/$(TEST_VENV)/bin:$$PATH"
IN_CHECKOUT := $(WITH_TOOLS) ANSIBLE_CONFIG="$(CURDIR)/ansible.cfg" \
	ANSIBLE_COLLECTIONS_PATH="$(CURDIR)/.ansible/collections"
WITH_STAND_IN := $(WITH_TOOLS) PYTHONPATH="$(CURDIR)/.ansible/collections"
# What users would install, for the checks of its documentation.
PACKED := .ansible/packed

.DEFAULT_GOAL := help
.PHONY: help deploy verify rotate-keys status logs backup restore lifecycle pair destroy test test-python test-worker test-molecule mutants lint lint-quick sanity coverage docs bench record rehearse live generate upgrade release lock bump tools test-tools worker-tools

help: ## Show the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' $(MAKEFILE_LIST) | awk -F '\t' '{printf "  %-12s %s\n", $$1, $$2}'
	@echo '  Further variables for a play: make deploy ARGS="-e hermes_port=9000"'

deploy: tools ## Deploy Hermes on this machine and prove it by a chat
	@$(PLAY) playbooks/deploy.yml $(ARGS)

verify: tools ## Prove the deployment by a chat, even when nothing changed
	@$(PLAY) playbooks/verify.yml $(ARGS)

rotate-keys: tools ## Rotate keys without a failed request (KEYS=api_token,provider_keys; all by default)
	@$(PLAY) playbooks/rotate_keys.yml $(call say,hermes_keys,$(KEYS)) $(ARGS)

status: tools ## Tell what the deployment does now
	@$(PLAY) playbooks/status.yml $(ARGS)

logs: tools ## Show the logs (LINES=40 of each, LEVEL=warn, SINCE=10m or 14:30, RAW=yes as they were written)
	@$(PLAY) playbooks/logs.yml $(call say,hermes_log_lines,$(LINES)) $(if $(LEVEL),$(call say,hermes_log_level,$(LEVEL))) \
	  $(if $(SINCE),$(call say,hermes_log_since,$(SINCE))) $(if $(RAW),$(call say,hermes_log_raw,$(RAW))) $(ARGS)

backup: tools ## Keep a backup of Hermes' state in .hermes/backups
	@$(PLAY) playbooks/backup.yml $(ARGS)

restore: tools ## Put a backup back (BACKUP=newest, or a file)
	@$(PLAY) playbooks/restore.yml $(call say,hermes_backup,$(BACKUP)) $(ARGS)

lifecycle: tools ## Wake, sleep, restart or stop Hermes (ACTION=wake, sleep, sleep-by-force, restart, restart-gateway, stop)
	@$(PLAY) playbooks/lifecycle.yml $(if $(ACTION),$(call say,hermes_action,$(ACTION))) $(ARGS)

pair: tools ## Let in a person whom a channel gave a code (CODE=...), or no longer (REMOVE=telegram:77); without both tell who asks
	@$(PLAY) playbooks/pair.yml $(if $(CODE),$(call say,hermes_pair,$(CODE))) $(if $(REMOVE),$(call say,hermes_unpair,$(REMOVE))) $(ARGS)

destroy: tools ## Take the deployment away; asks first (CONFIRM=yes does not, FORGET=yes drops the memory too)
	@$(PLAY) playbooks/destroy.yml $(if $(CONFIRM),$(call say,hermes_confirm,$(CONFIRM))) \
	  $(if $(CONFIRM)$(FORGET),$(call say,hermes_forget,$(or $(FORGET),no))) $(ARGS)

test: test-python test-worker test-molecule ## Run every test

test-python: tools test-tools worker-tools
	@$(WITH_TOOLS) pytest --numprocesses $(PROCESSES) --dist loadgroup --no-loadscope-reorder --durations 20

test-worker: worker-tools
	@cd worker && PATH="$$(../$(TEST_VENV)/bin/python ../requirements/node_path.py):$$PATH" npm test

test-molecule: tools test-tools
	@$(IN_CHECKOUT) molecule test --all

mutants: tools test-tools worker-tools ## Break each promise and see its test fail (MUTANTS=vault-*, JOBS=2); takes long
	@$(WITH_TOOLS) python -m tests.mutants.run --jobs $(JOBS) "$(MUTANTS)"

lint: lint-quick sanity ## Run every static check
	@$(IN_CHECKOUT) reuse lint --quiet || $(IN_CHECKOUT) reuse lint --lines

lint-quick: test-tools worker-tools ## Run every static check but Ansible's own, which take a minute or two
	@$(IN_CHECKOUT) ansible-lint --offline
	@$(IN_CHECKOUT) yamllint --strict .
	@$(IN_CHECKOUT) antsibull-changelog lint
	@$(IN_CHECKOUT) ruff check .
	@$(IN_CHECKOUT) ruff format --check .
	@$(IN_CHECKOUT) mypy --no-error-summary
	@$(IN_CHECKOUT) shellcheck container/*.sh requirements/*.sh .ci/run
	@rm -rf $(PACKED) && mkdir -p $(PACKED) && $(IN_CHECKOUT) ansible-galaxy collection build --output-path $(PACKED) >/dev/null
	@tar -xzf $(PACKED)/hermes-workers-*.tar.gz -C $(PACKED)
	@$(IN_CHECKOUT) antsibull-docs lint-collection-docs --plugin-docs --skip-rstcheck $(PACKED)
	@cd worker && PATH="$$(../$(TEST_VENV)/bin/python ../requirements/node_path.py):$$PATH" && npm run --silent lint && npm run --silent typecheck

sanity: tools test-tools ## Run Ansible's own checks on what users would install
	@$(IN_CHECKOUT) python -m tools.sanity

coverage: tools test-tools worker-tools ## Map what no test enters, by rooms; takes twice as long as the tests (COVERED=tests/unit for less)
	@rm -rf .cache/coverage && mkdir -p .cache/coverage
	@$(WITH_TOOLS) coverage run -m pytest --numprocesses $(PROCESSES) --dist loadgroup --no-loadscope-reorder $(COVERED) \
	  || echo "Tests failed. The map is of what ran all the same."
	@$(WITH_TOOLS) coverage combine --quiet && $(WITH_TOOLS) coverage json --quiet -o .cache/coverage/python.json
	@cd worker && PATH="$$(../$(TEST_VENV)/bin/python ../requirements/node_path.py):$$PATH" npm run --silent coverage
	@$(WITH_TOOLS) python -m tools.coverage_map .cache/coverage/python.json .cache/coverage/worker/coverage-summary.json

bench: tools test-tools worker-tools ## Measure (PART=channels, features, gate, wake, soak, memory, fleet or fresh); writes benchmarks/results
	@$(WITH_TOOLS) python benchmarks/run.py $(PART)

record: tools test-tools ## Type README's first five minutes in a fresh clone; draws docs/first-five-minutes.svg
	@$(WITH_TOOLS) python -m tests.record

rehearse: INVENTORY = inventories/single
rehearse: tools test-tools ## Rehearse a deployment to Cloudflare on this machine; no account (IMAGE=given builds none)
	@$(WITH_STAND_IN) python -m tests.cloudflare.rehearse --inventory $(call quoted,$(INVENTORY)) --image $(IMAGE) -- $(ARGS)

live: tools test-tools ## Prove it on a real account, which costs cents; only with HERMES_LIVE_* set
	@$(WITH_STAND_IN) python -m tests.cloudflare.live

docs: tools test-tools ## Build the documentation as a site: guides, modules, roles; .cache/docs/html/index.html
	@$(WITH_TOOLS) python -m tools.docs

generate: tools test-tools ## Write what the catalogue of settings decides: documentation, arguments, the Worker's reading
	@$(WITH_TOOLS) python -m tools.generate

upgrade: tools ## Deploy by an earlier release, then by this one, and see what comes along (FROM=v1.0.0); before a release
	@$(VENV)/bin/python -m tests.upgrade "$(FROM)"

release: tools test-tools ## Make a release: version, changelog, commit, tag and tarball (VERSION=1.2.3)
	@$(IN_CHECKOUT) python -m tools.release "$(VERSION)"

lock: ## Compile every lock file again, with hashes
	@for name in requirements/deploy requirements/test host/host roles/worker/files/node; do \
	  uv pip compile --quiet --generate-hashes --universal --no-emit-index-url --no-header --python-version 3.11 \
	    $$name.in -o $$name.lock $(ARGS) || exit 1; done
	@python -m tools.lock_features $(ARGS)
	@python -m tools.lock_programs

bump: test-tools ## Pin another Hermes, lock its packages and show what changes (VERSION=0.20.1); commits nothing
	@$(WITH_TOOLS) python -m tools.bump "$(VERSION)"

# What costs nothing when it is there: a comparison of two files, and a link.
tools:
	@cmp -s requirements/deploy.lock $(VENV)/installed.lock && test -x $(VENV)/bin/python \
	  || $(BOOTSTRAP) $(VENV) requirements/deploy.lock
	@test -e $(COLLECTION)/galaxy.yml || $(BOOTSTRAP) $(COLLECTION) --link

test-tools:
	@cmp -s requirements/test.lock $(TEST_VENV)/installed.lock && test -x $(TEST_VENV)/bin/python \
	  || $(BOOTSTRAP) $(TEST_VENV) requirements/test.lock
	@test -e $(COLLECTION)/galaxy.yml || $(BOOTSTRAP) $(COLLECTION) --link

worker-tools: test-tools
	@cmp -s worker/package-lock.json worker/node_modules/.installed-lock.json || { \
	  cd worker && PATH="$$(../$(TEST_VENV)/bin/python ../requirements/node_path.py):$$PATH" \
	  && npm ci --no-audit --no-fund --loglevel=error && cp package-lock.json node_modules/.installed-lock.json; }
