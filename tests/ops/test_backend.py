"""The choice of the backend: its reason, its errors, and the context manager."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fastproto import backend
from fastproto.assignment import in_background
from fastproto.backend import Choice, resolve, use_backend

CPU = torch.zeros(2, 2)


def test_cpu_tensors_run_on_torch_and_the_choice_prints() -> None:
    choice = resolve("gaussian_potential", CPU)
    assert choice == Choice("torch", "the tensors are on the CPU")
    assert str(choice) == "torch: the tensors are on the CPU"
    asked = resolve("gaussian_potential", CPU, backend="torch")
    assert asked.reason == "asked for" and asked.forced and not choice.forced


@pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU the kernels are compiled, not interpreted")
def test_the_interpreter_takes_cpu_tensors() -> None:
    from .. import kernel_device  # noqa: F401  (skips where the interpreter cannot run)

    assert resolve("gaussian_potential", CPU, backend="triton") == Choice("triton", "asked for")
    potential, pull = backend.kernel("gaussian_potential")(torch.eye(2), torch.eye(2), t=2.0)
    torch.testing.assert_close(potential, torch.full((2,), 1 + float(torch.exp(torch.tensor(-4.0)))))
    assert pull.shape == (2, 2)


def test_without_the_interpreter_cpu_tensors_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ValueError, match=r"got CPU tensors for the triton backend; expected CUDA tensors"):
        resolve("gaussian_potential", CPU, backend="triton")
    assert resolve("gaussian_potential", CPU).reason == "the tensors are on the CPU"


def test_setting_the_interpreter_too_late_is_refused(root: Path) -> None:
    pytest.importorskip("triton")
    code = (
        "import os, torch, fastproto_kernels.lib.common\n"
        "from fastproto.backend import resolve\n"
        "os.environ['TRITON_INTERPRET'] = '1'\n"
        "try:\n    resolve('gaussian_potential', torch.zeros(2, 2), backend='triton')\n"
        "except ValueError as error:\n    print(error)\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=root, capture_output=True, text=True)
    assert "before the kernels are first imported" in done.stdout, done.stderr


def test_use_backend_holds_inside_the_block_only() -> None:
    with use_backend("triton"), use_backend("torch"):
        assert resolve("gaussian_potential", CPU) == Choice("torch", "asked for")
    assert resolve("gaussian_potential", CPU).reason == "the tensors are on the CPU"
    with pytest.raises(RuntimeError, match="stop"), use_backend("torch"):
        raise RuntimeError("stop")
    assert resolve("gaussian_potential", CPU).reason == "the tensors are on the CPU"


def test_a_thread_in_the_background_runs_on_the_backend_of_its_maker() -> None:
    def choice() -> Choice:
        return resolve("assign", CPU)

    with use_backend("torch"):
        found = in_background(choice, CPU.device)
    assert found.result() == Choice("torch", "asked for")
    assert in_background(choice, CPU.device).result() == Choice("numba", "the tensors are on the CPU")


def test_an_op_without_kernel() -> None:
    assert resolve("ipm_loss_of_tomorrow", CPU) == Choice("torch", "ipm_loss_of_tomorrow has no Triton kernel")
    with pytest.raises(ValueError, match="has no Triton kernel; expected one of assign, best_listed"):
        resolve("ipm_loss_of_tomorrow", CPU, backend="triton")


def test_every_kernel_in_the_table_is_there() -> None:
    pytest.importorskip("triton")
    assert all(backend.kernel(name).__name__ == name for name in backend.KERNELS)
    assert set(backend.LAUNCHERS.values()) <= backend.KERNELS.keys()


def test_float64_has_no_kernel() -> None:
    assert resolve("gaussian_potential", CPU.double()).reason == "the kernels do not take torch.float64"
    with pytest.raises(TypeError, match="expected float32, bfloat16 or float16"):
        resolve("gaussian_potential", CPU.double(), backend="triton")


def test_triton_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "_installed", lambda package: False)
    assert resolve("gaussian_potential", CPU).reason == "Triton is not installed"
    with pytest.raises(ImportError, match="pip install triton"):
        resolve("gaussian_potential", CPU, backend="triton")


class _OnGpu(torch.Tensor):
    """Says that it is on a GPU; nothing reads its numbers."""

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return torch.device("cuda", 0)


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), "torch"), ((8, 0), "triton"), ((9, 0), "triton")])
def test_gpus_by_age(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], expected: str) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Some GPU")
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(backend, "_installed", lambda package: True)
    tensor = torch.zeros(2, 2).as_subclass(_OnGpu)
    choice = resolve("gaussian_potential", tensor)
    assert choice.backend == expected and "Some GPU" in choice.reason
    if expected == "torch":
        with pytest.raises(ValueError, match=r"Some GPU \(sm_75\).*expected sm_80 or newer"):
            resolve("gaussian_potential", tensor, backend="triton")


def test_tensors_on_several_devices() -> None:
    with pytest.raises(ValueError, match=r"tensors on cpu, meta; expected one device"):
        resolve("gaussian_potential", CPU, CPU.to("meta"))
    assert resolve("gaussian_potential", CPU.to("meta")).backend == "torch"


def test_unknown_backend() -> None:
    for call in (lambda: resolve("gaussian_potential", CPU, backend="cuda"), lambda: use_backend("cuda").__enter__()):
        with pytest.raises(ValueError, match="expected one of 'auto', 'triton', 'numba', 'torch'"):
            call()
