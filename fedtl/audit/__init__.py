"""Audits of the promise itself: canaries, membership inference, and inversion of updates."""
