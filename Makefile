# Two commands for a newcomer: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
GPU := .venv/gpu
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --quiet --disable-pip-version-check

.PHONY: demo env test test-env test-slow lint benchmarks gpu-env gpu-check lean-check clean

demo: env
	$(PY) -m research.run --config=configs/ch6_easy_to_hard.py:demo --workdir=runs/ch6_demo

env: $(VENV)/core.stamp

$(VENV)/core.stamp: requirements.txt constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(None if (3, 11) <= v[:2] <= (3, 13) else "salign needs Python 3.11 to 3.13; %s is %d.%d. Try: make PYTHON=python3.12 $(MAKECMDGOALS)" % (sys.executable, *v[:2]))'
	$(PYTHON) -m venv $(VENV)
	$(PIP) -r requirements.txt -c constraints.txt
	@touch $@

test-env: $(VENV)/test.stamp

$(VENV)/test.stamp: $(VENV)/core.stamp requirements-test.txt
	$(PIP) -r requirements-test.txt -c constraints.txt
	@touch $@

test: test-env
	$(PY) -m pytest -m "not slow" -n 2 --dist worksteal

test-slow: test-env
	$(PY) -m pytest -m slow -n 2 --dist loadfile

lint: test-env
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

benchmarks: test-env
	$(PY) -m research.benchmarks.train
	$(PY) -m research.benchmarks.generate
	$(PY) -m research.benchmarks.ppo

gpu-check: gpu-env
	$(GPU)/bin/python -m research.benchmarks.gpu

lean-check: test-env
	$(PY) -m research.lean_star.lean_check

gpu-env: $(GPU)/core.stamp

$(GPU)/core.stamp: requirements.txt constraints.txt
	$(PYTHON) -m venv $(GPU)
	$(GPU)/bin/python -m pip install --quiet --disable-pip-version-check \
	    -r requirements.txt 'jax[cuda12]' -c constraints.txt
	@touch $@

clean:
	rm -rf $(VENV) runs .pytest_cache .hypothesis .ruff_cache
