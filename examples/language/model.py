"""Small language models of Hugging Face's, with random weights to begin with."""

from __future__ import annotations

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from transformers import BatchEncoding, GPT2Config, GPT2LMHeadModel, T5Config, T5ForConditionalGeneration

from examples.language.data import LENGTH, Architecture


class LanguageModel(LightningModule):
    """What is usually written round a model of ``transformers``: its own loss, and an optimiser.

    Args:
        architecture: GPT-2 (``decoder``) or T5 (``encoder_decoder``).
        width: Of the hidden states.
        layers: Of the decoder, and of the encoder where there is one.
        vocabulary: Tokens of the vocabulary.
        lr: Learning rate of AdamW.
    """

    def __init__(
        self,
        architecture: Architecture = "decoder",
        width: int = 64,
        layers: int = 2,
        vocabulary: int = 1024,
        lr: float = 3e-3,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.model = _gpt2(width, layers, vocabulary) if architecture == "decoder" else _t5(width, layers, vocabulary)

    def training_step(self, batch: BatchEncoding, batch_idx: int) -> Tensor:
        """The model's own loss: a mean over the tokens of the batch that are not masked."""
        loss: Tensor = self.model(**batch).loss
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: BatchEncoding, batch_idx: int) -> None:
        """Loss of the answers, and how many of them are right, token by token."""
        output = self.model(**batch)
        self.log("val_loss", output.loss, prog_bar=True)
        self.log("val_answers", right(self.model, batch).float().mean(), prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW at one learning rate."""
        return torch.optim.AdamW(self.parameters(), lr=self.hparams["lr"], weight_decay=0.01)


@torch.no_grad()
def right(model: nn.Module, batch: BatchEncoding) -> Tensor:
    """Tell for which of B sequences every token that counts is the most probable one, shape ``(B,)``."""
    logits, labels = model(**batch).logits, batch["labels"]
    if not model.config.is_encoder_decoder:  # type: ignore[union-attr]
        logits, labels = logits[:, :-1], labels[:, 1:]
    return ((logits.argmax(dim=2) == labels) | (labels == -100)).all(dim=1)


def _gpt2(width: int, layers: int, vocabulary: int) -> nn.Module:
    config = GPT2Config(
        vocab_size=vocabulary,
        n_positions=LENGTH,
        n_embd=width,
        n_layer=layers,
        n_head=4,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=1,
        eos_token_id=1,
    )
    return GPT2LMHeadModel(config)


def _t5(width: int, layers: int, vocabulary: int) -> nn.Module:
    config = T5Config(
        vocab_size=vocabulary,
        d_model=width,
        d_kv=width // 4,
        d_ff=4 * width,
        num_layers=layers,
        num_heads=4,
        dropout_rate=0.0,
        pad_token_id=0,
        eos_token_id=1,
    )
    config.decoder_start_token_id = 0
    return T5ForConditionalGeneration(config)
