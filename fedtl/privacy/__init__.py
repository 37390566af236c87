"""Privacy as a value: plans, events, accountants, clipping."""
