"""Files in local folders and object stores, written whole or not at all."""
