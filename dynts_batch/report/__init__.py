"""What people read of a run: figures, tables, charts and a page. Reads run directories only."""
