"""Strategies whose sites make a head of their own, for itself or around any other strategy."""
