"""Data in and out: the source of requests, the schema of a row, and the run directory.

    reader.py     open_source: which format, which columns       -> source.py
    source.py     ids, prompts, references: a SourceRow each     -> columnar, jsonl, csv_text
    schema.py     one output row, every field described          <- writer.py fills it
    run_dir.py    what a run leaves behind, and how it resumes   -> storage.py
    progress.py   how far a run is, read from its directory

Knows nothing about torch or Ray.
"""
