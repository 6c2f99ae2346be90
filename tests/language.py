"""Small language models of Hugging Face's with random weights, and sequences of all lengths. Nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset
from transformers import (
    BatchEncoding,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

WORDS, WIDTH = 40, 16


def gpt2() -> nn.Module:
    """Learnt positions, embeddings tied to the head, weights the other way round (Conv1D)."""
    special = {"bos_token_id": 0, "eos_token_id": 0, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    return GPT2LMHeadModel(GPT2Config(vocab_size=WORDS, n_positions=32, n_embd=WIDTH, n_layer=2, n_head=2, **special))


def llama() -> nn.Module:
    """Rotary positions, gated layers, RMSNorm."""
    shape = {"hidden_size": WIDTH, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=WORDS, max_position_embeddings=32, pad_token_id=0, **shape))


def t5() -> nn.Module:
    """Encoder and decoder, relative positions, one embedding for both and the head."""
    shape = {"d_model": WIDTH, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2, "dropout_rate": 0.0}
    return T5ForConditionalGeneration(T5Config(vocab_size=WORDS, decoder_start_token_id=0, pad_token_id=0, **shape))


MODELS: dict[str, Callable[[], nn.Module]] = {"gpt2": gpt2, "llama": llama, "t5": t5}


class Language(LightningModule):
    """What a user writes round a model of Hugging Face's."""

    def __init__(self, model: nn.Module, lr: float = 0.01) -> None:
        super().__init__()
        self.model = model
        self.lr = lr

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss: Tensor = self.model(**batch).loss
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", self.model(**batch).loss)

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=self.lr)


class Sentences(Dataset[dict[str, list[int]]]):
    """Token ids of 3 to 11 words; the first few of a sentence may be a prompt, whose labels are masked."""

    def __init__(self, samples: int = 40, seed: int = 0, prompt: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        lengths = torch.randint(3, 12, (samples,), generator=generator).tolist()
        self.ids = [torch.randint(1, WORDS, (length,), generator=generator).tolist() for length in lengths]
        self.prompt = prompt

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        ids = self.ids[index]
        kept = max(len(ids) - 1 - index % (self.prompt + 1), 1)
        return {"input_ids": ids, "labels": [-100] * (len(ids) - kept) + ids[-kept:]}


def collate(items: Sequence[dict[str, list[int]]], unlabelled: int = -100, masked: bool = True) -> Any:
    """Pad to the longest, as a tokenizer's collator does."""

    def padded(name: str, value: int) -> Tensor:
        return pad_sequence([torch.tensor(item[name]) for item in items], batch_first=True, padding_value=value)

    batch = {"input_ids": padded("input_ids", 0), "labels": padded("labels", unlabelled)}
    if masked:
        rows = [{"mask": [1] * len(item["input_ids"])} for item in items]
        batch["attention_mask"] = pad_sequence([torch.tensor(row["mask"]) for row in rows], batch_first=True)
    return BatchEncoding(batch)


def loader(sentences: Sentences, shuffle: bool = False) -> DataLoader[Any]:
    return DataLoader(sentences, batch_size=8, shuffle=shuffle, collate_fn=collate)
