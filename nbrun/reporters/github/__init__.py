"""Write workflow commands, the job's summary and outputs for GitHub Actions."""
