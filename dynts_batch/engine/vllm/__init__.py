"""vLLM behind the door: the full cache, for models and machines that the bounded arena cannot hold.

vLLM is no dependency: nothing here is imported unless `engine.kind` is vllm. It runs in this
process, so that its errors are raised where they happen, and nothing is left behind when a worker
is killed.
"""
