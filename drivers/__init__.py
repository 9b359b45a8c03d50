"""How we talk to devices, and how we read what sequencers write."""
