"""When the assignment is renewed, and where it starts."""

from __future__ import annotations

import copy
import io
import math
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

from fastproto.assignment import Alignment, Assignment
from fastproto.data import DataSplits, collate
from fastproto.head import PrototypeHead
from fastproto.support.array_files import read_npz
from fastproto.support.atomic_files import write_memory
from fastproto.training.classifier import Classifier
from fastproto.training.config import HeadConfig

Found = Assignment | Alignment
ALIGNED_FROM = 100  # classes
SAMPLE_BATCH = 64  # on every device: batch statistics, and so class means, do not depend on how many devices there are


@dataclass(frozen=True)
class Schedule:
    """How many renewals have fallen due at a step: a function of its number alone, so a resumed run renews on time."""

    per_epoch: float = 1.0
    early_epochs: float = 0.0
    early_per_epoch: float = 0.0

    @classmethod
    def of(cls, config: HeadConfig) -> Schedule:
        return cls(config.renewals_per_epoch, config.early_epochs, config.early_renewals_per_epoch)

    def early(self, step: int, steps_per_epoch: int | float) -> bool:
        return step <= self.early_epochs * steps_per_epoch

    def due(self, step: int, steps_per_epoch: int | float) -> bool:
        """Whether the assignment is renewed before this step; never before the first one."""
        return step > 0 and self._count(step, steps_per_epoch) > self._count(step - 1, steps_per_epoch)

    def _count(self, step: int, steps_per_epoch: int | float) -> int:
        epochs = step / steps_per_epoch
        early = min(epochs, self.early_epochs)
        # Rounded, so that 3 renewals over 7 steps do not slip by a step for the sake of the last bit of a product.
        return math.floor(round(early * self.early_per_epoch + (epochs - early) * self.per_epoch, 9))


class RenewAssignment(L.Callback):
    """Renew the assignment every τ = (steps of an epoch) / (renewals per epoch) iterations (Algorithm 1).

    The renewal comes before the step that follows, thus after the validation and the checkpoint at the end of an epoch:
    the assignment that was validated is the one that is saved, and training never ends on an assignment nobody trained.

    With ``assign_async`` it is solved in a thread while steps go on, and adopted before the first step that finds it
    done, at the latest where the next one is due. A checkpoint notes that one was under way: a resumed run starts it
    again. What is not done by the last step is waited for and dropped.
    """

    def __init__(self, config: HeadConfig, folder: Path, seed: int = 0) -> None:
        self.config, self.folder, self.seed = config, folder, seed
        self.schedule = Schedule.of(config)
        self.pending: Future[Found] | None = None
        self.began, self.aligned = 0, False  # the step before which the pending one was started, and what it is
        self.unfinished: bool | None = None  # a checkpoint's pending renewal, and whether it was an alignment

    def on_train_batch_start(self, trainer: L.Trainer, module: L.LightningModule, batch: Any, batch_idx: int) -> None:
        assert isinstance(module, Classifier)
        head, step, steps = module.head, trainer.global_step, trainer.num_training_batches
        if not isinstance(head, PrototypeHead):
            return
        due = self.schedule.due(module.position, steps)
        if self.pending is not None:
            found = head.finish_renewal(self.pending, wait=due)
            if found is not None:
                self.pending = None
                log_renewal(trainer, found, head.num_classes, delay=step - self.began)
        if due or self.unfinished is not None:
            aligned = (
                self.config.early_alignment and self.schedule.early(module.position, steps)
                if due
                else bool(self.unfinished)
            )
            self.unfinished = None
            self._renew(trainer, head, aligned)

    def _renew(self, trainer: L.Trainer, head: PrototypeHead, aligned: bool) -> None:
        step = trainer.global_step
        if self.config.save_class_means and trainer.is_global_zero:
            save_class_means(self.folder, step, head)
        if self.config.assign_async:
            self.pending, self.began = head.begin_renewal(aligned=aligned, seed=self.seed), step
            self.aligned = aligned
        else:
            log_renewal(trainer, head.align(seed=self.seed) if aligned else head.reassign(), head.num_classes)

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        assert isinstance(module, Classifier)
        if self.pending is not None and isinstance(module.head, PrototypeHead):
            module.head.finish_renewal(self.pending, adopt=False)
            self.pending = None

    def on_exception(self, trainer: L.Trainer, module: L.LightningModule, exception: BaseException) -> None:
        self.pending = None  # nobody waits for it: its thread ends with the process

    @property
    def state_key(self) -> str:
        return "RenewAssignment"

    def state_dict(self) -> dict[str, Any]:
        return {} if self.pending is None else {"unfinished": self.aligned}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.unfinished = state_dict["unfinished"]


