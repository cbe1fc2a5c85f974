"""The client of the node's API: one class, typed answers, one error tree.

```
NodeError                    message with cause and remedy
├── UnreachableError         nobody answers at the address, or not in time
├── WrongNodeError           the node's certificate is not the one that was pinned
├── NotAllowedError          the node does not take the client's certificate
└── RefusedError             the node answered with a problem document, in `.problem`
```
"""

from core0.client.client import (
    NodeClient,
    NodeError,
    NotAllowedError,
    RefusedError,
    UnreachableError,
    WrongNodeError,
)
from core0.client.credentials import (
    OperatorKeyError,
    client_context,
    issue_certificate,
    load_key,
    make_key,
    public_hex,
)

__all__ = [
    "NodeClient",
    "NodeError",
    "NotAllowedError",
    "OperatorKeyError",
    "RefusedError",
    "UnreachableError",
    "WrongNodeError",
    "client_context",
    "issue_certificate",
    "load_key",
    "make_key",
    "public_hex",
]
