"""`regproto` on blocking sockets: `push` for one image, `Driver` for whoever has sessions of their own.

What is not asked for is not imported: the command with another driver brings no sockets of ours.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from regproto_sync._artifact import Artifact as Artifact
    from regproto_sync._artifact import artifact as artifact
    from regproto_sync._attach import attach as attach
    from regproto_sync._attach import referrers as referrers
    from regproto_sync._attachments import Attached as Attached
    from regproto_sync._attachments import Attaching as Attaching
    from regproto_sync._attachments import plan_attach as plan_attach
    from regproto_sync._content import BytesContent as BytesContent
    from regproto_sync._content import Content as Content
    from regproto_sync._content import ContentChanged as ContentChanged
    from regproto_sync._content import ContentSource as ContentSource
    from regproto_sync._content import FileContent as FileContent
    from regproto_sync._content import SliceContent as SliceContent
    from regproto_sync._docker_archive import DockerImage as DockerImage
    from regproto_sync._draft import Draft as Draft
    from regproto_sync._driver import Driver as Driver
    from regproto_sync._driver import run_session as run_session
    from regproto_sync._entries import cancel_kept as cancel_kept
    from regproto_sync._entries import push_artifact as push_artifact
    from regproto_sync._entries import push_image as push_image
    from regproto_sync._entries import push_layer as push_layer
    from regproto_sync._entries import push_many as push_many
    from regproto_sync._entries import push_planned as push_planned
    from regproto_sync._entries import put_manifest as put_manifest
    from regproto_sync._entries import tag as tag
    from regproto_sync._files import bytes_blob as bytes_blob
    from regproto_sync._files import file_blob as file_blob
    from regproto_sync._files import folder_blob as folder_blob
    from regproto_sync._image import ImageSource as ImageSource
    from regproto_sync._image import image_of as image_of
    from regproto_sync._keychain import Keychain as Keychain
    from regproto_sync._keychain import docker_keychain as docker_keychain
    from regproto_sync._keychain import static_keychain as static_keychain
    from regproto_sync._layers import Layer as Layer
    from regproto_sync._layout import Layout as Layout
    from regproto_sync._layout import open_layout as open_layout
    from regproto_sync._notation import SourceNotFound as SourceNotFound
    from regproto_sync._options import Options as Options
    from regproto_sync._plans import blob_of as blob_of
    from regproto_sync._push import push as push
    from regproto_sync._serve import Server as Server
    from regproto_sync._serve import serve as serve
    from regproto_sync._source import Planned as Planned
    from regproto_sync._source import open_source as open_source
    from regproto_sync._source import plan_source as plan_source
    from regproto_sync._state import Keeper as Keeper
    from regproto_sync._stream import StreamContent as StreamContent

_HOMES = {
    "Artifact": "_artifact",
    "Attached": "_attachments",
    "Attaching": "_attachments",
    "BytesContent": "_content",
    "Content": "_content",
    "ContentChanged": "_content",
    "ContentSource": "_content",
    "DockerImage": "_docker_archive",
    "Draft": "_draft",
    "Driver": "_driver",
    "FileContent": "_content",
    "ImageSource": "_image",
    "Keeper": "_state",
    "Keychain": "_keychain",
    "Layer": "_layers",
    "Layout": "_layout",
    "Options": "_options",
    "Planned": "_source",
    "Server": "_serve",
    "SliceContent": "_content",
    "SourceNotFound": "_notation",
    "StreamContent": "_stream",
    "artifact": "_artifact",
    "attach": "_attach",
    "blob_of": "_plans",
    "cancel_kept": "_entries",
    "bytes_blob": "_files",
    "docker_keychain": "_keychain",
    "file_blob": "_files",
    "folder_blob": "_files",
    "image_of": "_image",
    "open_layout": "_layout",
    "open_source": "_source",
    "plan_attach": "_attachments",
    "plan_source": "_source",
    "push": "_push",
    "push_artifact": "_entries",
    "push_image": "_entries",
    "push_layer": "_entries",
    "push_many": "_entries",
    "push_planned": "_entries",
    "put_manifest": "_entries",
    "referrers": "_attach",
    "run_session": "_driver",
    "serve": "_serve",
    "static_keychain": "_keychain",
    "tag": "_entries",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
