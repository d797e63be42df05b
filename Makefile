# The front door; meson and ninja do the work.  `make help` lists what there is.
BUILD ?= build
PREFIX ?= /usr/local
export PREFIX

.DEFAULT_GOAL := all
.PHONY: all help deps check check-kvm check-asan fuzz bench run install format clean

all: $(BUILD)/build.ninja ## build everything into build/
	@ninja -C $(BUILD)

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(BUILD)/build.ninja: meson.build | build-deps
	@meson setup $(BUILD) --prefix $(PREFIX) $(MESON_FLAGS)

.PHONY: build-deps check-deps run-deps bench-deps
build-deps:
	@tools/install-deps build
check-deps:
	@tools/install-deps build check
run-deps:
	@tools/install-deps build run
bench-deps:
	@tools/install-deps build bench

check: check-deps all ## run all tests; ends with "N passed, N failed"
	@tools/check $(BUILD)

GUEST ?= debian
run: run-deps all ## boot a guest on this terminal: GUEST=debian (default) or tiny
	@tools/run $(BUILD) $(GUEST)

bench: bench-deps all ## measure beside QEMU; BENCH="--runs 1 int_mix" narrows it
	@/usr/bin/python3 bench/bench.py --build $(BUILD) $(BENCH)

install: all ## install into PREFIX (/usr/local), below DESTDIR if set
	@meson install -C $(BUILD) --no-rebuild

clean: ## remove what was built (guest disks under build/guests too)
	rm -rf $(BUILD)
