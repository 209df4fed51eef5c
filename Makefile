# make build    the binary, bin/tasuki
# make web      the web console, which the binary embeds; make web-test checks its sources and drives it with a browser (root: in a lab too)
# make demo     the reference scenario on this machine, in namespaces (root); KEEP=1 leaves it running
# make test     everything that must pass before a change is taken (root: the lab too)
# make check    the quick part of it, without root
# make sim      stories of random faults: 2,000 of an hour each, over all kinds of clusters; SEEDS=n, HOURS=h, and
#               NODES=witness|wiped|three|five|stops|ping|fence|none|forced|mirror|mirror-ping|mirror-pair picks one kind; SEED=n replays one story with as few of its faults as break it
# make mutants  build deliberate bugs, and let the hunt, or the stories of two copies of a mirror disk, find each
# make chaos    real daemons in a lab under random faults (root); MINUTES=n SEED=n LAYOUT=witness|three|pair-none|pair-ping ONLY=fault
# make bench-failover, bench-mirror, bench-drbd, bench-overload: figures for docs/performance.md (root)
# make test-vm  the tests that need the kernel's nbd, in a guest that has it (QEMU without KVM will do; root, to install that);
#               KERNEL=folder of another kernel's unpacked package
# make golden   write the expected output of tests anew; look at the difference before you keep it

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := build

GO ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
# Stamping needs a repository that belongs to the caller; VERSION does without.
export GOFLAGS := $(strip $(GOFLAGS) -buildvcs=false)

# The console is built where npm is, by a Node.js that can; without it the binary
# says how to get one. NODE= leaves it out, and its tests.
export NODE ?= $(shell node -p 'const [a, b] = process.versions.node.split(".").map(Number); a > 20 || (a === 20 && b >= 19) ? "node" : ""' 2>/dev/null)

SOURCES := $(wildcard api cmd examples internal lab scenarios schemas test)
TEST_TIMEOUT ?= 15m
# What the lab runs as the business application. The package without -bin would
# bring a service that starts with the machine.
PACKAGES := apache2-bin iputils-ping
# Packages whose tests need root or the machine for themselves.
LAB := /(internal/lab|test/.*)$$

.PHONY: build web web-check web-test demo test check sim mutants chaos bench-idle bench-witness bench-failover bench-mirror bench-drbd bench-overload golden test-vm man clean fmt vet staticcheck gofmt packages compiler FORCE

build: bin/tasuki

bin/tasuki: FORCE | $(if $(NODE),web)
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o $@ ./cmd/tasuki

web: internal/console/dist/index.html.gz

web/node_modules/.package-lock.json: web/package.json web/package-lock.json web/.npmrc
	cd web && npm ci --no-progress --loglevel=error
	touch $@

