PYTHON ?= python3
BIN := .venv/bin

.PHONY: help demo conjecture gpu test stress lint docs clean

help: ## Say what there is to make.
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-12s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: .venv/llmrepair ## The whole chain on the embedded model.
	$(BIN)/llmrepair demo --html report.html

conjecture: .venv/llmrepair ## Was what three compressions of the embedded model took forgotten, or displaced?
	$(BIN)/llmrepair run examples/conjecture.toml
	$(BIN)/llmrepair report --html report.html --figure conjecture.svg

gpu: .model .venv/llmrepair ## The paper's experiment on MODEL=a folder or a Hub id, on one GPU.
	$(BIN)/llmrepair run examples/paper.toml --model "$(MODEL)" $(RUN_ARGS) --dry-run
	$(BIN)/llmrepair run examples/paper.toml --model "$(MODEL)" $(RUN_ARGS)
	$(BIN)/llmrepair report --model "$(MODEL)" --html report.html

# Before anything is installed.
.model:
	$(if $(MODEL),,$(error there is no model: give a folder or a Hub id, such as MODEL=HuggingFaceTB/SmolLM2-1.7B))

test: .venv/installed ## The tests, as .ci/run runs them.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

# Gigabytes of activations, 200 kills, 16 processes at once, full disks, a Ray cluster. Run as root, or the full disks are skipped.
stress: .venv/triton ## The long tests.
	OMP_NUM_THREADS=1 TRITON_INTERPRET=1 $(BIN)/python -m pytest -m stress $(PYTEST_ARGS)

# mypy does not follow the package mapping of an editable install, so it checks a copy laid out as installed.
lint: .venv/installed ## Format, style and types, as .ci/run checks them.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	rm -rf build/typed && mkdir -p build/typed/llmrepair
	cp -r api/. cli pipeline stages models lab build/typed/llmrepair/
	cd build/typed && ../../$(BIN)/mypy --config-file ../../pyproject.toml --cache-dir ../../.mypy_cache -p llmrepair

docs: .venv/docs ## The pages of docs/ into build/docs; a broken link fails.
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

.venv/llmrepair: pyproject.toml setup.py api/__init__.py constraints.txt
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("llmrepair needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

# The tests also need what the optional extras install, and a C compiler for some of that; pip knows groups since 25.1.
.venv/installed: .venv/llmrepair
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[gptq,ray]' --group test --group lint
	touch $@

# Kernels for a GPU are interpreted; PyTorch for a GPU brings Triton with it.
.venv/triton: .venv/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt triton
	touch $@

.venv/docs: .venv/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group docs
	touch $@

clean: ## Remove the virtual environment and what was built; results in runs/ stay.
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache
