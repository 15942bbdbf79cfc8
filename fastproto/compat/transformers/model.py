"""A backbone and a head as a model that returns a loss and logits, as ``transformers.Trainer`` expects."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from fastproto.head import PrototypeHead, exclude_from_broadcast

FIELDS = ("logits", "pooler_output")  # of a backbone's output, the first that is there


class PrototypeClassifier(nn.Module):
    """``forward(labels=None, **inputs)`` returns ``{"loss": ..., "logits": ...}``; it needs no other package.

    ``logits`` are cosines [B, C]; in training with labels they are left out, since they cost B×C.

    Args:
        backbone: is called with ``inputs``; returns features [B, D], or an output of transformers whose ``logits`` (of
            a model with ``num_labels=D``) or ``pooler_output`` they are.
        head: of width D; saved with the model.
    """

    accepts_loss_kwargs = False  # Trainer divides the loss by the number of accumulated batches itself

    def __init__(self, backbone: nn.Module, head: PrototypeHead) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head
        exclude_from_broadcast(self)

    def forward(self, labels: Tensor | None = None, **inputs: Any) -> dict[str, Tensor]:
        """Loss and logits of a batch; ``labels`` int64 [B].

        Raises:
            TypeError: no inputs, as of a ``Trainer`` that has removed their columns.
        """
        if not inputs:
            raise TypeError(
                "there are no inputs beside the labels; expected those of the backbone: columns whose names are not in "
                "the signature are kept with TrainingArguments(remove_unused_columns=False)"
            )
        features = features_of(self.backbone(**inputs))
        found = {} if labels is None else {"loss": self.head(features, labels)}
        if labels is None or not self.training:
            found["logits"] = self.head.logits(features)
        return found


def features_of(output: Any) -> Tensor:
    """The features in what a backbone returns.

    Raises:
        TypeError: neither a tensor nor an output with one of :data:`FIELDS`.
    """
    if isinstance(output, Tensor):
        return output
    for name in FIELDS:
        found = getattr(output, name, None)
        if isinstance(found, Tensor):
            return found
    raise TypeError(
        f"the backbone returned {type(output).__name__}; expected a tensor [B, D] or an output with "
        f"{' or '.join(FIELDS)}: wrap it in a module that returns the features"
    )
