# Everything that is done to this repository. "make help" lists it.

SHELL := /bin/sh
GO    ?= go
BIN   := bin

# The version is what git says, or "dev" where there is no git or no history.
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
MODULE  := github.com/sluice-gateway/sluice
LDFLAGS := -X $(MODULE)/internal/version.stamp=$(VERSION)
# -buildvcs=false: the stamp says the same, and building works where git does not.
BUILD   := $(GO) build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)'

CONFIG   ?= configs/quickstart.yaml
PKG      ?= ./...
TIMEOUT  ?= 9m
FUZZTIME ?= 20s
BENCH    ?= .
BENCHTIME ?= 200ms
COUNT     ?= 6
BASE      ?= main

# Where make conformance has npm install onnxruntime-node.
ORACLE := $(BIN)/oracle

GOLANGCI_VERSION := v2.12.2
GOLANGCI := $(BIN)/golangci-lint-$(GOLANGCI_VERSION)

# The storage server that others wrote, for TestRealObjectStorage.
VERSITYGW_VERSION := v1.8.0
VERSITYGW := $(BIN)/versitygw-$(VERSITYGW_VERSION)

# Packages that need cgo; everything else must build without it.
CGO_ONLY := $(MODULE)/runtime/ort$$|$(MODULE)/cmd/sluice-runtime$$

.DEFAULT_GOAL := help
.PHONY: help setup setup-gpu build run test race conformance lint fuzz bench bench-gpu bench-edge microbench bench-compare profile bench-ws chaos restarts reloads check arch fmt clean

help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## Fetch what is missing: ONNX Runtime, through npm or pip (does nothing when it is there)
	@command -v $(GO) >/dev/null 2>&1 || { echo "setup: $(GO) is not on PATH; install Go 1.26 or newer" >&2; exit 1; }
	@$(GO) run ./internal/tools/ortsetup

setup-gpu: setup ## Fetch ONNX Runtime with CUDA and TensorRT, too, through pip (300 MB; CUDA 13 and cuDNN 9 are yours to install)
	@$(GO) run ./internal/tools/ortsetup -gpu

build: setup ## Build bin/sluice (no cgo) and bin/sluice-runtime
	CGO_ENABLED=0 $(BUILD) -o $(BIN)/sluice ./cmd/sluice
	CGO_ENABLED=1 $(BUILD) -o $(BIN)/sluice-runtime ./cmd/sluice-runtime

run: build ## Build and serve the sample model on this machine (CONFIG=configs/quickstart.yaml)
	$(BIN)/sluice serve --config $(CONFIG)

test: setup $(VERSITYGW) ## Run all tests with the race detector (PKG=./... TIMEOUT=9m)
	@$(GO) run ./internal/tools/testsum $(GO) test -json -race -shuffle=on -timeout $(TIMEOUT) $(PKG)

race: setup $(VERSITYGW) ## Run the tests five times over with the race detector, for rare orders (PKG=./router/...)
	@$(GO) run ./internal/tools/testsum $(GO) test -json -race -shuffle=on -count=5 -timeout 30m $(PKG)

conformance: setup ## Serve every model of Debian's libonnx-testdata in every protocol, and ask onnxruntime-node the same (SLUICE_ONNX_TESTDATA=dir)
	SLUICE_CONFORMANCE=all $(GO) test -count=1 -timeout 9m -run '^TestModels$$' -v ./test/conformance
	@if ! command -v npm >/dev/null 2>&1 || ! command -v node >/dev/null 2>&1; then \
	  echo "oracle: skipped, there is no npm or no node here"; \
	elif mkdir -p $(ORACLE) && cp test/conformance/oracle/package.json $(ORACLE)/ && \
	  npm install --prefix $(ORACLE) --ignore-scripts --no-package-lock --no-audit --no-fund --loglevel=error >&2; then \
	  SLUICE_CONFORMANCE=all SLUICE_ORACLE=$(CURDIR)/$(ORACLE) $(GO) test -count=1 -timeout 9m -run '^TestOracle$$' -v ./test/conformance; \
	else \
	  echo "oracle: skipped, npm could not install onnxruntime-node"; \
	fi

lint: $(GOLANGCI) ## Run golangci-lint, installed into bin/ at a pinned version
	$(GOLANGCI) run $(PKG)

$(GOLANGCI):
	@mkdir -p $(BIN)
	GOBIN=$(CURDIR)/$(BIN)/.install $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)
	mv $(BIN)/.install/golangci-lint $@ && rmdir $(BIN)/.install

