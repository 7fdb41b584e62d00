#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Starts Hermes' gateway in the foreground, or its dashboard: `start-hermes.sh dashboard`. PID 1
# (`sandbox init`) runs this, and runs it again after a restart; what differs from boot to boot is
# in the environment that it passes.
set -eu

: "${HERMES_HOME:?HERMES_HOME is not set}"
mkdir -p "$HERMES_HOME"

# Nothing is installed at run time: the image is complete and pinned.
export HERMES_DISABLE_LAZY_INSTALLS=1

if [ "${1-}" = dashboard ]; then
    cd "${HOME:-$HERMES_HOME}"
    # -P: the modules beside the program are none of Hermes'.
    exec python -P "$(dirname "$0")/sandbox/serve_dashboard.py"
fi

# Left by an earlier process, perhaps on another machine: a pid file whose pid happens to be
# ours again makes Hermes refuse to start.
for stale in gateway.pid gateway.lock gateway_state.json processes.json gateway-starts.log \
    cron.pid; do
    rm -f "$HERMES_HOME/$stale"
done

export API_SERVER_ENABLED=true
export API_SERVER_HOST="${SANDBOX_BIND:-127.0.0.1}"
export API_SERVER_PORT="${PORT_18789:-18789}"
# PID 1 limits restarts; Hermes' own breaker would sleep with no listener.
export HERMES_GATEWAY_MAX_STARTS=0
# A restart asked for in a chat ends the process with code 75 instead of forking a helper.
export HERMES_GATEWAY_EXTERNAL_SUPERVISOR=1

# Hermes lays the managed settings over this file, and only when it exists.
: >>"$HERMES_HOME/config.yaml"

cd "${HOME:-$HERMES_HOME}"
exec hermes gateway run
