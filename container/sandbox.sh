#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The `sandbox` command of the image; without it the package would need to know of containers.
set -eu

# What is the same in every container of this image. A platform gives a command nothing of the
# image's environment but PATH; what differs comes with the start, and with the command.
export LANG="${LANG:-C.UTF-8}" HOME="${HOME:-/root}"
export HERMES_HOME="${HERMES_HOME:-/root/.hermes}"
export SANDBOX_RUN="${SANDBOX_RUN:-/run/hermes}"
export HERMES_MANAGED_DIR="${HERMES_MANAGED_DIR:-/run/hermes/managed}"
# The ports are published by the platform, which reaches them from outside.
export SANDBOX_BIND="${SANDBOX_BIND:-0.0.0.0}"
# What runs in here sees nothing of the machine around it.
export SANDBOX_CONFINED=1

if [ "${1-}" = init ]; then
    # workerd creates containers that Docker starts again after an error, with the same disk and
    # the same boot id, and with nobody watching. That boot has ended; only code 0 ends it for Docker.
    mark=/var/lib/hermes-boot
    boot="${HERMES_BOOT_ID:-none}"
    if [ "$(cat "$mark" 2>/dev/null)" = "$boot" ]; then
        echo "sandbox: this boot has ended and is not started again" >&2
        exit 0
    fi
    printf '%s\n' "$boot" >"$mark"
    # /run/hermes is a link into memory whose target does not exist in a new container.
    run="$(readlink -m "$SANDBOX_RUN")"
    mkdir -p "$run"
    chmod 0700 "$run"
fi

# -IS: the package needs the standard library only; what is installed beside it is not looked at.
program="$(readlink -f "$0")"
root="${program%/bin/sandbox}"
exec "$root/bin/python3" -IS "$root/sandbox" "$@"
