# Everything runs from a fresh checkout; built things go below bin/ and .cache/.
# `make help` lists the targets.

SHELL := /bin/bash
.DEFAULT_GOAL := help

ARCH    ?= $(shell go env GOARCH)
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
SHIM    := bin/containerd-shim-wasm-v1
PLACE   := cmd/containerd-shim-wasm-v1/worker
# The native compiler, or Debian's cross compiler (gcc-aarch64-linux-gnu with
# libc6-dev-arm64-cross; gcc-x86-64-linux-gnu the other way round).
CC_amd64 := $(if $(filter amd64,$(shell go env GOHOSTARCH)),gcc,x86_64-linux-gnu-gcc)
CC_arm64 := $(if $(filter arm64,$(shell go env GOHOSTARCH)),gcc,aarch64-linux-gnu-gcc)

.PHONY: help build worker demo test test-unit test-integration test-cgroup2 bench lint install uninstall clean need-root

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 20

worker: ## build the worker, which holds wasmtime (ARCH=arm64 cross-builds)
	@command -v go >/dev/null || { echo "go is missing: install Go 1.26 or later" >&2; exit 1; }
	@command -v $(CC_$(ARCH)) >/dev/null || { echo "$(CC_$(ARCH)) is missing: apt-get install gcc, or for another architecture gcc-aarch64-linux-gnu libc6-dev-arm64-cross" >&2; exit 1; }
	@echo "building the worker for linux/$(ARCH) (about 20 s the first time)"
	@CGO_ENABLED=1 GOOS=linux GOARCH=$(ARCH) CC=$(CC_$(ARCH)) go build -trimpath -tags netgo,osusergo \
		-ldflags '-s -w -linkmode external -extldflags "-static -Wl,--no-warnings"' -o $(PLACE)/wasm-worker ./cmd/wasm-worker \
		2> >(grep -v 'statically linked applications requires at runtime\|in function' >&2)
	@sha256sum < $(PLACE)/wasm-worker | cut -d' ' -f1 > $(PLACE)/wasm-worker.sha256

build: worker ## build bin/containerd-shim-wasm-v1, the one file to install (ARCH=arm64 cross-builds)
	@echo "building $(SHIM) for linux/$(ARCH)"
	@CGO_ENABLED=0 GOOS=linux GOARCH=$(ARCH) go build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o $(SHIM) ./cmd/containerd-shim-wasm-v1
