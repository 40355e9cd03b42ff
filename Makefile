# `make` lists the targets: the text after ## is the help.
VERSION ?= 1.1.0
COMMIT  ?= $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
LDFLAGS  = -s -w -X adconnector/internal/cli.version=$(VERSION) -X adconnector/internal/cli.commit=$(COMMIT)
# renovate: datasource=go depName=github.com/golangci/golangci-lint/v2
GOLANGCI_LINT_VERSION = v2.15.0
# renovate: datasource=go depName=golang.org/x/vuln
GOVULNCHECK_VERSION = v1.9.0
GOLANGCI_LINT = go run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT_VERSION)
IMAGE  ?= adconnector:$(VERSION)
BINARY ?= bin/adconnector
DIST   ?= dist
SOAK   ?= 1h

.PHONY: help demo build test test-ad test-faults soak test-browser screenshot test-image test-deploy bench lint vuln image release

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: build ## run the connector with a sandbox directory and gateway in one process (DEMO=--keep keeps them running)
	@bin/adconnector demo $(DEMO)

build: ## build the static binary bin/adconnector
	CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)' -o $(BINARY) ./cmd/adconnector

test: ## run all tests that need Go only, with the race detector if a C compiler is installed
	test/run.sh -short -timeout 15m ./...

test-ad: ## test the binary with a Samba domain controller (installs Samba if missing; root)
	go test -tags ad -count=1 -timeout 15m -v ./test/samba

test-faults: ## test kills, network faults, full disks, proxies and clock changes, and run all campaigns (installs squid and tinyproxy if missing; root)
	go test -count=1 -parallel 6 -timeout 10m -v ./test/faults
	go test -count=1 -timeout 30m -run '^TestCampaign' ./internal/... ./test/...

soak: ## run the daemon every second for an hour, with faults: memory, descriptors, goroutines, state file flat (SOAK=10m)
	go test -count=1 -timeout 0 -v -run '^TestSoak$$' ./test/faults -soak $(SOAK)

test-browser: ## test the HTML pages in headless Chromium (installed if missing when root and CI=true, else skipped)
	cd test/browser && go test -count=1 -timeout 9m -v ./...

screenshot: ## take the README's screenshot deploy/inventory.png from a real run (Chromium, Noto fonts)
	cd test/browser && ADC_REQUIRE_BROWSER=1 ADC_PICTURE='$(CURDIR)/deploy/inventory.png' go test -count=1 -timeout 3m -run '^TestPicture$$' .

test-image: ## build the image with buildah and run it (Linux, root; installs what is missing)
	cd test/deploy && go test -count=1 -timeout 9m -v ./image

test-deploy: ## test the image and everything under deploy/
	cd test/deploy && go test -count=1 -timeout 15m -v ./...

bench: ## compare reading, first and unchanged sync with ldapsearch and go-ldap (slapd; BENCH_LARGE=1: a million entries)
	go run ./test/bench

lint: ## run golangci-lint (.golangci.yml) and go mod tidy on all modules
	$(GOLANGCI_LINT) run
	go mod tidy -diff
	for module in test/browser test/deploy deploy/sbom; do (cd $$module && $(GOLANGCI_LINT) run && go mod tidy -diff) || exit 1; done

vuln: ## run govulncheck; fails if the vulnerability database cannot be reached
	deploy/vuln.sh $(GOVULNCHECK_VERSION)

release: ## build dist/: binaries for linux amd64 and arm64, SBOMs, licenses, checksums
	rm -rf '$(DIST)' && mkdir -p '$(DIST)'
	for arch in amd64 arm64; do \
		GOOS=linux GOARCH=$$arch $(MAKE) --no-print-directory build BINARY='$(abspath $(DIST))'/adconnector_$(VERSION)_linux_$$arch && \
		(cd deploy/sbom && go run . '$(abspath $(DIST))'/adconnector_$(VERSION)_linux_$$arch '$(VERSION)' Apache-2.0) \
			> '$(DIST)'/adconnector_$(VERSION)_linux_$$arch.cdx.json || exit 1; \
	done
	deploy/notices.sh > '$(DIST)'/THIRD-PARTY-LICENSES
	cp LICENSE CHANGELOG.md sample.env '$(DIST)'
	cd '$(DIST)' && sha256sum * > SHA256SUMS

image: ## build the container image with docker, podman or buildah
	deploy/image.sh '$(IMAGE)' '$(VERSION)' '$(COMMIT)'
