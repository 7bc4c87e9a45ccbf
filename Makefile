# What a newcomer, a developer and CI run. `make` alone lists the targets.
#
# Everything is built into target/; the demo keeps its state in demo/ and nowhere else.
SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# Tools that scripts/setup.sh installs, and daemons that are not in everybody's PATH.
export PATH := $(PATH):/usr/sbin:/sbin:$(HOME)/.local/bin:$(or $(CARGO_HOME),$(HOME)/.cargo)/bin

MINUTES ?= 10
# One harness a target, each stating its law: fuzz/src/lib.rs.
FUZZ_TARGETS = $(basename $(notdir $(wildcard fuzz/fuzz_targets/*.rs)))

.PHONY: help
help: ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 10

.PHONY: setup
setup: ## installs what is missing on this machine (apt, pip, cargo)
	@scripts/setup.sh

.PHONY: build
build: setup ## the four programs, for development
	@cargo build --locked --workspace --bins

.PHONY: demo
demo: ## a cluster on this machine, from nothing to a container that holds a secret
	@# Containers are made by root: whether that can be had is asked before anything is built, and only the last step runs so.
	@[ "$$(id -u)" = 0 ] || sudo -v || { echo 'make demo: it makes containers as root: run it as a user of sudo' >&2; exit 1; }
	@scripts/setup.sh demo
	@cargo build --locked --quiet --workspace --bins
	@if [ "$$(id -u)" = 0 ]; then scripts/demo.sh; else sudo env HOLDFAST_DEMO_DIR="$$HOLDFAST_DEMO_DIR" HOLDFAST_BIN='$(abspath $(or $(CARGO_TARGET_DIR),target))/debug' scripts/demo.sh; fi

.PHONY: lint
lint: ## format, clippy, and the licences, bans and sources of libraries
	@cargo fmt --all --check
	@cargo clippy --locked --quiet --workspace --all-targets -- -D warnings
	@if cargo deny --version >/dev/null 2>&1; then \
	  cargo fetch --locked --quiet && cargo deny --offline check --allow duplicate bans licenses sources; \
	else \
	  echo 'lint: cargo-deny is not installed: licences were not checked (cargo install --locked cargo-deny)'; \
	fi

.PHONY: test
test: root setup lint ## everything that CI runs
	@# Programs and tests in one command: each selection of its own would build the large libraries once more.
	@cargo build --locked --quiet --workspace --bins --tests
	@cargo nextest run --locked --workspace --profile ci
	@# What must not compile is shown in the documentation, which nextest does not run.
	@cargo test --locked --quiet --doc --workspace

# Asked before anything is built.
.PHONY: root
root:
	@[ "$$(id -u)" = 0 ] || { echo 'make $(MAKECMDGOALS): it makes containers, mounts and networks: sudo env "PATH=$$PATH" "HOME=$$HOME" make $(MAKECMDGOALS)' >&2; exit 1; }

.PHONY: bench
bench: ## measures release builds: make bench [NAME=part-of-a-name]
	@scripts/setup.sh bench
	@cargo build --locked --quiet --release --workspace --bins
	@cargo run --locked --quiet --release --package holdfast-benches -- $(NAME)

.PHONY: fuzz
fuzz: ## fuzzes every format: make fuzz MINUTES=10, divided among the targets
	@cargo fuzz --version >/dev/null 2>&1 || cargo install --quiet --locked cargo-fuzz
	@cd fuzz && for target in $(FUZZ_TARGETS); do \
	  echo "fuzz: $$target"; mkdir -p corpus/"$$target"; \
	  ASAN_OPTIONS=detect_leaks=0 RUSTC_BOOTSTRAP=1 cargo fuzz run "$$target" corpus/"$$target" $$(ls -d seeds/"$$target" 2>/dev/null) -- \
	    -max_total_time=$$(( $(MINUTES) * 60 / $(words $(FUZZ_TARGETS)) )) -print_final_stats=1; \
	done

.PHONY: man
man: build ## writes the man pages to dist/man
	@$(or $(CARGO_TARGET_DIR),target)/debug/holdfast man dist/man

SEED ?= 1
# Of one round's faults on voters in networks of their own.
CHAOS_SECONDS ?= 60
.PHONY: chaos
chaos: root setup ## kills, cuts off and stops daemons at drawn moments: make chaos SEED=1 MINUTES=10
	@cargo build --locked --quiet --workspace --bins --tests
	@end=$$(( SECONDS + $(MINUTES) * 60 )); seed=$(SEED); while (( SECONDS < end )); do \
	  echo "chaos: seed $$seed"; \
	  HOLDFAST_SEED=$$seed HOLDFAST_CHAOS_SECONDS=$(CHAOS_SECONDS) cargo nextest run --locked --workspace --profile ci \
	    -E 'package(suite) and (binary(chaos) or (binary(e2e) and test(/^crash::/)))' || \
	    { echo "chaos: seed $$seed failed; repeat it with: make chaos SEED=$$seed MINUTES=1" >&2; exit 1; }; \
	  seed=$$(( seed + 1 )); \
	done

# Histories of the simulation of the vault.
SEEDS ?= 10000
.PHONY: soak
soak: root setup ## each rotation killed at every step, ten thousand simulated histories, and chaos for an hour: make soak MINUTES=60
	@cargo build --locked --quiet --workspace --bins --tests
	@HOLDFAST_SWEEP=every cargo nextest run --locked --workspace --profile ci -E 'package(suite) and binary(e2e) and test(/^voters::sweep::/)'
	@HOLDFAST_SEEDS=$(SEEDS) cargo test --locked --quiet --release --package holdfast-vault-core --test simulation
	@$(MAKE) chaos SEED=$$(( $$(date +%s) )) MINUTES=$(if $(filter command line,$(origin MINUTES)),$(MINUTES),60)

# Named in the documentation of later versions. They fail until they do what they say.
.PHONY: redteam dist
redteam dist:
	@echo "make $@: not built yet" >&2; exit 1
