"""Trains the embedded reasoning model from a seed, with progress, checkpoints and resume.

Every batch is fresh, so the accuracy on training batches is held-out accuracy. It moves the
curriculum on. Owns the training loop; the data come from `curriculum.py`.
"""

import json
import logging
import math
import time
from collections import deque
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from dynts_batch.lab.curriculum import STAGES, Batch, BatchSampler, Stage
from dynts_batch.lab.tokenizer import build_tokenizer

logger = logging.getLogger(__name__)

#: Steps over which a stage's accuracy is measured.
ACCURACY_WINDOW = 100


@dataclass(frozen=True)
class TrainingConfig:
    """Training settings; the defaults make the shipped model."""

    seed: int = 0
    tokens_per_batch: int = 4096
    learning_rate: float = 3e-3
    warmup_steps: int = 100
    checkpoint_s: float = 120.0
    log_every: int = 50


@dataclass
class TrainingProgress:
    """How far a training is: what a checkpoint holds besides the weights."""

    stage: int = 0
    step: int = 0
    stage_tokens: int = 0
    total_tokens: int = 0
    cpu_s: float = 0.0


def build_model(tokenizer: PreTrainedTokenizerBase) -> LlamaForCausalLM:
    """The untrained model: 0.9 M parameters and grouped-query attention.

    Queries, keys and values have biases, as in Qwen2. It is a Llama because transformers gives
    every "qwen2" model its own tokenizer class. That class splits numbers into digits, whatever
    tokenizer.json says.
    """
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        attention_bias=True,
        tie_word_embeddings=True,
        initializer_range=0.05,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    model = LlamaForCausalLM(config)
    for layer in model.model.layers:
        layer.self_attn.o_proj.bias.requires_grad_(False)  # stays zero
    mimic_lookups(model)
    return model


