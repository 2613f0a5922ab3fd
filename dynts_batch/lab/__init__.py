"""The built-in reasoning task: problems, tokenizer, and the trainer of the embedded model."""
