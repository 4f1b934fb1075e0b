# Everything runs from a fresh checkout; build results are below bin/ and .cache/.
# `make help` lists the targets.

SHELL := /bin/bash
.DEFAULT_GOAL := help

ARCH    ?= $(shell go env GOARCH)
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
HOST    := $(shell go env GOHOSTARCH)
SHIM    := bin/$(if $(filter-out $(HOST),$(ARCH)),linux-$(ARCH)/)containerd-shim-wasm-v1
PLACE   := cmd/containerd-shim-wasm-v1/programs
# The native compiler, or Debian's cross compiler (gcc-aarch64-linux-gnu with
# libc6-dev-arm64-cross; gcc-x86-64-linux-gnu the other way round).
CC_amd64 := $(if $(filter amd64,$(shell go env GOHOSTARCH)),gcc,x86_64-linux-gnu-gcc)
CC_arm64 := $(if $(filter arm64,$(shell go env GOHOSTARCH)),gcc,aarch64-linux-gnu-gcc)

.PHONY: help cross build race worker wasm-client wasm-argoexec image examples demo deps tools test test-unit test-integration test-race test-cgroup2 cluster cluster-down e2e e2e-examples bench diagrams lint install uninstall clean need-root

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 20

worker: ## build the worker, which holds wasmtime (ARCH=arm64 cross-builds)
	@command -v go >/dev/null || { echo "go is missing: install Go 1.26 or later" >&2; exit 1; }
	@command -v $(CC_$(ARCH)) >/dev/null || { echo "$(CC_$(ARCH)) is missing: apt-get install gcc, or for another architecture gcc-aarch64-linux-gnu libc6-dev-arm64-cross" >&2; exit 1; }
	@echo "building the worker for linux/$(ARCH) (about 20 s the first time)"
	@[ $(ARCH) != arm64 ] || echo "WARNING: the engine has an open advisory on arm64, GHSA-mghf-wjfp-p5xm: see docs/security.md before you run images of strangers" >&2
	@CGO_ENABLED=1 GOOS=linux GOARCH=$(ARCH) CC=$(CC_$(ARCH)) go build -trimpath -buildvcs=false -tags netgo,osusergo \
		-ldflags '-s -w -linkmode external -extldflags "-static -Wl,--unresolved-symbols=report-all"' -o $(PLACE)/wasm-worker ./cmd/wasm-worker \
		2> >(grep -v '^# \|statically linked applications requires at runtime\|in function' >&2)
	@sha256sum < $(PLACE)/wasm-worker | cut -d' ' -f1 > $(PLACE)/wasm-worker.sha256

wasm-client: ## build wasm-client, which speaks to containerd and registries (ARCH=arm64 cross-builds)
	@CGO_ENABLED=0 GOOS=linux GOARCH=$(ARCH) go build -trimpath -buildvcs=false -tags grpcnotrace -ldflags '-s -w' -o $(PLACE)/wasm-client ./cmd/wasm-client
	@sha256sum < $(PLACE)/wasm-client | cut -d' ' -f1 > $(PLACE)/wasm-client.sha256

wasm-argoexec: ## build wasm-argoexec, which does the work of Argo's executor (ARCH=arm64 cross-builds)
	@CGO_ENABLED=0 GOOS=linux GOARCH=$(ARCH) go build -trimpath -buildvcs=false -ldflags '-s -w' -o $(PLACE)/wasm-argoexec ./cmd/wasm-argoexec
	@sha256sum < $(PLACE)/wasm-argoexec | cut -d' ' -f1 > $(PLACE)/wasm-argoexec.sha256

build: worker wasm-client wasm-argoexec ## build bin/containerd-shim-wasm-v1, the one file to install (ARCH=arm64 cross-builds)
	@echo "building $(SHIM) for linux/$(ARCH)"
	@CGO_ENABLED=0 GOOS=linux GOARCH=$(ARCH) go build -trimpath -buildvcs=false -ldflags '-s -w -X main.version=$(VERSION)' -o $(SHIM) ./cmd/containerd-shim-wasm-v1

RACE := bin/race/containerd-shim-wasm-v1

race: worker wasm-client wasm-argoexec ## build bin/race/containerd-shim-wasm-v1, with Go's race detector in the daemon
	@echo "building $(RACE)"
	@CGO_ENABLED=1 go build -race -trimpath -buildvcs=false -o $(RACE) ./cmd/containerd-shim-wasm-v1

cross: ## cross-build for the other architecture, to bin/linux-ARCH
	@$(MAKE) --no-print-directory build ARCH=$(if $(filter amd64,$(HOST)),arm64,amd64)

INSTALLER := $(dir $(SHIM))wasm-node-installer
IMAGE     ?= localhost/wasm-shim/node-installer:devel

