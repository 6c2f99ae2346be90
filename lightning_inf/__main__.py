"""``python -m lightning_inf``: the same as ``lightning-inf``."""

from lightning_inf.cli import main

if __name__ == "__main__":
    main()
