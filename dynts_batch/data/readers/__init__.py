"""From files in any accepted format to requests.

    location.py   which files a path means                       -> text_file.py, where they are compressed
    reader.py     open_source: which format, which columns       -> source.py
    source.py     ids, prompts, references: a SourceRow each     -> chat.py, reference.py
    table.py      what every format gives: raw rows by position  <- columnar, jsonl, csv_text, openai_batch

Knows nothing about models: text is counted in rows here, not in tokens.
"""
