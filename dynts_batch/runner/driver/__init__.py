"""The driver: the ledger of shards, the fleet of workers, and the health of both."""
