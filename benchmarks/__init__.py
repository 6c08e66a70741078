"""What Labelfeed costs, each as a ratio against a raw loop of the same work in the same run.

`python -m benchmarks [NAME…]` runs them, prints a table and writes `benchmarks/results/<name>.json`.
"""
