# Without Docker, without root: Python 3.11 to 3.14 and make. `make` lists the targets.

VENV ?= .venv
BIN := $(VENV)/bin
# The first Python that fits; override with `make PYTHON=/path/to/python demo`.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null && echo $$p && break; done)
LOCAL := $(VENV)/local.stamp
DEV := $(VENV)/dev.stamp
BENCH := $(VENV)/bench.stamp
NEED_PYTHON = $(if $(PYTHON),,$(error needs Python 3.11 to 3.14: found none as python3 or python3.11 to python3.14. \
	Install one or say where it is: make PYTHON=/path/to/python demo))

.DEFAULT_GOAL := help
.PHONY: help demo up producer test pools fault chaos chaos-short nightly matrix bench lint clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1	\2/p' $(MAKEFILE_LIST) | expand -t 20

# The recipes below are single commands, so that make starts them without a shell in between and a
# signal reaches them. python -m stack cleans up after itself, however it ends.
demo: $(LOCAL) ## start everything, compare the three pools, stop everything; ARGS="--keep DIR" keeps the files
	@$(BIN)/python -m stack demo $(ARGS)

up: $(LOCAL) ## start everything and keep it running until Ctrl-C; ARGS="--help" lists ports and pool sizes
	@$(BIN)/python -m stack up $(ARGS)

producer: $(LOCAL) ## beside `make up`: run the producer, e.g. make producer ARGS="submit --pool threads URL"
	@test -f run/stack.env || { echo 'producer: no stack is up; start one with `make up` in another shell' >&2; exit 1; }
	@. run/stack.env && exec $(BIN)/python -m producer $(ARGS)

test: $(DEV) ## unit and service tests, and poolbench on foreign projects; ARGS="-k name" selects
	@$(BIN)/python -m pytest -n 2 --dist loadfile tests/unit tests/service tests/poolbench $(ARGS)

pools: $(DEV) ## every feature on real workers of all three pools, longer than make test; ARGS="-k name" selects
	@$(BIN)/python -m pytest -n 3 --dist loadfile tests/pools $(ARGS)

fault: $(DEV) ## kill, freeze and fill real workers, Redis and disks (the disk needs root); ARGS="-k name" selects
	@$(BIN)/python -m pytest -n 4 tests/fault $(ARGS)

chaos: $(DEV) ## 300 kills under 100,000 jobs, books balanced, docs/chaos.md: about 25 minutes; ARGS="--seed 2"
	@$(BIN)/python -m chaos run --seed 1 --kills 320 --jobs 100000 --out docs/chaos/downpour.json $(ARGS)
	@$(BIN)/python -m chaos table docs/chaos/*.json >docs/chaos.md

chaos-short: $(DEV) ## the same with some 20 kills, as a test: three minutes
	@$(BIN)/python -m pytest tests/chaos $(ARGS)

nightly: ## what takes long, one after the other, all of it whatever fails: pools, fault, matrix, chaos
	@$(MAKE) --keep-going --jobs=1 pools fault matrix chaos

matrix: $(DEV) ## what works in which pool: every cell of docs/capabilities.md again; ARGS="-k name" selects
	@$(BIN)/python -m pytest -n 8 --dist worksteal tests/matrix $(ARGS)

bench: $(DEV) $(BENCH) ## how fast, beside curl and aria2c (wants nginx, curl and aria2c installed); ARGS="chunks --rounds 3" selects
	@$(BIN)/python -m benchmarks $(ARGS)

lint: $(DEV) ## ruff, mypy, the import contracts, hadolint
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile

clean: ## remove .venv, caches and build output; downloads stay
	rm -rf $(VENV) run build dist poolbench/build poolbench/*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Brings a virtual environment to what the requirements file pins, each file compared with its hash. One whose Python was
# upgraded away is made anew; a folder that is no environment is left alone. The stamp is written when all is well.
define INSTALL
@$(NEED_PYTHON)test -z "$$(ls -A $(1) 2>/dev/null)" -o -e $(1)/pyvenv.cfg || \
	{ echo 'install: $(1) is no virtual environment and was left as it is; choose another: make VENV=...' >&2; exit 1; }
@$(1)/bin/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(1)
@echo "installing the $$(grep -c '^[A-Za-z0-9]' $<) packages of $<, each compared with its hash"
@{ $(1)/bin/python -m pip install --require-hashes --no-input --disable-pip-version-check --progress-bar off -r $<; \
	echo "ended $$?"; } | awk 'BEGIN { code = 1 } /^ended / { code = $$2 } { fflush() } \
	/^(Collecting|Processing) / && ++n % 10 == 0 { print "  " n " collected" } \
	/^Installing/ { print "  unpacking them, which takes as long" } \
	END { if (code) print "install: not finished; the same command goes on from here"; exit code }'
@touch $@
endef

$(LOCAL): requirements/local.txt
	$(call INSTALL,$(VENV))

$(BENCH): requirements/bench.txt
	$(call INSTALL,$(VENV)/bench)

$(DEV): requirements/dev.txt
	$(call INSTALL,$(VENV))
