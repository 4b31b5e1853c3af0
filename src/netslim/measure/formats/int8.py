"""ONNX with weights and activations of 8 bits, by ONNX Runtime's static quantiser."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from netslim.modules import tensors_in


def quantised(file: bytes, batches: Iterable[Any]) -> bytes:
    """An ONNX file in int8 (QDQ, one scale per channel of a weight), its ranges those of these batches.

    Weights use 7 of their 8 bits, so that processors without VNNI do not saturate.
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    with tempfile.TemporaryDirectory() as folder, _silent():
        dense, small = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        dense.write_bytes(file)
        quantize_static(
            dense,
            small,
            _reader(file, batches),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return small.read_bytes()


def _reader(file: bytes, batches: Iterable[Any]) -> Any:
    """The batches as the quantiser asks for them: one after the other, then None."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader

    names = [given.name for given in onnx.load_from_string(file).graph.input]
    feeds = ({name: t.numpy() for name, t in zip(names, tensors_in(x), strict=True)} for x in batches)

    class Reader(CalibrationDataReader):
        def get_next(self) -> Any:
            return next(feeds, None)

    return Reader()


@contextmanager
def _silent() -> Iterator[None]:
    """The quantiser recommends, through the root logger, what has been done already."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
