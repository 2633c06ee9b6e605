"""Multi Model Server's Java frontend: found, configured, started and supervised."""
