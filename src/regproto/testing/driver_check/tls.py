"""TLS for the peers of a check: a certificate for `localhost`, and the authority that signed it.

The key is no secret. It protects nothing: the authority is trusted by nobody but the driver that is being checked.
"""

from __future__ import annotations

import ssl
import tempfile
from pathlib import Path
from typing import Final

_AUTHORITY: Final = """\
-----BEGIN CERTIFICATE-----
MIIBdTCCARygAwIBAgIBATAKBggqhkjOPQQDAjAgMR4wHAYDVQQDDBVyZWdwcm90
byBkcml2ZXIgY2hlY2swIBcNMjAwMTAxMDAwMDAwWhgPMjEyMDAxMDEwMDAwMDBa
MCAxHjAcBgNVBAMMFXJlZ3Byb3RvIGRyaXZlciBjaGVjazBZMBMGByqGSM49AgEG
CCqGSM49AwEHA0IABE6gTV8Z8PMa0QOB46lQPhyASYOXNKQYVg+eFfnr6mNHNCwY
tLTe+mR0qTCnP4QeLcalzwnqrKGITDC1ZmH/dGejRTBDMBIGA1UdEwEB/wQIMAYB
Af8CAQAwDgYDVR0PAQH/BAQDAgIEMB0GA1UdDgQWBBTI87kgOy364/pnGnzozWFh
n74oXTAKBggqhkjOPQQDAgNHADBEAiB1puJPbVUN7OWfUjPqAQSU+vqHFScKu4gz
j4iir6jX8AIgWN78CiKDuG5pS/oEqwv4Yaig6AzJGIQbHkUcxKRpEWM=
-----END CERTIFICATE-----
"""
_CERTIFICATE: Final = """\
-----BEGIN CERTIFICATE-----
MIIBsTCCAVigAwIBAgIBAjAKBggqhkjOPQQDAjAgMR4wHAYDVQQDDBVyZWdwcm90
byBkcml2ZXIgY2hlY2swIBcNMjAwMTAxMDAwMDAwWhgPMjEyMDAxMDEwMDAwMDBa
MBQxEjAQBgNVBAMMCWxvY2FsaG9zdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IA
BCWkT02QaPEs7fQ3YpBSxIqBMSiBFrGoGmnjbscTuwnFvn8/DkJWNVrm5TtFtTgL
u/V1queg9/nkhNeNEGOaeIajgYwwgYkwDAYDVR0TAQH/BAIwADAOBgNVHQ8BAf8E
BAMCB4AwHQYDVR0OBBYEFOnj0coMniEVz30BgRIiot0tMpZvMB8GA1UdIwQYMBaA
FMjzuSA7Lfrj+mcafOjNYWGfvihdMBMGA1UdJQQMMAoGCCsGAQUFBwMBMBQGA1Ud
EQQNMAuCCWxvY2FsaG9zdDAKBggqhkjOPQQDAgNHADBEAiA9+aIZ74EbaV+3DzAJ
Z67aGAZ1QeHqLl49A5uSa8/Y5AIgXFu28cvup+T2msvKWR/ZHy+WQhkYPr20S2Sr
Jb8/2KQ=
-----END CERTIFICATE-----
"""
_KEY: Final = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQglH/ux0vRWJxz82rL
O6xGDPfzGUdvqzpZJFOXnIcCR6+hRANCAAQlpE9NkGjxLO30N2KQUsSKgTEogRax
qBpp427HE7sJxb5/Pw5CVjVa5uU7RbU4C7v1darnoPf55ITXjRBjmniG
-----END PRIVATE KEY-----
"""


def trusting() -> ssl.SSLContext:
    """A client's context that trusts the peers."""
    return ssl.create_default_context(cadata=_AUTHORITY)


def serving() -> ssl.SSLContext:
    """A peer's context."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "localhost.pem")
        path.write_text(_CERTIFICATE + _KEY)
        context.load_cert_chain(path)
    return context
