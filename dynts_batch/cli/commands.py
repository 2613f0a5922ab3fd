"""The subcommands of `dynts-batch`: name, purpose and module of each. Imports none of them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """One subcommand.

    Its module has `main(arguments)`, which returns the exit status and may raise a DyntsError.
    """

    name: str
    module: str
    """Relative to `dynts_batch.cli`."""
    summary: str
    resumes: bool = False
    """Whether the same command resumes one that broke off."""


#: In the order of the help, by what a user is about to do.
GROUPS = {
    "a run": (
        Command("config", "config", "print a configuration that comes with the package"),
        Command("plan", "runs.plan", "what a run will take, from a sample of its rows"),
        Command("run", "runs.run", "answer a data set, or go on with it", resumes=True),
        Command("status", "runs.status", "how far a run is"),
        Command("frontier", "runs.frontier", "accuracy against memory", resumes=True),
        Command("tune", "runs.tune", "the cheapest budget as good as the full cache", resumes=True),
    ),
    "its results": (
        Command("report", "results.report", "what each right answer cost"),
        Command("grade", "results.grade", "judge the answers again", resumes=True),
        Command("export", "results.export", "write the rows in another format"),
    ),
    "what a model needs": (
        Command("label", "training.label", "label a run's traces", resumes=True),
        Command("train-predictor", "training.train_predictor", "train a predictor on labels"),
        Command(
            "calibrate-thoughts",
            "training.calibrate_thoughts",
            "tell a model's thoughts apart, for thinkv",
        ),
    ),
    "the embedded model, and speed": (
        Command("make-problems", "lab.make_problems", "write a set of its problems"),
        Command("train-reasoner", "lab.train_reasoner", "train it again", resumes=True),
        Command("bench", "bench", "compare the engine's speed with its peers"),
    ),
}

COMMANDS = {command.name: command for group in GROUPS.values() for command in group}
