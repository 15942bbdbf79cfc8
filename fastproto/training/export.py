"""A trained classifier as one file for other programs: ONNX, or a program of ``torch.export``."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

import fastproto
from fastproto.data.optional import require
from fastproto.head import PrototypeHead
from fastproto.support.atomic_files import write_whole
from fastproto.training.classifier import Classifier

Format: TypeAlias = Literal["onnx", "torch"]
Labeller: TypeAlias = Callable[[Tensor], tuple[Tensor, Tensor]]  # images -> labels, scores
SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "torch": ".pt2"}
BATCHES = (1, 3, 8)  # on which a written file is compared with the classifier
TOLERANCE = 1e-3  # relative to the largest score: what other libraries' convolutions may differ by
METADATA = "fastproto.json"  # the file of the metadata in a .pt2 archive


class ExportedClassifier(nn.Module):
    """Images, float32 [B, channels, H, W] in [0, 1] -> labels, int64 [B], and scores, float32 [B, C].

    The scores are the cosines with the prototypes of a :class:`PrototypeHead`, and the logits of other heads.
    Normalisation, and the inversion of dark strokes on a light ground, are inside.
    """

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.backbone = classifier.backbone.float().to(memory_format=torch.contiguous_format)
        self.head, self.preprocessing = classifier.head, classifier.preprocessing

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        pixels = self.preprocessing.dark_ground(images)
        scores = self.head.logits(self.backbone(self.preprocessing.normalise(pixels)))
        return scores.argmax(1), scores


def export_model(classifier: Classifier, path: Path, format: Format = "onnx") -> bool:
    """Write a trained classifier as one file, and compare what the file computes with the classifier.

    Both compute in float32, whatever the precision of the run was.

    ``onnxruntime.InferenceSession(path).run(None, {"images": pictures / 255})`` gives labels and scores.

    Args:
        classifier: of :func:`fastproto.training.classifier.load_classifier`, on the CPU; its weights become float32.
        path: the file to write.
        format: ``onnx``, or ``torch`` for ``torch.export.load``.

    Returns:
        Whether the file was compared with the classifier, on batches of 1, 3 and 8: ONNX needs onnxruntime for it.

    Raises:
        ImportError: onnx or onnxscript is not installed.
        ValueError: another format; the network cannot be exported, or the file computes other labels. Nothing is
            written then.
        OSError: the file cannot be written.
    """
    if format not in SUFFIXES:
        raise ValueError(f"format is {format!r}; expected one of {', '.join(SUFFIXES)}")
    if format == "onnx":
        for package in ("onnx", "onnxscript"):
            require(package, "export to ONNX", extra="export")
    model = ExportedClassifier(classifier).eval()
    facts, write = metadata(classifier), _write_onnx if format == "onnx" else _write_torch
    checked = format == "torch" or find_spec("onnxruntime") is not None

    def write_and_check(file: Path) -> None:
        write(model, _images(classifier, 2), facts, file)
        if checked:
            check_equal(model, (_read_onnx if format == "onnx" else _read_torch)(file), classifier)

    write_whole(path, write_and_check)
    return checked


def metadata(classifier: Classifier) -> dict[str, str]:
    """What a program must know to use the file: every value is text, lists and objects are JSON."""
    read = classifier.preprocessing
    shape = f"[B, {read.channels}, {read.image_size}, {read.image_size}]"
    return {
        "class_names": json.dumps(classifier.class_names),
        "image_size": str(read.image_size),
        "colour": "RGB" if read.channels == 3 else "grey",
        "mean": json.dumps(read.mean),
        "std": json.dumps(read.std),
        "input": f"images: float32 {shape} in [0, 1]",
        "resize": "shorter side scaled to image_size (bicubic), centre cropped; mean and std are applied inside",
        "scores": "cosines" if isinstance(classifier.head, PrototypeHead) else "logits",
        "version": fastproto.__version__,
    }


def check_equal(model: Labeller, written: Labeller, classifier: Classifier) -> None:
    """Raise ValueError unless both give the same labels and scores, for batches of several sizes.

    A label may differ where two scores differ by less than the tolerance.
    """
    for count in BATCHES:
        images = _images(classifier, count)
        with torch.no_grad():
            (labels, scores), (found, others) = model(images), written(images)
        allowed = TOLERANCE * max(1.0, float(scores.abs().max()))
        apart = float((others - scores).abs().max())
        short = float((scores.amax(1) - scores.gather(1, found[:, None])[:, 0]).max())
        if not (apart <= allowed and short <= allowed and found.shape == labels.shape):
            raise ValueError(
                f"the exported file gives scores that differ by {apart:.2g} for a batch of {count}; expected at most "
                f"{allowed:.2g}: export with other versions of torch and onnxruntime, and please report it"
            )


def _images(classifier: Classifier, count: int) -> Tensor:
    """Random images [count, channels, H, W] in [0, 1]."""
    read, generator = classifier.preprocessing, torch.Generator().manual_seed(count)
    return torch.rand(count, read.channels, read.image_size, read.image_size, generator=generator)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings and notes that exporters address to their own developers."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    before = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, before, strict=True):
                logger.setLevel(level)


def _program(model: nn.Module, images: Tensor) -> torch.export.ExportedProgram:
    try:
        with _quiet(), torch.no_grad():
            return torch.export.export(model, (images,), dynamic_shapes=({0: torch.export.Dim("batch")},), strict=False)
    except Exception as error:  # tracing a network of others raises errors of many types
        raise ValueError(
            f"the network cannot be exported ({type(error).__name__}: {' '.join(str(error).split())}); "
            "expected one that torch.export can trace"
        ) from error


def _write_onnx(model: nn.Module, images: Tensor, facts: dict[str, str], path: Path) -> None:
    onnx = require("onnx", "export to ONNX", extra="export")
    program = _program(model, images)
    with _quiet():
        made = torch.onnx.export(
            program, input_names=["images"], output_names=["labels", facts["scores"]], verbose=False
        )
    assert made is not None
    proto = made.model_proto
    onnx.helper.set_model_props(proto, facts)
    onnx.save_model(proto, str(path))


def _write_torch(model: nn.Module, images: Tensor, facts: dict[str, str], path: Path) -> None:
    with _quiet():
        torch.export.save(_program(model, images), str(path), extra_files={METADATA: json.dumps(facts)})


def _read_onnx(path: Path) -> Labeller:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> tuple[Tensor, Tensor]:
        labels, scores = session.run(None, {"images": images.numpy()})
        return torch.from_numpy(labels), torch.from_numpy(scores)

    return run


def _read_torch(path: Path) -> Labeller:
    with _quiet():
        module: Any = torch.export.load(str(path)).module()
    return lambda images: module(images)
