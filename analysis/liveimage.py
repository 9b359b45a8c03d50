"""A count image on its way to a live viewer: height and width (uint32, little endian), then its rows."""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

_HEADER = struct.Struct("<II")


def encode_image(image: NDArray[np.uint32]) -> bytes:
    """A count image, shape (height, width), as bytes."""
    return _HEADER.pack(*image.shape) + image.astype("<u4", copy=False).tobytes()


def decode_image(payload: bytes) -> NDArray[np.uint32]:
    """The count image that :func:`encode_image` made, shape (height, width)."""
    height, width = _HEADER.unpack_from(payload)
    return np.frombuffer(payload, "<u4", offset=_HEADER.size).reshape(height, width)
