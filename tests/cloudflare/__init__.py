# SPDX-License-Identifier: Apache-2.0
"""A stand-in for Cloudflare's control plane: its API, registry and edge, as strict as the real ones.

`ControlPlane` runs it inside a test, `python -m tests.cloudflare --state DIR` beside one. Real wrangler, real
`docker push` and our own client speak to it through an HTTPS proxy that ends TLS for Cloudflare's hosts; what they
upload is served by real workerd. What it does not know it refuses, and it says so.
"""

from tests.cloudflare.plane import ControlPlane

__all__ = ["ControlPlane"]
