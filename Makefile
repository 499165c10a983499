# `make repro` and `make test` are all that a fresh machine needs; both make the virtual environment first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed
WITH_RAY := $(VENV)/.installed-ray
# The stages' commands say `python`: that of the virtual environment.
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: repro test lint bench bench-gpu

repro: $(READY)
	@python -m stages.common.check
	dvc repro
	@python -m stages.report

test: $(WITH_RAY)
	python -m pytest -n 2 --dist loadgroup

lint: $(READY)
	ruff check .
	ruff format --check .
	mypy

# Tables to the terminal, figures to benchmarks/results.json. Nothing else should run meanwhile.
bench: $(READY)
	@for name in view_preparation end_to_end sweep reprompt refine_at_size score_at_size growth; do \
	    python -m benchmarks.$$name || exit 1; \
	done

bench-gpu: $(READY)
	@python -m benchmarks.gpu

define install
$(PYTHON) -m venv $(VENV)
$(BIN)/python -m pip install --quiet --disable-pip-version-check -r $<
endef

$(READY): requirements.txt
	$(install)
	@touch $@

# requirements-ray.txt names requirements.txt, so that one installation is both.
$(WITH_RAY): requirements-ray.txt requirements.txt
	$(install)
	@touch $(READY) $@
