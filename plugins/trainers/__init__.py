"""Trainers, which fill a row with a trained model: the host's own loop, TRL, and any program."""

from harness import Trainer, hookimpl
from harness_plugins.trainers.command import Command
from harness_plugins.trainers.grouped import Grouped
from harness_plugins.trainers.trl import Trl


@hookimpl
def harness_trainers() -> list[type[Trainer]]:
    return [Command, Grouped, Trl]
