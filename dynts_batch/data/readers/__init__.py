"""From files in any accepted format to requests.

    location.py   which files a path means              -> text_file.py, if they are compressed
    reader.py     open_source: which format and columns -> source.py
    source.py     ids, prompts, references: SourceRows  -> chat.py, reference.py
    table.py      what every format gives: raw rows     <- columnar, jsonl, csv_text, openai_batch

Knows nothing about models: lengths are rows here, not tokens.
"""
