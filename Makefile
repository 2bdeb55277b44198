# Which Torch-TensorRT: rtx, or standard. Changing it reinstalls.
TENSORRT ?= rtx
# The Python to make .venv with; empty: the first on PATH that fits.
PYTHON ?=

# `make constraints` pins everything else to the newest that fits these.
TORCH := torch==2.14.0 torch-tensorrt-rtx==2.14.0 torch-tensorrt==2.14.0 tensorrt==11.1.0.106
# Pinned by tensorrt itself; their metadata come with gigabytes from NVIDIA's own registry.
TENSORRT_PARTS := tensorrt-cu13 tensorrt-cu13-libs tensorrt-cu13-bindings

SHELL := bash
.PHONY: help setup bench test cluster lint docs examples links pictures charts constraints clean

help: ## list the targets
	@sed -nE 's/^([a-z]+):[^#]*## (.*)/make \1\t\2/p' Makefile | expand -t 20

setup: ## make .venv, or bring it up to date
	@TENSORRT='$(TENSORRT)' PYTHON='$(PYTHON)' tools/setup.sh

bench: setup ## run the suite against the stored baselines
	.venv/bin/python -m pytest benchmarks --benchmark-compare --trtgate-prebuild auto

test: setup ## run the tests of trtgate itself, two at a time but for those that time something
	.venv/bin/python -m pytest tests -m 'not alone' -n 2
	.venv/bin/python -m pytest tests -m alone

cluster: setup ## run the tests of Ray clusters that `make test` leaves out; takes 5 minutes
	.venv/bin/python -m pytest tests/test_ray.py -m whole_cluster

lint: setup ## check style, types and which package imports which
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports --no-logo --no-cache

docs: setup ## build the documentation as a site, into .site/
	.venv/bin/sphinx-build -W --keep-going -q -d .site/.doctrees docs .site
	@echo "open .site/index.html"

examples: setup ## make the example reports of the documentation from measured records, and their pictures
	.venv/bin/python tools/examples.py docs/_examples/examples
	.venv/bin/python tools/examples.py --pictures

links: docs ## check that links of the documentation to other sites lead somewhere
	.venv/bin/sphinx-build -b linkcheck -q -d .site/.doctrees docs .site/.links

pictures: setup ## take the pictures of the documentation anew; needs Chromium, takes 3 minutes
	.venv/bin/python tools/pictures.py

charts: setup ## draw the charts of docs/measured/ from its tables, and the states of the GPU from recorded data
	.venv/bin/python tools/charts.py

constraints: setup ## pin the newest versions in constraints.txt
	printf '%s\n' $(TORCH) uv hatchling editables | .venv/bin/uv pip compile pyproject.toml - \
		--extra rtx --extra standard --extra dev --excludes <(printf '%s\n' $(TENSORRT_PARTS)) \
		--python-version 3.11 --python-platform x86_64-manylinux_2_28 --upgrade --quiet --no-annotate \
		--custom-compile-command 'make constraints' --output-file constraints.txt

clean: ## remove .venv, caches and built packages; saved runs in .trtgate stay
	rm -rf .venv .venv.lock .benchmarks .hypothesis .mypy_cache .pytest_cache .ruff_cache .site dist
	find src tests benchmarks tools -name __pycache__ -prune -exec rm -rf {} +
