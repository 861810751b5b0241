"""What has to happen to an image before a detector sees it; kept in every file that holds a detector."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from ciod_core.config.schema import LARGEST_IMAGE_SIZE
from ciod_core.records import Record


class Preprocessing(Record):
    """From an image to the detector's input; normalization is the detector's own business.

    Attributes:
        image_size: the longer side after resizing, both sides by the same factor, in pixels.
        shorter_side: most pixels of the shorter side, for which the longer one becomes less; None: no limit.
        stride_multiple: height and width are padded to a multiple of this, at the right and the bottom.
        pad_value: the value of the padding.
        channels: order of the colors.
        value_range: values of black and full color.
    """

    image_size: int = Field(ge=32, le=LARGEST_IMAGE_SIZE)
    shorter_side: int | None = Field(None, ge=32, le=LARGEST_IMAGE_SIZE)
    stride_multiple: int = Field(32, ge=1, le=1024)
    pad_value: int = Field(114, ge=0, le=255)
    channels: Literal["RGB"] = "RGB"
    value_range: Literal["0-255"] = "0-255"

    @property
    def sizes(self) -> dict[str, Any]:
        """What resizing is told: `image_size` and `shorter_side`."""
        return {"image_size": self.image_size, "shorter_side": self.shorter_side}
