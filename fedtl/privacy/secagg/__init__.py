"""Secure aggregation: the server learns the sum of the sites' vectors and nothing else.

SecAgg+ (Bell, Bonawitz, Gascón, Lepoint, Raykova, "Secure Single-Server Aggregation with
(Poly)Logarithmic Overhead", CCS 2020) on the stages of Bonawitz et al. ("Practical Secure
Aggregation for Privacy-Preserving Machine Learning", CCS 2017), without a transport:

========  ==========================================  ==========================================
stage     a site sends                                and needs for it
========  ==========================================  ==========================================
keys      its public keys of this session, signed     the session
shares    its secrets, shared out and sealed for      everyone's keys
          each neighbour
masked    its vector plus masks, mod 2^64             its neighbours' shares for it
confirm   its signature under the list of sites       that list
          whose vectors arrived
unmask    for each neighbour, the share of one of     signatures of enough neighbours under the
          its two secrets                             same list
========  ==========================================  ==========================================

**What it protects from.** A server that follows the protocol but looks at everything it gets,
together with sites that tell it all they know: fewer than the threshold of them in anyone's
neighbourhood (with the default threshold of two thirds and up to 47 sites, all sites are
neighbours, so fewer than two thirds of them). They learn the sum over the other sites that
delivered, and no more. As any honest site reveals one of a neighbour's two secrets and never both,
a *lying* server gains nothing either as long as fewer than ``2 threshold - neighbourhood`` sites of
a neighbourhood are with it (a third, with two thirds). It cannot slip in keys of its own, because
every site signs its keys with an identity the others know; it cannot tell different sites of
different survivors, because they compare what they were told before they reveal anything; old
messages are of no use, because every key, mask and signature is bound to one session.

**Identities** are either listed in advance (``trusted``), or pinned when a site first meets a name
in a run. Under the latter a server that lies from the very first message on can be all of a site's
neighbours at once: real federations list the identities.

**What is not covered.** The sum itself: with few sites, or if all others collude, it says a lot
about one; only noise helps there. A site that sends nonsense within the range: the sum is then
nonsense, and nobody can tell whose. Denial of service: a site that seals unreadable shares, or a
server that loses messages, ends the round without a result. A server that lies *and* chooses among
many graphs by calling sites lost until one suits it, once there are more than 47 sites. What is
public all the same: who takes part, the length of the vectors, who dropped out.

More than 47 sites have ``2 ceil(4 log2 n)`` neighbours each. With a threshold of two thirds and up
to 10,000 sites, three in ten colluding at random break it with a probability below 1e-8, one in ten
dropping out at random end it with one below 1e-6, and against a lying server one in ten may be
with it (1e-6).
"""

from fedtl.privacy.secagg.client import advertise, confirm, mask, open_shares, reveal, share
from fedtl.privacy.secagg.keys import Identity
from fedtl.privacy.secagg.quantise import FixedPoint
from fedtl.privacy.secagg.secrets import Secrets
from fedtl.privacy.secagg.server import Server
from fedtl.privacy.secagg.session import Session, least_sites, refusal
from fedtl.privacy.secagg.vector import SharedNoise, decode, encode

__all__ = [
    "FixedPoint",
    "Identity",
    "Secrets",
    "Server",
    "Session",
    "SharedNoise",
    "advertise",
    "confirm",
    "decode",
    "encode",
    "least_sites",
    "mask",
    "open_shares",
    "refusal",
    "reveal",
    "share",
]