@torch.no_grad()
def mimic_lookups(model: LlamaForCausalLM) -> None:
    """Start the first three layers near the circuits that look-ups need.

    This is mimetic initialisation (arXiv 2305.09828).

    To recall `k 12` after a later `k`, heads must write each token's predecessors beside it. A head
    of the next layer must match the current token against them (induction heads, arXiv 2209.11895).
    To copy the definition `m = k + 5`, the token before the current one must match the one two
    before, and so on. Left to chance, these pairs take most of a small training to form.
    """
    layers = [layer.self_attn for layer in model.model.layers]
    head_dim, hidden_size = layers[0].head_dim, model.config.hidden_size
    num_heads = model.config.num_attention_heads
    group = num_heads // model.config.num_key_value_heads
    for layer in model.model.layers:
        layer.self_attn.o_proj.weight *= 0.1  # or it would drown a token's own embedding
        layer.mlp.down_proj.weight *= 0.1
    # The slow half of the RoPE frequencies hardly turns over a trace: it matches at any distance.
    slow = [torch.arange(head_dim // 4, head_dim // 2) + half for half in (0, head_dim // 2)]
    dims = torch.cat(slow)
    width = len(dims)
    read = torch.linalg.qr(torch.randn(hidden_size, width)).Q.T
    written = torch.linalg.qr(torch.randn(hidden_size, num_heads * width)).Q.split(width, dim=1)
    _look_back(layers[0], model.model.rotary_emb.inv_freq)
    for head in range(num_heads):  # head i writes the token i + 1 before
        layers[0].v_proj.weight[head // group * head_dim + dims] = read
        layers[0].o_proj.weight[:, head * head_dim + dims] = 0.1 * written[head]
    # (layer, key/value head, what its first query head looks for, what its keys show)
    for layer, kv_head, wanted, shown in (
        (1, 0, 2.5 * read, written[0]),
        (1, 1, written[0].T, written[1]),
        (2, 0, written[1].T, written[2]),
        (2, 1, written[2].T, written[3]),
    ):
        layers[layer].q_proj.weight[kv_head * group * head_dim + dims] = wanted
        layers[layer].k_proj.weight[kv_head * head_dim + dims] = shown.T


def _look_back(attention: Any, frequencies: torch.Tensor, strength: float = 5.0) -> None:
    """Make head i attend i + 1 tokens back, by its projection biases.

    With RoPE frequencies f, constant queries and keys at relative angle -d * f score highest at
    distance d.
    """
    head_dim = attention.head_dim
    for projection in (attention.q_proj, attention.k_proj):
        projection.weight *= 0.1  # so that the biases decide
    pairs = torch.arange(head_dim // 4)  # the fast half tells neighbours apart
    queries = attention.q_proj.bias.view(-1, head_dim)
    attention.k_proj.bias.view(-1, head_dim)[:, pairs] = strength
    for head in range(len(queries)):
        angles = (head + 1) * frequencies[pairs]
        queries[head, pairs] = strength * angles.cos()
        queries[head, pairs + head_dim // 2] = -strength * angles.sin()


class Trainer:
    """One training in `out_dir`: `checkpoint/` while it runs, then the finished model beside it.

    Running it again on the same folder resumes.
    """

    def __init__(self, out_dir: Path, config: TrainingConfig, device: str = "cpu") -> None:
        self._out_dir = out_dir
        self._config = config
        self._device = torch.device(device)
        self._tokenizer: PreTrainedTokenizerBase = build_tokenizer()
        self._sampler = BatchSampler(self._tokenizer, config.seed, config.tokens_per_batch)
        torch.manual_seed(config.seed)
        self.model = build_model(self._tokenizer).to(self._device)
        self._optimizer = torch.optim.AdamW(
            [parameter for parameter in self.model.parameters() if parameter.requires_grad],
            lr=config.learning_rate,
            betas=(0.9, 0.95),
            weight_decay=0.0,
        )
        self.progress = TrainingProgress()
        self._accuracies: deque[float] = deque(maxlen=ACCURACY_WINDOW)

    def run(self) -> None:
        """Train through all stages, then write the model and its tokenizer."""
        self._resume()
        self.model.train()
        started, saved = time.process_time(), time.monotonic()
        cpu_before = self.progress.cpu_s
        while self.progress.stage < len(STAGES):
            stage = STAGES[self.progress.stage]
            batch = self._sampler.draw(stage, self.progress.step)
            loss, accuracy = self._train_step(batch, self._mask(batch, stage), stage)
            self._advance(stage, batch.token_ids.numel(), accuracy)
            self.progress.cpu_s = cpu_before + time.process_time() - started
            if self.progress.step % self._config.log_every == 0:
                self._report(stage, loss)
            if time.monotonic() - saved > self._config.checkpoint_s:
                self._checkpoint()
                saved = time.monotonic()
        self._checkpoint()
        self._export()

    def _mask(self, batch: Batch, stage: Stage) -> torch.Tensor | None:
        """What each token sees, [rows, 1, T, T] bool; None means all earlier tokens.

        If the stage forgets, a random share of the tokens that do not last is hidden. They are
        hidden from tokens more than a random window later, as by an eviction. A model that never
        lost a token would come to depend on any of them.
        """
        if stage.lasting is None:
            return None
        rng = torch.Generator().manual_seed(self.progress.step)
        window = int(torch.randint(24, 96, (), generator=rng))
        share = float(torch.rand((), generator=rng)) * 1.5  # all of them in a third of the batches
        lasting = batch.lasting[:, :-1]
        hidden = ~lasting & (torch.rand(lasting.shape, generator=rng) < share)
        position = torch.arange(lasting.shape[1])
        distance = position[:, None] - position
        visible = (distance >= 0) & ~(hidden[:, None, :] & (distance >= window))
        return visible[:, None].to(self._device)

    def _train_step(
        self, batch: Batch, mask: torch.Tensor | None, stage: Stage
    ) -> tuple[float, float]:
        """One optimiser step; returns (loss, accuracy on the decisive tokens)."""
        token_ids = batch.token_ids.to(self._device)
        weights = batch.weights[:, 1:].to(self._device)
        decisive = batch.decisive[:, 1:].to(self._device)
        for group in self._optimizer.param_groups:
            group["lr"] = self._config.learning_rate * self._lr_factor(stage)
        logits = self.model(input_ids=token_ids[:, :-1], attention_mask=mask).logits
        targets = token_ids[:, 1:]
        losses = F.cross_entropy(logits.transpose(1, 2), targets, reduction="none")
        loss = (losses * weights).sum() / weights.sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        correct = (logits.argmax(-1) == targets) & decisive
        return loss.item(), (correct.sum() / decisive.sum()).item()

    def _advance(self, stage: Stage, num_tokens: int, accuracy: float) -> None:
        progress = self.progress
        progress.step += 1
        progress.stage_tokens += num_tokens
        progress.total_tokens += num_tokens
        self._accuracies.append(accuracy)
        learnt = len(self._accuracies) == ACCURACY_WINDOW and self._mean_accuracy() >= stage.target
        if learnt or progress.stage_tokens >= stage.max_tokens:
            logger.info("stage %s %s", stage.name, "learnt" if learnt else "ran out of tokens")
            progress.stage += 1
            progress.stage_tokens = 0
            self._accuracies.clear()

    def _lr_factor(self, stage: Stage) -> float:
        """Linear warm-up, then constant; linear decay in a stage with `decay`."""
        warmup = min(1.0, (self.progress.step + 1) / self._config.warmup_steps)
        decayed = self.progress.stage_tokens / stage.max_tokens if stage.decay else 0.0
        return warmup * max(0.0, 1.0 - decayed)

    def _mean_accuracy(self) -> float:
        return sum(self._accuracies) / max(1, len(self._accuracies))

    def _report(self, stage: Stage, loss: float) -> None:
        progress = self.progress
        name = f"{stage.name}, decay" if stage.decay else stage.name
        logger.info(
            "stage=%s step=%d tokens=%.1fM loss=%.4f accuracy=%.5f cpu=%.0fs tokens/cpu-s=%.0f",
            name, progress.step, progress.total_tokens / 1e6, loss, self._mean_accuracy(),
            progress.cpu_s, progress.total_tokens / max(1e-9, progress.cpu_s),
        )  # fmt: skip
        if not math.isfinite(loss):
            raise FloatingPointError(f"the loss became {loss} at step {progress.step}")

    def _checkpoint(self) -> None:
        """Write weights, optimiser state and progress. Renaming the progress file seals them."""
        folder = self._out_dir / "checkpoint"
        folder.mkdir(parents=True, exist_ok=True)
        state = {
            f"model.{k}": v for k, v in self.model.state_dict().items() if k != "lm_head.weight"
        }
        for key, values in self._optimizer.state_dict()["state"].items():
            state |= {f"optimizer.{key}.{name}": tensor for name, tensor in values.items()}
        name = f"state-{self.progress.step}.safetensors"
        save_file({k: v.contiguous() for k, v in state.items()}, folder / name)
        sealed = {
            "progress": asdict(self.progress),
            "accuracies": list(self._accuracies),
            "state": name,
        }
        temporary = folder / "progress.json.tmp"
        temporary.write_text(json.dumps(sealed))
        temporary.replace(folder / "progress.json")
        for old in folder.glob("state-*.safetensors"):
            if old.name != name:
                old.unlink()

    def _resume(self) -> None:
        sealed_path = self._out_dir / "checkpoint" / "progress.json"
        if not sealed_path.exists():
            return
        sealed = json.loads(sealed_path.read_text())
        state = load_file(sealed_path.parent / sealed["state"])
        weights = {k.removeprefix("model."): v for k, v in state.items() if k.startswith("model.")}
        self.model.load_state_dict(weights, strict=False)
        self.model.tie_weights()
        optimizer_state = self._optimizer.state_dict()
        for name, tensor in state.items():
            if name.startswith("optimizer."):
                _, key, value_name = name.split(".")
                optimizer_state["state"].setdefault(int(key), {})[value_name] = tensor
        self._optimizer.load_state_dict(optimizer_state)
        self.progress = TrainingProgress(**sealed["progress"])
        self._accuracies.extend(sealed["accuracies"])
        logger.info("resumed at step %d", self.progress.step)

    def _export(self) -> None:
        self.model.save_pretrained(self._out_dir)
        self._tokenizer.save_pretrained(self._out_dir)
