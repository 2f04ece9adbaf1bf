"""What outlives the process: artifacts on disk."""
