"""What training costs: its samples and its steps, each beside a baseline that takes turns with it."""
