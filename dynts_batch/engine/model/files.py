"""Where a model's files are, on this machine and now. Reads none of them."""

from dataclasses import dataclass
from importlib.resources import files
from importlib.util import find_spec
from os.path import exists, expanduser
from pathlib import Path
from typing import Any

from transformers.utils import cached_file

from dynts_batch.config import ModelConfig
from dynts_batch.errors import ConfigError

#: transformers reads GGUF files with these.
GGUF_PACKAGES = ("gguf", "accelerate")


@dataclass(frozen=True)
class ModelFiles:
    """Whether predictor and thoughts exist is checked when a policy needs them."""

    path: str
    """A local folder, or a hub id."""
    gguf: Path | None
    """The one file in the folder that holds the whole model, if any."""
    tokenizer: str | None
    """Folder or hub id of a tokenizer other than the model's own."""
    revision: str | None
    """For a hub model: the commit to which its branch or tag points now."""
    trust_remote_code: bool
    predictor: Path
    thoughts: Path

    @property
    def folder(self) -> Path | None:
        """The folder of safetensors and their like; None for a hub model or a single file."""
        path = Path(self.path)
        return path if self.gguf is None and path.is_dir() else None

    @property
    def source(self) -> dict[str, Any]:
        """Arguments of transformers' `from_pretrained`, whatever it loads."""
        file = {} if self.gguf is None else {"gguf_file": self.gguf.name}
        return {
            "pretrained_model_name_or_path": self.path,
            "revision": self.revision,
            "trust_remote_code": self.trust_remote_code,
            **file,
        }


def find_files(config: ModelConfig) -> ModelFiles:
    """Find the files of a model.

    Raises: ConfigError if there is no such model.
    """
    gguf = _gguf(config.name)
    _refuse_missing_folder(config.name)
    path = model_path(config.name) if gguf is None else str(gguf.parent)
    beside = Path(path)
    return ModelFiles(
        path,
        gguf,
        None if config.tokenizer is None else expanduser(config.tokenizer),
        _commit(config, beside) or config.revision,
        config.trust_remote_code,
        predictor=_given(config.predictor) or beside / "predictor.safetensors",
        thoughts=_given(config.thoughts) or beside / "thoughts.safetensors",
    )


def _given(path: str | None) -> Path | None:
    return Path(expanduser(path)) if path else None


def _gguf(name: str) -> Path | None:
    """The file `name`, if it is GGUF.

    Raises: ConfigError if there is no such file, or if its reader is not installed.
    """
    if not name.lower().endswith(".gguf"):
        _refuse_folder_of_gguf(name)
        return None
    path = Path(expanduser(name)).resolve()
    if not path.is_file():
        raise ConfigError(
            f"model.name must be the path of a GGUF file, got {name!r}, which is none"
        )
    if lacking := [package for package in GGUF_PACKAGES if find_spec(package) is None]:
        raise ConfigError(
            f"model.name: {name!r} is read by packages that are not installed,"
            f" {' and '.join(lacking)}: pip install 'dynts-batch[gguf]'"
        )
    return path


def _refuse_folder_of_gguf(name: str) -> None:
    folder = Path(expanduser(name))
    found = sorted(path.name for path in folder.glob("*.gguf")) if folder.is_dir() else []
    if found and not (folder / "config.json").exists():
        raise ConfigError(
            f"model.name must name one GGUF file, got {name!r}, a folder that holds"
            f" {', '.join(found)}"
        )


def _refuse_missing_folder(name: str) -> None:
    """The hub's client takes half a minute to say that a mistyped path is no model of the hub.

    A name is a path by its beginning, or because it has more parts than an id of the hub. A folder
    here may have the name of an organisation there.

    Raises: ConfigError if `name` is a path and nothing is there.
    """
    is_path = name.startswith(("/", "./", "../", "~")) or name.count("/") > 1
    if is_path and not exists(expanduser(name)):
        raise no_such_model(name, "no such folder")


def model_path(name: str) -> str:
    """Where the model's files are: the package's own for "embedded", else what Hugging Face
    understands, which leaves a `~` as it is."""
    if name == "embedded":
        return str(files("dynts_batch.lab") / "reasoner")
    return expanduser(name)


def no_such_model(name: str, reason: object) -> ConfigError:
    """`reason`: an error or a text, of which the first line is told."""
    first_line = str(reason).partition("\n")[0]
    return ConfigError(
        "model.name must be 'embedded', the path of a Hugging Face model or a hub id, got"
        f" {name!r}: {first_line}"
    )


def _commit(config: ModelConfig, folder: Path) -> str | None:
    """The commit of a branch, which moves on. The hub's cache has a folder per commit:
    .../snapshots/COMMIT."""
    if not folder.is_dir():
        try:  # transformers' own lookup: its configurations no longer name their commit
            path = cached_file(config.name, "config.json", revision=config.revision)
        except (OSError, ValueError) as error:
            raise no_such_model(config.name, error) from None
        assert path is not None
        folder = Path(path).parent
    return folder.name if folder.parent.name == "snapshots" else None
