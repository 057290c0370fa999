# make demo [SONG=path]   the live path without a sound card; writes out/karaoke.wav, out/vocals.wav
# make test               everything: linters, types, tests (system packages as root on Debian)
# make scores [DATA=DIR]  scores every installed separator into docs/quality.md
# make docs               the reference of the API, from its docstrings, into build/reference
# make lint bench venv clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Installed when this file is newer than everything that the installation is made from.
READY := $(VENV)/.ready
PARTS := pyproject.toml setup.py native/build_cffi.py native/sources.txt \
         $(wildcard native/src/*.c native/src/*.h native/include/*.h native/plugin/*.[ch])

.PHONY: demo test lint native bench docs scores venv system clean
.DEFAULT_GOAL := help

help:
	@sed -n '1,/^$$/s/^# //p' Makefile

venv: $(READY)

$(READY): $(PARTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name one: make PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
		{ rm -rf $(VENV); echo "this needs: apt install python3-venv python3-dev gcc make"; exit 1; }
	@# A test builds a plugin package with the environment's own setuptools.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		'setuptools>=77' --editable '.[cpu,dev]'
	@touch $@

demo: $(READY)
	@$(BIN)/python examples/demo.py $(if $(SONG),"$(SONG)")

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

system:
	@sh tests/system_packages.sh

# The quick tests first, so that most mistakes are seen at once.  What plays in real time may fail on
# a machine that is shared and stalls; what is wrong fails twice.
test: system $(READY) lint
	@# Extras of other licences, or that have to be built; their tests skip without them.
	@for package in 'pyaudio>=0.2.14' 'pedalboard>=0.9.17'; do \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$package" || \
		echo "$$package cannot be installed (pyaudio: apt install portaudio19-dev);" \
			"its tests will skip"; done
	$(BIN)/python -m pytest -q --reruns 1 -m "not slow and not server and not browser"
	$(BIN)/python -m pytest -q --reruns 1 -m "slow or server or browser"

# The C tests alone, plain and under sanitizers.
native:
	@for preset in release tsan asan; do \
		cmake --preset $$preset && cmake --build --preset $$preset && \
		ctest --preset $$preset || exit 1; \
	done

bench: $(READY)
	@for script in $(filter-out %/scores.py,$(wildcard benchmarks/[a-z]*.py)); do echo "== $$script"; $(BIN)/python $$script || exit 1; done

# Songs with known stems, see docs/quality.md.  MODELS="a b:key=value" for some separators only.
DATA ?= ../shared/data/eval
scores: $(READY)
	@$(BIN)/python benchmarks/scores.py "$(DATA)" $(MODELS)

docs: $(READY)
	@$(BIN)/python docs/reference.py

clean:
	rm -rf $(VENV) build dist out *.egg-info realtime_sep/_native*.so
	rm -rf .pytest_cache .hypothesis .mypy_cache .ruff_cache .import_linter_cache
	find realtime_sep tests examples benchmarks -name __pycache__ -prune -exec rm -rf {} +
