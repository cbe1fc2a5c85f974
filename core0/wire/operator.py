"""How an operator proves to be one: a short-lived client certificate, signed by the operator's key.

The certificate's issuer is `OPERATOR_NAME`, its own name is for the log. The node knows the operator's public key
from its boot configuration and nothing else.
"""

OPERATOR_NAME = "Zeronode operator"