# Best effort: without the module proxy the one test that needs it skips, and says what stands in the log.
$(VERSITYGW):
	@mkdir -p $(BIN)/.install-versitygw
	@echo "setup: installing versitygw $(VERSITYGW_VERSION) for the tests of object storage"
	@if GOBIN=$(CURDIR)/$(BIN)/.install-versitygw CGO_ENABLED=0 GOFLAGS= timeout 150 \
	  $(GO) install github.com/versity/versitygw/cmd/versitygw@$(VERSITYGW_VERSION) >$@.log 2>&1; then \
	  mv $(BIN)/.install-versitygw/versitygw $@ && rm -f $@.log; \
	else \
	  echo "go install gave up (status $$?)" >>$@.log; \
	  echo "setup: versitygw is not installed, TestRealObjectStorage will skip:" >&2; tail -n 2 $@.log >&2; \
	fi
	@rm -rf $(BIN)/.install-versitygw

fuzz: setup ## Run every fuzz target for a while (FUZZTIME=20s PKG=./spec)
	@$(GO) list -f '{{.Dir}}' $(PKG) | while read -r dir; do \
	  for target in $$(cat "$$dir"/*_test.go 2>/dev/null | sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p'); do \
	    echo "$$target in $$dir"; \
	    $(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) "$$dir" || exit 1; \
	  done; \
	done

bench: build ## Measure everything against nginx, HAProxy, wrk, Flask, Node and a bare loop; writes docs/benchmarks/DATE.md (BENCHFLAGS='-quick -only edge')
	$(GO) run ./test/bench $(BENCHFLAGS)

bench-gpu: build ## Compare a worker on a GPU with a bare ONNX Runtime loop (BENCHFLAGS='-device 1 -batch 128'); writes docs/benchmarks/gpu.md
	@$(GO) run ./test/bench -only gpu -out docs/benchmarks/gpu.md $(BENCHFLAGS)

chaos: setup ## Upgrade, kill and replace everything at random under load (CHAOS_MINUTES=5 CHAOS_SEED=n)
	CHAOS_MINUTES=$${CHAOS_MINUTES:-5} $(GO) test -count=1 -v -timeout 2h -run '^TestChaos$$' ./test/system

restarts: setup ## Replace every process of a cluster again and again at 80 % load (RESTARTS=20)
	RESTARTS=$${RESTARTS:-20} $(GO) test -count=1 -v -timeout 1h -run '^TestRollingRestarts$$' ./test/system

reloads: setup ## Load a model anew under load, and without, and weigh the worker (RELOADS=1000)
	SLUICE_RELOADS=$${RELOADS:-1000} $(GO) test -count=1 -v -timeout 9m -run '^(TestReloadsUnderLoad|TestLoadAndUnloadKeepTheSize)$$' ./cmd/sluice-runtime ./runtime/ort

microbench: setup ## Run the Go benchmarks (BENCH=regexp BENCHTIME=200ms PKG=./...)
	$(GO) test -run '^$$' -bench '$(BENCH)' -benchtime $(BENCHTIME) -benchmem $(PKG)

bench-edge: build ## Compare with nginx and HAProxy on this machine (EDGE="-length 10s -rounds 5"); writes docs/benchmarks/edge.md
	@mkdir -p docs/benchmarks
	$(GO) build -o $(BIN)/bench-edge ./test/bench/edge
	$(BIN)/bench-edge -bin $(BIN) -out docs/benchmarks/edge.md $(EDGE)

bench-ws: setup ## Weigh idle WebSockets and time a message through the gateway (SOCKETS=10000 KIND=wss or v2)
	SLUICE_WS_SOAK=$${SOCKETS:-10000} SLUICE_WS_KIND=$(KIND) SLUICE_WS_LATENCY=1 $(GO) test -count=1 -v -timeout 9m \
	  -run '^(TestIdleWebSocketsCostLittle|TestWebSocketAddsLittleTime|TestDirectAndEdgeSideBySide)$$' ./test/system

bench-compare: setup ## Compare the Go benchmarks with another revision: BASE=main (COUNT=6 BENCH=regexp PKG=./...)
	@sh test/bench/compare.sh '$(BASE)' '$(BENCH)' '$(BENCHTIME)' '$(COUNT)' '$(PKG)'

profile: setup ## Write CPU and allocation profiles of each stage of a request to bin/profiles
	@sh test/bench/profile.sh '$(BENCHTIME)'

check: ## Cheap checks: formatting, go vet, and a build of everything else without cgo
	@unformatted=$$(git ls-files '*.go' 2>/dev/null | xargs gofmt -l); \
	  [ -z "$$unformatted" ] || { echo "not formatted (run make fmt):"; echo "$$unformatted"; exit 1; }
	$(GO) vet ./...
	@$(GO) list -f '{{if .GoFiles}}{{.ImportPath}}{{end}}' ./... | grep -Ev '$(CGO_ONLY)' | CGO_ENABLED=0 xargs $(GO) build
	@echo "check: formatting, vet and the build without cgo are fine"

arch: ## Write the import graph to internal/archtest/edges.txt
	$(GO) test ./internal/archtest -run TestEdges -update

fmt: ## Format all Go files
	@git ls-files '*.go' | xargs gofmt -w

clean: ## Remove what was built (not what set-up fetched)
	rm -rf $(BIN)
