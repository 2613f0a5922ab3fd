"""From a label directory to a predictor file and a picture of its learning curve."""

from collections import Counter
from pathlib import Path

import torch

from dynts_batch.errors import InputError
from dynts_batch.kvcache.model_id import ModelId
from dynts_batch.kvcache.predictor import PredictorMetadata, save_predictor
from dynts_batch.report.charts.line_chart import Series, line_chart
from dynts_batch.training.fitting import Epoch, FitConfig, fit_predictor
from dynts_batch.training.label_dir import LabelDir
from dynts_batch.training.label_stream import LabelStream, Split
from dynts_batch.training.rank_metrics import RankMetrics

#: Fewer questions cannot be split into training, validation and held-out ones.
MIN_QUESTIONS = 10


def train_predictor(label_path: str, out: Path, config: FitConfig) -> RankMetrics:
    """Train on the labels at `label_path`. Write the predictor to `out`, its curve beside it.

    Returns the metrics on held-out questions.

    Raises:
        RunDirError: there are no finished labels.
        InputError: the labels are too few, or hold no hidden states.
    """
    label_dir = LabelDir(label_path)
    settings, manifest = label_dir.settings(), label_dir.read_manifest()
    split = Split(config.held_out, config.validation, config.seed)
    stream = LabelStream(label_dir, split)
    hidden_size = _check(label_path, label_dir, split)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    fitted = fit_predictor(stream, hidden_size, config, device)
    model = ModelId.of(settings["model"], settings["model_fingerprint"])
    metadata = PredictorMetadata(model, hidden_size, config.inputs)
    notes = {**fitted.notes, "num_traces": str(manifest["num_traces"])}
    save_predictor(out, fitted.predictor, metadata, notes)
    out.with_suffix(".svg").write_text(_picture(fitted.curve))
    return fitted.metrics


def _check(label_path: str, label_dir: LabelDir, split: Split) -> int:
    """The width of the hidden states. Checks first that each part of the split has a question."""
    parts, num_states, hidden_size = Counter[str](), 0, 0
    for shard in label_dir.finished_shards():
        for trace in label_dir.read(shard):
            parts[split.part(trace.request_id)] += 1
            num_states += len(trace.hidden_positions)
            hidden_size = trace.hidden_states.shape[1]
    if parts.total() < MIN_QUESTIONS or len(parts) < 3:
        raise InputError(
            f"{label_path} must hold at least {MIN_QUESTIONS} traces, of questions that train, "
            f"validate and are held out, got {dict(parts)}"
        )
    if num_states == 0:
        raise InputError(
            f"{label_path} must hold hidden states: label again with hidden_tokens above 0"
        )
    return hidden_size


def _picture(curve: tuple[Epoch, ...]) -> str:
    shares = curve[0].validation.overlap
    series = [
        Series(
            f"overlap@{share}",
            tuple((float(n), e.validation.overlap[share]) for n, e in enumerate(curve, start=1)),
        )
        for share in shares
    ]
    return line_chart(
        series,
        title="Importance predictor: overlap of the top tokens",
        note="validation questions",
        x_label="epoch",
    )
