# make demo      train LeNet-5 on real digits and draw what it learned
# make test      the tests, except the slow ones
# make test-all  the same with their coverage, and the slow ones (notebooks, processes)
# make lowest    the tests of `make test` at the lowest supported versions
# make docs      build the pages: out/docs/index.html (two minutes for the notebooks)
# make bench     measure the state forms and the speed, and draw them (half an hour)
# make accelerators  compile the steps for an H100 and a TPU, without either (a few minutes)
# make check     lint and type-check
# make faults    plant known faults one by one and check that tests fail (half an hour)
# make clean     remove everything that these made
PYTHON ?= python3
VENV ?= .venv
# Groups of pyproject.toml. PyTorch and Keras ("parity") are compared live;
# TEST_GROUPS=test leaves them and their tests out.
TEST_GROUPS ?= test,parity
# More arguments for pytest.
TEST_ARGS ?=
DEMO_ARGS ?=
# DOCS_ARGS='-D nb_execution_mode=off' leaves the notebooks unexecuted.
DOCS_ARGS ?=
# BENCH_ARGS='--mindspore PYTHON' names a Python that has MindSpore.
BENCH_ARGS ?=

bin := $(VENV)/bin
comma := ,

.PHONY: demo test test-all lowest docs bench accelerators check faults clean
.DELETE_ON_ERROR:

demo: $(VENV)/.installed-examples
	$(bin)/python examples/lenet5.py $(DEMO_ARGS)

test: $(VENV)/.installed-$(TEST_GROUPS)
	$(bin)/python -m pytest -n auto -m "not slow" $(TEST_ARGS)

test-all: $(VENV)/.installed-$(TEST_GROUPS)
	$(bin)/python -m pytest -n auto -m "not slow" --cov $(TEST_ARGS)
	$(bin)/python -m pytest -n auto -m slow $(TEST_ARGS)

lowest: $(VENV)/.installed-lowest
	$(bin)/uv venv --quiet --clear --python $(bin)/python .venv-lowest
	$(bin)/uv pip install --quiet --python .venv-lowest --resolution lowest-direct \
	  -e . --group test
	.venv-lowest/bin/python -m pytest -n auto -m "not slow" $(TEST_ARGS)

docs: $(VENV)/.installed-docs,parity
	$(bin)/sphinx-build --fail-on-warning --keep-going $(DOCS_ARGS) docs out/docs

bench: $(VENV)/.installed-examples,parity
	$(bin)/python benchmarks/low_precision.py --page docs/low_precision.md
	$(bin)/python benchmarks/speed.py --page docs/speed.md $(BENCH_ARGS)

accelerators:
	$(MAKE) VENV=.venv-accelerators .venv-accelerators/.installed-accelerators
	.venv-accelerators/bin/python benchmarks/accelerators.py --page docs/speed.md

check: $(VENV)/.installed-dev
	$(bin)/ruff check
	$(bin)/ruff format --check
	$(bin)/mypy

faults: $(VENV)/.installed-$(TEST_GROUPS)
	$(bin)/python -m tests.plant_faults

# pip installs groups from 25.1 on.
$(VENV)/.installed-%: pyproject.toml
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(bin)/python -m pip install --quiet --disable-pip-version-check 'pip>=25.1'
	$(bin)/python -m pip install --quiet --disable-pip-version-check -e . \
	  $(addprefix --group ,$(subst $(comma), ,$*))
	touch $@

clean:
	rm -rf .venv .venv-accelerators .venv-lowest .venv-wheel build dist out .coverage .hypothesis \
	  .mypy_cache .pytest_cache .ruff_cache docs/notebooks
