"""The layers of an image and the `rootfs` of its config: which layers are tars, and whether the two belong together.

Source: image-spec, "Image Configuration" (`rootfs.diff_ids`: the digests of the uncompressed layers, lowest first) and
"Layer" (media types); Docker's image manifest v2 schema 2.
"""

from __future__ import annotations

from typing import Final

OCI_LAYER: Final = "application/vnd.oci.image.layer.v1.tar"
OCI_FOREIGN: Final = "application/vnd.oci.image.layer.nondistributable.v1.tar"
DOCKER_LAYER: Final = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_FOREIGN: Final = "application/vnd.docker.image.rootfs.foreign.diff.tar"
TAR_TYPES: Final = {
    **{
        f"{kind}{suffix}": how
        for kind in (OCI_LAYER, OCI_FOREIGN)
        for suffix, how in (("", "none"), ("+gzip", "gzip"), ("+zstd", "zstd"))
    },
    **{
        f"{kind}{suffix}": how
        for kind in (DOCKER_LAYER, DOCKER_FOREIGN)
        for suffix, how in (("", "none"), (".gzip", "gzip"))
    },
}
"""How a layer of each media type that means a file system is compressed. What has another type is no such layer."""
