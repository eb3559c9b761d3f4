"""What options ask for around a run: publishing, history, schedules, locks, notifications."""
