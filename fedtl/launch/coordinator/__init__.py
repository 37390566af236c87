"""The coordinator's side: its folder, its certificates, who is enrolled, and what runs."""
