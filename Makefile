# freshet. `make` lists the targets. A target that needs the environment (.venv) creates it first.
#
#   make PYTHON=/path/to/python ...   use another Python, 3.11 or newer
#   make TORCH_INDEX=URL ...          take torch from an index of CPU builds: no CUDA, about 2.5 GB less to download
#   make demo DATA=folder             use another data set
#   make test ARGS="tests/unit -x"    pass more arguments to the command itself
#   make test JOBS=1                  run one test at a time instead of three (each job has its own broker)

PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
TORCH_INDEX ?=
DATA ?=
SECONDS ?= 300
ARGS ?=
JOBS ?= 3
RATE ?= 100
BIN := .venv/bin
MADE := .venv/made
PARALLEL := -n $(JOBS) --no-fold-skipped --durations=15 --dist
RIVALS := .rivals/made

unexport PYTHONDONTWRITEBYTECODE  # with it, every process would compile every module again

.DEFAULT_GOAL := help
.PHONY: help environment demo test test-faults first-day lint docs bench chaos rivals fuzz audit evaluate tools clients clean
.DELETE_ON_ERROR:

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

environment: $(MADE) ## create .venv from requirements.lock, every package checked by hash

$(MADE): requirements.lock pyproject.toml scripts/environment.py scripts/uv.lock
	@test -n "$(PYTHON)" && $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "freshet needs Python 3.11 or newer; set it: make PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m scripts.environment .venv $(if $(TORCH_INDEX),--torch-index "$(TORCH_INDEX)")
	@touch $@

demo: $(MADE) ## send real events through a real Kafka, live in the terminal; DATA=folder for another data set
	$(BIN)/freshet demo $(if $(DATA),--data "$(DATA)") $(ARGS)

test: $(MADE) ## run unit, contract and integration tests (starts a real broker)
	$(BIN)/python -m pytest -m "not slow and not chaos and not faults and not long" $(PARALLEL) loadfile --no-loadscope-reorder $(ARGS)

first-day: $(MADE) ## run and time the README's "Use it" in an empty folder and a new virtual environment
	FIRST_DAY=fresh $(BIN)/python -m pytest tests/integration/test_first_day.py -rP $(ARGS)

test-faults: $(MADE) ## run faults, mutants, alerts and rivals in their short form, one seed each, and the longest tests
	TRIAL_RATE=$(RATE) $(BIN)/python -m pytest -m "(faults or long) and not slow" $(PARALLEL) worksteal $(ARGS)

lint: $(MADE) ## check ruff, format, strict types, what may import what, and that generated pages and schemas are current
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m scripts.imports
	$(BIN)/python -m pytest -q tests/contract/test_reference.py tests/unit/scripts/test_schemas.py

docs: $(MADE) ## build the documentation as a site in .site and check it; open .site/index.html
	$(BIN)/python -m scripts.site

bench: $(MADE) ## measure throughput and latency next to a stock Faust agent, in one run
	$(BIN)/python -m tests.bench $(ARGS)

chaos: $(MADE) $(RIVALS) ## run every fault, five seeds each (hours), each checked by freshet verify; rivals under the same kills; write docs/reliability.md
	$(BIN)/python -m pytest -m chaos --durations=15 $(ARGS) tests/chaos
	$(if $(ARGS),,$(BIN)/python -m tests.chaos.report)

rivals: $(RIVALS) ## create .rivals, the environment of Quix Streams, which `make chaos` kills as it kills freshet

$(RIVALS): $(MADE) tests/rivals/requirements.lock
	$(BIN)/python -m scripts.environment .rivals --lock tests/rivals/requirements.lock
	@touch $@

fuzz: $(MADE) ## mutate the input of every parser; SECONDS=600 for longer, ARGS="events states" for some
	$(BIN)/python -m tests.fuzz $(SECONDS) $(ARGS)

audit: $(MADE) ## list known vulnerabilities of the locked packages (queries PyPI's advisories; fails if they cannot be reached)
	$(BIN)/pip-audit --strict --disable-pip --require-hashes --progress-spinner off -r requirements.lock

evaluate: $(MADE) ## compare freshet with popularity on held-out events; DATA=folder, ARGS="--models all --report report" for more
	$(BIN)/freshet evaluate $(if $(DATA),"$(DATA)",$(firstword $(wildcard ../shared/data/ml-latest-small) generated)) $(ARGS)

tools: ## install Prometheus, promtool, helm, kubeconform and the operator's definitions (by Go) into .tools, pinned, without root
	@test -n "$(PYTHON)" || { echo "freshet needs Python 3.11 or newer; set it: make PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m scripts.prometheus .tools
	$(PYTHON) -m scripts.kubernetes .tools

clients: $(MADE) ## build Kafka clients in other languages into .clients, if their tools are installed; tests/clients measures them
	$(BIN)/python -m tests.clients.setup .clients

clean: ## stop embedded brokers, remove .venv, .tools, caches and the demo's files; keep runs/, bundles/, data/
	@test ! -x $(BIN)/freshet || find .freshet -name broker.json -exec dirname {} \; 2>/dev/null | \
		while read -r folder; do $(BIN)/freshet broker stop --dir "$$folder" < /dev/null; done
	rm -rf .venv .tools .rivals .clients .cache .freshet .site .hypothesis .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	rm -rf build dist freshet.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