def initial_assignment(config: HeadConfig, num_classes: int) -> str:
    """What ``auto`` is: the study in the README saw gains at 200 and 1,000 classes and none at 10."""
    if config.initial_assignment != "auto":
        return config.initial_assignment
    ours = config.name == "prototype" and "official" not in (config.loss, config.means)
    return "aligned" if ours and num_classes >= ALIGNED_FROM else "random"


class InitialAssignment(L.Callback):
    """Before the first step: give each label a prototype near the features that the untrained backbone has for it."""

    def __init__(self, data: DataSplits) -> None:
        self.data = data

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        assert isinstance(module, Classifier)
        head, config = module.head, module.config
        if trainer.global_step > 0 or not isinstance(head, PrototypeHead):
            return
        kind = initial_assignment(config.head, head.num_classes)
        if kind == "random":
            return
        means = untrained_means(trainer, module, self.data)
        turn = kind == "aligned"
        found = head.align(class_means=means, seed=config.seed) if turn else head.reassign(class_means=means)
        log_renewal(trainer, found, head.num_classes, first=True)


@torch.no_grad()
def untrained_means(trainer: L.Trainer, module: Classifier, data: DataSplits) -> Tensor:
    """Mean direction of each class [C, D] over a sample of the training set, not augmented, for the backbone as it is.

    The backbone is seen as the first steps see it, in training mode, through a copy: its batch statistics stay as they
    are. Ranks share the batches, and the sums are added in float64: one process gets the same means.
    """
    config, head = module.config, module.head
    backbone, own = copy.deepcopy(module.backbone).train(), module.backbone
    indices = sample_of_each_class(data.train.labels, config.head.initial_samples, config.seed)
    # Parts of nearly equal size: a last batch of one image would have no batch statistics.
    batches = indices.tensor_split(math.ceil(len(indices) / SAMPLE_BATCH))
    mine = range(trainer.global_rank, len(batches), trainer.world_size)
    loader: DataLoader[Any] = DataLoader(
        data.train,
        batch_sampler=[batches[number].tolist() for number in mine],
        num_workers=config.data.workers,
        collate_fn=collate,
    )
    sums = torch.zeros(len(data.class_names), head.dim, dtype=torch.float64, device=module.device)
    module.backbone = backbone
    try:
        for number, (images, labels) in zip(mine, loader, strict=True):
            torch.manual_seed(hash((config.seed, number)))  # for dropout; every training step begins from its own seed
            z = F.normalize(module(images.to(module.device)).double(), dim=1)
            sums.index_add_(0, labels.to(module.device), z)
    finally:
        module.backbone = own
    total: Tensor = trainer.strategy.reduce(sums, reduce_op="sum")
    return total.float()


def sample_of_each_class(labels: Tensor, count: int, seed: int) -> Tensor:
    """Indices int64 of at most ``count`` samples of each class, in random order."""
    shuffled = torch.randperm(len(labels), generator=torch.Generator(device="cpu").manual_seed(seed))
    by_class = shuffled[labels[shuffled].argsort(stable=True)]
    sizes = torch.bincount(labels)
    rank = torch.arange(len(labels)) - (sizes.cumsum(0) - sizes)[labels[by_class]]
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    chosen[by_class[rank < count]] = True
    return shuffled[chosen[shuffled]]


