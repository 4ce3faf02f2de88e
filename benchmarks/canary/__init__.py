"""What `benchmarks/canaries.py` draws, computes and compares."""
