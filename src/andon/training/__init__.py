"""The one training loop, its schedules and losses, and what pre-training recipes share."""
