"""Logs, traces and metrics: one file each."""
