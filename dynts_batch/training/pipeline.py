"""From a finished run to a predictor file: read traces, label them, fit, save."""

import logging
from pathlib import Path

from dynts_batch.data.run_dir import RunDir
from dynts_batch.engine.loader import load_model
from dynts_batch.engine.prompt import PromptRenderer
from dynts_batch.errors import InputError
from dynts_batch.kvcache.predictor import PredictorMetadata, save_predictor
from dynts_batch.training.fitting import FitConfig, Metrics, fit_predictor
from dynts_batch.training.labels import label_trace
from dynts_batch.training.traces import read_traces

logger = logging.getLogger(__name__)

#: Fewer traces than this cannot be split into training and held-out questions.
MIN_TRACES = 10


def train_predictor(run_dir: str, out: Path, config: FitConfig) -> Metrics:
    """Train on the correct traces of `run_dir` with that run's model, and write the predictor to `out`.

    Returns the metrics on held-out questions.
    Raises: RunDirError where `run_dir` is no run; InputError where it has too few correct traces.
    """
    run = RunDir(run_dir)
    model_config = run.config().model
    model = load_model(model_config)
    labelled = []
    for trace in read_traces(run, PromptRenderer(model.tokenizer)):
        labelled.append(label_trace(model, trace))
        if len(labelled) % 100 == 0:
            logger.info("labelled %d traces", len(labelled))
    if len(labelled) < MIN_TRACES:
        raise InputError(
            f"{run_dir} must hold at least {MIN_TRACES} correct traces, got {len(labelled)}"
        )
    predictor, metrics, notes = fit_predictor(labelled, config)
    metadata = PredictorMetadata(
        model_config.name, model_config.revision or "main", predictor.hidden_size
    )
    save_predictor(out, predictor, metadata, notes)
    return metrics
