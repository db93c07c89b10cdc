# A fresh machine needs Python 3.11, pip, make and gcc; everything else is installed into .venv here.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
# An installed environment is reused until what is to be installed changes.
INSTALLED := $(VENV)/installed
SPACE_INSTALLED := $(VENV)/installed_space
BROWSER_INSTALLED := $(VENV)/installed_browser
DOCS_INSTALLED := $(VENV)/installed_docs
FUZZ_INSTALLED := $(VENV)/installed_fuzz
# of each target; and how many of them run at a time
FUZZ_SECONDS ?= 600
FUZZ_JOBS ?= 1

# Interpreters that `make pythons-test` looks for, under pyenv's versions first.
PYTHONS := 3.11 3.12 3.13
find_python = $(firstword $(wildcard $(HOME)/.pyenv/versions/$(1).*/bin/python$(1)) $(shell command -v python$(1)))

.PHONY: help install demo test test-all space-test browser-test torchvision-test coverage mutants fuzz oldest-test newest-test \
	pythons-test lint docs package clean

help:
	@echo "make demo     install, then run the quickstart: a few minutes on two cores"
	@echo "make test     install, then run the tests: at most eight minutes on two cores"
	@echo "make test-all  these, and what is slow or exhaustive"
	@echo "make space-test  install gradio too, and test examples/space; in a browser if there is a chromium"
	@echo "make browser-test  test examples/browser, if there are an npm and a chromium"
	@echo "make torchvision-test  test the encoders of timm and open_clip alone, which make test runs too"
	@echo "make coverage which lines of the package its tests run: at least 95 in a hundred"
	@echo "make mutants  break the core in ninety places, and see whether tests notice"
	@echo "make oldest-test  test the core with the oldest releases that setup.cfg allows: 6 GB"
	@echo "make newest-test  the same with the newest, whatever constraints.txt pins: 6 GB"
	@echo "make pythons-test  the fast ones of these with each of Python $(PYTHONS) that is found: 6 GB each"
	@echo "make fuzz     fuzz what reads strangers' input: FUZZ_SECONDS=600 for each target, FUZZ_JOBS=1 at a time"
	@echo "make lint     install, then ruff and mypy"
	@echo "make docs     build the pages of docs/ and the reference into build/docs"
	@echo "make package  build the wheel and the source distribution, and look inside"

$(INSTALLED): setup.cfg pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --disable-pip-version-check -q -c constraints.txt -e ".[dev,benchmarks]"
	touch $@

install: $(INSTALLED)

demo: install
	$(BIN)/python examples/quickstart.py

test: install build/torchvision
	$(BIN)/python -m pytest -n 2 -m "not slow"

test-all: test
	$(BIN)/python -m pytest -n 2 -m slow

# gradio pulls in dozens of packages that nothing else needs, so they are installed here alone; without them `make test`
# skips these tests.
$(SPACE_INSTALLED): $(INSTALLED)
	$(BIN)/pip install --disable-pip-version-check -q -c constraints.txt -e ".[space-test]"
	touch $@

space-test: $(SPACE_INSTALLED)
	$(BIN)/python -m pytest tests/examples/test_space.py -rs

# 475 MB of libraries, of which the page holds 16; without an npm the tests are skipped.
$(BROWSER_INSTALLED): $(INSTALLED) examples/browser/package-lock.json
	$(BIN)/pip install --disable-pip-version-check -q -c constraints.txt -e ".[browser-test]"
	if command -v npm > /dev/null; then npm ci --ignore-scripts --no-audit --no-fund --prefix examples/browser; fi
	touch $@

browser-test: $(BROWSER_INSTALLED)
	$(BIN)/python -m pytest tests/examples/test_browser.py -rs

# Not into the environment: where transformers finds torchvision, it uses other image processors. Without dependencies,
# since those of open_clip would bring another build of torch.
build/torchvision: constraints.txt setup.cfg | $(INSTALLED)
	$(BIN)/pip install --disable-pip-version-check -q --no-deps -c constraints.txt --upgrade --target $@ \
		torchvision timm open_clip_torch ftfy wcwidth
	touch $@

torchvision-test: install build/torchvision
	$(BIN)/python -m pytest tests/package/test_beside_torchvision.py -rs

# Without the tests of the extras "onnx" and "peft", which need a newer torch than the package.
CORE_TESTS := tests/configuration tests/modeling_bga tests/processing --ignore-glob "*onnx*" --ignore-glob "*lora*" --ignore-glob "*peft*"
FOR_CORE_TESTS := -e . hypothesis matplotlib pytest pytest-randomly pytest-xdist rich

oldest-test:
	test -x build/oldest/bin/python || $(PYTHON) -m venv build/oldest
	build/oldest/bin/pip install --disable-pip-version-check -q -c constraints-oldest.txt $(FOR_CORE_TESTS)
	build/oldest/bin/python -m pytest -n 2 $(CORE_TESTS)

newest-test:
	test -x build/newest/bin/python || $(PYTHON) -m venv build/newest
	build/newest/bin/pip install --disable-pip-version-check -q --upgrade $(FOR_CORE_TESTS)
	build/newest/bin/python -m pytest -n 2 $(CORE_TESTS)

pythons-test: $(foreach version,$(PYTHONS),$(if $(call find_python,$(version)),python$(version)-test))

python%-test: FORCE
	test -x build/python$*/bin/python || $(call find_python,$*) -m venv build/python$*
	build/python$*/bin/pip install --disable-pip-version-check -q -c constraints.txt $(FOR_CORE_TESTS)
	build/python$*/bin/python -m pytest -n 2 -m "not slow" $(CORE_TESTS)

.PHONY: FORCE
FORCE:

coverage: install
	$(BIN)/python -m coverage run -m pytest -n 0 tests/configuration tests/modeling_bga tests/processing tests/package
	$(BIN)/python -m coverage report

mutants: install
	$(BIN)/python tests/mutants.py --mutants 90

$(FUZZ_INSTALLED): $(INSTALLED)
	$(BIN)/pip install --disable-pip-version-check -q -c constraints.txt -e ".[fuzz]"
	touch $@

fuzz: $(FUZZ_INSTALLED)
	$(BIN)/python tests/fuzz/run.py --seconds $(FUZZ_SECONDS) --jobs $(FUZZ_JOBS)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	mkdir -p build/types && ln -sfn ../.. build/types/bga_mner
	$(BIN)/python -m mypy

$(DOCS_INSTALLED): $(INSTALLED)
	$(BIN)/pip install --disable-pip-version-check -q -c constraints.txt -e ".[docs]"
	touch $@

# Warnings are errors: a link that leads nowhere, a docstring that can't be read.
docs: $(DOCS_INSTALLED)
	$(BIN)/sphinx-build -W --keep-going -q -b html docs build/docs

package: install
	$(BIN)/pip install --disable-pip-version-check -q build
	$(BIN)/python -m build
	$(BIN)/python -m zipfile -l dist/bga_mner-*.whl

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache outputs
