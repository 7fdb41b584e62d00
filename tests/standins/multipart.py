# SPDX-License-Identifier: Apache-2.0
"""Forms with files (RFC 7578), as the platforms' APIs read them: `read()`."""

from __future__ import annotations

import email.policy
from dataclasses import dataclass
from email.message import EmailMessage
from email.parser import BytesParser


@dataclass
class File:
    """A file of a form: what it is called, of what type it is said to be, and its bytes."""

    name: str
    mime: str
    data: bytes


def read(content_type: str, body: bytes) -> tuple[dict[str, str], dict[str, File]]:
    """Return a form's fields and files, by their names. Raises ValueError for what is no whole form."""
    head = f"Content-Type: {content_type}\r\n\r\n".encode()
    form = BytesParser(EmailMessage, policy=email.policy.HTTP).parsebytes(head + body)
    boundary = form.get_boundary()
    if form.defects or boundary is None or not body.endswith(f"--{boundary}--\r\n".encode()):
        raise ValueError("no whole form")
    fields: dict[str, str] = {}
    files: dict[str, File] = {}
    for part in form.iter_parts():
        name = part.get_param("name", header="content-disposition")
        if part.get_content_disposition() != "form-data" or not isinstance(name, str):
            raise ValueError("a part that is none of a form")
        data = part.get_payload(decode=True)
        if not isinstance(data, bytes):
            raise ValueError("a part in parts")
        filename = part.get_filename()
        if filename is None:
            fields[name] = data.decode()
        else:
            files[name] = File(filename, part.get_content_type(), data)
    return fields, files
