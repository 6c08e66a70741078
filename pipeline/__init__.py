"""Labelfeed: files in storage become labelling tasks, each exactly once."""