image: build ## pack the node installer's image, bin/node-installer-ARCH.tar (IMAGE=name:tag, ARCH=arm64)
	@CGO_ENABLED=0 GOOS=linux GOARCH=$(ARCH) go build -trimpath -buildvcs=false -ldflags '-s -w' -o $(INSTALLER) ./cmd/wasm-node-installer
	@go run ./hack/image -platform linux/$(ARCH) -entrypoint /wasm-node-installer $(IMAGE) bin/node-installer-$(ARCH).tar \
		/wasm-node-installer=$(INSTALLER) /containerd-shim-wasm-v1=$(SHIM)
	@echo "packed $(IMAGE) into bin/node-installer-$(ARCH).tar"

examples: deps ## build the images of the example workflows in examples/argo, bin/examples/NAME.tar
	@go run ./hack/examples bin/examples

need-root:
	@[ "$$(id -u)" = 0 ] || { echo "this needs root: containers are mounted and confined by the kernel" >&2; exit 1; }

demo: need-root build ## run a Wasm image through a private containerd and show its output
	@go run ./hack/demo

deps: ## install the Debian packages that tests need and that are missing
	@hack/deps.sh

test: need-root deps cross build lint test-unit test-integration test-race test-cgroup2 ## everything: lint, unit, integration, race detector, cgroup v2

# The programs that tests compare ours with. They are built here, because go test limits the time and hides
# the output of the first test that needs one. deps comes first: runc without libseccomp applies no
# profiles.
tools: deps
	@hack/tools/build.sh argo-3.6 argo-3.7 argo-4.0 containerd-1.7 containerd-2.1 containerd-2.2 containerd-2.4 cni-plugins minio nerdctl runc versitygw >/dev/null

# One package after the other, so that the package with a leak is the one that reports it.
test-unit: tools build ## tests of the packages
	@echo "testing the packages"
	@go test -p 1 -timeout 40m $$(go list ./... | grep -v '/test$$\|/test/e2e$$\|/internal/testcluster$$')

test-integration: need-root tools build ## tests against real containerds (1.7, 2.1, 2.2, newest)
	@echo "testing against real containerds"
	@go test -timeout 40m ./test

# One containerd is enough: its version hardly changes the concurrency in the daemon. With halt_on_error a
# report ends the daemon and fails the test; otherwise it is only a line in a log. TSan's sleep at the end
# of each process, for reports of other threads, would cost a second per container. The comparison with the
# real argoexec is left out, because argoexec loses output on a busy machine; test-unit has it.
test-race: need-root tools race ## the daemon's packages, and one round against a containerd, with Go's race detector
	@echo "testing with the race detector"
	@CGO_ENABLED=1 go test -race -p 1 -timeout 40m -skip '^TestAsArgoexec$$' $$(go list -deps ./cmd/containerd-shim-wasm-v1 | grep "^$$(go list -m)/")
	@GORACE="halt_on_error=1 atexit_sleep_ms=0" CONTAINERD_VERSIONS=2.2 CONTAINERD_SHIM_WASM=$(abspath $(RACE)) \
		go test -count 1 -timeout 40m ./test

test-cgroup2: need-root build ## the core of the suite on unified cgroup v2, in a User-Mode Linux guest
	@echo "testing on cgroup v2 in a User-Mode Linux guest"
	@hack/cgroup2/test.sh

cluster: need-root deps build ## bring up a Kubernetes node with Argo and S3, or what is missing of it
	@go run ./hack/cluster up

cluster-down: need-root ## take it down; its logs stay in .cache/cluster/logs
	@go run ./hack/cluster down

# A cluster that was up before stays up. Its tests run in parallel, because they mostly wait.
e2e: need-root deps build ## tests on that cluster, brought up for them if it is down
	@go run ./hack/cluster with go test -p 1 -parallel 8 -count 1 -timeout 40m ./internal/testcluster ./test/e2e

# Some eighty workflows, with ALL some hundred, three times each. It is no part of e2e, because it takes minutes.
e2e-examples: need-root deps build ## run upstream's example workflows three ways on that cluster (ALL=1: the large ones, too, and the table in docs/argo.md)
	@go run ./hack/cluster with go test -p 1 -parallel 8 -count 1 -timeout 30m -run '^TestUpstreamExamples$$' ./test/e2e \
		-args -upstream$(if $(ALL),-all)

bench: need-root build ## measure starts, throughput and memory beside runc
	@go run ./bench

diagrams: ## draw the pictures of the documentation from the texts in docs/diagrams
	@go run ./hack/diagrams

lint: ## gofmt, go vet, staticcheck, shellcheck
	@echo "linting"
	@out=$$(gofmt -l $$(git ls-files '*.go')); [ -z "$$out" ] || { echo "gofmt these: $$out" >&2; exit 1; }
	@go vet ./...
	@"$$(hack/tools/build.sh staticcheck)/staticcheck" ./...
	@shellcheck $$(git ls-files '*.sh') .ci/run

install: build ## install on this node and tell containerd (see docs/install.md)
	@$(SHIM) install

uninstall: ## undo install
	@$(SHIM) uninstall

clean: ## remove what was built, not the tools in .cache
	@rm -rf bin $(PLACE)/wasm-* .cache/guests .cache/examples
