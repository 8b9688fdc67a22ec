"""Helpers for all packages: errors, files, signals, processes, command lines."""
