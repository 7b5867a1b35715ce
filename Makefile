# uffdlab: `make demo` on a fresh Debian 12 machine does everything. `make` alone lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
python := .venv/bin/python
export MPLCONFIGDIR := $(CURDIR)/build/matplotlib

# Each of these installs what is missing. If nothing is missing, it ends at once.
.PHONY: setup setup-lab setup-test setup-check setup-bench setup-vagrant
setup:       ; @vm/install-packages demo && vm/make-venv
setup-lab:   ; @vm/install-packages lab && vm/make-venv
setup-test:  ; @vm/install-packages test && vm/make-venv dev
setup-check: ; @vm/install-packages demo && vm/make-venv dev
setup-bench: setup-test
	@test -x .venv/bin/vng || $(python) -m pip install --quiet --disable-pip-version-check --editable '.[virtme-ng]'
setup-vagrant: ; @vm/install-packages demo vagrant && vm/make-venv && vm/libvirt-daemons start

# Jupyter's settings stay in the checkout, so that your ~/.jupyter and ~/.ipython have no effect and do not change.
jupyter := $(CURDIR)/build/jupyter
demo lab vagrant: export JUPYTER_CONFIG_DIR := $(jupyter)/config
demo lab vagrant: export JUPYTER_DATA_DIR := $(jupyter)/data
demo lab vagrant: export JUPYTER_RUNTIME_DIR := $(jupyter)/runtime
demo lab vagrant: export JUPYTERLAB_SETTINGS_DIR := $(jupyter)/config/lab/user-settings
demo lab vagrant: export JUPYTERLAB_WORKSPACES_DIR := $(jupyter)/config/lab/workspaces
demo lab vagrant: export IPYTHONDIR := $(jupyter)/ipython
no-news := {"@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": false}}

.PHONY: demo
demo: setup ## build two kernels, run the notebook, show all pages before and after (build/demo/)
	@mkdir -p "$(jupyter)" && env --block-signal=INT $(python) -m uffdlab demo

# The notebooks that people work in are copies, which stay.
LABDIR ?= build/notebooks
.PHONY: lab
lab: setup-lab ## open JupyterLab on a copy of notebooks/minor_wp.ipynb, in build/notebooks or LABDIR=FOLDER
	@mkdir -p "$(jupyter)/config/labconfig"
	@echo '$(no-news)' >"$(jupyter)/config/labconfig/default_setting_overrides.json"
	@exec $(python) -m uffdlab lab "$(LABDIR)" -- $(LABFLAGS)

.PHONY: vagrant
vagrant: setup-vagrant ## start a Debian VM with the patched kernel, run the notebook on it (build/vagrant/)
	@mkdir -p "$(jupyter)" build/vagrant
	@$(python) -m uffdlab kernel build debian/bookworm debian/trixie 6.1-as-posted # the notebook also runs these in QEMU
	@$(python) -m uffdlab vagrant up
	@UFFDLAB_MACHINE=vagrant $(python) -m uffdlab notebook notebooks/minor_wp.ipynb build/vagrant/minor_wp.html

.PHONY: test test-check test-unit test-kernels test-vm test-notebook test-browser test-long test-upstream test-debug test-vagrant test-install
test: setup-test ## run all checks and tests, print how long each part took
	@$(python) tests/run.py
test-check test-unit test-kernels test-vm test-notebook test-browser test-long test-upstream test-debug: setup-test # one part of `make test`
	@$(python) tests/run.py $(@:test-%=%)
test-vagrant: setup-vagrant setup-test
	@$(python) tests/run.py vagrant
test-install: setup-test
	@vm/install-packages install && $(python) tests/run.py install

.PHONY: test-pythons
test-pythons: setup-test # PYTHONS="python3.13 …" names them
	@$(python) tests/pythons.py $(PYTHONS)

.PHONY: check
check: setup-check ## run ruff, mypy and import-linter
	@$(python) tests/run.py check

.PHONY: bench
bench: setup-bench ## compare with other programs, or with AGAINST=another checkout; write build/bench/results.json
	@$(python) benchmarks/run.py $(if $(AGAINST),--against $(AGAINST))

.PHONY: dist
dist: setup-test ## build the wheel and the sdist into dist/, check them, install the wheel and run it
	@$(python) -m pip install --quiet --disable-pip-version-check --editable '.[dist]'
	@$(python) tests/dist.py

.PHONY: clean distclean
clean: ## remove what make made in this folder, except .venv and the notebooks that you worked in
	@[ ! -d build ] || find build -mindepth 1 -maxdepth 1 ! -name notebooks -exec rm -rf {} +
	@[ ! -d build ] || rmdir --ignore-fail-on-non-empty build
	@rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis *.egg-info
	@find . -path ./.venv -prune -o \( -name __pycache__ -o -name .ipynb_checkpoints \) -type d -prune -exec rm -rf {} +
	@echo "The kernels stay in $${UFFDLAB_CACHE:-$${XDG_CACHE_HOME:-$$HOME/.cache}/uffdlab}; delete that folder to build them again."
distclean: clean ## clean, and remove .venv
	@rm -rf .venv uffdlab/agent/_native.abi3.so uffdlab/bulk/_bulk.abi3.so

.PHONY: help
help: ## list the targets
	@echo "make TARGET, where TARGET is"
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  \1\t\2/p' Makefile | expand -t 14
	@echo "One part of the tests: make test-check, test-unit, test-kernels, test-vm, test-notebook, test-browser."
	@echo "make test-vagrant starts VMs with Vagrant, with libvirt and without it."
	@echo "make test-long runs what make test leaves out: every kind of memory on every kernel, every widget."
	@echo "make test-upstream compiles four 7.3 kernels and runs the kernel's own tests, with our patch, on them."
	@echo "make test-debug runs the series' selftests and ten minutes of random calls on a kernel with KASAN and lockdep."
	@echo "make test-install installs the wheel on bare Debian systems and builds the container (podman, some 20 minutes)."
	@echo "make test-pythons runs the unit tests and one test in a guest on each Python from 3.11 to 3.14 that is here."
	@echo "PYTHON=/path/to/python3 chooses the interpreter for .venv."
