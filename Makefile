# The commands that people and CI use. Everything is installed into .venv and kept in var/.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MODEL ?=
PORT ?=
SEED ?=
FAULTS ?=
STEPS ?=
HOURS ?=

.PHONY: demo up test chaos lint bench lock schema clean
.DEFAULT_GOAL := demo

demo: $(VENV)/installed  ## run the pipeline `demo` on real input; MODEL=provider/name uses a real model, PORT=8001 another port
	@$(BIN)/python manage.py demo $(if $(MODEL),--model $(MODEL)) $(if $(PORT),--port $(PORT))

up: $(VENV)/installed  ## run the whole stack until Ctrl-C; PORT=8001 chooses the dashboard's port
	@$(BIN)/python manage.py up $(if $(PORT),--port $(PORT))

test: $(VENV)/installed-dev  ## all tests; PYTEST="-k name" narrows them
	$(BIN)/python -m pytest -n 2 --dist loadgroup $(PYTEST)

chaos: $(VENV)/installed-dev  ## a storm of faults over a real stack; SEED= FAULTS= STEPS= HOURS= (docs/faults.md)
	@$(BIN)/python -m tests.faults $(if $(SEED),--seed $(SEED)) $(if $(FAULTS),--faults $(FAULTS)) \
		$(if $(STEPS),--steps $(STEPS)) $(if $(HOURS),--hours $(HOURS))

lint: $(VENV)/installed-dev  ## style, types, layers, migrations, API schema
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tests/lint.py

bench: $(VENV)/installed-dev  ## the figures, as ratios within one run
	$(BIN)/python -m bench

schema: $(VENV)/installed  ## write docs/api-schema.yaml anew
	$(BIN)/python manage.py spectacular --file docs/api-schema.yaml --validate --fail-on-warn

lock:  ## requirements.in -> requirements.txt, with hashes; needs uv
	uv pip compile -q --generate-hashes --no-emit-index-url --universal --python-version 3.11 \
		--custom-compile-command "make lock" requirements.in -o requirements.txt
	uv pip compile -q --generate-hashes --no-emit-index-url --universal --python-version 3.11 \
		--custom-compile-command "make lock" requirements-dev.in -o requirements-dev.txt

clean:  ## remove the installation's data; .venv stays
	rm -rf var

$(VENV)/installed: requirements.txt
	@$(PYTHON) -B -m djinn.core.installation.packages $(VENV) requirements.txt
	@touch $@

$(VENV)/installed-dev: requirements-dev.txt $(VENV)/installed
	@$(PYTHON) -B -m djinn.core.installation.packages $(VENV) requirements-dev.txt
	@touch $@
