"""A small UNet of diffusers, trained to tell the noise in a picture: a step as one would write it anyway."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, UNet2DModel
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from examples.diffusion.data import SIDE, DiffusionData, Pictures


class Diffusion(LightningModule):
    """A DDPM (Ho et al., NeurIPS 2020) of small grey pictures.

    Args:
        pretrained: A checkpoint of pretraining, or None for a model that knows nothing. Where there is no such file, the
            model is pretrained on the clothes and the file is written, once.
        epochs: Of that pretraining.
        lr: Learning rate of Adam.
        generated: How many pictures the model draws to be traced back.
    """

    def __init__(self, pretrained: str | None = None, epochs: int = 20, lr: float = 1e-3, generated: int = 1) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.lr = lr
        self.unet = UNet2DModel(
            sample_size=SIDE,
            in_channels=1,
            out_channels=1,
            layers_per_block=1,
            block_out_channels=(8, 16),
            down_block_types=("DownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "UpBlock2D"),
            norm_num_groups=4,
            add_attention=False,
        )
        self.scheduler = DDPMScheduler(num_train_timesteps=1000)

    def setup(self, stage: str) -> None:
        """Begin where pretraining ended."""
        pretrained = self.hparams["pretrained"]
        if pretrained is None:
            return
        if not Path(pretrained).is_file():
            data = self.trainer.datamodule  # type: ignore[attr-defined]
            pretrain(pretrained, DiffusionData(data.root, pretraining=data.pretraining), self.hparams["epochs"])
        self.load_state_dict(torch.load(pretrained, weights_only=True)["state_dict"])

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """The noise that was added, against the noise that is told."""
        noise = torch.randn_like(batch)
        steps = self.scheduler.config["num_train_timesteps"]
        timesteps = torch.randint(0, steps, (len(batch),), device=batch.device)
        told = self.unet(self.scheduler.add_noise(batch, noise, timesteps), timesteps).sample
        loss = F.mse_loss(told, noise)
        self.log("train_loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.parameters(), lr=self.lr)

    @torch.no_grad()
    def draw(self, count: int, seed: int = 0, steps: int = 100) -> Tensor:
        """Draw pictures from noise, shape ``(count, 1, 16, 16)``."""
        generator = torch.Generator().manual_seed(seed)
        pictures = torch.randn(count, 1, SIDE, SIDE, generator=generator).to(self.device)
        self.scheduler.set_timesteps(steps)
        for step in self.scheduler.timesteps:
            told = self.unet(pictures, step).sample
            pictures = self.scheduler.step(told, step, pictures, generator=generator).prev_sample
        return pictures.clamp(-1, 1)

    def reference_dataloader(self) -> DataLoader[Tensor]:
        """The hook that names what is traced: pictures that the model draws, as it is now."""
        count = self.hparams["generated"]
        return DataLoader(Pictures(self.draw(count).cpu(), ["generated"] * count), count)


def pretrain(path: str, data: DiffusionData, epochs: int) -> None:
    """Train on clothes and save a checkpoint of Lightning's."""
    trainer = Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False, enable_model_summary=False
    )
    trainer.fit(Diffusion(lr=2e-3), datamodule=data)
    trainer.save_checkpoint(path)


def quiet(**arguments: object) -> Trainer:
    """A Trainer that says nothing."""
    return Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **arguments,  # type: ignore[arg-type]
    )


def fine_tuned(data: DiffusionData, pretrained: Path, kept: Path) -> Diffusion:
    """Go on from pretraining with the exemplars, and keep a checkpoint; where there is one, it is taken."""
    if kept.is_file():
        data.setup("fit")
        return Diffusion.load_from_checkpoint(kept, map_location="cpu", pretrained=None, weights_only=True)
    model = Diffusion(str(pretrained))
    trainer = quiet(max_epochs=1)
    trainer.fit(model, datamodule=data)
    trainer.save_checkpoint(kept)
    return model
