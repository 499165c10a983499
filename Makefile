# A fresh machine needs only `make repro` and `make test`. Both make the virtual environment first.
PYTHON ?= python3
# As in pyproject.toml.
VERSIONS := 3.11 3.12 3.13
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed
WITH_FINER := $(VENV)/.installed-finer
WITH_DEV := $(VENV)/.installed-dev
WITH_ALL := $(VENV)/.installed-all
# In the stages' commands, `python` is that of the virtual environment.
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: repro finer test lint bench bench-gpu

repro: $(READY)
	@python -m stages.common.check
	dvc repro
	@python -m stages.report.summary

# The FINER benchmark, with a toy model that is built, tuned, served and asked on this machine.
finer: $(WITH_FINER) stages/finer/.dvcignore
	@python -m stages.common.check
	dvc repro stages/finer/dvc.yaml
	@python -m stages.finer
	@python -m stages.report

# Shows DVC the pipeline that the .dvcignore at the top hides.
stages/finer/.dvcignore:
	@printf '!dvc.yaml\n!tuning/dvc.yaml\n' > $@

test: $(WITH_ALL)
	python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: $(WITH_DEV)
	ruff check .
	ruff format --check .
	mypy

# Prints tables and writes figures to benchmarks/results.json. Nothing else should run at the same time.
bench: $(READY)
	@for name in view_preparation end_to_end sweep reprompt refine_at_size score_at_size checked_reading growth; do \
	    python -m benchmarks.$$name || exit 1; \
	done

bench-gpu: $(READY)
	@python -m benchmarks.gpu

define install
@version=$$($(PYTHON) --version 2>&1); case " $(VERSIONS) " in *" $$(echo "$$version" | cut -d' ' -f2 | cut -d. -f1,2) "*) ;; \
    *) echo "error: this needs one of Python $(VERSIONS), and $(PYTHON) is '$$version'; run make PYTHON=<path to such a Python>" >&2; exit 1;; esac
$(PYTHON) -m venv $(VENV)
$(BIN)/python -m pip install --quiet --disable-pip-version-check $(addprefix -r ,$(filter %.txt,$^))
endef

$(READY): requirements.txt
	$(install)
	@touch $@

# The other files include requirements.txt, so one installation is enough.
$(WITH_FINER): requirements-finer.txt requirements.txt
	$(install)
	@touch $(READY) $@

$(WITH_DEV): requirements-dev.txt requirements.txt
	$(install)
	@touch $(READY) $@

$(WITH_ALL): requirements-dev.txt requirements-ray.txt requirements-finer.txt requirements.txt
	$(install)
	@touch $(READY) $(WITH_FINER) $(WITH_DEV) $@
