# The front door; meson and ninja do the work.  `make help` lists what there is.
BUILD ?= build
PREFIX ?= /usr/local
export PREFIX

.DEFAULT_GOAL := all
.PHONY: all help check check-guest check-kvm check-asan check-tsan bench bench-images bench-manage run install clean

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
run: run-deps $(BUILD)/build.ninja ## boot a guest on this terminal: GUEST=debian (default) or tiny
	@ninja -C $(BUILD) programs
	@tools/run $(BUILD) $(GUEST)

bench: bench-deps all ## measure beside QEMU; BENCH="--runs 1 int_mix" narrows it
	@/usr/bin/python3 bench/bench.py --build $(BUILD) $(BENCH)
	@$(MAKE) --no-print-directory bench-images
	@$(MAKE) --no-print-directory bench-manage

bench-images: bench-deps all ## disk images alone; BENCH_IMAGES="--runs 1 to-qcow2" narrows it
	@/usr/bin/python3 bench/images.py --build $(BUILD) $(BENCH_IMAGES)

bench-manage: bench-deps all ## lodged beside libvirtd; BENCH_MANAGE="--domains 1000" narrows it
	@/usr/bin/python3 bench/manage.py --build $(BUILD) $(BENCH_MANAGE)

install: all ## install into PREFIX (/usr/local), below DESTDIR if set
	@meson install -C $(BUILD) --no-rebuild

check-kvm: check-deps all ## the KVM engine inside an emulated machine with SVM
	@tools/guest tiny $(BUILD)/guests/tiny
	@meson test -C $(BUILD) --no-rebuild --print-errorlogs --suite kvm

check-guest: check-deps all ## lodged inside a guest whose kernel has VLAN filtering, device mapper, macvtap, cgroups, NFS
	@tools/install-deps guest
	@tools/guest tiny $(BUILD)/guests/tiny
	@LODGE_BUILD=$(BUILD) /usr/bin/python3 tests/flow/check_guest.py $(CHECKS)

check-asan: check-deps ## the address and undefined-behaviour sanitizers: unit tests, or TESTS="test_options ..."
	@tools/check-asan $(BUILD) $(TESTS)

check-tsan: check-deps all ## lodged under the thread sanitizer; TESTS as above
	@tools/check-tsan $(BUILD) $(TESTS)

clean: ## remove what was built (guest disks under build/guests too)
	rm -rf $(BUILD)
