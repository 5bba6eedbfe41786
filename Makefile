# A convenience, never a need: every target is one command you can type.
.PHONY: help build static test race lint fuzz crash full bench table release image clean

help: ## what there is
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'
build: ## bin/pellucid
	CGO_ENABLED=0 go build -trimpath -o bin/pellucid ./cmd/pellucid
static: ## bin/pellucid without the embedded engine: static, any platform
	CGO_ENABLED=0 go build -trimpath -tags noembedded -o bin/pellucid ./cmd/pellucid
test: ## everything, with a real ClickHouse
	go test ./...
race: ## the concurrent rooms under the race detector
	.ci/race
lint: ## golangci-lint, with the version of tools/go.mod
	cd tools && GOBIN=$(CURDIR)/bin go install tool
	bin/golangci-lint run ./...
fuzz: ## every fuzz target for a minute
	.ci/fuzz 60s
crash: ## 200 kill -9 of the server and of its ClickHouse during traffic
	go run ./bench/crash -kills 200
full: ## 20 kills while the disk is filled and freed
	go run ./bench/crash -kills 20 -every 4s -disk 1200
bench: ## requests, rows a second, bytes a row, start to ready
	go run ./bench/serving
table: ## every benchmark beside its rival, as README.md's table
	go run ./bench/table -write README.md
release: ## dist/: archives for linux, darwin and windows
	deploy/release.sh
image: ## a container image
	docker build -f deploy/Dockerfile -t pellucid .
clean: ## what the targets above made
	rm -rf bin dist
