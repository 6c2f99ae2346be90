"""Runnable examples: a module and a datamodule each, used by the configs."""
