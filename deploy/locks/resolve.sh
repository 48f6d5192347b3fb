#!/bin/sh
# Resolves pyproject.toml into the hash-locked files of this folder. Needs uv on the PATH.
set -eu
cd "$(dirname "$0")/../.."
options="--universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --quiet"
uv pip compile pyproject.toml --all-extras --group test --group lint $options -o deploy/locks/dev.txt
uv pip compile pyproject.toml --all-extras $options -c deploy/locks/dev.txt -o deploy/locks/runtime.txt
