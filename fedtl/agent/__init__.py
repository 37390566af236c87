"""The site agent: the one process at a site that opens its data, and the thin way to ask it."""
