"""fastproto-export: what the file labels, and what it says of itself."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fastproto.cli import export, predict, train
from fastproto.data.decode import with_picture
from fastproto.training.classifier import load_classifier
from fastproto.training.export import METADATA, check_equal, export_model

from ..data.helpers import image_folder

installed = all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime"))
needs_onnx = pytest.mark.skipif(not installed, reason="the extra export is not installed")
pytestmark = [  # of the exporters' own code
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


def pixels_of(paths: Iterable[str]) -> Any:
    """float32 [N, 1, 8, 8] in [0, 1]."""
    found = []
    for path in paths:
        with Image.open(path) as picture:
            found.append(np.asarray(picture, np.float32)[None] / 255)
    return np.stack(found)


@needs_onnx
def test_onnx_labels_a_folder_as_predict_does(
    digits_run: Path, digit_pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Image by image, ink on paper included: the file inverts it."""
    import onnxruntime

    out = tmp_path / "digits.onnx"
    assert export([str(digits_run), str(out)]) == 0
    assert "compared            the same labels and scores" in capsys.readouterr().out
    session = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    facts = session.get_modelmeta().custom_metadata_map
    names = json.loads(facts["class_names"])
    assert (names, facts["image_size"], facts["colour"]) == (list("0123456789"), "8", "grey")
    assert len(json.loads(facts["mean"])) == len(json.loads(facts["std"])) == 1
    assert [output.name for output in session.get_outputs()] == ["labels", "cosines"]

    assert predict([str(digits_run), str(digit_pictures)]) == 0
    printed = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    pictures = pixels_of(path for path, *_ in printed)
    for size in (1, 7, 450):
        labels, cosines = (
            np.concatenate(parts)
            for parts in zip(
                *(session.run(None, {"images": pictures[i : i + size]}) for i in range(0, 450, size)), strict=True
            )
        )
        assert labels.dtype == np.int64 and [names[label] for label in labels] == [label for _, label, _ in printed]
        np.testing.assert_allclose(cosines.max(1), [float(cosine) for *_, cosine in printed], atol=1e-4)


@needs_onnx
def test_a_folder_of_pictures_by_a_convolutional_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Pictures in colour, of another size than the network's; a head whose scores are logits."""
    import onnxruntime

    root, run, out = image_folder(tmp_path / "pictures"), str(tmp_path / "run"), str(tmp_path / "model.onnx")
    options = ["--data", "image-folder", "--data.root", root, "--data.image_size", "8", "--model", "resnet20"]
    options += ["--head", "linear", "--head.dim", "4", "--optim.epochs", "1", "--progress", "false"]
    assert train([*options, "--accelerator", "cpu", "--channels_last", "true", "--out", run]) == 0
    assert export([run, out]) == 0
    capsys.readouterr()
    assert predict([run, root]) == 0
    printed = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    read = load_classifier(run).preprocessing.read
    pictures = torch.stack([with_picture(Path(path), read) for path, *_ in printed]).numpy() / np.float32(255)
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == ["labels", "logits"]
    names = json.loads(session.get_modelmeta().custom_metadata_map["class_names"])
    for size in (1, 60):
        found = [session.run(None, {"images": pictures[i : i + size]})[0] for i in range(0, 60, size)]
        assert [names[label] for label in np.concatenate(found)] == [label for _, label, _ in printed]


def test_a_program_of_torch(
    digits_run: Path, digit_pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "digits.pt2"
    assert export([str(digits_run), str(out), "--format", "torch"]) == 0
    assert predict([str(digits_run), str(digit_pictures)]) == 0
    printed = [line.split("\t") for line in capsys.readouterr().out.splitlines() if "\t" in line]
    facts = {METADATA: ""}
    program = torch.export.load(str(out), extra_files=facts).module()
    names = json.loads(json.loads(facts[METADATA])["class_names"])
    labels, _ = program(torch.from_numpy(pixels_of(path for path, *_ in printed)))
    assert [names[label] for label in labels.tolist()] == [label for _, label, _ in printed]


@pytest.mark.parametrize("head", ["prototype", "linear"])
def test_a_run_in_bfloat16(head: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, out = str(tmp_path / "run"), tmp_path / "model.pt2"
    options = ["--model", "mlp", "--head", head, "--optim.epochs", "1", "--progress", "false", "--accelerator", "cpu"]
    assert train([*options, "--precision", "bf16-true", "--out", run]) == 0
    capsys.readouterr()
    assert export([run, str(out), "--format", "torch"]) == 0
    printed = capsys.readouterr().out
    assert "precision           float32 (in the run: bfloat16)\n" in printed and "checkpoint in float32, for" in printed
    _, scores = torch.export.load(str(out)).module()(torch.rand(2, 1, 8, 8))
    assert scores.dtype == torch.float32


def test_another_format_is_refused_in_python_too(digits_run: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="format is 'ONNX'; expected one of onnx, torch"):
        export_model(load_classifier(digits_run), tmp_path / "model.onnx", "ONNX")  # type: ignore[arg-type]  # no such format
    assert not list(tmp_path.iterdir())


def test_a_file_that_computes_something_else_is_refused(digits_run: Path) -> None:
    classifier = load_classifier(digits_run)

    def cosines(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        scores = images.flatten(1)[:, :10]
        return scores.argmax(1), scores

    check_equal(cosines, cosines, classifier)
    with pytest.raises(ValueError, match=r"scores that differ by 0\.5 for a batch of 1; expected at most 0\.001"):
        check_equal(cosines, lambda images: (cosines(images)[0], cosines(images)[1] + 0.5), classifier)
    with pytest.raises(ValueError, match="for a batch of 1"):
        check_equal(cosines, lambda images: (cosines(images)[1].argmin(1), cosines(images)[1]), classifier)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run"], "required: out"),
        (["run", "model.pt2"], "the output is model.pt2; expected a name that ends in .onnx"),
        (["run", "model.onnx", "--format", "torch"], "the output is model.onnx; expected a name that ends in .pt2"),
        (["run", "model.onnx", "--format", "tf"], "--format: invalid choice: 'tf'"),
        (["nowhere", "model.onnx"], "no run folder or checkpoint nowhere"),
    ],
)
def test_wrong_arguments(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert export(arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.skipif(installed, reason="the extra export is installed")
def test_a_missing_package_is_one_sentence(
    digits_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export([str(digits_run), str(tmp_path / "model.onnx")]) == 2
    assert "not installed: pip install 'fastproto[export]'" in capsys.readouterr().err
