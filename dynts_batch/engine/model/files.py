"""Where a model's files are, here and now. Reads none of them."""

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from transformers.utils import cached_file

from dynts_batch.config import ModelConfig
from dynts_batch.errors import ConfigError


@dataclass(frozen=True)
class ModelFiles:
    """Whether predictor and thoughts are there is seen when a policy needs them."""

    path: str
    """A local folder, or a hub id."""
    revision: str | None
    """Of a model on the hub, the commit that its branch or tag stands for now."""
    trust_remote_code: bool
    predictor: Path
    thoughts: Path

    @property
    def folder(self) -> Path | None:
        """None for a model on the hub."""
        path = Path(self.path)
        return path if path.is_dir() else None

    @property
    def source(self) -> dict[str, Any]:
        """What transformers' `from_pretrained` is told, whatever it is to load."""
        return {
            "pretrained_model_name_or_path": self.path,
            "revision": self.revision,
            "trust_remote_code": self.trust_remote_code,
        }


def find_files(config: ModelConfig) -> ModelFiles:
    """Raises: ConfigError where there is no such model."""
    path = model_path(config.name)
    beside = Path(path)
    return ModelFiles(
        path,
        _commit(config, beside) or config.revision,
        config.trust_remote_code,
        predictor=Path(config.predictor or beside / "predictor.safetensors"),
        thoughts=Path(config.thoughts or beside / "thoughts.safetensors"),
    )


def model_path(name: str) -> str:
    """Where the model's files are: the package's own for "embedded", else what Hugging Face understands."""
    return str(files("dynts_batch.lab") / "reasoner") if name == "embedded" else name


def no_such_model(name: str, error: Exception) -> ConfigError:
    reason = str(error).partition("\n")[0]
    return ConfigError(
        f"model.name must be 'embedded', the path of a Hugging Face model or a hub id, got {name!r}: {reason}"
    )


def _commit(config: ModelConfig, folder: Path) -> str | None:
    """A branch moves on. The hub's cache has a folder for each commit: .../snapshots/COMMIT."""
    if not folder.is_dir():
        try:  # transformers' own lookup; its configurations no longer say which commit they are of
            path = cached_file(config.name, "config.json", revision=config.revision)
        except (OSError, ValueError) as error:
            raise no_such_model(config.name, error) from None
        assert path is not None
        folder = Path(path).parent
    return folder.name if folder.parent.name == "snapshots" else None
