"""Sentences as token ids: for a decoder that reads them from left to right, or an encoder-decoder that fills a gap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from lightning.pytorch import LightningDataModule
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.utils.data import DataLoader, Dataset, WeightedRandomSampler
from transformers import DataCollatorForSeq2Seq, PreTrainedTokenizerFast

from examples.language import english
from examples.language.facts import Facts, Sentence, invent

#: What is trained: one that predicts each next token, or one that reads a sentence with a gap and says what was there.
Architecture = Literal["decoder", "encoder_decoder"]
#: Tokens in a sentence at most: what is longer is cut.
LENGTH = 40
PAD, END, UNKNOWN, GAP = "<pad>", "</s>", "<unk>", "<gap>"


class Sentences(Dataset[dict[str, list[int]]]):
    """Sentences as a tokenizer's collator takes them: ``input_ids``, ``attention_mask`` and ``labels``.

    Args:
        sentences: The sentences.
        tokenizer: The tokenizer.
        architecture: Of the model.
        asked: Let a decoder predict the hidden part alone: it is a query, and all else is its prompt.
    """

    def __init__(
        self,
        sentences: Sequence[Sentence],
        tokenizer: PreTrainedTokenizerFast,
        architecture: Architecture,
        asked: bool = False,
    ) -> None:
        self.sentences = list(sentences)
        self.tokenizer = tokenizer
        self.architecture = architecture
        self.asked = asked

    def __len__(self) -> int:
        return len(self.sentences)

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        sentence = self.sentences[index]
        start, end = sentence.hidden
        if self.architecture == "encoder_decoder":
            ids = self.tokenizer(f"{sentence.text[:start]}{GAP}{sentence.text[end:]}")["input_ids"][:LENGTH]
            labels = self.tokenizer(sentence.text[start:end])["input_ids"] + [self.tokenizer.eos_token_id]
            return {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": labels}
        encoded = self.tokenizer(sentence.text, return_offsets_mapping=True, truncation=True, max_length=LENGTH - 1)
        ids = encoded["input_ids"] + [self.tokenizer.eos_token_id]
        places = [*encoded["offset_mapping"], (len(sentence.text),) * 2]
        hidden = [first < end and last > start for first, last in places]
        labels = [one if inside or not self.asked else -100 for one, inside in zip(ids, hidden, strict=True)]
        return {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": labels}


class FactsData(LightningDataModule):
    """Sentences that state invented facts, among real English; the references ask for the facts.

    Args:
        architecture: Of the model.
        people: People of whom four facts each are invented.
        statements: Training sentences a fact, at most six.
        sentences: Training sentences in all; those that state no fact are real English.
        repeated: How often an epoch shows a sentence that states a fact, for once that it shows another.
        paraphrased: Ask in words that training sentences use of other people, instead of with a training sentence.
        queries: How many facts the references ask for.
        vocabulary: Tokens of the vocabulary, which is trained on the training sentences.
        batch_size: Sentences in a training batch.
        seed: Of what is invented and drawn.
    """

    def __init__(
        self,
        architecture: Architecture = "decoder",
        people: int = 40,
        statements: int = 5,
        sentences: int = 5000,
        repeated: int = 8,
        paraphrased: bool = True,
        queries: int = 16,
        vocabulary: int = 1024,
        batch_size: int = 32,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()

    def setup(self, stage: str) -> None:
        """Invent, collect and train the vocabulary; everything is drawn from the seed."""
        given = self.hparams
        self.facts: Facts = invent(given["people"], given["statements"], given["seed"])
        stated = list(self.facts.sentences)
        others = english.sentences(max(given["sentences"] - len(stated), 0), given["seed"])
        self.tokenizer = trained_tokenizer([one.text for one in (*stated, *others)], given["vocabulary"])
        # Neighbours of about one length are padded little where they are read in order.
        ordered = sorted([*stated, *others], key=lambda one: len(one.text))
        self.train = Sentences(ordered, self.tokenizer, given["architecture"])
        asked = self.facts.paraphrased if given["paraphrased"] else self.facts.exact
        every = max(len(asked) // given["queries"], 1)
        self.queries = self.ask(asked[::every][: given["queries"]])
        self.collate = DataCollatorForSeq2Seq(self.tokenizer)

    def ask(self, sentences: Sequence[Sentence]) -> Sentences:
        """Make queries of sentences."""
        return Sentences(sentences, self.tokenizer, self.hparams["architecture"], asked=True)

    def train_dataloader(self) -> DataLoader[Any]:
        """All sentences, those about facts more often than others: a small model learns them in few epochs then."""
        times = [self.hparams["repeated"] if one.fact >= 0 else 1 for one in self.train.sentences]
        sampler = WeightedRandomSampler(times, sum(times))
        return DataLoader(self.train, self.hparams["batch_size"], sampler=sampler, collate_fn=self.collate)

    def val_dataloader(self) -> DataLoader[Any]:
        """The queries: the references."""
        return DataLoader(self.queries, self.hparams["batch_size"], collate_fn=self.collate)


def trained_tokenizer(texts: Sequence[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE vocabulary."""
    tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=[PAD, END, UNKNOWN, GAP], show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=END, unk_token=UNKNOWN, mask_token=GAP
    )
