"""Texts of token ids, whole and in pieces."""

from __future__ import annotations

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import BatchEncoding, PreTrainedTokenizerFast

from lightning_inf.data.texts import ARROW, cut, pieces, text_of, tokenizer_of
from lightning_inf.model.tokens import Tokens

TEXTS = ["Zorvia Kelm was born in Taldor.", "Ein Würfel, zwei Würfel – naïve 数 ☂"]


def trained() -> Tokenizer:
    """A byte-level vocabulary, in which a character may be several tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<pad>", "<eos>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS[:1] * 3, trainer)
    return tokenizer


def test_pieces_add_up_to_the_text():
    raw = trained()
    for tokenizer in (raw, PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>", eos_token="<eos>")):
        for text in TEXTS:
            ids = raw.encode(text).ids
            found = cut(tokenizer, ids)
            assert (len(found), "".join(found)) == (len(ids), text)
            assert not any("\ufffd" in piece for piece in found)


def test_items_are_read_without_padding_and_with_what_is_to_be_said():
    raw = trained()
    ids, answer = raw.encode(TEXTS[0]).ids, raw.encode(" Taldor").ids
    padded = {"input_ids": torch.tensor([*ids, 0, 0]), "attention_mask": torch.tensor([1] * len(ids) + [0, 0])}
    assert text_of(BatchEncoding(padded), raw) == TEXTS[0]
    assert text_of({**padded, "labels": torch.tensor([-100, *ids[1:], -100, -100])}, raw) == TEXTS[0]
    assert text_of({"input_ids": ids, "labels": [*answer, -100]}, raw) == TEXTS[0] + ARROW + " Taldor"
    assert text_of({"pixel_values": torch.zeros(3)}, raw) is None
    assert text_of((torch.zeros(3), 1), raw) is None


def test_what_a_decoder_says_stands_behind_what_the_encoder_reads():
    raw = trained()
    ids, answer = tuple(raw.encode("Zorvia").ids), tuple(raw.encode("Taldor.").ids)
    tokens = Tokens((*ids, 0), (*(True for _ in ids), False), (*answer, -100), (*(True for _ in answer), False), None)
    found = pieces(raw, tokens, np.arange(len(answer) + 1.0))
    assert "".join(text for text, _ in found) == "Zorvia" + ARROW + "Taldor."
    assert [value for _, value in found if np.isfinite(value)] == list(range(len(answer)))
    assert all(np.isnan(value) for _, value in found[: len(ids) + 1])


def test_a_tokenizer_is_found_on_whoever_has_one():
    class Owner:
        def __init__(self, tokenizer):
            self.tokenizer = tokenizer

    raw = trained()
    assert tokenizer_of([None, Owner("no tokenizer"), Owner(raw)]) is raw
    assert tokenizer_of([object()]) is None
