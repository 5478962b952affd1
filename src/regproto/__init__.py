"""The push side of the container-registry protocol as a pure state machine.

`Session` says which request to make next and is told what came back; whoever can move bytes has a complete
registry client. `regproto_sync` and `regproto_trio` are drivers that do.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from regproto._engine.checkpoint import merge_kept as merge_kept
    from regproto._model.config import Config as Config
    from regproto._model.digest import Digest as Digest
    from regproto._model.errors import AuthenticationError as AuthenticationError
    from regproto._model.errors import ContentError as ContentError
    from regproto._model.errors import InvalidReferenceError as InvalidReferenceError
    from regproto._model.errors import LocalProtocolError as LocalProtocolError
    from regproto._model.errors import PushTimeoutError as PushTimeoutError
    from regproto._model.errors import RegistryError as RegistryError
    from regproto._model.errors import RegistryErrorDetail as RegistryErrorDetail
    from regproto._model.errors import RegprotoError as RegprotoError
    from regproto._model.errors import RemoteProtocolError as RemoteProtocolError
    from regproto._model.errors import TransportError as TransportError
    from regproto._model.manifest import Descriptor as Descriptor
    from regproto._model.manifest import ManifestInfo as ManifestInfo
    from regproto._model.manifest import parse_manifest as parse_manifest
    from regproto._model.messages import Abort as Abort
    from regproto._model.messages import BlobSlice as BlobSlice
    from regproto._model.messages import Body as Body
    from regproto._model.messages import Credentials as Credentials
    from regproto._model.messages import Failed as Failed
    from regproto._model.messages import FailureKind as FailureKind
    from regproto._model.messages import Finished as Finished
    from regproto._model.messages import Headers as Headers
    from regproto._model.messages import Input as Input
    from regproto._model.messages import Manifests as Manifests
    from regproto._model.messages import NeedCredentials as NeedCredentials
    from regproto._model.messages import NeedManifests as NeedManifests
    from regproto._model.messages import NoCredentials as NoCredentials
    from regproto._model.messages import NoManifests as NoManifests
    from regproto._model.messages import Notice as Notice
    from regproto._model.messages import Output as Output
    from regproto._model.messages import Phase as Phase
    from regproto._model.messages import Progress as Progress
    from regproto._model.messages import PushOutcome as PushOutcome
    from regproto._model.messages import PushResult as PushResult
    from regproto._model.messages import Response as Response
    from regproto._model.messages import Save as Save
    from regproto._model.messages import Send as Send
    from regproto._model.messages import Status as Status
    from regproto._model.messages import Stream as Stream
    from regproto._model.messages import StreamStatus as StreamStatus
    from regproto._model.messages import Wait as Wait
    from regproto._model.messages import Written as Written
    from regproto._model.plan import Blob as Blob
    from regproto._model.plan import Manifest as Manifest
    from regproto._model.plan import MountSource as MountSource
    from regproto._model.plan import PushPlan as PushPlan
    from regproto._model.plan import StreamBlob as StreamBlob
    from regproto._model.plan import StreamedBlob as StreamedBlob
    from regproto._model.plan import plan_push as plan_push
    from regproto._model.reference import Reference as Reference
    from regproto._model.reference import registry_url as registry_url
    from regproto._model.referrers import Guarantee as Guarantee
    from regproto._model.referrers import ListReferrers as ListReferrers
    from regproto._model.referrers import Query as Query
    from regproto._model.referrers import QueryResult as QueryResult
    from regproto._model.referrers import Referrers as Referrers
    from regproto._model.referrers import ReferrersUpdate as ReferrersUpdate
    from regproto._model.referrers import ResolveReference as ResolveReference
    from regproto._session import Session as Session

__version__ = "0.1.0"

_MODULES: Final = {
    "Abort": "regproto._model.messages",
    "AuthenticationError": "regproto._model.errors",
    "Blob": "regproto._model.plan",
    "BlobSlice": "regproto._model.messages",
    "Body": "regproto._model.messages",
    "Config": "regproto._model.config",
    "Manifests": "regproto._model.messages",
    "ContentError": "regproto._model.errors",
    "Credentials": "regproto._model.messages",
    "Descriptor": "regproto._model.manifest",
    "Digest": "regproto._model.digest",
    "Failed": "regproto._model.messages",
    "FailureKind": "regproto._model.messages",
    "Finished": "regproto._model.messages",
    "QueryResult": "regproto._model.referrers",
    "Guarantee": "regproto._model.referrers",
    "Headers": "regproto._model.messages",
    "Input": "regproto._model.messages",
    "InvalidReferenceError": "regproto._model.errors",
    "ListReferrers": "regproto._model.referrers",
    "ReferrersUpdate": "regproto._model.referrers",
    "LocalProtocolError": "regproto._model.errors",
    "Query": "regproto._model.referrers",
    "Manifest": "regproto._model.plan",
    "ManifestInfo": "regproto._model.manifest",
    "MountSource": "regproto._model.plan",
    "NeedManifests": "regproto._model.messages",
    "NeedCredentials": "regproto._model.messages",
    "NoManifests": "regproto._model.messages",
    "NoCredentials": "regproto._model.messages",
    "Notice": "regproto._model.messages",
    "Output": "regproto._model.messages",
    "Phase": "regproto._model.messages",
    "Progress": "regproto._model.messages",
    "PushPlan": "regproto._model.plan",
    "PushOutcome": "regproto._model.messages",
    "PushResult": "regproto._model.messages",
    "PushTimeoutError": "regproto._model.errors",
    "Reference": "regproto._model.reference",
    "Referrers": "regproto._model.referrers",
    "RegistryError": "regproto._model.errors",
    "RegistryErrorDetail": "regproto._model.errors",
    "RegprotoError": "regproto._model.errors",
    "RemoteProtocolError": "regproto._model.errors",
    "ResolveReference": "regproto._model.referrers",
    "Response": "regproto._model.messages",
    "Save": "regproto._model.messages",
    "Send": "regproto._model.messages",
    "Session": "regproto._session",
    "Status": "regproto._model.messages",
    "Stream": "regproto._model.messages",
    "StreamBlob": "regproto._model.plan",
    "StreamStatus": "regproto._model.messages",
    "StreamedBlob": "regproto._model.plan",
    "TransportError": "regproto._model.errors",
    "Wait": "regproto._model.messages",
    "Written": "regproto._model.messages",
    "merge_kept": "regproto._engine.checkpoint",
    "parse_manifest": "regproto._model.manifest",
    "plan_push": "regproto._model.plan",
    "registry_url": "regproto._model.reference",
}
"""The module of each public name, imported when the name is first used."""

__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
