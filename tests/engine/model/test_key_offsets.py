"""What the keys of a head have in common is measured on any model that has such a thing,
and taken out where a softmax over the stored tokens alone follows."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CONFIG_MAPPING

from dynts_batch.benchmarks.architectures.tiny import save_tiny
from dynts_batch.config import MemoryConfig, ModelConfig, PolicyConfig, SamplingConfig
from dynts_batch.engine import Engine
from dynts_batch.engine.attention.steps import DecodeStep, PrefillStep
from dynts_batch.engine.model.calibration.key_offsets import measure_key_offsets
from dynts_batch.engine.model.calibration.text_pass import TextStep, read_text
from dynts_batch.engine.model.loader import LoadedModel, load_model
from dynts_batch.engine.model.resolved import resolve_model
from dynts_batch.kvcache.arena import KVArena
from dynts_batch.kvcache.arena_shape import ArenaShape
from dynts_batch.kvcache.stores.formats import KV_FORMATS

NUM_POSITIONS = 64


def loaded(folder: Path) -> LoadedModel:
    return load_model(resolve_model(ModelConfig(name=str(folder))))


def keys_at(model: LoadedModel, position: int) -> dict[int, torch.Tensor]:
    """Of a lone token, by layer, [H, D]."""
    step, place = TextStep(), torch.tensor([[position]])
    model.decoder(input_ids=torch.tensor([[11]]), position_ids=place, use_cache=False, kv_step=step)
    return {layer: seen.keys[:, 0] for layer, seen in step.found.items()}


@pytest.mark.parametrize("model_type", ["qwen2", "phi", "smollm3"])
def test_of_one_key_it_is_the_mean_over_all_positions(
    model_type: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RoPE turns half of a head of phi, and none in the last layer of smollm3."""
    save_tiny(CONFIG_MAPPING[model_type], tmp_path)
    model = loaded(tmp_path)
    monkeypatch.setattr(type(model.tokenizer), "encode", lambda *_, **__: [11])
    offsets = measure_key_offsets(read_text(model), NUM_POSITIONS)
    found = [keys_at(model, position) for position in range(NUM_POSITIONS)]
    assert len(offsets) == model.config.num_hidden_layers
    for layer, offset in enumerate(offsets):
        assert offset is not None
        expected = torch.stack([keys[layer] for keys in found]).mean(0)
        torch.testing.assert_close(offset, expected, atol=1e-4, rtol=1e-3)


def test_the_text_is_as_long_as_the_positions_that_a_model_has_learned(tmp_path: Path) -> None:
    save_tiny(CONFIG_MAPPING["gpt2"], tmp_path)
    model = loaded(tmp_path)
    assert read_text(model).layers[0].keys.shape[1] == model.num_positions


def test_a_layer_with_sinks_has_none(tiny_model_dirs: dict[str, Path]) -> None:
    """A sink is a logit of its own: it would weigh more or less beside shifted ones."""
    model = loaded(tiny_model_dirs["gpt_oss"])
    offsets = measure_key_offsets(read_text(model), NUM_POSITIONS)
    assert offsets == [None] * model.config.num_hidden_layers


def test_a_model_that_turns_otherwise_has_none(
    tiny_model_dirs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = loaded(tiny_model_dirs["llama"])
    buffers = [(name, buffer * 1.5) for name, buffer in model.decoder.named_buffers()]
    monkeypatch.setattr(model.decoder, "named_buffers", lambda: buffers)
    offsets = measure_key_offsets(read_text(model), NUM_POSITIONS)
    assert offsets == [None] * model.config.num_hidden_layers


@pytest.mark.parametrize(("quantize", "has_some"), [(False, False), ("int4", False), ("fp8", True)])
def test_an_engine_takes_them_out_for_formats_without_a_zero_point(
    quantize: bool | str, has_some: bool, tiny_model_dirs: dict[str, Path]
) -> None:
    engine = Engine.load(
        ModelConfig(name=str(tiny_model_dirs["qwen2"])),
        PolicyConfig(name="full", quantize=quantize),
        SamplingConfig(max_new_tokens=40),
        MemoryConfig(max_seqs=1, max_prompt_tokens=24),
    )
    assert all((offset is not None) == has_some for offset in engine.arena.key_offsets)


@pytest.fixture
def biased_model(tiny_model_dirs: dict[str, Path], tmp_path: Path) -> LoadedModel:
    """Its keys are mostly their projection's bias, as in Qwen2.5."""
    for file in tiny_model_dirs["qwen2"].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    torch.manual_seed(0)
    for name, weight in weights.items():
        if name.endswith("k_proj.bias"):
            # In the slow pairs, the last of each half, which stay where they are for long.
            slow = torch.arange(16) % 8 >= 5
            weight += 40 * torch.randn(weight.shape) * slow.repeat(2)
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    return loaded(tmp_path)


def last_states(
    model: LoadedModel, token_ids: list[int], name: str | None, has_offsets: bool
) -> torch.Tensor:
    """Hidden states of the last tokens, [T, E], which are decoded one at a time."""
    config, prompt = model.config, 33
    stored_in = None if name is None else KV_FORMATS[name]
    shape = ArenaShape(config.num_hidden_layers, 2, 16, torch.float32, stored_in=stored_in)
    offsets = measure_key_offsets(read_text(model), len(token_ids)) if has_offsets else ()
    arena = KVArena(shape, 1, len(token_ids), torch.device("cpu"), offsets)
    lanes, places = torch.zeros(1, dtype=torch.long), torch.arange(len(token_ids))[None]
    arena.write_column("positions", lanes, places, places)
    steps = {(0, prompt): PrefillStep(arena, lanes, lanes + prompt)} | {
        (slot, slot + 1): DecodeStep(arena, *[lanes + slot] * 2, max_len=slot + 1, is_ragged=False)
        for slot in range(prompt, len(token_ids))
    }
    states = [
        model.decoder(
            input_ids=torch.tensor([token_ids[start:stop]]),
            position_ids=places[:, start:stop],
            use_cache=False,
            kv_step=step,
        ).last_hidden_state[0]
        for (start, stop), step in steps.items()
    ]
    return torch.cat(states[1:])


@pytest.mark.parametrize("name", ["nvfp4", "fp8"])
@torch.inference_mode()
def test_they_halve_what_quantising_costs_a_model_with_large_biases(
    name: str, biased_model: LoadedModel
) -> None:
    token_ids = torch.randint(7, 700, (80,), generator=torch.Generator().manual_seed(3)).tolist()
    exact = last_states(biased_model, token_ids, None, has_offsets=False)
    with_them, without = (
        (last_states(biased_model, token_ids, name, has_offsets=has_offsets) - exact).norm()
        for has_offsets in (True, False)
    )
    assert with_them < without / 2
