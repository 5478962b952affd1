"""Construction of the machines that a push needs."""

from __future__ import annotations

import attrs

from regproto._engine.checkpoint import Kept
from regproto._engine.push_state import Node, PushState
from regproto._machines.blob import BlobMachine
from regproto._machines.manifest import ManifestMachine, ManifestState
from regproto._machines.stream import StreamMachine, StreamUpload
from regproto._machines.upload import UploadMachine, UploadState
from regproto._model.config import MOUNT_SOURCES_MAX, Config
from regproto._model.plan import Blob, Manifest, MountSource


def machine_for(
    base: str, config: Config, work: PushState, node: Node, looked: bool | None
) -> BlobMachine | ManifestMachine:
    """The machine for a node, with the content of one push that needs it.

    Args:
        base: the registry's URL.
        config: the session's.
        work: the push whose content it gets, and in whose turn it is sent.
        node: the node to bring about.
        looked: True: it need not be looked for first; False: it is, whatever the config says; None: as configured.
    """
    manifest = work.manifests.get(node.digest)
    if manifest is not None:
        by_default = config.check_existing and not _is_small_attachment(config, node, manifest)
        look = by_default if looked is None else not looked
        shares = bool(node.tag) and work.together[:1] == (node.tag,)
        return ManifestMachine(
            base=base,
            repository=node.repository,
            manifest=manifest,
            tag=node.tag,
            lane=work.id,
            node=node,
            state=ManifestState.CHECKING if look else ManifestState.WAITING,
            share=shares,
            also=work.together[1:] if shares else (),
        )
    blob = work.blobs[node.digest]
    own = node.repository
    candidates: tuple[MountSource | None, ...] = tuple(s for s in blob.mount_from if s.foreign or s.repository != own)
    if config.anonymous_mount:
        candidates = (*candidates, None)
    return BlobMachine(
        base=base,
        repository=node.repository,
        blob=blob,
        lane=work.id,
        node=node,
        candidates=candidates[:MOUNT_SOURCES_MAX],
        looked=bool(looked),
    )


def _is_small_attachment(config: Config, node: Node, manifest: Manifest) -> bool:
    """Whether a manifest, with all it names, costs no more to put than to look for; the answer to its PUT also says
    whether the registry keeps the list of its subject."""
    if manifest.info.subject is None or node.tag:
        return False
    return sum(named.size for named in manifest.names()) <= config.small_blob_bytes


def upload_for(blob: BlobMachine, config: Config, keeps: bool) -> UploadMachine:
    """The upload session of a blob: not opened yet, or one that an earlier process left.

    Args:
        blob: whose.
        config: the session's.
        keeps: a session that can be resumed is to be left open rather than cancelled.
    """
    # Smaller blobs go in one request, so there is nothing to gain.
    resumable_above = min(config.resumable_above_bytes, blob.chunk_bytes or config.chunk_bytes or blob.size)
    upload = UploadMachine(
        base=blob.base,
        repository=blob.repository,
        blob=blob.blob,
        owner=blob,
        lane=blob.lane,
        chunk_bytes=blob.chunk_bytes,
        keeps=keeps and blob.size > resumable_above,
    )
    if blob.kept_offset is None:
        return upload
    kept = attrs.evolve(
        upload,
        state=UploadState.QUERYING_STATUS,
        location=blob.location,
        kept_at=blob.location,
        offset=blob.kept_offset,
        sent=blob.size,
        chunk_min_bytes=blob.chunk_min_bytes,
        unverified=True,
    )
    blob.location, blob.kept_offset = "", None
    return kept


def stream_upload_for(stream: StreamMachine, config: Config) -> StreamUpload:
    """The upload session of a stream, not opened yet."""
    return StreamUpload(
        base=stream.base,
        repository=stream.repository,
        stream=stream.stream,
        keep_bytes=config.stream_buffer_bytes,
        owner=stream,
        lane=stream.lane,
        stream_status=stream.stream_status,
        reach=stream.stream_status.sent,
        chunk_bytes=stream.chunk_bytes,
    )


def cancelling_upload(blob: BlobMachine, unverified: bool) -> UploadMachine:
    """The upload session that a blob has and does not need, to be cancelled; `unverified`: an earlier process opened
    it, so the registry is asked about it first."""
    return UploadMachine(
        base=blob.base,
        repository=blob.repository,
        blob=blob.blob,
        lane=blob.lane,
        location=blob.location,
        sent=blob.size,
        state=UploadState.QUERYING_BEFORE_CANCEL if unverified else UploadState.CANCELLING,
        unverified=unverified,
        kept_at=blob.location if unverified else "",
    )


def cancelling_kept(base: str, kept: Kept, work: PushState) -> UploadMachine:
    """An upload session that an earlier process left, to be cancelled on request once the registry has confirmed it."""
    return UploadMachine(
        base=base,
        repository=kept.repository,
        blob=Blob(descriptor=kept.descriptor),
        lane=work.id,
        node=work,
        location=kept.location,
        kept_at=kept.location,
        sent=kept.size,
        state=UploadState.QUERYING_BEFORE_CANCEL,
        unverified=True,
    )
