# make demo: the whole chain on the embedded model. make conjecture: was what three compressions of it took forgotten, or displaced?
# make test, make lint, make docs: what .ci/run calls. make stress: the long tests.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo conjecture test stress lint docs clean

demo: .venv/llmrepair
	$(BIN)/llmrepair demo --html report.html

conjecture: .venv/llmrepair
	$(BIN)/llmrepair run examples/conjecture.toml
	$(BIN)/llmrepair report --html report.html --figure conjecture.svg

test: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile $(PYTEST_ARGS)

# The long ones: gigabytes of activations, 200 kills, 16 processes at once, full disks, a Ray cluster. Run as root, or the full disks are skipped.
stress: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m stress $(PYTEST_ARGS)

# mypy does not follow the package mapping of an editable install, so it checks a copy laid out as installed.
lint: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	rm -rf build/typed && mkdir -p build/typed/llmrepair
	cp -r api/. cli pipeline stages models lab build/typed/llmrepair/
	cd build/typed && ../../$(BIN)/mypy --config-file ../../pyproject.toml --cache-dir ../../.mypy_cache -p llmrepair

# The pages of docs/ into build/docs. A broken link fails.
docs: .venv/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

.venv/llmrepair: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("llmrepair needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

# The tests also need what the optional extras install, and a C compiler for some of that.
.venv/installed: .venv/llmrepair
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test,lint]'
	touch $@

.venv/docs: .venv/llmrepair
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	touch $@

clean:
	rm -rf .venv build .mypy_cache .pytest_cache .ruff_cache
