"""Workflow commands, job summary and outputs for GitHub Actions."""
