# Every target is a line of `make`'s help, after its ##.
VERSION ?= 1.0.0
COMMIT  ?= $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
LDFLAGS  = -s -w -X adconnector/internal/cli.version=$(VERSION) -X adconnector/internal/cli.commit=$(COMMIT)
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOVULNCHECK = v1.9.0
IMAGE  ?= adconnector:$(VERSION)
BINARY ?= bin/adconnector
DIST   ?= dist

.PHONY: help demo build test test-ad test-faults test-browser screenshot test-image test-deploy bench lint vuln image release

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: build ## the whole connector at work, on a directory and a gateway in one process (DEMO=--keep leaves them up)
	@bin/adconnector demo $(DEMO)

build: ## the static binary, as bin/adconnector
	CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)' -o $(BINARY) ./cmd/adconnector

test: ## all tests that need nothing but Go, with the race detector where a C compiler is there
	test/run.sh -short -timeout 15m ./...

test-ad: ## the built binary against a real domain controller (Samba; installed when missing and root)
	go test -tags ad -count=1 -timeout 15m -v ./test/samba

test-faults: ## the built binary against kills, chaos, cuts, full disks, proxies and clocks, and all campaigns (squid and tinyproxy; installed when missing and root)
	go test -count=1 -parallel 6 -timeout 10m -v ./test/faults
	go test -count=1 -timeout 30m -run '^TestCampaign' ./internal/... ./test/...

test-browser: ## the pages in headless Chromium (installed when missing, root and CI=true; else skipped)
	cd test/browser && go test -count=1 -timeout 9m -v ./...

screenshot: ## the picture of the README anew, from a real run, as deploy/inventory.png (Chromium, Noto fonts)
	cd test/browser && ADC_REQUIRE_BROWSER=1 ADC_PICTURE='$(CURDIR)/deploy/inventory.png' go test -count=1 -timeout 3m -run '^TestPicture$$' .

test-image: ## the image, built with buildah and run as an engine would (Linux, root; installs what is missing)
	cd test/deploy && go test -count=1 -timeout 9m -v ./image

test-deploy: ## the same, and all that lies under deploy/
	cd test/deploy && go test -count=1 -timeout 15m -v ./...

bench: ## read, first full sync and unchanged full sync, compared with ldapsearch and go-ldap (slapd; BENCH_LARGE=1 for a million users)
	go run ./test/bench

lint: ## gofmt, go vet, staticcheck, go.mod tidy
	@files=$$(gofmt -l cmd deploy internal test); test -z "$$files" || { echo "not gofmt'd: $$files"; exit 1; }
	go vet ./...
	go vet -tags ad ./test/samba
	go run $(STATICCHECK) ./...
	go run $(STATICCHECK) -tags ad ./test/samba
	go mod tidy -diff
	for module in test/browser test/deploy deploy/sbom; do (cd $$module && go vet ./... && go run $(STATICCHECK) ./... && go mod tidy -diff) || exit 1; done

vuln: ## govulncheck; fails, and says so, where the vulnerability database cannot be reached
	deploy/vuln.sh $(GOVULNCHECK)

release: ## dist/: binaries for linux amd64 and arm64, bills of materials, licenses, checksums
	rm -rf '$(DIST)' && mkdir -p '$(DIST)'
	for arch in amd64 arm64; do \
		GOOS=linux GOARCH=$$arch $(MAKE) --no-print-directory build BINARY='$(abspath $(DIST))'/adconnector_$(VERSION)_linux_$$arch && \
		(cd deploy/sbom && go run . '$(abspath $(DIST))'/adconnector_$(VERSION)_linux_$$arch '$(VERSION)' Apache-2.0) \
			> '$(DIST)'/adconnector_$(VERSION)_linux_$$arch.cdx.json || exit 1; \
	done
	deploy/notices.sh > '$(DIST)'/THIRD-PARTY-LICENSES
	cp LICENSE CHANGELOG.md sample.env '$(DIST)'
	cd '$(DIST)' && sha256sum * > SHA256SUMS

image: ## the container image, with docker, podman or buildah, whichever is there
	deploy/image.sh '$(IMAGE)' '$(VERSION)' '$(COMMIT)'
