"""Data in and out: the source of requests, the schema of a row, and the run directory.

    readers/      a data set in any format, as one SourceRow per row
    types/        Arrow types: how each is stored, and how it becomes JSON
    schema.py     one output row, every field described          <- writer.py fills it
    run_dir.py    what a run leaves behind, and how it resumes   -> storage.py
    progress.py   how far a run is, read from its directory

Knows nothing about torch or Ray.
"""
