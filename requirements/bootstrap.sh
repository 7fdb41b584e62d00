#!/bin/sh
# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
# Runs bootstrap.py with the Python that is named first, or tells that there is none.
python=$1
shift
if ! command -v "$python" >/dev/null 2>&1; then
  printf '%s\n' >&2 \
    "python: there is no $python on the PATH, and Hermes needs 3.11, 3.12 or 3.13." \
    "Nothing was changed." \
    "Do: install one of these and name it: make deploy PYTHON=python3.12" \
    "Docs: docs/errors.md#python"
  exit 1
fi
exec "$python" "$(dirname "$0")/bootstrap.py" "$@"
