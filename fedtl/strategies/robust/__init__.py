"""Rules that a minority of bad sites cannot move at will: one file each, all on a ``Robust`` shell.

A rule is a pure function of the ``[n, p]`` updates of a round, relative to the head that was sent.
No rule weighs by the number of examples: a bad site would name a large one.

Flower's own classes for five of the rules were measured against these (Flower 1.41,
``tests/strategies/test_strategies_robust_flower.py``):

===============  ================================================================================
Flower's         differs
===============  ================================================================================
``FedMedian``    takes the arrays out of the replies it is given; else equal
``FedTrimmed-    takes the arrays out of the replies; trims one reply too few where ``beta * n``
Avg``            is whole but not in floating point (0.29 of 100); else equal
``Krum``,        squares of whole heads in float32: heads near each other and far from zero get
``MultiKrum``    noise for distances, and numbers above 1e19 overflow; Multi-Krum weighs by the
                 examples that sites claim; fewer replies than 2 f + 3 are combined as if f
                 bad ones were still borne
``Bulyan``       chooses all at once by Multi-Krum, the paper one after the other, each time
                 among those left; takes the arrays out of the replies, collecting garbage
                 each time, which costs a second or two for eleven replies
===============  ================================================================================
"""
