# Every command a person or CI runs, and nothing hidden elsewhere. `make` alone lists them.
PY ?= $(firstword $(shell command -v python3.11 python3.12 python3.13 python3))
BIN := .venv/bin
# Tests wait for real servers as much as they compute, so a few more run at once than there are cores.
TESTERS := $${PYTEST_WORKERS:-$$(( $$(nproc) * 3 / 2 ))}

.DEFAULT_GOAL := help
.PHONY: help demo demo-check test test-compiled coverage lint format bench bench-growth bench-revocation bench-devices fuzz overload load conformance soak lock clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

demo: .venv/run ## ztproxy in front of two demo apps, with a demo identity provider; Ctrl-C ends it all
	@$(BIN)/ztproxy demo

demo-check: .venv/run ## the same on free ports, every story walked over real HTTP
	@$(BIN)/ztproxy demo --check

test: .venv/dev ## the whole suite, in parallel
	@tools/system-packages test
	@$(BIN)/python -m pytest -n $(TESTERS) --dist loadfile $(ARGS)

test-compiled: .venv/dev ## the same tests on compiled hot modules, in build/compiled; needs a C compiler
	@$(BIN)/python tools/compiled.py
	@cd build/compiled && ../../$(BIN)/python -c "import ztproxy.wire.exchange as it; assert it.__file__.endswith('.so'), it"
	@cd build/compiled && ../../$(BIN)/python -m pytest -n $(TESTERS) --dist loadfile $(ARGS)

coverage: .venv/dev ## branches covered: the core's by each file's own twin, then the whole by the whole suite
	@tools/twin-coverage
	@$(BIN)/python -m pytest -q -n $(TESTERS) --dist loadfile --cov=ztproxy --cov-branch \
	  --cov-report=term:skip-covered --cov-fail-under=93 $(ARGS)

lint: .venv/dev ## ruff and mypy --strict
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: .venv/dev ## rewrites imports and layout
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: .venv/dev ## speed, latency and memory beside nginx, Envoy, mod_auth_openidc; writes build/bench.json
	@tools/system-packages bench
	@$(BIN)/python tools/compiled.py || true
	@$(BIN)/python -m bench $(ARGS)

bench-growth: .venv/dev ## the same as routes, rules, sessions, sockets and workers grow; writes build/bench-growth.json
	@tools/system-packages bench
	@$(BIN)/python tools/compiled.py || true
	@$(BIN)/python -m bench.growth $(ARGS)

bench-revocation: .venv/dev ## time until a revocation holds everywhere; writes build/bench-revocation.json and docs/
	@tools/system-packages bench
	@$(BIN)/python -m bench.revocation $(ARGS)

bench-devices: .venv/dev ## what device checks, 100,000 devices and handshakes cost; writes build/bench-devices.json and docs/
	@tools/system-packages bench
	@$(BIN)/python -m bench.devices $(ARGS)

fuzz: .venv/dev ## every parser under a coverage-guided fuzzer, SECONDS=15 each; writes build/fuzz.json
	@$(BIN)/python -m tests.fuzz --seconds $(or $(SECONDS),15) $(ARGS)

overload: .venv/dev ## floods, bombs and dead upstreams beside honest people; writes build/overload.json
	@tools/system-packages overload
	@$(BIN)/python -m loadtests.overload $(ARGS)

conformance: .venv/dev ## all of Autobahn's WebSocket cases, direct and through ztproxy; writes build/autobahn.json
	@$(BIN)/python -m tests.conformance.autobahn $(ARGS)

load: .venv/dev ## people at work under Locust, provider and store misbehaving in phases; writes build/load.html
	@$(BIN)/python -m loadtests.people $(if $(SECONDS),--seconds $(SECONDS)) $(if $(USERS),--users $(USERS)) $(ARGS)

soak: .venv/dev ## real workers under random faults, violations counted; SECONDS=600; writes build/history-soak.json
	@$(BIN)/python -m loadtests.history --seconds $(or $(SECONDS),600) --topology alternating \
	  --report build/history-soak.json $(ARGS)

lock: .venv/dev ## resolves both lock files anew
	@tools/lock

clean: ## removes what the other targets made
	@rm -rf .venv build .mypy_cache .ruff_cache .pytest_cache .coverage .coverage.*

.venv/run: requirements.lock pyproject.toml
	@tools/venv $(PY) requirements.lock
	@touch $@

.venv/dev: requirements-dev.lock pyproject.toml
	@tools/venv $(PY) requirements-dev.lock
	@touch $@ .venv/run
