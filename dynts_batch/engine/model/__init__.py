"""The model: what it is, whether it can run here, and how it is loaded.

    resolved.py      ResolvedModel, which owns all that is known without weights; it is found with
                     files, support, weights, tokenizer, think_tags, companions, identity
    memory.py        what a sequence takes, and how many fit
    loader.py        LoadedModel: the weights, with pre-packed matrices on a CPU
                     -> packing, experts
    logits_check.py  the engine must reproduce the model's own logits

Knows nothing about requests and runs.
"""