# What the page knows of the API is what the handlers say of themselves.
web/openapi.json: $(wildcard api/*.go internal/httpapi/*.go)
	CGO_ENABLED=0 $(GO) run ./cmd/tasuki api openapi > $@

internal/console/dist/index.html.gz: web/node_modules/.package-lock.json web/openapi.json $(shell find web/src web/public -type f) $(wildcard web/*.*)
	cd web && npm run --silent schema && npm run --silent build

web-check: web
	cd web && npm run --silent check

# Screenshots are left in out/console. It measures too, and wants the machine for itself.
web-test: PACKAGES += chromium e2fsprogs
web-test: packages web-check
	CGO_ENABLED=0 $(GO) test -count=1 -v -timeout $(TEST_TIMEOUT) ./test/console

demo: build packages
	bin/tasuki lab demo $(if $(KEEP),--keep)

# The agents that internal/fence is tried with; they bring 97 MB of Python, so
# nothing but the tests asks for them. The others are for the disks of labs.
test: PACKAGES += curl fence-agents e2fsprogs xfsprogs fio libnbd-bin qemu-utils $(if $(NODE),chromium)

# The packages run one after the other, because the lab measures times; what
# they need is built before that in parallel.
# The browser does here what it does in make web-test, but no figure counts, and everything may take longer.
test: packages compiler vet staticcheck gofmt $(if $(NODE),web-check)
	CGO_ENABLED=1 $(GO) build -race ./...
	MEASURE= GORACE=atexit_sleep_ms=0 CGO_ENABLED=1 $(GO) test -race -p 1 -timeout $(TEST_TIMEOUT) ./...

check: vet staticcheck gofmt
	CGO_ENABLED=0 $(GO) test -short -timeout 5m $$($(GO) list ./... | grep -Ev '$(LAB)')

sim:
	GOGC=400 SEEDS=$(or $(SEEDS),2000) HOURS=$(or $(HOURS),1) CGO_ENABLED=0 $(GO) test -count=1 -timeout 0 -v -run '^TestHunt$$' ./internal/sim | grep -v '^=== '

mutants:
	CGO_ENABLED=0 $(GO) test -count=1 -timeout 0 -v -run '^TestMutants$$' ./internal/sim ./internal/mirror/replica -args -mutants

chaos: packages
	CGO_ENABLED=0 $(GO) test -count=1 -v -timeout 0 -run '^TestChaos$$' ./test/chaos -args -minutes $(or $(MINUTES),10) -seed $(or $(SEED),1) -layout $(or $(LAYOUT),witness) $(if $(ONLY),-only "$(ONLY)")

bench-witness: build packages
	CGO_ENABLED=0 $(GO) test -count=1 -run '^$$' -bench '^BenchmarkWitness' -benchtime 1x -timeout $(TEST_TIMEOUT) ./internal/lab/demo

bench-idle: build packages
	CGO_ENABLED=0 $(GO) test -count=1 -run '^$$' -bench '^BenchmarkIdle' -benchtime 1x -timeout $(TEST_TIMEOUT) ./internal/lab/...

# Client outages at crashes, pulled cables and moves; RUNS=n each, PEER=1 with keepalived beside it.
bench-failover: PACKAGES += $(if $(PEER),keepalived)
bench-failover: build packages
	BINARY=$(CURDIR)/bin/tasuki RUNS=$(or $(RUNS),20) PEER=$(PEER) CGO_ENABLED=0 $(GO) test -count=1 -run '^$$' -bench '^BenchmarkFailover' -benchtime 1x -timeout 0 ./internal/lab/demo

# Block devices under fio; RUNS=n SECONDS=n each, VARIANTS=loop,front,mirror and LOADS="4k write,1M read x4" only these. Figures as JSON in OUT.
bench-mirror: PACKAGES += fio
bench-mirror: packages
	RUNS=$(or $(RUNS),5) SECONDS=$(or $(SECONDS),4) VARIANTS="$(VARIANTS)" LOADS="$(LOADS)" OUT=$(or $(OUT),$(CURDIR)/out/bench-mirror.json) CGO_ENABLED=0 $(GO) test -count=1 -run '^$$' -bench '$(or $(BENCH),^BenchmarkMirror)' -benchtime 1x -timeout 0 ./test/lab

# A mirror disk beside DRBD in a guest as of test-vm; with FUSE too where its kernel is 6.9 or later.
bench-drbd: PACKAGES := qemu-system-x86 e2fsprogs xz-utils fio
bench-drbd: packages $(if $(KERNEL),,out/vm) out/drbd
	CGO_ENABLED=0 $(GO) test -count=1 -v -timeout $(TEST_TIMEOUT) -run '^TestVM$$' ./internal/mirror/front/nbd -args -vm $(abspath $(or $(KERNEL),out/vm)) -drbd $(CURDIR)/out/drbd -in '^$$' -bench-in '^BenchmarkDRBD$$'

# A cluster beside busy loops; MINUTES=n PROFILE=default|fast.
bench-overload: build packages
	BINARY=$(CURDIR)/bin/tasuki MINUTES=$(or $(MINUTES),10) PROFILE=$(or $(PROFILE),default) CGO_ENABLED=0 $(GO) test -count=1 -run '^$$' -bench '^BenchmarkOverload' -benchtime 1x -timeout 0 ./internal/lab/demo

golden:
	CGO_ENABLED=0 $(GO) test -count=1 $$(grep -rlE 'flag\.Bool\("update"' --include='*_test.go' $(SOURCES) | xargs -r -n 1 dirname | sort -u | sed 's,^,./,') -update

test-vm: PACKAGES := qemu-system-x86 e2fsprogs xz-utils
test-vm: packages $(if $(KERNEL),,out/vm)
	CGO_ENABLED=0 $(GO) test -count=1 -v -timeout $(TEST_TIMEOUT) -run '^TestVM$$' ./internal/mirror/front/nbd -args -vm $(abspath $(or $(KERNEL),out/vm))

# $(call unpack,PACKAGE): a package of Debian's, unpacked into the target and not installed.
define unpack
	rm -rf $@.part; mkdir -p $@.part
	cd $@.part; apt-get download -q $(1); dpkg-deb -x *.deb .
	mv $@.part $@
endef

out/vm: | packages
	$(call unpack,$$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: \(linux-image-[0-9]\)/\1/p'))

out/drbd: | packages
	$(call unpack,drbd-utils)

man: build
	mkdir -p out/man
	bin/tasuki man out/man

clean:
	rm -rf bin out web/dist web/node_modules internal/console/dist/assets internal/console/dist/*.*

fmt: bin/tools/gofumpt
	bin/tools/gofumpt -w $(SOURCES)

vet:
	CGO_ENABLED=0 $(GO) vet ./...

staticcheck: bin/tools/staticcheck
	CGO_ENABLED=0 bin/tools/staticcheck ./...

gofmt:
	@bad=$$(gofmt -l $(SOURCES)); if [ -n "$$bad" ]; then echo "not formatted, run 'make fmt':"; echo "$$bad"; exit 1; fi

# Tools are built once from versions of their own.
bin/tools/staticcheck: tools/go.mod tools/go.sum
	cd tools && CGO_ENABLED=0 $(GO) build -o ../$@ honnef.co/go/tools/cmd/staticcheck

bin/tools/gofumpt: tools/go.mod tools/go.sum
	cd tools && CGO_ENABLED=0 $(GO) build -o ../$@ mvdan.cc/gofumpt

# Without root nothing is installed; tests that need more say so.
packages:
	@if [ "$$(id -u)" = 0 ]; then tools/packages $(PACKAGES); fi

# The race detector is the one thing that needs a C compiler.
compiler:
	@if ! command -v gcc >/dev/null; then tools/packages gcc libc6-dev; fi
