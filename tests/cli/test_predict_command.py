"""fastproto-predict: arguments that are wrong. What it prints is shown with the training of its checkpoint."""

from __future__ import annotations

import pytest

from fastproto.cli import predict


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: checkpoint, IMAGE"),
        (["run", "x.png", "-k", "two"], "-k is 'two'; expected a whole number"),
        (["run", "x.png", "--devise", "cpu"], "did you mean --device?"),
        (["run", "x.png", "--device"], "--device has no value"),
        (["run", "x.png", "--device", "meta"], "--device is meta, which this machine lacks"),
    ],
)
def test_wrong_arguments_of_predict(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert predict(arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and error.count("\n") == 1