def log_renewal(
    trainer: L.Trainer, found: Found, num_classes: int, *, first: bool = False, delay: int | None = None
) -> None:
    """A row of metrics. The first assignment replaces a random one: how many labels moved would say nothing."""
    inner = found.assignment if isinstance(found, Alignment) else found
    row = {
        "epoch": trainer.current_epoch,
        "assignment/objective": inner.objective,
        "assignment/gap": inner.gap,
        "assignment/certified": float(inner.certified),
        "assignment/seconds": inner.seconds,
    }
    if not first:
        row["assignment/changed"] = (inner.changed or 0) / num_classes
    if isinstance(found, Alignment):
        row |= {"assignment/seconds": found.seconds, "assignment/turns": found.rounds}
    if delay is not None:
        row["assignment/delay_steps"] = delay
    trainer.logger.log_metrics(row, step=trainer.global_step)  # type: ignore[union-attr]  # the trainer always has one
    if inner.interrupted or (isinstance(found, Alignment) and found.stopped == "interrupted"):
        raise KeyboardInterrupt  # the search has returned its best; the run was meant


# --- class means on disk ---------------------------------------------------------------------------------------------

SAVED = {"class_means": ("float32", 2), "prototypes": ("float32", 2), "assignment": ("int64", 1)}


def save_class_means(folder: Path, step: int, head: PrototypeHead) -> None:
    """``folder/STEP.npz``: class means, prototypes and assignment as a renewal finds them."""
    folder.mkdir(exist_ok=True)
    content = (
        io.BytesIO()
    )  # an archive that finds no room is never closed by NumPy, which Python then reports at its end
    np.savez(content, **{name: getattr(head, name).cpu().numpy() for name in SAVED})
    write_memory(folder / f"{step:08d}.npz", content)


def read_class_means(run: Path) -> dict[str, np.ndarray[Any, Any]]:
    """What a run with ``head.save_class_means`` has saved, renewals stacked in order.

    Returns:
        ``step`` [R] int64, ``class_means`` [R, C, D] and ``prototypes`` [R, C, D] float32, ``assignment`` [R, C] int64:
        the state before each of the R renewals.

    Raises:
        FileNotFoundError: the run has saved none.
        ValueError: a damaged file, or one that holds something else.
    """
    files = sorted(path for path in (run / "class_means").glob("*.npz") if path.stem.isdecimal())
    if not files:
        raise FileNotFoundError(f"{run} holds no class_means/*.npz; expected a run with --head.save_class_means true")
    read = [_read_saved(file) for file in files]
    for file, arrays in zip(files, read, strict=True):
        if arrays["class_means"].shape != read[0]["class_means"].shape:
            raise ValueError(f"{file} and {files[0]} have class means of unequal shapes; expected those of one run")
    stacked = {name: np.stack([arrays[name] for arrays in read]) for name in SAVED}
    return {"step": np.array([int(file.stem) for file in files])} | stacked


def _read_saved(file: Path) -> dict[str, np.ndarray[Any, Any]]:
    try:
        arrays = read_npz(file, tuple(SAVED))
    except ValueError as error:
        raise ValueError(
            f"{file} could not be read as class means ({error}); expected a whole .npz of a run"
        ) from error
    held = {name: (array.dtype.name, array.ndim) for name, array in arrays.items()}
    shapes = {array.shape for name, array in arrays.items() if name != "assignment"}
    if held != SAVED or len(shapes) > 1 or arrays["assignment"].shape != arrays["class_means"].shape[:1]:
        raise ValueError(
            f"{file} holds {', '.join(f'{name} {array.dtype} {list(array.shape)}' for name, array in arrays.items())}; "
            "expected class_means and prototypes float32 [C, D] and assignment int64 [C]"
        )
    return arrays
