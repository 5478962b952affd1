"""`regproto` on blocking sockets: `push` for one image, `Driver` for whoever has sessions of their own.

What is not asked for is not imported: the command with another driver brings no sockets of ours.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from regproto_sync.client import attach as attach
    from regproto_sync.client import cancel_kept as cancel_kept
    from regproto_sync.client import push as push
    from regproto_sync.client import push_artifact as push_artifact
    from regproto_sync.client import push_image as push_image
    from regproto_sync.client import push_layer as push_layer
    from regproto_sync.client import push_many as push_many
    from regproto_sync.client import push_planned as push_planned
    from regproto_sync.client import put_manifest as put_manifest
    from regproto_sync.client import referrers as referrers
    from regproto_sync.client import tag as tag
    from regproto_sync.credentials.keychain import Keychain as Keychain
    from regproto_sync.credentials.keychain import docker_keychain as docker_keychain
    from regproto_sync.credentials.keychain import static_keychain as static_keychain
    from regproto_sync.driver.driver import Driver as Driver
    from regproto_sync.driver.driver import run_session as run_session
    from regproto_sync.server.server import Server as Server
    from regproto_sync.server.server import serve as serve
    from regproto_sync.sources.artifact import Artifact as Artifact
    from regproto_sync.sources.artifact import artifact as artifact
    from regproto_sync.sources.attachments import Attached as Attached
    from regproto_sync.sources.attachments import Attaching as Attaching
    from regproto_sync.sources.attachments import plan_attach as plan_attach
    from regproto_sync.sources.content import BytesContent as BytesContent
    from regproto_sync.sources.content import Content as Content
    from regproto_sync.sources.content import ContentChanged as ContentChanged
    from regproto_sync.sources.content import ContentSource as ContentSource
    from regproto_sync.sources.content import FileContent as FileContent
    from regproto_sync.sources.content import SliceContent as SliceContent
    from regproto_sync.sources.docker_archive import DockerImage as DockerImage
    from regproto_sync.sources.draft import Draft as Draft
    from regproto_sync.sources.files import bytes_blob as bytes_blob
    from regproto_sync.sources.files import file_blob as file_blob
    from regproto_sync.sources.files import folder_blob as folder_blob
    from regproto_sync.sources.image import ImageSource as ImageSource
    from regproto_sync.sources.image import image_of as image_of
    from regproto_sync.sources.layers import Layer as Layer
    from regproto_sync.sources.layout import Layout as Layout
    from regproto_sync.sources.layout import open_layout as open_layout
    from regproto_sync.sources.notation import SourceNotFound as SourceNotFound
    from regproto_sync.sources.options import Options as Options
    from regproto_sync.sources.plans import blob_of as blob_of
    from regproto_sync.sources.source import Planned as Planned
    from regproto_sync.sources.source import open_source as open_source
    from regproto_sync.sources.source import plan_source as plan_source
    from regproto_sync.sources.stream import StreamContent as StreamContent
    from regproto_sync.state.checkpoint_files import CheckpointStore as CheckpointStore

_MODULES: Final = {
    "Artifact": "regproto_sync.sources.artifact",
    "Attached": "regproto_sync.sources.attachments",
    "Attaching": "regproto_sync.sources.attachments",
    "BytesContent": "regproto_sync.sources.content",
    "CheckpointStore": "regproto_sync.state.checkpoint_files",
    "Content": "regproto_sync.sources.content",
    "ContentChanged": "regproto_sync.sources.content",
    "ContentSource": "regproto_sync.sources.content",
    "DockerImage": "regproto_sync.sources.docker_archive",
    "Draft": "regproto_sync.sources.draft",
    "Driver": "regproto_sync.driver.driver",
    "FileContent": "regproto_sync.sources.content",
    "ImageSource": "regproto_sync.sources.image",
    "Keychain": "regproto_sync.credentials.keychain",
    "Layer": "regproto_sync.sources.layers",
    "Layout": "regproto_sync.sources.layout",
    "Options": "regproto_sync.sources.options",
    "Planned": "regproto_sync.sources.source",
    "Server": "regproto_sync.server.server",
    "SliceContent": "regproto_sync.sources.content",
    "SourceNotFound": "regproto_sync.sources.notation",
    "StreamContent": "regproto_sync.sources.stream",
    "artifact": "regproto_sync.sources.artifact",
    "attach": "regproto_sync.client",
    "blob_of": "regproto_sync.sources.plans",
    "bytes_blob": "regproto_sync.sources.files",
    "cancel_kept": "regproto_sync.client",
    "docker_keychain": "regproto_sync.credentials.keychain",
    "file_blob": "regproto_sync.sources.files",
    "folder_blob": "regproto_sync.sources.files",
    "image_of": "regproto_sync.sources.image",
    "open_layout": "regproto_sync.sources.layout",
    "open_source": "regproto_sync.sources.source",
    "plan_attach": "regproto_sync.sources.attachments",
    "plan_source": "regproto_sync.sources.source",
    "push": "regproto_sync.client",
    "push_artifact": "regproto_sync.client",
    "push_image": "regproto_sync.client",
    "push_layer": "regproto_sync.client",
    "push_many": "regproto_sync.client",
    "push_planned": "regproto_sync.client",
    "put_manifest": "regproto_sync.client",
    "referrers": "regproto_sync.client",
    "run_session": "regproto_sync.driver.driver",
    "serve": "regproto_sync.server.server",
    "static_keychain": "regproto_sync.credentials.keychain",
    "tag": "regproto_sync.client",
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
