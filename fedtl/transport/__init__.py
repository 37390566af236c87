"""Grids: how messages travel between the server's story and the sites'."""
