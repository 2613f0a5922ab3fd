"""Quantised checkpoints: some are read as plain weights, some need a library, some cannot
be read."""

from typing import Any

import transformers
from transformers import Mxfp4Config, PretrainedConfig
from transformers.quantizers import AutoHfQuantizer
from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING

from dynts_batch.engine.model.checkpoint.skeleton import in_words
from dynts_batch.errors import ConfigError

#: Read as plain weights in model.dtype: OpenAI's gpt-oss is published in it.
_DEQUANTIZED = {"mxfp4": Mxfp4Config}


def check_quantization(name: str, config: PretrainedConfig, weights: str | None) -> None:
    """Check that something installed reads this kind of quantised checkpoint, and that it can
    become `model.weights`.

    Raises: ConfigError if not.
    """
    method = quant_method(config)
    if method is None or method in _DEQUANTIZED:
        return
    if weights is not None:
        raise ConfigError(
            "model.weights must be null for a checkpoint that is quantised already, got"
            f" {weights} for {name!r}, whose config.json has quant_method {method!r}"
        )
    if method not in AUTO_QUANTIZER_MAPPING and method != "bitsandbytes":
        raise ConfigError(
            f"model.name must be quantised in a way that transformers knows, got {name!r} with"
            f" quant_method {method!r}. Choices: {', '.join(sorted(AUTO_QUANTIZER_MAPPING))}"
        )
    try:
        settings = config.quantization_config
        AutoHfQuantizer.from_config(settings, pre_quantized=True).validate_environment(
            device_map=None, weights_only=True
        )
    except ImportError as error:
        raise ConfigError(
            f"model.name: {name!r} is quantised with {method}, and what reads it is not installed:"
            f" {in_words(error)}"
        ) from None
    # A GPU that is missing here may exist at the workers.
    except (RuntimeError, ValueError):
        return


def quant_method(config: PretrainedConfig) -> str | None:
    """How the checkpoint is quantised, or None."""
    settings: Any = getattr(config, "quantization_config", None)
    if settings is None:
        return None
    method = settings.get("quant_method") if isinstance(settings, dict) else settings.quant_method
    if method is None and isinstance(settings, dict):
        is_bitsandbytes = any(key.startswith(("load_in_", "_load_in_")) for key in settings)
        method = "bitsandbytes" if is_bitsandbytes else "unknown"
    return str(getattr(method, "value", method))


def loading_options(config: PretrainedConfig, *, is_gguf: bool) -> dict[str, Any]:
    """Arguments of `from_pretrained` beside the files: all weights become plain numbers in
    model.dtype."""
    if is_gguf:
        # Recent releases leave the weights packed if they find a kernel for that; older ones never
        # do.
        made_by = getattr(transformers, "GgufConfig", None)
        return {} if made_by is None else {"quantization_config": made_by(dequantize=True)}
    dequantized = _DEQUANTIZED.get(quant_method(config) or "")
    return {} if dequantized is None else {"quantization_config": dequantized(dequantize=True)}
