"""What a detector found in one image, as users handle it. Torch is not needed here.

Legend: N detections.
"""

from __future__ import annotations

import base64
import html
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ciod_core.arrays import Float32Array, Int64Array
from ciod_core.classes import ClassTable
from ciod_core.data.formats.coco import result_rows
from ciod_core.data.images.decode import decode_image
from ciod_core.drawing.detections import draw_detections
from ciod_core.errors import ConfigError, DataError

# Smaller images are drawn enlarged: labels that can be read would cover the objects.
SMALLEST_SIDE = 320
# Of the picture and the table that notebooks show.
NOTEBOOK_SIDE, NOTEBOOK_ROWS = 640, 20


@dataclass(frozen=True, eq=False, repr=False)
class ImagePredictions:
    """Detections of one image, best first.

    Attributes:
        boxes: (N, 4) float32, xyxy in pixels of the image; of the upright image where it was read from a file.
        scores: (N,) float32, 0..1.
        class_ids: (N,) int64, positions in the detector's `classes`.
        class_table: the classes of the detector.
        source: the file, or the image itself where no file was given.
    """

    boxes: Float32Array
    scores: Float32Array
    class_ids: Int64Array
    class_table: ClassTable = field(repr=False)
    source: Path | Image.Image

    def __len__(self) -> int:
        return len(self.scores)

    def __repr__(self) -> str:
        where = f"{self.source}: " if isinstance(self.source, Path) else ""
        found = ", ".join(f"{name} {score:.2f}" for name, score in zip(self.names, self.scores, strict=True))
        return f"<{where}{len(self)} {'object' if len(self) == 1 else 'objects'}{found and ': '}{found}>"

    @property
    def names(self) -> list[str]:
        """Class name of each detection."""
        return [self.class_table.names[class_id] for class_id in self.class_ids]

    @property
    def category_ids(self) -> list[int]:
        """The dataset's own id of each detection's class."""
        return [self.class_table.category_ids[class_id] for class_id in self.class_ids]

    @property
    def image(self) -> Image.Image:
        """The image, RGB; a file is read again, so that many results need little memory.

        Raises:
            DataError: the file can no longer be read.
        """
        return self.source if isinstance(self.source, Image.Image) else decode_image(self.source)

    def draw(self) -> Image.Image:
        """A copy of the image with boxes, class names and scores; images below 320 pixels are enlarged.

        Raises:
            DataError: the file can no longer be read.
        """
        image = self.image
        factor = -(-SMALLEST_SIDE // max(image.size))
        if factor > 1:
            image = image.resize((factor * image.width, factor * image.height), Image.Resampling.BICUBIC)
        return draw_detections(image, factor * self.boxes, self.class_ids, self.names, self.scores)

    def to_coco(self, image_id: int) -> list[dict[str, Any]]:
        """Rows of a COCO results file: image_id, the dataset's category_id, bbox (x, y, width, height), score."""
        return result_rows([image_id] * len(self), self.category_ids, self.boxes, self.scores)

    def to_supervision(self) -> Any:
        """The same as `supervision.Detections`, with the names as `class_name`.

        Raises:
            ConfigError: supervision is not installed.
        """
        try:
            from supervision import Detections
        except ImportError as error:
            raise ConfigError("`to_supervision` needs supervision; run: pip install supervision") from error
        return Detections(
            xyxy=self.boxes,
            confidence=self.scores,
            class_id=self.class_ids,
            data={"class_name": np.array(self.names, dtype=str)},
        )

    def _repr_html_(self) -> str:
        """A small table and the drawn picture, for notebooks."""
        rows = []
        for name, score, box in zip(self.names, self.scores, self.boxes[:NOTEBOOK_ROWS], strict=False):
            cells = (html.escape(name), f"{score:.2f}", ", ".join(f"{side:.0f}" for side in box))
            rows.append(f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
        if len(self) > NOTEBOOK_ROWS:
            rows.append(f'<tr><td colspan="3">and {len(self) - NOTEBOOK_ROWS} more</td></tr>')
        head = "<tr><th>class</th><th>score</th><th>box (x1, y1, x2, y2)</th></tr>"
        return f"{self._picture_html()}<table>{head}{''.join(rows)}</table>"

    def _picture_html(self) -> str:
        try:
            picture = self.draw()
        except DataError:
            return ""
        picture.thumbnail((NOTEBOOK_SIDE, NOTEBOOK_SIDE))
        content = BytesIO()
        picture.save(content, "JPEG", quality=90)
        return f'<img src="data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"><br>'
