# `make demo` draws the first figure, `make test` runs every check; both start from a bare clone.
# PYTHON is the interpreter that the environments are made with.
PYTHON ?= python3
WORKERS ?= 2
CASES ?= 1000

# What the package is built from; its folders too, so that a removed file counts.
SOURCES := pyproject.toml README.md LICENSE nthsim models solvers $(wildcard nthsim/*/) \
  $(wildcard nthsim/*.py nthsim/*/*.py nthsim/*.pyi nthsim/py.typed models/*.py solvers/*.py)
# What the tests read. Never the package's own folders: the wheel must stand alone.
CARRIED := pyproject.toml tests $(wildcard demos docs *.md *.cff)

unexport PYTHONPATH
export PIP_DISABLE_PIP_VERSION_CHECK = 1
# Python compiles what it imports, a small part of what is installed. pip takes a "no" by a zero.
export PIP_NO_COMPILE = 0

.PHONY: help demo test lint test-checkout test-compiled test-wheel bench canaries foreign readers slurm clean

help:
	@echo "make demo           draw the first figure, into results/"
	@echo "make test           every check: lint, test-checkout, test-compiled, test-wheel"
	@echo "make lint           ruff and pyright"
	@echo "make test-checkout  the tests on this checkout, with array shapes checked"
	@echo "make test-compiled  the numerical tests, compiled with XLA's own optimisations"
	@echo "make test-wheel     the tests on the built wheel, away from this checkout"
	@echo "make bench          time and memory, side by side with other roads; takes long"
	@echo "make canaries       search for programs that XLA compiles wrongly; goes on for hours"
	@echo "make foreign        modules that others wrote, into docs/modules.md; takes long"
	@echo "make readers        files through readers by others, into docs/readers.md"
	@echo "make slurm          a sweep on a Slurm of this machine alone; needs root and slurm-wlm"
	@echo "make clean          remove environments, builds and caches; results/ stays"

demo: .venv/.package
	.venv/bin/python demos/compare_orders.py --out results/compare_orders

# Both environments at once, pyright beside the first tests, and nothing more after a failure.
test:
	@$(MAKE) --no-print-directory -j2 .venv/.tools .venv-wheel/.package
	@$(MAKE) --no-print-directory -j2 lint test-checkout
	@$(MAKE) --no-print-directory test-compiled
	@$(MAKE) --no-print-directory test-wheel

# pyright's wheel holds all of it; unless told so it asks the network for a newer one.
lint: export PYRIGHT_PYTHON_IGNORE_WARNINGS = 1
lint: .venv/.tools
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/pyright

# Most of the time is compilation of programs that run once, so XLA's optimisations are off for all
# but what is marked `compiled`.
test-checkout test-compiled test-wheel: export MPLBACKEND = Agg
test-checkout test-wheel: export JAX_DISABLE_MOST_OPTIMIZATIONS = 1
# And what one worker has compiled, the other, the wheel and the next run read from disk.
test-checkout test-wheel: export JAX_COMPILATION_CACHE_DIR = $(CURDIR)/.jax_cache
test-checkout test-wheel: export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS = 0
test-checkout test-wheel: export JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES = -1
# The first halves the time of compilation, the second keeps what tests compile themselves right, the
# third leaves a program in one piece, as both workers have a core already.
# XLA refuses to start with a flag that its version lacks.
QUICK := --xla_cpu_use_fusion_emitters=false --xla_cpu_experimental_ynn_fusion_type=individual_dot \
  --xla_cpu_parallel_codegen_split_count=1
test-checkout test-wheel: export XLA_FLAGS = $(shell for flag in $(QUICK); do \
  XLA_FLAGS=$$flag .venv/bin/python -c "import jax; jax.devices()" 2>/dev/null && echo $$flag; done)

# `pytest`, never `python -m pytest`, which would make models/ and solvers/ importable.
test-checkout: .venv/.tools
	.venv/bin/pytest -n $(WORKERS) --dist worksteal -m "not compiled"

# Numbers as users have them: by XLA's own defaults and optimisations, without checks of shapes.
# The other files are not even read, as each makes arrays and networks by programs compiled so.
test-compiled: .venv/.tools
	@echo "The numerical tests, compiled as users do:"
	.venv/bin/pytest $(shell grep -rl --include="test_*.py" "mark\.compiled" tests) \
	  -n $(WORKERS) --dist worksteal --jaxtyping-packages= -m compiled

# Users run without jaxtyping's checks, and so does this. Demos and README belong to the checkout alone;
# for what no packaging changes, the rooms below and what is marked slow, that is enough too.
INNER := comparison dynamics kernels models network solvers
test-wheel: .venv-wheel/.package
	@echo "The tests once more, on the wheel:"
	@root=$$PWD; away=$$(mktemp -d); trap 'rm -rf "$$away"' EXIT; \
	cp -R $(CARRIED) "$$away" && cd "$$away" && \
	"$$root/.venv-wheel/bin/pytest" tests $(INNER:%=--ignore=tests/%) -n $(WORKERS) \
	  --dist worksteal --jaxtyping-packages= -m "not slow and not compiled"

bench: .venv/.package
	@echo "Installing real MNIST digits and Dask into .venv"
	@.venv/bin/python -m pip install -q --editable ".[cluster,data]"
	.venv/bin/python benchmarks/kernels.py
	.venv/bin/python benchmarks/foreign.py
	.venv/bin/python benchmarks/series.py
	.venv/bin/python benchmarks/large.py
	.venv/bin/python benchmarks/stiff.py
	.venv/bin/python benchmarks/resumed.py
	.venv/bin/python benchmarks/killed.py
	.venv/bin/python benchmarks/scaling.py
	.venv/bin/python benchmarks/limits.py
	.venv/bin/python benchmarks/repeated.py
	.venv/bin/python benchmarks/proof.py
	.venv/bin/python benchmarks/descent.py
	.venv/bin/python benchmarks/sharpness.py

# Another Python brings another JAX: make clean canaries PYTHON=python3.13
canaries: .venv/.package
	.venv/bin/python benchmarks/canaries.py --workers $(WORKERS) --cases $(CASES)

# Fails where a number is wrong in silence, or where an error is not nthsim's own sentence.
foreign: benchmarks/.venv-modules/.package
	benchmarks/.venv-modules/bin/python benchmarks/modules/run.py --workers $(WORKERS) --out docs/modules.md

# Fails where a reader has another number or label. Readers of other languages come from the machine:
# apt-get install netcdf-bin nco r-cran-ncdf4 octave-netcdf; those that it lacks are not run.
readers: benchmarks/.venv-readers/.package
	benchmarks/.venv-readers/bin/python benchmarks/readers/run.py --out docs/readers.md

# A Slurm of one node is started and ended: apt-get install slurm-wlm munge
slurm: benchmarks/.venv-slurm/.package
	PYTHONPATH=benchmarks benchmarks/.venv-slurm/bin/python benchmarks/slurm/run.py --quick

clean:
	rm -rf .venv .venv-wheel build dist nthsim.egg-info
	rm -rf .pytest_cache .ruff_cache .jax_cache benchmarks/.venv-*
	find nthsim models solvers tests demos benchmarks -name __pycache__ -prune -exec rm -rf {} +

# The stamps .package and .tools: nothing is installed twice until pyproject.toml changes.
# Make takes pip for one of its own intermediate files, which it would remove.
.PRECIOUS: %/bin/pip
%/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit("nthsim needs Python 3.11 or newer; name one: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $*

.venv/.package: pyproject.toml | .venv/bin/pip
	@echo "Installing nthsim and what it needs into .venv; this happens once"
	@.venv/bin/python -m pip install -q --upgrade "pip>=25.1"
	@PYTHONWARNINGS=ignore .venv/bin/python -m pip install -q --editable .
	@touch $@

.venv/.tools: .venv/.package
	@echo "Installing the development tools into .venv; this happens once"
	@.venv/bin/python -m pip install -q --group dev
	@touch $@

# Without a leftover build/, from which setuptools would put removed files into the wheel.
.venv-wheel/.package: $(SOURCES) | .venv-wheel/bin/pip
	@echo "Building the wheel and installing it into .venv-wheel"
	@rm -rf build
	@.venv-wheel/bin/python -m pip install -q --upgrade "pip>=25.1"
	@.venv-wheel/bin/python -m pip wheel -q --no-deps --wheel-dir build/wheel .
	@.venv-wheel/bin/python -m pip install -q --no-deps --force-reinstall build/wheel/*.whl
	@.venv-wheel/bin/python -m pip install -q build/wheel/*.whl --group test
	@touch $@

benchmarks/.venv-%/.package: pyproject.toml benchmarks/%/requirements.txt | benchmarks/.venv-%/bin/pip
	@echo "Installing what $* needs into benchmarks/.venv-$*; this happens once"
	@benchmarks/.venv-$*/bin/python -m pip install -q --upgrade "pip>=25.1"
	@benchmarks/.venv-$*/bin/python -m pip install -q -r benchmarks/$*/requirements.txt --editable .
	@touch $@
