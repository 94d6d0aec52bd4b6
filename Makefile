# make demo | test | test-slow | test-faults | test-lowest | test-newest | coverage | lint | types | docs | linkcheck | tutorials | results | clean
# The first call builds .venv; later calls reinstall only after pyproject.toml or constraints.txt changed.
# PYTHON=/path/to/python chooses the interpreter, ARGS="-k name -x" goes to pytest.

PYTHON ?= $(shell for p in python3.11 python3.12 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
DONE := $(VENV)/stamps
# Pinned here too: an unconstrained torch would bring another version and its GPU libraries.
TORCH := $(shell grep '^torch==' constraints.txt)
# A process for each core, each of one thread; a file's tests run in one, since they share what is costly to make. Files
# come in their order: at the end are the examples of docstrings, small files that leave no core idle for long.
PARALLEL := -n auto --dist loadfile --no-loadscope-reorder
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt

.NOTPARALLEL:
.PHONY: demo test test-slow test-faults test-lowest test-newest coverage lint types docs linkcheck tutorials results inputs clean

demo: $(DONE)/package
	$(BIN)/raptorgraph demo --out demo

test: $(DONE)/test
	$(BIN)/python -m pytest $(PARALLEL) --durations=10 $(ARGS)

test-slow: $(DONE)/test
	$(BIN)/python -m pytest $(PARALLEL) -m slow --ignore tests/faults $(ARGS)

# Kills, full disks and the like; what befell and how it ended goes into the page docs/faults.md.
test-faults: $(DONE)/test
	RAPTORGRAPH_FAULTS=docs/benchmark/faults $(BIN)/python -m pytest -m slow tests/faults $(ARGS)
	$(BIN)/python docs/build_results.py

# The lowest versions that pyproject.toml allows and the newest that there are, each in an environment of its own
# beside .venv. UV_TORCH_BACKEND=cpu spares the download of the GPU libraries.
test-lowest test-newest: test-%: .venv-%/versions.txt
	.venv-$*/bin/python -m pytest $(PARALLEL) $(ARGS)

# Lines and branches that the tests run, listed in htmlcov; ROOM=pl for those of one room by its own tests.
coverage: $(DONE)/test
	$(BIN)/python -m pytest $(if $(ROOM),tests/$(ROOM) src/raptorgraph/$(ROOM) --cov=raptorgraph.$(ROOM),--cov) \
		--cov-report=term --cov-report=html $(ARGS)

# The last line is of the imports between rooms and within them.
lint: $(DONE)/lint
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	PYTHONPATH=src $(BIN)/lint-imports --no-logo

# With the libraries, whose types are read.
types: $(DONE)/lint $(DONE)/test
	$(BIN)/mypy

# docs/_build/html, without a network; names of other projects become links with DOCS_ONLINE=1.
docs: $(DONE)/doc
	$(BIN)/python -m sphinx -W --keep-going -n -q docs docs/_build/html
	$(BIN)/python docs/check_links.py docs/_build/html
	@echo "The documentation is in docs/_build/html/index.html."

# Whether links to other sites lead somewhere; needs a network.
linkcheck: $(DONE)/doc
	$(BIN)/python -m sphinx -b linkcheck -q docs docs/_build/linkcheck

# Runs the notebooks anew and keeps their outputs; with ARGS=--check only says whether they run.
tutorials: $(DONE)/doc
	$(BIN)/python docs/run_tutorials.py $(ARGS)

# docs/results.md and the pages below it from the benchmark's files under docs/benchmark
results: $(DONE)/package
	$(BIN)/python docs/build_results.py

# docs/inputs.md from the table of inputs that the tests run
inputs: $(DONE)/test
	$(BIN)/python docs/build_inputs.py

# Removes what runs and builds leave behind; the environment stays (rm -r .venv removes it).
clean:
	rm -rf build dist demo docs/_build docs/api/generated .coverage* htmlcov .*_cache lightning_logs
	find src tests -type d -name __pycache__ -prune -exec rm -rf {} +

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer not found: make PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# The stamps lie in the environment, so that they go when it goes. Each is written only after its
# installation succeeded, and "test" stands for itself: an installed demo does not pass for it.
$(DONE)/torch: constraints.txt | $(BIN)/python
	$(INSTALL) "$(TORCH)"
	@mkdir -p $(DONE) && touch $@

$(DONE)/package: pyproject.toml $(DONE)/torch
	$(INSTALL) -e .
	@touch $@

$(DONE)/test: pyproject.toml $(DONE)/torch
	$(INSTALL) -e ".[test]"
	@touch $(DONE)/package $@

$(DONE)/doc: pyproject.toml $(DONE)/torch
	$(INSTALL) -e ".[doc]"
	@touch $(DONE)/package $@

$(DONE)/lint: constraints.txt | $(BIN)/python
	$(INSTALL) import-linter mypy ruff types-tqdm
	@mkdir -p $(DONE) && touch $@

# Without cell-eval, which asks for much newer versions of numpy, pandas and scipy than this package.
.venv-%/versions.txt: pyproject.toml
	$(PYTHON) -m venv .venv-$*
	.venv-$*/bin/python -m pip install --disable-pip-version-check uv
	sed '/"cell-eval>=/d' pyproject.toml > .venv-$*/pyproject.toml
	.venv-$*/bin/uv pip compile -q $(if $(filter lowest,$*),.venv-lowest/pyproject.toml --resolution lowest-direct,pyproject.toml) \
		--extra test -p .venv-$*/bin/python -o .venv-$*/resolved.txt
	.venv-$*/bin/uv pip install --compile-bytecode -p .venv-$*/bin/python -r .venv-$*/resolved.txt
	.venv-$*/bin/uv pip install -p .venv-$*/bin/python --no-deps -e .
	@mv .venv-$*/resolved.txt $@
