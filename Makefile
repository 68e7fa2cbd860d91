# Two commands matter: `make run` benchmarks the policies, `make test` runs the tests. Each makes .venv
# if it is missing and installs what it needs; calling it again installs nothing.

PYTHON ?= python3
ARGS ?=

# Neighbouring tests share what they make, so they stay together as long as there are enough.
PARALLEL := -n auto --dist worksteal

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# A stamp is written only after its installation has succeeded, so an interrupted one is repeated.
CREATED := $(VENV)/.created
INSTALLED_RUN := $(VENV)/.installed-run
INSTALLED_DEV := $(VENV)/.installed-dev
INSTALLED_DOCS := $(VENV)/.installed-docs

SUPPORTED := import sys; v = sys.version_info[:2]; \
	sys.exit(None if (3, 11) <= v <= (3, 13) else "error: Python 3.11, 3.12 or 3.13 is needed, %s is %d.%d; \
	remove $(VENV) if it is the one, or choose with: make PYTHON=python3.11" % ((sys.executable,) + v))

.PHONY: help run test test-all lint docs bench clean

help:
	@echo "make run [ARGS='--trace azure-2023-conv ...']  compare the policies on a workload"
	@echo "make test       the quick tests"
	@echo "make test-all   the slow tests that 'make test' leaves out"
	@echo "make lint       ruff and mypy"
	@echo "make docs       the documentation site, into build/site"
	@echo "make bench      speed of the simulator"
	@echo "make clean      remove .venv, caches and build products; results under runs/ stay"

run: $(INSTALLED_RUN)
	$(BIN)/python -m experiments.run $(ARGS)

bench: $(INSTALLED_RUN)
	$(BIN)/python -m experiments.bench engine $(ARGS)

test: $(INSTALLED_DEV)
	$(BIN)/python -m pytest $(PARALLEL) -m "not slow" $(ARGS)

# Status 5, nothing collected, is a failure here too: it means that the marker or the collection broke.
test-all: $(INSTALLED_DEV)
	$(BIN)/python -m pytest $(PARALLEL) -m slow $(ARGS)

lint: $(INSTALLED_DEV)
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

docs: $(INSTALLED_DOCS)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet
	@echo "Open build/site/index.html, or serve it: python -m http.server --directory build/site"

clean:
	rm -rf $(VENV) build dist .coverage htmlcov .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find agents baselines experiments preserve_gym tests -name __pycache__ -type d -prune -exec rm -rf {} +

# `python -m venv` over an existing environment keeps what is installed there and mends a half-made one.
$(CREATED):
	@command -v $(PYTHON) >/dev/null || \
		{ echo "error: $(PYTHON) not found; choose with: make PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -c '$(SUPPORTED)'
	$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -c '$(SUPPORTED)'
	@touch $@

$(INSTALLED_RUN): pyproject.toml constraints.txt | $(CREATED)
	@echo "Installing preserve_gym into $(VENV) (once)"
	$(PIP) install --quiet -c constraints.txt --editable '.[report]'
	@touch $@

# The site is made from the sources; nothing of the package is imported.
$(INSTALLED_DOCS): pyproject.toml constraints.txt | $(CREATED)
	@echo "Installing MkDocs into $(VENV) (once)"
	$(PIP) install --quiet -c constraints.txt --editable '.[docs]'
	@touch $@

# The development installation contains the others, so it writes all stamps.
$(INSTALLED_DEV): pyproject.toml constraints.txt | $(CREATED)
	@echo "Installing preserve_gym with its extras and the development tools into $(VENV) (once)"
	$(PIP) install --quiet -c constraints.txt \
		--editable '.[dev,rl,forecast,text,report,ray,rllib,multiagent,offline,search,video,docs]'
	@touch $(INSTALLED_RUN) $(INSTALLED_DOCS) $@
