# make demo    train LeNet-5 on real digits and draw what it learned
# make test    run every test
# make docs    build the pages: out/docs/index.html (two minutes for the notebooks)
# make bench   measure the state forms and the speed, and draw them (half an hour)
# make check   lint and type-check
# make faults  plant one fault after the other and see the tests go red
# make clean   remove what the above made
PYTHON ?= python3
VENV ?= .venv
# PyTorch ("parity") is compared live; EXTRAS=test leaves it and its tests out.
EXTRAS ?= test,parity
DEMO_ARGS ?=
# DOCS_ARGS='-D nb_execution_mode=off' leaves the notebooks unexecuted.
DOCS_ARGS ?=
# BENCH_ARGS='--mindspore PYTHON' names a Python that has MindSpore.
BENCH_ARGS ?=

bin := $(VENV)/bin

.PHONY: demo test docs bench check faults clean
.DELETE_ON_ERROR:

demo: $(VENV)/.installed-examples
	$(bin)/python examples/lenet5.py $(DEMO_ARGS)

test: $(VENV)/.installed-$(EXTRAS)
	$(bin)/python -m pytest -n auto --cov

docs: $(VENV)/.installed-docs,parity
	$(bin)/sphinx-build --fail-on-warning --keep-going $(DOCS_ARGS) docs out/docs

bench: $(VENV)/.installed-examples,parity
	$(bin)/python benchmarks/low_precision.py --page docs/low_precision.md
	$(bin)/python benchmarks/speed.py --page docs/speed.md $(BENCH_ARGS)

check: $(VENV)/.installed-dev
	$(bin)/ruff check
	$(bin)/ruff format --check
	$(bin)/mypy

faults: $(VENV)/.installed-$(EXTRAS)
	$(bin)/python tests/plant_faults.py

$(VENV)/.installed-%: pyproject.toml
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(bin)/python -m pip install --quiet --disable-pip-version-check -e '.[$*]'
	touch $@

clean:
	rm -rf .venv .venv-lowest .venv-wheel build dist out .coverage .hypothesis \
	  .mypy_cache .pytest_cache .ruff_cache docs/notebooks docs/reference/generated
