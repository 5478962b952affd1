"""The push side of the container-registry protocol as a pure state machine.

`Session` says which request to make next and is told what came back; whoever can move bytes has a complete
registry client. `regproto_sync` and `regproto_trio` are drivers that do.
"""

from regproto._attachments import Found, Guarantee, Listed, ListReferrers, Lookup, Referrers, Resolve
from regproto._config import Config
from regproto._content import Descriptor, Digest, ManifestInfo, parse_manifest
from regproto._errors import (
    AuthenticationError,
    ContentError,
    InvalidReference,
    LocalProtocolError,
    PushTimeout,
    RegistryError,
    RegistryErrorDetail,
    RegprotoError,
    RemoteProtocolError,
    TransportError,
)
from regproto._messages import (
    Abort,
    BlobSlice,
    Body,
    Credentials,
    Failed,
    FailureKind,
    Finished,
    Headers,
    Input,
    NeedCredentials,
    NoCredentials,
    Notice,
    Output,
    Phase,
    Progress,
    PushOutcome,
    PushResult,
    Response,
    Save,
    Send,
    Status,
    Wait,
    Written,
)
from regproto._plan import Blob, Manifest, MountSource, Push, plan_push
from regproto._reference import Reference, registry_url
from regproto._session import Session

__version__ = "0.1.0"

__all__ = [
    "Abort",
    "AuthenticationError",
    "Blob",
    "BlobSlice",
    "Body",
    "Config",
    "ContentError",
    "Credentials",
    "Descriptor",
    "Digest",
    "Failed",
    "FailureKind",
    "Finished",
    "Found",
    "Guarantee",
    "Headers",
    "Input",
    "InvalidReference",
    "ListReferrers",
    "Listed",
    "LocalProtocolError",
    "Lookup",
    "Manifest",
    "ManifestInfo",
    "MountSource",
    "NeedCredentials",
    "NoCredentials",
    "Notice",
    "Output",
    "Phase",
    "Progress",
    "Push",
    "PushOutcome",
    "PushResult",
    "PushTimeout",
    "Reference",
    "Referrers",
    "RegistryError",
    "RegistryErrorDetail",
    "RegprotoError",
    "RemoteProtocolError",
    "Resolve",
    "Response",
    "Save",
    "Send",
    "Session",
    "Status",
    "TransportError",
    "Wait",
    "Written",
    "parse_manifest",
    "plan_push",
    "registry_url",
]
