#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Starts Hermes' gateway in the foreground, or its dashboard: `start-hermes.sh dashboard`. PID 1
# (`sandbox init`) runs this, and runs it again after a restart; what differs from boot to boot is
# in the environment that it passes.
set -eu

: "${HERMES_HOME:?HERMES_HOME is not set}"
mkdir -p "$HERMES_HOME"

# The image is complete and pinned, and nothing is installed into it. What Hermes may ask for later
# goes into its home, and there only adds to what the image has. A cache would be a second copy.
export HERMES_DISABLE_LAZY_INSTALLS=1
unset HERMES_LAZY_INSTALL_TARGET
if [ "${HERMES_LAZY_INSTALLS-}" = true ]; then
    export HERMES_LAZY_INSTALL_TARGET="$HERMES_HOME/lazy-packages" UV_NO_CACHE=1
fi

# Where only some hosts may be reached, the Worker looks at what leaves. The authority that vouches
# for those hosts then is new in each container, and there a moment after its start; the list of
# all that are trusted is kept in memory, where no snapshot finds it.
if [ -n "${SANDBOX_EXTRA_CA-}" ]; then
    tries=100
    until [ -s "$SANDBOX_EXTRA_CA" ] || [ "$tries" -eq 0 ]; do
        tries=$((tries - 1))
        sleep 0.1
    done
    if [ -s "$SANDBOX_EXTRA_CA" ]; then
        trusted="$SANDBOX_RUN/trusted.pem"
        cat "${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}" "$SANDBOX_EXTRA_CA" >"$trusted"
        export SSL_CERT_FILE="$trusted" REQUESTS_CA_BUNDLE="$trusted" CURL_CA_BUNDLE="$trusted"
        export GIT_SSL_CAINFO="$trusted" NODE_EXTRA_CA_CERTS="$trusted"
    else
        echo "sandbox: $SANDBOX_EXTRA_CA did not appear: no allowed host can be reached by TLS" >&2
    fi
fi

# The image's own browser, where it has one.
browser="$(dirname "$0")/bin/chromium"
[ ! -x "$browser" ] || export AGENT_BROWSER_EXECUTABLE_PATH="$browser"

# -P: the modules beside the program are none of Hermes'.
programs="$(dirname "$0")/sandbox/in_hermes"
if [ "${1-}" = dashboard ]; then
    cd "${HOME:-$HERMES_HOME}"
    exec python -P "$programs/run_program.py" "$programs/serve_dashboard.py"
fi

# Left by an earlier process, perhaps on another machine: a pid file whose pid happens to be
# ours again makes Hermes refuse to start.
for stale in gateway.pid gateway.lock gateway_state.json processes.json gateway-starts.log \
    cron.pid; do
    rm -f "$HERMES_HOME/$stale"
done
# What pages knew of their visitor, where the browser of an earlier process was killed.
[ ! -x "$browser" ] || rm -rf "${TMPDIR:-/tmp}"/agent-browser-chrome-*

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
exec python -P "$programs/run_program.py" "$(command -v hermes)" gateway run
