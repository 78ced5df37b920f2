"""Writes the Parquet files of the tests as the library `datasets` does: pip install pyarrow pillow numpy."""

import io
import pathlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

HERE = pathlib.Path(__file__).parent


def png(number: int) -> bytes:
    """Red is ten times the number, green counts columns, blue rows."""
    pixels = np.zeros((4, 5, 3), np.uint8)
    pixels[..., 0] = 10 * number
    pixels[..., 1] = np.arange(5)
    pixels[..., 2] = np.arange(4)[:, None]
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
rows = [{"bytes": png(number), "path": f"{number}.png"} for number in range(7)]
table = pa.table({"image": pa.array(rows, image), "label": pa.array([n % 3 for n in range(7)], pa.int64())})
pq.write_table(table, HERE / "images.parquet", row_group_size=3)

square = [[[0, 1], [2, 3]], [[4, 5], [6, 7]]]
table = pa.table(
    {
        "x": pa.array([[0.0, 1.0, 2.0], [0.5, 1.5, -2.0]], pa.list_(pa.float32())),
        "fixed": pa.array(square, pa.list_(pa.list_(pa.float32(), 2), 2)),
        "nested": pa.array(square, pa.list_(pa.list_(pa.uint8()))),
        "ragged": pa.array([[0.0, 1.0], [2.0]], pa.list_(pa.float64())),
        "words": pa.array(["a", "b"]),
        "label": pa.array([1, 0], pa.int8()),
        "target": pa.array([4, 5], pa.int64()),
    }
)
pq.write_table(table, HERE / "lists.parquet")
