"""The hooks that a LightningModule may override, and the entry it leaves in every checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.optim import Optimizer

from lightning_inf.learning_rates import LearningRates

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule as _Base
else:
    _Base = object  # no __init__ and no base of its own, so that it mixes with any LightningModule

#: Key of our entry in a Lightning checkpoint.
ENTRY = "influence"


class InfluenceMixin(_Base):
    """Put before ``LightningModule`` to say how a sample's loss is computed, and to sign every checkpoint.

    All of it is optional: :class:`~lightning_inf.InfluenceCallback` works for modules that never heard of this class.
    With it, every checkpoint that anything saves carries ``checkpoint["influence"]``: the learning rate of each
    parameter that was in force at the last step, which TracIn needs.

    More hooks are looked for on the module and on the datamodule, and are not defined here so that their absence can be
    seen: ``influence_dataloader()`` returns the training data without random augmentation, ``reference_dataloader()`` the
    held-out samples whose predictions are traced, ``influence_id(index)`` a name for a training sample, and
    ``influence_group(index)`` what it belongs to, such as its source or its labeller.
    ``influence_example(index)`` returns what the report shows of a training sample, and ``reference_example(index)`` what
    it shows of a reference: a PIL image, a tensor or array of pixels (``(H, W)``, ``(C, H, W)`` or ``(H, W, C)``, uint8 or
    0 to 1), a text, a feature vector, or a mapping of names to values. Without them the report shows the dataset's items.

    Example:
        >>> import torch
        >>> from lightning.pytorch import LightningModule
        >>> class Net(InfluenceMixin, LightningModule):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.layer = torch.nn.Linear(4, 3)
        ...     def influence_step(self, batch, batch_idx):
        ...         x, y = batch
        ...         logits = self.layer(x)
        ...         loss = torch.nn.functional.cross_entropy(logits, y, reduction="none")
        ...         return {"loss": loss, "logits": logits, "target": y}
        >>> out = Net().influence_step((torch.zeros(2, 4), torch.tensor([0, 2])), 0)
        >>> out["loss"].shape
        torch.Size([2])
    """

    def influence_step(self, batch: Any, batch_idx: int) -> Tensor | Mapping[str, Tensor]:
        """Compute the loss of each sample. Override it where ``training_step`` can't be taken apart.

        Args:
            batch: What the dataloader yields, on the device, of B samples.
            batch_idx: The number of the draw, where the step is random and its loss is averaged over several
                (``InfluenceCallback(draws=...)``), for strides of one's own; else 0.

        Returns:
            The losses, shape ``(B,)``, or a mapping with ``loss`` of shape ``(B,)`` and, for classifiers,
            ``logits`` of shape ``(B, C)`` and ``target`` of shape ``(B,)`` with class indices, which enable
            margins, suggested labels and per-class tables.
        """
        raise NotImplementedError(
            "`influence_step` is optional; override it to say how each sample's loss is computed."
        )

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Note the learning rate in force. An override must call ``super()``."""
        self.__dict__.setdefault("_influence_rates", LearningRates()).observe(optimizer)
        _call_next(super(), "on_before_optimizer_step", optimizer)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put ``checkpoint["influence"]`` in. An override must call ``super()``."""
        _call_next(super(), "on_save_checkpoint", checkpoint)
        rates = self.__dict__.get("_influence_rates")
        if rates is not None and ENTRY not in checkpoint:
            checkpoint[ENTRY] = {
                "step": int(checkpoint.get("global_step", 0)),
                "epoch": int(checkpoint.get("epoch", 0)),
                "learning_rate": rates.by_name(self),
            }


def _call_next(parent: Any, hook: str, *args: Any) -> None:
    """Call the next class's hook where there is one, so that the mixin also stands alone."""
    if (method := getattr(parent, hook, None)) is not None:
        method(*args)
