"""The site's ledger: its own record of the privacy it has spent, which refuses to forget.

The protocol of a release, each line durable on disk before the next begins:

1. ``reply_of``: has this request been answered? Then the stored reply is handed out again.
2. ``charge``: the release is paid for, or refused.
3. The site computes the reply, with fresh noise.
4. ``keep_reply``: the reply is stored; what it returns is handed out, and nothing else.

A process killed before 2 has spent nothing and released nothing. Killed after 2, it has paid for a
release that may never be made: too much is counted, never too little. A repeat of the request then
finds a charge without a reply. Replies are stored before they are handed out, so no reply means
that nothing has left, and the noise of the first computation is gone with the process: computing
once more under the same charge makes one release, not two. Killed after 4, the repeat gets the
stored bytes, which are the same release. Two processes that compute the same request at once hand
out the reply that was stored first.
"""

from fedtl.privacy.ledger.dataset import DataSet
from fedtl.privacy.ledger.entry import Charged, Entry, RequestKey, Verified
from fedtl.privacy.ledger.ledger import Ledger
from fedtl.privacy.ledger.spend import Budget
from fedtl.privacy.ledger.worst import epsilon_spent

__all__ = [
    "Budget",
    "Charged",
    "DataSet",
    "Entry",
    "Ledger",
    "RequestKey",
    "Verified",
    "epsilon_spent",
]
