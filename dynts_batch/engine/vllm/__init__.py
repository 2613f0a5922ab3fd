"""vLLM behind the door: the full cache, for models and machines that the bounded arena cannot hold.

vLLM is no dependency: nothing here is imported unless `engine.kind` is vllm. It runs in the
worker's process. So its errors are raised where they happen, and a killed worker leaves no process
behind.
"""
