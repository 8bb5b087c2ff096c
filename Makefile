GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X iap/internal/version.number=$(VERSION)
STATIC  := CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)'

.PHONY: help build test test-real test-scale test-kill test-crash demo lint cross bench fuzz deps

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

build: ## build iapctl, iap-agent and iap-relay into bin/, static
	$(STATIC) -o bin/ ./cmd/...

test: deps ## run every test with the race detector, fuzz briefly, prove that the other platforms build
	$(GO) vet -race -tags real ./... # with -race its work serves the tests as well
	$(MAKE) --no-print-directory cross
	FUZZTIME=2000x .ci/fuzz
	$(GO) test -race -timeout 12m ./...

test-real: deps ## test against a real Ollama, built once from its Go module (OLLAMA=path: one of your own)
	OLLAMA="$${OLLAMA:-$$(.ci/ollama)}" $(GO) test -tags real -count 1 -timeout 10m -run '^TestReal' ./internal/e2e

test-scale: deps ## kill each of two relays, two agents and their database ROUNDS times over (20) under load; measure the state
	IAP_ROUNDS=$(or $(ROUNDS),20) $(GO) test -race -count 1 -timeout 1h -run 'TestTwoRelaysAndTwoAgents' -v ./internal/e2e
	$(GO) test -run '^$$' -bench BenchmarkStore ./internal/state

test-kill: ## kill a login under 1,000 live streams, print how long each took to end, then redial for REDIALS (60s): nobody is let in
	IAP_REDIALS=$(or $(REDIALS),60s) $(GO) test -count 1 -timeout 10m -run '^TestKillEndsEveryLiveStreamWithTheReason$$' -v ./internal/relay

test-crash: ## kill -9 the relay KILLS (200) times under load; then its log must prove itself and agree with the model server's (SEED repeats a run)
	IAP_KILLS=$(or $(KILLS),200) IAP_SEED=$(SEED) $(GO) test -race -count 1 -timeout 1h -run 'HoweverOftenTheRelayIsKilled' -v ./internal/e2e

demo: build ## run everything on loopback and stream one answer (MODEL_URL=http://127.0.0.1:11434 for your own model server)
	bin/iap-relay dev --demo $(if $(MODEL_URL),--model-url '$(MODEL_URL)')

lint: ## gofumpt and staticcheck
	test -z "$$($(GO) tool gofumpt -l cmd internal tunnel auth policy | tee /dev/stderr)"
	$(GO) tool staticcheck -tags real ./...

cross: ## compile all for darwin/arm64, iapctl and iap-agent for windows/amd64, iap-agent for linux/arm64
	GOOS=darwin GOARCH=arm64 $(STATIC) -o /dev/null ./cmd/...
	GOOS=windows GOARCH=amd64 $(STATIC) -o /dev/null ./cmd/iapctl ./cmd/iap-agent
	GOOS=linux GOARCH=arm64 $(STATIC) -o /dev/null ./cmd/iap-agent

bench: build ## measure the tunnel against no tunnel, in turn, and print the ratios (BENCH=quick for a short run)
	$(GO) run ./internal/bench/cmd/tunnelbench -bin bin $(if $(BENCH),-$(BENCH))

fuzz: ## fuzz every parser a stranger can reach, FUZZTIME each
	FUZZTIME=$(or $(FUZZTIME),5m) .ci/fuzz

deps: ## install what the tests need from Debian (a C compiler for the race detector, Redis, PostgreSQL)
	@.ci/deps
