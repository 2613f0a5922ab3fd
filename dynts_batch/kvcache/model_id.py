"""For which model something was made: a hash of the weights, or the commit of a hub model.

Owns the comparison, and what a file's header says about the model. Knows nothing about how weights
are read.
"""

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

logger = logging.getLogger(__name__)

_COMMIT = re.compile("[0-9a-f]{40}")


@dataclass(frozen=True)
class ModelId:
    """`weights_sha256` is known for a model in a folder, `revision` for a hub model.

    `revision` is the commit that the run found.
    """

    name: str
    revision: str | None = None
    weights_sha256: str | None = None

    @classmethod
    def of(cls, name: str, known: Mapping[str, Any]) -> Self:
        """From the model of a fingerprint, or from a file's header."""
        return cls(name, known.get("revision"), known.get("weights_sha256"))

    @property
    def commit(self) -> str | None:
        """None for a branch, which moves on."""
        return self.revision if _COMMIT.fullmatch(self.revision or "") else None

    def is_same(self, other: Self) -> bool:
        """Whether both are the same model, by what is known of both.

        The hash of the weights decides, else the commit, else the last part of the name. By that
        part a hub id and a local copy of it name the same model. A fine-tune may share it too, so a
        warning says that no more was compared.

        The configuration is not compared: its written form changes with transformers' releases.
        """
        for mine, theirs in (
            (self.weights_sha256, other.weights_sha256),
            (self.commit, other.commit),
        ):
            if mine and theirs:
                return mine == theirs
        is_same = _last_part(self.name) == _last_part(other.name)
        if is_same:
            logger.warning(
                "what was made for model %s is taken to fit %s, since their names end alike:"
                " neither weights nor commit are known of both",
                self,
                other,
            )
        return is_same

    def remedy(self, model: Self) -> str:
        """How to use, with `model`, what was made for this one; empty if there is no way.

        There is one if `model` is another commit of the same hub repository. That commit may have
        changed no more than its README.
        """
        if self.name != model.name or not self.commit or model.commit in (None, self.commit):
            return ""
        return f"set model.revision={self.commit}, for which it was made, or make another; "

    def header(self) -> dict[str, str]:
        weights = {"weights_sha256": self.weights_sha256} if self.weights_sha256 else {}
        return {"model": self.name, "revision": self.revision or "main", **weights}

    def __str__(self) -> str:
        weights = f"weights {self.weights_sha256[:12]}" if self.weights_sha256 else None
        known = [part for part in (self.commit, weights) if part]
        return f"{self.name} ({', '.join(known)})" if known else self.name


def _last_part(name: str) -> str:
    return name.rstrip("/").rpartition("/")[2]
