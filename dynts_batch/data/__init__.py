"""Data in and out: the source of requests, the schema of a row, and the run directory.

    readers/      a data set in any format: a SourceRow each
    types/        Arrow types: what each is stored as, and what it is as JSON data
    schema.py     one output row, every field described          <- writer.py fills it
    run_dir.py    what a run leaves behind, and how it resumes   -> storage.py
    progress.py   how far a run is, read from its directory

Knows nothing about torch or Ray.
"""
